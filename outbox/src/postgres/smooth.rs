//! The commit call for a group in which nobody loses: most groups, at the least cost. Where somebody
//! does, nothing is written, and the call for any group finds out who.

use sagabus_core::StoreError;
use sagabus_core::envelope::Due;
use sagabus_core::store::{Birth, Group};
use sagabus_core::unit_of_work::{InstanceChange, InstanceStatus, Settle, Source, UnitOfWork};
use sqlx::postgres::PgArguments;
use uuid::Uuid;

use super::columns::{Columns, Placed, count, placed};
use super::one::{is_simple, recognised_at};
use crate::row;

pub(super) const COMMIT_SMOOTH: &str = "select leased, is_stale, is_lost, has_woken \
    from sagabus.commit_smooth_v1($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, \
    $16, $17, $18, $19, $20, $21, $22, $23, $24, $25, $26, $27, $28, $29, $30, $31, $32, $33, $34)";

/// Says whether a group has nothing that only the call for any group knows.
pub(super) fn is_meant(group: &Group) -> bool {
    let is_delete = |settle: &Settle| matches!(settle, Settle::Delete(_));
    let is_plain = |unit: &UnitOfWork| {
        let change = unit.instance.as_ref();
        let is_only_moved = |one: &InstanceChange| one.disarmed.is_empty() && one.labels.is_none();
        unit.failed.is_none() && unit.sources.len() <= 1 && change.is_none_or(is_only_moved)
    };
    !group.units.is_empty()
        && group.settles.iter().all(is_delete)
        && group.units.iter().all(is_plain)
        && placed(group).is_ok_and(|placed| placed.iter().all(|one| is_at_once(group, one)))
}

/// Says whether a message becomes a row that needs nothing but its own insert, and is due now.
fn is_at_once(group: &Group, (placement, outgoing): &Placed<'_>) -> bool {
    outgoing.due == Due::Now
        && outgoing.expires_after.is_none()
        && recognised_at(outgoing, placement).is_none()
        && is_simple(&group.units[placement.unit], outgoing, placement)
}

/// Encodes a group, set by set, in the order of the function's arguments.
pub(super) fn encode(group: &Group) -> Result<PgArguments, StoreError> {
    let placed = placed(group)?;
    let mut columns = Columns::default();
    columns.add_placing(group)?;
    add_going(&mut columns, group)?;
    add_inbox(&mut columns, &group.units)?;
    add_instances(&mut columns, &group.units)?;
    add_outgoing(&mut columns, &placed)?;
    columns.add_entries(&group.units)?;
    Ok(columns.arguments)
}

/// Adds the rows that go, in the order of their ids: settled ones, and sources.
fn add_going(columns: &mut Columns, group: &Group) -> Result<(), StoreError> {
    let mut rows: Vec<(i64, i32, bool)> = Vec::with_capacity(group.units.len());
    rows.extend(group.settles.iter().filter_map(|settle| match settle {
        Settle::Delete(row) => Some((row.id, row.epoch, true)),
        _ => None,
    }));
    let settled = rows.len();
    let sources = group.units.iter().flat_map(|unit| &unit.sources);
    rows.extend(sources.filter_map(|source| match source {
        Source::Row(row) => Some((row.id, row.epoch, false)),
        Source::Broker { .. } => None,
    }));
    let sources = rows.len() - settled;
    rows.sort_unstable();
    columns.all(rows.iter().map(|row| row.0).collect())?;
    columns.all(rows.iter().map(|row| row.1).collect())?;
    columns.any(rows.iter().map(|row| row.2).collect())?;
    columns.one(i64::from(count(sources)))
}

fn add_inbox(columns: &mut Columns, units: &[UnitOfWork]) -> Result<(), StoreError> {
    let sources = units.iter().flat_map(|unit| &unit.sources);
    let taken_over = sources.filter_map(|source| match source {
        Source::Broker {
            endpoint,
            message_id,
        } => Some((message_id.as_uuid(), endpoint.0)),
        Source::Row(_) => None,
    });
    let mut keys: Vec<(Uuid, i32)> = taken_over.collect();
    keys.sort_unstable();
    columns.all(keys.iter().map(|key| key.0).collect())?;
    columns.all(keys.iter().map(|key| key.1).collect())
}

fn add_instances(columns: &mut Columns, units: &[UnitOfWork]) -> Result<(), StoreError> {
    let mut changes: Vec<&InstanceChange> = units
        .iter()
        .filter_map(|unit| unit.instance.as_ref())
        .collect();
    changes.sort_unstable_by(|one, other| one.id.cmp(&other.id));
    let each = || changes.iter().copied();
    let creates = each().filter(|one| one.expected == 0).count();
    columns.all(each().map(|one| one.id.kind.as_ref()).collect())?;
    columns.all(each().map(|one| &*one.id.key).collect())?;
    columns.all(each().map(|one| one.expected).collect())?;
    columns.one(i64::from(count(creates)))?;
    let is_completed = |one: &InstanceChange| one.status == InstanceStatus::Completed;
    columns.all(each().map(is_completed).collect())?;
    columns.some(each().map(|one| one.state.as_deref()).collect())?;
    columns.all(each().map(|one| one.schema_version).collect())?;
    columns.all(each().map(|one| one.data.as_ref()).collect())?;
    columns.all(each().map(|one| row::timers_to_json(&one.timers)).collect())?;
    let origin = |one: &InstanceChange| one.origin.as_ref().map(row::origin_to_json);
    columns.some(each().map(origin).collect())
}

fn add_outgoing(columns: &mut Columns, placed: &[Placed<'_>]) -> Result<(), StoreError> {
    let each = || placed.iter().map(|(_, outgoing)| *outgoing);
    let envelopes = || each().map(|outgoing| &outgoing.envelope);
    let destination = |(placement, outgoing): &Placed<'_>| {
        placement.place.as_stored(&outgoing.envelope.message_type)
    };
    let parked: Vec<_> = placed.iter().map(|(one, _)| row::parked(one)).collect();
    let is_leased = |((one, _), parked): (&Placed<'_>, &Option<_>)| {
        one.birth == Birth::Leased && parked.is_none()
    };
    columns.all(envelopes().map(|one| one.id.as_uuid()).collect())?;
    columns.all(envelopes().map(|one| one.message_type.as_ref()).collect())?;
    columns.all(placed.iter().map(destination).collect())?;
    columns.some(each().map(|one| one.key.as_deref()).collect())?;
    columns.all(envelopes().map(|one| one.headers.to_json()).collect())?;
    columns.all(envelopes().map(|one| one.body.as_ref()).collect())?;
    columns.any(placed.iter().zip(&parked).map(is_leased).collect())?;
    columns.some(
        parked
            .iter()
            .map(|one| one.map(|reason| reason.as_str()))
            .collect(),
    )
}
