//! The commit call for a group in which nobody loses: most groups, at the least cost. Where somebody
//! does, nothing is written, and the call for any group finds out who.

use sagabus_core::StoreError;
use sagabus_core::envelope::Due;
use sagabus_core::store::Group;
use sagabus_core::unit_of_work::{InstanceChange, Reason, Settle, Source, UnitOfWork};
use sqlx::postgres::PgArguments;
use uuid::Uuid;

use super::columns::{Columns, Placed, count, destinations, parked, placed};
use super::one::{is_simple, recognised_at};

pub(super) const COMMIT_SMOOTH: &str = "select leased, is_stale, is_lost, has_woken \
    from sagabus.commit_smooth_v1($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, \
    $16, $17, $18, $19, $20, $21, $22, $23, $24, $25, $26, $27, $28, $29, $30, $31, $32, $33, $34)";

/// A group that has nothing which only the call for any group knows.
pub(super) struct Smooth<'a> {
    group: &'a Group,
    placed: Vec<Placed<'a>>,
}

impl<'a> Smooth<'a> {
    /// Takes a group for what it is; `None` where it is not one.
    pub(super) fn of(group: &'a Group) -> Option<Self> {
        let is_delete = |settle: &Settle| matches!(settle, Settle::Delete(_));
        let is_plain = |unit: &UnitOfWork| {
            let change = unit.instance.as_ref();
            let is_only_moved =
                |one: &InstanceChange| one.disarmed.is_empty() && one.labels.is_none();
            unit.failed.is_none() && unit.sources.len() <= 1 && change.is_none_or(is_only_moved)
        };
        let is_meant = !group.units.is_empty()
            && group.settles.iter().all(is_delete)
            && group.units.iter().all(is_plain);
        // What cannot be looked up is the other call's to refuse.
        let placed = is_meant.then(|| placed(group).ok()).flatten()?;
        let is_meant = placed.iter().all(|one| is_at_once(group, one));
        is_meant.then_some(Self { group, placed })
    }

    /// Encodes it, set by set, in the order of the function's arguments.
    pub(super) fn encode(&self) -> Result<PgArguments, StoreError> {
        let mut columns = Columns::default();
        columns.add_placing(self.group)?;
        add_going(&mut columns, self.group)?;
        add_inbox(&mut columns, &self.group.units)?;
        add_instances(&mut columns, &self.group.units)?;
        add_outgoing(&mut columns, &self.placed)?;
        columns.add_entries(&self.group.units)?;
        Ok(columns.arguments)
    }
}

/// Says whether a message becomes a row that needs nothing but its own insert, and is due now.
fn is_at_once(group: &Group, (placement, outgoing): &Placed<'_>) -> bool {
    outgoing.due == Due::Now
        && outgoing.expires_after.is_none()
        && recognised_at(outgoing, placement).is_none()
        && is_simple(&group.units[placement.unit], outgoing, placement)
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
    columns.add_versions(&changes)?;
    columns.add_contents(&changes)
}

fn add_outgoing(columns: &mut Columns, placed: &[Placed<'_>]) -> Result<(), StoreError> {
    let parked = parked(placed);
    columns.add_messages(placed, &destinations(placed))?;
    columns.add_births(placed, &parked)?;
    columns.some(parked.iter().map(|one| one.map(Reason::as_str)).collect())
}
