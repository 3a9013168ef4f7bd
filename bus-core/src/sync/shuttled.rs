//! The same names for shuttle, which runs all tasks on one thread and chooses who goes on.

use std::future::Future;
use std::ops::Deref;

pub(crate) use shuttle::sync::{Mutex, MutexGuard, RwLock, atomic};

/// Starts a task that nobody waits for.
pub(crate) fn spawn(task: impl Future<Output = ()> + Send + 'static) {
    drop(shuttle::future::spawn(task));
}

/// Lets another task go first, or not.
pub fn point() {
    atomic::AtomicBool::new(false).load(atomic::Ordering::SeqCst);
}

/// tokio's, and before each use another task may go first.
#[derive(Debug, Default)]
pub(crate) struct Notify(tokio::sync::Notify);

impl Notify {
    pub(crate) fn new() -> Self {
        Self::default()
    }
}

impl Deref for Notify {
    type Target = tokio::sync::Notify;

    fn deref(&self) -> &Self::Target {
        point();
        &self.0
    }
}

/// Time that passes whenever it likes, or not at all.
pub mod time {
    use std::cell::Cell;
    use std::future::{Future, pending};
    use std::pin::pin;
    use std::time::Duration;

    use futures_util::future::{Either, select};
    use shuttle::rand::Rng;
    pub(crate) use tokio::time::Instant;

    thread_local! {
        static PASSES: Cell<Duration> = const { Cell::new(Duration::ZERO) };
    }

    /// Lets what is to wait for no longer than this go on at any moment; what is to wait for longer
    /// waits for ever.
    pub fn passes(longest: Duration) {
        PASSES.set(longest);
    }

    /// Who waited until the end.
    #[derive(Debug)]
    pub(crate) struct Elapsed;

    pub(crate) async fn sleep(time: Duration) {
        /// Of so many looks one finds the time over.
        const LOOKS: u32 = 4;
        if time > PASSES.get() {
            pending::<()>().await;
        }
        while !shuttle::rand::thread_rng().gen_ratio(1, LOOKS) {
            shuttle::future::yield_now().await;
        }
    }

    pub(crate) async fn sleep_until(at: Instant) {
        sleep(at.saturating_duration_since(Instant::now())).await;
    }

    pub(crate) async fn timeout<F: Future>(time: Duration, work: F) -> Result<F::Output, Elapsed> {
        match select(pin!(work), pin!(sleep(time))).await {
            Either::Left((done, _)) => Ok(done),
            Either::Right(_) => Err(Elapsed),
        }
    }

    pub(crate) async fn timeout_at<F: Future>(at: Instant, work: F) -> Result<F::Output, Elapsed> {
        timeout(at.saturating_duration_since(Instant::now()), work).await
    }
}
