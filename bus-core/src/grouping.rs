//! Which of the waiting units and settles share one call.

use std::collections::{HashSet, VecDeque};

use tokio::sync::oneshot;

use crate::committer::Answer;
use crate::id::InstanceId;
use crate::unit_of_work::{Settle, Source, UnitOfWork};

/// Units in one call. Measured: 400 instead of 100 adds 8 % of throughput for four times the
/// latency.
pub(crate) const UNITS_MAX: usize = 100;
/// Bytes in one call, which bounds memory and lock time. A single larger unit is its own group.
const BYTES_MAX: usize = 4 * 1024 * 1024;
/// Settles in one call: as many as a publisher's window has rows.
const SETTLES_MAX: usize = 1000;

/// What waits for a call, with who waits for its end.
#[derive(Debug)]
pub(crate) enum Entry {
    Unit(Box<UnitOfWork>, oneshot::Sender<Answer>),
    Settle(Settle, Option<oneshot::Sender<()>>),
}

/// What one call is made from.
#[derive(Default)]
pub(crate) struct Batch {
    pub(crate) units: Vec<UnitOfWork>,
    pub(crate) answers: Vec<oneshot::Sender<Answer>>,
    pub(crate) settles: Vec<Settle>,
    pub(crate) settled: Vec<oneshot::Sender<()>>,
}

/// Takes the oldest entries that may share a call.
pub(crate) fn take_group(waiting: &mut VecDeque<Entry>) -> Batch {
    let (mut batch, mut bytes) = (Batch::default(), 0);
    let units_max = waiting.len().min(UNITS_MAX);
    let mut inside = Inside {
        sources: HashSet::with_capacity(units_max),
        instances: HashSet::with_capacity(units_max),
        ..Inside::default()
    };
    let mut held_back = VecDeque::new();
    while batch.units.len() < UNITS_MAX && batch.settles.len() < SETTLES_MAX {
        let Some(entry) = waiting.pop_front() else {
            break;
        };
        match entry {
            Entry::Settle(settle, done) => {
                batch.settles.push(settle);
                batch.settled.extend(done);
            }
            Entry::Unit(unit, answer) => {
                let size = unit.size();
                let is_full = !batch.units.is_empty() && bytes + size > BYTES_MAX;
                if is_full || !inside.admits(&unit) {
                    held_back.push_back(Entry::Unit(unit, answer));
                    if is_full {
                        break;
                    }
                    continue;
                }
                bytes += size;
                batch.units.push(*unit);
                batch.answers.push(answer);
            }
        }
    }
    while let Some(entry) = held_back.pop_back() {
        waiting.push_front(entry);
    }
    batch
}

/// What the units of a group are about.
#[derive(Default)]
struct Inside {
    sources: HashSet<Source>,
    instances: HashSet<InstanceId>,
    has_held_key: bool,
    has_message: bool,
}

impl Inside {
    /// Says whether a unit may join, and notes it: at most one per source and per instance; and
    /// none that sends beside a dead letter that holds its key, which is written last: the message
    /// would stand before it.
    fn admits(&mut self, unit: &UnitOfWork) -> bool {
        let dead = unit.failed.as_deref();
        let holds_key = dead.is_some_and(|dead| dead.held_key().is_some());
        let sends = !unit.outgoing.is_empty();
        let change = unit.instance.as_ref();
        let is_known = unit.sources.iter().any(|one| self.sources.contains(one))
            || change.is_some_and(|change| self.instances.contains(&change.id))
            || holds_key && self.has_message
            || sends && self.has_held_key;
        if !is_known {
            self.sources.extend(unit.sources.iter().copied());
            self.instances
                .extend(change.map(|change| change.id.clone()));
            self.has_held_key |= holds_key;
            self.has_message |= sends;
        }
        !is_known
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::endpoint::{Destination, EndpointName};
    use crate::envelope::Outgoing;
    use crate::scripted::{envelope, moving, row, rows};
    use crate::unit_of_work::{DeadLetter, KeyAfterDeath, Reason, RowKey};

    fn sending(id: i64) -> UnitOfWork {
        let mut unit = row(id);
        unit.outgoing = vec![Outgoing::from_envelope(
            envelope("test.do"),
            Destination::Owner,
        )];
        unit
    }

    fn dead(id: i64, key_after: KeyAfterDeath) -> UnitOfWork {
        let mut unit = row(id);
        unit.failed = Some(Box::new(DeadLetter {
            endpoint: EndpointName::new("work").expect("a usable name"),
            envelope: envelope("test.do"),
            reason: Reason::Terminal,
            attempts: Vec::new(),
            key: Some("k".to_owned()),
            instance: None,
            key_after,
        }));
        unit
    }

    /// Returns the rows that each call answers.
    fn groups(units: Vec<UnitOfWork>) -> Vec<Vec<i64>> {
        let entry = |unit| Entry::Unit(Box::new(unit), oneshot::channel().0);
        let mut waiting: VecDeque<_> = units.into_iter().map(entry).collect();
        let mut all = Vec::new();
        while !waiting.is_empty() {
            let batch = take_group(&mut waiting);
            assert_eq!(batch.units.len(), batch.answers.len());
            assert!(!batch.units.is_empty(), "a call that answers nobody");
            all.push(rows(&batch.units));
        }
        all
    }

    #[test]
    fn a_call_has_so_many_units_and_settles_and_no_more() {
        let units = (0..).map(row).take(UNITS_MAX + 1).collect();
        let lengths: Vec<_> = groups(units).iter().map(Vec::len).collect();
        assert_eq!(lengths, [UNITS_MAX, 1]);

        let settle = |id| Entry::Settle(Settle::Delete(RowKey { id, epoch: 1 }), None);
        let mut waiting: VecDeque<_> = (0..).map(settle).take(SETTLES_MAX + 1).collect();
        assert_eq!(take_group(&mut waiting).settles.len(), SETTLES_MAX);
        assert_eq!(take_group(&mut waiting).settles.len(), 1);
    }

    #[test]
    fn a_call_has_so_many_bytes_unless_one_unit_has_more() {
        // Of 4 MiB.
        let half = 2 << 20;
        let fit = vec![
            moving(1, "a", half),
            moving(2, "b", half),
            moving(3, "c", 0),
        ];
        assert_eq!(groups(fit), [vec![1, 2], vec![3]]);
        // Nothing overtakes what is too large for this call.
        let larger = vec![
            moving(1, "a", half),
            moving(2, "b", 4 * half),
            moving(3, "c", 1),
        ];
        assert_eq!(groups(larger), [vec![1], vec![2], vec![3]]);
    }

    #[test]
    fn a_call_has_one_unit_for_each_source_and_instance_and_the_rest_keeps_its_order() {
        let same = vec![
            moving(1, "a", 0),
            moving(2, "a", 0),
            moving(3, "b", 0),
            moving(4, "a", 0),
        ];
        assert_eq!(groups(same), [vec![1, 3], vec![2], vec![4]]);
        assert_eq!(groups(vec![row(1), row(1), row(2)]), [vec![1, 2], vec![1]]);
    }

    #[test]
    fn nothing_is_sent_in_one_call_with_a_dead_letter_that_holds_its_key() {
        let (waits, goes_on) = (KeyAfterDeath::Waits, KeyAfterDeath::GoesOn);
        let before = vec![sending(1), dead(2, waits), sending(3)];
        assert_eq!(groups(before), [vec![1, 3], vec![2]]);
        let behind = vec![dead(1, waits), sending(2), dead(3, waits), row(4)];
        assert_eq!(groups(behind), [vec![1, 3, 4], vec![2]]);
        let free = vec![sending(1), dead(2, goes_on), sending(3)];
        assert_eq!(groups(free), [vec![1, 2, 3]]);
    }
}
