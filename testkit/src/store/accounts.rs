//! What came against what became of it.

use std::sync::Arc;
use std::time::Duration;

use sagabus_core::admin::{
    AccountLine, Accounts, Action, DeadLetterFilter, Edit, NewOperation, Pace, Page, Selected,
    Verb, Wheel,
};
use sagabus_core::id::MessageId;
use sagabus_core::store::{Retention, Target};
use sagabus_core::unit_of_work::{DeadLetter, Reason, Settle};

use super::build::{api, broker, dead_letter, message, row};
use super::harness::{HOUR, Harness};
use super::operators::{dies, does};
use crate::wait::grow_older;

const TYPE: &str = "shop.order-placed";

async fn accounts(at: &Harness) -> Accounts {
    let accounts = at.admin.accounts(&[]).await;
    accounts.expect("the accounts are shown")
}

/// Reads the one line of an endpoint, and checks that both of its sides are alike.
async fn line(at: &Harness, endpoint: &Target) -> AccountLine {
    let lines = accounts(at).await.lines.into_iter();
    let mut lines = lines.filter(|line| line.endpoint == endpoint.name.as_str());
    let line = lines.next().expect("the endpoint has a line");
    assert_eq!(lines.next(), None, "of one type");
    let gone = line.handled + line.dead + line.expired + line.discarded + line.moved;
    let came = line.accepted + line.created;
    assert_eq!(came, gone + line.pending + line.missing, "{line:?}");
    line
}

fn empty(endpoint: &Target) -> AccountLine {
    AccountLine {
        endpoint: endpoint.name.to_string(),
        message_type: Some(TYPE.to_owned()),
        ..AccountLine::default()
    }
}

/// Takes a message over from a broker for later, as a failed try does.
async fn postpones(at: &Harness, endpoint: &Target) -> MessageId {
    let copy = message(endpoint);
    let id = copy.id();
    at.write(broker(endpoint, id).sends(copy)).await;
    id
}

/// Handled at once, handled later, given up, expired, discarded, waiting: from a broker and from a
/// unit of this database.
pub async fn accounts_balance_whatever_becomes_of_a_message(at: Arc<Harness>) {
    let (orders, audit) = (at.orders(), at.audit());
    assert!(accounts(&at).await.lines.is_empty(), "nothing came");
    let first = MessageId::new();
    let sent = [message(&audit), message(&audit)];
    let mut unit = broker(&orders, first);
    for one in sent {
        unit = unit.sends(one);
    }
    at.write(unit.records(&orders, first).tells_what_it_sent())
        .await;
    let later = postpones(&at, &orders).await;
    let claimed = at.claim_one(&orders).await;
    assert_eq!(claimed.envelope.id, later);
    at.write(row(claimed.row).records(&orders, later)).await;
    let expected = AccountLine {
        accepted: 2,
        handled: 2,
        ..empty(&orders)
    };
    assert_eq!(line(&at, &orders).await, expected);
    let expected = AccountLine {
        created: 2,
        pending: 2,
        ..empty(&audit)
    };
    assert_eq!(line(&at, &audit).await, expected);

    let mut rows = at.claim(&audit).await;
    let second = rows.pop().expect("two wait");
    let handled = rows.pop().expect("two wait");
    let handles = row(handled.row).records(&audit, handled.envelope.id);
    at.write(handles).await;
    let dead = DeadLetter {
        reason: Reason::Expired,
        ..dead_letter(&audit.name, &second.envelope)
    };
    at.write(row(second.row).gives_up(dead)).await;
    let open = dies(&at, &orders, "no", None).await;
    let discarded = dies(&at, &orders, "never", None).await;
    does(&at, Action::DiscardDeadLetters(vec![discarded])).await;
    let expected = AccountLine {
        created: 2,
        handled: 1,
        expired: 1,
        ..empty(&audit)
    };
    assert_eq!(line(&at, &audit).await, expected);
    let expected = AccountLine {
        accepted: 4,
        handled: 2,
        dead: 1,
        discarded: 1,
        ..empty(&orders)
    };
    assert_eq!(line(&at, &orders).await, expected);

    does(&at, Action::RedriveDeadLetters(vec![open])).await;
    assert_eq!(line(&at, &orders).await.pending, 1);
    let again = at.claim_one(&orders).await;
    at.write(row(again.row).records(&orders, again.envelope.id))
        .await;
    assert_eq!(line(&at, &orders).await.handled, 3);
    assert_eq!(accounts(&at).await.missing_count(), 0);
}

/// Sent by an API, by a unit, or taken over for later: a row that goes without an answer is missed.
pub async fn a_message_that_vanished_is_named(at: Arc<Harness>) {
    let (orders, audit) = (at.orders(), at.audit());
    let sent = message(&orders).given();
    let from_api = sent.id();
    at.write(api().sends(sent)).await;
    let cause = MessageId::new();
    let created = message(&audit);
    let from_unit = created.id();
    let unit = broker(&orders, cause).sends(created);
    at.write(unit.records(&orders, cause).tells_what_it_sent())
        .await;
    let postponed = postpones(&at, &audit).await;
    assert_eq!(accounts(&at).await.missing_count(), 0);
    for endpoint in [&orders, &audit] {
        for claimed in at.claim(endpoint).await {
            at.settle([Settle::Delete(claimed.row)]).await;
        }
    }
    let accounts = accounts(&at).await;
    assert_eq!(accounts.missing_count(), 3);
    let mut missing: Vec<_> = accounts
        .missing
        .iter()
        .map(|one| {
            (
                one.message,
                one.endpoint.as_str(),
                one.message_type.as_deref(),
            )
        })
        .collect();
    missing.sort();
    let mut expected = [
        (from_api, "orders", None),
        (from_unit, "audit", Some(TYPE)),
        (postponed, "audit", None),
    ];
    expected.sort();
    assert_eq!(missing, expected);
}

/// To another endpoint, under another identity, or to nowhere.
pub async fn a_redriven_message_is_followed_to_where_it_went(at: Arc<Harness>) {
    let (orders, audit) = (at.orders(), at.audit());
    dies(&at, &orders, "no", None).await;
    let new = NewOperation {
        who: "ada".to_owned(),
        why: String::new(),
        verb: Verb::Redrive {
            to: Some("audit".to_owned()),
        },
        selected: Selected::DeadLetters(Box::default()),
        pace: Pace::default(),
    };
    let begun = at.admin.begin_operation(&new).await;
    let id = begun.expect("it begins").expect("one is meant").id;
    let taken = at.admin.take_wheel(id, "ada", HOUR).await;
    let epoch = taken.expect("it is answered").expect("nobody drives").epoch;
    let wheel = Wheel {
        id,
        epoch,
        lease: HOUR,
    };
    at.admin.step(wheel, 10).await.expect("a step is made");
    assert_eq!(line(&at, &orders).await.moved, 1);
    assert_eq!(line(&at, &audit).await.pending, 1);

    let edited = dies(&at, &orders, "no", None).await;
    let filter = DeadLetterFilter {
        id: Some(edited),
        ..DeadLetterFilter::any()
    };
    let found = at.admin.find_dead_letters(&filter, Page::latest(1)).await;
    let before = found.expect("it is shown").remove(0).envelope.body;
    let edit = Edit {
        id: edited,
        message: MessageId::new(),
        after: before.clone(),
        before,
    };
    does(&at, Action::EditDeadLetter(edit)).await;
    let expected = AccountLine {
        accepted: 2,
        created: 1,
        moved: 2,
        pending: 1,
        ..empty(&orders)
    };
    assert_eq!(line(&at, &orders).await, expected);

    let lost = dies(&at, &orders, "no", None).await;
    does(&at, Action::RedriveDeadLetters(vec![lost])).await;
    for claimed in at.claim(&orders).await {
        at.settle([Settle::Delete(claimed.row)]).await;
    }
    assert_eq!(line(&at, &orders).await.missing, 1);
}

/// The accounts are whole from the youngest on that was swept.
pub async fn what_a_sweep_removed_is_not_missed(at: Arc<Harness>) {
    let orders = at.orders();
    let handles = async |count: u64| {
        for _ in 0..count {
            let id = MessageId::new();
            at.write(broker(&orders, id).records(&orders, id)).await;
        }
    };
    handles(3).await;
    let whole = accounts(&at).await;
    assert_eq!((whole.since.as_micros(), whole.missing_count()), (0, 0));
    grow_older(Duration::from_millis(5)).await;
    let retention = Retention {
        inbox: HOUR,
        history: Duration::ZERO,
        ..Retention::default()
    };
    let swept = at.store.sweep(&retention).await.expect("it is swept");
    assert_eq!((swept.inbox, swept.history), (0, 3));
    let rest = accounts(&at).await;
    assert!(rest.since.as_micros() > 0);
    assert_eq!((rest.lines, rest.missing), (vec![], vec![]));
    grow_older(Duration::from_millis(5)).await;
    handles(2).await;
    postpones(&at, &orders).await;
    assert_eq!(line(&at, &orders).await.handled, 2);
    assert_eq!(line(&at, &orders).await.accepted, 3);
    let claimed = at.claim_one(&orders).await;
    at.settle([Settle::Delete(claimed.row)]).await;
    assert_eq!(accounts(&at).await.missing_count(), 1);
}

/// Their units leave no history.
pub async fn endpoints_are_left_out_of_the_accounts_where_asked(at: Arc<Harness>) {
    for endpoint in [at.orders(), at.audit()] {
        at.write(broker(&endpoint, MessageId::new())).await;
    }
    assert_eq!(accounts(&at).await.missing_count(), 2);
    let rest = at.admin.accounts(&["orders".to_owned()]).await;
    let rest = rest.expect("the accounts are shown");
    let named: Vec<_> = rest
        .missing
        .iter()
        .map(|one| one.endpoint.as_str())
        .collect();
    assert_eq!((named, rest.lines.len()), (vec!["audit"], 1));
    let without = ["orders".to_owned(), "audit".to_owned()];
    let none = at.admin.accounts(&without).await;
    assert!(none.expect("the accounts are shown").lines.is_empty());
}
