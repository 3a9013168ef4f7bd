//! A dead letter whose key waits: its stub holds its place in line.

use std::sync::Arc;
use std::time::Duration;

use sagabus_core::admin::{Action, AuditFilter, Change, Page, RowFilter};
use sagabus_core::envelope::Envelope;
use sagabus_core::error::StoreError;
use sagabus_core::headers;
use sagabus_core::id::MessageId;
use sagabus_core::store::{ClaimedRow, Retention};
use sagabus_core::unit_of_work::{
    DeadLetter, KeyAfterDeath, Outcome, Reason, RowKey, Settle, Start,
};

use super::build::{api, attempts, broker, dead_letter, message, row};
use super::harness::{HOUR, Harness, instance};
use crate::wait::{eventually, grow_older};

/// A message that died and holds its key.
fn held(at: &Harness, envelope: &Envelope, key: &str) -> DeadLetter {
    DeadLetter {
        key: Some(key.to_owned()),
        key_after: KeyAfterDeath::Waits,
        ..dead_letter(&at.parcels().name, envelope)
    }
}

/// Sends messages of a key, each in a group of its own.
async fn send(at: &Harness, key: &str, count: usize) -> Vec<MessageId> {
    let mut ids = Vec::new();
    for _ in 0..count {
        let one = message(&at.parcels()).keyed(key);
        ids.push(one.id());
        at.write(api().sends(one)).await;
    }
    ids
}

/// Gives up a claimed row.
async fn give_up(at: &Harness, one: &ClaimedRow) {
    let key = one.key.as_deref().expect("it was sent with a key");
    let dead = held(at, &one.envelope, key);
    at.write(row(one.row).gives_up(dead)).await;
}

/// Gives up what a broker brought.
async fn give_up_brought(at: &Harness, key: &str) -> Envelope {
    let envelope = message(&at.parcels()).envelope().clone();
    let dead = held(at, &envelope, key);
    at.write(broker(&at.parcels(), envelope.id).gives_up(dead))
        .await;
    envelope
}

async fn nothing_moves(at: &Harness) {
    let rows = at.claim(&at.parcels()).await;
    assert!(rows.is_empty(), "a dead letter holds the key: {rows:#?}");
}

/// Waits for the next row of the ordered endpoint, answers it, and returns its message.
async fn handle_next(at: &Harness) -> MessageId {
    let look = || async { at.claim(&at.parcels()).await.pop() };
    let (next, _) = eventually("row of a key that goes on", look).await;
    at.write(row(next.row)).await;
    next.envelope.id
}

/// Returns the ids of the open dead letters, the oldest first.
async fn open(at: &Harness) -> Vec<i64> {
    let dead = at.admin.dead_letters(100).await;
    let dead = dead.expect("dead letters are shown");
    dead.iter().rev().map(|one| one.id).collect()
}

async fn change(at: &Harness, action: Action) -> Vec<i64> {
    let change = Change {
        who: "ada".to_owned(),
        why: "repaired".to_owned(),
        action,
    };
    at.admin.change(&change).await.expect("it is a good change")
}

/// It comes first again, as if it had never been tried, and then they come in their order.
pub async fn a_dead_letter_holds_its_key_until_it_is_redriven(at: Arc<Harness>) {
    let ids = send(&at, "a", 3).await;
    let head = at.claim_one(&at.parcels()).await;
    give_up(&at, &head).await;
    nothing_moves(&at).await;
    let vitals = at.admin.vitals().await.expect("vitals are shown");
    assert_eq!(vitals.held, 1);
    assert!(at.is_blocked(&at.parcels(), "a").await);
    let counts = at.counts().await;
    assert_eq!((counts.outbox, counts.dead_letters), (2, 1));
    let rows = at.admin.rows(&RowFilter::default(), Page::oldest(10)).await;
    let rows = rows.expect("rows can be read");
    let stubs: Vec<_> = rows.iter().map(|one| (one.id, one.is_stub())).collect();
    assert_eq!(stubs[0], (head.row.id, true));
    assert!(rows[0].envelope.body.is_empty() && stubs[1..].iter().all(|(_, is)| !is));
    let destinations = at.admin.destinations().await.expect("they can be read");
    assert_eq!((destinations[0].waiting, destinations[0].due), (2, 0));
    send(&at, "b", 1).await;
    assert_eq!(at.claim(&at.parcels()).await.len(), 1, "other keys flow");

    let dead = open(&at).await;
    assert_eq!(
        change(&at, Action::RedriveDeadLetters(dead.clone())).await,
        dead
    );
    let again = at.claim_one(&at.parcels()).await;
    assert_eq!(again.envelope, head.envelope);
    assert_eq!(
        (again.row.id, again.key.as_deref()),
        (head.row.id, Some("a"))
    );
    assert_eq!((again.starts, again.failures), (1, 0));
    assert!(
        again.row.epoch > head.row.epoch,
        "nobody's claim is repeated"
    );
    assert!(again.attempts.is_empty() && again.timer.is_none() && !again.is_expired);
    nothing_moves(&at).await;
    at.write(row(again.row)).await;
    assert_eq!([handle_next(&at).await, handle_next(&at).await], ids[1..]);
    assert!(!at.is_blocked(&at.parcels(), "a").await);
    assert_eq!(at.counts().await.dead_letters, 0);
}

/// At once, not when somebody looks again.
pub async fn a_discarded_dead_letter_lets_its_key_go_on(at: Arc<Harness>) {
    let ids = send(&at, "a", 3).await;
    let head = at.claim_one(&at.parcels()).await;
    give_up(&at, &head).await;
    nothing_moves(&at).await;
    let dead = open(&at).await;
    assert_eq!(
        change(&at, Action::DiscardDeadLetters(dead.clone())).await,
        dead
    );
    assert_eq!([handle_next(&at).await, handle_next(&at).await], ids[1..]);
    assert_eq!(at.counts().await.outbox, 0);

    // Opened again, it has lost its place: its key went on.
    assert_eq!(
        change(&at, Action::RestoreDeadLetters(dead.clone())).await,
        dead
    );
    let later = send(&at, "a", 1).await;
    assert_eq!(
        change(&at, Action::RedriveDeadLetters(dead.clone())).await,
        dead
    );
    assert_eq!(
        [handle_next(&at).await, handle_next(&at).await],
        [later[0], ids[0]]
    );
}

/// The broker's later messages of the key are taken over behind it.
pub async fn what_a_broker_brought_holds_its_key_too(at: Arc<Harness>) {
    let first = give_up_brought(&at, "a").await;
    assert!(at.is_blocked(&at.parcels(), "a").await);
    assert!(!at.is_blocked(&at.parcels(), "b").await);
    assert_eq!(at.counts().await.outbox, 0);
    let second = message(&at.parcels()).keyed("a").leased();
    let id = second.id();
    let leased = at.write(broker(&at.parcels(), id).sends(second)).await;
    assert_eq!(leased, [None], "it is behind");
    nothing_moves(&at).await;
    change(&at, Action::RedriveDeadLetters(open(&at).await)).await;
    assert_eq!(
        [handle_next(&at).await, handle_next(&at).await],
        [first.id, id]
    );
}

/// In the order in which they stand, whatever order they are named in.
pub async fn many_dead_letters_of_a_key_are_redriven_in_order(at: Arc<Harness>) {
    let mut wanted = Vec::new();
    for _ in 0..5 {
        wanted.push(give_up_brought(&at, "a").await.id);
    }
    wanted.extend(send(&at, "a", 2).await);
    nothing_moves(&at).await;
    let dead = open(&at).await;
    change(&at, Action::DiscardDeadLetters(vec![dead[1]])).await;
    wanted.remove(1);
    nothing_moves(&at).await;
    change(
        &at,
        Action::RedriveDeadLetters(vec![dead[4], dead[2], dead[0]]),
    )
    .await;
    assert_eq!(
        [handle_next(&at).await, handle_next(&at).await],
        wanted[..2]
    );
    nothing_moves(&at).await;
    change(&at, Action::RedriveDeadLetters(vec![dead[3]])).await;
    for id in &wanted[2..] {
        assert_eq!(handle_next(&at).await, *id);
    }
    assert_eq!(at.counts().await.outbox, 0);
}

/// Where the endpoint says so, its key goes on; and where no order is promised, nobody waits.
pub async fn a_dead_letter_whose_key_goes_on_holds_nothing(at: Arc<Harness>) {
    let ids = send(&at, "a", 2).await;
    let head = at.claim_one(&at.parcels()).await;
    let dead = DeadLetter {
        key_after: KeyAfterDeath::GoesOn,
        ..held(&at, &head.envelope, "a")
    };
    at.write(row(head.row).gives_up(dead)).await;
    assert_eq!(handle_next(&at).await, ids[1]);

    let orders = at.orders();
    at.write(api().sends(message(&orders).keyed("a"))).await;
    let first = at.claim_one(&orders).await;
    let dead = DeadLetter {
        endpoint: orders.name.clone(),
        ..held(&at, &first.envelope, "a")
    };
    at.write(row(first.row).gives_up(dead)).await;
    assert!(!at.is_blocked(&orders, "a").await, "it stood in no line");
    assert_eq!(at.counts().await.outbox, 0);
}

/// Whoever had the row in hand before it became a stub comes too late.
pub async fn a_stub_is_in_nobodys_hands(at: Arc<Harness>) {
    let ids = send(&at, "a", 2).await;
    let head = at.claim_one(&at.parcels()).await;
    give_up(&at, &head).await;
    assert_eq!(at.extend(&[head.row], HOUR).await, 0);
    let release = |row: RowKey| Settle::Release {
        row,
        after: Duration::ZERO,
        attempts: Some(attempts(&["late"])),
        start: Start::Counted,
    };
    let park = |row: RowKey| Settle::Park {
        row,
        reason: Reason::Unroutable,
        attempts: Vec::new(),
    };
    for settle in [Settle::Delete(head.row), release(head.row), park(head.row)] {
        at.settle([settle]).await;
        assert!(at.is_blocked(&at.parcels(), "a").await);
        nothing_moves(&at).await;
    }
    assert_eq!(at.outcome(row(head.row)).await, Outcome::Duplicate);
    let all = Retention {
        inbox: Duration::ZERO,
        history: Duration::ZERO,
        tombstones: Duration::ZERO,
        ..Retention::default()
    };
    grow_older(Duration::from_millis(5)).await;
    at.store.sweep(&all).await.expect("a sweep is answered");
    nothing_moves(&at).await;
    change(&at, Action::RedriveDeadLetters(open(&at).await)).await;
    assert_eq!([handle_next(&at).await, handle_next(&at).await], ids[..]);
}

/// As often as it takes.
pub async fn a_redriven_message_that_dies_again_holds_its_key_again(at: Arc<Harness>) {
    let ids = send(&at, "a", 2).await;
    let mut head = at.claim_one(&at.parcels()).await;
    for _ in 0..3 {
        give_up(&at, &head).await;
        nothing_moves(&at).await;
        change(&at, Action::RedriveDeadLetters(open(&at).await)).await;
        let look = || async { at.claim(&at.parcels()).await.pop() };
        head = eventually("redriven message", look).await.0;
        assert_eq!(head.envelope.id, ids[0]);
    }
    at.write(row(head.row)).await;
    assert_eq!(handle_next(&at).await, ids[1]);
}

/// What lost has given up nothing, and what was done by somebody else holds nothing.
pub async fn a_loser_holds_no_key(at: Arc<Harness>) {
    let ids = send(&at, "a", 2).await;
    let head = at.claim_one(&at.parcels()).await;
    let loser = row(head.row)
        .moves(&instance("none"), 3)
        .gives_up(held(&at, &head.envelope, "a"));
    assert_eq!(at.outcome(loser).await, Outcome::Conflict);
    at.write(row(head.row)).await;
    let late = row(head.row).gives_up(held(&at, &head.envelope, "a"));
    assert_eq!(at.outcome(late).await, Outcome::Duplicate);
    assert_eq!(handle_next(&at).await, ids[1]);

    // In one group with winners and losers, each has its own.
    let brought = message(&at.parcels()).envelope().clone();
    let known = give_up_brought(&at, "x").await;
    let report = at
        .commit([
            broker(&at.parcels(), known.id).gives_up(held(&at, &known, "y")),
            broker(&at.parcels(), brought.id).gives_up(held(&at, &brought, "z")),
            api().moves(&instance("none"), 3),
        ])
        .await;
    let (duplicate, committed) = (Outcome::Duplicate, Outcome::Committed);
    assert_eq!(report.outcomes, [duplicate, committed, Outcome::Conflict]);
    let mut blocked = Vec::new();
    for key in ["x", "y", "z"] {
        blocked.push(at.is_blocked(&at.parcels(), key).await);
    }
    assert_eq!(blocked, [true, false, true]);
}

/// They are looked at once and put off, like those behind any row that does not move.
pub async fn many_that_wait_behind_a_dead_letter_leave_others_flowing(at: Arc<Harness>) {
    give_up_brought(&at, "a").await;
    let waiting = (0..300).fold(api(), |plan, _| {
        plan.sends(message(&at.parcels()).keyed("a"))
    });
    at.write(waiting).await;
    for _ in 0..3 {
        let other = send(&at, "b", 1).await;
        assert_eq!(handle_next(&at).await, other[0]);
    }
    nothing_moves(&at).await;
    assert_eq!(at.counts().await.outbox, 300);
}

/// What an operator says is heard also where a dead letter holds the key.
pub async fn an_operators_message_stands_in_no_line(at: Arc<Harness>) {
    give_up_brought(&at, "k").await;
    let parcels = at.parcels();
    let mut envelope = message(&parcels).envelope().clone();
    envelope.headers.set(headers::KEY, "k");
    let send = |endpoint: &str| Change {
        who: "ada".to_owned(),
        why: "it hangs".to_owned(),
        action: Action::SendMessage {
            endpoint: endpoint.to_owned(),
            envelope: Box::new(envelope.clone()),
        },
    };
    let nowhere = at.admin.change(&send("nowhere")).await;
    assert!(nowhere.expect("the store answers").is_empty());
    let ids = at.admin.change(&send(parcels.name.as_str())).await;
    let ids = ids.expect("the change is carried out");
    let row = at.claim_one(&parcels).await;
    assert_eq!((vec![row.row.id], &row.envelope), (ids, &envelope));
    assert_eq!(row.key.as_deref(), Some("k"));
    assert_eq!((row.starts, row.failures), (1, 0));
    let audit = at
        .admin
        .audit(&AuditFilter::default(), Page::latest(10))
        .await;
    let audit = audit.expect("the audit is shown");
    assert_eq!(audit.len(), 1, "what changed nothing leaves no entry");
    assert_eq!(
        (&*audit[0].action, &*audit[0].why),
        ("send_message", "it hangs")
    );
    let told = &audit[0].detail[0];
    assert_eq!(told["message_id"], envelope.id.to_string());
    assert_eq!(told["destination"], format!("@{}", parcels.name));
    let mut hostile = envelope.clone();
    hostile.headers.set("note", "a\u{0}b");
    let hostile = Change {
        action: Action::SendMessage {
            endpoint: parcels.name.to_string(),
            envelope: Box::new(hostile),
        },
        ..send("")
    };
    let refused = at.admin.change(&hostile).await;
    assert!(
        matches!(refused, Err(StoreError::Refused(_))),
        "{refused:?}"
    );
}
