//! A message as AMQP properties and headers, and back.

use bytes::Bytes;
use lapin::BasicProperties;
use lapin::message::Delivery;
use lapin::types::{AMQPValue, FieldTable, ShortString};
use sagabus_core::clock::Timestamp;
use sagabus_core::envelope::Envelope;
use sagabus_core::headers;
use sagabus_core::id::MessageId;
use sagabus_core::transport::Publication;
use sagabus_core::wire::{self, Native, Received};

/// Headers that the broker adds: they say how the message travelled, not what it is.
const OF_THE_BROKER: [&str; 2] = ["x-delivery-count", "x-acquired-count"];
/// The most bytes that all headers of a message may take on the wire. The broker closes the whole
/// connection over properties that do not fit into one frame, 128 KiB by default.
const BYTES_MAX: usize = 64 * 1024;
/// Written to disk before it is confirmed.
const PERSISTENT: u8 = 2;

/// Writes a message's properties.
///
/// # Errors
/// The header that AMQP cannot carry.
pub(crate) fn write(publication: &Publication) -> Result<BasicProperties, String> {
    let envelope = &publication.envelope;
    let mut table = FieldTable::default();
    let mut bytes = 0;
    for (name, value) in wire::write(wire::AMQP, publication) {
        if name == headers::CONTENT_TYPE && fits(&value) {
            continue;
        }
        bytes += name.len() + value.len();
        let known = ShortString::try_new(name)
            .map_err(|_| format!("header name of {} bytes is longer than 255", name.len()))?;
        table.insert(known, AMQPValue::LongString(value.as_ref().into()));
    }
    if bytes > BYTES_MAX {
        return Err(format!(
            "headers take {bytes} bytes where at most {BYTES_MAX} may be"
        ));
    }
    let mut properties = BasicProperties::default()
        .with_delivery_mode(PERSISTENT)
        .with_message_id(String::from(envelope.id).into())
        .with_headers(table);
    if fits(&envelope.message_type) {
        properties = properties.with_type(envelope.message_type.as_ref().into());
    }
    let header = |name| envelope.headers.get(name).filter(|value| fits(value));
    if let Some(content_type) = header(headers::CONTENT_TYPE) {
        properties = properties.with_content_type(content_type.into());
    }
    if let Some(conversation) = header(headers::CORRELATION_ID) {
        properties = properties.with_correlation_id(conversation.into());
    }
    Ok(properties)
}

/// Says whether a property can hold this text.
fn fits(text: &str) -> bool {
    text.len() <= 255
}

/// A delivery as the contract wants it, with what only the broker knows.
#[derive(Clone)]
pub(crate) struct Read {
    pub(crate) envelope: Envelope,
    /// The key by which it is ordered.
    pub(crate) key: Option<String>,
    /// How often it was delivered before.
    pub(crate) redeliveries: u32,
}

/// Reads any delivery: ours, a CloudEvent's, or a plain client's. Without an identity it gets a new
/// one each time it comes, because nothing tells two equal ones apart.
pub(crate) fn read(delivery: Delivery) -> Read {
    let properties = &delivery.properties;
    let mut redeliveries = u32::from(delivery.redelivered);
    let mut pairs = Vec::new();
    for (name, value) in properties.headers().iter().flat_map(FieldTable::inner) {
        if !OF_THE_BROKER.contains(&name.as_str()) {
            pairs.push((name.to_string(), text(value)));
        } else if name.as_str() == OF_THE_BROKER[0] {
            redeliveries = text(value).parse().unwrap_or(redeliveries);
        }
    }
    let key = ordering_key(&pairs);
    if let Some(reply_to) = properties.reply_to()
        && !pairs.iter().any(|(name, _)| name == headers::REPLY_TO)
    {
        // Plain clients name a queue that they wait on.
        pairs.push((headers::REPLY_TO.to_owned(), format!("queue/{reply_to}")));
    }
    let own = |property: &Option<ShortString>| property.as_ref().map(ToString::to_string);
    let seconds = properties.timestamp().and_then(|at| i64::try_from(at).ok());
    let sent_at = seconds.and_then(|seconds| seconds.checked_mul(1_000_000));
    let native = Native {
        id: own(properties.message_id()),
        message_type: own(properties.kind()),
        content_type: own(properties.content_type()),
        correlation_id: own(properties.correlation_id()),
        key: None,
        sent_at: sent_at.map(Timestamp::from_micros),
    };
    let received = Received {
        headers: pairs,
        body: Bytes::from(delivery.data),
        native,
    };
    Read {
        envelope: wire::read(wire::AMQP, received, MessageId::new),
        key,
        redeliveries,
    }
}

/// The key by which the sender ordered the message, else the one that it carries.
fn ordering_key(pairs: &[(String, String)]) -> Option<String> {
    let of = |wanted: &str| pairs.iter().find(|(name, _)| name == wanted);
    of("cloudEvents:partitionkey")
        .or_else(|| of(headers::KEY))
        .map(|(_, value)| value.clone())
}

/// Any AMQP value as text; what is no text in itself as JSON would show it.
fn text(value: &AMQPValue) -> String {
    match value {
        AMQPValue::Boolean(value) => value.to_string(),
        AMQPValue::ShortShortInt(value) => value.to_string(),
        AMQPValue::ShortShortUInt(value) => value.to_string(),
        AMQPValue::ShortInt(value) => value.to_string(),
        AMQPValue::ShortUInt(value) => value.to_string(),
        AMQPValue::LongInt(value) => value.to_string(),
        AMQPValue::LongUInt(value) => value.to_string(),
        AMQPValue::LongLongInt(value) => value.to_string(),
        AMQPValue::Timestamp(value) => value.to_string(),
        AMQPValue::Float(value) => value.to_string(),
        AMQPValue::Double(value) => value.to_string(),
        AMQPValue::ShortString(value) => value.to_string(),
        AMQPValue::LongString(value) => String::from_utf8_lossy(value.as_bytes()).into_owned(),
        AMQPValue::ByteArray(value) => String::from_utf8_lossy(value.as_slice()).into_owned(),
        AMQPValue::DecimalValue(value) => {
            format!("{}e-{}", value.value, value.scale)
        }
        AMQPValue::FieldArray(values) => {
            let values: Vec<_> = values.as_slice().iter().map(text).collect();
            format!("[{}]", values.join(","))
        }
        AMQPValue::FieldTable(table) => {
            let pairs = table.inner().iter();
            let pairs: Vec<_> = pairs
                .map(|(name, value)| format!("{name}:{}", text(value)))
                .collect();
            format!("{{{}}}", pairs.join(","))
        }
        AMQPValue::Void => String::new(),
    }
}
