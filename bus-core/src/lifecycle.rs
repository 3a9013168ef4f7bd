//! Every task has an owner: the only place that spawns.

use std::future::Future;
use std::io;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::sync::time;

/// Owns a host's tasks and tells them when to stop.
///
/// Stopping has two steps: *drain* (take nothing new, finish what is in hand) and *force* (let go
/// now). What was in hand when forced is given back by leases and redeliveries.
#[derive(Clone, Debug, Default)]
pub struct Lifecycle {
    tracker: TaskTracker,
    drain: CancellationToken,
    force: CancellationToken,
}

impl Lifecycle {
    /// Makes an owner without tasks.
    pub fn new() -> Self {
        Self::default()
    }

    /// Starts a task that runs to its own end, which it reaches soon after *drain*.
    ///
    /// It is dropped at *force*, wherever it is.
    pub fn spawn<F>(&self, task: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let force = self.force.clone();
        // Held by the wrapper itself, it would take its room twice.
        let task = Box::pin(task);
        self.start(async move {
            tokio::select! {
                biased;
                () = force.cancelled() => {}
                () = task => {}
            }
        });
    }

    /// Starts a task that must never be cut off: a commit, a settle. *Force* does not touch it.
    pub fn spawn_uncut<F>(&self, task: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        self.start(task);
    }

    #[cfg(not(sagabus_shuttle))]
    fn start(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.tracker.spawn(task);
    }

    #[cfg(sagabus_shuttle)]
    fn start(&self, task: impl Future<Output = ()> + Send + 'static) {
        crate::sync::spawn(self.tracker.track_future(task));
    }

    /// Starts a thread of its own for calls that block, as drivers without an asynchronous interface
    /// make them. It counts as a task until it ends; neither *drain* nor *force* touches it, and a
    /// runtime that ends does not wait for it.
    ///
    /// # Errors
    /// When the system has no room for another thread.
    pub fn spawn_thread<F>(&self, name: &str, run: F) -> io::Result<()>
    where
        F: FnOnce() + Send + 'static,
    {
        let token = self.tracker.token();
        let run = move || {
            run();
            drop(token);
        };
        let thread = std::thread::Builder::new().name(name.to_owned());
        thread.spawn(run).map(drop)
    }

    /// Resolves when nothing new is to be taken.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn draining(&self) {
        self.drain.cancelled().await;
    }

    /// Says whether nothing new is to be taken.
    pub fn is_draining(&self) -> bool {
        self.drain.is_cancelled()
    }

    /// Resolves when everything is to be let go.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn forced(&self) {
        self.force.cancelled().await;
    }

    /// Asks for a stop without waiting for it.
    pub fn drain(&self) {
        self.drain.cancel();
    }

    /// Returns how many tasks run.
    pub fn task_count(&self) -> usize {
        self.tracker.len()
    }

    /// Stops: drains for at most `deadline`, then forces and waits for the rest.
    ///
    /// Returns whether everything ended by itself.
    ///
    /// # Cancel safety
    /// Calling again goes on where the dropped call was.
    pub async fn stop(&self, deadline: Duration) -> bool {
        self.drain.cancel();
        self.tracker.close();
        let is_clean = time::timeout(deadline, self.tracker.wait()).await.is_ok();
        if !is_clean {
            self.force.cancel();
            self.tracker.wait().await;
        }
        is_clean
    }
}
