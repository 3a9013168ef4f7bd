//! Where an endpoint begins that has never received before, if not at the oldest record.

use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use sagabus_core::error::TransportError;
use sagabus_core::store::EndpointSpec;

use crate::config::Start;
use crate::connection::{Connection, Watching};
use crate::topology::{self, Reads};

/// Puts new groups at the end of their topics, where that is wanted. A group that has an offset
/// stays where it is. Blocks.
pub(crate) fn set(
    connection: &Connection,
    endpoints: &[EndpointSpec],
) -> Result<(), TransportError> {
    if connection.config().start == Start::Oldest {
        return Ok(());
    }
    endpoints
        .iter()
        .try_for_each(|endpoint| set_one(connection, endpoint))
}

fn set_one(connection: &Connection, endpoint: &EndpointSpec) -> Result<(), TransportError> {
    let config = connection.config();
    let group = topology::group(config, &endpoint.name);
    let what = format!("tell where group `{group}` begins");
    let failed = |error: KafkaError| connection.failed(&what, &error);
    let mut settings = config.client();
    settings
        .set("group.id", &group)
        .set("enable.auto.commit", "false");
    let asking: BaseConsumer<Watching> = connection.client(settings, connection.watching())?;

    let mut all = TopicPartitionList::new();
    for topic in Reads::of(config, endpoint).topics.keys() {
        let existing = topology::look_up(connection, topic)?;
        for partition in 0..existing.map_or(0, |topic| topic.partitions) {
            all.add_partition(topic, partition);
        }
    }
    let known = asking.committed_offsets(all, config.request_timeout);
    let known = known.map_err(failed)?;
    let mut ends = TopicPartitionList::new();
    for one in known.elements() {
        if !matches!(one.offset(), Offset::Invalid) {
            continue;
        }
        let (topic, partition) = (one.topic(), one.partition());
        let (_, end) = connection.ask(&what, |inspector, patience| {
            inspector.fetch_watermarks(topic, partition, patience)
        })?;
        ends.add_partition_offset(topic, partition, Offset::Offset(end))
            .map_err(failed)?;
    }
    if ends.count() == 0 {
        return Ok(());
    }
    asking.commit(&ends, CommitMode::Sync).map_err(failed)
}
