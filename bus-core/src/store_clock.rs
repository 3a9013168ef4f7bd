//! The database's time, as a host knows it without asking: what was read last, and what passed
//! since.

use std::sync::{Mutex, PoisonError};

use tokio::time::Instant;

use crate::clock::Timestamp;

/// The database's clock. Late by the time that its last reading took to arrive, never early.
#[derive(Debug)]
pub(crate) struct StoreClock(Mutex<(Timestamp, Instant)>);

impl StoreClock {
    /// Starts with what the database just said.
    pub(crate) fn new(now: Timestamp) -> Self {
        Self(Mutex::new((now, Instant::now())))
    }

    /// Notes what the database just said.
    pub(crate) fn learn(&self, now: Timestamp) {
        let mut read = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *read = (now, Instant::now());
    }

    /// Returns what the database would say.
    pub(crate) fn now(&self) -> Timestamp {
        let (said, at) = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        said.plus(at.elapsed())
    }
}
