//! What is committed: how far a partition is done, and how often it was begun there.

use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::error::KafkaResult;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use crate::connection::Connection;
use crate::error::shown;
use crate::queue::Place;
use crate::rebalance::Rebalancing;
use crate::standstill::{Idle, Seen};

/// How long a look at what is committed may hold up the polling.
const LOOK_MAX: Duration = Duration::from_secs(2);
/// What stands before the number of starts in a commit's metadata.
const STARTS: &str = "sagabus-starts=";

pub(crate) fn list_of(done: &[(Place, i64)]) -> KafkaResult<TopicPartitionList> {
    let mut list = TopicPartitionList::with_capacity(done.len());
    for ((topic, partition), offset) in done {
        list.add_partition_offset(topic, *partition, Offset::Offset(*offset))?;
    }
    Ok(list)
}

/// Commits and waits for the broker's word, unless no broker can be reached.
pub(crate) fn commit_now(
    consumer: &BaseConsumer<Rebalancing>,
    done: &[(Place, i64)],
    connection: &Connection,
) {
    if done.is_empty() || connection.link().is_down() {
        return;
    }
    let committed = list_of(done).and_then(|list| consumer.commit(&list, CommitMode::Sync));
    if let Err(error) = committed {
        // What is done comes again to whoever has the partition now, and is recognised.
        tracing::debug!(
            error = shown(&error),
            "offsets of partitions that go are not committed"
        );
    }
}

/// Notes that a partition is begun, before its first record is handed out, and returns how often it
/// was begun there before with nothing done since.
///
/// Kafka does not count deliveries. Without this, a message that kills its process would do so for
/// ever: every start would begin with it again. A commit of what is done forgets the count.
pub(crate) fn begin(consumer: &BaseConsumer<Rebalancing>, place: &Place, first: i64) -> u32 {
    let (offset, before) = begun(consumer, place).unwrap_or((None, 0));
    let mut list = TopicPartitionList::new();
    let mut one = list.add_partition(&place.0, place.1);
    one.set_metadata(format!("{STARTS}{}", before.saturating_add(1)));
    let set = one.set_offset(Offset::Offset(offset.unwrap_or(first)));
    let noted = set.and_then(|()| consumer.commit(&list, CommitMode::Sync));
    if let Err(error) = noted {
        tracing::debug!(error = shown(&error), "a start is not counted");
    }
    before
}

/// Asks the broker how far a partition goes, and where this member goes on.
pub(crate) fn look(consumer: &BaseConsumer<Rebalancing>, idle: &Idle) -> KafkaResult<Seen> {
    let (topic, partition) = &idle.place;
    let (beginning, end) = consumer.fetch_watermarks(topic, *partition, LOOK_MAX)?;
    let position = match idle.next {
        Some(next) => next,
        None => begun(consumer, &idle.place)?.0.unwrap_or(beginning),
    };
    Ok(Seen { position, end })
}

fn begun(consumer: &BaseConsumer<Rebalancing>, place: &Place) -> KafkaResult<(Option<i64>, u32)> {
    let mut list = TopicPartitionList::new();
    list.add_partition(&place.0, place.1);
    let committed = consumer.committed_offsets(list, LOOK_MAX)?;
    let found = committed.elements().into_iter().next();
    Ok(found.map_or((None, 0), |one| {
        let offset = match one.offset() {
            Offset::Offset(offset) => Some(offset),
            _ => None,
        };
        (offset, starts(one.metadata()))
    }))
}

fn starts(metadata: &str) -> u32 {
    let number = metadata.strip_prefix(STARTS);
    number.and_then(|number| number.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_metadata_of_ours_counts() {
        assert_eq!(starts("sagabus-starts=3"), 3);
        for other in ["", "3", "sagabus-starts=", "sagabus-starts=x"] {
            assert_eq!(starts(other), 0, "{other}");
        }
    }
}
