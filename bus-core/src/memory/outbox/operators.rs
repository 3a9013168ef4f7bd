//! What operators see and do: rows as they are stored, and what becomes of parked ones.

use super::rows::{Outbox, Row};
use crate::admin::{StoredRow, cut};
use crate::clock::Timestamp;
use crate::endpoint::Order;
use crate::envelope::Envelope;
use crate::id::MessageId;
use crate::store::Target;

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
            self.unpark(id, Some(target), now);
        }
    }

    /// Gives a parked row back to the hosts, at its own destination or at another one.
    fn unpark(&mut self, id: i64, target: Option<&Target>, now: Timestamp) {
        self.change(id, |row| {
            row.parked = None;
            row.available_at = row.new.due_at.max(now);
            if let Some(target) = target {
                row.new.destination = format!("@{}", target.name);
                // What is not due before later stands in no line, as always.
                let is_due = row.new.due_at <= now;
                row.new.order = if is_due {
                    target.order
                } else {
                    Order::Unordered
                };
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
        let target = match stored.destination.starts_with('?') {
            true => Some(owner_of(&stored.envelope.message_type)?),
            false => None,
        };
        self.change(id, |row| {
            row.new.attempts.clear();
            (row.starts, row.failures, row.solo_starts) = (0, 0, 0);
        });
        self.unpark(id, target.as_ref(), now);
        Some(stored)
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
