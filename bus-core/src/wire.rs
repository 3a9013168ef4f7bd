//! The form in which messages travel on brokers: CloudEvents 1.0 in binary mode.
//!
//! A message of ours carries the CloudEvents attributes under the prefix of its broker's binding
//! (`cloudEvents:` on AMQP, `ce_` on Kafka), W3C trace context, and every header of ours as it is,
//! so that nothing is lost on the way and any CloudEvents reader understands it:
//!
//! | attribute | is |
//! |---|---|
//! | `specversion` | `1.0` |
//! | `id` | the message's identity |
//! | `type` | its type name |
//! | `source` | the host that sent it, else `sagabus` |
//! | `time` | when it was sent, RFC 3339 in UTC |
//! | `partitionkey` | its key, where it has one |
//!
//! The content type travels where the binding has it: a property on AMQP, the header
//! `content-type` on Kafka. Reading is lenient: a message of any CloudEvents producer becomes an
//! envelope, and so does one of a plain client, with or without identity and type.

use std::borrow::Cow;

use bytes::Bytes;

use crate::clock::Timestamp;
use crate::envelope::Envelope;
use crate::headers::{self, Headers};
use crate::id::MessageId;
use crate::transport::Publication;
use crate::wire_time;

/// Marks a message of ours with the version of this form; never part of an envelope.
pub const MARK: &str = "sagabus-wire";
/// The version of this form.
const VERSION: &str = "1";
/// The `source` of a message whose sender gave none; the specification wants one.
const SOURCE: &str = "sagabus";

/// How a broker's CloudEvents binding names the attributes.
#[derive(Clone, Copy, Debug)]
pub struct Binding {
    prefixes: &'static [&'static str],
    spec_version: &'static str,
    id: &'static str,
    message_type: &'static str,
    source: &'static str,
    time: &'static str,
    partition_key: &'static str,
}

/// The names on AMQP. `cloudEvents_` is read as well: clients of JMS cannot write a colon.
pub const AMQP: Binding = Binding {
    prefixes: &["cloudEvents:", "cloudEvents_"],
    spec_version: "cloudEvents:specversion",
    id: "cloudEvents:id",
    message_type: "cloudEvents:type",
    source: "cloudEvents:source",
    time: "cloudEvents:time",
    partition_key: "cloudEvents:partitionkey",
};

/// The names on Kafka.
pub const KAFKA: Binding = Binding {
    prefixes: &["ce_"],
    spec_version: "ce_specversion",
    id: "ce_id",
    message_type: "ce_type",
    source: "ce_source",
    time: "ce_time",
    partition_key: "ce_partitionkey",
};

/// Lists the headers of a message on a broker, its own included. The body travels as it is.
///
/// A binding that has a place of its own for the content type takes `content-type` out.
pub fn write(binding: Binding, publication: &Publication) -> Vec<(&str, Cow<'_, str>)> {
    let envelope = &publication.envelope;
    let mut all = Vec::with_capacity(envelope.headers.len() + 7);
    all.push((MARK, VERSION.into()));
    all.push((binding.spec_version, "1.0".into()));
    all.push((binding.id, String::from(envelope.id).into()));
    all.push((binding.message_type, envelope.message_type.as_ref().into()));
    let source = envelope.headers.get(headers::SOURCE);
    let source = source.filter(|source| !source.is_empty()).unwrap_or(SOURCE);
    all.push((binding.source, source.into()));
    if let Some(time) = sent_at(&envelope.headers) {
        all.push((binding.time, time.into()));
    }
    if let Some(key) = &publication.key {
        all.push((binding.partition_key, key.into()));
    }
    // What stands above is the bus's to say: a header of the same name does not travel.
    let own = envelope.headers.iter();
    let own = own.filter(|(name, _)| *name != MARK && !binding.writes(name));
    all.extend(own.map(|(name, value)| (name, value.into())));
    all
}

fn sent_at(headers: &Headers) -> Option<String> {
    wire_time::format(headers.get(headers::SENT_AT)?.parse().ok()?)
}

/// What a broker delivered, before it is understood.
#[derive(Clone, Debug, Default)]
pub struct Received {
    /// Every header as text.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Bytes,
    /// What the broker's own fields say. CloudEvents attributes go first.
    pub native: Native,
}

/// What fields of a broker's message say beside its headers.
#[derive(Clone, Debug, Default)]
pub struct Native {
    /// Its identity, such as AMQP's `message-id`.
    pub id: Option<String>,
    /// Its type.
    pub message_type: Option<String>,
    /// Its content type. Goes before the header of that name.
    pub content_type: Option<String>,
    /// The conversation that it belongs to.
    pub correlation_id: Option<String>,
    /// Its key.
    pub key: Option<String>,
    /// When it was sent.
    pub sent_at: Option<Timestamp>,
}

/// The attributes of a foreign message that have no header of their own.
#[derive(Default)]
struct Attributes {
    id: Option<String>,
    message_type: Option<String>,
    source: Option<String>,
    time: Option<String>,
    partition_key: Option<String>,
    content_type: Option<String>,
}

/// Makes an envelope of what a broker delivered. `nameless` makes the identity of a message that
/// has none.
///
/// A message of ours is what it was, header for header. A foreign one gets our headers from its
/// attributes and from the broker's fields; an identity that is no UUID is hashed together with its
/// `source`, within which it is unique; a missing type is empty.
pub fn read(
    binding: Binding,
    received: Received,
    nameless: impl FnOnce() -> MessageId,
) -> Envelope {
    let Received {
        headers: pairs,
        body,
        native,
    } = received;
    let mut is_ours = false;
    let mut attributes = Attributes::default();
    let own = pairs.into_iter().filter_map(|(name, value)| {
        let Some(attribute) = binding.attribute(&name) else {
            is_ours |= name == MARK;
            return (name != MARK).then(|| (headers::known_name(&name), value));
        };
        match attributes.place(attribute) {
            Some(place) => *place = Some(value),
            None if attribute == "specversion" => {}
            None => return Some((extension(attribute, name.clone()), value)),
        }
        None
    });
    let mut map: Headers = own.collect();
    let foreign_type = native.message_type.clone();
    let id = identity(&attributes, &native, is_ours).unwrap_or_else(nameless);
    let message_type = attributes.message_type.take().or(foreign_type);
    if let Some(content_type) = &native.content_type {
        map.set(headers::CONTENT_TYPE, content_type);
    }
    if !is_ours {
        adopt(&mut map, attributes, native);
    }
    Envelope {
        id,
        message_type: message_type.unwrap_or_default().into(),
        headers: map,
        body,
    }
}

impl Binding {
    /// Says whether a header of this name is written for every message.
    fn writes(&self, name: &str) -> bool {
        let names = [
            self.id,
            self.message_type,
            self.source,
            self.time,
            self.partition_key,
        ];
        name == self.spec_version || names.contains(&name)
    }

    /// Returns the attribute that a header carries.
    fn attribute<'a>(&self, name: &'a str) -> Option<&'a str> {
        let mut prefixes = self.prefixes.iter();
        prefixes.find_map(|prefix| name.strip_prefix(prefix))
    }
}

impl Attributes {
    fn place(&mut self, attribute: &str) -> Option<&mut Option<String>> {
        Some(match attribute {
            "id" => &mut self.id,
            "type" => &mut self.message_type,
            "source" => &mut self.source,
            "time" => &mut self.time,
            "partitionkey" => &mut self.partition_key,
            "datacontenttype" => &mut self.content_type,
            _ => return None,
        })
    }
}

/// Names the header of an extension attribute: trace context has one, others keep their name.
fn extension(attribute: &str, name: String) -> Cow<'static, str> {
    match attribute {
        headers::TRACEPARENT => headers::TRACEPARENT.into(),
        headers::TRACESTATE => headers::TRACESTATE.into(),
        _ => name.into(),
    }
}

fn identity(attributes: &Attributes, native: &Native, is_ours: bool) -> Option<MessageId> {
    let not_empty = |text: &&String| !text.is_empty();
    let id = attributes.id.as_ref().filter(not_empty);
    let Some(id) = id else {
        let id = native.id.as_ref().filter(not_empty)?;
        return Some(MessageId::from_foreign(id));
    };
    if is_ours {
        return Some(MessageId::from_foreign(id));
    }
    // Only UUIDs are unique by themselves; a producer's "1" is another's "1", too.
    Some(id.parse().unwrap_or_else(|_| {
        let source = attributes.source.as_deref().unwrap_or_default();
        MessageId::from_foreign(&format!("{source}\u{1f}{id}"))
    }))
}

/// Gives a foreign message the headers by which ours are understood, where it lacks them.
fn adopt(map: &mut Headers, attributes: Attributes, native: Native) {
    let time = attributes.time.as_deref().and_then(wire_time::parse);
    let time = time.or(native.sent_at.map(Timestamp::as_micros));
    let ours = [
        (headers::CONTENT_TYPE, attributes.content_type),
        (headers::SOURCE, attributes.source),
        (headers::SENT_AT, time.map(|micros| micros.to_string())),
        (headers::KEY, attributes.partition_key.or(native.key)),
        (headers::CORRELATION_ID, native.correlation_id),
    ];
    for (name, value) in ours {
        if let (Some(value), None) = (value, map.get(name)) {
            map.set(name, value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "018f4e5a-0000-7000-8000-000000000001";

    fn publication() -> Publication {
        let headers: Headers = [
            ("content-type", "application/json"),
            ("sagabus-kind", "event"),
            ("sagabus-sent-at", "1795264800123456"),
            ("sagabus-source", "orders"),
            ("sagabus-key", "4711"),
            ("traceparent", "00-1-2-01"),
            ("note", "grüße"),
        ]
        .into_iter()
        .collect();
        Publication {
            address: "event/orders.order-placed".to_owned(),
            envelope: Envelope {
                id: ID.parse().unwrap(),
                message_type: "orders.order-placed".into(),
                headers,
                body: Bytes::from_static(b"{}"),
            },
            key: Some("4711".to_owned()),
        }
    }

    /// A seal is bound to headers: both bindings have to bring each as it was.
    #[test]
    fn a_sealed_message_is_opened_behind_every_binding() {
        let keys = crate::Keyring::new("k", [1; 32]).unwrap();
        for binding in [AMQP, KAFKA] {
            let mut sent = publication();
            for name in crate::keyring::BOUND {
                sent.envelope.headers.set(name, format!("{name} ü"));
            }
            let plain = sent.envelope.clone();
            keys.seal(&mut sent.envelope).unwrap();
            let pairs = write(binding, &sent).into_iter();
            let pairs = pairs.map(|(name, value)| (name.to_owned(), value.into_owned()));
            let came = Received {
                headers: pairs.collect(),
                body: sent.envelope.body.clone(),
                native: Native::default(),
            };
            let came = read(binding, came, || unreachable!("it has an identity"));
            assert_eq!(keys.open(&came).unwrap().body, plain.body);
        }
    }

    fn received(headers: &[(&str, &str)]) -> Received {
        let pairs = headers.iter();
        Received {
            headers: pairs
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
                .collect(),
            ..Received::default()
        }
    }

    fn headers_of(envelope: &Envelope) -> Vec<(&str, &str)> {
        envelope.headers.iter().collect()
    }

    fn nobody() -> MessageId {
        panic!("the message has an identity")
    }

    #[test]
    fn a_message_of_ours_is_written_as_a_cloud_event() {
        let publication = publication();
        let written = write(AMQP, &publication);
        let shown: Vec<_> = written
            .iter()
            .map(|(name, value)| format!("{name}={value}"))
            .collect();
        assert_eq!(
            shown,
            [
                "sagabus-wire=1",
                "cloudEvents:specversion=1.0",
                "cloudEvents:id=018f4e5a-0000-7000-8000-000000000001",
                "cloudEvents:type=orders.order-placed",
                "cloudEvents:source=orders",
                "cloudEvents:time=2026-11-21T12:40:00.123456Z",
                "cloudEvents:partitionkey=4711",
                "content-type=application/json",
                "sagabus-kind=event",
                "sagabus-sent-at=1795264800123456",
                "sagabus-source=orders",
                "sagabus-key=4711",
                "traceparent=00-1-2-01",
                "note=grüße",
            ]
        );
    }

    #[test]
    fn a_message_of_ours_reads_back_header_for_header() {
        let bare = Publication {
            envelope: Envelope {
                headers: Headers::new(),
                ..publication().envelope
            },
            ..publication()
        };
        for (binding, sent) in [(AMQP, publication()), (KAFKA, publication()), (KAFKA, bare)] {
            let pairs = write(binding, &sent);
            let received = Received {
                headers: pairs
                    .into_iter()
                    .map(|(name, value)| (name.to_owned(), value.into_owned()))
                    .collect(),
                body: sent.envelope.body.clone(),
                // What we set for foreign tools changes nothing for us.
                native: Native {
                    id: Some("other".to_owned()),
                    key: Some("4711".to_owned()),
                    correlation_id: Some("other".to_owned()),
                    ..Native::default()
                },
            };
            assert_eq!(read(binding, received, nobody), sent.envelope);
        }
    }

    #[test]
    fn a_header_cannot_pretend_to_be_an_attribute() {
        let mut publication = publication();
        publication.envelope.headers.set("ce_type", "other");
        publication.envelope.headers.set(MARK, "7");
        let written = write(KAFKA, &publication);
        let of = |wanted| written.iter().filter(move |(name, _)| *name == wanted);
        assert_eq!(of("ce_type").count(), 1);
        assert_eq!(of(MARK).count(), 1);
        assert_eq!(of("note").count(), 1);
    }

    #[test]
    fn any_cloud_event_is_understood() {
        let received = received(&[
            ("ce_specversion", "1.0"),
            ("ce_id", "A-1"),
            ("ce_source", "/shop"),
            ("ce_type", "orders.order-placed"),
            ("ce_time", "2026-11-21T13:40:00+01:00"),
            ("ce_partitionkey", "k"),
            ("ce_traceparent", "00-1-2-01"),
            ("ce_subject", "4711"),
            ("content-type", "application/json"),
        ]);
        let envelope = read(KAFKA, received, nobody);
        assert_eq!(envelope.message_type, "orders.order-placed");
        assert_eq!(envelope.id, MessageId::from_foreign("/shop\u{1f}A-1"));
        assert_eq!(
            headers_of(&envelope),
            [
                ("traceparent", "00-1-2-01"),
                ("ce_subject", "4711"),
                ("content-type", "application/json"),
                ("sagabus-source", "/shop"),
                ("sagabus-sent-at", "1795264800000000"),
                ("sagabus-key", "k"),
            ]
        );
    }

    #[test]
    fn equal_foreign_identities_of_two_sources_are_two_messages() {
        let of = |source| received(&[("cloudEvents:id", "1"), ("cloudEvents:source", source)]);
        let [shop, till] = ["shop", "till"].map(|source| read(AMQP, of(source), nobody).id);
        assert_ne!(shop, till);
        assert_eq!(shop, read(AMQP, of("shop"), nobody).id);
        let uuid = received(&[("cloudEvents_id", ID), ("cloudEvents_source", "shop")]);
        assert_eq!(read(AMQP, uuid, nobody).id.to_string(), ID);
    }

    #[test]
    fn a_message_of_a_plain_client_is_understood() {
        let native = Native {
            id: Some("order/4711".to_owned()),
            message_type: Some("orders.place-order".to_owned()),
            content_type: Some("application/json".to_owned()),
            correlation_id: Some("c-1".to_owned()),
            sent_at: Some(Timestamp::from_micros(7)),
            key: None,
        };
        let received = Received {
            native,
            ..received(&[("x-tenant", "a")])
        };
        let envelope = read(AMQP, received, nobody);
        assert_eq!(envelope.id, MessageId::from_foreign("order/4711"));
        assert_eq!(envelope.message_type, "orders.place-order");
        assert_eq!(
            headers_of(&envelope),
            [
                ("x-tenant", "a"),
                ("content-type", "application/json"),
                ("sagabus-sent-at", "7"),
                ("sagabus-correlation-id", "c-1"),
            ]
        );
    }

    #[test]
    fn a_message_without_anything_is_an_envelope_with_an_empty_type() {
        let id = MessageId::new();
        let received = Received {
            body: Bytes::from_static(b"hello"),
            ..received(&[("cloudEvents:time", "yesterday"), ("cloudEvents:id", "")])
        };
        let envelope = read(AMQP, received, || id);
        let expected = Envelope {
            id,
            message_type: "".into(),
            headers: Headers::new(),
            body: Bytes::from_static(b"hello"),
        };
        assert_eq!(envelope, expected);
    }
}
