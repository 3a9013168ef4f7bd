//! What holds when the broker refuses, or goes away.

use std::sync::Arc;

use sagabus_core::error::TransportError;

use super::harness::{Harness, ack, ack_all, next, sorted};
use super::under_test::Skippable;

/// Exactly that message, wherever it stands in its window; trying it again is enough.
pub async fn a_nack_is_an_error_for_exactly_that_message(at: Arc<Harness>) {
    if !at.can(Skippable::Nacks) {
        return;
    }
    let endpoint = at.endpoint("orders", &["placed"]);
    at.declare(&[&endpoint]).await;
    let (window, ids) = at.events("placed", 10);
    if !at.breakable().nack(&window[0].address, 4, 2).await {
        at.skip(Skippable::Nacks);
        return;
    }
    let answers = at.answers(&window).await;
    for (index, answer) in answers.iter().enumerate() {
        let is_refused = matches!(answer, Err(TransportError::Refused(_)));
        assert_eq!(is_refused, index == 4 || index == 5, "{index}: {answer:?}");
        assert!(is_refused || answer.is_ok(), "{index}: {answer:?}");
    }
    let mut deliveries = at.receive(&endpoint).await;
    let mut got = ack(&mut deliveries, 8).await;
    at.publish(&window[4..6]).await;
    got.extend(ack(&mut deliveries, 2).await);
    assert_eq!(sorted(got), sorted(ids));
}

/// The broker has it, but we do not know: unknown is unknown, and doing it again is safe.
pub async fn a_connection_lost_before_the_confirm_is_unknown(at: Arc<Harness>) {
    if !at.can(Skippable::CutsBeforeConfirm) {
        return;
    }
    let endpoint = at.endpoint("orders", &["placed"]);
    at.declare(&[&endpoint]).await;
    let event = at.event("placed");
    if !at.breakable().cut_before_confirm(&event.address).await {
        at.skip(Skippable::CutsBeforeConfirm);
        return;
    }
    let answer = at.answers(std::slice::from_ref(&event)).await.remove(0);
    let is_unknown = matches!(answer, Err(TransportError::Unknown(_)));
    assert!(is_unknown, "{answer:?}");
    at.publish_until_taken(std::slice::from_ref(&event)).await;
    let mut deliveries = at.receive(&endpoint).await;
    for _ in 0..2 {
        let delivery = next(&mut deliveries).await;
        assert_eq!(delivery.envelope.id, event.envelope.id);
        assert_eq!(delivery.envelope.body, event.envelope.body);
        delivery.ack().await;
    }
}

/// The transport connects again by itself.
pub async fn publishing_goes_on_after_connections_were_cut(at: Arc<Harness>) {
    if !at.can(Skippable::CutsConnections) {
        return;
    }
    let endpoint = at.endpoint("orders", &["placed"]);
    at.declare(&[&endpoint]).await;
    let mut all = Vec::new();
    for _ in 0..3 {
        let (window, ids) = at.events("placed", 10);
        all.extend(ids);
        at.publish_until_taken(&window).await;
        at.breakable().cut_connections().await;
    }
    let mut deliveries = at.receive(&endpoint).await;
    ack_all(&mut deliveries, &all, &all).await;
}

/// A stream does not end with its connection: what was in hand comes again, and what is new comes.
pub async fn a_stream_goes_on_after_connections_were_cut(at: Arc<Harness>) {
    if !at.can(Skippable::CutsConnections) {
        return;
    }
    let endpoint = at.endpoint("orders", &["placed"]);
    at.declare(&[&endpoint]).await;
    let mut deliveries = at.receive(&endpoint).await;
    // What was acked on a connection that was cut may come again at any later time, or never.
    let mut sent = Vec::new();
    for round in 0..4 {
        let (window, mut wanted) = at.events("placed", 4);
        sent.extend(wanted.clone());
        at.publish_until_taken(&window).await;
        let in_hand = next(&mut deliveries).await;
        assert!(sent.contains(&in_hand.envelope.id), "nobody sent this");
        at.breakable().cut_connections().await;
        if round % 2 == 0 {
            // Whether the ack arrived before the cut is unknown, and no error.
            wanted.retain(|id| *id != in_hand.envelope.id);
            in_hand.ack().await;
        } else {
            drop(in_hand);
        }
        let more = at.event("placed");
        wanted.push(more.envelope.id);
        sent.push(more.envelope.id);
        at.publish_until_taken(std::slice::from_ref(&more)).await;
        ack_all(&mut deliveries, &wanted, &sent).await;
        at.breakable().cut_connections().await;
    }
}
