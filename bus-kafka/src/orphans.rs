//! Whether the group left a partition to nobody.
//!
//! A cooperative rebalance moves a partition in two steps: who has it lets it go and joins again, and
//! only then another one gets it. A replica with an `instance` name that is killed between the two
//! and comes back in time is handed what it had left, has nothing to let go of, and so does not join
//! again: the group is stable, and the partition is nobody's until something else changes the group.
//! Seen by killing replicas; neither the broker nor librdkafka notices.

use std::collections::BTreeSet;
use std::time::Duration;

use bytes::Buf;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaResult;
use rdkafka::groups::GroupInfo;
use tokio::time::Instant;

use crate::config::KafkaConfig;
use crate::queue::Place;
use crate::rebalance::Rebalancing;
use crate::topology::Reads;

/// How long a look may hold up the polling.
const LOOK_MAX: Duration = Duration::from_secs(2);
/// How rarely a group is looked at in which all was well.
const PAUSE_MAX: Duration = Duration::from_secs(60);
/// Replicas act one after the other, so that one alone does; but nobody waits longer than this.
const RANK_MAX: u32 = 4;
/// A group in which nothing is under way.
const STABLE: &str = "Stable";

/// What a group looks like to one of its replicas.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Look {
    /// Partitions that nobody has.
    pub(crate) orphans: BTreeSet<Place>,
    /// How many replicas are to act before this one.
    pub(crate) rank: u32,
}

/// Looks at the group now and then, for one replica.
#[derive(Debug)]
pub(crate) struct Orphans {
    /// Longer than a partition legitimately is nobody's: whoever lets it go may wait for handlers.
    patience: Duration,
    look_at: Instant,
    pause: Duration,
    /// What was nobody's at the last look, and at how many in a row.
    found: BTreeSet<Place>,
    times: u32,
}

impl Orphans {
    pub(crate) fn new(config: &KafkaConfig) -> Self {
        let patience = config.hand_over + config.heartbeat * 3;
        Self {
            patience,
            look_at: Instant::now() + patience,
            pause: patience,
            found: BTreeSet::new(),
            times: 0,
        }
    }

    pub(crate) fn is_due(&self) -> bool {
        Instant::now() >= self.look_at
    }

    /// Hears what the group looks like; `None`: it is being divided, or nobody could be asked.
    /// Returns whether this replica is to have it divided again.
    pub(crate) fn note(&mut self, look: Option<Look>) -> bool {
        let now = Instant::now();
        let Some(Look { orphans, rank }) = look else {
            self.times = 0;
            self.look_at = now + self.patience;
            return false;
        };
        if orphans.is_empty() {
            self.times = 0;
            self.look_at = now + self.pause;
            self.pause = (self.pause * 2).min(PAUSE_MAX);
            return false;
        }
        self.times = if self.found == orphans {
            self.times + 1
        } else {
            1
        };
        self.found = orphans;
        self.look_at = now + self.patience;
        self.times > 1 + rank.min(RANK_MAX)
    }
}

/// Asks what the group looks like. `None` where it is not stable.
pub(crate) fn look(
    consumer: &BaseConsumer<Rebalancing>,
    group: &str,
    instance: &str,
    reads: &Reads,
) -> KafkaResult<Option<Look>> {
    let list = consumer.fetch_group_list(Some(group), LOOK_MAX)?;
    let found = list.groups().iter().find(|one| one.name() == group);
    let Some(found) = found.filter(|one| one.state() == STABLE) else {
        return Ok(None);
    };
    let Some((taken, rank)) = division(found, instance) else {
        return Ok(None);
    };
    let mut orphans = BTreeSet::new();
    for name in reads.topics.keys() {
        let metadata = consumer.fetch_metadata(Some(name), LOOK_MAX)?;
        let topics = metadata.topics().iter().filter(|one| one.name() == name);
        let partitions = topics.flat_map(|one| one.partitions());
        let places = partitions.map(|one| (name.clone(), one.id()));
        orphans.extend(places.filter(|place| !taken.contains(place)));
    }
    Ok(Some(Look { orphans, rank }))
}

/// Returns what the members have, and how many of them act before this one: those that have less.
/// `None` where an assignment cannot be read, or this replica is not among them.
fn division(group: &GroupInfo, instance: &str) -> Option<(BTreeSet<Place>, u32)> {
    let mut taken = BTreeSet::new();
    let mut members = Vec::new();
    for member in group.members() {
        let places = assigned(member.assignment().unwrap_or_default())?;
        members.push((places.len(), member.id()));
        taken.extend(places);
    }
    members.sort_unstable();
    // A broker makes the id of such a member out of its name and something random.
    let is_ours = |id: &str| {
        let rest = id.strip_prefix(instance);
        rest.is_some_and(|rest| rest.starts_with('-'))
    };
    let rank = members.iter().position(|(_, id)| is_ours(id))?;
    Some((taken, u32::try_from(rank).unwrap_or(u32::MAX)))
}

/// Reads an assignment of the consumer protocol: a version, topics with their partitions, and what
/// an assignor adds. An empty one has no partitions.
fn assigned(mut bytes: &[u8]) -> Option<Vec<Place>> {
    if bytes.is_empty() {
        return Some(Vec::new());
    }
    let mut places = Vec::new();
    let _version = bytes.try_get_i16().ok()?;
    let topics = bytes.try_get_i32().ok()?;
    for _ in 0..topics {
        let length = usize::try_from(bytes.try_get_i16().ok()?).ok()?;
        let (name, rest) = bytes.split_at_checked(length)?;
        let name = std::str::from_utf8(name).ok()?;
        bytes = rest;
        let partitions = bytes.try_get_i32().ok()?;
        for _ in 0..partitions {
            places.push((name.to_owned(), bytes.try_get_i32().ok()?));
        }
    }
    Some(places)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(partition: i32) -> Place {
        ("orders".to_owned(), partition)
    }

    fn look_of(partitions: &[i32], rank: u32) -> Option<Look> {
        Some(Look {
            orphans: partitions.iter().copied().map(place).collect(),
            rank,
        })
    }

    fn orphans() -> Orphans {
        Orphans::new(&KafkaConfig::new("localhost:9092"))
    }

    /// One topic of three letters with two partitions.
    const BYTES: &[u8] = &[
        0, 1, 0, 0, 0, 1, 0, 3, b'a', b'b', b'c', 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 7, 255, 255,
        255, 255,
    ];

    #[test]
    fn an_assignment_is_read() {
        let abc = |partition| ("abc".to_owned(), partition);
        assert_eq!(assigned(BYTES), Some(vec![abc(0), abc(7)]));
        assert_eq!(assigned(&[]), Some(Vec::new()));
    }

    #[test]
    fn an_assignment_that_ends_too_soon_or_promises_too_much_is_none() {
        // What an assignor adds is not read.
        let needed = BYTES.len() - 4;
        for end in 1..needed {
            assert_eq!(assigned(&BYTES[..end]), None, "{end}");
        }
        let mut many = BYTES.to_vec();
        many[2..6].fill(0x7f);
        assert_eq!(assigned(&many), None);
        many = BYTES.to_vec();
        many[6..8].fill(0xff);
        assert_eq!(assigned(&many), None);
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_nobodys_twice_is_divided_again() {
        let mut orphans = orphans();
        assert!(!orphans.is_due());
        tokio::time::advance(orphans.patience).await;
        assert!(orphans.is_due());
        assert!(!orphans.note(look_of(&[0], 0)));
        assert!(!orphans.is_due());
        assert!(orphans.note(look_of(&[0], 0)));
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_on_its_way_is_left_alone() {
        let mut orphans = orphans();
        for look in [look_of(&[0], 0), look_of(&[1], 0), None, look_of(&[1], 0)] {
            assert!(!orphans.note(look.clone()), "{look:?}");
        }
        assert!(!orphans.note(look_of(&[], 0)));
        assert!(!orphans.note(look_of(&[1], 0)));
    }

    #[tokio::test(start_paused = true)]
    async fn others_act_only_when_the_first_did_not() {
        let mut third = orphans();
        let mut last = orphans();
        let acts: Vec<_> = (0..4).map(|_| third.note(look_of(&[0], 2))).collect();
        assert_eq!(acts, [false, false, false, true]);
        let looks = (1..).find(|_| last.note(look_of(&[0], 1000)));
        assert_eq!(looks, Some(RANK_MAX + 2));
    }

    #[tokio::test(start_paused = true)]
    async fn a_group_in_which_all_is_well_is_looked_at_more_and_more_rarely() {
        let mut orphans = orphans();
        for _ in 0..10 {
            orphans.note(look_of(&[], 0));
        }
        assert_eq!(orphans.look_at - Instant::now(), PAUSE_MAX);
    }
}
