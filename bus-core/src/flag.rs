//! A flag that others wait for, in the order in which they came.

use crate::sync::Notify;
use crate::sync::atomic::{AtomicBool, Ordering};

/// Whether something holds; whoever waits for its end is woken in the order in which they came.
#[derive(Debug, Default)]
pub(crate) struct Flag {
    is_set: AtomicBool,
    cleared: Notify,
}

impl Flag {
    /// Says whether it holds.
    pub(crate) fn is_set(&self) -> bool {
        self.is_set.load(Ordering::Acquire)
    }

    /// Sets or clears it; returns whether that changed anything.
    pub(crate) fn set(&self, is_set: bool) -> bool {
        let has_changed = self.is_set.swap(is_set, Ordering::AcqRel) != is_set;
        if has_changed && !is_set {
            self.cleared.notify_waiters();
        }
        has_changed
    }

    /// Waits until it does not hold.
    ///
    /// # Cancel safety
    /// A dropped wait loses its place.
    pub(crate) async fn cleared(&self) {
        loop {
            // Made before the look: a change after it is not missed.
            let cleared = self.cleared.notified();
            if !self.is_set() {
                return;
            }
            cleared.await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn those_who_wait_go_on_in_the_order_in_which_they_came() {
        let flag = Flag::default();
        flag.cleared().await;
        assert!(flag.set(true) && !flag.set(true));
        let gone = std::sync::Mutex::new(Vec::new());
        let wait = async |number| {
            flag.cleared().await;
            gone.lock().expect("nobody panics here").push(number);
        };
        let waiting = futures_util::future::join_all((0..9).map(wait));
        tokio::join!(waiting, async { assert!(flag.set(false)) });
        let gone = gone.into_inner().expect("nobody panics here");
        assert_eq!(gone, (0..9).collect::<Vec<_>>());
    }
}
