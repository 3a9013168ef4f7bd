//! Messages that brokers took, kept by the policy of their host.

use std::time::Duration;

use super::rows::{NewRow, Outbox};
use crate::admin::StoredSent;
use crate::clock::Timestamp;
use crate::store::Birth;

/// What was sent, with its times.
pub(super) struct Sent {
    new: NewRow,
    sent_at: Timestamp,
    kept_until: Timestamp,
}

impl Outbox {
    /// Removes a row that a broker took, and keeps what it was.
    pub(super) fn keep(&mut self, id: i64, kept_for: Duration, now: Timestamp) {
        let Some(row) = self.rows.remove(&id) else {
            return;
        };
        self.step_out(id, &row, now);
        let sent = Sent {
            new: row.new,
            sent_at: now,
            kept_until: now.plus(kept_for),
        };
        self.sent.insert(id, sent);
    }

    /// Lists what is kept, the oldest row first.
    pub(in crate::memory) fn kept(&self) -> impl DoubleEndedIterator<Item = StoredSent> {
        self.sent.iter().map(|(id, one)| listed(*id, one))
    }

    /// Writes what is kept into the outbox again; it is kept no more. Returns it as it was.
    pub(in crate::memory) fn republish(&mut self, id: i64, now: Timestamp) -> Option<StoredSent> {
        let sent = self.sent.remove(&id)?;
        let stored = listed(id, &sent);
        let row = NewRow {
            due_at: now,
            attempts: Vec::new(),
            ..sent.new
        };
        self.insert(row, Birth::Available, now, now);
        Some(stored)
    }

    /// Removes what was kept for long enough, and counts it.
    pub(in crate::memory) fn sweep_sent(&mut self, rows_max: usize, now: Timestamp) -> usize {
        let old = self.sent.iter().filter(|(_, one)| one.kept_until < now);
        let old: Vec<i64> = old.map(|(id, _)| *id).take(rows_max).collect();
        for id in &old {
            self.sent.remove(id);
        }
        old.len()
    }
}

fn listed(id: i64, one: &Sent) -> StoredSent {
    let envelope = &one.new.envelope;
    StoredSent {
        id,
        message: envelope.id,
        message_type: envelope.message_type.to_string(),
        destination: one.new.destination.clone(),
        key: one.new.key.clone(),
        sent_at: one.sent_at,
        kept_until: one.kept_until,
    }
}
