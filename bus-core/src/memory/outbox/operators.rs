//! What operators see and do: rows as they are stored, and what becomes of parked ones.

use super::rows::{Outbox, Row};
use crate::admin::{PARKED_BY_OPERATOR, StoredRow, cut};
use crate::clock::Timestamp;
use crate::endpoint::Order;
use crate::envelope::Envelope;
use crate::id::MessageId;
use crate::store::Target;

/// Where an operator sends a row.
pub(in crate::memory) enum Place {
    Endpoint(Target),
    Address(String),
}

impl Outbox {
    /// Hands the parked messages of one destination to an endpoint.
    pub(in crate::memory) fn adopt(&mut self, parked_at: &str, target: &Target, now: Timestamp) {
        let is_meant =
            |row: &Row| row.parked == Some("no_owner") && row.new.destination == parked_at;
        let ids: Vec<i64> = self
            .rows
            .iter()
            .filter(|(_, row)| is_meant(row))
            .map(|(id, _)| *id)
            .collect();
        for id in ids {
            self.unpark(id, Some(&Place::Endpoint(target.clone())), now);
        }
    }

    /// Gives a parked row back to the hosts, at its own destination or at another one.
    fn unpark(&mut self, id: i64, place: Option<&Place>, now: Timestamp) {
        self.change(id, |row| {
            row.parked = None;
            row.available_at = row.new.due_at.max(now);
            match place {
                None => {}
                Some(Place::Address(address)) => row.new.destination.clone_from(address),
                Some(Place::Endpoint(target)) => {
                    row.new.destination = format!("@{}", target.name);
                    // What is not due before later stands in no line, as always.
                    let is_due = row.new.due_at <= now;
                    row.new.order = match is_due {
                        true => target.order,
                        false => Order::Unordered,
                    };
                }
            }
        });
        let Some(row) = self.rows.get(&id) else {
            return;
        };
        let (line, available_at) = (row.line(), row.available_at);
        let destination = row.new.destination.clone();
        if let Some(line) = line {
            self.lines.entry(line).or_default().insert(id);
        }
        self.wait(&destination, available_at, id);
        self.has_news = true;
    }

    /// Lets hosts try a parked row again as if it were new; `owner_of` says which endpoint takes a
    /// command that nobody took. Returns the row as it was, where it is released.
    pub(in crate::memory) fn release(
        &mut self,
        id: i64,
        owner_of: impl FnOnce(&str) -> Option<Target>,
        now: Timestamp,
    ) -> Option<StoredRow> {
        let row = self.rows.get(&id).filter(|row| row.parked.is_some())?;
        let stored = stored_row(id, row, 0);
        let place = match stored.destination.starts_with('?') {
            true => Some(Place::Endpoint(owner_of(&stored.envelope.message_type)?)),
            false => None,
        };
        self.try_anew(id, place.as_ref(), now);
        Some(stored)
    }

    fn try_anew(&mut self, id: i64, place: Option<&Place>, now: Timestamp) {
        self.change(id, |row| {
            row.new.attempts.clear();
            (row.starts, row.failures, row.solo_starts) = (0, 0, 0);
        });
        self.unpark(id, place, now);
    }

    /// Lets hosts try a parked row at another place. Returns the row as it was.
    pub(in crate::memory) fn readdress(
        &mut self,
        id: i64,
        place: &Place,
        now: Timestamp,
    ) -> Option<StoredRow> {
        let row = self.rows.get(&id).filter(|row| row.parked.is_some())?;
        let stored = stored_row(id, row, 0);
        self.try_anew(id, Some(place), now);
        Some(stored)
    }

    /// Sets a row aside for an operator, whoever has it in hand, and returns it as it was.
    pub(in crate::memory) fn set_aside(&mut self, id: i64, now: Timestamp) -> Option<StoredRow> {
        let stored = self.moving(id)?;
        let mut row = self.rows.remove(&id)?;
        self.step_out(id, &row, now);
        row.parked = Some(PARKED_BY_OPERATOR);
        row.epoch += 1;
        self.rows.insert(id, row);
        Some(stored)
    }

    /// Makes a row due that waits for its time, and returns it as it was.
    pub(in crate::memory) fn expedite(&mut self, id: i64, now: Timestamp) -> Option<StoredRow> {
        let stored = self.moving(id)?;
        let row = self.rows.get(&id)?;
        if row.available_at <= now || row.starts > row.failures {
            return None;
        }
        self.change(id, |row| row.new.due_at = row.new.due_at.min(now));
        self.move_to(id, now);
        self.has_news = true;
        Some(stored)
    }

    /// Returns a row that is the hosts', neither timer nor stub.
    fn moving(&self, id: i64) -> Option<StoredRow> {
        let is_meant =
            |row: &&Row| row.parked.is_none() && row.new.timer.is_none() && !row.is_stub();
        let row = self.rows.get(&id).filter(is_meant)?;
        Some(stored_row(id, row, 0))
    }

    /// Removes a parked row and returns it.
    pub(in crate::memory) fn discard(&mut self, id: i64, now: Timestamp) -> Option<StoredRow> {
        let row = self.rows.get(&id).filter(|row| row.parked.is_some())?;
        let stored = stored_row(id, row, 0);
        self.remove(id, now);
        Some(stored)
    }

    /// Moves a timer that is not due yet, and returns it as it was.
    pub(in crate::memory) fn move_timer(
        &mut self,
        id: i64,
        due: Timestamp,
        now: Timestamp,
    ) -> Option<StoredRow> {
        let stored = self.armed(id, now)?;
        self.change(id, |row| row.new.due_at = due);
        self.move_to(id, due);
        self.has_news = true;
        Some(stored)
    }

    /// Removes a timer that is not due yet, and returns it.
    pub(in crate::memory) fn cancel_timer(&mut self, id: i64, now: Timestamp) -> Option<StoredRow> {
        let stored = self.armed(id, now)?;
        self.remove(id, now);
        Some(stored)
    }

    /// Returns a timer that is not due yet: nobody has it in hand.
    fn armed(&self, id: i64, now: Timestamp) -> Option<StoredRow> {
        let is_armed =
            |row: &&Row| row.new.timer.is_some() && row.parked.is_none() && row.new.due_at > now;
        let row = self.rows.get(&id).filter(is_armed)?;
        Some(stored_row(id, row, 0))
    }

    /// Returns how often a message failed as a row; none where it is no row, or one that only holds
    /// a place.
    pub(in crate::memory) fn failures_of(&self, destination: &str, id: MessageId) -> Option<i32> {
        let is_meant = |row: &&Row| {
            let is_it = row.new.envelope.id == id && row.new.destination == destination;
            is_it && !row.is_stub() && row.parked.is_none()
        };
        self.rows.values().find(is_meant).map(|row| row.failures)
    }

    /// Lists rows by their ids, the oldest first.
    pub(in crate::memory) fn stored(
        &self,
        body_bytes_max: u32,
    ) -> impl DoubleEndedIterator<Item = StoredRow> {
        self.rows
            .iter()
            .map(move |(id, row)| stored_row(*id, row, body_bytes_max))
    }
}

fn stored_row(id: i64, row: &Row, body_bytes_max: u32) -> StoredRow {
    let envelope = &row.new.envelope;
    StoredRow {
        id,
        destination: row.new.destination.clone(),
        envelope: Envelope {
            body: cut(&envelope.body, body_bytes_max),
            ..envelope.clone()
        },
        body_bytes: envelope.body.len() as u64,
        key: row.new.key.clone(),
        available_at: row.available_at,
        due_at: (row.new.due_at > row.created_at).then_some(row.new.due_at),
        expires_at: row.new.expires_at,
        epoch: row.epoch,
        failures: row.failures,
        attempts: row.new.attempts.clone(),
        parked: row.parked.map(str::to_owned),
        timer: row.new.timer.clone(),
        created_at: row.created_at,
    }
}
