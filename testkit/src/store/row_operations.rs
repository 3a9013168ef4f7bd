//! Bulk changes of rows, and of what was sent: selected once, changed step by step.

use std::sync::Arc;
use std::time::Duration;

use sagabus_core::admin::{
    NewOperation, OperationState, PAGE_MAX, Page, RowFilter, RowState, RowVerb, Selected,
    SentFilter, StoredOperation, Tally, Verb,
};
use sagabus_core::endpoint::Order;
use sagabus_core::envelope::Due;
use sagabus_core::error::StoreError;
use sagabus_core::store::Place;
use sagabus_core::unit_of_work::{DeadLetter, KeyAfterDeath, RowKey, Settle};

use super::build::{api, broker, dead_letter, message, message_for, message_to_address};
use super::harness::{HOUR, Harness, instance};
use super::operations::{audit, begin, new, step, wheel};
use super::operators::changes;
use crate::wait::{eventually, grow_older};

const DESK: &str = "queue/desk";

/// What a verb is for, as an operator's tools ask for it.
fn all(verb: &RowVerb) -> Selected {
    Selected::Rows(Box::new(RowFilter {
        state: verb.state(),
        is_changeable: true,
        ..RowFilter::default()
    }))
}

async fn ids(at: &Harness, state: Option<RowState>) -> Vec<i64> {
    let filter = RowFilter {
        state,
        ..RowFilter::default()
    };
    let found = at.admin.rows(&filter, Page::oldest(500)).await;
    let found = found.expect("rows are shown");
    found.iter().map(|one| one.id).collect()
}

/// Begins an operation on rows and makes it in one step.
async fn carry_out(at: &Harness, verb: RowVerb, selected: Selected) -> StoredOperation {
    let begun = begin(at, Verb::Rows(verb), selected).await;
    let wheel = wheel(at, begun.id).await;
    step(at, wheel, PAGE_MAX).await.expect("it runs")
}

/// A timer of an instance, and the place of a dead letter.
async fn leave_what_is_not_meant(at: &Harness) {
    let order = instance("1");
    let timer = message(&at.orders()).timer(&order, "deadline", 1);
    let timer = timer.due(Due::After(HOUR));
    at.write(api().moves(&order, 0).sends(timer)).await;
    let parcels = at.parcels();
    let envelope = message(&parcels).envelope().clone();
    let dead = DeadLetter {
        key: Some("held".to_owned()),
        key_after: KeyAfterDeath::Waits,
        ..dead_letter(&parcels.name, &envelope)
    };
    at.write(broker(&parcels, envelope.id).gives_up(dead)).await;
}

/// In steps that each have an audit entry; timers and the places of dead letters are not meant.
pub async fn rows_are_changed_as_they_were_found_and_no_later_ones(at: Arc<Harness>) {
    leave_what_is_not_meant(&at).await;
    let before = ids(&at, None).await;
    for _ in 0..5 {
        at.write(api().sends(message(&at.orders()))).await;
    }
    let meant = ids(&at, None).await.split_off(before.len());
    let park = Verb::Rows(RowVerb::Park);
    let begun = begin(&at, park.clone(), all(&RowVerb::Park)).await;
    at.write(api().sends(message(&at.orders()))).await;
    assert_eq!((begun.total, begun.taken, begun.changed), (5, 0, 0));
    assert_eq!(begun.verb, park);
    assert!(begun.endpoints.is_empty());
    assert_eq!(begun.selection["state"], "moving");
    assert_eq!(ids(&at, Some(RowState::Parked)).await, [0; 0]);

    let wheel = wheel(&at, begun.id).await;
    let first = step(&at, wheel, 2).await.expect("it runs");
    assert_eq!((first.taken, first.changed), (2, 2));
    assert_eq!(ids(&at, Some(RowState::Parked)).await, meant[..2]);
    let last = step(&at, wheel, PAGE_MAX).await.expect("it runs");
    assert_eq!((last.taken, last.changed), (5, 5));
    assert_eq!(last.state, OperationState::Done);
    assert_eq!(step(&at, wheel, 1).await, None, "it is over");
    assert_eq!(ids(&at, Some(RowState::Parked)).await, meant);
    assert_eq!(at.claim(&at.orders()).await.len(), 1, "the later one");

    let shown: Vec<_> = audit(&at).await.into_iter().collect();
    let steps: Vec<_> = shown
        .iter()
        .map(|one| {
            assert_eq!((one.who.as_str(), one.operation), ("ada", Some(begun.id)));
            (
                one.action.as_str(),
                one.detail.as_array().map_or(0, Vec::len),
            )
        })
        .collect();
    let expected = [("begin_operation", 1), ("park_rows", 2), ("park_rows", 3)];
    assert_eq!(steps, expected);
    assert_eq!(shown[1].detail[0]["id"], meant[0]);
    assert_eq!(shown[1].detail[0]["destination"], "@orders");
}

/// As the changes of named rows do; what each leaves is what they leave.
pub async fn every_verb_of_rows_can_be_an_operation(at: Arc<Harness>) {
    let (orders, other) = (at.orders(), at.audit());
    for _ in 0..2 {
        at.write(api().sends(message(&orders).due(Due::After(HOUR))))
            .await;
    }
    let both = ids(&at, None).await;
    assert!(at.claim(&orders).await.is_empty(), "they wait");
    let run = async |verb: RowVerb| {
        let selected = all(&verb);
        let done = carry_out(&at, verb, selected).await;
        assert_eq!((done.changed, done.state), (2, OperationState::Done));
        let entry = audit(&at).await.pop().expect("it was noted");
        assert_eq!(entry.operation, Some(done.id));
        entry
    };
    assert_eq!(run(RowVerb::Expedite).await.action, "expedite_rows");
    let held = at.claim(&orders).await;
    assert_eq!(held.len(), 2);

    assert_eq!(run(RowVerb::Park).await.action, "park_rows");
    let to = "@audit".to_owned();
    let entry = run(RowVerb::Readdress { to }).await;
    assert_eq!(entry.action, "readdress_rows");
    assert_eq!(entry.detail[1]["to"], "@audit");
    at.settle([Settle::Delete(held[0].row)]).await;
    assert_eq!(at.claim(&other).await.len(), 2, "the old host has none");

    run(RowVerb::Park).await;
    assert_eq!(run(RowVerb::Release).await.action, "release_rows");
    assert_eq!(at.claim(&other).await.len(), 2);
    run(RowVerb::Park).await;
    assert_eq!(run(RowVerb::Discard).await.action, "discard_rows");
    assert_eq!(ids(&at, None).await, [0; 0]);
    assert_eq!(both.len(), 2);
}

/// Whether they wait, are in hand or are parked; what stood behind them goes on.
pub async fn rows_are_purged_and_those_behind_them_go_on(at: Arc<Harness>) {
    leave_what_is_not_meant(&at).await;
    let parcels = at.parcels();
    for _ in 0..3 {
        at.write(api().sends(message(&parcels).keyed("a"))).await;
    }
    let rows = ids(&at, None).await.split_off(2);
    changes(&at, &rows[..1], RowVerb::Park).await;
    let look = || async { at.claim(&parcels).await.pop() };
    let (held, _) = eventually("the next of the key", look).await;
    assert_eq!(held.row.id, rows[1]);
    let two = Selected::Named(rows[..2].to_vec());
    let done = carry_out(&at, RowVerb::Purge, two).await;
    assert_eq!((done.total, done.changed), (2, 2));
    let (last, _) = eventually("the last of the key", look).await;
    assert_eq!(last.row.id, rows[2]);
    // What the host makes of the one that it had in hand counts for nothing.
    at.settle([Settle::Delete(held.row)]).await;
    let entry = audit(&at).await.pop().expect("it was noted");
    assert_eq!(entry.action, "purge_rows");
    let gone: Vec<_> = entry.detail.as_array().into_iter().flatten().collect();
    let gone: Vec<_> = gone.iter().map(|one| one["id"].as_i64()).collect();
    assert_eq!(gone, [Some(rows[0]), Some(rows[1])]);

    let everything = carry_out(&at, RowVerb::Purge, all(&RowVerb::Purge)).await;
    assert_eq!((everything.total, everything.changed), (1, 1));
    assert_eq!(ids(&at, None).await.len(), 2, "the timer and the place");
}

/// Sent or handled since, or changed by somebody else: it has its turn, and stays as it is.
pub async fn rows_that_went_meanwhile_are_passed_over(at: Arc<Harness>) {
    let orders = at.orders();
    for _ in 0..3 {
        at.write(api().sends(message(&orders))).await;
    }
    let rows = ids(&at, None).await;
    let named = vec![rows[2], rows[0], rows[1], rows[1], 9999];
    let begun = begin(&at, Verb::Rows(RowVerb::Park), Selected::Named(named)).await;
    assert_eq!(begun.total, 3);
    let held = at.claim(&orders).await;
    let first: Vec<RowKey> = held.iter().map(|one| one.row).collect();
    let first = first.into_iter().find(|one| one.id == rows[0]);
    at.settle([Settle::Delete(first.expect("it was claimed"))])
        .await;
    changes(&at, &rows[1..2], RowVerb::Park).await;
    let wheel = wheel(&at, begun.id).await;
    let done = step(&at, wheel, 9).await.expect("it runs");
    assert_eq!((done.taken, done.changed), (3, 1));
    assert_eq!(ids(&at, Some(RowState::Parked)).await, rows[1..]);
    let entry = audit(&at).await.pop().expect("it was noted");
    let noted = entry.detail.as_array().map_or(0, Vec::len);
    assert_eq!(noted, 1, "only what was changed is in the audit");
}

/// A filter is about one table, and a verb is for one; no row goes to where none goes.
pub async fn an_operation_is_refused_what_its_verb_is_not_for(at: Arc<Harness>) {
    at.write(api().sends(message(&at.orders()))).await;
    let rows = || Selected::Rows(Box::default());
    let sent = || Selected::Sent(Box::default());
    let letters = || Selected::DeadLetters(Box::default());
    let park = || Verb::Rows(RowVerb::Park);
    let to = |to: &str| Verb::Rows(RowVerb::Readdress { to: to.to_owned() });
    for (verb, selected) in [
        (park(), letters()),
        (park(), sent()),
        (Verb::Discard, rows()),
        (Verb::Redrive { to: None }, sent()),
        (Verb::Republish, rows()),
        (Verb::Republish, letters()),
        (to("?shop.order-placed"), rows()),
        (to(""), rows()),
        (to("a\0b"), rows()),
    ] {
        let new: NewOperation = new(verb, selected);
        let answer = at.admin.begin_operation(&new).await;
        let is_refused = matches!(answer, Err(StoreError::Refused(_)));
        assert!(is_refused, "{new:?}: {answer:?}");
    }
    assert_eq!(audit(&at).await, []);
}

/// Each part of a filter counts what it lists.
pub async fn rows_are_counted_as_they_are_listed(at: Arc<Harness>) {
    let none = at.admin.count_rows(&RowFilter::default()).await;
    assert_eq!(none.expect("they are counted"), Tally::default());
    leave_what_is_not_meant(&at).await;
    for _ in 0..3 {
        at.write(api().sends(message(&at.orders()).keyed("k")))
            .await;
    }
    at.write(api().sends(message_to_address(DESK))).await;
    let rows = ids(&at, None).await;
    changes(&at, &rows[2..3], RowVerb::Park).await;
    let any = RowFilter::default;
    let state = |state| RowFilter {
        state: Some(state),
        ..any()
    };
    let changeable = RowFilter {
        is_changeable: true,
        ..any()
    };
    for (filter, count) in [
        (any(), 6),
        (changeable.clone(), 4),
        (state(RowState::Parked), 1),
        (state(RowState::Moving), 5),
        (state(RowState::Timer), 1),
        (
            RowFilter {
                destination: Some(DESK.to_owned()),
                ..any()
            },
            1,
        ),
        (
            RowFilter {
                key: Some("k".to_owned()),
                ..state(RowState::Moving)
            },
            2,
        ),
        (
            RowFilter {
                owner: Some(instance("1")),
                ..any()
            },
            1,
        ),
        (
            RowFilter {
                id_max: Some(rows[3]),
                ..changeable
            },
            2,
        ),
    ] {
        let listed = at.admin.rows(&filter, Page::oldest(100)).await;
        let listed = listed.expect("rows are shown");
        let written = || listed.iter().map(|one| one.created_at);
        let expected = Tally {
            count,
            first_at: written().min(),
            last_at: written().max(),
            id_max: listed.last().map(|one| one.id),
        };
        let counted = at.admin.count_rows(&filter).await;
        assert_eq!(counted.expect("they are counted"), expected, "{filter:?}");
        assert_eq!(listed.len() as u64, count, "{filter:?}");
    }
}

/// Has a message of one key sent to a broker, and kept.
async fn kept(at: &Harness) -> i64 {
    let place = Place::Address {
        address: DESK.to_owned(),
        order: Order::PerKey,
    };
    at.write(api().sends(message_for(place).keyed("k"))).await;
    let row = at.claim_for_transport(10, 10, &[]).await.remove(0).row;
    let kept_for = HOUR;
    at.settle([Settle::Keep { row, kept_for }]).await;
    row.id
}

/// Each once, in the order in which they were written, whatever a step has had before.
pub async fn what_was_sent_is_sent_again_in_steps(at: Arc<Harness>) {
    let mut names = Vec::new();
    for _ in 0..3 {
        names.push(kept(&at).await);
        grow_older(Duration::from_millis(2)).await;
    }
    let window = SentFilter {
        destination: Some(DESK.to_owned()),
        ..SentFilter::default()
    };
    let before = at.admin.sent(&window, Page::oldest(10)).await;
    let before = before.expect("what is kept is listed");
    let tally = at.admin.count_sent(&window).await;
    let expected = Tally {
        count: 3,
        first_at: Some(before[0].sent_at),
        last_at: Some(before[2].sent_at),
        id_max: Some(names[2]),
    };
    assert_eq!(tally.expect("they are counted"), expected);

    let selected = Selected::Sent(Box::new(window.clone()));
    let begun = begin(&at, Verb::Republish, selected).await;
    assert_eq!((begun.total, &begun.verb), (3, &Verb::Republish));
    assert_eq!(begun.selection["destination"], DESK);
    let later = kept(&at).await;
    let again = begin(&at, Verb::Republish, Selected::Named(names.clone())).await;
    let first = wheel(&at, begun.id).await;
    let half = step(&at, first, 2).await.expect("it runs");
    assert_eq!((half.taken, half.changed), (2, 2));
    let other = wheel(&at, again.id).await;
    let rest = step(&at, other, 9).await.expect("it runs");
    assert_eq!((rest.taken, rest.changed), (3, 1), "the others have gone");
    let done = step(&at, first, 9).await.expect("it runs");
    assert_eq!((done.taken, done.changed), (3, 2));
    assert_eq!(done.state, OperationState::Done);

    let left = at.admin.sent(&window, Page::oldest(10)).await;
    let left: Vec<_> = left
        .expect("it is listed")
        .iter()
        .map(|one| one.id)
        .collect();
    assert_eq!(left, [later], "what was sent later is not in it");
    for one in before {
        let look = || async { at.claim_for_transport(10, 10, &[]).await.pop() };
        let (row, _) = eventually("the next of the key", look).await;
        assert_eq!(row.envelope.id, one.message);
        at.settle([Settle::Delete(row.row)]).await;
    }
    assert_eq!(ids(&at, None).await, [0; 0]);
    let entries = audit(&at).await;
    let steps = entries.iter().filter(|one| one.action == "republish_sent");
    let noted = steps.flat_map(|one| one.detail.as_array().into_iter().flatten());
    let noted: Vec<_> = noted.filter_map(|one| one["id"].as_i64()).collect();
    assert_eq!(noted, names);
}
