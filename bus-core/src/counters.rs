//! What is counted, by name. Always on, one atomic addition each; no exporter needed.

use std::sync::atomic::{AtomicU64, Ordering};

/// Declares the counters: one list for the struct, the snapshot and their names.
macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident),* $(,)?) => {
        /// The counters of one host since it started.
        #[derive(Debug, Default)]
        pub struct Counters {
            $($(#[$doc])* pub $name: Counter,)*
        }

        impl Counters {
            /// Reads every counter: name and value, in a fixed order.
            pub fn snapshot(&self) -> Vec<(&'static str, u64)> {
                vec![$((stringify!($name), self.$name.get()),)*]
            }
        }
    };
}

counters! {
    /// Deliveries and rows that came in.
    received,
    /// Units that committed.
    committed,
    /// Messages that had been taken over before.
    duplicates,
    /// Units that found their instance moved.
    conflicts,
    /// Tries that ended with an error.
    failed_attempts,
    /// Messages that were written down for a later try.
    postponed,
    /// Messages that stopped being tried.
    dead_lettered,
    /// Pauses of endpoints because everything failed alike.
    paused,
    /// Commit calls.
    groups,
    /// Commit calls whose answer was lost and that were made again.
    resubmitted,
    /// Settles of rows.
    settled,
    /// Rows that went from a commit to their endpoint or publisher without a claim.
    handed_over,
    /// Rows that were claimed.
    claimed,
    /// Claim calls.
    claims,
    /// Messages that recurred and were written.
    fired,
    /// Messages that a broker confirmed.
    published,
    /// Messages that a broker did not take.
    publish_failures,
    /// Rows that an operator has to look at.
    parked,
    /// Events that became no row, because no endpoint of this database subscribed to them.
    unheard,
    /// Answers that came when nobody waited for them any more.
    late_answers,
    /// Rows that came after their time.
    expired,
    /// Rows removed because they were older than their retention.
    swept,
}

/// One counter.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds `n`.
    pub fn add(&self, n: u64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }

    /// Adds one.
    pub fn increment(&self) {
        self.add(1);
    }

    /// Returns the value.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}
