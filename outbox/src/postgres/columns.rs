//! A group as the arguments of the commit call: one array per column, each set sorted by the key
//! under which its rows are locked.

use std::collections::{BTreeSet, HashMap};

use sagabus_core::StoreError;
use sagabus_core::attempt::failure_count;
use sagabus_core::clock::micros;
use sagabus_core::envelope::{Identity, Outgoing, Timer};
use sagabus_core::fingerprint::fingerprint;
use sagabus_core::store::{Birth, Group, Place, Placement};
use sagabus_core::unit_of_work::{
    Attempt, DeadLetter, HistoryEntry, InstanceChange, InstanceStatus, Reason, Settle, Source,
    Start, UnitOfWork,
};
use sqlx::postgres::{PgArguments, PgHasArrayType};
use sqlx::{Arguments, Encode, Postgres, Type};
use uuid::Uuid;

use super::commit::Door;
use crate::row;

/// Encodes a group, set by set, in the order of the function's arguments.
pub(super) fn encode(group: &Group, door: Door) -> Result<PgArguments, StoreError> {
    let placed = placed(group)?;
    let mut columns = Columns::default();
    columns.one(count(group.units.len()))?;
    columns.add_placing(group)?;
    columns.one(door.as_number())?;
    columns.add_settles(&group.settles)?;
    columns.add_inbox(group, &placed)?;
    columns.add_rows(&group.units)?;
    columns.add_instances(&group.units)?;
    columns.add_timers(group, &placed)?;
    columns.add_outgoing(group, &placed)?;
    columns.add_history(&group.units)?;
    columns.add_dead_letters(&group.units)?;
    Ok(columns.arguments)
}

/// What is placed, and where.
pub(super) type Placed<'a> = (&'a Placement, &'a Outgoing);

/// Looks up what each placement places.
pub(super) fn placed(group: &Group) -> Result<Vec<Placed<'_>>, StoreError> {
    let look_up = |placement| {
        let Placement { unit, outgoing, .. }: &Placement = placement;
        let found = group
            .units
            .get(*unit)
            .and_then(|unit| unit.outgoing.get(*outgoing));
        found.map(|found| (placement, found)).ok_or_else(|| {
            refused(format!(
                "placement names message {outgoing} of unit {unit}, which is not in the group"
            ))
        })
    };
    group.placements.iter().map(look_up).collect()
}

/// Returns where each message goes, as it is stored.
pub(super) fn destinations(placed: &[Placed<'_>]) -> Vec<String> {
    let destination = |(placement, outgoing): &Placed<'_>| {
        placement.place.as_stored(&outgoing.envelope.message_type)
    };
    placed.iter().map(destination).collect()
}

/// Returns why each row is parked from the first, if it is.
pub(super) fn parked(placed: &[Placed<'_>]) -> Vec<Option<Reason>> {
    placed.iter().map(|(one, _)| row::parked(one)).collect()
}

/// The arguments of a call, column by column.
#[derive(Default)]
pub(super) struct Columns {
    pub(super) arguments: PgArguments,
}

impl Columns {
    pub(super) fn one<T>(&mut self, value: T) -> Result<(), StoreError>
    where
        T: for<'q> Encode<'q, Postgres> + Type<Postgres>,
    {
        self.arguments.add(value).map_err(StoreError::Refused)
    }

    /// Adds a column; null where there are no rows.
    pub(super) fn all<T>(&mut self, values: Vec<T>) -> Result<(), StoreError>
    where
        T: for<'q> Encode<'q, Postgres> + Type<Postgres> + PgHasArrayType,
    {
        let column = (!values.is_empty()).then_some(values);
        self.arguments.add(column).map_err(StoreError::Refused)
    }

    /// Adds a column that is null as a whole where all its values are.
    pub(super) fn some<T>(&mut self, values: Vec<Option<T>>) -> Result<(), StoreError>
    where
        T: for<'q> Encode<'q, Postgres> + Type<Postgres> + PgHasArrayType,
    {
        let column = values.iter().any(Option::is_some).then_some(values);
        self.arguments.add(column).map_err(StoreError::Refused)
    }

    /// Adds a column that is null as a whole where no value is true.
    pub(super) fn any(&mut self, values: Vec<bool>) -> Result<(), StoreError> {
        let column = values.contains(&true).then_some(values);
        self.arguments.add(column).map_err(StoreError::Refused)
    }

    /// Adds the routes by which messages were placed, null where there are none, and the lease.
    pub(super) fn add_placing(&mut self, group: &Group) -> Result<(), StoreError> {
        let is_leased = |placement: &Placement| placement.birth == Birth::Leased;
        if group.lease.is_zero() && group.placements.iter().any(is_leased) {
            return Err(refused(
                "a row born leased needs a lease longer than nothing",
            ));
        }
        // Also where nothing was placed: a subscriber may have come since.
        let is_placed = group.units.iter().any(|unit| !unit.outgoing.is_empty());
        self.one(is_placed.then_some(group.routes_version))?;
        self.one(micros(group.lease))
    }

    fn add_settles(&mut self, settles: &[Settle]) -> Result<(), StoreError> {
        let mut deletes: Vec<_> = settles
            .iter()
            .filter_map(|settle| match settle {
                Settle::Delete(row) | Settle::Keep { row, .. } => Some((row.id, row.epoch)),
                _ => None,
            })
            .collect();
        deletes.sort_unstable();
        self.all(deletes.iter().map(|row| row.0).collect())?;
        self.all(deletes.iter().map(|row| row.1).collect())?;

        let mut changes: Vec<_> = settles.iter().filter_map(Change::of).collect();
        changes.sort_unstable_by_key(|change| (change.id, change.does));
        self.all(changes.iter().map(|change| change.id).collect())?;
        self.all(changes.iter().map(|change| change.epoch).collect())?;
        self.all(changes.iter().map(|change| change.does).collect())?;
        self.some(changes.iter().map(|change| change.after).collect())?;
        self.all(changes.iter().map(|change| change.back).collect())?;
        let failures = |change: &Change<'_>| change.attempts.map(|all| count(failure_count(all)));
        self.some(changes.iter().map(failures).collect())?;
        let attempts = |change: &Change<'_>| change.attempts.and_then(row::attempts_to_json);
        self.some(changes.iter().map(attempts).collect())?;
        self.some(changes.iter().map(|change| change.reason).collect())
    }

    /// Adds the messages that are taken over, and those whose identity a caller gave.
    fn add_inbox(&mut self, group: &Group, placed: &[Placed<'_>]) -> Result<(), StoreError> {
        let mut keys: Vec<(Uuid, i32, i32, Option<i32>)> = Vec::with_capacity(group.units.len());
        for (at, unit) in group.units.iter().enumerate() {
            keys.extend(unit.sources.iter().filter_map(|source| match source {
                Source::Broker {
                    endpoint,
                    message_id,
                } => Some((message_id.as_uuid(), endpoint.0, number(at), None)),
                Source::Row(_) => None,
            }));
        }
        for (at, (placement, outgoing)) in placed.iter().enumerate() {
            if let (Identity::Given, Place::Endpoint(target)) =
                (outgoing.identity, &placement.place)
            {
                let message = outgoing.envelope.id.as_uuid();
                let (unit, place) = (number(placement.unit), Some(number(at)));
                keys.push((message, target.id.0, unit, place));
            }
        }
        keys.sort_unstable();
        self.all(keys.iter().map(|key| key.0).collect())?;
        self.all(keys.iter().map(|key| key.1).collect())?;
        self.all(keys.iter().map(|key| key.2).collect())?;
        self.some(keys.iter().map(|key| key.3).collect())
    }

    /// Adds the rows that are taken over.
    fn add_rows(&mut self, units: &[UnitOfWork]) -> Result<(), StoreError> {
        let mut keys = Vec::new();
        for (at, unit) in units.iter().enumerate() {
            keys.extend(unit.sources.iter().filter_map(|source| match source {
                Source::Row(row) => Some((row.id, row.epoch, number(at))),
                Source::Broker { .. } => None,
            }));
        }
        keys.sort_unstable();
        self.all(keys.iter().map(|key| key.0).collect())?;
        self.all(keys.iter().map(|key| key.1).collect())?;
        self.all(keys.iter().map(|key| key.2).collect())
    }

    fn add_instances(&mut self, units: &[UnitOfWork]) -> Result<(), StoreError> {
        let change = |(at, unit)| {
            let UnitOfWork {
                instance, sources, ..
            }: &UnitOfWork = unit;
            let steps = count(sources.len().max(1));
            instance.as_ref().map(|change| (change, number(at), steps))
        };
        let mut changes: Vec<(&InstanceChange, i32, i32)> =
            units.iter().enumerate().filter_map(change).collect();
        changes.sort_unstable_by(|(a, ..), (b, ..)| a.id.cmp(&b.id));
        let is_merged = changes.iter().any(|(_, _, steps)| *steps > 1);

        self.all(changes.iter().map(|(_, unit, _)| *unit).collect())?;
        let all: Vec<&InstanceChange> = changes.iter().map(|(change, ..)| *change).collect();
        self.add_versions(&all)?;
        let steps = changes.iter().map(|(_, _, steps)| *steps).collect();
        self.all(if is_merged { steps } else { Vec::new() })?;
        self.add_contents(&all)
    }

    /// Adds which instances change, and from which version on.
    pub(super) fn add_versions(&mut self, changes: &[&InstanceChange]) -> Result<(), StoreError> {
        let each = || changes.iter().copied();
        self.all(each().map(|one| one.id.kind.as_ref()).collect())?;
        self.all(each().map(|one| &*one.id.key).collect())?;
        self.all(each().map(|one| one.expected).collect())
    }

    /// Adds how many of them are new, and what each becomes.
    pub(super) fn add_contents(&mut self, changes: &[&InstanceChange]) -> Result<(), StoreError> {
        let each = || changes.iter().copied();
        let creates = each().filter(|one| one.expected == 0).count();
        self.one(i64::from(count(creates)))?;
        let is_completed = |one: &InstanceChange| one.status == InstanceStatus::Completed;
        self.all(each().map(is_completed).collect())?;
        self.some(each().map(|one| one.state.as_deref()).collect())?;
        self.all(each().map(|one| one.schema_version).collect())?;
        self.all(each().map(|one| one.data.as_ref()).collect())?;
        self.all(each().map(|one| row::timers_to_json(&one.timers)).collect())?;
        let origin = |one: &InstanceChange| one.origin.as_ref().map(row::origin_to_json);
        self.some(each().map(origin).collect())
    }

    /// Adds the timers whose rows go: the cancelled ones, and those that are armed anew.
    fn add_timers(&mut self, group: &Group, placed: &[Placed<'_>]) -> Result<(), StoreError> {
        let mut timers = BTreeSet::new();
        for (at, unit) in group.units.iter().enumerate() {
            let Some(change) = &unit.instance else {
                continue;
            };
            timers.extend(change.disarmed.iter().map(|name| {
                let id = &change.id;
                (id.kind.as_ref(), &*id.key, name.as_str(), number(at))
            }));
        }
        timers.extend(placed.iter().filter_map(|(placement, outgoing)| {
            let timer = outgoing.timer.as_ref()?;
            let (kind, key) = (timer.owner.kind.as_ref(), &*timer.owner.key);
            Some((kind, key, timer.name.as_str(), number(placement.unit)))
        }));
        self.all(timers.iter().map(|timer| timer.3).collect())?;
        self.all(timers.iter().map(|timer| timer.0).collect())?;
        self.all(timers.iter().map(|timer| timer.1).collect())?;
        self.all(timers.iter().map(|timer| timer.2).collect())
    }

    /// Adds what messages are, and where each goes.
    pub(super) fn add_messages(
        &mut self,
        placed: &[Placed<'_>],
        destinations: &[String],
    ) -> Result<(), StoreError> {
        let each = || placed.iter().map(|(_, outgoing)| *outgoing);
        let envelopes = || each().map(|outgoing| &outgoing.envelope);
        self.all(envelopes().map(|one| one.id.as_uuid()).collect())?;
        self.all(envelopes().map(|one| one.message_type.as_ref()).collect())?;
        self.all(destinations.iter().map(String::as_str).collect())?;
        self.some(each().map(|one| one.key.as_deref()).collect())?;
        self.all(envelopes().map(|one| one.headers.to_json()).collect())?;
        self.all(envelopes().map(|one| one.body.as_ref()).collect())
    }

    /// Adds which rows are born leased: none that is parked.
    pub(super) fn add_births(
        &mut self,
        placed: &[Placed<'_>],
        parked: &[Option<Reason>],
    ) -> Result<(), StoreError> {
        let is_leased = |((one, _), parked): (&Placed<'_>, &Option<Reason>)| {
            one.birth == Birth::Leased && parked.is_none()
        };
        self.any(placed.iter().zip(parked).map(is_leased).collect())
    }

    fn add_outgoing(&mut self, group: &Group, placed: &[Placed<'_>]) -> Result<(), StoreError> {
        let destinations = destinations(placed);
        let parked = parked(placed);
        let in_line = |((placement, outgoing), parked): (&Placed<'_>, &Option<_>)| {
            parked.is_none()
                && row::is_in_line(&group.units[placement.unit], outgoing, &placement.place)
        };
        let in_line: Vec<bool> = placed.iter().zip(&parked).map(in_line).collect();

        let each = || placed.iter().map(|(_, outgoing)| *outgoing);
        self.all(placed.iter().map(|(one, _)| number(one.unit)).collect())?;
        self.add_messages(placed, &destinations)?;
        let previous = previous(placed, &destinations, &in_line);
        self.any(in_line)?;
        self.some(previous)?;
        self.add_births(placed, &parked)?;
        self.add_due(each())?;
        let failures =
            |one: &Outgoing| Some(count(failure_count(&one.attempts))).filter(|n| *n > 0);
        self.some(each().map(failures).collect())?;
        let attempts = |one: &Outgoing| row::attempts_to_json(&one.attempts);
        self.some(each().map(attempts).collect())?;
        self.some(parked.iter().map(|one| one.map(Reason::as_str)).collect())?;
        let timers = || each().map(|one| one.timer.as_ref());
        let owners = || timers().map(|one| one.map(|one| &one.owner));
        self.some(
            owners()
                .map(|one| one.map(|one| one.kind.as_ref()))
                .collect(),
        )?;
        self.some(owners().map(|one| one.map(|one| &*one.key)).collect())?;
        self.some(
            timers()
                .map(|one| one.map(|one| one.name.as_str()))
                .collect(),
        )?;
        let generation = |one: &Timer| i64::try_from(one.generation).unwrap_or(i64::MAX);
        self.some(timers().map(|one| one.map(generation)).collect())
    }

    fn add_due<'a>(
        &mut self,
        each: impl Iterator<Item = &'a Outgoing> + Clone,
    ) -> Result<(), StoreError> {
        self.some(each.clone().map(row::due_after).collect())?;
        self.some(each.clone().map(row::due_at).collect())?;
        self.some(each.map(|one| one.expires_after.map(micros)).collect())
    }

    fn add_history(&mut self, units: &[UnitOfWork]) -> Result<(), StoreError> {
        let of_unit = |(at, unit): (usize, &'_ UnitOfWork)| (number(at), unit.history.len());
        let owners = units.iter().enumerate().map(of_unit);
        let owners = owners.flat_map(|(unit, length)| std::iter::repeat_n(unit, length));
        self.all(owners.collect())?;
        self.add_entries(units)
    }

    /// Adds entries of the history without their units.
    pub(super) fn add_entries(&mut self, units: &[UnitOfWork]) -> Result<(), StoreError> {
        let each = || units.iter().flat_map(|unit| &unit.history);
        self.all(each().map(|one| one.endpoint.0).collect())?;
        self.all(each().map(|one| one.message_id.as_uuid()).collect())?;
        self.all(each().map(|one| one.message_type.as_ref()).collect())?;
        self.all(each().map(|one| one.correlation_id.as_uuid()).collect())?;
        let instances = || each().map(|one| one.instance.as_ref());
        self.some(
            instances()
                .map(|one| one.map(|(id, _)| id.kind.as_ref()))
                .collect(),
        )?;
        self.some(instances().map(|one| one.map(|(id, _)| &*id.key)).collect())?;
        self.some(
            instances()
                .map(|one| one.map(|(_, version)| *version))
                .collect(),
        )?;
        let detail = |one: &HistoryEntry| {
            serde_json::to_vec(&one.detail).map_err(|error| StoreError::Refused(error.into()))
        };
        self.all(each().map(detail).collect::<Result<Vec<_>, _>>()?)
    }

    fn add_dead_letters(&mut self, units: &[UnitOfWork]) -> Result<(), StoreError> {
        let failed = |(at, unit): (usize, &'_ UnitOfWork)| unit.failed.as_ref().map(|_| number(at));
        self.all(units.iter().enumerate().filter_map(failed).collect())?;
        let each = || units.iter().filter_map(|unit| unit.failed.as_deref());
        self.all(each().map(|one| one.endpoint.as_str()).collect())?;
        self.all(each().map(|one| one.envelope.id.as_uuid()).collect())?;
        // The type of a message that nobody could take may be anything.
        self.all(
            each()
                .map(|one| one.envelope.message_type.replace('\0', "\u{fffd}"))
                .collect(),
        )?;
        self.all(each().map(|one| one.reason.as_str()).collect())?;
        self.some(each().map(|one| one.key.as_deref()).collect())?;
        let instances = || each().map(|one| one.instance.as_ref());
        self.some(
            instances()
                .map(|one| one.map(|one| one.kind.as_ref()))
                .collect(),
        )?;
        self.some(instances().map(|one| one.map(|one| &*one.key)).collect())?;
        self.all(each().map(|one| one.envelope.headers.to_json()).collect())?;
        self.all(each().map(|one| one.envelope.body.as_ref()).collect())?;
        let attempts = |one: &DeadLetter| attempts(&one.attempts);
        self.all(each().map(attempts).collect())?;
        self.all(
            each()
                .map(|one| fingerprint(one.reason, &one.attempts))
                .collect(),
        )
    }
}

/// A settle that changes its row.
struct Change<'a> {
    id: i64,
    epoch: i32,
    does: i16,
    after: Option<i64>,
    back: i32,
    attempts: Option<&'a [Attempt]>,
    reason: Option<&'static str>,
}

impl<'a> Change<'a> {
    /// `None` for a settle that removes its row.
    fn of(settle: &'a Settle) -> Option<Self> {
        let (Settle::Delete(row)
        | Settle::Release { row, .. }
        | Settle::Park { row, .. }
        | Settle::Keep { row, .. }
        | Settle::StartSolo(row)) = settle;
        let nothing = Self {
            id: row.id,
            epoch: row.epoch,
            does: 4,
            after: None,
            back: 0,
            attempts: None,
            reason: None,
        };
        match settle {
            Settle::Delete(_) | Settle::Keep { .. } => None,
            Settle::Release {
                after,
                attempts,
                start,
                ..
            } => Some(Self {
                does: 2,
                after: Some(micros(*after)),
                back: i32::from(*start == Start::GivenBack),
                attempts: attempts.as_deref(),
                ..nothing
            }),
            Settle::Park {
                reason, attempts, ..
            } => Some(Self {
                does: 3,
                attempts: Some(attempts),
                reason: Some(reason.as_str()),
                ..nothing
            }),
            Settle::StartSolo(_) => Some(nothing),
        }
    }
}

/// Names, for each row in a line, the one before it in the same call.
fn previous(placed: &[Placed<'_>], destinations: &[String], in_line: &[bool]) -> Vec<Option<i32>> {
    let mut lasts = HashMap::new();
    let before = |at: usize| {
        let (_, outgoing) = placed[at];
        let line = (destinations[at].as_str(), outgoing.key.as_deref());
        in_line[at]
            .then(|| lasts.insert(line, number(at)))
            .flatten()
    };
    (0..placed.len()).map(before).collect()
}

/// Encodes failed tries of a dead letter, where none are an empty list.
fn attempts(attempts: &[Attempt]) -> Vec<u8> {
    row::attempts_to_json(attempts).unwrap_or_else(|| b"[]".to_vec())
}

/// Numbers a unit or an outgoing row: from 1, as arrays do.
fn number(index: usize) -> i32 {
    count(index + 1)
}

pub(super) fn count(length: usize) -> i32 {
    i32::try_from(length).unwrap_or(i32::MAX)
}

fn refused(text: impl Into<String>) -> StoreError {
    StoreError::Refused(text.into().into())
}
