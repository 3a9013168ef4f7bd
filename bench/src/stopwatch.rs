//! Times that begin in one task and end in another.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};

/// Takes times against one beginning, which messages carry as a number.
#[derive(Debug)]
pub(crate) struct Stopwatch {
    beginning: Instant,
    taken: Mutex<Vec<Duration>>,
}

impl Stopwatch {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            beginning: Instant::now(),
            taken: Mutex::default(),
        })
    }

    /// Makes another one with the same beginning.
    pub(crate) fn again(&self) -> Arc<Self> {
        Arc::new(Self {
            beginning: self.beginning,
            taken: Mutex::default(),
        })
    }

    /// Returns the time, as a message carries it.
    pub(crate) fn now(&self) -> u64 {
        u64::try_from(self.beginning.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    /// Returns when it began, by the clock that all processes of a machine share.
    pub(crate) fn beginning(&self) -> u64 {
        let now = clock_gettime(ClockId::Monotonic);
        let now = Duration::new(
            now.tv_sec.unsigned_abs(),
            u32::try_from(now.tv_nsec).unwrap_or_default(),
        );
        u64::try_from(now.as_nanos())
            .unwrap_or(u64::MAX)
            .saturating_sub(self.now())
    }

    /// Notes how long ago that was.
    pub(crate) fn stop(&self, at: u64) {
        let took = self.beginning.elapsed();
        let took = took.saturating_sub(Duration::from_nanos(at));
        self.lock().push(took);
    }

    /// Waits until so many times are taken; `false` when that takes longer than `patience`.
    pub(crate) async fn wait_for(&self, count: usize, patience: Duration) -> bool {
        let deadline = Instant::now() + patience;
        while self.lock().len() < count {
            if Instant::now() > deadline {
                return false;
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        true
    }

    /// Returns the times so far.
    pub(crate) fn taken(&self) -> Vec<Duration> {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Duration>> {
        // Whole after every push.
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
