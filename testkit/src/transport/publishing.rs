//! What the broker's word on a publication means.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use sagabus_core::envelope::Envelope;
use sagabus_core::error::TransportError;
use sagabus_core::headers::Headers;
use sagabus_core::id::MessageId;
use sagabus_core::transport::Publication;

use super::harness::{Harness, ack, next, sorted};
use super::under_test::Skippable;

/// What is received is what was sent, to the byte.
pub async fn what_is_published_is_delivered_unchanged(at: Arc<Harness>) {
    let endpoint = at.endpoint("orders", &["placed"]);
    at.declare(&[&endpoint]).await;
    let mut deliveries = at.receive(&endpoint).await;
    let bodies: [&'static [u8]; 4] = [b"{}", b"", &[0, 255, 0, 128, 10, 13], b"\"x\"\n\x00"];
    let headers: [Headers; 4] = [
        [("content-type", "application/json")].into_iter().collect(),
        [("z", "1"), ("a", ""), ("m", "2")].into_iter().collect(),
        [("note", "\u{1f600} grüße \"quoted\" \\ '")]
            .into_iter()
            .collect(),
        (0..64).map(|n| (format!("h{n}"), "x")).collect(),
    ];
    for (body, headers) in bodies.into_iter().zip(headers) {
        let event = at.event("placed");
        let envelope = Envelope {
            headers,
            body: Bytes::from_static(body),
            ..event.envelope
        };
        let event = Publication {
            envelope: envelope.clone(),
            key: Some("größe/7".to_owned()),
            ..event
        };
        at.publish(&[event]).await;
        let delivery = next(&mut deliveries).await;
        assert_eq!(delivery.endpoint, endpoint.name);
        assert_eq!(delivery.envelope.id, envelope.id);
        assert_eq!(delivery.envelope.message_type, envelope.message_type);
        assert_eq!(delivery.envelope.body, envelope.body);
        // Brokers keep names and values, not their order.
        let map = |headers: &Headers| -> BTreeMap<String, String> {
            let pairs = headers.iter();
            pairs
                .map(|(name, value)| (name.into(), value.into()))
                .collect()
        };
        assert_eq!(map(&delivery.envelope.headers), map(&envelope.headers));
        delivery.ack().await;
    }
}

/// Nothing to publish is no error.
pub async fn an_empty_window_is_answered(at: Arc<Harness>) {
    assert!(at.transport.publish(&[]).await.is_empty());
}

/// A relay's whole window, answered one by one.
pub async fn a_large_window_arrives_whole(at: Arc<Harness>) {
    let endpoint = at.endpoint("orders", &["placed"]);
    at.declare(&[&endpoint]).await;
    let (window, ids) = at.events("placed", 500);
    at.publish(&window).await;
    let mut deliveries = at.receive(&endpoint).await;
    assert_eq!(sorted(ack(&mut deliveries, 500).await), sorted(ids));
}

/// Of one key, in the order of the window; and windows in the order of their confirms.
pub async fn messages_of_one_key_arrive_in_the_order_of_publishing(at: Arc<Harness>) {
    if !at.can(Skippable::OrderedPublish) {
        return;
    }
    let endpoint = at.endpoint("orders", &["placed"]);
    at.declare(&[&endpoint]).await;
    let (mut events, ids) = at.events("placed", 60);
    for event in &mut events {
        event.key = Some("one".to_owned());
    }
    for window in events.chunks(25) {
        at.publish(window).await;
    }
    let mut deliveries = at.receive(&endpoint).await;
    assert_eq!(ack(&mut deliveries, 60).await, ids);
}

/// A publish in doubt is done again: the same identity and the same bytes come again.
pub async fn publishing_again_delivers_the_same_message_again(at: Arc<Harness>) {
    let endpoint = at.endpoint("orders", &["placed"]);
    at.declare(&[&endpoint]).await;
    let event = at.event("placed");
    at.publish(std::slice::from_ref(&event)).await;
    at.publish(std::slice::from_ref(&event)).await;
    let mut deliveries = at.receive(&endpoint).await;
    for _ in 0..2 {
        let delivery = next(&mut deliveries).await;
        assert_eq!(delivery.envelope.id, event.envelope.id);
        assert_eq!(delivery.envelope.body, event.envelope.body);
        delivery.ack().await;
    }
}

/// As large as it says, and not one byte more; the neighbours go through.
pub async fn a_body_over_the_limit_fails_alone(at: Arc<Harness>) {
    let endpoint = at.endpoint("orders", &["placed"]);
    at.declare(&[&endpoint]).await;
    let most = at.transport.capabilities().body_bytes_max;
    let sized = |bytes: usize| {
        let event = at.event("placed");
        let body = Bytes::from(vec![7; bytes]);
        Publication {
            envelope: Envelope {
                body,
                ..event.envelope
            },
            ..event
        }
    };
    let window = [sized(1), sized(most), sized(most + 1), sized(2)];
    let answers = at.answers(&window).await;
    let is_taken: Vec<_> = answers.iter().map(Result::is_ok).collect();
    assert_eq!(is_taken, [true, true, false, true], "{answers:?}");
    let refused = matches!(answers[2], Err(TransportError::Refused(_)));
    assert!(refused, "{:?}", answers[2]);

    let mut deliveries = at.receive(&endpoint).await;
    let mut got = Vec::new();
    for _ in 0..3 {
        let delivery = next(&mut deliveries).await;
        got.push((delivery.envelope.id, delivery.envelope.body.len()));
        delivery.ack().await;
    }
    got.sort_by_key(|(_, bytes)| *bytes);
    let expected = [&window[0], &window[3], &window[1]].map(|one| one.envelope.id);
    assert_eq!(got.iter().map(|(id, _)| *id).collect::<Vec<_>>(), expected);
    assert_eq!(got[2].1, most);
}

/// Windows under way at once do not mix up their answers or their messages.
pub async fn windows_at_once_lose_nothing(at: Arc<Harness>) {
    let endpoint = at.endpoint("orders", &["placed"]);
    at.declare(&[&endpoint]).await;
    let (events, ids) = at.events("placed", 200);
    let windows: Vec<_> = events.chunks(20).collect();
    let publishing = windows.iter().enumerate().map(|(index, window)| {
        let transport = if index % 2 == 0 {
            &at.transport
        } else {
            &at.peer
        };
        transport.publish(window)
    });
    for answers in futures_util::future::join_all(publishing).await {
        assert!(answers.iter().all(Result::is_ok), "{answers:?}");
    }
    let mut deliveries = at.receive(&endpoint).await;
    let got: Vec<MessageId> = ack(&mut deliveries, 200).await;
    assert_eq!(sorted(got), sorted(ids));
}
