//! Says what happens, as a person would want to read it: line by line while it is little, summed up
//! per second when it is much.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

/// Lines per second that a person can follow.
const LINES_MAX: usize = 12;

/// What can happen to an order, in the order in which a summary lists it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Fact {
    Placed,
    Charged,
    Declined,
    Waiting,
    Overdue,
    Refunded,
    Shipped,
    Finished,
    Cancelled,
}

impl Fact {
    fn name(self) -> &'static str {
        match self {
            Self::Placed => "placed",
            Self::Charged => "charged",
            Self::Declined => "declined",
            Self::Waiting => "waiting for the gateway",
            Self::Overdue => "overdue",
            Self::Refunded => "refunded",
            Self::Shipped => "shipped",
            Self::Finished => "finished",
            Self::Cancelled => "cancelled",
        }
    }
}

/// Prints what happens. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Console {
    started: Instant,
    second: Arc<Mutex<Second>>,
    /// When a handler first had something to say.
    first: watch::Sender<Option<Duration>>,
}

/// What happened since the last tick.
#[derive(Default)]
struct Second {
    lines: usize,
    summed: BTreeMap<Fact, u64>,
}

impl Console {
    /// Makes a console whose times count from now.
    pub(crate) fn new() -> Self {
        Self {
            started: Instant::now(),
            second: Arc::default(),
            first: watch::Sender::new(None),
        }
    }

    /// Prints a fact about an order, or counts it when there are too many to read.
    ///
    /// A handler that is run again says it again: this is what happens, not what is committed.
    pub(crate) fn say(&self, fact: Fact, order_id: i64, text: impl FnOnce() -> String) {
        self.notice(fact);
        let mut second = self.lock();
        if second.lines < LINES_MAX {
            second.lines += 1;
            println!("{} order {order_id}: {}", self.time(), text());
        } else {
            *second.summed.entry(fact).or_default() += 1;
        }
    }

    /// Counts a fact about an order that is not worth a line of its own.
    pub(crate) fn count(&self, fact: Fact) {
        self.notice(fact);
        *self.lock().summed.entry(fact).or_default() += 1;
    }

    /// Prints a line about the shop as a whole.
    pub(crate) fn note(&self, text: &str) {
        println!("{} {text}", self.time());
    }

    /// Waits until a handler has handled its first message; returns how long that took.
    pub(crate) async fn first_handled(&self) -> Duration {
        let mut first = self.first.subscribe();
        // The sender lives as long as `self`.
        let first = first.wait_for(Option::is_some).await;
        first.ok().and_then(|first| *first).unwrap_or_default()
    }

    /// Returns how long the process has been running.
    pub(crate) fn uptime(&self) -> Duration {
        self.started.elapsed()
    }

    /// Prints each second what was only counted. Runs until it is dropped.
    pub(crate) async fn sum_up(self) {
        let mut ticks = tokio::time::interval(Duration::from_secs(1));
        loop {
            ticks.tick().await;
            self.flush();
        }
    }

    /// Prints what was only counted so far.
    pub(crate) fn flush(&self) {
        let second = {
            let mut now = self.lock();
            // After a second with more than one can read, the next one is summed up as a whole.
            let is_busy = now.lines >= LINES_MAX && !now.summed.is_empty();
            let lines = if is_busy { LINES_MAX } else { 0 };
            let next = Second {
                lines,
                ..Second::default()
            };
            std::mem::replace(&mut *now, next)
        };
        if second.summed.is_empty() {
            return;
        }
        let facts = second
            .summed
            .iter()
            .map(|(fact, n)| format!("{n} {}", fact.name()));
        let facts = facts.collect::<Vec<_>>().join(", ");
        println!("{} .. {facts}", self.time());
    }

    /// Remembers when a handler first had something to say.
    fn notice(&self, fact: Fact) {
        if fact != Fact::Placed {
            let elapsed = self.started.elapsed();
            self.first.send_if_modified(|first| {
                let is_first = first.is_none();
                first.get_or_insert(elapsed);
                is_first
            });
        }
    }

    fn time(&self) -> String {
        format!("{:7.2}s", self.started.elapsed().as_secs_f64())
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Second> {
        // Counts for people: whole after every single addition.
        self.second.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
