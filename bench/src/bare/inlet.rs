//! Messages from a broker, and the acks of what is done: up to a mark at once, whatever the order
//! in which groups end.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use futures_util::StreamExt;
use lapin::options::{BasicAckOptions, BasicConsumeOptions, BasicQosOptions};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{Channel, Connection, ConnectionProperties, Consumer};
use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer as _};
use rdkafka::message::{BorrowedMessage, Headers, Message};
use tokio::sync::mpsc;

use super::{Incoming, Mark};

/// Messages on the way: as many as ours.
const WINDOW: u16 = 256;
/// How long one look takes at most.
const POLL: Duration = Duration::from_millis(20);

/// Where messages come from.
pub(crate) enum Inlet {
    RabbitMq(Box<Consumer>),
    Kafka(Arc<BaseConsumer>),
}

/// What acks; owns the way to the broker.
pub(crate) enum Acks {
    RabbitMq(Box<(Connection, Channel)>),
    Kafka(Arc<BaseConsumer>, Arc<[String]>),
}

impl Inlet {
    pub(crate) async fn rabbitmq(url: &str, queue: &str) -> Result<(Self, Acks)> {
        let connection = Connection::connect(url, ConnectionProperties::default()).await?;
        let channel = connection.create_channel().await?;
        channel
            .basic_qos(WINDOW, BasicQosOptions::default())
            .await?;
        let (options, none) = (BasicConsumeOptions::default(), FieldTable::default());
        let consumer = channel.basic_consume(queue.into(), "".into(), options, none);
        let inlet = Self::RabbitMq(Box::new(consumer.await?));
        Ok((inlet, Acks::RabbitMq(Box::new((connection, channel)))))
    }

    pub(crate) fn kafka(brokers: &str, group: &str, topics: &[String]) -> Result<(Self, Acks)> {
        let mut config = ClientConfig::new();
        config
            .set("bootstrap.servers", brokers)
            .set("group.id", group)
            .set("auto.offset.reset", "earliest")
            .set("enable.auto.offset.store", "false")
            .set("partition.assignment.strategy", "cooperative-sticky");
        let consumer: Arc<BaseConsumer> = Arc::new(config.create()?);
        let names: Vec<&str> = topics.iter().map(String::as_str).collect();
        consumer.subscribe(&names)?;
        let acks = Acks::Kafka(Arc::clone(&consumer), topics.into());
        Ok((Self::Kafka(consumer), acks))
    }

    /// Takes `total` messages, each for the lane of its account.
    pub(crate) async fn deal(self, total: u64, lanes: Vec<mpsc::Sender<Incoming>>) -> Result<()> {
        match self {
            Self::RabbitMq(mut consumer) => {
                for _ in 0..total {
                    let delivery = consumer.next().await.context("the channel was closed")??;
                    let message = from_amqp(&delivery)?;
                    let sent = lane_of(&lanes, &message).send(message).await;
                    sent.context("a lane has ended")?;
                }
                Ok(())
            }
            Self::Kafka(consumer) => {
                let deal = move || deal_records(&consumer, total, &lanes);
                tokio::task::spawn_blocking(deal).await?
            }
        }
    }
}

fn lane_of<'a>(
    lanes: &'a [mpsc::Sender<Incoming>],
    message: &Incoming,
) -> &'a mpsc::Sender<Incoming> {
    let sum: usize = message.account.bytes().map(usize::from).sum();
    &lanes[sum % lanes.len()]
}

fn from_amqp(delivery: &lapin::message::Delivery) -> Result<Incoming> {
    let properties = &delivery.properties;
    let id = properties.message_id().as_ref().context("no identity")?;
    let kind = properties.kind().as_ref().context("no type")?;
    let headers = properties.headers().as_ref().context("no headers")?;
    let correlation = match headers.inner().get("sagabus-correlation-id") {
        Some(AMQPValue::LongString(text)) => std::str::from_utf8(text.as_bytes())?,
        _ => id.as_str(),
    };
    let mark = (0, delivery.delivery_tag);
    Incoming::from_broker(
        mark,
        id.as_str(),
        kind.to_string(),
        correlation,
        &delivery.data,
    )
}

fn deal_records(
    consumer: &BaseConsumer,
    total: u64,
    lanes: &[mpsc::Sender<Incoming>],
) -> Result<()> {
    let mut taken = 0;
    while taken < total {
        let Some(record) = consumer.poll(POLL) else {
            continue;
        };
        let message = from_kafka(&record?)?;
        let sent = lane_of(lanes, &message).blocking_send(message);
        sent.context("a lane has ended")?;
        taken += 1;
    }
    Ok(())
}

fn from_kafka(record: &BorrowedMessage<'_>) -> Result<Incoming> {
    let headers = record.headers().context("no headers")?;
    let header = |name: &str| {
        let found = headers.iter().find(|header| header.key == name);
        found
            .and_then(|header| std::str::from_utf8(header.value?).ok())
            .with_context(|| format!("no {name}"))
    };
    // Of several topics with the same partitions: the topic is told by the type.
    let message_type = header("ce_type")?;
    let topic = if message_type == "bench.credit" { 1 } else { 0 };
    let mark = (
        record.partition() * 2 + topic,
        u64::try_from(record.offset())?,
    );
    let body = record.payload().unwrap_or_default();
    let correlation = header("sagabus-correlation-id")?;
    Incoming::from_broker(
        mark,
        header("ce_id")?,
        message_type.to_owned(),
        correlation,
        body,
    )
}

impl Acks {
    /// Acks what lanes report, until they have ended.
    pub(crate) async fn run(self, mut done: mpsc::UnboundedReceiver<Vec<Mark>>) -> Result<()> {
        let mut marks: HashMap<i32, Watermark> = HashMap::new();
        let mut groups = Vec::new();
        while done.recv_many(&mut groups, 16).await > 0 {
            for (place, number) in groups.drain(..).flatten() {
                let first = match &self {
                    Self::RabbitMq(..) => 1,
                    Self::Kafka(..) => 0,
                };
                let mark = marks.entry(place).or_insert_with(|| Watermark::new(first));
                mark.done.insert(number);
            }
            for (place, mark) in &mut marks {
                if let Some(last) = mark.advance() {
                    self.ack(*place, last).await?;
                }
            }
        }
        match self {
            Self::RabbitMq(way) => way.0.close(200, "OK".into()).await?,
            Self::Kafka(consumer, _) => {
                let leave = move || consumer.commit_consumer_state(CommitMode::Sync);
                tokio::task::spawn_blocking(leave).await??;
            }
        }
        Ok(())
    }

    async fn ack(&self, place: i32, last: u64) -> Result<()> {
        match self {
            Self::RabbitMq(way) => {
                let options = BasicAckOptions { multiple: true };
                way.1.basic_ack(last, options).await?;
            }
            Self::Kafka(consumer, topics) => {
                let topic = &topics[usize::try_from(place % 2)?];
                consumer.store_offset(topic, place / 2, i64::try_from(last)?)?;
            }
        }
        Ok(())
    }
}

/// Everything below `next` is done, and what is listed.
struct Watermark {
    next: u64,
    done: BTreeSet<u64>,
}

impl Watermark {
    fn new(next: u64) -> Self {
        let done = BTreeSet::new();
        Self { next, done }
    }

    /// Returns the last of those done in a row, if it is a new one.
    fn advance(&mut self) -> Option<u64> {
        let before = self.next;
        while self.done.remove(&self.next) {
            self.next += 1;
        }
        (self.next > before).then(|| self.next - 1)
    }
}
