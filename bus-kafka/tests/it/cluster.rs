//! A cluster as tests use it, with topics of this test alone.

use std::time::Duration;

use bytes::Bytes;
use rdkafka::ClientConfig;
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use sagabus_core::id::MessageId;
use sagabus_kafka::{Kafka, KafkaConfig, Topics};

/// The cluster that the environment names; `None`, with a word, where there is none.
pub(crate) fn brokers() -> Option<String> {
    let brokers = std::env::var("SAGABUS_KAFKA_BROKERS").ok();
    if brokers.is_none() {
        sagabus_testkit::service::skip("SAGABUS_KAFKA_BROKERS is not set");
    }
    brokers
}

/// Partitions enough for two replicas; losses are noticed soon.
pub(crate) fn config(brokers: &str) -> KafkaConfig {
    KafkaConfig {
        topics: Topics {
            partitions: Some(4),
            ..Topics::default()
        },
        session: Duration::from_secs(6),
        heartbeat: Duration::from_millis(300),
        ..KafkaConfig::new(brokers)
    }
}

/// A prefix that no other test has.
pub(crate) fn prefix() -> String {
    let id = MessageId::new().as_uuid().simple().to_string();
    format!("t{}.", &id[20..])
}

/// The same cluster for this test alone.
pub(crate) fn own(brokers: &str) -> KafkaConfig {
    KafkaConfig {
        prefix: prefix(),
        ..config(brokers)
    }
}

/// Describes the cluster to the bus.
pub(crate) fn kafka(config: &KafkaConfig) -> Kafka {
    Kafka::new(config.clone())
}

/// A record of a foreign producer.
#[derive(Default)]
pub(crate) struct Foreign {
    pub(crate) key: Option<&'static str>,
    pub(crate) value: Option<Bytes>,
    pub(crate) headers: Vec<(&'static str, &'static str)>,
    /// Milliseconds since 1970.
    pub(crate) timestamp: Option<i64>,
}

/// Produces as any client of the driver would, without anything of ours.
pub(crate) fn produce(brokers: &str, topic: &str, records: Vec<Foreign>) {
    let mut settings = ClientConfig::new();
    settings.set("bootstrap.servers", brokers);
    let producer: BaseProducer = settings.create().expect("a client can be made");
    for one in records {
        let headers = one
            .headers
            .iter()
            .fold(OwnedHeaders::new(), |all, (key, value)| {
                all.insert(Header {
                    key,
                    value: Some(*value),
                })
            });
        let mut record = BaseRecord::<str, [u8]>::to(topic).headers(headers);
        record.key = one.key;
        record.payload = one.value.as_deref();
        record.timestamp = one.timestamp;
        producer
            .send(record)
            .map_err(|(error, _)| error)
            .expect("the record is queued");
    }
    producer
        .flush(Duration::from_secs(10))
        .expect("the broker answers");
}
