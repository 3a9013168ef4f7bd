//! What brokers took, kept where a host declares it, and sent again.

use std::sync::Arc;
use std::time::Duration;

use sagabus_core::MessageId;
use sagabus_core::admin::{Action, AuditFilter, Page, SentFilter, StoredSent};
use sagabus_core::endpoint::Order;
use sagabus_core::store::{ClaimedRow, Place, Retention, Swept};
use sagabus_core::unit_of_work::{Outcome, RowKey, Settle};

use super::build::{Message, api, broker, message, message_for, message_to_address, row};
use super::harness::{HOUR, Harness, instance};
use super::operators::does;
use crate::wait::{eventually, grow_older};

const DESK: &str = "queue/desk";

async fn find(at: &Harness, filter: &SentFilter) -> Vec<StoredSent> {
    let found = at.admin.sent(filter, Page::oldest(100)).await;
    found.expect("what is kept is listed")
}

async fn ids(at: &Harness, filter: &SentFilter) -> Vec<i64> {
    find(at, filter).await.iter().map(|one| one.id).collect()
}

async fn kept(at: &Harness) -> Vec<i64> {
    ids(at, &SentFilter::default()).await
}

fn keep(row: RowKey) -> Settle {
    Settle::Keep {
        row,
        kept_for: HOUR,
    }
}

async fn claim(at: &Harness) -> Vec<ClaimedRow> {
    at.claim_for_transport(100, 100, &[]).await
}

async fn claim_one(at: &Harness) -> ClaimedRow {
    let mut rows = claim(at).await;
    assert_eq!(rows.len(), 1);
    rows.remove(0)
}

/// Makes a message whose address keeps order per key.
fn in_line() -> Message {
    message_for(Place::Address {
        address: DESK.to_owned(),
        order: Order::PerKey,
    })
}

/// Has a message sent, and kept.
async fn sent(at: &Harness, one: Message) -> ClaimedRow {
    at.write(api().sends(one)).await;
    let row = claim_one(at).await;
    at.settle([keep(row.row)]).await;
    row
}

/// As a confirm without the policy does; and in the same call as a unit.
pub async fn a_sent_row_that_is_kept_is_gone_from_the_outbox(at: Arc<Harness>) {
    let before = at.admin.about().await.expect("it answers").now;
    let row = sent(&at, message_to_address(DESK).keyed("k")).await;
    assert_eq!(at.counts().await.outbox, 0);
    let found = find(&at, &SentFilter::default()).await.remove(0);
    assert_eq!(found.id, row.row.id);
    assert_eq!(found.message, row.envelope.id);
    assert_eq!(*found.message_type, *row.envelope.message_type);
    assert_eq!(found.destination, DESK);
    assert_eq!(found.key.as_deref(), Some("k"));
    assert!(found.sent_at >= before);
    let kept_for = found.kept_until.as_micros() - found.sent_at.as_micros();
    assert_eq!(kept_for, sagabus_core::clock::micros(HOUR));

    at.write(api().sends(message_to_address(DESK))).await;
    let second = claim_one(&at).await;
    let mut group = at.group([api().moves(&instance("7"), 0)]);
    group.settles.push(keep(second.row));
    let report = at.commit_group(&group).await;
    assert_eq!(report.outcomes, [Outcome::Committed]);
    assert!(at.instance(&instance("7")).await.is_some());
    assert_eq!(kept(&at).await, [row.row.id, second.row.id]);
}

/// Nobody sent it under this epoch; a confirm that is settled twice is one.
pub async fn a_settle_that_comes_too_late_keeps_nothing(at: Arc<Harness>) {
    at.write(api().sends(message_to_address(DESK))).await;
    let row = claim_one(&at).await;
    for epoch in [0, 2] {
        at.settle([keep(RowKey { epoch, ..row.row })]).await;
    }
    assert_eq!(kept(&at).await, [0; 0]);
    assert_eq!(at.counts().await.outbox, 1);
    for _ in 0..2 {
        at.settle([keep(row.row)]).await;
        assert_eq!(kept(&at).await, [row.row.id]);
    }
    assert_eq!(at.counts().await.outbox, 0);
}

/// Identity, type, headers, bytes, key, address and the end of its time; and it is kept no more.
pub async fn what_is_sent_again_is_what_was_sent(at: Arc<Harness>) {
    let message = message_to_address(DESK).keyed("k").expires_after(HOUR);
    let first = sent(&at, message).await;
    let again = Action::RepublishSent(vec![first.row.id]);
    assert_eq!(does(&at, again.clone()).await, [first.row.id]);
    assert_eq!(does(&at, again).await, [0; 0], "once");
    assert_eq!(kept(&at).await, [0; 0]);
    let rows = at.admin.rows(&Default::default(), Page::oldest(10)).await;
    let row = rows.expect("it is listed").remove(0);
    assert!(row.expires_at.is_some());

    let second = claim_one(&at).await;
    assert_ne!(second.row.id, first.row.id);
    assert_eq!(second.envelope, first.envelope);
    assert_eq!(second.key, first.key);
    assert_eq!(second.destination, first.destination);
    assert_eq!((second.starts, second.failures), (1, 0));
    at.settle([keep(second.row)]).await;
    assert_eq!(kept(&at).await, [second.row.id], "it is kept anew");

    let audit = at
        .admin
        .audit(&AuditFilter::default(), Page::latest(10))
        .await;
    let audit = audit.expect("it is shown");
    assert_eq!(audit.len(), 1);
    assert_eq!(audit[0].action, "republish_sent");
    assert_eq!(audit[0].detail[0]["id"], first.row.id);
    assert_eq!(audit[0].detail[0]["destination"], DESK);
    let id = first.envelope.id.to_string();
    assert_eq!(audit[0].detail[0]["message_id"], id);
}

/// In the order in which they were written first, one at a time for a key.
pub async fn messages_of_a_key_are_sent_again_in_their_order(at: Arc<Harness>) {
    let mut names = Vec::new();
    for _ in 0..3 {
        let row = sent(&at, in_line().keyed("k")).await;
        names.push(row.envelope.id);
    }
    let mut ids = kept(&at).await;
    ids.reverse();
    does(&at, Action::RepublishSent(ids)).await;
    for name in names {
        let look = || async { claim(&at).await.pop() };
        let (row, _) = eventually("the next of the key", look).await;
        assert_eq!(row.envelope.id, name);
        assert!(claim(&at).await.is_empty(), "the others wait");
        at.settle([Settle::Delete(row.row)]).await;
    }
}

/// Each part of a filter, alone; wrong ones let nothing through.
pub async fn what_is_kept_is_found_by_when_and_where_it_went(at: Arc<Harness>) {
    let first = sent(&at, message_to_address(DESK)).await.row.id;
    grow_older(Duration::from_millis(5)).await;
    let between = at.admin.about().await.expect("it answers").now;
    grow_older(Duration::from_millis(5)).await;
    let second = sent(&at, message_to_address("queue/other")).await;
    let (message, second) = (Some(second.envelope.id), second.row.id);
    let text = |text: &str| Some(text.to_owned());
    let any = SentFilter::default;
    let with = |change: fn(&mut SentFilter)| {
        let mut filter = any();
        change(&mut filter);
        filter
    };
    let (since, until) = (Some(between), Some(between));
    for (filter, expected) in [
        (SentFilter { since, ..any() }, vec![second]),
        (SentFilter { until, ..any() }, vec![first]),
        (
            SentFilter {
                since,
                until,
                ..any()
            },
            vec![],
        ),
        (
            SentFilter {
                destination: text(DESK),
                ..any()
            },
            vec![first],
        ),
        (
            SentFilter {
                message_type: text("shop.order-placed"),
                ..any()
            },
            vec![first, second],
        ),
        (with(|f| f.message_type = Some("shop.%".to_owned())), vec![]),
        (SentFilter { message, ..any() }, vec![second]),
        (with(|f| f.message = Some(MessageId::new())), vec![]),
        (with(|f| f.destination = Some(String::new())), vec![]),
    ] {
        assert_eq!(ids(&at, &filter).await, expected, "{filter:?}");
    }
    let latest = at.admin.sent(&any(), Page::latest(1)).await;
    assert_eq!(latest.expect("it is listed")[0].id, second);
    let page = Page::oldest(5).behind(Some(first));
    let behind = at.admin.sent(&any(), page).await;
    assert_eq!(behind.expect("it is listed")[0].id, second);
}

/// Whoever sweeps, and no more at a time than it may.
pub async fn what_was_kept_for_long_enough_is_swept(at: Arc<Harness>) {
    for _ in 0..3 {
        at.write(api().sends(message_to_address(DESK))).await;
        let row = claim_one(&at).await.row;
        let kept_for = Duration::ZERO;
        at.settle([Settle::Keep { row, kept_for }]).await;
    }
    let young = sent(&at, message_to_address(DESK)).await;
    grow_older(Duration::from_millis(5)).await;
    let retention = Retention {
        rows_max: 2,
        ..Retention::default()
    };
    for (sent, is_full) in [(2, true), (1, false), (0, false)] {
        let swept = at.store.sweep(&retention).await;
        let expected = Swept {
            sent,
            is_full,
            ..Swept::default()
        };
        assert_eq!(swept.expect("a sweep is answered"), expected);
    }
    assert_eq!(kept(&at).await, [young.row.id]);
}

/// A message that an endpoint handled is not one that a broker took.
pub async fn what_was_handled_is_not_kept(at: Arc<Harness>) {
    let orders = at.orders();
    at.write(api().sends(message(&orders))).await;
    let claimed = at.claim_one(&orders).await;
    at.write(row(claimed.row)).await;
    let id = sagabus_core::MessageId::new();
    at.write(broker(&orders, id)).await;
    assert_eq!(kept(&at).await, [0; 0]);
}
