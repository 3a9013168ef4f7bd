//! Bounded waiting on a condition: the only place of the suites that lets time pass.

use std::future::Future;
use std::time::Duration;

use tokio::time::Instant;

/// How long a condition may take to come true. Far above what any of them needs, because a busy
/// machine must not fail a test that is right.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// How long to wait between two looks: short against every lease and delay of the suites.
const PACE: Duration = Duration::from_millis(5);

/// Asks until `look` has an answer, and returns it with the time that passed since the first look.
///
/// # Panics
/// When there is none after [`PATIENCE`]; the message names `what` was awaited.
pub async fn eventually<T, F>(what: &str, look: impl FnMut() -> F) -> (T, Duration)
where
    F: Future<Output = Option<T>>,
{
    eventually_within(PATIENCE, what, look).await
}

/// As [`eventually`], for what waits for others on its way: members of a cluster that come back, a
/// group that waits for one that died.
///
/// # Panics
/// When there is no answer after `time`; the message names `what` was awaited.
pub async fn eventually_within<T, F>(
    time: Duration,
    what: &str,
    mut look: impl FnMut() -> F,
) -> (T, Duration)
where
    F: Future<Output = Option<T>>,
{
    let start = Instant::now();
    loop {
        if let Some(found) = look().await {
            return (found, start.elapsed());
        }
        assert!(start.elapsed() < time, "after {time:?} still no {what}");
        tokio::time::sleep(PACE).await;
    }
}

/// Lets `time` pass by the clock that databases use. For what must become old, not for what is
/// awaited.
pub async fn grow_older(time: Duration) {
    tokio::time::sleep(time).await;
}
