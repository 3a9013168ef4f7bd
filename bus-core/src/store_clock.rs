//! The database's time, as a host knows it without asking: what was read last, and what passed
//! since.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::clock::Timestamp;

/// The database's clock. Late by the time that its last reading took to arrive, never early.
#[derive(Debug)]
pub(crate) struct StoreClock(Mutex<Reading>);

#[derive(Clone, Copy, Debug)]
struct Reading {
    said: Timestamp,
    at: Instant,
    tried: Instant,
}

impl StoreClock {
    /// Starts with what the database just said.
    pub(crate) fn new(now: Timestamp) -> Self {
        let at = Instant::now();
        Self(Mutex::new(Reading {
            said: now,
            at,
            tried: at,
        }))
    }

    /// Notes what the database just said.
    pub(crate) fn learn(&self, now: Timestamp) {
        self.with(|read| (read.said, read.at) = (now, Instant::now()));
    }

    /// Notes that the database is about to be asked.
    pub(crate) fn tried(&self) {
        self.with(|read| read.tried = Instant::now());
    }

    /// Returns what the database would say.
    pub(crate) fn now(&self) -> Timestamp {
        self.with(|read| read.said.plus(read.at.elapsed()))
    }

    /// Returns how long ago the database was last asked.
    pub(crate) fn since_tried(&self) -> Duration {
        self.with(|read| read.tried.elapsed())
    }

    /// Returns how long ago it last answered.
    pub(crate) fn since_read(&self) -> Duration {
        self.with(|read| read.at.elapsed())
    }

    fn with<T>(&self, work: impl FnOnce(&mut Reading) -> T) -> T {
        work(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn it_goes_on_from_what_was_read_last() {
        let clock = StoreClock::new(Timestamp::from_micros(1_000_000));
        tokio::time::advance(Duration::from_secs(5)).await;
        assert_eq!(clock.now(), Timestamp::from_micros(6_000_000));
        assert_eq!(clock.since_read(), Duration::from_secs(5));
        // The database's clock was set back: it decides all the same.
        clock.tried();
        clock.learn(Timestamp::from_micros(2_000_000));
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(clock.now(), Timestamp::from_micros(3_000_000));
        assert_eq!(clock.since_tried(), Duration::from_secs(1));
    }
}
