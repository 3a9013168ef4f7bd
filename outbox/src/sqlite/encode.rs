//! A group as the arguments of its text: rows of JSON, and the arena with their bytes.

use std::collections::HashSet;
use std::time::Duration;

use sagabus_core::StoreError;
use sagabus_core::attempt::failure_count;
use sagabus_core::clock;
use sagabus_core::envelope::{Envelope, Identity, Outgoing};
use sagabus_core::fingerprint::fingerprint;
use sagabus_core::store::{Birth, Group, Place, Placement};
use sagabus_core::unit_of_work::{
    DeadLetter, HistoryEntry, InstanceChange, InstanceStatus, Reason, Settle, Source, Start,
    UnitOfWork,
};
use sqlx::Arguments;
use sqlx::sqlite::SqliteArguments;

use super::rows::Rows;
use super::sections::{SLOTS, Slot};
use crate::row;

/// Everything that a text's arguments are made of.
#[derive(Debug, Default)]
pub(super) struct Encoded {
    arena: Vec<u8>,
    pub(super) deletes: Rows,
    /// Some of what is deleted is kept.
    pub(super) keeps: bool,
    pub(super) releases: Rows,
    pub(super) parks: Rows,
    pub(super) solos: Rows,
    pub(super) inbox: Rows,
    pub(super) rows: Rows,
    pub(super) updates: Rows,
    pub(super) creates: Rows,
    pub(super) disarmed: Rows,
    pub(super) plain: Rows,
    pub(super) special: Rows,
    pub(super) history: Rows,
    pub(super) dead: Rows,
    pub(super) versions: Rows,
    pub(super) unlabelled: Rows,
    pub(super) labels: Rows,
    /// Sources whose dead letters hold their keys.
    pub(super) held: Rows,
    /// Dead letters that hold their keys and were no rows.
    pub(super) stubs: Rows,
    /// Which placement each row of `plain` is, and whether it is born leased.
    pub(super) plain_places: Vec<(usize, bool)>,
    /// Which placement each row of `special` is.
    pub(super) special_places: Vec<usize>,
    /// Rows are written that somebody else may want at once.
    pub(super) has_available: bool,
}

impl Encoded {
    pub(super) fn new() -> Self {
        Self {
            // SQLite takes a part of an empty blob for null: there is always one byte.
            arena: vec![0],
            ..Self::default()
        }
    }

    /// Appends bytes to the arena and returns where they begin, from 1 as SQLite counts.
    fn put(&mut self, bytes: &[u8]) -> i64 {
        let at = self.arena.len() + 1;
        self.arena.extend_from_slice(bytes);
        length(at)
    }

    /// Appends identity and headers, then the body, and returns where they begin and how long
    /// headers and body are.
    fn put_envelope(&mut self, envelope: &Envelope) -> [i64; 4] {
        let at = self.put(envelope.id.as_uuid().as_bytes());
        let headers = envelope.headers.to_json();
        self.put(&headers);
        let body_at = self.put(&envelope.body);
        [
            at,
            length(headers.len()),
            body_at,
            length(envelope.body.len()),
        ]
    }

    pub(super) fn settle(&mut self, settle: &Settle) {
        match settle {
            Settle::Delete(row) => self.deletes.row_key(*row).end(),
            Settle::Keep { row, kept_for } => {
                self.deletes.row_key(*row).int(micros(*kept_for)).end();
                self.keeps = true;
            }
            Settle::StartSolo(row) => self.solos.row_key(*row).end(),
            Settle::Release {
                row,
                after,
                attempts,
                start,
            } => {
                let json = attempts.as_deref().and_then(row::attempts_to_json);
                let json = json.unwrap_or_default();
                let at = self.put(&json);
                self.releases
                    .row_key(*row)
                    .int(micros(*after))
                    .int(i64::from(*start == Start::GivenBack))
                    .int(at)
                    .int(length(json.len()))
                    .maybe_int(attempts.as_ref().map(|all| length(failure_count(all))))
                    .end();
                self.has_available = true;
            }
            Settle::Park {
                row,
                reason,
                attempts,
            } => {
                let json = row::attempts_to_json(attempts).unwrap_or_default();
                let at = self.put(&json);
                self.parks
                    .row_key(*row)
                    .text(reason.as_str())
                    .int(at)
                    .int(length(json.len()))
                    .int(length(failure_count(attempts)))
                    .end();
            }
        }
    }

    /// Writes what a unit takes over, accepts, moves, records and gives up.
    pub(super) fn unit(&mut self, unit: &UnitOfWork) {
        let dead = unit.failed.as_deref();
        let held = dead.and_then(|dead| Some((dead, dead.held_key()?)));
        for source in &unit.sources {
            match source {
                Source::Row(row) if held.is_some() => self.held.row_key(*row).end(),
                source => self.source(source),
            }
        }
        let is_row = |source: &Source| matches!(source, Source::Row(_));
        if let Some((dead, key)) = held.filter(|_| !unit.sources.iter().any(is_row)) {
            self.stub(dead, key);
        }
        if let Some(change) = &unit.instance {
            self.instance(change, unit.sources.len());
        }
        for entry in &unit.history {
            self.entry(entry);
        }
        if let Some(dead) = &unit.failed {
            self.give_up(dead);
        }
    }

    pub(super) fn source(&mut self, source: &Source) {
        match source {
            Source::Broker {
                endpoint,
                message_id,
            } => self.take_over(message_id.as_uuid().as_bytes(), endpoint.0),
            Source::Row(row) => self.rows.row_key(*row).end(),
        }
    }

    pub(super) fn take_over(&mut self, message_id: &[u8; 16], endpoint: i32) {
        let at = self.put(message_id);
        self.inbox.begin().int(at).int(i64::from(endpoint)).end();
    }

    /// Asks at which version an instance is.
    pub(super) fn version_of(&mut self, change: &InstanceChange) {
        let id = &change.id;
        self.versions.begin().text(&id.kind).text(&id.key).end();
    }

    fn instance(&mut self, change: &InstanceChange, n_sources: usize) {
        let timers = row::timers_to_json(&change.timers);
        let origin = change.origin.as_ref().map(row::origin_to_json);
        let origin = origin.unwrap_or_default();
        let data_at = self.put(&change.data);
        let timers_at = self.put(&timers);
        let origin_at = self.put(&origin);
        let rows = match change.expected {
            0 => &mut self.creates,
            _ => &mut self.updates,
        };
        let id = &change.id;
        rows.begin().text(&id.kind).text(&id.key);
        rows.int(change.expected)
            .int(change.expected + length(n_sources.max(1)))
            .int(i64::from(change.status == InstanceStatus::Completed))
            .maybe_text(change.state.as_deref())
            .int(i64::from(change.schema_version));
        rows.int(data_at).int(length(change.data.len()));
        rows.int(timers_at).int(length(timers.len()));
        rows.int(origin_at).int(length(origin.len())).end();
        if change.labels.is_some() {
            self.unlabelled.begin().text(&id.kind).text(&id.key).end();
        }
        for label in change.labels.iter().flatten() {
            let row = self.labels.begin().text(&id.kind).text(&id.key);
            row.text(&label.name).text(&label.value).end();
        }
        for name in &change.disarmed {
            let row = self.disarmed.begin();
            row.text(&id.kind).text(&id.key).text(name).end();
        }
    }

    fn entry(&mut self, entry: &HistoryEntry) {
        let detail = serde_json::to_vec(&entry.detail).expect("texts and numbers are always JSON");
        let at = self.put(entry.message_id.as_uuid().as_bytes());
        self.put(entry.correlation_id.as_uuid().as_bytes());
        self.put(&detail);
        let instance = entry.instance.as_ref();
        let row = self.history.begin().int(at).int(length(detail.len()));
        row.int(i64::from(entry.endpoint.0))
            .text(&entry.message_type)
            .maybe_text(instance.map(|(id, _)| id.kind.as_ref()))
            .maybe_text(instance.map(|(id, _)| &*id.key))
            .maybe_int(instance.map(|(_, version)| *version))
            .end();
    }

    fn give_up(&mut self, dead: &DeadLetter) {
        let envelope = self.put_envelope(&dead.envelope);
        let attempts = row::attempts_to_json(&dead.attempts).unwrap_or_else(|| b"[]".to_vec());
        let attempts_at = self.put(&attempts);
        let row = self.dead.begin();
        for number in envelope {
            row.int(number);
        }
        row.text(&dead.envelope.message_type)
            .text(dead.endpoint.as_str())
            .text(dead.reason.as_str())
            .maybe_text(dead.key.as_deref())
            .maybe_text(dead.instance.as_ref().map(|id| id.kind.as_ref()))
            .maybe_text(dead.instance.as_ref().map(|id| &*id.key))
            .int(attempts_at)
            .int(length(attempts.len()))
            .text(&fingerprint(dead.reason, &dead.attempts))
            .end();
    }

    /// Holds the place of a message that was no row.
    fn stub(&mut self, dead: &DeadLetter, key: &str) {
        let at = self.put(dead.envelope.id.as_uuid().as_bytes());
        let row = self.stubs.begin().int(at);
        row.text(&dead.envelope.message_type)
            .text(&row::endpoint_text(&dead.endpoint))
            .text(key)
            .end();
    }

    /// Writes the rows that messages become.
    pub(super) fn send<'a>(
        &mut self,
        group: &'a Group,
        placements: impl Iterator<Item = (usize, &'a Placement)>,
    ) {
        let mut ordered = HashSet::new();
        for (place, placement) in placements {
            let unit = &group.units[placement.unit];
            let outgoing = &unit.outgoing[placement.outgoing];
            let born = Born::new(placement, unit, outgoing, group.lease);
            if born.is_plain(outgoing) {
                self.send_plain(outgoing, &born);
                self.plain_places.push((place, born.is_leased));
            } else {
                let follows = born.is_ordered
                    && born.parked.is_none()
                    && !ordered.insert((born.destination.clone(), outgoing.key.as_deref()));
                self.send_special(outgoing, &born, follows);
                self.special_places.push(place);
            }
            self.has_available |= !born.is_leased && born.parked.is_none();
        }
    }

    fn send_plain(&mut self, outgoing: &Outgoing, born: &Born) {
        let numbers = self.put_envelope(&outgoing.envelope);
        let row = self.plain.begin();
        for number in numbers {
            row.int(number);
        }
        row.text(&outgoing.envelope.message_type)
            .text(&born.destination)
            .maybe_text(outgoing.key.as_deref())
            .int(if born.is_leased {
                born.lease
            } else {
                born.after
            })
            .int(i64::from(born.is_leased))
            .end();
    }

    fn send_special(&mut self, outgoing: &Outgoing, born: &Born, follows: bool) {
        let numbers = self.put_envelope(&outgoing.envelope);
        let attempts = row::attempts_to_json(&outgoing.attempts).unwrap_or_default();
        let attempts_at = self.put(&attempts);
        let timer = outgoing.timer.as_ref();
        let row = self.special.begin();
        for number in numbers {
            row.int(number);
        }
        row.text(&outgoing.envelope.message_type)
            .text(&born.destination)
            .maybe_text(outgoing.key.as_deref());
        row.int(born.after)
            .maybe_int(born.at)
            .int(i64::from(born.is_leased))
            .int(i64::from(born.is_ordered))
            .int(i64::from(follows))
            .maybe_int(outgoing.expires_after.map(micros))
            .int(length(failure_count(&outgoing.attempts)));
        row.int(attempts_at)
            .int(length(attempts.len()))
            .maybe_text(born.parked.map(Reason::as_str));
        row.maybe_text(timer.map(|timer| timer.owner.kind.as_ref()))
            .maybe_text(timer.map(|timer| &*timer.owner.key))
            .maybe_text(timer.map(|timer| timer.name.as_str()))
            .maybe_int(timer.map(|timer| timer.generation.cast_signed()))
            .end();
    }

    /// Makes the arguments, each in its slot.
    ///
    /// # Errors
    /// [`StoreError::Refused`] when a text holds a NUL.
    pub(super) fn arguments(self, group: &Group) -> Result<SqliteArguments, StoreError> {
        let (n_inbox, n_rows) = (self.inbox.count, self.rows.count);
        let n_held = self.held.count;
        let (n_updates, n_creates) = (self.updates.count, self.creates.count);
        let mut slots = Slots::new();
        slots.put(Slot::Arena, self.arena)?;
        // Also where nothing was placed: a subscriber may have come since.
        let is_placed = group.units.iter().any(|unit| !unit.outgoing.is_empty());
        slots.put(
            Slot::RoutesVersion,
            is_placed.then_some(group.routes_version),
        )?;
        slots.put(Slot::Lease, micros(group.lease))?;
        slots.rows(Slot::Deletes, self.deletes)?;
        slots.rows(Slot::Releases, self.releases)?;
        slots.rows(Slot::Parks, self.parks)?;
        slots.rows(Slot::Solos, self.solos)?;
        slots.rows(Slot::Inbox, self.inbox)?;
        slots.put(Slot::InboxCount, n_inbox)?;
        slots.rows(Slot::Rows, self.rows)?;
        slots.put(Slot::RowsCount, n_rows)?;
        slots.rows(Slot::Updates, self.updates)?;
        slots.put(Slot::UpdatesCount, n_updates)?;
        slots.rows(Slot::Creates, self.creates)?;
        slots.put(Slot::CreatesCount, n_creates)?;
        slots.rows(Slot::Disarmed, self.disarmed)?;
        slots.rows(Slot::Plain, self.plain)?;
        slots.rows(Slot::Special, self.special)?;
        slots.rows(Slot::History, self.history)?;
        slots.rows(Slot::Dead, self.dead)?;
        slots.rows(Slot::Versions, self.versions)?;
        slots.rows(Slot::Unlabelled, self.unlabelled)?;
        slots.rows(Slot::Labels, self.labels)?;
        slots.rows(Slot::Held, self.held)?;
        slots.put(Slot::HeldCount, n_held)?;
        slots.rows(Slot::Stubs, self.stubs)?;
        debug_assert_eq!(slots.arguments.len(), SLOTS, "a slot has no argument");
        Ok(slots.arguments)
    }
}

/// Fills the slots, in their order.
struct Slots {
    arguments: SqliteArguments,
}

impl Slots {
    fn new() -> Self {
        let mut arguments = SqliteArguments::default();
        arguments.reserve(SLOTS, 0);
        Self { arguments }
    }

    fn put<'t, T>(&mut self, slot: Slot, value: T) -> Result<(), StoreError>
    where
        T: sqlx::Encode<'t, sqlx::Sqlite> + sqlx::Type<sqlx::Sqlite>,
    {
        debug_assert_eq!(slot as usize, self.arguments.len() + 1, "out of order");
        self.arguments.add(value).map_err(StoreError::Refused)
    }

    fn rows(&mut self, slot: Slot, rows: Rows) -> Result<(), StoreError> {
        if rows.has_nul {
            return Err(StoreError::Refused(
                "a key, a type or a name holds a NUL character".into(),
            ));
        }
        match rows.count {
            0 => self.put(slot, None::<i64>),
            _ => self.put(slot, rows.json()),
        }
    }
}

/// In what condition one row comes into the world.
struct Born {
    destination: String,
    is_ordered: bool,
    is_leased: bool,
    parked: Option<Reason>,
    /// Microseconds from now until it is due.
    after: i64,
    /// Or: the time at which it is due.
    at: Option<i64>,
    lease: i64,
}

impl Born {
    fn new(placement: &Placement, unit: &UnitOfWork, outgoing: &Outgoing, lease: Duration) -> Self {
        let place = &placement.place;
        let (after, parked) = (
            row::due_after(outgoing).unwrap_or(0),
            row::parked(placement),
        );
        Self {
            destination: place.as_stored(&outgoing.envelope.message_type),
            is_ordered: row::is_in_line(unit, outgoing, place),
            is_leased: placement.birth == Birth::Leased && parked.is_none() && after == 0,
            parked,
            after,
            at: row::due_at(outgoing),
            lease: micros(lease),
        }
    }

    /// Says whether nothing has to be read back, and no rare column is set.
    fn is_plain(&self, outgoing: &Outgoing) -> bool {
        !self.is_ordered
            && self.parked.is_none()
            && self.at.is_none()
            && outgoing.timer.is_none()
            && outgoing.attempts.is_empty()
            && outgoing.expires_after.is_none()
    }
}

/// Refuses what could not be written as it is meant.
pub(super) fn check(group: &Group) -> Result<(), StoreError> {
    for placement in &group.placements {
        let unit = group.units.get(placement.unit);
        if unit.is_none_or(|unit| placement.outgoing >= unit.outgoing.len()) {
            return Err(StoreError::Refused(
                format!(
                    "placement names message {} of unit {}, which is not in the group",
                    placement.outgoing, placement.unit
                )
                .into(),
            ));
        }
        if placement.birth == Birth::Leased && group.lease.is_zero() {
            return Err(StoreError::Refused(
                "a row born leased needs a lease longer than nothing".into(),
            ));
        }
    }
    Ok(())
}

/// Says whether a placement needs an inbox row of its own, and which.
pub(super) fn given(group: &Group, placement: &Placement) -> Option<([u8; 16], i32)> {
    let outgoing = &group.units[placement.unit].outgoing[placement.outgoing];
    match (&placement.place, outgoing.identity) {
        (Place::Endpoint(target), Identity::Given) => {
            Some((outgoing.envelope.id.as_uuid().into_bytes(), target.id.0))
        }
        _ => None,
    }
}

/// Converts to microseconds, at most about 300 years, so that adding them to a time stays a whole
/// number.
pub(super) fn micros(duration: Duration) -> i64 {
    const MAX: i64 = 300 * 365 * 24 * 60 * 60 * 1_000_000;
    clock::micros(duration).min(MAX)
}

fn length(n: usize) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}
