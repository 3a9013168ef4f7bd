//! Who gets what.

use std::sync::Arc;

use sagabus_core::endpoint::Order;
use sagabus_core::error::TransportError;
use sagabus_core::message::Kind;
use sagabus_core::store::EndpointSpec;
use sagabus_core::transport::{Publication, endpoint_address};

use super::harness::{Harness, ack, sorted};
use super::under_test::Skippable;

/// Every subscribed endpoint has a copy of its own.
pub async fn an_event_goes_to_every_subscribed_endpoint(at: Arc<Harness>) {
    let first = at.endpoint("first", &["placed", "paid"]);
    let second = at.endpoint("second", &["placed"]);
    let third = at.endpoint("third", &["paid"]);
    at.declare(&[&first, &second, &third]).await;
    let (placed, paid) = (at.event("placed"), at.event("paid"));
    at.publish(&[placed.clone(), paid.clone()]).await;

    let (placed, paid) = (placed.envelope.id, paid.envelope.id);
    for (endpoint, expected) in [
        (first, vec![placed, paid]),
        (second, vec![placed]),
        (third, vec![paid]),
    ] {
        let mut deliveries = at.receive(&endpoint).await;
        let got = ack(&mut deliveries, expected.len()).await;
        assert_eq!(sorted(got), sorted(expected), "{}", endpoint.name);
    }
}

/// A fact may interest nobody yet.
pub async fn an_event_without_subscriber_is_taken(at: Arc<Harness>) {
    let other = at.endpoint("other", &["placed"]);
    at.declare(&[&other]).await;
    at.publish(&[at.event("unheard")]).await;
}

/// One owner, wherever events of other types go.
pub async fn a_command_goes_to_its_owner(at: Arc<Harness>) {
    let owner = at.endpoint_taking("owner", Order::Unordered, [(Kind::Command, "charge")]);
    let other = at.endpoint_taking("other", Order::Unordered, [(Kind::Command, "refund")]);
    at.declare(&[&owner, &other]).await;
    let charge = at.message(Kind::Command, "charge");
    let refund = at.message(Kind::Command, "refund");
    at.publish(&[charge.clone(), refund.clone()]).await;
    for (endpoint, command) in [(owner, charge), (other, refund)] {
        let mut deliveries = at.receive(&endpoint).await;
        assert_eq!(ack(&mut deliveries, 1).await, [command.envelope.id]);
    }
}

/// Nobody would ever do it: its sender has to know.
pub async fn a_command_without_owner_is_unroutable(at: Arc<Harness>) {
    if !at.can(Skippable::ReportsUnroutable) {
        return;
    }
    let command = at.message(Kind::Command, "nobody");
    match at.answers(std::slice::from_ref(&command)).await.remove(0) {
        Err(TransportError::Unroutable { address }) => assert_eq!(address, command.address),
        other => panic!("a command without owner was answered {other:?}"),
    }
}

/// Whoever asked would wait for ever; its neighbours go through.
pub async fn an_answer_to_an_endpoint_that_is_not_there_is_unroutable(at: Arc<Harness>) {
    if !at.can(Skippable::ReportsUnroutable) {
        return;
    }
    let asking = at.endpoint_taking("asking", Order::Unordered, [(Kind::Reply, "answered")]);
    let gone = at.endpoint("gone", &[]);
    at.declare(&[&asking]).await;
    let window: Vec<_> = [&asking, &gone, &asking]
        .map(|endpoint| Publication {
            address: endpoint_address(&endpoint.name),
            ..at.message(Kind::Reply, "answered")
        })
        .into();
    let answers = at.answers(&window).await;
    assert!(answers[0].is_ok() && answers[2].is_ok(), "{answers:?}");
    match &answers[1] {
        Err(TransportError::Unroutable { address }) => assert_eq!(*address, window[1].address),
        other => panic!("an answer to nobody was answered {other:?}"),
    }
    let mut deliveries = at.receive(&asking).await;
    let expected = vec![window[0].envelope.id, window[2].envelope.id];
    assert_eq!(sorted(ack(&mut deliveries, 2).await), sorted(expected));
}

/// The others of its window are not its business, wherever it stands among them.
pub async fn an_unroutable_message_fails_alone(at: Arc<Harness>) {
    if !at.can(Skippable::ReportsUnroutable) {
        return;
    }
    let endpoint = at.endpoint("orders", &["placed"]);
    at.declare(&[&endpoint]).await;
    let (mut window, ids) = at.events("placed", 9);
    for place in [10, 5, 0] {
        window.insert(place.min(window.len()), at.message(Kind::Command, "nobody"));
    }
    let answers = at.answers(&window).await;
    for (message, answer) in window.iter().zip(answers) {
        let is_unroutable = matches!(answer, Err(TransportError::Unroutable { .. }));
        assert_eq!(is_unroutable, !ids.contains(&message.envelope.id));
        assert!(is_unroutable || answer.is_ok(), "{answer:?}");
    }
    let mut deliveries = at.receive(&endpoint).await;
    assert_eq!(sorted(ack(&mut deliveries, 9).await), sorted(ids));
}

/// A host that starts again finds what waits for it.
pub async fn declaring_again_loses_nothing(at: Arc<Harness>) {
    let endpoint = at.endpoint("orders", &["placed"]);
    at.declare(&[&endpoint]).await;
    let (window, ids) = at.events("placed", 3);
    at.publish(&window).await;
    at.declare(&[&endpoint]).await;
    let again = at
        .peer
        .declare(at.store, std::slice::from_ref(&endpoint))
        .await;
    again.expect("another replica declares the same");
    let mut deliveries = at.receive(&endpoint).await;
    assert_eq!(sorted(ack(&mut deliveries, 3).await), sorted(ids));
}

/// What nobody declared cannot be received for.
pub async fn an_endpoint_that_nobody_declared_is_a_setup_error(at: Arc<Harness>) {
    let unknown = at.endpoint("unknown", &["placed"]);
    match at.transport.subscribe(&unknown, 10).await {
        Err(TransportError::Setup(text)) => {
            assert!(text.contains(unknown.name.as_str()), "{text}");
        }
        Err(other) => panic!("answered {other:?}"),
        Ok(_) => panic!("received for an endpoint that does not exist"),
    }
}

/// An answer goes to one endpoint by its name, of whichever database.
pub async fn an_endpoint_has_an_address_of_its_own(at: Arc<Harness>) {
    let asking = at.endpoint_taking("asking", Order::Unordered, [(Kind::Reply, "answered")]);
    let other = at.endpoint_taking("other", Order::Unordered, [(Kind::Reply, "answered")]);
    at.declare(&[&asking, &other]).await;
    let to = |endpoint: &EndpointSpec| Publication {
        address: endpoint_address(&endpoint.name),
        ..at.message(Kind::Reply, "answered")
    };
    let (one, two) = (to(&asking), to(&other));
    at.publish(&[one.clone(), two.clone()]).await;
    for (endpoint, answer) in [(asking, one), (other, two)] {
        let mut deliveries = at.receive(&endpoint).await;
        assert_eq!(ack(&mut deliveries, 1).await, [answer.envelope.id]);
    }
}
