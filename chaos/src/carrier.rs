//! What carries the messages, where it is not the database.

use std::time::Duration;

use anyhow::{Result, bail};
use sagabus::kafka::{Kafka, KafkaConfig};
use sagabus::rabbitmq::{RabbitMq, RabbitMqConfig};
use sagabus::{HostBuilder, MessageId};

/// A broker, with names of this run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Carrier {
    RabbitMq { url: String, namespace: String },
    Kafka { brokers: String, prefix: String },
}

impl Carrier {
    pub(crate) fn rabbitmq(url: String) -> Self {
        let namespace = names();
        Self::RabbitMq { url, namespace }
    }

    pub(crate) fn kafka(brokers: String) -> Self {
        let prefix = names();
        Self::Kafka { brokers, prefix }
    }

    /// As a host process is told.
    pub(crate) fn told(&self) -> String {
        match self {
            Self::RabbitMq { url, namespace } => format!("rabbitmq {url} {namespace}"),
            Self::Kafka { brokers, prefix } => format!("kafka {brokers} {prefix}"),
        }
    }

    /// Reads what a host process was told.
    pub(crate) fn parse(text: &str) -> Result<Self> {
        let words: Vec<_> = text.split(' ').map(str::to_owned).collect();
        match &words[..] {
            [kind, url, namespace] if kind == "rabbitmq" => Ok(Self::RabbitMq {
                url: url.clone(),
                namespace: namespace.clone(),
            }),
            [kind, brokers, prefix] if kind == "kafka" => Ok(Self::Kafka {
                brokers: brokers.clone(),
                prefix: prefix.clone(),
            }),
            _ => bail!("`{text}` is no carrier"),
        }
    }

    /// Gives a host this carrier. Losses are noticed within seconds.
    pub(crate) fn connect(&self, builder: HostBuilder, replica: &str) -> HostBuilder {
        match self {
            Self::RabbitMq { url, namespace } => {
                let mut config = RabbitMqConfig::new(url);
                config.namespace.clone_from(namespace);
                config.heartbeat = Duration::from_secs(2);
                config.confirm_timeout = Duration::from_secs(3);
                builder.transport(RabbitMq::with(config))
            }
            Self::Kafka { brokers, prefix } => {
                let mut config = KafkaConfig::new(brokers);
                config.prefix.clone_from(prefix);
                config.topics.partitions = Some(2);
                config.session = Duration::from_secs(3);
                config.heartbeat = Duration::from_millis(300);
                config.poll_interval_max = Duration::from_secs(4);
                // Its partitions wait for a replica that is started again.
                config.instance = Some(replica.to_owned());
                builder.transport(Kafka::new(config))
            }
        }
    }
}

fn names() -> String {
    let id = MessageId::new().as_uuid().simple().to_string();
    format!("c{}.", &id[20..])
}
