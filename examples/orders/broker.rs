//! The broker between the services, where there is one.

use anyhow::Result;
use sagabus::HostBuilder;

use crate::setup::Site;

/// What carries messages between services, and where it is.
#[derive(Clone)]
pub(crate) enum Broker {
    /// None: the database is the bus.
    None,
    /// RabbitMQ at a URL.
    RabbitMq(String),
    /// Kafka, by some of its brokers.
    Kafka(String),
}

impl Broker {
    /// Gives a host its broker.
    ///
    /// # Errors
    /// When this program was built without it, which `main.rs` says better and sooner.
    pub(crate) fn give_to(&self, host: HostBuilder, site: &Site) -> Result<HostBuilder> {
        match self {
            Self::None => Ok(host),
            Self::RabbitMq(url) => rabbitmq(host, url, site),
            Self::Kafka(brokers) => kafka(host, brokers, site),
        }
    }
}

#[cfg(feature = "rabbitmq")]
fn rabbitmq(host: HostBuilder, url: &str, site: &Site) -> Result<HostBuilder> {
    use sagabus::{RabbitMq, RabbitMqConfig};

    let mut config = RabbitMqConfig::new(url);
    config.connection_name = "orders demo".to_owned();
    // Shops share a virtual host: each has exchanges and queues of its own.
    config.namespace = format!("orders-demo-{}.", site.id);
    Ok(host.transport(RabbitMq::with(config)))
}

#[cfg(not(feature = "rabbitmq"))]
fn rabbitmq(_: HostBuilder, _: &str, _: &Site) -> Result<HostBuilder> {
    anyhow::bail!("no RabbitMQ here")
}

#[cfg(feature = "kafka")]
fn kafka(host: HostBuilder, brokers: &str, site: &Site) -> Result<HostBuilder> {
    use std::time::Duration;

    use sagabus::{Kafka, KafkaConfig};

    let mut config = KafkaConfig::new(brokers);
    // Shops share a cluster: each has topics and groups of its own.
    config.prefix = format!("orders-demo-{}.", site.id);
    // The shortest that brokers take unless told otherwise, so that one who restarts a killed
    // service need not wait long until its partitions are free.
    config.session = Duration::from_secs(6);
    Ok(host.transport(Kafka::new(config)))
}

#[cfg(not(feature = "kafka"))]
fn kafka(_: HostBuilder, _: &str, _: &Site) -> Result<HostBuilder> {
    anyhow::bail!("no Kafka here")
}
