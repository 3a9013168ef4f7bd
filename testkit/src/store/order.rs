//! Order per key: only the oldest row of a destination and key moves.

use std::sync::Arc;
use std::time::Duration;

use sagabus_core::endpoint::Order;
use sagabus_core::envelope::Due;
use sagabus_core::id::MessageId;
use sagabus_core::store::{Birth, ClaimedRow, Place};
use sagabus_core::unit_of_work::{Reason, RowKey, Settle, Start};

use super::Message;
use super::build::{Plan, api, attempts, broker, message, message_for, row};
use super::harness::{HOUR, Harness, instance};
use crate::wait::eventually;

/// An ordered message of a key.
fn ordered(at: &Harness, key: &str) -> Message {
    message(&at.parcels()).keyed(key)
}

/// Sends messages, each in a unit and a group of its own.
async fn send(at: &Harness, messages: impl IntoIterator<Item = Message>) -> Vec<MessageId> {
    let mut ids = Vec::new();
    for one in messages {
        ids.push(one.id());
        at.write(api().sends(one)).await;
    }
    ids
}

/// Claims the one row that the ordered endpoint has to give.
async fn next(at: &Harness) -> ClaimedRow {
    at.claim_one(&at.parcels()).await
}

async fn nothing_moves(at: &Harness) {
    let rows = at.claim(&at.parcels()).await;
    assert!(rows.is_empty(), "an older row goes first: {rows:#?}");
}

/// Of a key, one at a time; of other keys, each.
pub async fn an_ordered_row_waits_for_the_older_row_of_its_key(at: Arc<Harness>) {
    let ids = send(&at, ["a", "b", "a", "b", "a"].map(|key| ordered(&at, key))).await;
    let mut rows = at.claim(&at.parcels()).await;
    rows.sort_by_key(|one| one.row.id);
    let got: Vec<_> = rows.iter().map(|one| one.envelope.id).collect();
    assert_eq!(got, ids[..2]);
    nothing_moves(&at).await;
}

/// Written in one group or in one unit, it is the same.
pub async fn rows_of_one_unit_keep_their_order(at: Arc<Harness>) {
    let messages: Vec<_> = (0..4).map(|_| ordered(&at, "a")).collect();
    let ids: Vec<_> = messages.iter().map(Message::id).collect();
    let units = messages.chunks(2).map(|pair| {
        let add = |plan: Plan, one: &Message| plan.sends(one.clone());
        pair.iter().fold(api(), add)
    });
    at.commit(units).await;
    for id in ids {
        let head = next(&at).await;
        assert_eq!(head.envelope.id, id);
        nothing_moves(&at).await;
        at.settle([Settle::Delete(head.row)]).await;
    }
}

/// What has no key has no order, and neither has an unordered destination.
pub async fn rows_without_key_or_order_flow_freely(at: Arc<Harness>) {
    let orders = at.orders();
    send(&at, (0..3).map(|_| message(&at.parcels()))).await;
    assert_eq!(at.claim(&at.parcels()).await.len(), 3);
    send(&at, (0..3).map(|_| message(&orders).keyed("a"))).await;
    assert_eq!(at.claim(&orders).await.len(), 3);
}

/// At once, not when its time-out says so: by deleting, by parking, and by a unit that answers.
pub async fn settling_the_head_pulls_the_next_of_its_key_forward(at: Arc<Harness>) {
    let ids = send(&at, (0..4).map(|_| ordered(&at, "a"))).await;
    let head = next(&at).await;
    // Makes the claim defer them, wherever that happens.
    nothing_moves(&at).await;
    at.settle([Settle::Delete(head.row)]).await;

    let head = next(&at).await;
    assert_eq!(head.envelope.id, ids[1]);
    nothing_moves(&at).await;
    at.settle([Settle::Park {
        row: head.row,
        reason: Reason::Unroutable,
        attempts: attempts(&["no queue"]),
    }])
    .await;

    let head = next(&at).await;
    assert_eq!(head.envelope.id, ids[2]);
    nothing_moves(&at).await;
    at.write(row(head.row)).await;
    assert_eq!(next(&at).await.envelope.id, ids[3]);
}

/// Many heads of many keys in one call, some with followers and some without.
pub async fn settling_many_heads_pulls_each_key_forward(at: Arc<Harness>) {
    let keys: Vec<_> = (0..20).map(|n| format!("k{n}")).collect();
    for round in 0..2 {
        let plan = keys
            .iter()
            .step_by(round + 1)
            .fold(api(), |plan, key| plan.sends(ordered(&at, key)));
        at.write(plan).await;
    }
    let heads = at.claim(&at.parcels()).await;
    assert_eq!(heads.len(), 20);
    let (settled, answered) = heads.split_at(10);
    let mut group = at.group(answered.iter().map(|one| row(one.row)));
    group.settles = settled.iter().map(|one| Settle::Delete(one.row)).collect();
    at.commit_group(&group).await;
    assert_eq!(at.claim(&at.parcels()).await.len(), 10);
    assert_eq!(at.counts().await.outbox, 10);
}

/// A message that is tried again holds back its own key and no other.
pub async fn a_released_head_still_goes_first(at: Arc<Harness>) {
    let ids = send(&at, ["a", "a", "b"].map(|key| ordered(&at, key))).await;
    let heads = at.claim(&at.parcels()).await;
    let head = heads.iter().find(|one| one.envelope.id == ids[0]);
    let head = head.expect("the oldest of its key is claimed").row;
    assert_eq!(heads.len(), 2, "the other key flows");
    at.settle([Settle::Release {
        row: head,
        after: Duration::from_millis(300),
        attempts: Some(attempts(&["again"])),
        start: Start::Counted,
    }])
    .await;
    let look = || async { at.claim(&at.parcels()).await.pop() };
    let (again, _) = eventually("released head of its key", look).await;
    assert_eq!(again.envelope.id, ids[0]);
    nothing_moves(&at).await;
}

/// Order begins at birth: what comes from memory must not overtake either.
pub async fn only_the_first_of_a_key_is_born_leased(at: Arc<Harness>) {
    let plan = ["a", "a", "b", "a"]
        .iter()
        .fold(api(), |plan, key| plan.sends(ordered(&at, key).leased()));
    let leased = at.write(plan).await;
    let is_leased: Vec<_> = leased.iter().map(Option::is_some).collect();
    assert_eq!(is_leased, [true, false, true, false]);
    let later = at.write(api().sends(ordered(&at, "a").leased())).await;
    assert_eq!(later, [None]);
    nothing_moves(&at).await;
}

/// The steps of a commit have an order: what is settled is out of the way of what is written.
pub async fn a_head_settled_in_the_same_group_makes_way(at: Arc<Harness>) {
    send(&at, [ordered(&at, "a")]).await;
    let head = next(&at).await;
    let mut group = at.group([api().sends(ordered(&at, "a").leased())]);
    group.settles.push(Settle::Delete(head.row));
    let report = at.commit_group(&group).await;
    assert!(report.leased[0].is_some());
}

/// A step that sends itself the next one does not wait for itself.
pub async fn a_unit_does_not_wait_behind_the_row_that_it_answers(at: Arc<Harness>) {
    send(&at, [ordered(&at, "a")]).await;
    let mut head = next(&at).await.row;
    for _ in 0..3 {
        let step = row(head).sends(ordered(&at, "a").leased());
        let leased = at.write(step).await;
        head = leased[0].expect("nothing older of its key is left");
    }
    assert_eq!(at.counts().await.outbox, 1);
}

/// Its turn has come, its time has not.
pub async fn pulling_forward_makes_no_row_early(at: Arc<Harness>) {
    let later = ordered(&at, "a").due(Due::After(HOUR));
    send(&at, [ordered(&at, "a"), later]).await;
    let head = next(&at).await;
    nothing_moves(&at).await;
    at.settle([Settle::Delete(head.row)]).await;
    nothing_moves(&at).await;
    assert_eq!(at.counts().await.outbox, 1);
}

/// An operator may take days; the key goes on without it.
pub async fn a_row_born_parked_holds_back_nobody(at: Arc<Harness>) {
    let parked = ordered(&at, "a").born(Birth::Parked(Reason::NoOwner));
    let ids = send(&at, [parked, ordered(&at, "a")]).await;
    assert_eq!(next(&at).await.envelope.id, ids[1]);
}

/// A timer that is disarmed gives way to what stood behind it.
pub async fn disarming_the_head_pulls_the_next_of_its_key_forward(at: Arc<Harness>) {
    let order = instance("1");
    let timer = ordered(&at, "a").timer(&order, "deadline", 1);
    at.write(api().moves(&order, 0).sends(timer)).await;
    let behind = send(&at, [ordered(&at, "a")]).await;
    let _head = next(&at).await;
    nothing_moves(&at).await;
    at.write(api().moves(&order, 1).disarms(&["deadline"]))
        .await;
    assert_eq!(next(&at).await.envelope.id, behind[0]);
}

/// A key is a line per destination; transports' addresses may be ordered as well.
pub async fn addresses_keep_order_per_key(at: Arc<Harness>) {
    let at_address = |address: &str, key: &str| {
        message_for(Place::Address {
            address: address.to_owned(),
            order: Order::PerKey,
        })
        .keyed(key)
    };
    let messages = [("t1", "a"), ("t1", "a"), ("t2", "a"), ("t1", "b")];
    let ids = send(&at, messages.map(|(to, key)| at_address(to, key))).await;
    send(&at, [ordered(&at, "a")]).await;

    let rows = at.claim_for_transport(10, 10, &[]).await;
    let mut got: Vec<_> = rows.iter().map(|one| one.envelope.id).collect();
    got.sort();
    assert_eq!(got, [ids[0], ids[2], ids[3]]);
    let head = rows.iter().find(|one| one.envelope.id == ids[0]);
    let head = head.expect("it was claimed").row;
    at.settle([Settle::Delete(head)]).await;
    let rows = at.claim_for_transport(10, 10, &[]).await;
    assert_eq!(super::harness::one(rows).envelope.id, ids[1]);
}

/// Sixty messages of three keys, claimed and answered until nothing is left.
pub async fn whole_lines_come_in_the_order_in_which_they_were_written(at: Arc<Harness>) {
    let keys = ["a", "b", "c"];
    let sent: Vec<_> = (0..60).map(|n| ordered(&at, keys[n % 3])).collect();
    let of = |key: &str| -> Vec<MessageId> {
        let of_key = sent.iter().enumerate().filter(|(n, _)| keys[n % 3] == key);
        of_key.map(|(_, one)| one.id()).collect()
    };
    let add = |plan: Plan, one: &Message| plan.sends(one.clone());
    at.commit(sent.chunks(9).map(|some| some.iter().fold(api(), add)))
        .await;

    let mut handled: Vec<ClaimedRow> = Vec::new();
    while handled.len() < sent.len() {
        let rows = at.claim(&at.parcels()).await;
        assert!(!rows.is_empty(), "stuck after {} rows", handled.len());
        let answer = |key: RowKey| row(key).and_broker(&at.parcels(), MessageId::new());
        at.commit(rows.iter().map(|one| answer(one.row))).await;
        handled.extend(rows);
    }
    for key in keys {
        let got: Vec<_> = handled
            .iter()
            .filter(|one| one.key.as_deref() == Some(key))
            .map(|one| one.envelope.id)
            .collect();
        assert_eq!(got, of(key), "key {key}");
    }
}

/// A key whose head is stuck costs the others nothing, however many wait behind it.
pub async fn a_blocked_key_with_many_followers_leaves_others_flowing(at: Arc<Harness>) {
    let blocked = (0..500).fold(api(), |plan, _| plan.sends(ordered(&at, "stuck")));
    at.write(blocked).await;
    let _head = next(&at).await;
    for n in 0..20 {
        let id = MessageId::new();
        let free = ordered(&at, &format!("free{n}"));
        let sent = free.id();
        at.write(broker(&at.parcels(), id).sends(free)).await;
        let row = next(&at).await;
        assert_eq!(row.envelope.id, sent);
        at.settle([Settle::Delete(row.row)]).await;
    }
    assert_eq!(at.counts().await.outbox, 500);
}
