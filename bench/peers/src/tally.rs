//! Which messages were handled, and how often.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};

/// Counts messages of one run.
#[derive(Clone, Debug)]
pub(crate) struct Tally {
    expected: u64,
    handled: Arc<Mutex<(u64, HashSet<String>)>>,
}

impl Tally {
    pub(crate) fn new(expected: u64) -> Self {
        Self {
            expected,
            handled: Arc::default(),
        }
    }

    pub(crate) fn add(&self, account: String) {
        let mut handled = self.handled.lock().unwrap_or_else(PoisonError::into_inner);
        handled.0 += 1;
        handled.1.insert(account);
    }

    /// Returns how many times a message was handled, and how many different ones.
    pub(crate) fn counts(&self) -> (u64, u64) {
        let handled = self.handled.lock().unwrap_or_else(PoisonError::into_inner);
        (handled.0, handled.1.len() as u64)
    }

    pub(crate) fn is_full(&self) -> bool {
        self.counts().1 >= self.expected
    }
}
