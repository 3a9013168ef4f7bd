//! What waits, as a host asks about it with its heartbeat.

use std::collections::BTreeSet;
use std::time::Duration;

use super::rows::Outbox;
use crate::backlog::{Backlog, Measure, Wanted};
use crate::clock::Timestamp;
use crate::endpoint::EndpointName;

impl Outbox {
    /// Measures what waits.
    pub(in crate::memory) fn measure(&self, measure: &Measure, now: Timestamp) -> Backlog {
        let count = |(name, limit): &(EndpointName, u32)| {
            let destination = format!("@{name}");
            let waiting = self.waiting.get(&destination).into_iter().flatten();
            let rows = waiting.filter_map(|(_, id)| self.rows.get(id));
            let taken_over = rows.filter(|row| row.new.timer.is_none());
            let count = taken_over.take(*limit as usize).count();
            u32::try_from(count).unwrap_or(*limit)
        };
        let first = |(destination, rows): (&String, &BTreeSet<(Timestamp, i64)>)| {
            let (available_at, _) = rows.first()?;
            let age = now.as_micros() - available_at.as_micros();
            let age = u64::try_from(age).ok()?;
            Some((destination.clone(), Duration::from_micros(age)))
        };
        let is_asked = measure.oldest == Wanted::Yes;
        Backlog {
            counts: measure.endpoints.iter().map(count).collect(),
            oldest: is_asked
                .then(|| {
                    self.waiting
                        .iter()
                        .filter_map(first)
                        .max_by_key(|one| one.1)
                })
                .flatten(),
        }
    }
}
