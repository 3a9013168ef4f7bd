//! RabbitMQ by a plain client.

use std::sync::Arc;

use anyhow::{Context as _, Result, bail, ensure};
use futures_util::StreamExt;
use lapin::message::Delivery;
use lapin::options::{
    BasicConsumeOptions, BasicPublishOptions, ConfirmSelectOptions, ExchangeDeclareOptions,
    ExchangeDeleteOptions, QueueBindOptions, QueueDeclareOptions, QueueDeleteOptions,
};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{
    BasicProperties, Channel, Confirmation, Connection, ConnectionProperties, ExchangeKind,
};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::{Arrived, SILENCE};
use crate::stopwatch::Stopwatch;
use crate::workload::Ping;

/// So many refusals in a row say that a queue is full.
const REFUSALS: u32 = 10;
/// A queue for one message that has taken so many is not limited.
const FILLING_MAX: i64 = 10_000;
/// Routing keys that our transport uses: 0 to 63.
const SLOTS: usize = 64;

/// A connection with what one run declared.
pub(crate) struct RabbitMq {
    connection: Connection,
    channel: Channel,
    exchanges: Vec<String>,
    queues: Vec<String>,
}

impl RabbitMq {
    pub(crate) async fn connect(url: &str) -> Result<Self> {
        let connection = Connection::connect(url, ConnectionProperties::default()).await?;
        let channel = connection.create_channel().await?;
        Ok(Self {
            connection,
            channel,
            exchanges: Vec::new(),
            queues: Vec::new(),
        })
    }

    /// Declares a quorum queue.
    pub(crate) async fn queue(&mut self, queue: &str) -> Result<()> {
        self.declare_queue(queue, FieldTable::default()).await
    }

    /// Declares one that is full with one message, and refuses further ones.
    pub(crate) async fn limited_queue(&mut self, queue: &str) -> Result<()> {
        let mut arguments = FieldTable::default();
        arguments.insert("x-max-length".into(), AMQPValue::LongInt(1));
        let refuse = AMQPValue::LongString("reject-publish".into());
        arguments.insert("x-overflow".into(), refuse);
        self.declare_queue(queue, arguments).await
    }

    async fn declare_queue(&mut self, queue: &str, mut arguments: FieldTable) -> Result<()> {
        let quorum = AMQPValue::LongString("quorum".into());
        arguments.insert("x-queue-type".into(), quorum);
        let options = QueueDeclareOptions {
            durable: true,
            ..QueueDeclareOptions::default()
        };
        let declared = self.channel.queue_declare(queue.into(), options, arguments);
        declared.await?;
        self.queues.push(queue.to_owned());
        Ok(())
    }

    /// Declares an exchange that hands everything to a queue.
    pub(crate) async fn exchange(&mut self, exchange: &str, queue: &str) -> Result<()> {
        self.declare(exchange, ExchangeKind::Fanout).await?;
        self.bind(exchange, queue, "").await
    }

    /// Declares an exchange that spreads messages over queues by their routing key, a number.
    pub(crate) async fn spread(&mut self, exchange: &str, queues: &[String]) -> Result<()> {
        self.declare(exchange, ExchangeKind::Direct).await?;
        for (slot, queue) in (0..SLOTS).zip(queues.iter().cycle()) {
            self.bind(exchange, queue, &slot.to_string()).await?;
        }
        Ok(())
    }

    async fn declare(&mut self, exchange: &str, kind: ExchangeKind) -> Result<()> {
        let options = ExchangeDeclareOptions {
            durable: true,
            ..ExchangeDeclareOptions::default()
        };
        let none = FieldTable::default();
        let declared = self
            .channel
            .exchange_declare(exchange.into(), kind, options, none);
        declared.await?;
        self.exchanges.push(exchange.to_owned());
        Ok(())
    }

    async fn bind(&self, exchange: &str, queue: &str, key: &str) -> Result<()> {
        let (options, none) = (QueueBindOptions::default(), FieldTable::default());
        let (to, from) = (queue.into(), exchange.into());
        let bound = self.channel.queue_bind(to, from, key.into(), options, none);
        Ok(bound.await?)
    }

    /// Publishes until the broker refuses: it looks at the limit of a queue now and then, so some of
    /// a burst would still get in. Returns how many messages were taken.
    pub(crate) async fn fill(&self, exchange: &str) -> Result<i64> {
        let channel = self.connection.create_channel().await?;
        let confirms = ConfirmSelectOptions::default();
        channel.confirm_select(confirms).await?;
        let (mut taken, mut refused) = (0, 0);
        while refused < REFUSALS {
            ensure!(taken < FILLING_MAX, "{exchange} refuses nothing");
            let options = BasicPublishOptions::default();
            let none = BasicProperties::default();
            let publishing = channel.basic_publish(exchange.into(), "".into(), options, b"", none);
            match publishing.await?.await? {
                Confirmation::Ack(None) => (taken, refused) = (taken + 1, 0),
                Confirmation::Nack(None) => refused += 1,
                other => bail!("not an answer of a full queue: {other:?}"),
            }
        }
        channel.close(200, "OK".into()).await?;
        Ok(taken)
    }

    /// Remembers what somebody else declares, so that it is deleted with the rest.
    pub(crate) fn adopt(
        &mut self,
        exchanges: impl IntoIterator<Item = String>,
        queues: impl IntoIterator<Item = String>,
    ) {
        self.exchanges.extend(exchanges);
        self.queues.extend(queues);
    }

    /// Returns how many messages wait in a queue.
    pub(crate) async fn waiting(&self, queue: &str) -> Result<i64> {
        let options = QueueDeclareOptions {
            passive: true,
            ..QueueDeclareOptions::default()
        };
        let none = FieldTable::default();
        let queue = self.channel.queue_declare(queue.into(), options, none);
        Ok(i64::from(queue.await?.message_count()))
    }

    /// Takes everything out of the queues, `count` messages if all is well.
    pub(crate) async fn take_all(&self, queues: &[String], count: u64) -> Result<Arrived> {
        let channel = self.connection.create_channel().await?;
        let mut streams = futures_util::stream::SelectAll::new();
        for queue in queues {
            streams.push(start(&channel, queue).await?);
        }
        let mut arrived = Arrived::default();
        let wanted = i64::try_from(count)?;
        while arrived.messages < wanted {
            let Ok(next) = timeout(SILENCE, streams.next()).await else {
                break;
            };
            note(&mut arrived, &next.context("the channel was closed")??);
        }
        let mut more = 0;
        for queue in queues {
            more += self.waiting(queue).await?;
        }
        arrived.messages += more;
        channel.close(200, "OK".into()).await?;
        Ok(arrived)
    }

    /// Takes messages as they come, each with the time since it was sent, on a task of its own.
    pub(crate) async fn watch(
        &self,
        queue: &str,
        stopwatch: &Arc<Stopwatch>,
    ) -> Result<JoinHandle<Result<Arrived>>> {
        let channel = self.connection.create_channel().await?;
        let mut stream = start(&channel, queue).await?;
        let stopwatch = Arc::clone(stopwatch);
        Ok(tokio::spawn(async move {
            let mut arrived = Arrived::default();
            while let Some(delivery) = stream.next().await {
                let delivery = delivery?;
                let ping: Ping = serde_json::from_slice(&delivery.data)?;
                stopwatch.stop(ping.at);
                note(&mut arrived, &delivery);
            }
            Ok(arrived)
        }))
    }

    /// Deletes what was declared, and leaves. Whoever watches hears the end.
    pub(crate) async fn close(self) -> Result<()> {
        for queue in self.queues {
            let options = QueueDeleteOptions::default();
            self.channel.queue_delete(queue.into(), options).await?;
        }
        for exchange in self.exchanges {
            let options = ExchangeDeleteOptions::default();
            self.channel
                .exchange_delete(exchange.into(), options)
                .await?;
        }
        self.connection.close(200, "OK".into()).await?;
        Ok(())
    }
}

async fn start(channel: &Channel, queue: &str) -> Result<lapin::Consumer> {
    let options = BasicConsumeOptions {
        no_ack: true,
        ..BasicConsumeOptions::default()
    };
    let none = FieldTable::default();
    let started = channel.basic_consume(queue.into(), "".into(), options, none);
    Ok(started.await?)
}

fn note(arrived: &mut Arrived, delivery: &Delivery) {
    let properties = &delivery.properties;
    let id = properties.message_id().as_ref().map(ToString::to_string);
    let mut bytes = delivery.data.len();
    for (name, value) in properties.headers().iter().flat_map(FieldTable::inner) {
        if let AMQPValue::LongString(value) = value {
            bytes += name.as_str().len() + value.as_bytes().len();
        }
    }
    arrived.add(id.unwrap_or_default(), bytes);
}
