//! How messages become rows: in the same transaction, with identity and bytes fixed.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use sagabus_core::envelope::{Due, Envelope};
use sagabus_core::error::StoreError;
use sagabus_core::headers::Headers;
use sagabus_core::id::MessageId;
use sagabus_core::store::{Birth, Place};
use sagabus_core::unit_of_work::{Outcome, Reason, RowKey, Settle};

use super::build::{Plan, api, attempts, broker, message, message_for, row};
use super::harness::{HOUR, Harness, instance};
use super::under_test::Skippable;
use crate::wait::eventually;

/// What is received is what was sent, to the byte.
pub async fn a_row_carries_identity_headers_and_bytes_unchanged(at: Arc<Harness>) {
    let orders = at.orders();
    let bodies: [&'static [u8]; 4] = [b"", b"{}", &[0, 255, 0, 128, 10, 13], br#"'";--\x00"#];
    let headers: [Headers; 4] = [
        Headers::new(),
        [("z", "1"), ("a", "2"), ("m", "")].into_iter().collect(),
        [("note", "\u{1f600} grüße \"quoted\" \\ '")]
            .into_iter()
            .collect(),
        (0..64).map(|n| (format!("h{n}"), "x")).collect(),
    ];
    for (body, headers) in bodies.into_iter().zip(headers) {
        let envelope = Envelope {
            id: MessageId::new(),
            message_type: "shop.order-placed".into(),
            headers,
            body: Bytes::from_static(body),
        };
        let sent = message(&orders).enveloped(envelope.clone()).keyed("k'1");
        at.write(api().sends(sent)).await;
        let claimed = at.claim_one(&orders).await;
        assert_eq!(claimed.envelope, envelope);
        assert_eq!(claimed.key.as_deref(), Some("k'1"));
        assert_eq!(claimed.destination, "@orders");
        assert_eq!(claimed.timer, None);
        assert!(claimed.attempts.is_empty());
        at.settle([Settle::Delete(claimed.row)]).await;
    }
}

/// The largest body that the bus takes.
pub async fn a_body_of_a_mebibyte_is_kept(at: Arc<Harness>) {
    let orders = at.orders();
    let body: Vec<u8> = (0..1024 * 1024).map(|n: u32| n.to_le_bytes()[1]).collect();
    let sent = message(&orders);
    let envelope = Envelope {
        body: body.into(),
        ..sent.envelope().clone()
    };
    at.write(api().sends(sent.enveloped(envelope.clone())))
        .await;
    assert!(at.claim_one(&orders).await.envelope == envelope);
}

/// The host goes on with it from memory; nobody else gets it.
pub async fn a_row_born_leased_is_ours(at: Arc<Harness>) {
    let orders = at.orders();
    let leased = at.write(api().sends(message(&orders).leased())).await;
    let key = leased[0].expect("a due message is born leased");
    assert_eq!(key.epoch, 1);
    assert!(at.claim(&orders).await.is_empty());

    assert_eq!(at.outcome(row(key)).await, Outcome::Committed);
    assert_eq!(at.counts().await.outbox, 0);
}

/// The fast path may die: its rows come back, and their first start is known.
pub async fn a_row_born_leased_comes_back_when_its_lease_ends(at: Arc<Harness>) {
    let orders = at.orders();
    let lease = Duration::from_millis(300);
    let mut group = at.group([api().sends(message(&orders).leased())]);
    group.lease = lease;
    let started = tokio::time::Instant::now();
    let report = at.commit_group(&group).await;
    assert_eq!(report.leased[0].map(|key| key.epoch), Some(1));
    let look = || async { at.claim(&orders).await.pop() };
    let (claimed, _) = eventually("row after its lease", look).await;
    assert!(started.elapsed() >= lease, "{:?}", started.elapsed());
    assert_eq!((claimed.row.epoch, claimed.starts), (2, 2));
}

/// Nobody holds it: the first claim is its first start.
pub async fn a_row_born_available_is_for_whoever_comes_first(at: Arc<Harness>) {
    let orders = at.orders();
    assert_eq!(at.write(api().sends(message(&orders))).await, [None]);
    let claimed = at.claim_one(&orders).await;
    assert_eq!((claimed.row.epoch, claimed.starts), (1, 1));
    assert_eq!((claimed.failures, claimed.solo_starts), (0, 0));
}

/// It waits for an operator, wherever it was to go.
pub async fn a_row_born_parked_is_claimed_by_nobody(at: Arc<Harness>) {
    let orders = at.orders();
    let parked = Birth::Parked(Reason::NoOwner);
    let plan = api()
        .sends(message(&orders).born(parked))
        .sends(message_for(Place::Nowhere).born(parked));
    assert_eq!(at.write(plan).await, [None, None]);

    assert!(at.claim(&orders).await.is_empty());
    assert!(at.claim_for_transport(10, 10, &[]).await.is_empty());
    let counts = at.counts().await;
    assert_eq!((counts.outbox, counts.parked), (0, 2));
}

/// What is due later cannot be gone on with now.
pub async fn a_message_that_is_not_due_is_not_born_leased(at: Arc<Harness>) {
    let orders = at.orders();
    let later = sagabus_core::clock::now().plus(HOUR);
    for due in [Due::After(HOUR), Due::At(later)] {
        let sent = message(&orders).due(due).leased();
        assert_eq!(at.write(api().sends(sent)).await, [None], "{due:?}");
    }
    assert!(at.claim(&orders).await.is_empty());
    assert_eq!(at.counts().await.outbox, 2);
}

/// Not before its time, and then without anybody's doing.
pub async fn a_message_comes_when_it_is_due(at: Arc<Harness>) {
    let orders = at.orders();
    let delay = Duration::from_millis(400);
    for due in [
        Due::After(delay),
        Due::At(sagabus_core::clock::now().plus(delay * 2)),
    ] {
        let sent = message(&orders).due(due);
        let id = sent.id();
        let started = tokio::time::Instant::now();
        at.write(api().sends(sent)).await;
        let look = || async { at.claim(&orders).await.pop() };
        let (claimed, _) = eventually("message that is due", look).await;
        assert_eq!(claimed.envelope.id, id);
        if matches!(due, Due::After(_)) {
            assert!(started.elapsed() >= delay, "{:?}", started.elapsed());
        }
    }
}

/// A time that has passed is no reason to wait.
pub async fn a_due_time_in_the_past_is_now(at: Arc<Harness>) {
    let orders = at.orders();
    let past = sagabus_core::Timestamp::from_micros(1_000_000);
    at.write(api().sends(message(&orders).due(Due::At(past))))
        .await;
    at.claim_one(&orders).await;
}

/// An event becomes one row per subscriber, each with a life of its own.
pub async fn an_event_becomes_one_row_per_place(at: Arc<Harness>) {
    let (orders, audit) = (at.orders(), at.audit());
    let event = message(&orders)
        .and_to(&audit)
        .and_to(&at.parcels())
        .leased();
    let id = event.id();
    let leased = at.write(api().sends(event)).await;
    let mut ids: Vec<_> = leased.iter().flatten().map(|key| key.id).collect();
    assert_eq!(ids.len(), 3);
    assert!(ids.is_sorted(), "older means a smaller id: {ids:?}");
    ids.dedup();
    assert_eq!(ids.len(), 3);

    let again = |key: &RowKey| Settle::Release {
        row: *key,
        after: Duration::ZERO,
        attempts: None,
        start: sagabus_core::unit_of_work::Start::GivenBack,
    };
    at.settle(leased.iter().flatten().map(again)).await;
    for endpoint in [orders, audit, at.parcels()] {
        let claimed = at.claim_one(&endpoint).await;
        assert_eq!(claimed.envelope.id, id);
        assert_eq!(claimed.destination, format!("@{}", endpoint.name));
    }
}

/// Each key of a row that was born leased stands at the place of its placement.
pub async fn leased_rows_are_named_at_their_placements(at: Arc<Harness>) {
    let (orders, known) = (at.orders(), MessageId::new());
    at.write(broker(&orders, known)).await;
    let sent: Vec<_> = (0..4).map(|_| message(&orders).leased()).collect();
    let new = || broker(&orders, MessageId::new());
    let plans = [
        new().sends(sent[0].clone()),
        broker(&orders, known).sends(sent[1].clone()),
        new()
            .sends(message(&orders).due(Due::After(HOUR)).leased())
            .sends(sent[2].clone()),
        new()
            .moves(&instance("none"), 4)
            .sends(message(&orders).leased()),
        new().sends(sent[3].clone()),
    ];
    let leased = at.commit(plans).await.leased;
    let is_leased: Vec<_> = leased.iter().map(Option::is_some).collect();
    assert_eq!(is_leased, [true, false, false, true, false, true]);

    for (place, message) in [(0, 0), (3, 2), (5, 3)] {
        let key = leased[place].expect("it was born leased");
        at.settle([Settle::Release {
            row: key,
            after: Duration::ZERO,
            attempts: None,
            start: sagabus_core::unit_of_work::Start::Counted,
        }])
        .await;
        let claimed = at.claim_one(&orders).await;
        assert_eq!(claimed.row.id, key.id);
        assert_eq!(claimed.envelope.id, sent[message].id());
    }
}

/// The order of writing is the order of ids, across units and within one.
pub async fn ids_grow_in_the_order_of_placements(at: Arc<Harness>) {
    let orders = at.orders();
    let sent: Vec<_> = (0..30).map(|_| message(&orders)).collect();
    let ids: Vec<_> = sent.iter().map(super::Message::id).collect();
    let plans = sent.chunks(7).map(|chunk| {
        let add = |plan: Plan, one: &super::Message| plan.sends(one.clone());
        chunk.iter().fold(api(), add)
    });
    at.commit(plans).await;

    let mut rows = at.claim(&orders).await;
    rows.sort_by_key(|one| one.row.id);
    let by_id: Vec<_> = rows.iter().map(|one| one.envelope.id).collect();
    assert_eq!(by_id, ids);
}

/// A unit is never split, however much it sends.
pub async fn a_unit_of_many_messages_is_written_whole(at: Arc<Harness>) {
    let orders = at.orders();
    let plan = (0..2_500).fold(api(), |plan, _| plan.sends(message(&orders)));
    at.write(plan).await;
    assert_eq!(at.counts().await.outbox, 2_500);
}

/// Who sends again with an identity of its own changes nothing, in one group and in the next.
pub async fn a_given_identity_is_written_once(at: Arc<Harness>) {
    let orders = at.orders();
    let given = message(&orders).given();
    let first = api().sends(given.clone().leased()).sends(message(&orders));
    let leased = at.write(first).await;
    assert!(leased[0].is_some());

    let again = api().sends(given.clone().leased()).sends(message(&orders));
    assert_eq!(at.write(again).await, [None, None]);
    at.commit([api().sends(given.clone()), api().sends(given.clone())])
        .await;
    assert_eq!(at.counts().await.outbox, 3, "one given, two fresh");

    // Also when the first was handled long ago.
    at.write(row(leased[0].expect("checked above"))).await;
    at.write(api().sends(given)).await;
    assert_eq!(at.counts().await.outbox, 2);
}

/// Twice in one group is once.
pub async fn a_given_identity_twice_in_one_group_is_written_once(at: Arc<Harness>) {
    let orders = at.orders();
    let given = message(&orders).given().leased();
    let plans = [
        api().sends(given.clone()).sends(given.clone()),
        api().sends(given),
    ];
    let leased = at.commit(plans).await.leased;
    assert_eq!(leased.iter().flatten().count(), 1);
    assert_eq!(at.counts().await.outbox, 1);
}

/// An event with a given identity is remembered at each subscriber by itself.
pub async fn a_given_identity_is_written_at_each_endpoint(at: Arc<Harness>) {
    let given = message(&at.orders()).given();
    at.write(api().sends(given.clone())).await;
    at.write(api().sends(given.and_to(&at.audit()))).await;
    assert_eq!(at.claim(&at.orders()).await.len(), 1);
    assert_eq!(at.claim(&at.audit()).await.len(), 1);
}

/// The same message may come by two ways.
pub async fn a_given_identity_that_a_broker_brings_is_a_duplicate(at: Arc<Harness>) {
    let orders = at.orders();
    let given = message(&orders).given();
    at.write(api().sends(given.clone())).await;
    let by_broker = broker(&orders, given.id());
    assert_eq!(at.outcome(by_broker).await, Outcome::Duplicate);

    let brought = MessageId::new();
    at.write(broker(&orders, brought)).await;
    let envelope = Envelope {
        id: brought,
        ..given.envelope().clone()
    };
    at.write(api().sends(given.enveloped(envelope))).await;
    assert_eq!(at.counts().await.outbox, 1);
}

/// What was not written is not remembered.
pub async fn a_given_identity_of_a_loser_is_new_again(at: Arc<Harness>) {
    let given = message(&at.orders()).given();
    let loser = api().moves(&instance("none"), 3).sends(given.clone());
    assert_eq!(at.outcome(loser).await, Outcome::Conflict);
    at.write(api().sends(given)).await;
    assert_eq!(at.claim(&at.orders()).await.len(), 1);
}

/// A message that goes back to its own endpoint brings its failures along.
pub async fn failed_attempts_travel_with_a_row(at: Arc<Harness>) {
    let orders = at.orders();
    let failed = attempts(&["timed out", "refused: \u{0} is no amount"]);
    let sent = message(&orders).failed_before(failed.clone());
    at.write(api().sends(sent.clone())).await;
    let claimed = at.claim_one(&orders).await;
    assert_eq!(claimed.attempts, failed);
    // A start without a recorded end is one more than the failures.
    assert_eq!((claimed.starts, claimed.failures), (3, 2));

    let leased = at.write(api().sends(sent.leased())).await;
    let key = leased[0].expect("it is due");
    at.settle([Settle::Release {
        row: key,
        after: Duration::ZERO,
        attempts: None,
        start: sagabus_core::unit_of_work::Start::Counted,
    }])
    .await;
    let claimed = at.claim_one(&orders).await;
    assert_eq!((claimed.starts, claimed.failures), (4, 2));
}

/// Placements by routes of yesterday would miss a subscriber.
pub async fn stale_routes_write_nothing(at: Arc<Harness>) {
    let (orders, id) = (at.orders(), MessageId::new());
    at.write(api().sends(message(&orders))).await;
    let claimed = at.claim_one(&orders).await;
    let before = at.counts().await;
    for wrong in [-1, 1] {
        let mut group = at.group([broker(&orders, id)
            .moves(&instance("1"), 0)
            .sends(message(&orders))]);
        group.settles.push(Settle::Delete(claimed.row));
        group.routes_version += wrong;
        match at.try_commit(&group).await {
            Err(StoreError::StaleRoutes(routes)) => assert_eq!(*routes, at.attached.routes),
            other => panic!("stale routes were taken: {other:?}"),
        }
    }
    assert_eq!(at.counts().await, before);
    assert!(!at.is_taken_over(&orders, id).await);
}

/// Whoever attached is seen by every commit from then on, also by one that would send nothing.
pub async fn an_event_that_nobody_took_is_placed_anew_when_routes_changed(at: Arc<Harness>) {
    let event = message(&at.orders()).to_nobody();
    at.write(api().sends(event.clone())).await;
    assert_eq!(
        at.counts().await.outbox,
        0,
        "an event may have no subscriber"
    );

    let mut group = at.group([api().moves(&instance("1"), 0).sends(event)]);
    group.routes_version -= 1;
    match at.try_commit(&group).await {
        Err(StoreError::StaleRoutes(routes)) => assert_eq!(*routes, at.attached.routes),
        other => panic!("stale routes were taken: {other:?}"),
    }
    assert_eq!(at.counts().await.running, 0);
}

/// One bad value, and nothing of the whole group is written; the rest goes through without it.
pub async fn a_refused_unit_writes_nothing_of_its_group(at: Arc<Harness>) {
    if !at.can(Skippable::RefusesNul) {
        return;
    }
    let orders = at.orders();
    let bad: [Plan; 2] = [
        api().moves(&instance("a\u{0}b"), 0),
        api().sends(message(&orders).keyed("a\u{0}b")),
    ];
    for (index, bad) in bad.into_iter().enumerate() {
        let before = at.counts().await;
        let good = |n: usize| {
            broker(&orders, MessageId::new())
                .moves(&instance(&format!("{index}/{n}")), 0)
                .sends(message(&orders))
        };
        let (first, second) = (good(1), good(2));
        let group = at.group([first.clone(), bad, second.clone()]);
        match at.try_commit(&group).await {
            Err(error @ StoreError::Refused(_)) => assert!(!error.is_transient()),
            other => panic!("a NUL in a text column was not refused: {other:?}"),
        }
        assert_eq!(at.counts().await, before);
        let report = at.commit([first, second]).await;
        assert_eq!(report.outcomes, [Outcome::Committed; 2]);
    }
}
