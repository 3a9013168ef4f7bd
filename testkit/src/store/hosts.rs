//! How hosts introduce themselves, and what they learn of each other.

use std::sync::Arc;

use sagabus_core::MessageId;
use sagabus_core::endpoint::Order;
use sagabus_core::error::StoreError;
use sagabus_core::message::Kind;
use sagabus_core::store::{Attached, Birth, Place, Registration, Store, Subscription};
use sagabus_core::unit_of_work::{Reason, Settle, Start};

use super::build::{api, message, message_for};
use super::harness::{Harness, endpoint, endpoint_name, registration};
use super::under_test::Skippable;
use crate::wait::PATIENCE;

async fn attach(at: &Harness, store: &Arc<dyn Store>, host: &Registration) -> Attached {
    let attached = store.attach(host, &at.lifecycle).await;
    attached.expect("the host is taken")
}

/// Names of the endpoints that take a type, in the order of the route.
fn takers(attached: &Attached, message_type: &str) -> Vec<String> {
    attached
        .routes
        .subscribers
        .get(message_type)
        .map_or(&[][..], |targets| targets)
        .iter()
        .map(|target| target.name.to_string())
        .collect()
}

/// What the first attach answers is what was registered.
pub async fn attaching_answers_ids_and_routes(at: Arc<Harness>) {
    let attached = &at.attached;
    assert_eq!(takers(attached, "shop.order-placed"), ["orders", "parcels"]);
    assert!(takers(attached, "shop.unknown").is_empty());
    assert_eq!(attached.endpoints.len(), 3);
    for (name, id) in &attached.endpoints {
        assert_eq!(attached.routes.endpoints[name].id, *id);
    }
    let mut ids: Vec<_> = attached.endpoints.values().collect();
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), 3, "every endpoint has an integer of its own");
    assert_eq!(at.parcels().order, Order::PerKey);
    assert_eq!(at.orders().order, Order::Unordered);
}

/// A host that restarts, and one that lost the answer, changes nothing.
pub async fn attaching_twice_is_harmless(at: Arc<Harness>) {
    let host = registration(
        "first",
        [
            endpoint("orders", Order::Unordered, &["shop.order-placed"]),
            endpoint("audit", Order::Unordered, &[]),
        ],
    );
    for store in [&at.store, &at.store, &at.peer] {
        let again = attach(&at, store, &host).await;
        assert_eq!(again.store, at.attached.store);
        assert_eq!(again.routes, at.attached.routes);
        assert_eq!(again.endpoints.len(), 2);
        let orders = endpoint_name("orders");
        assert_eq!(again.endpoints[&orders], at.attached.endpoints[&orders]);
    }
}

/// Each knows where the other's messages go, whoever came first.
pub async fn two_endpoints_of_two_hosts_share_routes(at: Arc<Harness>) {
    let mut billing = endpoint("billing", Order::Unordered, &["shop.order-placed"]);
    billing.subscriptions.push(Subscription {
        message_type: "billing.charge".into(),
        kind: Kind::Command,
    });
    let host = registration("second", [billing]);
    let second = attach(&at, &at.peer, &host).await;
    assert!(second.routes.version > at.attached.routes.version);
    assert_eq!(
        takers(&second, "shop.order-placed"),
        ["billing", "orders", "parcels"],
        "in the order of their names"
    );
    assert_eq!(takers(&second, "billing.charge"), ["billing"]);
    assert_eq!(second.endpoints.len(), 1, "its own endpoints");
    assert_eq!(second.routes.endpoints.len(), 4, "everybody's endpoints");
    let orders = endpoint_name("orders");
    assert_eq!(second.routes.endpoints[&orders], at.orders());

    // The first host's routes are of yesterday now, and it is told the new ones.
    let group = at.group([api().sends(message(&at.orders()))]);
    let answer = at.try_commit(&group).await;
    assert!(answer.as_ref().is_err_and(StoreError::is_transient));
    match answer {
        Err(StoreError::StaleRoutes(routes)) => assert_eq!(*routes, second.routes),
        other => panic!("routes of yesterday were taken: {other:?}"),
    }
    assert_eq!(at.counts().await.outbox, 0);
    let mut group = group;
    group.routes_version = second.routes.version;
    at.commit_group(&group).await;
    assert_eq!(at.counts().await.outbox, 1);
}

/// A host that stops taking a type does not lose messages that others route to it: an operator
/// removes subscriptions.
pub async fn subscriptions_stay_when_a_host_attaches_with_less(at: Arc<Harness>) {
    let host = registration("first", [endpoint("orders", Order::Unordered, &[])]);
    let again = attach(&at, &at.store, &host).await;
    assert_eq!(again.routes, at.attached.routes);
}

/// Order is part of a route.
pub async fn a_change_of_order_is_a_change_of_routes(at: Arc<Harness>) {
    let host = registration("first", [endpoint("orders", Order::PerKey, &[])]);
    let again = attach(&at, &at.store, &host).await;
    assert!(again.routes.version > at.attached.routes.version);
    let orders = &again.routes.endpoints[&endpoint_name("orders")];
    assert_eq!((orders.order, orders.id), (Order::PerKey, at.orders().id));
    let taker = &again.routes.subscribers["shop.order-placed"][0];
    assert_eq!(taker, orders);
}

/// A host that takes one command.
fn owner_of(command: &'static str, endpoint_name: &str) -> Registration {
    let mut owner = endpoint(endpoint_name, Order::Unordered, &["shop.order-placed"]);
    owner.subscriptions.push(Subscription {
        message_type: command.into(),
        kind: Kind::Command,
    });
    registration(endpoint_name, [owner])
}

/// Every sender would see two owners: the second one is told, and nothing of it is registered.
pub async fn a_second_owner_of_a_command_is_refused(at: Arc<Harness>) {
    let owner = owner_of("billing.charge", "billing");
    let known = attach(&at, &at.store, &owner).await;
    let rival = owner_of("billing.charge", "rival");
    match at.peer.attach(&rival, &at.lifecycle).await {
        Err(StoreError::Setup(text)) => {
            for word in ["`billing.charge`", "`billing`", "`rival`"] {
                assert!(text.contains(word), "{word} is not in: {text}");
            }
        }
        Err(other) => panic!("a second owner was answered {other:?}"),
        Ok(_) => panic!("a command has two owners"),
    }
    let again = attach(&at, &at.peer, &owner).await;
    assert_eq!(again.routes, known.routes);
}

/// A command that was sent too early is not lost, nor an operator's business.
pub async fn commands_that_nobody_took_go_to_their_owner_when_it_comes(at: Arc<Harness>) {
    let parked = || {
        let mut envelope = message(&at.orders()).envelope().clone();
        (envelope.id, envelope.message_type) = (MessageId::new(), "billing.charge".into());
        let command = message_for(Place::Nowhere).enveloped(envelope);
        command.keyed("a").born(Birth::Parked(Reason::NoOwner))
    };
    let (first, second) = (parked(), parked());
    let others = message_for(Place::Nowhere).born(Birth::Parked(Reason::NoOwner));
    let wanted = [first.id(), second.id()];
    at.write(api().sends(first).sends(second).sends(others))
        .await;
    let mut owner = owner_of("billing.charge", "billing");
    owner.endpoints[0].order = Order::PerKey;
    let attached = attach(&at, &at.peer, &owner).await;
    let billing = &attached.routes.endpoints[&endpoint_name("billing")];
    let counts = at.counts().await;
    assert_eq!((counts.outbox, counts.parked), (2, 1));
    for id in wanted {
        let rows = at.claim(billing).await;
        let claimed: Vec<_> = rows.iter().map(|row| row.envelope.id).collect();
        assert_eq!(claimed, [id], "in their order, one of a key at a time");
        at.settle([Settle::Delete(rows[0].row)]).await;
    }
}

/// Also when both come at the same moment.
pub async fn of_hosts_that_claim_one_command_at_once_one_is_taken(at: Arc<Harness>) {
    let commands = ["a", "b", "c", "d", "e", "f"];
    for command in commands {
        let hosts = [1, 2, 3, 4].map(|n| owner_of(command, &format!("{command}-{n}")));
        let attaching = hosts.iter().enumerate().map(|(n, host)| {
            let store = if n % 2 == 0 { &at.store } else { &at.peer };
            async {
                loop {
                    match store.attach(host, &at.lifecycle).await {
                        Err(StoreError::Busy(_)) => tokio::task::yield_now().await,
                        answer => return answer,
                    }
                }
            }
        });
        let answers = futures_util::future::join_all(attaching).await;
        let taken_count = answers.iter().filter(|answer| answer.is_ok()).count();
        assert_eq!(taken_count, 1, "command {command}: {answers:?}");
        let refused = |answer: &Result<_, _>| matches!(answer, Err(StoreError::Setup(_)));
        assert_eq!(answers.iter().filter(|answer| refused(answer)).count(), 3);
    }
    let known = attach(&at, &at.store, &registration("reader", [])).await;
    for command in commands {
        assert_eq!(takers(&known, command).len(), 1, "command {command}");
    }
}

/// A database may be new: no endpoint, no subscription, and nothing to take.
pub async fn a_host_without_endpoints_is_taken(at: Arc<Harness>) {
    let host = registration("sender", []);
    let sender = attach(&at, &at.peer, &host).await;
    assert!(sender.endpoints.is_empty());
    assert_eq!(sender.routes, at.attached.routes);
}

/// A hint, but one that comes: by a commit, by a release, and by a redrive's row.
pub async fn wakeups_tell_another_host_about_available_rows(at: Arc<Harness>) {
    if !at.can(Skippable::WakesPeers) {
        return;
    }
    let orders = at.orders();
    let host = registration("second", [endpoint("orders", Order::Unordered, &[])]);
    let mut second = attach(&at, &at.peer, &host).await;
    for round in 0..3 {
        second.wakeups.borrow_and_update();
        at.write(api().sends(message(&orders))).await;
        tokio::time::timeout(PATIENCE, second.wakeups.changed())
            .await
            .unwrap_or_else(|_| panic!("round {round}: nobody woke the other host"))
            .expect("the sender of wake-ups lives as long as the store");
        let claimed = at.claim_one(&orders).await;
        at.settle([Settle::Release {
            row: claimed.row,
            after: std::time::Duration::ZERO,
            attempts: None,
            start: Start::GivenBack,
        }])
        .await;
        let claimed = at.claim_one(&orders).await;
        at.settle([Settle::Delete(claimed.row)]).await;
    }
}
