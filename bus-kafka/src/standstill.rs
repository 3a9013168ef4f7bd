//! Whether a partition stands still: records wait at the broker, and the client brings none.
//!
//! After its broker was restarted librdkafka now and then stops fetching a partition for good, while
//! its member goes on being part of the group (librdkafka's issue 5153, rust-rdkafka's issue 597).
//! Nothing but a new client helps, and nobody else notices.

use std::collections::HashMap;
use std::time::Duration;

use tokio::time::Instant;

use crate::queue::Place;

/// One partition is looked at in this time, so that however many there are, a broker is asked little
/// and the polling is held up little.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How long a partition brings nothing before it is looked at, and again before what was seen is
/// believed: a fetch that is under way takes its `fetch.wait.max.ms`, and a broker that was
/// restarted a few seconds.
const PATIENCE: Duration = Duration::from_secs(10);

/// A partition of which nothing is here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Idle {
    pub(crate) place: Place,
    /// Tells this time that it is ours from others.
    pub(crate) term: u64,
    /// The offset that comes next; `None` where nothing has come in this term.
    pub(crate) next: Option<i64>,
}

/// What the broker says of a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Seen {
    /// The offset at which this member goes on.
    pub(crate) position: i64,
    /// One past the last record.
    pub(crate) end: i64,
}

/// Watches the partitions of one member, over all its clients.
#[derive(Debug)]
pub(crate) struct Watch {
    look_at: Instant,
    idle: HashMap<Place, Waiting>,
    /// Where a new client was made already and brought nothing either: what is there is no record,
    /// but the marks of a transaction, or was compacted away.
    empty: HashMap<Place, Seen>,
}

#[derive(Debug)]
struct Waiting {
    of: Idle,
    since: Instant,
    /// It was looked at, and records were there.
    is_suspect: bool,
}

impl Watch {
    pub(crate) fn new() -> Self {
        Self {
            look_at: Instant::now(),
            idle: HashMap::new(),
            empty: HashMap::new(),
        }
    }

    /// Forgets for how long partitions have been idle: the broker was away.
    pub(crate) fn begin_anew(&mut self) {
        self.idle.clear();
    }

    /// Says whether it is time to note what is idle.
    pub(crate) fn is_due(&self) -> bool {
        Instant::now() >= self.look_at
    }

    /// Notes what is idle, and says which partition is to be looked at, if one is. One whose next
    /// offset is the same as last time has brought nothing since.
    pub(crate) fn note(&mut self, idle: Vec<Idle>) -> Option<Idle> {
        let now = Instant::now();
        let mut before = std::mem::take(&mut self.idle);
        for of in idle {
            let waiting = before.remove(&of.place).filter(|one| one.of == of);
            let waiting = waiting.unwrap_or_else(|| Waiting {
                of: of.clone(),
                since: now,
                is_suspect: false,
            });
            self.idle.insert(of.place, waiting);
        }
        self.look_at = now + LOOK_EVERY;
        let longest = self.idle.values_mut().min_by_key(|one| one.since)?;
        if now - longest.since < PATIENCE {
            return None;
        }
        // The others have their turn before it comes again.
        longest.since = now;
        Some(longest.of.clone())
    }

    /// Hears what the broker says of a partition that was to be looked at. Returns whether it
    /// stands still: records are there, and were there [`PATIENCE`] before.
    pub(crate) fn stands_still(&mut self, place: &Place, seen: Seen) -> bool {
        let Some(waiting) = self.idle.get_mut(place) else {
            return false;
        };
        let has_records = seen.end > seen.position && self.empty.get(place) != Some(&seen);
        let stands_still = has_records && waiting.is_suspect;
        waiting.is_suspect = has_records;
        if stands_still {
            self.empty.insert(place.clone(), seen);
        }
        stands_still
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn idle(partition: i32, next: i64) -> Idle {
        Idle {
            place: ("orders".to_owned(), partition),
            term: 1,
            next: Some(next),
        }
    }

    fn seen(position: i64, end: i64) -> Seen {
        Seen { position, end }
    }

    /// Lets time pass with these partitions idle, and returns which ones were to be looked at.
    async fn pass(watch: &mut Watch, seconds: u64, partitions: &[Idle]) -> Vec<i32> {
        let mut looked = Vec::new();
        for _ in 0..seconds * 10 {
            tokio::time::advance(Duration::from_millis(100)).await;
            if watch.is_due() {
                let found = watch.note(partitions.to_vec());
                looked.extend(found.map(|one| one.place.1));
            }
        }
        looked
    }

    #[tokio::test(start_paused = true)]
    async fn records_that_wait_and_do_not_come_are_found_at_the_second_look() {
        let mut watch = Watch::new();
        let one = idle(0, 7);
        assert!(
            pass(&mut watch, 9, std::slice::from_ref(&one))
                .await
                .is_empty()
        );
        assert_eq!(pass(&mut watch, 3, std::slice::from_ref(&one)).await, [0]);
        assert!(!watch.stands_still(&one.place, seen(7, 9)));
        assert_eq!(pass(&mut watch, 12, std::slice::from_ref(&one)).await, [0]);
        assert!(watch.stands_still(&one.place, seen(7, 9)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_partition_that_moves_or_has_nothing_is_left_alone() {
        let mut watch = Watch::new();
        assert_eq!(pass(&mut watch, 12, &[idle(0, 7)]).await, [0]);
        assert!(!watch.stands_still(&idle(0, 7).place, seen(7, 9)));
        // Something came meanwhile.
        assert_eq!(pass(&mut watch, 12, &[idle(0, 8)]).await, [0]);
        assert!(!watch.stands_still(&idle(0, 8).place, seen(8, 9)));
        assert_eq!(pass(&mut watch, 12, &[idle(0, 8)]).await, [0]);
        assert!(!watch.stands_still(&idle(0, 8).place, seen(9, 9)));
        // The broker was away: nobody can have brought anything.
        assert!(pass(&mut watch, 6, &[idle(0, 8)]).await.is_empty());
        watch.begin_anew();
        assert!(pass(&mut watch, 9, &[idle(0, 8)]).await.is_empty());
        assert!(!watch.stands_still(&("gone".to_owned(), 0), seen(0, 9)));
    }

    #[tokio::test(start_paused = true)]
    async fn where_a_new_client_brought_nothing_either_none_is_made_again() {
        let mut watch = Watch::new();
        let one = idle(0, 7);
        let mut still = 0;
        for _ in 0..6 {
            for _ in pass(&mut watch, 12, std::slice::from_ref(&one)).await {
                still += u32::from(watch.stands_still(&one.place, seen(7, 8)));
            }
        }
        assert_eq!(still, 1);
        // More is there now.
        for _ in 0..3 {
            for _ in pass(&mut watch, 12, std::slice::from_ref(&one)).await {
                still += u32::from(watch.stands_still(&one.place, seen(7, 9)));
            }
        }
        assert_eq!(still, 2);
    }

    #[tokio::test(start_paused = true)]
    async fn partitions_take_turns() {
        let mut watch = Watch::new();
        let all: Vec<_> = (0..3).map(|partition| idle(partition, 1)).collect();
        let mut looked = pass(&mut watch, 13, &all).await;
        looked.sort_unstable();
        assert_eq!(looked, [0, 1, 2]);
    }
}
