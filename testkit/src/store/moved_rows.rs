//! Rows that operators set aside, hurry on, or send elsewhere.

use std::sync::Arc;

use sagabus_core::admin::{
    Action, AuditFilter, Change, PARKED_BY_OPERATOR, Page, RowFilter, RowState, RowVerb, StoredRow,
};
use sagabus_core::envelope::Due;
use sagabus_core::error::StoreError;
use sagabus_core::store::Target;
use sagabus_core::unit_of_work::{DeadLetter, KeyAfterDeath, Outcome, Settle, Start};

use super::build::{api, attempts, broker, dead_letter, message, message_to_address, row};
use super::harness::{HOUR, Harness, instance};
use super::operators::changes;
use crate::wait::eventually;

async fn rows(at: &Harness, state: Option<RowState>) -> Vec<StoredRow> {
    let filter = RowFilter {
        state,
        ..RowFilter::default()
    };
    let found = at.admin.rows(&filter, Page::oldest(100)).await;
    found.expect("rows are shown")
}

async fn ids(at: &Harness) -> Vec<i64> {
    rows(at, None).await.iter().map(|one| one.id).collect()
}

fn to(place: &str) -> RowVerb {
    RowVerb::Readdress {
        to: place.to_owned(),
    }
}

async fn last_audit(at: &Harness) -> (String, serde_json::Value) {
    let found = at
        .admin
        .audit(&AuditFilter::default(), Page::latest(1))
        .await;
    let entry = found.expect("it is shown").remove(0);
    (entry.action, entry.detail)
}

/// Nobody gets it until an operator lets it go; then it is as it was.
pub async fn a_row_that_waits_is_set_aside_until_it_is_released(at: Arc<Harness>) {
    let orders = at.orders();
    let sent = message(&orders).keyed("k");
    let envelope = sent.envelope().clone();
    at.write(api().sends(sent)).await;
    let waiting = ids(&at).await;
    assert_eq!(changes(&at, &waiting, RowVerb::Park).await, waiting);
    assert_eq!(changes(&at, &waiting, RowVerb::Park).await, [0; 0], "again");
    let parked = rows(&at, Some(RowState::Parked)).await.remove(0);
    assert_eq!(parked.parked.as_deref(), Some(PARKED_BY_OPERATOR));
    assert!(at.claim(&orders).await.is_empty());
    assert_eq!(at.counts().await.parked, 1);
    let (action, detail) = last_audit(&at).await;
    assert_eq!(action, "park_rows");
    assert_eq!(detail[0]["destination"], "@orders");
    assert_eq!(detail[0]["message_id"], envelope.id.to_string());

    assert_eq!(changes(&at, &waiting, RowVerb::Release).await, waiting);
    let claimed = at.claim_one(&orders).await;
    assert_eq!(claimed.envelope, envelope);
    assert_eq!((claimed.starts, claimed.failures), (1, 0));
}

/// Neither its effects nor its settles are written, also when the row was released since.
pub async fn what_a_host_has_in_hand_is_set_aside_under_it(at: Arc<Harness>) {
    let orders = at.orders();
    at.write(api().sends(message(&orders))).await;
    let held = at.claim_one(&orders).await;
    assert_eq!(
        changes(&at, &[held.row.id], RowVerb::Park).await,
        [held.row.id]
    );
    let unit = || row(held.row).moves(&instance("7"), 0);
    assert_eq!(at.outcome(unit()).await, Outcome::Duplicate);
    at.settle([Settle::Delete(held.row)]).await;
    changes(&at, &[held.row.id], RowVerb::Release).await;
    assert_eq!(at.outcome(unit()).await, Outcome::Duplicate);
    assert_eq!(at.instance(&instance("7")).await, None);

    let again = at.claim_one(&orders).await;
    assert_eq!(again.row.id, held.row.id);
    at.write(row(again.row).moves(&instance("7"), 0)).await;
    assert_eq!(ids(&at).await, [0; 0]);
}

/// The next of its key comes; released, it goes first again.
pub async fn those_behind_a_row_that_is_set_aside_go_on(at: Arc<Harness>) {
    let parcels = at.parcels();
    let sent: Vec<_> = (0..3).map(|_| message(&parcels).keyed("a")).collect();
    let names: Vec<_> = sent.iter().map(|one| one.id()).collect();
    for one in sent {
        at.write(api().sends(one)).await;
    }
    let head = at.claim_one(&parcels).await;
    assert_eq!(head.envelope.id, names[0]);
    changes(&at, &[head.row.id], RowVerb::Park).await;
    let look = || async { at.claim(&parcels).await.pop() };
    let (next, _) = eventually("the next of the key", look).await;
    assert_eq!(next.envelope.id, names[1]);

    changes(&at, &[head.row.id], RowVerb::Release).await;
    let (first, _) = eventually("the first of the key", look).await;
    assert_eq!(first.envelope.id, names[0]);
    at.settle([Settle::Delete(first.row), Settle::Delete(next.row)])
        .await;
    let (last, _) = eventually("the last of the key", look).await;
    assert_eq!(last.envelope.id, names[2]);
}

/// An instance waits for the one, a key for the other: each has verbs of its own.
pub async fn timers_and_stubs_are_neither_set_aside_nor_hurried_on(at: Arc<Harness>) {
    let order = instance("1");
    let timer = message(&at.orders()).timer(&order, "deadline", 1);
    let timer = timer.due(Due::After(HOUR));
    at.write(api().moves(&order, 0).sends(timer)).await;
    let envelope = message(&at.parcels()).envelope().clone();
    let dead = DeadLetter {
        key: Some("a".to_owned()),
        key_after: KeyAfterDeath::Waits,
        ..dead_letter(&at.parcels().name, &envelope)
    };
    at.write(broker(&at.parcels(), envelope.id).gives_up(dead))
        .await;
    let both = ids(&at).await;
    assert_eq!(both.len(), 2);
    for verb in [RowVerb::Park, RowVerb::Expedite, to("@audit")] {
        assert_eq!(changes(&at, &both, verb).await, [0; 0]);
    }
    let audit = at
        .admin
        .audit(&AuditFilter::default(), Page::latest(10))
        .await;
    assert!(audit.expect("it is shown").is_empty());
}

/// What was scheduled, and what backs off.
pub async fn a_row_that_waits_for_its_time_is_hurried_on(at: Arc<Harness>) {
    let orders = at.orders();
    at.write(api().sends(message(&orders))).await;
    let failed = at.claim_one(&orders).await;
    at.settle([Settle::Release {
        row: failed.row,
        after: HOUR,
        attempts: Some(attempts(&["timed out"])),
        start: Start::Counted,
    }])
    .await;
    at.write(api().sends(message(&orders).due(Due::After(HOUR))))
        .await;
    assert!(at.claim(&orders).await.is_empty());
    let both = ids(&at).await;
    assert_eq!(changes(&at, &both, RowVerb::Expedite).await, both);
    assert_eq!(last_audit(&at).await.0, "expedite_rows");
    let claimed = at.claim(&orders).await;
    assert_eq!(claimed.len(), 2);
    let again = claimed.iter().find(|one| one.row.id == failed.row.id);
    let again = again.expect("it comes again");
    assert_eq!((again.starts, again.failures), (2, 1), "it counts on");
}

/// A second host beside the first would be for nothing.
pub async fn what_is_in_hand_or_parked_is_not_hurried_on(at: Arc<Harness>) {
    let orders = at.orders();
    at.write(api().sends(message(&orders))).await;
    let held = at.claim_one(&orders).await;
    assert_eq!(
        changes(&at, &[held.row.id], RowVerb::Expedite).await,
        [0; 0]
    );
    changes(&at, &[held.row.id], RowVerb::Park).await;
    assert_eq!(
        changes(&at, &[held.row.id], RowVerb::Expedite).await,
        [0; 0]
    );
    assert!(at.claim(&orders).await.is_empty());
}

async fn parked(at: &Harness, from: &Target) -> i64 {
    at.write(api().sends(message(from).keyed("k"))).await;
    let id = ids(at).await.pop().expect("it was written");
    changes(at, &[id], RowVerb::Park).await;
    id
}

/// With its identity and no attempts, in the line of where it goes.
pub async fn a_parked_row_is_sent_to_another_place(at: Arc<Harness>) {
    let (orders, parcels) = (at.orders(), at.parcels());
    let id = parked(&at, &orders).await;
    assert_eq!(changes(&at, &[id], to("@parcels")).await, [id]);
    let (action, detail) = last_audit(&at).await;
    assert_eq!(action, "readdress_rows");
    assert_eq!(detail[0]["destination"], "@orders");
    assert_eq!(detail[0]["to"], "@parcels");
    assert!(at.claim(&orders).await.is_empty());
    let claimed = at.claim_one(&parcels).await;
    assert_eq!((claimed.row.id, claimed.starts), (id, 1));
    assert!(at.is_blocked(&parcels, "k").await, "it stands in line");

    at.write(api().sends(message_to_address("exchange"))).await;
    let address = ids(&at).await.pop().expect("it was written");
    changes(&at, &[address], RowVerb::Park).await;
    assert_eq!(changes(&at, &[address], to("queue/other")).await, [address]);
    let claimed = at.claim_for_transport(10, 10, &[]).await;
    assert_eq!(claimed.len(), 1);
    assert_eq!(claimed[0].destination, "queue/other");
}

/// What is not parked stays, and so does what would go nowhere.
pub async fn no_row_is_sent_where_nobody_takes_it(at: Arc<Harness>) {
    let orders = at.orders();
    let id = parked(&at, &orders).await;
    assert_eq!(changes(&at, &[id], to("@nobody")).await, [0; 0]);
    for place in [
        "",
        "?shop.order-placed",
        "@",
        "@No Name",
        ":",
        "a\0b",
        "a\nb",
    ] {
        let action = Action::ChangeRows {
            ids: vec![id],
            verb: to(place),
        };
        let refused = Change {
            who: "ada".to_owned(),
            why: String::new(),
            action,
        };
        let answer = at.admin.change(&refused).await;
        let is_refused = matches!(answer, Err(StoreError::Refused(_)));
        assert!(is_refused, "{place:?}: {answer:?}");
    }
    changes(&at, &[id], RowVerb::Release).await;
    assert_eq!(changes(&at, &[id], to("@audit")).await, [0; 0]);
    assert_eq!(at.claim_one(&orders).await.row.id, id);
}

/// What an operator removes was discarded, what goes elsewhere has moved; neither is missing.
pub async fn the_accounts_know_of_rows_that_operators_took_away(at: Arc<Harness>) {
    let (orders, audit) = (at.orders(), at.audit());
    for _ in 0..4 {
        let copy = message(&orders);
        let id = copy.id();
        at.write(broker(&orders, id).sends(copy)).await;
    }
    let all = ids(&at).await;
    changes(&at, &all[3..], RowVerb::Purge).await;
    changes(&at, &all[..2], RowVerb::Park).await;
    changes(&at, &[all[0]], RowVerb::Discard).await;
    changes(&at, &all[1..2], to("@audit")).await;
    let claimed = at.claim_one(&audit).await;
    let id = claimed.envelope.id;
    at.write(row(claimed.row).records(&audit, id)).await;
    let accounts = at.admin.accounts(&[]).await.expect("they are shown");
    assert!(accounts.missing.is_empty(), "{accounts:?}");
    let line = |name: &str| {
        let mut lines = accounts.lines.iter();
        lines.find(|line| line.endpoint == name).cloned()
    };
    let left = line("orders").expect("it has one");
    let gone = (left.discarded, left.moved, left.pending, left.missing);
    assert_eq!((left.accepted, gone), (4, (2, 1, 1, 0)), "{left:?}");
    let there = line("audit").expect("it has one");
    assert_eq!((there.created, there.handled), (1, 1), "{there:?}");
}
