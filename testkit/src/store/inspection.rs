//! What operators see of rows, instances, hosts and endpoints, and what they change there.

use std::sync::Arc;
use std::time::Duration;

use sagabus_core::admin::{
    Action, AuditFilter, HistoryOf, InboxFilter, InstanceFilter, Page, RowFilter, RowState,
    RowVerb, StoredRow, TakenOver,
};
use sagabus_core::endpoint::{EndpointName, Order};
use sagabus_core::error::StoreError;
use sagabus_core::id::MessageId;
use sagabus_core::message::Kind;
use sagabus_core::store::{Birth, Place, Retention, Subscription, Target};
use sagabus_core::unit_of_work::{InstanceChange, InstanceStatus, Reason, Settle};

use super::build::{
    api, attempts, broker, change as moved, message, message_for, message_to_address, row,
};
use super::harness::{HOUR, Harness, endpoint, instance, registration};
use super::operators::{changes, dies, does};
use crate::wait::grow_older;

async fn rows(at: &Harness, filter: &RowFilter) -> Vec<StoredRow> {
    let found = at.admin.rows(filter, Page::oldest(100)).await;
    found.expect("rows are shown")
}

/// Parks a claimed row.
async fn park(at: &Harness, target: &Target) -> StoredRow {
    let claimed = at.claim_one(target).await;
    let park = Settle::Park {
        row: claimed.row,
        reason: Reason::Unroutable,
        attempts: attempts(&["no such place"]),
    };
    at.settle([park]).await;
    let parked = RowFilter {
        state: Some(RowState::Parked),
        ..RowFilter::default()
    };
    rows(at, &parked).await.remove(0)
}

/// Its failures belong to the past; everything else of it stays.
pub async fn a_released_row_is_tried_as_if_it_were_new(at: Arc<Harness>) {
    let orders = at.orders();
    let sent = message(&orders).keyed("k");
    let envelope = sent.envelope().clone();
    at.write(api().sends(sent)).await;
    let parked = park(&at, &orders).await;
    assert_eq!(parked.parked.as_deref(), Some("unroutable"));
    assert_eq!(parked.attempts[0].error, "no such place");
    assert_eq!(
        (parked.envelope.clone(), parked.failures),
        (envelope.clone(), 1)
    );
    assert_eq!(at.counts().await.parked, 1);

    assert_eq!(
        changes(&at, &[parked.id], RowVerb::Release).await,
        [parked.id]
    );
    assert!(
        changes(&at, &[parked.id], RowVerb::Release)
            .await
            .is_empty()
    );
    let claimed = at.claim_one(&orders).await;
    assert_eq!((claimed.envelope, claimed.row.id), (envelope, parked.id));
    assert_eq!((claimed.starts, claimed.failures), (1, 0));
    assert!(claimed.attempts.is_empty());
    assert_eq!(claimed.key.as_deref(), Some("k"));
}

/// It stays parked where there is still none.
pub async fn a_released_command_goes_to_the_endpoint_that_takes_it_by_now(at: Arc<Harness>) {
    let nobodys = message_for(Place::Nowhere).born(Birth::Parked(Reason::Unroutable));
    let id = nobodys.id();
    at.write(api().sends(nobodys)).await;
    let row = rows(&at, &RowFilter::default()).await.remove(0);
    assert_eq!(row.destination, "?shop.order-placed");
    // Events go to whoever takes them when they are published; this one is no command's.
    assert!(changes(&at, &[row.id], RowVerb::Release).await.is_empty());
    assert_eq!(at.counts().await.parked, 1);

    let mut owner = endpoint("owner", Order::Unordered, &[]);
    owner.subscriptions.push(Subscription {
        message_type: "shop.order-placed".into(),
        kind: Kind::Command,
    });
    let host = registration("second", [owner]);
    let attached = at.store.attach(&host, &at.lifecycle).await;
    let attached = attached.expect("the host is taken");
    assert_eq!(changes(&at, &[row.id], RowVerb::Release).await, [row.id]);
    let name = EndpointName::new("owner").expect("the name is usable");
    let claimed = at.claim_one(&attached.routes.endpoints[&name]).await;
    assert_eq!((claimed.row.id, claimed.envelope.id), (row.id, id));
}

/// A row of an ordered key goes first again where it is the oldest.
pub async fn a_released_row_takes_its_place_in_line_again(at: Arc<Harness>) {
    let parcels = at.parcels();
    let (first, second) = (message(&parcels).keyed("a"), message(&parcels).keyed("a"));
    let (first_id, second_id) = (first.id(), second.id());
    at.write(api().sends(first)).await;
    let parked = park(&at, &parcels).await;
    at.write(api().sends(second)).await;
    changes(&at, &[parked.id], RowVerb::Release).await;
    let head = at.claim_one(&parcels).await;
    assert_eq!(head.envelope.id, first_id);
    at.settle([Settle::Delete(head.row)]).await;
    assert_eq!(at.claim_one(&parcels).await.envelope.id, second_id);
}

/// What hosts have in hand is theirs.
pub async fn only_parked_rows_are_released_or_discarded(at: Arc<Harness>) {
    at.write(api().sends(message(&at.orders()))).await;
    let parked = park(&at, &at.orders()).await;
    at.write(api().sends(message(&at.audit()))).await;
    let moving = RowFilter {
        state: Some(RowState::Moving),
        ..RowFilter::default()
    };
    let moving = rows(&at, &moving).await.remove(0);
    assert!(
        changes(&at, &[moving.id], RowVerb::Release)
            .await
            .is_empty()
    );
    let both = vec![moving.id, parked.id];
    assert_eq!(changes(&at, &both, RowVerb::Discard).await, [parked.id]);
    assert_eq!(rows(&at, &RowFilter::default()).await.len(), 1);
    let entry = at
        .admin
        .audit(&AuditFilter::default(), Page::latest(1))
        .await
        .expect("it is shown")
        .remove(0);
    assert_eq!(entry.action, "discard_rows");
    assert_eq!(entry.detail[0]["destination"], "@orders");
    assert_eq!(
        entry.detail[0]["message_id"],
        parked.envelope.id.to_string()
    );
}

/// Waiting, due, in hand and parked are told apart.
pub async fn destinations_are_summed_up(at: Arc<Harness>) {
    let orders = at.orders();
    at.write(api().sends(message(&orders))).await;
    park(&at, &orders).await;
    at.write(api().sends(message(&orders))).await;
    at.claim_one(&orders).await;
    at.write(api().sends(message(&orders))).await;
    at.write(api().sends(message_to_address("exchange"))).await;
    grow_older(Duration::from_millis(5)).await;
    let all = at.admin.destinations().await.expect("they are summed up");
    let seen: Vec<_> = all
        .iter()
        .map(|one| (one.destination.as_str(), one.waiting, one.due, one.parked))
        .collect();
    assert_eq!(seen, [("@orders", 2, 1, 1), ("exchange", 1, 1, 0)]);
    let now = at.admin.about().await.expect("it answers").now;
    for one in &all {
        let (since, oldest) = (one.due_since, one.oldest_at);
        assert!(since.is_some_and(|since| since < now), "{one:?}");
        assert!(oldest.is_some_and(|oldest| oldest < now), "{one:?}");
    }
}

/// In the order of kind and key, page by page.
pub async fn instances_are_listed_by_kind_and_state(at: Arc<Harness>) {
    let states = [
        ("1", "waiting"),
        ("2", "paid"),
        ("3", "waiting"),
        ("4", "waiting"),
    ];
    for (key, state) in states {
        let change = InstanceChange {
            state: Some(state.into()),
            ..moved(&instance(key), 0)
        };
        at.write(api().changes(change)).await;
    }
    at.write(api().completes(&instance("4"), 1)).await;
    let keys = |filter: InstanceFilter, limit| {
        let at = Arc::clone(&at);
        async move {
            let found = at.admin.instances(&filter, limit).await;
            let found = found.expect("instances are shown");
            found
                .into_iter()
                .map(|one| one.id.key.to_string())
                .collect::<Vec<_>>()
        }
    };
    let any = InstanceFilter::default;
    let text = |text: &str| Some(text.to_owned());
    assert_eq!(keys(any(), 10).await, ["1", "2", "3", "4"]);
    assert_eq!(keys(any(), 2).await, ["1", "2"]);
    let behind = InstanceFilter {
        after: Some(instance("2")),
        ..any()
    };
    assert_eq!(keys(behind, 1).await, ["3"]);
    let running = Some(InstanceStatus::Running);
    let waiting = InstanceFilter {
        state: text("waiting"),
        status: running,
        ..any()
    };
    assert_eq!(keys(waiting, 10).await, ["1", "3"]);
    let other = InstanceFilter {
        kind: text("other"),
        ..any()
    };
    assert!(keys(other, 10).await.is_empty());
    grow_older(Duration::from_millis(5)).await;
    let now = at.admin.about().await.expect("it answers").now;
    let idle = InstanceFilter {
        idle_since: Some(now),
        ..any()
    };
    assert_eq!(keys(idle, 10).await.len(), 4);
    let ancient = sagabus_core::Timestamp::from_micros(1);
    let never = InstanceFilter {
        idle_since: Some(ancient),
        ..any()
    };
    assert!(keys(never, 10).await.is_empty());
    let last = at
        .admin
        .instances(&any(), 10)
        .await
        .expect("they are shown")
        .remove(3);
    assert_eq!((last.version, last.status), (2, InstanceStatus::Completed));
    assert!(last.created_at <= last.updated_at);
}

/// Those that a release of before has written, and that no message has moved since.
pub async fn instances_with_data_of_an_older_version_are_found(at: Arc<Harness>) {
    for (key, schema_version) in [("1", 1), ("2", 2), ("3", 1), ("4", 3)] {
        let change = InstanceChange {
            schema_version,
            ..moved(&instance(key), 0)
        };
        at.write(api().changes(change)).await;
    }
    let again = InstanceChange {
        schema_version: 3,
        ..moved(&instance("3"), 1)
    };
    at.write(api().changes(again)).await;
    for (before, expected) in [(1, &[][..]), (2, &["1"]), (3, &["1", "2"])] {
        let filter = InstanceFilter {
            schema_before: Some(before),
            ..InstanceFilter::default()
        };
        let found = at.admin.instances(&filter, 100).await;
        let found = found.expect("instances are shown");
        let keys: Vec<_> = found.iter().map(|one| &*one.id.key).collect();
        assert_eq!(keys, expected, "before {before}");
    }
}

/// The three questions.
pub async fn history_tells_of_instance_message_and_conversation(at: Arc<Harness>) {
    let (orders, audit) = (at.orders(), at.audit());
    let (first, second) = (MessageId::new(), MessageId::new());
    let unit = broker(&orders, first).moves(&instance("1"), 0);
    at.write(unit.records(&orders, first)).await;
    let unit = broker(&orders, second).moves(&instance("1"), 1);
    at.write(unit.records(&orders, second)).await;
    at.write(broker(&audit, first).records(&audit, first)).await;
    let told = |of: HistoryOf| {
        let at = Arc::clone(&at);
        async move {
            let found = at.admin.history(&of, Page::oldest(10)).await;
            let found = found.expect("history is shown");
            let place = |endpoint: Option<String>| endpoint.unwrap_or_default();
            let lines = found.into_iter();
            lines
                .map(|one| (place(one.endpoint), one.entry.message_id))
                .collect::<Vec<_>>()
        }
    };
    let (at_orders, at_audit) = ("orders".to_owned(), "audit".to_owned());
    let both = [(at_orders.clone(), first), (at_audit.clone(), first)];
    assert_eq!(told(HistoryOf::Message(first)).await, both);
    assert_eq!(told(HistoryOf::Conversation(first.into())).await, both);
    assert_eq!(
        told(HistoryOf::Instance(instance("1"))).await,
        [(at_orders.clone(), first), (at_orders, second)]
    );
    assert!(told(HistoryOf::Instance(instance("2"))).await.is_empty());
    assert!(told(HistoryOf::Message(MessageId::new())).await.is_empty());
}

/// For an endpoint or for a broker; who only names it, or was caused by it, is not meant.
pub async fn what_sent_a_message_is_found(at: Arc<Harness>) {
    let (orders, audit) = (at.orders(), at.audit());
    let cause = MessageId::new();
    let (here, away) = (message(&audit), message_to_address("exchange"));
    let ids = [here.id(), away.id()];
    let unit = broker(&orders, cause).sends(here).sends(away);
    at.write(unit.records(&orders, cause).tells_what_it_sent())
        .await;
    let effect = message(&audit);
    let effect_id = effect.id();
    let row_of = at.claim_one(&audit).await.row;
    let unit = row(row_of).sends(effect).records(&audit, ids[0]);
    at.write(unit.tells_what_it_sent().tells_its_cause(ids[1]))
        .await;
    let sender = async |id: MessageId| -> Vec<MessageId> {
        let of = HistoryOf::Sender(id);
        let found = at.admin.history(&of, Page::oldest(10)).await;
        let found = found.expect("history is shown").into_iter();
        found.map(|one| one.entry.message_id).collect()
    };
    assert_eq!(sender(ids[0]).await, [cause]);
    assert_eq!(sender(ids[1]).await, [cause]);
    assert_eq!(sender(effect_id).await, [ids[0]]);
    for nobodys in [cause, MessageId::new()] {
        assert!(sender(nobodys).await.is_empty());
    }
}

async fn inbox(at: &Harness, filter: &InboxFilter, limit: u32) -> Vec<TakenOver> {
    let found = at.admin.inbox(filter, limit).await;
    found.expect("the inbox is shown")
}

/// By message, endpoint and time, with the last that was done with each; page by page without gaps.
pub async fn the_inbox_tells_what_was_taken_over_and_handled(at: Arc<Harness>) {
    let (orders, audit) = (at.orders(), at.audit());
    let mut ids: Vec<MessageId> = (0..4).map(|_| MessageId::new()).collect();
    ids.sort();
    for id in &ids[..2] {
        at.write(broker(&orders, *id).records(&orders, *id)).await;
    }
    grow_older(Duration::from_millis(5)).await;
    let between = at.admin.about().await.expect("it answers").now;
    grow_older(Duration::from_millis(5)).await;
    // The second one came to another endpoint, too, and was handled there twice; one only waits.
    let twice = broker(&audit, ids[1]).records(&audit, ids[1]);
    at.write(twice.records(&audit, ids[1])).await;
    at.write(broker(&orders, ids[2])).await;
    at.write(broker(&audit, ids[3]).records(&audit, ids[3]))
        .await;

    let all = InboxFilter::default();
    let whole = inbox(&at, &all, 10).await;
    let place = |one: &TakenOver| (one.message, one.endpoint.clone().unwrap_or_default());
    let mut places: Vec<_> = whole.iter().map(place).collect();
    let mut paged = Vec::new();
    let mut filter = all.clone();
    loop {
        let page = inbox(&at, &filter, 2).await;
        let Some(last) = page.last() else { break };
        filter.after = Some((last.message, last.endpoint.clone()));
        paged.extend(page.iter().map(place));
    }
    assert_eq!(paged, places, "pages have no gaps and no repeats");
    places.sort();
    let name = str::to_owned;
    let expected = [
        (ids[0], name("orders")),
        (ids[1], name("audit")),
        (ids[1], name("orders")),
        (ids[2], name("orders")),
        (ids[3], name("audit")),
    ];
    assert_eq!(places, expected);
    let order: Vec<_> = whole.iter().map(|one| one.message).collect();
    assert!(order.is_sorted_by(|a, b| a >= b), "the largest first");
    for one in &whole {
        let handled = one.handled.as_ref().map(|done| done.entry.message_id);
        let expected = (one.message != ids[2]).then_some(one.message);
        assert_eq!(handled, expected);
        let same = one
            .handled
            .as_ref()
            .is_none_or(|done| done.endpoint == one.endpoint);
        assert!(same, "handled where it was taken over: {one:?}");
    }
    let cases = [
        (only(|f| f.message = Some(ids[1])), 2),
        (only(|f| f.message = Some(MessageId::new())), 0),
        (only(|f| f.endpoint = Some(name("orders"))), 3),
        (only(|f| f.endpoint = Some(name("nobody"))), 0),
        (only(|f| f.since = Some(between)), 3),
        (only(|f| f.until = Some(between)), 2),
        (only(|f| f.after = Some((ids[1], None))), 1),
    ];
    for (filter, count) in cases {
        assert_eq!(inbox(&at, &filter, 10).await.len(), count, "{filter:?}");
    }
}

fn only(set: impl FnOnce(&mut InboxFilter)) -> InboxFilter {
    let mut filter = InboxFilter::default();
    set(&mut filter);
    filter
}

/// The heartbeat moves with every extension.
pub async fn hosts_are_listed_and_swept_when_they_are_long_gone(at: Arc<Harness>) {
    let second = registration("second", []);
    let attached = at.store.attach(&second, &at.lifecycle).await;
    attached.expect("the host is taken");
    grow_older(Duration::from_millis(20)).await;
    at.extend(&[], HOUR).await;
    let hosts = at.admin.hosts().await.expect("hosts are shown");
    let seen: Vec<_> = hosts
        .iter()
        .map(|one| (one.id, one.name.as_str()))
        .collect();
    assert_eq!(seen, [(at.host, "first"), (second.host, "second")]);
    assert!(hosts[0].heartbeat_at > hosts[0].started_at);
    assert_eq!(hosts[1].definitions, second.definitions);
    // Both clocks are of one machine; a host says nothing of its own before its first heartbeat.
    let behind = hosts[0].behind.expect("a heartbeat says it");
    assert!(behind.abs() < 60_000_000, "{behind}");
    assert_eq!(hosts[1].behind, None);
    assert!(hosts.iter().all(|one| one.stopped_at.is_none()));
    at.say_farewell().await;
    let hosts = at.admin.hosts().await.expect("hosts are shown");
    assert_eq!(hosts[0].stopped_at, Some(hosts[0].heartbeat_at));
    assert_eq!(hosts[1].stopped_at, None);

    let kept = Retention {
        history: Duration::from_secs(60),
        ..Retention::default()
    };
    at.store.sweep(&kept).await.expect("a sweep is answered");
    assert_eq!(at.admin.hosts().await.expect("they are shown").len(), 2);
    grow_older(Duration::from_millis(5)).await;
    let gone = Retention {
        history: Duration::ZERO,
        ..Retention::default()
    };
    at.store.sweep(&gone).await.expect("a sweep is answered");
    assert!(at.admin.hosts().await.expect("they are shown").is_empty());
}

/// The routes that every commit is checked against change with it.
pub async fn a_removed_subscription_gets_no_more_messages(at: Arc<Harness>) {
    let remove = |message_type: &str| Action::RemoveSubscription {
        endpoint: "orders".to_owned(),
        message_type: message_type.to_owned(),
    };
    assert!(does(&at, remove("shop.unknown")).await.is_empty());
    let id = i64::from(at.orders().id.0);
    assert_eq!(does(&at, remove("shop.order-placed")).await, [id]);
    assert!(does(&at, remove("shop.order-placed")).await.is_empty());
    let stale = at.group([api().sends(message(&at.orders()))]);
    let Err(StoreError::StaleRoutes(routes)) = at.store.commit(&stale).await else {
        panic!("placements by former routes are refused");
    };
    let takers = &routes.subscribers["shop.order-placed"];
    let names: Vec<_> = takers.iter().map(|one| one.name.as_str()).collect();
    assert_eq!(names, ["parcels"]);
    let endpoints = at.admin.endpoints().await.expect("endpoints are shown");
    let orders = endpoints.iter().find(|one| one.name == "orders");
    assert_eq!(orders.map(|one| one.subscriptions.len()), Some(0));
    let event = ("shop.order-placed".to_owned(), "event".to_owned());
    assert_eq!(endpoints[2].subscriptions, [event]);
    assert_eq!(endpoints[2].order, Order::PerKey);
}

/// Rows and open dead letters keep it; a new one gets an integer of its own.
pub async fn an_endpoint_is_removed_when_nothing_waits_for_it(at: Arc<Harness>) {
    let remove = || Action::RemoveEndpoint {
        endpoint: "orders".to_owned(),
    };
    let orders = at.orders();
    let dead = dies(&at, &orders, "no", None).await;
    assert!(does(&at, remove()).await.is_empty());
    does(&at, Action::RedriveDeadLetters(vec![dead])).await;
    assert!(does(&at, remove()).await.is_empty());
    let claimed = at.claim_one(&orders).await;
    at.settle([Settle::Delete(claimed.row)]).await;
    assert_eq!(does(&at, remove()).await, [i64::from(orders.id.0)]);
    assert!(does(&at, remove()).await.is_empty());
    let endpoints = at.admin.endpoints().await.expect("endpoints are shown");
    let names: Vec<_> = endpoints.iter().map(|one| one.name.as_str()).collect();
    assert_eq!(names, ["audit", "parcels"]);

    let again = registration("again", [endpoint("orders", Order::Unordered, &[])]);
    let attached = at.store.attach(&again, &at.lifecycle).await;
    let attached = attached.expect("the host is taken");
    let others = [at.audit().id, at.parcels().id];
    let new = attached.endpoints[&orders.name];
    assert!(!others.contains(&new), "{new:?} is an integer of its own");
}
