//! What all hosts of a run share: the dice, the trace, what went wrong, and the ledger.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use sagabus_core::endpoint::EndpointId;
use sagabus_core::{EndpointName, MessageId};
use sagabus_model::Held;
use tokio::time::Instant;

use crate::dice::Dice;
use crate::fault::{Fault, Tally};
use crate::guard::Guard;
use crate::seen::Seen;
use crate::trace::Trace;

/// One line of the ledger: transfer, leg, cents. Nothing keeps it unique.
pub(crate) type Entry = (i64, &'static str, i64);

/// One run's surroundings.
pub(crate) struct World {
    inner: Mutex<Inner>,
    began: Instant,
    /// What is switched off in this run.
    pub(crate) guard: Option<Guard>,
}

/// What changes during a run.
pub(crate) struct Inner {
    pub(crate) dice: Dice,
    pub(crate) trace: Trace,
    pub(crate) tally: Tally,
    /// Whether anything goes wrong: not before the hosts run, and not any more at the end.
    pub(crate) is_stormy: bool,
    /// What handlers wrote through their own transactions.
    pub(crate) ledger: Vec<Entry>,
    /// Messages that a committed unit sent.
    pub(crate) written: BTreeSet<MessageId>,
    /// Messages that reached the broker, with a sum of their bytes and headers.
    pub(crate) published: BTreeMap<MessageId, u64>,
    /// What may never happen, and did.
    pub(crate) wrongs: Vec<String>,
    /// What is followed through the models.
    pub(crate) seen: Vec<Seen>,
    pub(crate) endpoints: BTreeMap<EndpointId, EndpointName>,
    /// The last number of what a process had in hand.
    pub(crate) held: Held,
}

impl World {
    pub(crate) fn new(seed: u64, guard: Option<Guard>, is_shown: bool) -> Arc<Self> {
        let inner = Inner {
            dice: Dice::new(seed),
            trace: Trace::new(is_shown),
            tally: Tally::default(),
            is_stormy: false,
            ledger: Vec::new(),
            written: BTreeSet::new(),
            published: BTreeMap::new(),
            wrongs: Vec::new(),
            seen: Vec::new(),
            endpoints: BTreeMap::new(),
            held: 0,
        };
        Arc::new(Self {
            inner: Mutex::new(inner),
            began: Instant::now(),
            guard,
        })
    }

    /// Locks what changes. Never held across an await.
    pub(crate) fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes an event.
    pub(crate) fn note(&self, event: fmt::Arguments<'_>) {
        let micros = i64::try_from(self.began.elapsed().as_micros()).unwrap_or(i64::MAX);
        self.lock().trace.note(micros, event);
    }

    /// Returns a number that nothing else has, for what a process takes in hand.
    pub(crate) fn number(&self) -> Held {
        let mut inner = self.lock();
        inner.held += 1;
        inner.held
    }

    /// Keeps what was seen at store or broker.
    pub(crate) fn see(&self, seen: Seen) {
        self.lock().seen.push(seen);
    }

    /// Says whether a fault happens now, so many times in a thousand, and counts it.
    pub(crate) fn happens(&self, fault: Fault, permille: u64) -> bool {
        let mut inner = self.lock();
        let happens = inner.is_stormy && inner.dice.permille(permille);
        if happens {
            inner.tally.count(fault);
        }
        drop(inner);
        if happens {
            self.note(format_args!("fault: {}", fault.as_str()));
        }
        happens
    }

    /// Counts what happened for another reason than the dice.
    pub(crate) fn count(&self, fault: Fault) {
        self.lock().tally.count(fault);
    }

    /// Returns a number below `n`.
    pub(crate) fn below(&self, n: u64) -> u64 {
        self.lock().dice.below(n)
    }

    /// Returns a time between two, in milliseconds.
    pub(crate) fn millis(&self, from: u64, to: u64) -> Duration {
        self.lock().dice.millis(from, to)
    }

    /// Says whether a guard is switched off.
    pub(crate) fn is_off(&self, guard: Guard) -> bool {
        self.guard == Some(guard)
    }
}

impl fmt::Debug for World {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("World")
            .field("guard", &self.guard)
            .finish_non_exhaustive()
    }
}
