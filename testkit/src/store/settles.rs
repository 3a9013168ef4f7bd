//! What becomes of a claimed row that no unit answers.

use std::sync::Arc;
use std::time::Duration;

use sagabus_core::id::MessageId;
use sagabus_core::store::ClaimedRow;
use sagabus_core::unit_of_work::{Attempt, Outcome, Reason, RowKey, Settle, Start};
use tokio::time::Instant;

use super::build::{api, attempts, broker, message};
use super::harness::{HOUR, Harness, instance};
use crate::wait::eventually;

/// Releases a row at once.
fn release(row: RowKey, attempts: Option<Vec<Attempt>>, start: Start) -> Settle {
    Settle::Release {
        row,
        after: Duration::ZERO,
        attempts,
        start,
    }
}

fn park(row: RowKey) -> Settle {
    Settle::Park {
        row,
        reason: Reason::Unroutable,
        attempts: attempts(&["no queue"]),
    }
}

/// Writes a row and claims it.
async fn claimed(at: &Harness) -> ClaimedRow {
    at.write(api().sends(message(&at.orders()))).await;
    at.claim_one(&at.orders()).await
}

/// It was sent: it is gone.
pub async fn deleting_removes_the_row(at: Arc<Harness>) {
    let row = claimed(&at).await;
    at.settle([Settle::Delete(row.row)]).await;
    assert_eq!(at.counts().await.outbox, 0);
}

/// A settle that comes too late is somebody else's row by now.
pub async fn a_settle_with_an_old_epoch_changes_nothing(at: Arc<Harness>) {
    let row = claimed(&at).await;
    let before = at.counts().await;
    for epoch in [0, 2] {
        let old = RowKey { epoch, ..row.row };
        at.settle([Settle::Delete(old)]).await;
        at.settle([release(old, Some(attempts(&["late"])), Start::GivenBack)])
            .await;
        at.settle([park(old)]).await;
        at.settle([Settle::StartSolo(old)]).await;
    }
    assert_eq!(at.counts().await, before);
    assert!(
        at.claim(&at.orders()).await.is_empty(),
        "it is still leased"
    );

    at.settle([release(row.row, None, Start::Counted)]).await;
    let again = at.claim_one(&at.orders()).await;
    assert_eq!((again.starts, again.failures, again.solo_starts), (2, 0, 0));
}

/// Not before its time, and with all that is known of its failures.
pub async fn a_released_row_comes_back_after_its_delay_with_its_attempts(at: Arc<Harness>) {
    let row = claimed(&at).await;
    let failed = attempts(&["timed out", "timed out again"]);
    let delay = Duration::from_millis(400);
    let started = Instant::now();
    at.settle([Settle::Release {
        row: row.row,
        after: delay,
        attempts: Some(failed.clone()),
        start: Start::Counted,
    }])
    .await;

    let look = || async { at.claim(&at.orders()).await.pop() };
    let (again, _) = eventually("row that was released", look).await;
    assert!(started.elapsed() >= delay, "{:?}", started.elapsed());
    assert_eq!(again.attempts, failed);
    assert_eq!(again.row.epoch, 2);
    // One claim, but two failures: starts are never fewer than failures.
    assert_eq!((again.failures, again.starts), (2, 3));
}

/// Attempts are replaced by the list that is given, or left alone.
pub async fn a_release_replaces_attempts_or_leaves_them(at: Arc<Harness>) {
    let mut row = claimed(&at).await;
    let first = attempts(&["one"]);
    let second = attempts(&["one", "two"]);
    let steps = [
        (Some(first.clone()), first),
        (None, attempts(&[])),
        (Some(second.clone()), second),
        (None, attempts(&[])),
    ];
    let mut known = Vec::new();
    for (given, _) in steps {
        at.settle([release(row.row, given.clone(), Start::Counted)])
            .await;
        known = given.unwrap_or(known);
        row = at.claim_one(&at.orders()).await;
        assert_eq!(row.attempts, known);
        assert_eq!(row.failures, i32::try_from(known.len()).expect("few"));
    }
    assert_eq!(row.starts, 5);
}

/// They are told with the failures, whether a row is released or written, and count as none.
pub async fn tries_that_cost_no_attempt_are_kept_and_count_no_failure(at: Arc<Harness>) {
    let row = claimed(&at).await;
    let mut tries = attempts(&["broken", "gateway is busy"]);
    tries[1].excused = 7;
    at.settle([release(row.row, Some(tries.clone()), Start::GivenBack)])
        .await;
    let again = at.claim_one(&at.orders()).await;
    assert_eq!(again.attempts, tries);
    assert_eq!((again.failures, again.starts), (1, 2));

    let copied = message(&at.orders()).failed_before(tries.clone());
    at.write(super::build::row(again.row).sends(copied)).await;
    let copy = at.claim_one(&at.orders()).await;
    assert_eq!(copy.attempts, tries);
    assert_eq!((copy.failures, copy.starts), (1, 2));
}

/// A planned stop costs no start, and no epoch is used twice.
pub async fn a_start_can_be_given_back(at: Arc<Harness>) {
    let mut row = claimed(&at).await;
    for round in 1..=3 {
        assert_eq!((row.starts, row.row.epoch), (1, round));
        at.settle([release(row.row, None, Start::GivenBack)]).await;
        row = at.claim_one(&at.orders()).await;
    }
}

/// Settled twice, because the first answer was lost, is settled once.
pub async fn settling_again_gives_back_no_second_start(at: Arc<Harness>) {
    let row = claimed(&at).await;
    let failed = Some(attempts(&["one", "two"]));
    at.settle([release(row.row, failed, Start::Counted)]).await;
    let row = at.claim_one(&at.orders()).await;
    assert_eq!((row.starts, row.failures), (3, 2));
    for _ in 0..3 {
        at.settle([release(row.row, None, Start::GivenBack)]).await;
    }
    let row = at.claim_one(&at.orders()).await;
    assert_eq!((row.starts, row.failures), (3, 2));
    for _ in 0..2 {
        at.settle([Settle::Delete(row.row)]).await;
    }
    assert_eq!(at.counts().await.outbox, 0);
}

/// It is kept, and nobody tries it.
pub async fn a_parked_row_waits_for_an_operator(at: Arc<Harness>) {
    let row = claimed(&at).await;
    at.settle([park(row.row)]).await;
    let counts = at.counts().await;
    assert_eq!((counts.outbox, counts.parked), (0, 1));
    assert!(at.claim(&at.orders()).await.is_empty());
    assert_eq!(at.extend(&[row.row], HOUR).await, 0, "it is not ours");
    let late = super::row(row.row).sends(message(&at.orders()));
    assert_eq!(at.outcome(late).await, Outcome::Duplicate);
    assert_eq!(at.counts().await.parked, 1);
}

/// A row that ended its host before runs alone, and that is counted apart.
pub async fn starting_alone_is_counted(at: Arc<Harness>) {
    let row = claimed(&at).await;
    at.settle([Settle::StartSolo(row.row)]).await;
    assert!(
        at.claim(&at.orders()).await.is_empty(),
        "it is still leased"
    );
    at.settle([release(row.row, None, Start::Counted)]).await;
    let again = at.claim_one(&at.orders()).await;
    assert_eq!((again.solo_starts, again.starts), (1, 2));
}

/// It has not killed its host, whatever its earlier starts did.
pub async fn a_start_alone_that_ended_with_a_word_is_forgotten(at: Arc<Harness>) {
    let mut row = claimed(&at).await;
    for _ in 0..2 {
        at.settle([Settle::StartSolo(row.row)]).await;
        at.settle([release(row.row, None, Start::Counted)]).await;
        row = at.claim_one(&at.orders()).await;
    }
    assert_eq!(row.solo_starts, 2, "of these nothing was heard");
    at.settle([Settle::StartSolo(row.row)]).await;
    // Whoever hears nothing settles again.
    for _ in 0..2 {
        let failed = Some(attempts(&["it failed, and said so"]));
        at.settle([release(row.row, failed, Start::Counted)]).await;
    }
    let again = at.claim_one(&at.orders()).await;
    assert_eq!((again.solo_starts, again.failures), (0, 1));
}

/// Settles belong to no unit: they hold although every unit loses.
pub async fn settles_hold_whatever_becomes_of_the_units(at: Arc<Harness>) {
    let orders = at.orders();
    let known = MessageId::new();
    at.write(broker(&orders, known)).await;
    let row = claimed(&at).await;
    let mut group = at.group([
        broker(&orders, known),
        broker(&orders, MessageId::new()).moves(&instance("none"), 2),
    ]);
    group.settles.push(Settle::Delete(row.row));
    let report = at.commit_group(&group).await;
    assert_eq!(report.outcomes, [Outcome::Duplicate, Outcome::Conflict]);
    assert_eq!(at.counts().await.outbox, 0);
}

/// A window of the relay: many rows of every kind in one call.
pub async fn many_rows_are_settled_in_one_call(at: Arc<Harness>) {
    let orders = at.orders();
    let plan = (0..90).fold(api(), |plan, _| plan.sends(message(&orders)));
    at.write(plan).await;
    let rows = at.claim(&orders).await;
    assert_eq!(rows.len(), 90);
    let settles = rows.iter().enumerate().map(|(index, one)| match index % 3 {
        0 => Settle::Delete(one.row),
        1 => release(one.row, Some(attempts(&["again"])), Start::Counted),
        _ => park(one.row),
    });
    at.settle(settles.rev()).await;
    let counts = at.counts().await;
    assert_eq!((counts.outbox, counts.parked), (30, 30));
    assert_eq!(at.claim(&orders).await.len(), 30);
}
