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
