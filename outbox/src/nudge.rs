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
