//! Kafka keeps the transport contract.

use std::time::Duration;

use sagabus_kafka::{Kafka, KafkaConfig, Topics};
use sagabus_testkit::transport::{TransportUnderTest, unavailable};

/// A cluster as tests use it: partitions enough for two replicas, and losses noticed soon.
fn config(brokers: &str) -> KafkaConfig {
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

async fn kafka() -> Option<TransportUnderTest> {
    let Ok(brokers) = std::env::var("SAGABUS_KAFKA_BROKERS") else {
        return unavailable("SAGABUS_KAFKA_BROKERS is not set");
    };
    let transport = Kafka::new(config(&brokers));
    let peer = Kafka::new(config(&brokers));
    Some(TransportUnderTest::new(transport, peer))
}

sagabus_testkit::transport_suite!(kafka, may_skip: [
    CountsRedeliveries, CutsConnections, Nacks, CutsBeforeConfirm,
]);
