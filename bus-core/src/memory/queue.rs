//! What the in-memory broker keeps for one endpoint until it is acked.

use std::collections::{BTreeMap, HashMap, HashSet};

use tokio::time::Instant;

use crate::endpoint::Order;
use crate::envelope::Envelope;

/// Messages that one endpoint may have waiting. A test that fills this forgot to receive.
const WAITING_MAX: usize = 100_000;

/// A message with what the broker knows of it.
#[derive(Clone)]
pub(super) struct Held {
    pub(super) envelope: Envelope,
    key: Option<String>,
    pub(super) redeliveries: u32,
    /// Not before this time, where it was given back with a delay.
    ready_at: Option<Instant>,
}

/// What there is to take.
pub(super) enum Next {
    /// This message, under this number.
    Message(u64, Held),
    /// Nothing before this time.
    At(Instant),
    /// Nothing until something changes.
    Nothing,
}

/// Waiting messages in the order in which they were published, and those in a replica's hands.
#[derive(Default)]
pub(super) struct Queue {
    pub(super) order: Order,
    last: u64,
    waiting: BTreeMap<u64, Held>,
    in_hand: HashMap<u64, Held>,
}

impl Queue {
    /// Says whether there is no room for another message.
    pub(super) fn is_full(&self) -> bool {
        self.waiting.len() >= WAITING_MAX
    }

    /// Adds a message.
    pub(super) fn push(&mut self, envelope: &Envelope, key: Option<&str>) {
        self.last += 1;
        let held = Held {
            envelope: envelope.clone(),
            key: key.map(str::to_owned),
            redeliveries: 0,
            ready_at: None,
        };
        self.waiting.insert(self.last, held);
    }

    /// Takes the oldest message that may be taken now.
    ///
    /// Where order is promised, a message waits for every older one of its key, also for one that
    /// was given back and is not ready yet.
    pub(super) fn take(&mut self, now: Instant) -> Next {
        let mut passed: HashSet<&str> = HashSet::new();
        if self.order == Order::PerKey {
            let keys = self.in_hand.values().filter_map(|held| held.key.as_deref());
            passed.extend(keys);
        }
        let mut soonest: Option<Instant> = None;
        let mut found = None;
        for (number, held) in &self.waiting {
            let key = held.key.as_deref().filter(|_| self.order == Order::PerKey);
            if key.is_some_and(|key| passed.contains(key)) {
                continue;
            }
            match held.ready_at.filter(|ready_at| *ready_at > now) {
                None => {
                    found = Some(*number);
                    break;
                }
                Some(ready_at) => {
                    soonest = Some(soonest.map_or(ready_at, |at| at.min(ready_at)));
                    passed.extend(key);
                }
            }
        }
        let taken = found.and_then(|number| Some((number, self.waiting.remove(&number)?)));
        match (taken, soonest) {
            (Some((number, held)), _) => {
                self.in_hand.insert(number, held.clone());
                Next::Message(number, held)
            }
            (None, Some(at)) => Next::At(at),
            (None, None) => Next::Nothing,
        }
    }

    /// Forgets a message that was acked.
    pub(super) fn ack(&mut self, number: u64) {
        self.in_hand.remove(&number);
    }

    /// Puts a message back to its place, to be taken again.
    pub(super) fn give_back(&mut self, number: u64, ready_at: Option<Instant>) {
        if let Some(mut held) = self.in_hand.remove(&number) {
            held.redeliveries += 1;
            held.ready_at = ready_at;
            self.waiting.insert(number, held);
        }
    }

    /// Returns how many messages wait and how many are in hand.
    pub(super) fn depth(&self) -> (usize, usize) {
        (self.waiting.len(), self.in_hand.len())
    }
}
