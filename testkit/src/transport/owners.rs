//! Whose an endpoint and a command are, and what a broker tells about itself.

use std::sync::Arc;

use sagabus_core::endpoint::Order;
use sagabus_core::error::TransportError;
use sagabus_core::id::StoreId;
use sagabus_core::message::Kind;
use sagabus_core::store::EndpointSpec;
use sagabus_core::transport::Health;

use super::harness::{Harness, ack, sorted};
use super::under_test::Skippable;

/// Two stores that share an endpoint would each know only half of what was taken over.
pub async fn an_endpoint_of_another_store_is_refused(at: Arc<Harness>) {
    if !at.can(Skippable::TellsStoresApart) {
        return;
    }
    let endpoint = at.endpoint("orders", &["placed"]);
    at.declare(&[&endpoint]).await;
    let other = StoreId::new();
    let text = refused(&at, other, &endpoint).await;
    assert!(text.contains(endpoint.name.as_str()), "{text}");
    assert!(text.contains(&at.store.to_string()), "{text}");

    // Its owner is not disturbed.
    at.declare(&[&endpoint]).await;
    let event = at.event("placed");
    at.publish(std::slice::from_ref(&event)).await;
    let mut deliveries = at.receive(&endpoint).await;
    assert_eq!(ack(&mut deliveries, 1).await, [event.envelope.id]);
}

/// What two endpoints would do with one command is anybody's guess.
pub async fn a_command_of_another_endpoint_is_refused(at: Arc<Harness>) {
    let taken = [(Kind::Command, "charge")];
    let owner = at.endpoint_taking("owner", Order::Unordered, taken);
    let second = at.endpoint_taking("second", Order::Unordered, taken);
    at.declare(&[&owner]).await;
    let text = refused(&at, at.store, &second).await;
    assert!(text.contains(owner.name.as_str()), "{text}");
    assert!(text.contains(&at.message_type("charge")), "{text}");
}

async fn refused(at: &Harness, store: StoreId, endpoint: &EndpointSpec) -> String {
    let endpoints = std::slice::from_ref(endpoint);
    for transport in [&at.transport, &at.peer] {
        match transport.declare(store, endpoints).await {
            Err(TransportError::Setup(_)) => {}
            other => panic!("declared to {other:?}"),
        }
    }
    let refused = at.peer.declare(store, endpoints).await;
    refused.expect_err("it was refused before").to_string()
}

/// A host that learns to handle more goes on with what waits for it.
pub async fn an_endpoint_that_takes_more_keeps_what_waits(at: Arc<Harness>) {
    let before = at.endpoint("orders", &["placed"]);
    at.declare(&[&before]).await;
    let old = at.event("placed");
    at.publish(std::slice::from_ref(&old)).await;
    let after = at.endpoint("orders", &["placed", "paid"]);
    at.declare(&[&after]).await;
    let new = at.event("paid");
    at.publish(std::slice::from_ref(&new)).await;
    let mut deliveries = at.receive(&after).await;
    let got = ack(&mut deliveries, 2).await;
    assert_eq!(sorted(got), sorted(vec![old.envelope.id, new.envelope.id]));
}

/// A broker that does what it should is said to be well.
pub async fn a_broker_that_answers_is_healthy(at: Arc<Harness>) {
    let endpoint = at.endpoint("orders", &["placed"]);
    at.declare(&[&endpoint]).await;
    let mut deliveries = at.receive(&endpoint).await;
    at.publish(&[at.event("placed")]).await;
    ack(&mut deliveries, 1).await;
    assert_eq!(at.transport.health(), Health::Connected);
}
