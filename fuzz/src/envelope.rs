//! Messages of strangers, up to their handler, and what instances hold.

use std::sync::LazyLock;

use bytes::Bytes;
use sagabus_core::codec;
use sagabus_core::endpoint::Destination;
use sagabus_core::envelope::Envelope;
use sagabus_core::error::HandlerError;
use sagabus_core::headers::{self, Headers};
use sagabus_core::keyring::Keyring;
use sagabus_core::message::{Kind, Message};
use sagabus_core::redaction::Redaction;
use sagabus_core::request::Request;
use sagabus_core::transport::Publication;
use sagabus_core::wire::{self, AMQP, Binding, KAFKA, Native, Received};
use sagabus_core::{MessageId, Timestamp};
use sagabus_saga::Saga;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::parts::{flag, head_and_body};

/// A message with a field of each kind.
#[derive(Debug, Serialize, Deserialize)]
struct Placed {
    id: u64,
    name: String,
    tags: Vec<Option<f64>>,
    rest: Option<Value>,
}

impl Message for Placed {
    const TYPE: &'static str = "hostile.placed";
    const KIND: Kind = Kind::Event;
}

/// An instance whose older versions have another shape.
#[derive(Debug, Serialize, Deserialize)]
struct Order {
    cents: i64,
    lines: Vec<String>,
}

impl Saga for Order {
    type Key = u64;
    type State = ();
    const SCHEMA_VERSION: i32 = 2;

    fn upcast(_: i32, mut data: Value) -> Result<Value, HandlerError> {
        let euros = data.get_mut("euros").map(Value::take);
        let euros = euros.as_ref().and_then(Value::as_i64);
        let euros = euros.ok_or_else(|| HandlerError::new("no euros"))?;
        let cents = euros.checked_mul(100);
        let cents = cents.ok_or_else(|| HandlerError::new("too many euros"))?;
        Ok(serde_json::json!({ "cents": cents, "lines": [] }))
    }
}

/// A message as any client of a broker may write it. A byte of flags; lines of `name:value`, of
/// which those that begin with `@` are what the broker itself says; an empty line; the body.
pub(crate) fn envelope(bytes: &[u8]) {
    let (flags, rest) = flag(bytes);
    let binding = if flags & 1 == 0 { AMQP } else { KAFKA };
    let (head, body) = head_and_body(rest);
    let mut received = Received {
        body: Bytes::copy_from_slice(body),
        ..Received::default()
    };
    for line in head.split('\n') {
        let (name, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.to_owned();
        match name {
            "@id" => received.native.id = Some(value),
            "@type" => received.native.message_type = Some(value),
            "@content" => received.native.content_type = Some(value),
            "@correlation" => received.native.correlation_id = Some(value),
            "@key" => received.native.key = Some(value),
            "@at" => received.native.sent_at = value.parse().ok().map(Timestamp::from_micros),
            _ => received.headers.push((name.replace("^", ":"), value)),
        }
    }
    let read = wire::read(binding, received, MessageId::new);
    understand(&read);
    if read.check().is_ok() {
        goes_on(binding, &read);
    }
}

/// Does with an envelope what a host does before a handler runs, and what a store does with it.
fn understand(envelope: &Envelope) {
    static KEYS: LazyLock<Keyring> =
        LazyLock::new(|| Keyring::new("k1", [7; 32]).expect("it is a key"));
    let _ = (
        envelope.version(),
        envelope.correlation_id(),
        codec::media_type(envelope),
    );
    let _ = Request::read(&envelope.headers);
    let reply_to = envelope.headers.get(headers::REPLY_TO);
    let _ = reply_to.map(Destination::parse);
    if codec::decode::<Placed>(envelope).is_ok() {
        let masked = Redaction::fields(["/name", "/tags/*", "/rest"]).mask(&envelope.body);
        assert!(!masked.is_empty());
    }
    if let Ok(opened) = KEYS.open(envelope) {
        assert_eq!(opened.id, envelope.id);
    }
    let stored = envelope.headers.to_json();
    let read = Headers::from_json(&stored).expect("our own form can be read");
    assert_eq!(read, envelope.headers);
    let _ = Headers::from_json(&envelope.body);
}

/// What a host takes over it can send on: others read the same message.
fn goes_on(binding: Binding, envelope: &Envelope) {
    let publication = Publication {
        address: "event/x".to_owned(),
        envelope: envelope.clone(),
        key: None,
    };
    let written = wire::write(binding, &publication).into_iter();
    let received = Received {
        headers: written
            .map(|(name, value)| (name.to_owned(), value.into_owned()))
            .collect(),
        body: envelope.body.clone(),
        native: Native::default(),
    };
    let again = wire::read(binding, received, || unreachable!("it has an identity"));
    assert_eq!(again, *envelope);
}

/// What an instance holds: a byte for the version of its shape, and its data.
pub(crate) fn saga(bytes: &[u8]) {
    let (version, data) = flag(bytes);
    let version = i32::from(version.cast_signed());
    sagabus_saga::fuzzing::stored::<Order>(version, Bytes::copy_from_slice(data));
}
