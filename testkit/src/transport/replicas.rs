//! Several processes of one endpoint.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use sagabus_core::endpoint::Order;
use sagabus_core::id::MessageId;
use sagabus_core::message::Kind;

use super::harness::{Deliveries, Harness, ack, ack_all, next, sorted, subscribe};
use super::under_test::Skippable;
use crate::wait::PATIENCE;

/// Takes the next delivery of either replica.
async fn either(
    first: &mut Deliveries,
    second: &mut Deliveries,
) -> (usize, sagabus_core::Delivery) {
    let both = async {
        tokio::select! {
            delivery = first.next() => (0, delivery),
            delivery = second.next() => (1, delivery),
        }
    };
    let (replica, delivery) = tokio::time::timeout(PATIENCE, both)
        .await
        .expect("a delivery comes");
    (replica, delivery.expect("the stream goes on"))
}

/// Each message comes to one of them, and both get some.
pub async fn replicas_share_the_messages(at: Arc<Harness>) {
    let endpoint = at.endpoint("orders", &["placed"]);
    at.declare(&[&endpoint]).await;
    let mut first = subscribe(&*at.transport, &endpoint, 5).await;
    let mut second = subscribe(&*at.peer, &endpoint, 5).await;
    let (window, ids) = at.events("placed", 60);
    at.publish(&window).await;

    let (mut got, mut counts) = (Vec::new(), [0, 0]);
    while got.len() < ids.len() {
        let (replica, delivery) = either(&mut first, &mut second).await;
        counts[replica] += 1;
        got.push(delivery.envelope.id);
        delivery.ack().await;
    }
    assert_eq!(sorted(got), sorted(ids));
    assert!(counts.iter().all(|count| *count > 0), "{counts:?}");
}

/// What a replica held when it went is not lost.
pub async fn what_a_lost_replica_held_goes_to_another(at: Arc<Harness>) {
    let endpoint = at.endpoint("orders", &["placed"]);
    at.declare(&[&endpoint]).await;
    let (window, ids) = at.events("placed", 10);
    at.publish(&window).await;
    let mut first = subscribe(&*at.transport, &endpoint, 10).await;
    let mut held = Vec::new();
    for _ in 0..10 {
        held.push(next(&mut first).await);
    }
    let mut second = subscribe(&*at.peer, &endpoint, 10).await;
    let acked = held.pop().expect("ten are held");
    let acked_id = acked.envelope.id;
    acked.ack().await;
    drop(held);
    drop(first);
    let left: Vec<_> = ids.iter().copied().filter(|id| *id != acked_id).collect();
    let is_acked_for_good = at.transport.capabilities().acks_each;
    let sent = if is_acked_for_good { &left } else { &ids };
    ack_all(&mut second, &left, sent).await;
}

/// Where order is promised: a message that is tried again holds back its own key and no other, also
/// with two replicas.
pub async fn a_retried_message_holds_back_its_own_key_only(at: Arc<Harness>) {
    if !at.can(Skippable::OrdersByKey) {
        return;
    }
    let endpoint = at.endpoint_taking("parcels", Order::PerKey, [(Kind::Event, "placed")]);
    at.declare(&[&endpoint]).await;
    let (mut window, ids) = at.events("placed", 12);
    for (n, event) in window.iter_mut().enumerate() {
        event.key = Some(["a", "b", "c"][n % 3].to_owned());
    }
    at.publish(&window).await;
    let mut first = subscribe(&*at.transport, &endpoint, 10).await;
    let mut second = subscribe(&*at.peer, &endpoint, 10).await;

    let mut got: Vec<MessageId> = Vec::new();
    let mut is_retried = false;
    while got.len() < ids.len() {
        let (_, delivery) = either(&mut first, &mut second).await;
        if delivery.envelope.id == ids[0] && !is_retried {
            is_retried = true;
            delivery.retry_after(Duration::from_millis(300)).await;
            continue;
        }
        got.push(delivery.envelope.id);
        delivery.ack().await;
    }
    for key in 0..3 {
        let of = |ids: &[MessageId], all: &[MessageId]| -> Vec<usize> {
            let places = ids
                .iter()
                .filter_map(|id| all.iter().position(|one| one == id));
            places.filter(|place| place % 3 == key).collect()
        };
        assert!(of(&got, &ids).is_sorted(), "key {key}: {got:?}");
    }
    let place = got.iter().position(|id| *id == ids[0]);
    assert_eq!(place, Some(8), "the other keys went on meanwhile");
}

/// Where order is promised: while a message is in one replica's hands, no other replica gets a later
/// one of its key.
pub async fn a_key_is_in_the_hands_of_one_replica_at_a_time(at: Arc<Harness>) {
    if !at.can(Skippable::OrdersByKey) {
        return;
    }
    let endpoint = at.endpoint_taking("parcels", Order::PerKey, [(Kind::Event, "placed")]);
    at.declare(&[&endpoint]).await;
    let mut first = subscribe(&*at.transport, &endpoint, 10).await;
    let mut second = subscribe(&*at.peer, &endpoint, 10).await;
    let (mut window, ids) = at.events("placed", 24);
    // A later message of another key says that those before it have been offered.
    for (n, event) in window.iter_mut().enumerate() {
        event.key = Some(if n < 20 { "a" } else { "b" }.to_owned());
    }
    at.publish(&window).await;

    let is_a = |id: &MessageId| ids[..20].contains(id);
    let (mut holder, mut held, mut got) = (None, Vec::new(), Vec::new());
    while got.iter().filter(|id| !is_a(id)).count() < 4 {
        let (replica, delivery) = either(&mut first, &mut second).await;
        got.push(delivery.envelope.id);
        if is_a(&delivery.envelope.id) {
            assert_eq!(*holder.get_or_insert(replica), replica, "two hold one key");
            held.push(delivery);
        } else {
            delivery.ack().await;
        }
    }
    for delivery in held {
        delivery.ack().await;
    }
    while got.len() < ids.len() {
        let (_, delivery) = either(&mut first, &mut second).await;
        got.push(delivery.envelope.id);
        delivery.ack().await;
    }
    got.retain(is_a);
    assert_eq!(got, ids[..20]);
}

/// A replica that goes in the middle of much work leaves nothing undone.
pub async fn a_replica_that_goes_in_the_middle_loses_nothing(at: Arc<Harness>) {
    let endpoint = at.endpoint("orders", &["placed"]);
    at.declare(&[&endpoint]).await;
    let (window, ids) = at.events("placed", 100);
    at.publish(&window).await;
    let mut first = subscribe(&*at.transport, &endpoint, 20).await;
    let mut got = ack(&mut first, 30).await;
    let mut second = subscribe(&*at.peer, &endpoint, 20).await;
    drop(first);
    got.extend(ack(&mut second, 70).await);
    assert_eq!(sorted(got), sorted(ids));
}
