//! Tells everyone who attached to a store that rows may have become available.

use tokio::sync::watch;

/// Counts hints; whoever watches the count claims at once instead of at its own pace.
///
/// Hints coalesce: two before a watcher looks are one.
#[derive(Debug)]
pub(crate) struct Wakeups {
    count: watch::Sender<u64>,
}

impl Wakeups {
    /// Makes a counter that nobody watches yet.
    pub(crate) fn new() -> Self {
        Self {
            count: watch::Sender::new(0),
        }
    }

    /// Wakes everyone.
    pub(crate) fn nudge(&self) {
        self.count
            .send_modify(|count| *count = count.wrapping_add(1));
    }

    /// Returns a view of the count.
    pub(crate) fn subscribe(&self) -> watch::Receiver<u64> {
        self.count.subscribe()
    }
}
