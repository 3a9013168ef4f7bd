//! What holds the places of dead letters whose keys wait.

use bytes::Bytes;

use super::rows::{NewRow, Outbox, Row};
use crate::clock::Timestamp;
use crate::endpoint::Order;
use crate::envelope::Envelope;
use crate::headers::Headers;
use crate::id::MessageId;
use crate::store::Birth;
use crate::unit_of_work::DeadLetter;

impl Outbox {
    /// Makes a stub of a row that stands in a line, which holds its place; any other row goes.
    pub(in crate::memory) fn hold(&mut self, id: i64, now: Timestamp) {
        if self.rows.get(&id).and_then(Row::line).is_none() {
            return self.remove(id, now);
        }
        self.move_to(id, Timestamp::NEVER);
        self.change(id, |row| {
            // Nobody who had the row can settle or extend the stub.
            row.epoch += 1;
            (row.starts, row.failures, row.solo_starts) = (0, 0, 0);
            row.new = NewRow::stub(
                row.new.destination.clone(),
                row.new.key.clone(),
                &row.new.envelope,
            );
        });
    }

    /// Writes the stub of a message that was no row.
    pub(in crate::memory) fn put_stub(
        &mut self,
        destination: String,
        dead: &DeadLetter,
        now: Timestamp,
    ) {
        if self
            .stub(&destination, dead.held_key(), dead.envelope.id)
            .is_some()
        {
            return;
        }
        let key = dead.held_key().map(str::to_owned);
        let stub = NewRow::stub(destination, key, &dead.envelope);
        self.insert(stub, Birth::Available, now, now);
        let id = self.last_id;
        self.move_to(id, Timestamp::NEVER);
        self.change(id, |row| row.epoch = 1);
    }

    /// Finds the stub of a dead letter.
    pub(in crate::memory) fn stub(
        &self,
        destination: &str,
        key: Option<&str>,
        message: MessageId,
    ) -> Option<i64> {
        let line = (destination.to_owned(), key?.to_owned());
        let is_meant = |id: &&i64| {
            let row = self.rows.get(id);
            row.is_some_and(|row| row.is_stub() && row.new.envelope.id == message)
        };
        self.lines.get(&line)?.iter().find(is_meant).copied()
    }

    /// Puts a message in the place that its stub held.
    pub(in crate::memory) fn fill_stub(&mut self, id: i64, envelope: Envelope, now: Timestamp) {
        self.move_to(id, now);
        self.change(id, |row| {
            row.new.envelope = envelope;
            row.new.due_at = now;
            row.created_at = now;
        });
        self.has_news = true;
    }

    /// Counts the rows that hold the places of dead letters.
    pub(in crate::memory) fn stub_count(&self) -> usize {
        self.rows.values().filter(|row| row.is_stub()).count()
    }
}

impl NewRow {
    /// Makes what holds the place of a dead letter.
    fn stub(destination: String, key: Option<String>, envelope: &Envelope) -> Self {
        Self {
            destination,
            order: Order::PerKey,
            envelope: Envelope {
                headers: Headers::default(),
                body: Bytes::new(),
                ..envelope.clone()
            },
            key,
            due_at: Timestamp::NEVER,
            expires_at: None,
            attempts: Vec::new(),
            timer: None,
        }
    }
}
