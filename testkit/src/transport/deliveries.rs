//! How a delivery is settled: once, by giving it away.

use std::sync::Arc;
use std::time::Duration;

use futures_util::{FutureExt, StreamExt};
use tokio::time::Instant;

use super::harness::{Harness, ack, next, sorted, subscribe};
use super::under_test::Skippable;

/// Done is done: only what comes later comes.
pub async fn an_acked_message_does_not_come_again(at: Arc<Harness>) {
    let endpoint = at.endpoint("orders", &["placed"]);
    at.declare(&[&endpoint]).await;
    let (window, ids) = at.events("placed", 5);
    at.publish(&window).await;
    let mut deliveries = at.receive(&endpoint).await;
    assert_eq!(sorted(ack(&mut deliveries, 5).await), sorted(ids));
    drop(deliveries);

    let later = at.event("placed");
    at.publish(std::slice::from_ref(&later)).await;
    let mut deliveries = at.receive(&endpoint).await;
    assert_eq!(ack(&mut deliveries, 1).await, [later.envelope.id]);
}

/// What is published before anybody receives waits.
pub async fn messages_wait_for_a_replica(at: Arc<Harness>) {
    let endpoint = at.endpoint("orders", &["placed"]);
    at.declare(&[&endpoint]).await;
    let (window, ids) = at.events("placed", 3);
    at.publish(&window).await;
    let mut deliveries = at.receive(&endpoint).await;
    assert_eq!(sorted(ack(&mut deliveries, 3).await), sorted(ids));
}

/// A handler's future that is dropped gives its message back.
pub async fn a_dropped_delivery_is_delivered_again(at: Arc<Harness>) {
    let endpoint = at.endpoint("orders", &["placed"]);
    at.declare(&[&endpoint]).await;
    let event = at.event("placed");
    at.publish(std::slice::from_ref(&event)).await;
    let mut deliveries = at.receive(&endpoint).await;
    for _ in 0..2 {
        let delivery = next(&mut deliveries).await;
        assert_eq!(delivery.envelope.id, event.envelope.id);
        assert_eq!(delivery.envelope.body, event.envelope.body);
        drop(delivery);
    }
    assert_eq!(ack(&mut deliveries, 1).await, [event.envelope.id]);
}

/// How often it was delivered before.
pub async fn redeliveries_are_counted(at: Arc<Harness>) {
    if !at.can(Skippable::CountsRedeliveries) {
        return;
    }
    let endpoint = at.endpoint("orders", &["placed"]);
    at.declare(&[&endpoint]).await;
    at.publish(&[at.event("placed")]).await;
    let mut deliveries = at.receive(&endpoint).await;
    for expected in 0..3 {
        let delivery = next(&mut deliveries).await;
        assert_eq!(delivery.redeliveries, expected);
        drop(delivery);
    }
    next(&mut deliveries).await.ack().await;
}

/// Given back with a delay, it is not back before, and others need not wait for it.
pub async fn a_retried_delivery_comes_again_after_its_delay(at: Arc<Harness>) {
    let endpoint = at.endpoint("orders", &["placed"]);
    at.declare(&[&endpoint]).await;
    let event = at.event("placed");
    at.publish(std::slice::from_ref(&event)).await;
    let mut deliveries = at.receive(&endpoint).await;
    let delay = Duration::from_millis(400);
    let delivery = next(&mut deliveries).await;
    let started = Instant::now();
    delivery.retry_after(delay).await;
    let other = at.event("placed");
    at.publish(std::slice::from_ref(&other)).await;
    assert_eq!(ack(&mut deliveries, 1).await, [other.envelope.id]);

    assert_eq!(ack(&mut deliveries, 1).await, [event.envelope.id]);
    // "About" that long: brokers count in steps of their own.
    assert!(started.elapsed() >= delay / 2, "{:?}", started.elapsed());
}

/// Neither what was handed out nor what was on its way is lost with a stream.
pub async fn deliveries_of_a_dropped_stream_are_delivered_again(at: Arc<Harness>) {
    let endpoint = at.endpoint("orders", &["placed"]);
    at.declare(&[&endpoint]).await;
    let (window, ids) = at.events("placed", 20);
    at.publish(&window).await;
    let mut first = at.receive(&endpoint).await;
    let acked = ack(&mut first, 5).await;
    let in_hand = next(&mut first).await;
    drop(first);
    drop(in_hand);

    let mut second = at.receive(&endpoint).await;
    let rest = ack(&mut second, 15).await;
    assert_eq!(sorted([acked, rest].concat()), sorted(ids));
}

/// A host that stops finishes what it has in hand, after its stream is gone.
pub async fn a_delivery_can_be_acked_after_its_stream_is_dropped(at: Arc<Harness>) {
    let endpoint = at.endpoint("orders", &["placed"]);
    at.declare(&[&endpoint]).await;
    let (window, ids) = at.events("placed", 2);
    at.publish(&window).await;
    let mut first = subscribe(&*at.transport, &endpoint, 1).await;
    let in_hand = next(&mut first).await;
    let acked = in_hand.envelope.id;
    drop(first);
    in_hand.ack().await;

    let mut second = at.receive(&endpoint).await;
    let left: Vec<_> = ids.into_iter().filter(|id| *id != acked).collect();
    assert_eq!(ack(&mut second, 1).await, left);
    at.publish(&[at.event("placed")]).await;
    let sentinel = ack(&mut second, 1).await;
    assert_ne!(sentinel, [acked]);
}

/// A replica gets no more than it asked for; settling makes room.
pub async fn prefetch_bounds_what_is_in_hand(at: Arc<Harness>) {
    let endpoint = at.endpoint("orders", &["placed"]);
    at.declare(&[&endpoint]).await;
    let (window, ids) = at.events("placed", 6);
    at.publish(&window).await;
    let mut deliveries = subscribe(&*at.transport, &endpoint, 2).await;
    let (one, two) = (next(&mut deliveries).await, next(&mut deliveries).await);
    // Long enough for what is on its way; a third would have come with the first two.
    crate::wait::grow_older(Duration::from_millis(100)).await;
    let third = deliveries.next().now_or_never();
    assert!(
        third.is_none(),
        "a third delivery came while two are in hand"
    );

    let mut got = vec![one.envelope.id, two.envelope.id];
    one.ack().await;
    two.ack().await;
    got.extend(ack(&mut deliveries, 4).await);
    assert_eq!(sorted(got), sorted(ids));
}
