//! Futures dropped in the middle of a call.

use std::future::Future;
use std::pin::pin;
use std::task::Poll;

use sagabus_core::store::{Birth, Store, StoreAdmin};
use sagabus_core::{MessageId, Outcome};

use crate::sqlite_support::{Bench, message, moves, received};

/// Polls a future at most `polls` times, yielding in between, and drops it.
pub(crate) async fn poll_for<F: Future>(polls: usize, future: F) -> Option<F::Output> {
    let mut future = pin!(future);
    let mut left = polls;
    std::future::poll_fn(|cx| {
        if let Poll::Ready(output) = future.as_mut().poll(cx) {
            return Poll::Ready(Some(output));
        }
        if left == 0 {
            return Poll::Ready(None);
        }
        left -= 1;
        Poll::Pending
    })
    .await
}

/// sqlx leaves a transaction open when a call is dropped, and what others write after it would be
/// answered and lost.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dropped_commit_is_whole_or_nothing_and_loses_no_later_write() {
    const ROUNDS: usize = 300;
    let bench = Bench::new().await;
    let plain = bench.endpoint("plain");
    let mut n_cut = 0;
    let mut expected = 0;
    for round in 0..ROUNDS {
        let key = round.to_string();
        let mut unit = moves(received(plain, MessageId::new()), &key, 0);
        // Every third group has a loser, which takes the longer way.
        let mut units = vec![moves(received(plain, MessageId::new()), "none", 5)];
        unit.outgoing.push(message(&key));
        units.insert(0, unit);
        units.truncate(if round % 3 == 0 { 2 } else { 1 });
        let group = bench.group(Birth::Available, units);
        if poll_for(round % 4, bench.store.commit(&group))
            .await
            .is_none()
        {
            n_cut += 1;
        }
        let later = vec![received(plain, MessageId::new())];
        assert_eq!(bench.outcomes(later).await, [Outcome::Committed]);
        // Again, as after a lost answer: it is there already, or it is written now.
        let again = bench.store.commit(&group).await.unwrap().outcomes[0];
        assert_ne!(again, Outcome::Conflict);
        expected += 2;
        let counts = bench.counts().await.unwrap();
        assert_eq!(
            (counts.inbox, counts.history, counts.outbox, counts.running),
            (expected, expected, expected / 2, expected / 2),
            "round {round}"
        );
    }
    // Those that were polled once cannot have ended.
    assert!(n_cut >= ROUNDS / 4, "only {n_cut} calls were cut");
    assert_eq!(
        bench
            .ask("select count(*) from pragma_foreign_key_check")
            .await,
        0
    );
}
