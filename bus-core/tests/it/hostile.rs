//! What anybody may put on a broker: whatever it is, it becomes an envelope without a panic and in
//! time. `PROPTEST_CASES=1000000` looks at more.

use std::time::Duration;

use bytes::Bytes;
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use sagabus_core::envelope::Envelope;
use sagabus_core::headers::{self, Headers};
use sagabus_core::id::MessageId;
use sagabus_core::message::{Kind, Message};
use sagabus_core::transport::Publication;
use sagabus_core::wire::{self, AMQP, Binding, KAFKA, MARK, Native, Received};
use sagabus_core::{clock::Timestamp, codec};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

#[derive(Debug, Serialize, Deserialize)]
struct Placed {
    id: u64,
    name: String,
    tags: Vec<Option<f64>>,
}

impl Message for Placed {
    const TYPE: &'static str = "hostile.placed";
    const KIND: Kind = Kind::Event;
}

/// Names that mean something to us, and any other.
fn name() -> impl Strategy<Value = String> {
    const KNOWN: &[&str] = &[
        MARK,
        headers::CONTENT_TYPE,
        headers::VERSION,
        headers::KIND,
        headers::SENT_AT,
        headers::KEY,
        headers::REPLY_TO,
        headers::CORRELATION_ID,
        headers::TRACEPARENT,
        "cloudEvents:",
        "cloudEvents:id",
        "cloudEvents_type",
        "cloudEvents:source",
        "cloudEvents:time",
        "cloudEvents:traceparent",
        "ce_",
        "ce_id",
        "ce_type",
        "ce_time",
        "ce_specversion",
        "ce_datacontenttype",
    ];
    prop_oneof![
        prop::sample::select(KNOWN).prop_map(str::to_owned),
        any::<String>()
    ]
}

/// Values that mean something to us, nearly do, or do not.
fn value() -> impl Strategy<Value = String> {
    let shapes = [
        "[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}",
        "-?[0-9]{1,25}",
        "[0-9]{1,5}-[0-9]{1,3}-[0-9]{1,3}[Tt ][0-9]{1,3}:[0-9]{1,3}:[0-9]{1,3}(\\.[0-9]{0,12})?(Z|[+-][0-9]{1,3}:[0-9]{1,3})?",
        "application/[a-z+.]{0,20}(json)?(;.{0,20})?",
        "00-[0-9a-f]{0,40}-[0-9a-f]{0,20}-[0-9]{0,3}",
    ];
    let [id, number, time, content, trace] = shapes;
    prop_oneof![id, number, time, content, trace, any::<String>()]
}

prop_compose! {
    fn native()(
        id in option::of(value()),
        message_type in option::of(value()),
        content_type in option::of(value()),
        correlation_id in option::of(value()),
        key in option::of(value()),
        sent_at in option::of(any::<i64>()),
    ) -> Native {
        let sent_at = sent_at.map(Timestamp::from_micros);
        Native { id, message_type, content_type, correlation_id, key, sent_at }
    }
}

/// Bytes, JSON, and JSON that is cut or nested.
fn body() -> impl Strategy<Value = Vec<u8>> {
    let deep = (0..5000usize).prop_map(|depth| "[".repeat(depth).into_bytes());
    let near =
        "\\{\"id\":-?[0-9]{1,25},\"name\":\".{0,10}\",\"tags\":\\[(null|[0-9.e+-]{1,12})\\]\\}?";
    prop_oneof![
        vec(any::<u8>(), 0..300),
        near.prop_map(String::into_bytes),
        deep
    ]
}

fn received() -> impl Strategy<Value = Received> {
    let headers = vec((name(), value()), 0..80);
    (headers, body(), native()).prop_map(|(headers, body, native)| Received {
        headers,
        body: body.into(),
        native,
    })
}

/// Does with an envelope what a host does before a handler runs, and what a store does with it.
fn understand(envelope: &Envelope) {
    let _ = envelope.check();
    let _ = (envelope.version(), envelope.correlation_id());
    let _ = codec::decode::<Placed>(envelope);
    let json = envelope.headers.to_json();
    let read = Headers::from_json(&json).expect("our own form can be read");
    assert_eq!(read, envelope.headers);
    let mut names: Vec<_> = envelope.headers.iter().map(|(name, _)| name).collect();
    names.sort_unstable();
    assert!(names.windows(2).all(|pair| pair[0] != pair[1]), "{names:?}");
}

proptest! {
    #[test]
    fn whatever_amqp_delivers_becomes_an_envelope(received in received()) {
        understand(&wire::read(AMQP, received, MessageId::new));
    }

    #[test]
    fn whatever_kafka_delivers_becomes_an_envelope(received in received()) {
        understand(&wire::read(KAFKA, received, MessageId::new));
    }

    #[test]
    fn stored_headers_of_any_bytes_are_read_or_refused(bytes in vec(any::<u8>(), 0..300)) {
        let _ = Headers::from_json(&bytes);
    }

    #[test]
    fn what_is_sent_comes_back_as_it_was(
        pairs in vec(("[a-z][a-z0-9-]{0,20}", "[ -~]{0,40}"), 0..20),
        message_type in "[a-z]{1,10}\\.[a-z-]{1,20}",
        key in option::of("[ -~]{1,20}"),
        body in body(),
    ) {
        let publication = Publication {
            address: "event/x".to_owned(),
            envelope: Envelope {
                id: MessageId::new(),
                message_type: message_type.into(),
                headers: pairs.into_iter().collect(),
                body: Bytes::from(body),
            },
            key,
        };
        for binding in [AMQP, KAFKA] {
            prop_assert_eq!(there_and_back(binding, &publication), publication.envelope.clone());
        }
    }
}

fn there_and_back(binding: Binding, publication: &Publication) -> Envelope {
    let pairs = wire::write(binding, publication).into_iter();
    let received = Received {
        headers: pairs
            .map(|(name, value)| (name.to_owned(), value.into_owned()))
            .collect(),
        body: publication.envelope.body.clone(),
        native: Native::default(),
    };
    wire::read(binding, received, || unreachable!("it has an identity"))
}

#[test]
fn a_message_of_very_many_headers_is_read_in_time() {
    // As many as a record of a megabyte may have. Compared each with each they took minutes.
    const ENOUGH: Duration = Duration::from_secs(10);
    let headers = (0..200_000).map(|n| (format!("{n:x}"), String::new()));
    let again = [("7".to_owned(), "last".to_owned())];
    let received = Received {
        headers: headers.chain(again).collect(),
        ..Received::default()
    };
    let started = Instant::now();
    let envelope = wire::read(KAFKA, received, MessageId::new);
    let took = started.elapsed();
    assert!(envelope.check().is_err(), "it is out of bounds");
    assert_eq!(
        envelope.headers.len(),
        200_000,
        "a dead letter has them all"
    );
    assert_eq!(envelope.headers.get("7"), Some("last"));
    assert!(took < ENOUGH, "{took:?}");
}
