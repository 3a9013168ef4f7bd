//! The names that one run uses on its broker: made for it, and gone after it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Result, bail};
use sagabus_core::{Host, HostBuilder, Transport};
use sagabus_kafka::KafkaConfig;
use tokio::task::JoinHandle;

use super::kafka::{Kafka, PARTITIONS};
use super::rabbitmq::RabbitMq;
use super::{Arrived, Broker};
use crate::bare::inlet::{Acks, Inlet};
use crate::bare::wire::Outlet;
use crate::row::Bench;
use crate::stopwatch::Stopwatch;

/// The queue that takes everything that is sent.
const SINK: &str = "bench-sink";
/// The queue that takes nothing.
const FULL: &str = "bench-full";
/// Queues that many destinations share.
const QUEUES: usize = 8;

/// Numbers the runs of this process.
static RUNS: AtomicU64 = AtomicU64::new(0);

/// The names of one run.
pub(crate) struct Target {
    address: String,
    client: Client,
    /// What is read to see what arrived: queues, or topics.
    sinks: Vec<String>,
    /// Messages with which the full queue was filled.
    full_of: i64,
}

enum Client {
    RabbitMq(Box<RabbitMq>),
    Kafka { client: Kafka, prefix: String },
}

impl Target {
    pub(crate) async fn open(bench: &Bench, broker: Broker) -> Result<Self> {
        let address = bench.brokers.address(broker)?.to_owned();
        let client = match broker {
            Broker::RabbitMq => Client::RabbitMq(Box::new(RabbitMq::connect(&address).await?)),
            Broker::Kafka => {
                let n = RUNS.fetch_add(1, Ordering::Relaxed);
                Client::Kafka {
                    client: Kafka::connect(&address)?,
                    prefix: format!("bench-{}-{n}.", std::process::id()),
                }
            }
        };
        Ok(Self {
            address,
            client,
            sinks: Vec::new(),
            full_of: 0,
        })
    }

    /// Makes a place for commands and returns its address.
    pub(crate) async fn command(&mut self, message_type: &str) -> Result<String> {
        self.place("command", message_type).await
    }

    /// Makes a place for events and returns its address.
    pub(crate) async fn event(&mut self, message_type: &str) -> Result<String> {
        self.place("event", message_type).await
    }

    /// Returns what the broker calls a message type: an exchange, or a topic.
    pub(crate) fn name(&self, kind: &str, message_type: &str) -> String {
        match &self.client {
            Client::RabbitMq(_) => format!("{kind}/{message_type}"),
            Client::Kafka { prefix, .. } => {
                let suffix = if kind == "command" { ".command" } else { "" };
                format!("{prefix}{message_type}{suffix}")
            }
        }
    }

    async fn place(&mut self, kind: &str, message_type: &str) -> Result<String> {
        let name = self.name(kind, message_type);
        let (address, sink) = match &mut self.client {
            Client::RabbitMq(client) => {
                if self.sinks.is_empty() {
                    client.queue(SINK).await?;
                }
                client.exchange(&name, SINK).await?;
                (name, SINK.to_owned())
            }
            Client::Kafka { client, .. } => {
                client.topic(&name).await?;
                (name.clone(), name)
            }
        };
        if !self.sinks.contains(&sink) {
            self.sinks.push(sink);
        }
        Ok(address)
    }

    /// Makes many places for commands: exchanges that share a few queues, or topics.
    pub(crate) async fn many(&mut self, count: usize) -> Result<Vec<String>> {
        let mut addresses = Vec::with_capacity(count);
        for n in 0..count {
            let Client::RabbitMq(client) = &mut self.client else {
                addresses.push(self.command(&format!("bench.d-{n:04}")).await?);
                continue;
            };
            let queue = format!("{SINK}-{}", n % QUEUES);
            if n < QUEUES {
                client.queue(&queue).await?;
                self.sinks.push(queue.clone());
            }
            let exchange = format!("command/bench.d-{n:04}");
            client.exchange(&exchange, &queue).await?;
            addresses.push(exchange);
        }
        Ok(addresses)
    }

    /// Makes a place for commands that is full and refuses what comes.
    pub(crate) async fn refusing(&mut self) -> Result<String> {
        let Client::RabbitMq(client) = &mut self.client else {
            bail!("a topic refuses nothing");
        };
        let exchange = "command/bench.refused";
        client.limited_queue(FULL).await?;
        client.exchange(exchange, FULL).await?;
        self.full_of = client.fill(exchange).await?;
        Ok(exchange.to_owned())
    }

    /// Returns how many messages the full place took all the same.
    pub(crate) async fn taken_when_full(&self) -> Result<i64> {
        let Client::RabbitMq(client) = &self.client else {
            bail!("a topic refuses nothing");
        };
        Ok(client.waiting(FULL).await? - self.full_of)
    }

    /// Remembers what our transport makes for an endpoint, so that it goes with the rest.
    pub(crate) fn adopt_endpoint(&mut self, endpoint: &str, addresses: &[String]) {
        match &mut self.client {
            Client::RabbitMq(client) => {
                let of = |name: &str| format!("{endpoint}{name}");
                client.adopt(addresses.iter().cloned(), [of(""), of("/set-aside")]);
                client.adopt([of(""), of("/owner")], []);
            }
            Client::Kafka { client, prefix } => {
                client.adopt(addresses.iter().cloned());
                client.adopt([format!("{prefix}{endpoint}.endpoint")]);
            }
        }
    }

    /// What names begin with on a broker that is not new for each run.
    pub(crate) fn prefix(&self) -> Option<&str> {
        match &self.client {
            Client::RabbitMq(_) => None,
            Client::Kafka { prefix, .. } => Some(prefix),
        }
    }

    /// Makes one place for commands that spreads them over as many queues as `many` has: what a
    /// broker's queues cost is the same for both.
    pub(crate) async fn spread(&mut self) -> Result<String> {
        let Client::RabbitMq(client) = &mut self.client else {
            return self.command("bench.d-all").await;
        };
        let exchange = "command/bench.d-all".to_owned();
        for n in 0..QUEUES {
            let queue = format!("{SINK}-{n}");
            client.queue(&queue).await?;
            self.sinks.push(queue);
        }
        client.spread(&exchange, &self.sinks).await?;
        Ok(exchange)
    }

    /// Begins a host of ours over the broker.
    pub(crate) fn host(&self, name: &str) -> HostBuilder {
        match &self.client {
            Client::RabbitMq(_) => Host::builder(name).transport(self.rabbitmq()),
            Client::Kafka { .. } => Host::builder(name).transport(self.kafka()),
        }
    }

    /// Makes a transport of ours for what is not measured.
    pub(crate) fn transport(&self) -> Arc<dyn Transport> {
        match &self.client {
            Client::RabbitMq(_) => Arc::new(self.rabbitmq()),
            Client::Kafka { .. } => Arc::new(self.kafka()),
        }
    }

    fn rabbitmq(&self) -> sagabus_rabbitmq::RabbitMq {
        sagabus_rabbitmq::RabbitMq::connect(&self.address)
    }

    fn kafka(&self) -> sagabus_kafka::Kafka {
        let mut config = KafkaConfig::new(&self.address);
        if let Client::Kafka { prefix, .. } = &self.client {
            config.prefix.clone_from(prefix);
        }
        config.topics.partitions = PARTITIONS.try_into().ok();
        sagabus_kafka::Kafka::new(config)
    }

    /// Opens the ways out of a program by hand: channels of one connection, or one producer.
    pub(crate) async fn outlets(&self, count: usize) -> Result<Vec<Outlet>> {
        let mut outlets = Vec::with_capacity(count);
        match &self.client {
            Client::RabbitMq(_) => {
                let options = lapin::ConnectionProperties::default();
                let connection = lapin::Connection::connect(&self.address, options).await?;
                for _ in 0..count {
                    outlets.push(Outlet::rabbitmq(&connection).await?);
                }
            }
            Client::Kafka { .. } => {
                let outlet = Outlet::kafka(&self.address)?;
                outlets.resize(count, outlet);
            }
        }
        Ok(outlets)
    }

    /// Opens the way in of a program by hand: an endpoint's queue, or topics in its group.
    pub(crate) async fn inlet(&self, endpoint: &str, topics: &[String]) -> Result<(Inlet, Acks)> {
        match &self.client {
            Client::RabbitMq(_) => Inlet::rabbitmq(&self.address, endpoint).await,
            Client::Kafka { prefix, .. } => {
                let group = format!("{prefix}{endpoint}");
                Inlet::kafka(&self.address, &group, topics)
            }
        }
    }

    /// Returns how many messages the endpoint has not acked.
    pub(crate) async fn left(&self, endpoint: &str, topics: &[String]) -> Result<i64> {
        match &self.client {
            Client::RabbitMq(client) => client.waiting(endpoint).await,
            Client::Kafka { client, prefix } => {
                let group = format!("{prefix}{endpoint}");
                client.lag(&group, topics).await
            }
        }
    }

    /// Returns how many messages wait where everything that is sent arrives.
    pub(crate) async fn waiting(&self) -> Result<i64> {
        let Client::RabbitMq(client) = &self.client else {
            bail!("topics do not say what waits");
        };
        let mut waiting = 0;
        for queue in &self.sinks {
            waiting += client.waiting(queue).await?;
        }
        Ok(waiting)
    }

    /// Takes everything that arrived, `count` messages if all is well.
    pub(crate) async fn take_all(&self, count: u64) -> Result<Arrived> {
        match &self.client {
            Client::RabbitMq(client) => client.take_all(&self.sinks, count).await,
            Client::Kafka { client, .. } => client.take_all(&self.sinks, count).await,
        }
    }

    /// Takes messages as they come; ends when this is closed.
    pub(crate) async fn watch(
        &self,
        stopwatch: &Arc<Stopwatch>,
    ) -> Result<JoinHandle<Result<Arrived>>> {
        let sink = &self.sinks[0];
        match &self.client {
            Client::RabbitMq(client) => client.watch(sink, stopwatch).await,
            Client::Kafka { client, .. } => client.watch(sink, stopwatch).await,
        }
    }

    /// Deletes everything that this run made on the broker.
    pub(crate) async fn close(self) -> Result<()> {
        match self.client {
            Client::RabbitMq(client) => client.close().await,
            Client::Kafka { client, .. } => client.close().await,
        }
    }
}
