//! Looks for messages whose commit nobody will announce.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use sagabus_core::Lifecycle;
use tokio::time::{Instant, sleep};

/// The first look comes soon: most transactions commit right after the last message.
const FIRST: Duration = Duration::from_millis(1);
/// Later looks. Below the 50 ms within which a message is to leave, with room for the claim.
const PACE: Duration = Duration::from_millis(20);
/// After so long a transaction is left to the poll.
const WATCHED: Duration = Duration::from_secs(1);

/// Wakes the hosts of a store again and again for a second after a stranger's transaction wrote
/// messages. However many transactions there are, one task does it.
#[derive(Clone)]
pub struct Nudger(Arc<Shared>);

struct Shared {
    wake: Box<dyn Fn() + Send + Sync>,
    watch: Mutex<Watch>,
}

#[derive(Debug, Default)]
struct Watch {
    /// Until when to look; `None` while no task runs.
    until: Option<Instant>,
    /// How long to wait before the next look.
    pause: Duration,
}

impl Nudger {
    /// Makes one that calls `wake`.
    pub(crate) fn new(wake: impl Fn() + Send + Sync + 'static) -> Self {
        Self(Arc::new(Shared {
            wake: Box::new(wake),
            watch: Mutex::default(),
        }))
    }

    /// Looks from now on, for a second.
    pub(crate) fn start(&self, lifecycle: &Lifecycle) {
        let mut watch = self.lock();
        let is_running = watch.until.is_some();
        *watch = Watch {
            until: Some(Instant::now() + WATCHED),
            pause: FIRST,
        };
        drop(watch);
        if !is_running {
            let guard = Running(self.clone());
            lifecycle.spawn(async move { guard.run().await });
        }
    }

    /// Returns the pause before the next look; `None` when the time is over.
    fn next(&self) -> Option<Duration> {
        let mut watch = self.lock();
        if watch.until? < Instant::now() {
            watch.until = None;
            return None;
        }
        let pause = watch.pause;
        watch.pause = (pause * 2).min(PACE);
        Some(pause)
    }

    fn lock(&self) -> MutexGuard<'_, Watch> {
        // The watch is whole after every assignment.
        self.0.watch.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The task's own hold: dropped at *force*, it lets the next host's task start.
struct Running(Nudger);

impl Running {
    async fn run(&self) {
        while let Some(pause) = self.0.next() {
            sleep(pause).await;
            (self.0.0.wake)();
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.lock().until = None;
    }
}

impl fmt::Debug for Nudger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Nudger").field(&*self.lock()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns when it woke since the first start, in milliseconds, and how many tasks are left.
    async fn woken(starts: &[u64]) -> (Vec<u128>, usize) {
        tokio::time::pause();
        let began = Instant::now();
        let woken = Arc::new(Mutex::new(Vec::new()));
        let noting = Arc::clone(&woken);
        let nudger = Nudger::new(move || {
            let mut woken = noting.lock().unwrap();
            woken.push(began.elapsed().as_millis());
        });
        let lifecycle = Lifecycle::new();
        for at in starts {
            tokio::time::sleep_until(began + Duration::from_millis(*at)).await;
            nudger.start(&lifecycle);
            assert_eq!(lifecycle.task_count(), 1, "one task looks for all");
        }
        sleep(WATCHED * 3).await;
        let woken = woken.lock().unwrap().clone();
        (woken, lifecycle.task_count())
    }

    #[tokio::test]
    async fn it_looks_soon_and_then_at_a_pace_for_a_second() {
        let (woken, left) = woken(&[0]).await;
        let paces = woken.iter().scan(0, |before, at| {
            let pace = at - *before;
            *before = *at;
            Some(pace)
        });
        let wanted = [1, 2, 4, 8, 16].into_iter().chain(std::iter::repeat(20));
        // A timer may be late by its granularity, never early.
        let is_kept = |(is, wanted): (u128, u128)| (wanted..=wanted + 2).contains(&is);
        assert!(paces.zip(wanted).all(is_kept), "{woken:?}");
        let last = woken.last().copied().unwrap_or_default();
        assert!((1000..=1025).contains(&last), "{last}");
        assert_eq!(left, 0, "it ends");
    }

    #[tokio::test]
    async fn a_later_transaction_is_looked_for_from_its_own_beginning() {
        let (woken, left) = woken(&[0, 700, 2500]).await;
        for began in [0, 700, 2500] {
            let looks = woken
                .iter()
                .filter(|at| **at > began && **at <= began + 1000);
            assert!(looks.count() >= 50, "{began}: {woken:?}");
        }
        let between = woken.iter().filter(|at| (1721..2500).contains(*at));
        assert_eq!(between.count(), 0, "{woken:?}");
        assert_eq!(left, 0, "it ends");
    }
}
