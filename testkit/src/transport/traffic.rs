//! Many messages of many kinds, in the order and at the pace that real ones come in.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::future::join_all;
use sagabus_core::clock;
use sagabus_core::endpoint::Order;
use sagabus_core::error::TransportError;
use sagabus_core::headers::{CONTENT_TYPE, Headers, SENT_AT};
use sagabus_core::message::Kind;
use sagabus_core::store::Subscription;
use sagabus_core::transport::Publication;

use super::harness::{Harness, ack, ack_all, next, sorted, subscribe};
use super::under_test::Skippable;

/// Wherever they go, every message arrives.
pub async fn many_destinations_are_reached(at: Arc<Harness>) {
    let types: Vec<String> = (0..at.destinations)
        .map(|n| format!("placed-{n}"))
        .collect();
    let names: Vec<&str> = types.iter().map(String::as_str).collect();
    let endpoint = at.endpoint("orders", &names);
    at.declare(&[&endpoint]).await;
    let all: Vec<_> = names.iter().map(|name| at.event(name)).collect();
    for window in all.chunks(500) {
        at.publish(window).await;
    }
    let mut deliveries = at.receive(&endpoint).await;
    let mut got = BTreeSet::new();
    for part in all.chunks(50) {
        let mut acks = Vec::new();
        for _ in part {
            let delivery = next(&mut deliveries).await;
            got.insert(delivery.envelope.message_type.to_string());
            acks.push(delivery.ack());
        }
        join_all(acks).await;
    }
    let expected = all.iter().map(|one| one.envelope.message_type.to_string());
    assert_eq!(got, expected.collect());
}

/// A subscriber that comes late gets what is a month old as it was, its time included.
pub async fn month_old_messages_are_delivered_as_they_were(at: Arc<Harness>) {
    const MONTH_MICROS: i64 = 30 * 24 * 60 * 60 * 1_000_000;
    let endpoint = at.endpoint("orders", &["placed"]);
    at.declare(&[&endpoint]).await;
    let (mut window, ids) = at.events("placed", 20);
    for (at, event) in (clock::now().as_micros() - MONTH_MICROS..).zip(&mut window) {
        event.envelope.headers.set(SENT_AT, at.to_string());
    }
    at.publish(&window).await;
    let mut deliveries = at.receive(&endpoint).await;
    let mut left: BTreeMap<_, _> = ids.into_iter().zip(&window).collect();
    while !left.is_empty() {
        let delivery = next(&mut deliveries).await;
        let sent = left.remove(&delivery.envelope.id);
        let sent = sent.expect("it is one of these, and comes once");
        let told = delivery.envelope.headers.get(SENT_AT);
        assert_eq!(told, sent.envelope.headers.get(SENT_AT));
        delivery.ack().await;
    }
}

/// Commands, events that nobody hears, and mistakes: each has its own answer.
pub async fn an_unroutable_message_fails_alone_at_every_place(at: Arc<Harness>) {
    if !at.can(Skippable::ReportsUnroutable) {
        return;
    }
    let taken = [(Kind::Command, "charge"), (Kind::Event, "placed")];
    let endpoint = at.endpoint_taking("orders", Order::Unordered, taken);
    at.declare(&[&endpoint]).await;
    let mut expected = Vec::new();
    for place in 0..10 {
        let mut window: Vec<_> = (0..9)
            .map(|n| match n % 3 {
                0 => at.message(Kind::Command, "charge"),
                1 => at.event("placed"),
                _ => at.event("unheard"),
            })
            .collect();
        let heard = window.iter().enumerate().filter(|(n, _)| n % 3 != 2);
        expected.extend(heard.map(|(_, one)| one.envelope.id));
        window.insert(place, at.message(Kind::Command, "nobody"));
        for (index, answer) in at.answers(&window).await.iter().enumerate() {
            let is_unroutable = matches!(answer, Err(TransportError::Unroutable { .. }));
            assert_eq!(is_unroutable, index == place, "{place} {index}: {answer:?}");
            assert!(is_unroutable || answer.is_ok(), "{index}: {answer:?}");
        }
    }
    let mut deliveries = at.receive(&endpoint).await;
    let got = ack(&mut deliveries, expected.len()).await;
    assert_eq!(sorted(got), sorted(expected));
}

/// Each key has its order, however many there are, over several windows.
pub async fn many_keys_keep_their_order_each(at: Arc<Harness>) {
    if !at.can(Skippable::OrderedPublish) {
        return;
    }
    let order = at.transport.capabilities().order;
    let endpoint = at.endpoint_taking("orders", order, [(Kind::Event, "placed")]);
    at.declare(&[&endpoint]).await;
    let (mut events, ids) = at.events("placed", 300);
    for (n, event) in events.iter_mut().enumerate() {
        event.key = Some(format!("key-{}", n % 23));
    }
    for window in events.chunks(130) {
        at.publish(window).await;
    }
    let mut deliveries = at.receive(&endpoint).await;
    let mut places: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    for id in ack(&mut deliveries, 300).await {
        let place = ids.iter().position(|one| *one == id);
        let place = place.expect("nobody else publishes here");
        places.entry(place % 23).or_default().push(place);
    }
    assert_eq!(places.values().map(Vec::len).sum::<usize>(), 300);
    for (key, places) in places {
        assert!(places.is_sorted(), "key {key}: {places:?}");
    }
}

/// One endpoint, several codecs: each message says what it is.
pub async fn content_types_stay_with_their_messages(at: Arc<Harness>) {
    let endpoint = at.endpoint("orders", &["placed"]);
    at.declare(&[&endpoint]).await;
    let types = [
        "application/json",
        "application/msgpack",
        "text/plain; charset=utf-8",
    ];
    let window: Vec<_> = types
        .iter()
        .map(|content_type| {
            let mut event = at.event("placed");
            event.envelope.headers.set(CONTENT_TYPE, *content_type);
            event.envelope.body = Bytes::from(content_type.as_bytes());
            event
        })
        .collect();
    at.publish(&window).await;
    let mut deliveries = at.receive(&endpoint).await;
    for _ in types {
        let delivery = next(&mut deliveries).await;
        let content_type = delivery.envelope.headers.get(CONTENT_TYPE);
        let content_type = content_type.map(str::as_bytes);
        assert_eq!(content_type, Some(&delivery.envelope.body[..]));
        delivery.ack().await;
    }
}

/// A message type is chosen by people: every visible ASCII character may be in it.
pub async fn unusual_type_names_are_carried(at: Arc<Harness>) {
    let long = "x".repeat(200 - at.message_type("").len());
    let names = [
        "Shop:Placed",
        "shop/placed",
        "shop.*.#",
        "a+b(c)~'\"",
        &long,
    ];
    let endpoint = at.endpoint("orders", &names);
    at.declare(&[&endpoint]).await;
    let window: Vec<_> = names.iter().map(|name| at.event(name)).collect();
    at.publish(&window).await;
    let mut deliveries = at.receive(&endpoint).await;
    let ids = window.iter().map(|one| one.envelope.id).collect();
    assert_eq!(
        sorted(ack(&mut deliveries, window.len()).await),
        sorted(ids)
    );
}

/// A host that is stopped drops what it was publishing; another one does it again.
pub async fn a_dropped_publish_can_be_done_again(at: Arc<Harness>) {
    let endpoint = at.endpoint("orders", &["placed"]);
    at.declare(&[&endpoint]).await;
    let (window, ids) = at.events("placed", 300);
    for patience in [0, 1, 3, 10] {
        let cut = Duration::from_millis(patience);
        // Dropped at another place each time.
        let _ = tokio::time::timeout(cut, at.transport.publish(&window)).await;
    }
    at.publish(&window).await;
    let mut deliveries = at.receive(&endpoint).await;
    ack_all(&mut deliveries, &ids, &ids).await;
}

/// Handlers end in any order.
pub async fn acks_out_of_order_count_for_their_own(at: Arc<Harness>) {
    let endpoint = at.endpoint("orders", &["placed"]);
    at.declare(&[&endpoint]).await;
    let (window, ids) = at.events("placed", 30);
    at.publish(&window).await;
    let mut first = at.receive(&endpoint).await;
    let (mut acked, mut held) = (Vec::new(), Vec::new());
    for n in 0..30 {
        let delivery = next(&mut first).await;
        if n % 3 == 1 {
            acked.push(delivery);
        } else {
            held.push(delivery);
        }
    }
    let left: Vec<_> = held.iter().map(|delivery| delivery.envelope.id).collect();
    join_all(acked.into_iter().rev().map(|delivery| delivery.ack())).await;
    drop(held);
    drop(first);
    let mut second = at.receive(&endpoint).await;
    let is_acked_for_good = at.transport.capabilities().acks_each;
    let sent = if is_acked_for_good { &left } else { &ids };
    ack_all(&mut second, &left, sent).await;
}

/// A handler that takes long keeps its own place and nobody else's.
pub async fn a_slow_delivery_does_not_stop_the_others(at: Arc<Harness>) {
    let endpoint = at.endpoint("orders", &["placed"]);
    at.declare(&[&endpoint]).await;
    let (window, ids) = at.events("placed", 60);
    at.publish(&window).await;
    let mut deliveries = subscribe(&*at.transport, &endpoint, 10).await;
    let slow = next(&mut deliveries).await;
    let mut got = ack(&mut deliveries, 59).await;
    got.push(slow.envelope.id);
    slow.ack().await;
    assert_eq!(sorted(got), sorted(ids));
    at.publish(&[at.event("placed")]).await;
    ack(&mut deliveries, 1).await;
}

/// Nothing to do for a while, then something.
pub async fn an_idle_stream_gets_what_comes_later(at: Arc<Harness>) {
    let endpoint = at.endpoint("orders", &["placed"]);
    at.declare(&[&endpoint]).await;
    let mut deliveries = at.receive(&endpoint).await;
    let early = tokio::time::timeout(Duration::from_millis(200), deliveries.next()).await;
    assert!(early.is_err(), "nothing was published");
    let event = at.event("placed");
    at.publish(std::slice::from_ref(&event)).await;
    assert_eq!(ack(&mut deliveries, 1).await, [event.envelope.id]);
}

/// A key that is torn: its first message is in the hands of a host that is cut off; the host that
/// takes over begins with it.
pub async fn a_key_that_is_torn_keeps_its_order(at: Arc<Harness>) {
    if !at.can(Skippable::OrdersByKey) || !at.can(Skippable::CutsConnections) {
        return;
    }
    let endpoint = at.endpoint_taking("parcels", Order::PerKey, [(Kind::Event, "placed")]);
    at.declare(&[&endpoint]).await;
    let (mut window, ids) = at.events("placed", 6);
    for event in &mut window {
        event.key = Some("one".to_owned());
    }
    at.publish(&window).await;
    let mut first = at.receive(&endpoint).await;
    let in_hand = next(&mut first).await;
    assert_eq!(in_hand.envelope.id, ids[0]);
    let mut second = subscribe(&*at.peer, &endpoint, 10).await;
    at.breakable().cut_connections().await;
    // It does not know yet, and is never heard of again.
    drop(first);
    drop(in_hand);
    let mut got = Vec::new();
    while got.len() < ids.len() {
        let delivery = next(&mut second).await;
        let id = delivery.envelope.id;
        delivery.ack().await;
        // The other replica's line was cut as well: what it had been given just before comes again.
        if got.last() != Some(&id) {
            got.push(id);
        }
    }
    assert_eq!(got, ids);
}

/// What a host acked before it left does not come again.
pub async fn a_transport_that_is_closed_has_told_its_answers(at: Arc<Harness>) {
    let endpoint = at.endpoint("orders", &["placed"]);
    at.declare(&[&endpoint]).await;
    let (window, ids) = at.events("placed", 40);
    at.publish(&window).await;
    let mut first = at.receive(&endpoint).await;
    let mut held = Vec::new();
    for _ in 0..40 {
        held.push(next(&mut first).await);
    }
    drop(first);
    join_all(held.into_iter().map(|delivery| delivery.ack())).await;
    at.transport.close().await;

    let mut second = subscribe(&*at.peer, &endpoint, 10).await;
    let sentinel = at.event("placed");
    let published = at.peer.publish(std::slice::from_ref(&sentinel)).await;
    assert!(published.iter().all(Result::is_ok), "{published:?}");
    let delivery = next(&mut second).await;
    assert!(
        !ids.contains(&delivery.envelope.id),
        "acked, and came again"
    );
    assert_eq!(delivery.envelope.id, sentinel.envelope.id);
    delivery.ack().await;
}

/// A month's silence or a year's: what waits is delivered with what comes now, once each.
pub async fn a_backlog_and_new_messages_come_once_each(at: Arc<Harness>) {
    let endpoint = at.endpoint("orders", &["placed"]);
    at.declare(&[&endpoint]).await;
    let (backlog, mut ids) = at.events("placed", 150);
    at.publish(&backlog).await;
    let mut deliveries = at.receive(&endpoint).await;
    let mut got = ack(&mut deliveries, 50).await;
    let (fresh, fresh_ids) = at.events("placed", 50);
    at.publish(&fresh).await;
    ids.extend(fresh_ids);
    got.extend(ack(&mut deliveries, 150).await);
    assert_eq!(sorted(got), sorted(ids));
}

/// A sender whose clock, headers or key are strange is still a sender.
pub async fn strange_headers_and_keys_arrive(at: Arc<Harness>) {
    let endpoint = at.endpoint("orders", &["placed"]);
    at.declare(&[&endpoint]).await;
    let mut deliveries = at.receive(&endpoint).await;
    let strange: [&[(&str, &str)]; 4] = [
        &[("sagabus-sent-at", "yesterday"), ("sagabus-source", "")],
        &[("ce_id", "1"), ("cloudEvents:type", "other")],
        &[("sagabus-key", "in the header"), ("traceparent", "broken")],
        &[],
    ];
    for (headers, key) in strange
        .into_iter()
        .zip([Some(""), Some("\u{1f600}"), Some("k"), None])
    {
        let mut event = at.event("placed");
        let headers: Headers = headers.iter().copied().collect();
        event.envelope.headers = headers;
        let event = Publication {
            key: key.map(str::to_owned),
            ..event
        };
        at.publish(std::slice::from_ref(&event)).await;
        let delivery = next(&mut deliveries).await;
        assert_eq!(delivery.envelope.id, event.envelope.id);
        assert_eq!(delivery.envelope.message_type, event.envelope.message_type);
        delivery.ack().await;
    }
}

/// Endpoints that take the same event do not wait for each other.
pub async fn a_stuck_endpoint_does_not_hold_up_another(at: Arc<Harness>) {
    let stuck = at.endpoint("stuck", &["placed"]);
    let quick = at.endpoint("quick", &["placed"]);
    at.declare(&[&stuck, &quick]).await;
    let mut idle = subscribe(&*at.transport, &stuck, 1).await;
    let (window, ids) = at.events("placed", 40);
    at.publish(&window).await;
    let held = next(&mut idle).await;
    let mut deliveries = at.receive(&quick).await;
    assert_eq!(sorted(ack(&mut deliveries, 40).await), sorted(ids.clone()));
    let mut got = vec![held.envelope.id];
    held.ack().await;
    got.extend(ack(&mut idle, 39).await);
    assert_eq!(sorted(got), sorted(ids));
}

/// Two endpoints whose names begin alike are two endpoints.
pub async fn endpoints_of_similar_names_are_kept_apart(at: Arc<Harness>) {
    let mut short = at.endpoint("orders", &["placed"]);
    let mut long = at.endpoint("orders.0", &["paid"]);
    // Names that a transport may build for itself must not meet a user's.
    short.subscriptions.push(Subscription {
        message_type: at.message_type("shared").into(),
        kind: Kind::Event,
    });
    long.order = at.transport.capabilities().order;
    at.declare(&[&short, &long]).await;
    let (placed, paid) = (at.event("placed"), at.event("paid"));
    at.publish(&[placed.clone(), paid.clone()]).await;
    for (endpoint, event) in [(short, placed), (long, paid)] {
        let mut deliveries = at.receive(&endpoint).await;
        assert_eq!(ack(&mut deliveries, 1).await, [event.envelope.id]);
    }
}
