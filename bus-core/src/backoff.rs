//! Waiting longer after each failure, and one log line per outage.

use std::error::Error;
use std::time::Duration;

use crate::chance;
use crate::error::chain;
use crate::sync::time::{Instant, sleep};

/// The first pause.
const FIRST: Duration = Duration::from_millis(20);
/// The longest pause: short, because a database that is back should be used within a second.
const LONGEST: Duration = Duration::from_secs(1);

/// Counts one outage of one thing.
#[derive(Debug)]
pub struct Backoff {
    what: &'static str,
    since: Option<Instant>,
    pause: Duration,
}

impl Backoff {
    /// Starts without a failure. `what` is the call, for the log.
    pub fn new(what: &'static str) -> Self {
        Self {
            what,
            since: None,
            pause: FIRST,
        }
    }

    /// Notes a failure (the first of an outage is logged) and waits.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn failed(&mut self, error: &(dyn Error + Send + Sync + 'static)) {
        if self.since.is_none() {
            self.since = Some(Instant::now());
            tracing::warn!(
                what = self.what,
                error = chain(error),
                "failed; trying again"
            );
        }
        let pause = jittered(self.pause);
        self.pause = (self.pause * 2).min(LONGEST);
        sleep(pause).await;
    }

    /// Notes a success; the end of an outage is logged.
    pub fn ended(&mut self) {
        if let Some(since) = self.since.take() {
            let seconds = since.elapsed().as_secs_f64();
            tracing::info!(what = self.what, seconds, "works again");
        }
        self.pause = FIRST;
    }
}

/// Shortens a pause by up to a half, so that hosts which failed together do not return together.
pub fn jittered(pause: Duration) -> Duration {
    pause.mul_f64(1.0 - chance::share() / 2.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Fails so often, and returns how long each pause was.
    async fn pauses(backoff: &mut Backoff, count: usize) -> Vec<Duration> {
        let mut all = Vec::with_capacity(count);
        for _ in 0..count {
            let begun = Instant::now();
            backoff.failed(&std::fmt::Error).await;
            all.push(begun.elapsed());
        }
        all
    }

    /// Timers are as fine as a millisecond.
    fn is_about(pause: Duration, whole: Duration) -> bool {
        let fine = Duration::from_millis(1);
        pause >= whole / 2 && pause <= whole + fine
    }

    #[tokio::test(start_paused = true)]
    async fn each_pause_is_twice_as_long_up_to_the_longest_and_success_begins_anew() {
        let mut backoff = Backoff::new("test");
        for _ in 0..2 {
            let mut whole = FIRST;
            for pause in pauses(&mut backoff, 9).await {
                assert!(is_about(pause, whole), "{pause:?} of {whole:?}");
                whole = (whole * 2).min(LONGEST);
            }
            assert_eq!(whole, LONGEST);
            assert!(backoff.since.is_some(), "it is one outage");
            backoff.ended();
            assert!(backoff.since.is_none());
        }
    }

    #[test]
    fn a_pause_is_shortened_by_up_to_a_half_and_by_another_share_each_time() {
        let (whole, count) = (Duration::from_secs(1), 200);
        let all: Vec<_> = (0..count).map(|_| jittered(whole)).collect();
        assert!(all.iter().all(|one| *one >= whole / 2 && *one <= whole));
        // That none of 200 is in one of these fifths of what is possible happens once in 10^19 runs.
        assert!(all.iter().any(|one| *one < whole * 6 / 10), "{all:?}");
        assert!(all.iter().any(|one| *one > whole * 9 / 10), "{all:?}");
    }
}
