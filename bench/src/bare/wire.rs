//! The same bytes on the wire as ours, by hand: CloudEvents in the brokers' bindings.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Result, bail, ensure};
use lapin::options::{BasicPublishOptions, ConfirmSelectOptions};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, Channel, Confirmation, Connection};
use rdkafka::ClientConfig;
use rdkafka::client::ClientContext;
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseRecord, DeliveryResult, ProducerContext, ThreadedProducer};
use tokio::sync::Notify;
use uuid::Uuid;

/// A row on its way to a broker.
pub(crate) struct Message {
    pub(crate) row: i64,
    pub(crate) id: Uuid,
    pub(crate) message_type: String,
    pub(crate) destination: String,
    pub(crate) headers: HashMap<String, String>,
    pub(crate) body: Vec<u8>,
}

/// Where messages go.
#[derive(Clone)]
pub(crate) enum Outlet {
    /// A channel with confirms.
    RabbitMq(Channel),
    /// An idempotent producer.
    Kafka(Arc<ThreadedProducer<Reports>>),
}

impl Outlet {
    pub(crate) async fn rabbitmq(connection: &Connection) -> Result<Self> {
        let channel = connection.create_channel().await?;
        let confirms = ConfirmSelectOptions::default();
        channel.confirm_select(confirms).await?;
        Ok(Self::RabbitMq(channel))
    }

    pub(crate) fn kafka(brokers: &str) -> Result<Self> {
        let mut config = ClientConfig::new();
        config
            .set("bootstrap.servers", brokers)
            .set("enable.idempotence", "true")
            .set("acks", "all")
            .set("linger.ms", "0");
        let producer = config.create_with_context(Reports)?;
        Ok(Self::Kafka(Arc::new(producer)))
    }

    /// Publishes all and waits until the broker has confirmed all.
    pub(crate) async fn publish(&self, messages: &[Message]) -> Result<()> {
        match self {
            Self::RabbitMq(channel) => publish_amqp(channel, messages).await,
            Self::Kafka(producer) => produce(producer, messages).await,
        }
    }
}

async fn publish_amqp(channel: &Channel, messages: &[Message]) -> Result<()> {
    let mut confirms = Vec::with_capacity(messages.len());
    for message in messages {
        let options = BasicPublishOptions {
            mandatory: !message.destination.starts_with("event/"),
            ..BasicPublishOptions::default()
        };
        let (exchange, body) = (message.destination.as_str().into(), &message.body);
        let headers = amqp(message);
        let publishing = channel.basic_publish(exchange, "".into(), options, body, headers);
        confirms.push(publishing.await?);
    }
    for confirm in confirms {
        match confirm.await? {
            Confirmation::Ack(None) => {}
            other => bail!("not taken: {other:?}"),
        }
    }
    Ok(())
}

fn amqp(message: &Message) -> BasicProperties {
    let mut table = FieldTable::default();
    let mut add = |name: &str, value: &str| {
        table.insert(name.into(), AMQPValue::LongString(value.into()));
    };
    let id = message.id.to_string();
    attributes(message, &id, |name, value| {
        add(&format!("cloudEvents:{name}"), value);
    });
    add("sagabus-wire", "1");
    for (name, value) in &message.headers {
        if name != "content-type" {
            add(name, value);
        }
    }
    let header = |name: &str| message.headers.get(name).map_or("", String::as_str);
    BasicProperties::default()
        .with_delivery_mode(2)
        .with_message_id(id.into())
        .with_type(message.message_type.as_str().into())
        .with_content_type(header("content-type").into())
        .with_correlation_id(header("sagabus-correlation-id").into())
        .with_headers(table)
}

fn attributes(message: &Message, id: &str, mut add: impl FnMut(&str, &str)) {
    add("specversion", "1.0");
    add("id", id);
    add("type", &message.message_type);
    let source = message.headers.get("sagabus-source");
    add("source", source.map_or("sagabus", String::as_str));
    let sent_at = message.headers.get("sagabus-sent-at");
    if let Some(micros) = sent_at.and_then(|text| text.parse().ok()) {
        add("time", &time(micros));
    }
}

/// Writes microseconds since 1970 as RFC 3339.
fn time(micros: i64) -> String {
    let (seconds, fraction) = (micros / 1_000_000, micros % 1_000_000);
    let (days, rest) = (seconds / 86_400, seconds % 86_400);
    let (hour, minute, second) = (rest / 3600, rest / 60 % 60, rest % 60);
    // Days since the first of March of the year 0, in eras of 400 years.
    let z = days + 719_468;
    let (era, day_of_era) = (z / 146_097, z % 146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_shifted + 2) / 5 + 1;
    let month = (month_shifted + 2) % 12 + 1;
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{fraction:06}Z")
}

async fn produce(producer: &ThreadedProducer<Reports>, messages: &[Message]) -> Result<()> {
    let window = Arc::new(Window::new(messages.len()));
    for message in messages {
        let id = message.id.to_string();
        let mut headers = OwnedHeaders::new_with_capacity(message.headers.len() + 6);
        attributes(message, &id, |name, value| {
            let whole = std::mem::take(&mut headers);
            headers = with(whole, &format!("ce_{name}"), value);
        });
        headers = with(headers, "sagabus-wire", "1");
        for (name, value) in &message.headers {
            headers = with(headers, name, value);
        }
        let opaque = Arc::clone(&window);
        let record = BaseRecord::<(), [u8], _>::with_opaque_to(&message.destination, opaque)
            .payload(&message.body)
            .headers(headers);
        producer.send(record).map_err(|(error, _)| error)?;
    }
    window.whole().await
}

fn with(headers: OwnedHeaders, key: &str, value: &str) -> OwnedHeaders {
    let value = Some(value.as_bytes());
    headers.insert(Header { key, value })
}

/// Counts the confirms of one window.
pub(crate) struct Window {
    left: AtomicUsize,
    failed: Mutex<Option<String>>,
    is_whole: Notify,
}

impl Window {
    fn new(count: usize) -> Self {
        Self {
            left: AtomicUsize::new(count),
            failed: Mutex::default(),
            is_whole: Notify::new(),
        }
    }

    async fn whole(&self) -> Result<()> {
        while self.left.load(Ordering::Acquire) > 0 {
            self.is_whole.notified().await;
        }
        let failed = self.failed.lock().unwrap_or_else(PoisonError::into_inner);
        ensure!(failed.is_none(), "not taken: {failed:?}");
        Ok(())
    }
}

/// Hears the broker's word on each record.
pub(crate) struct Reports;

impl ClientContext for Reports {}

impl ProducerContext for Reports {
    type DeliveryOpaque = Arc<Window>;

    fn delivery(&self, result: &DeliveryResult<'_>, window: Arc<Window>) {
        if let Err((error, _)) = result {
            let mut failed = window.failed.lock().unwrap_or_else(PoisonError::into_inner);
            *failed = Some(error.to_string());
        }
        if window.left.fetch_sub(1, Ordering::AcqRel) == 1 {
            window.is_whole.notify_one();
        }
    }
}
