//! Bulk changes as rows: selected once, changed step by step, driven by one process at a time.

use std::sync::Arc;
use std::time::Duration;

use sagabus_core::admin::{
    Action, AuditEntry, AuditFilter, Command, DeadLetterFilter, DeadLetterStatus, NewOperation,
    OperationState, PAGE_MAX, Pace, Page, Redriven, Selected, StoredOperation, Told, Verb, Wheel,
};
use sagabus_core::error::StoreError;
use sagabus_core::unit_of_work::{DeadLetter, KeyAfterDeath, Settle, Start};

use super::build::{api, attempts, broker, dead_letter, message, row};
use super::harness::{HOUR, Harness};
use super::operators::{dies, does};
use crate::wait::grow_older;

const REDRIVE: Verb = Verb::Redrive { to: None };

/// All that is open, or what is named.
pub(super) fn new(verb: Verb, selected: Selected) -> NewOperation {
    NewOperation {
        who: "ada".to_owned(),
        why: "the gateway is back".to_owned(),
        verb,
        selected,
        pace: Pace {
            rate: Some(200),
            canary: 3,
            failures_percent_max: Some(10),
        },
    }
}

fn open() -> Selected {
    Selected::DeadLetters(Box::default())
}

pub(super) async fn begin(at: &Harness, verb: Verb, selected: Selected) -> StoredOperation {
    let begun = at.admin.begin_operation(&new(verb, selected)).await;
    begun
        .expect("an operation begins")
        .expect("something is meant")
}

pub(super) async fn take(at: &Harness, id: i64) -> Option<Wheel> {
    let taken = at.admin.take_wheel(id, "ada@desk", HOUR).await;
    let epoch = taken.expect("it is answered")?.epoch;
    Some(Wheel {
        id,
        epoch,
        lease: HOUR,
    })
}

pub(super) async fn wheel(at: &Harness, id: i64) -> Wheel {
    take(at, id).await.expect("nobody drives it")
}

/// Makes a step, again where somebody else was faster.
pub(super) async fn step(at: &Harness, wheel: Wheel, count: u32) -> Option<StoredOperation> {
    loop {
        match at.admin.step(wheel, count).await {
            Err(StoreError::Busy(_)) => tokio::task::yield_now().await,
            done => return done.expect("a step is made"),
        }
    }
}

async fn tell(at: &Harness, id: i64, command: Command) -> Option<StoredOperation> {
    let told = Told {
        id,
        command,
        who: "bob".to_owned(),
        why: "lunch".to_owned(),
    };
    at.admin.tell(&told).await.expect("it is answered")
}

async fn read(at: &Harness, id: i64) -> StoredOperation {
    let found = at.admin.operations(Some(id), Page::latest(10)).await;
    found.expect("operations are shown").remove(0)
}

pub(super) async fn audit(at: &Harness) -> Vec<AuditEntry> {
    let entries = at
        .admin
        .audit(&AuditFilter::default(), Page::oldest(100))
        .await;
    entries.expect("the audit is shown")
}

async fn with_status(at: &Harness, status: DeadLetterStatus) -> Vec<i64> {
    let filter = DeadLetterFilter {
        status: Some(status),
        ..DeadLetterFilter::any()
    };
    let found = at.admin.find_dead_letters(&filter, Page::oldest(500)).await;
    let found = found.expect("dead letters are shown");
    found.iter().map(|one| one.id).collect()
}

/// What matched when it began, in steps, each with its audit entry.
pub async fn an_operation_changes_what_was_found_and_nothing_later(at: Arc<Harness>) {
    let mut found = Vec::new();
    for n in 0..5 {
        let target = if n == 3 { at.audit() } else { at.orders() };
        found.push(dies(&at, &target, "no", None).await);
    }
    let begun = begin(&at, REDRIVE, open()).await;
    let later = dies(&at, &at.orders(), "no", None).await;
    assert_eq!((begun.total, begun.taken, begun.changed), (5, 0, 0));
    assert_eq!(begun.endpoints, ["audit", "orders"]);
    assert_eq!(begun.verb, REDRIVE);
    assert_eq!(begun.pace, new(REDRIVE, open()).pace);
    assert_eq!(read(&at, begun.id).await, begun);

    let wheel = wheel(&at, begun.id).await;
    let first = step(&at, wheel, 2).await.expect("it runs");
    assert_eq!((first.taken, first.changed), (2, 2));
    assert!(first.is_driven(at.admin.about().await.expect("it answers").now));
    let second = step(&at, wheel, 500).await.expect("it runs");
    assert_eq!(second.state, OperationState::Done);
    assert_eq!(
        (second.taken, second.changed, second.lease_until),
        (5, 5, None)
    );
    assert_eq!(step(&at, wheel, 500).await, None, "it is over");
    assert_eq!(with_status(&at, DeadLetterStatus::Redriven).await, found);
    assert_eq!(with_status(&at, DeadLetterStatus::Open).await, [later]);
    assert_eq!(at.counts().await.outbox, 5);

    let entries = audit(&at).await;
    let shown: Vec<_> = entries
        .iter()
        .map(|one| {
            assert_eq!((one.who.as_str(), one.operation), ("ada", Some(begun.id)));
            assert_eq!(one.why, "the gateway is back");
            let count = one.detail.as_array().map_or(0, Vec::len);
            (one.action.as_str(), count)
        })
        .collect();
    let redrive = "redrive_dead_letters";
    assert_eq!(shown, [("begin_operation", 1), (redrive, 2), (redrive, 3)]);
    assert_eq!(entries[0].detail[0]["total"], 5);
}

/// Nothing is written then, and nothing audited.
pub async fn an_operation_of_nothing_is_not_begun(at: Arc<Harness>) {
    for selected in [open(), Selected::Named(vec![7, 8]), Selected::Named(vec![])] {
        let begun = at
            .admin
            .begin_operation(&new(Verb::Discard, selected))
            .await;
        assert_eq!(begun.expect("it is answered"), None);
    }
    let shown = at.admin.operations(None, Page::latest(10)).await;
    assert_eq!(shown.expect("operations are shown"), []);
    assert_eq!(audit(&at).await, []);
}

/// Too many ids, and texts that no column takes.
pub async fn an_operation_that_cannot_be_stored_is_refused(at: Arc<Harness>) {
    let id = dies(&at, &at.orders(), "no", None).await;
    let too_many = (0..=i64::from(PAGE_MAX)).map(|n| id + n).collect();
    let nul = NewOperation {
        who: "a\0da".to_owned(),
        ..new(REDRIVE, open())
    };
    let long = NewOperation {
        why: "x".repeat(2000),
        ..new(REDRIVE, open())
    };
    let to = Verb::Redrive {
        to: Some("a\0b".to_owned()),
    };
    for refused in [
        new(REDRIVE, Selected::Named(too_many)),
        nul,
        long,
        new(to, open()),
    ] {
        let answer = at.admin.begin_operation(&refused).await;
        assert!(matches!(answer, Err(StoreError::Refused(_))), "{answer:?}");
    }
    let told = Told {
        id: 1,
        command: Command::Pause,
        who: "a\0da".to_owned(),
        why: String::new(),
    };
    let answer = at.admin.tell(&told).await;
    assert!(matches!(answer, Err(StoreError::Refused(_))), "{answer:?}");
    assert_eq!(audit(&at).await, []);
}

/// Whoever comes second waits for the end of the lease; then the first can change nothing more.
pub async fn one_process_at_a_time_drives_an_operation(at: Arc<Harness>) {
    for _ in 0..3 {
        dies(&at, &at.orders(), "no", None).await;
    }
    let begun = begin(&at, Verb::Discard, open()).await;
    let short = Duration::from_millis(30);
    let first = at.admin.take_wheel(begun.id, "first", short).await;
    let first = first.expect("it is answered").expect("nobody drives it");
    assert_eq!(first.driver.as_deref(), Some("first"));
    let old = Wheel {
        id: begun.id,
        epoch: first.epoch,
        lease: Duration::from_millis(30),
    };
    assert!(step(&at, old, 1).await.is_some());
    grow_older(Duration::from_millis(60)).await;
    let new = wheel(&at, begun.id).await;
    assert!(new.epoch > old.epoch);
    assert_eq!(take(&at, begun.id).await, None, "the lease holds");
    assert_eq!(step(&at, old, 1).await, None, "the wheel was taken away");
    let renewed = step(&at, new, 0).await.expect("it runs");
    assert_eq!((renewed.taken, renewed.state), (1, OperationState::Running));
    let done = step(&at, new, 2).await.expect("it runs");
    assert_eq!((done.taken, done.state), (3, OperationState::Done));
    assert_eq!(take(&at, begun.id).await, None, "it is over");
    assert_eq!(take(&at, begun.id + 1).await, None, "there is none");
}

/// Paused, it stands still for everybody; resumed, it goes on where it stood.
pub async fn a_paused_operation_stands_still_until_it_is_resumed(at: Arc<Harness>) {
    for _ in 0..4 {
        dies(&at, &at.orders(), "no", None).await;
    }
    let id = begin(&at, Verb::Discard, open()).await.id;
    let old = wheel(&at, id).await;
    assert!(step(&at, old, 1).await.is_some());
    assert_eq!(tell(&at, id, Command::Resume).await, None);
    let paused = tell(&at, id, Command::Pause).await.expect("it runs");
    assert_eq!(paused.state, OperationState::Paused);
    assert_eq!(
        (paused.note.as_deref(), paused.lease_until),
        (Some("lunch"), None)
    );
    assert_eq!(step(&at, old, 1).await, None);
    assert_eq!(take(&at, id).await, None);
    assert_eq!(tell(&at, id, Command::Pause).await, None);
    let resumed = tell(&at, id, Command::Resume).await.expect("it is paused");
    assert_eq!(
        (resumed.state, resumed.note),
        (OperationState::Running, None)
    );
    let new = wheel(&at, id).await;
    assert_eq!(step(&at, old, 1).await, None, "the old wheel is gone");
    let done = step(&at, new, 9).await.expect("it runs");
    assert_eq!((done.changed, done.state), (4, OperationState::Done));
    for command in [Command::Pause, Command::Resume, Command::Cancel] {
        assert_eq!(tell(&at, id, command).await, None, "{command:?}");
    }
    let entries = audit(&at).await;
    let said: Vec<_> = entries
        .iter()
        .filter(|one| one.who == "bob")
        .map(|one| (one.action.as_str(), one.operation))
        .collect();
    assert_eq!(
        said,
        [
            ("pause_operation", Some(id)),
            ("resume_operation", Some(id))
        ]
    );
}

/// Running or paused: what was not its turn stays as it is.
pub async fn a_cancelled_operation_leaves_the_rest(at: Arc<Harness>) {
    let mut ids = Vec::new();
    for _ in 0..4 {
        ids.push(dies(&at, &at.orders(), "no", None).await);
    }
    let id = begin(&at, Verb::Discard, open()).await.id;
    let driven = wheel(&at, id).await;
    step(&at, driven, 1).await.expect("it runs");
    let cancelled = tell(&at, id, Command::Cancel).await.expect("it runs");
    assert_eq!(cancelled.state, OperationState::Cancelled);
    assert_eq!(step(&at, driven, 9).await, None);
    assert_eq!(take(&at, id).await, None);
    assert_eq!(with_status(&at, DeadLetterStatus::Open).await, ids[1..]);

    let other = begin(&at, Verb::Discard, open()).await;
    assert_eq!(other.total, 3);
    tell(&at, other.id, Command::Pause).await.expect("it runs");
    let cancelled = tell(&at, other.id, Command::Cancel).await;
    assert_eq!(
        cancelled.expect("it is paused").state,
        OperationState::Cancelled
    );
}

/// It has its turn and is not changed; unknown ids are not even selected.
pub async fn what_was_dealt_with_meanwhile_is_passed_over(at: Arc<Harness>) {
    let mut ids = Vec::new();
    for _ in 0..3 {
        ids.push(dies(&at, &at.orders(), "no", None).await);
    }
    let named = vec![ids[2], ids[0], ids[0], 9999];
    let begun = begin(&at, Verb::Discard, Selected::Named(named)).await;
    assert_eq!(begun.total, 2);
    does(&at, Action::RedriveDeadLetters(vec![ids[0]])).await;
    let wheel = wheel(&at, begun.id).await;
    let done = step(&at, wheel, 9).await.expect("it runs");
    assert_eq!((done.taken, done.changed), (2, 1));
    assert_eq!(
        with_status(&at, DeadLetterStatus::Discarded).await,
        ids[2..]
    );

    let begun = begin(&at, Verb::Restore, Selected::Named(ids.clone())).await;
    let restore = take(&at, begun.id).await.expect("nobody drives it");
    let done = step(&at, restore, 9).await.expect("it runs");
    assert_eq!((done.taken, done.changed), (3, 1));
    assert_eq!(with_status(&at, DeadLetterStatus::Open).await, ids[1..]);
}

/// A message that died at the ordered endpoint and holds its key there.
async fn held(at: &Harness, key: &str) {
    let parcels = at.parcels();
    let envelope = message(&parcels).envelope().clone();
    let dead = DeadLetter {
        key: Some(key.to_owned()),
        key_after: KeyAfterDeath::Waits,
        attempts: attempts(&["no"]),
        ..dead_letter(&parcels.name, &envelope)
    };
    at.write(broker(&parcels, envelope.id).gives_up(dead)).await;
}

/// With the same identity; its key at the first endpoint waits no longer.
pub async fn dead_letters_are_redriven_to_another_endpoint(at: Arc<Harness>) {
    let parcels = at.parcels();
    held(&at, "k").await;
    let follower = message(&parcels).keyed("k");
    let expected = follower.id();
    at.write(api().sends(follower)).await;
    assert!(at.claim(&parcels).await.is_empty(), "the key waits");
    let dead = at
        .admin
        .dead_letters(1)
        .await
        .expect("it is shown")
        .remove(0);
    let to = Verb::Redrive {
        to: Some("audit".to_owned()),
    };
    let begun = begin(&at, to.clone(), open()).await;
    assert_eq!(begun.verb, to);
    let wheel = wheel(&at, begun.id).await;
    let done = step(&at, wheel, 9).await.expect("it runs");
    assert_eq!((done.changed, done.state), (1, OperationState::Done));
    let elsewhere = at.claim_one(&at.audit()).await;
    assert_eq!(elsewhere.envelope, dead.envelope);
    assert_eq!(elsewhere.key.as_deref(), Some("k"));
    assert_eq!(at.claim_one(&parcels).await.envelope.id, expected);
}

/// Waiting, failed and tried again, dead again; what is handled is none of these.
pub async fn what_became_of_redriven_messages_is_counted(at: Arc<Harness>) {
    let orders = at.orders();
    for _ in 0..5 {
        dies(&at, &orders, "no", None).await;
    }
    let bystander = message(&orders);
    let bystander_id = bystander.id();
    at.write(api().sends(bystander)).await;
    let id = begin(&at, REDRIVE, open()).await.id;
    let seen = async || at.admin.redriven(id).await.expect("they are counted");
    assert_eq!(seen().await, Redriven::default());
    let wheel = wheel(&at, id).await;
    step(&at, wheel, 4).await.expect("it runs");
    let waiting = Redriven {
        waiting: 4,
        ..Redriven::default()
    };
    assert_eq!(seen().await, waiting);

    let mut redriven = at.claim(&orders).await;
    redriven.retain(|one| one.envelope.id != bystander_id);
    at.settle([Settle::Delete(redriven[0].row)]).await;
    let failed = Settle::Release {
        row: redriven[1].row,
        after: HOUR,
        attempts: Some(attempts(&["no"])),
        start: Start::Counted,
    };
    at.settle([failed]).await;
    let again = DeadLetter {
        attempts: attempts(&["no"]),
        ..dead_letter(&orders.name, &redriven[2].envelope)
    };
    at.write(row(redriven[2].row).gives_up(again)).await;
    let expected = Redriven {
        waiting: 1,
        retrying: 1,
        died_again: 1,
    };
    assert_eq!(seen().await, expected);
    assert_eq!(
        at.admin.redriven(id + 1).await.expect("it is answered"),
        Redriven::default()
    );
}

/// From either end.
pub async fn operations_come_in_pages(at: Arc<Harness>) {
    dies(&at, &at.orders(), "no", None).await;
    let mut ids = Vec::new();
    for _ in 0..3 {
        ids.push(begin(&at, REDRIVE, open()).await.id);
    }
    for (page, mut expected) in [
        (Page::oldest(2), ids[..2].to_vec()),
        (Page::oldest(2).behind(Some(ids[1])), ids[2..].to_vec()),
        (Page::latest(2).behind(Some(ids[2])), ids[..2].to_vec()),
    ] {
        if page.first == sagabus_core::admin::First::Latest {
            expected.reverse();
        }
        let found = at.admin.operations(None, page).await;
        let found = found.expect("operations are shown");
        assert_eq!(found.iter().map(|one| one.id).collect::<Vec<_>>(), expected);
    }
}

/// Steps of one wheel at once, while an operator deals with the same dead letters: each is changed
/// once, and none is left.
pub async fn steps_at_once_change_each_dead_letter_once(at: Arc<Harness>) {
    let mut all = Vec::new();
    for _ in 0..40 {
        all.push(dies(&at, &at.orders(), "no", None).await);
    }
    let id = begin(&at, REDRIVE, open()).await.id;
    let wheel = wheel(&at, id).await;
    let steps = async || while step(&at, wheel, 3).await.is_some() {};
    let by_hand = async {
        let mut done = 0;
        for some in all.chunks(7) {
            done += changed_by_hand(&at, some).await;
        }
        done
    };
    let ((), (), by_hand) = tokio::join!(steps(), steps(), by_hand);
    let done = read(&at, id).await;
    assert_eq!((done.state, done.taken), (OperationState::Done, 40));
    assert_eq!(done.changed + by_hand, 40);
    assert_eq!(at.counts().await.outbox, 40);
}

async fn changed_by_hand(at: &Harness, ids: &[i64]) -> u64 {
    let change = sagabus_core::admin::Change {
        who: "eve".to_owned(),
        why: String::new(),
        action: Action::RedriveDeadLetters(ids.to_vec()),
    };
    loop {
        match at.admin.change(&change).await {
            Err(StoreError::Busy(_)) => tokio::task::yield_now().await,
            done => return done.expect("a change is carried out").len() as u64,
        }
    }
}
