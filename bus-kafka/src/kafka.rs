//! The transport itself.

use std::fmt;
use std::sync::Arc;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use futures_util::stream::BoxStream;
use sagabus_core::endpoint::Order;
use sagabus_core::error::TransportError;
use sagabus_core::id::StoreId;
use sagabus_core::store::EndpointSpec;
use sagabus_core::transport::{Capabilities, Deliveries, Delivery, Health, Publication, Transport};

use crate::config::KafkaConfig;
use crate::connection::Connection;
use crate::publisher::Publisher;
use crate::topology::{self, Reads};
use crate::{beginning, consumer, owners, pieces};

/// Kafka as a broker. Clones share their connections.
///
/// ```no_run
/// use sagabus_kafka::{Kafka, KafkaConfig, Security, Tls};
///
/// let simple = Kafka::brokers("localhost:9092");
///
/// let mut config = KafkaConfig::new("kafka-1:9092,kafka-2:9092");
/// config.security = Security::Tls(Tls::default());
/// config.topics.partitions = Some(12);
/// config.topics.replication = Some(3);
/// let tuned = Kafka::new(config);
/// # let _ = (simple, tuned);
/// ```
#[derive(Clone)]
pub struct Kafka {
    shared: Arc<Shared>,
}

struct Shared {
    connection: Connection,
    publisher: Publisher,
}

impl Kafka {
    /// Describes a cluster by some of its brokers, with the defaults of [`KafkaConfig`]. Nothing is
    /// connected before the host starts.
    pub fn brokers(brokers: impl Into<String>) -> Self {
        Self::new(KafkaConfig::new(brokers))
    }

    /// Describes a cluster. Nothing is connected before the host starts, which checks the settings.
    pub fn new(config: KafkaConfig) -> Self {
        let connection = Connection::new(config);
        let publisher = Publisher::new(connection.clone());
        Self {
            shared: Arc::new(Shared {
                connection,
                publisher,
            }),
        }
    }

    /// Returns how many records were passed over since the start: tombstones, and types on a shared
    /// topic that the endpoint does not take.
    pub fn passed_over(&self) -> u64 {
        self.shared.connection.passed_over()
    }
}

impl fmt::Debug for Kafka {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Kafka")
            .field(&self.shared.connection)
            .finish()
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.connection.link().close();
        self.publisher.close();
    }
}

impl Transport for Kafka {
    fn capabilities(&self) -> Capabilities {
        Capabilities {
            broker: "kafka",
            reports_unroutable: true,
            ordered_publish: true,
            counts_redeliveries: true,
            deliveries: Deliveries::Unlimited,
            acks_each: false,
            order: Order::PerKey,
            body_bytes_max: self.shared.connection.config().body_bytes_max,
        }
    }

    fn declare<'a>(
        &'a self,
        store: StoreId,
        endpoints: &'a [EndpointSpec],
    ) -> BoxFuture<'a, Result<(), TransportError>> {
        async move {
            let connection = &self.shared.connection;
            connection.config().check()?;
            self.shared.publisher.begin()?;
            let reads = endpoints
                .iter()
                .map(|one| Reads::of(connection.config(), one));
            let mut topics: Vec<String> =
                reads.flat_map(|reads| reads.topics.into_keys()).collect();
            topics.sort();
            topics.dedup();
            topology::have(connection, topics).await?;
            owners::claim(connection, store, endpoints).await?;
            let endpoints = endpoints.to_vec();
            connection
                .blocking(move |connection| beginning::set(connection, &endpoints))
                .await
        }
        .boxed()
    }

    fn publish<'a>(
        &'a self,
        window: &'a [Publication],
    ) -> BoxFuture<'a, Vec<Result<(), TransportError>>> {
        self.shared.publisher.publish(window).boxed()
    }

    fn subscribe<'a>(
        &'a self,
        endpoint: &'a EndpointSpec,
        prefetch: u32,
    ) -> BoxFuture<'a, Result<BoxStream<'static, Delivery>, TransportError>> {
        consumer::subscribe(&self.shared.connection, endpoint, prefetch).boxed()
    }

    fn topology(&self, endpoints: &[EndpointSpec]) -> serde_json::Value {
        pieces::described(self.shared.connection.config(), endpoints)
    }

    fn health(&self) -> Health {
        self.shared.connection.link().health()
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        self.shared.connection.left().boxed()
    }
}
