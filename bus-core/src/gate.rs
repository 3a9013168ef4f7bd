//! What every try of an endpoint passes: open while messages succeed, as often as its rate allows,
//! and for one at a time while everything fails alike.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use tokio::sync::{Semaphore, SemaphorePermit};

use crate::clock::{self, Timestamp};
use crate::counters::Counters;
use crate::endpoint::EndpointName;
use crate::fingerprint::kind_of;
use crate::flag::Flag;
use crate::id::MessageId;
use crate::lifecycle::Lifecycle;
use crate::rate::Rate;
use crate::sync::atomic::{AtomicBool, Ordering};
use crate::sync::time::{Instant, sleep_until};
use crate::sync::{Mutex, MutexGuard};

/// Kinds of failures that are told apart between two successes. Where there are more, they are not
/// alike.
const KINDS_MAX: usize = 16;

/// When an endpoint pauses because everything fails alike, and how it finds out that this is over.
///
/// While it is paused, messages wait in hand, as many as the endpoint has places; one at a time is
/// tried. What fails meanwhile costs no attempt. The first success ends the pause.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Breaker {
    /// Messages that have to fail alike, each for the first time, with no success between them.
    /// Default 10: fewer could be a handful of bad messages on a quiet endpoint. 0: never pauses.
    pub messages: u32,
    /// The pause before the first probe; each later one is twice as long. Default 100 ms.
    pub probe_delay: Duration,
    /// The longest pause between probes: about how long the end of an outage stays unnoticed.
    /// Default 1 s.
    pub probe_delay_max: Duration,
}

impl Default for Breaker {
    fn default() -> Self {
        Self {
            messages: 10,
            probe_delay: Duration::from_millis(100),
            probe_delay_max: Duration::from_secs(1),
        }
    }
}

impl Breaker {
    /// Never pauses.
    pub const fn never() -> Self {
        Self {
            messages: 0,
            probe_delay: Duration::ZERO,
            probe_delay_max: Duration::ZERO,
        }
    }
}

/// The gate of one endpoint in one host.
#[derive(Debug)]
pub(crate) struct Gate {
    endpoint: EndpointName,
    breaker: Breaker,
    counters: Arc<Counters>,
    /// Nothing failed since the last success: what nearly every message finds, without a lock.
    is_calm: AtomicBool,
    state: Mutex<State>,
    paused: Flag,
    /// An operator paused the endpoint: nothing passes, not even a probe.
    held: Flag,
    /// Whose turn it is to probe, in the order in which they came.
    turns: Semaphore,
    /// How often messages may be tried, where that is limited.
    rate: Option<Rate>,
}

#[derive(Debug)]
enum State {
    /// Which messages failed since the last success, by the kind of their failure.
    Flowing(HashMap<String, HashSet<MessageId>>),
    /// Everything failed alike.
    Paused(Pause),
}

/// A pause of an endpoint because everything failed alike.
#[derive(Clone, Debug)]
pub(crate) struct Pause {
    began: Instant,
    /// Since when, by the host's clock.
    pub(crate) since: Timestamp,
    /// The latest error.
    pub(crate) error: String,
    /// How often one message was tried since.
    pub(crate) probes: u64,
    delay: Duration,
    probe_at: Instant,
}

/// The right to try a message once.
#[derive(Debug)]
pub(crate) struct Turn<'g> {
    probe: Option<(&'g Gate, Option<SemaphorePermit<'g>>)>,
}

impl Gate {
    /// Makes an open gate.
    pub(crate) fn new(
        endpoint: EndpointName,
        breaker: Breaker,
        rate: Option<Rate>,
        counters: Arc<Counters>,
    ) -> Self {
        Self {
            endpoint,
            breaker,
            counters,
            is_calm: AtomicBool::new(true),
            state: Mutex::new(State::Flowing(HashMap::new())),
            paused: Flag::default(),
            held: Flag::default(),
            turns: Semaphore::new(1),
            rate,
        }
    }

    /// Says whether nothing failed lately.
    pub(crate) fn is_calm(&self) -> bool {
        self.is_calm.load(Ordering::Relaxed)
    }

    /// Says whether messages pass without being counted one by one.
    pub(crate) fn is_free(&self) -> bool {
        self.is_calm() && self.rate.is_none() && !self.is_held()
    }

    /// Says whether an operator paused the endpoint.
    pub(crate) fn is_held(&self) -> bool {
        self.held.is_set()
    }

    /// Holds everything back, or lets it go on, as an operator wants it.
    pub(crate) fn hold(&self, is_held: bool) {
        if !self.held.set(is_held) {
            return;
        }
        let endpoint = &self.endpoint;
        match is_held {
            true => tracing::warn!(%endpoint, "an operator paused the endpoint"),
            false => tracing::info!(%endpoint, "an operator lets the endpoint go on"),
        }
    }

    /// Lets a message through at once, or not.
    pub(crate) fn enter(&self) -> Option<Turn<'_>> {
        if self.is_held() {
            return None;
        }
        let is_open = self.is_calm() || !self.paused.is_set();
        let may_pass = is_open && self.rate.as_ref().is_none_or(Rate::take_now);
        may_pass.then_some(Turn { probe: None })
    }

    /// Waits until a message may be tried. `None`: the host drains.
    ///
    /// # Cancel safety
    /// A dropped wait loses its place among those that wait.
    pub(crate) async fn wait(&self, lifecycle: &Lifecycle) -> Option<Turn<'_>> {
        loop {
            self.wait_while_held(lifecycle).await?;
            let turn = if self.paused.is_set() {
                self.wait_out_pause(lifecycle).await?
            } else {
                Turn { probe: None }
            };
            if self.is_held() {
                continue;
            }
            let Some(rate) = &self.rate else {
                return Some(turn);
            };
            tokio::select! {
                biased;
                () = lifecycle.draining() => return None,
                () = sleep_until(rate.take_next()) => {}
            }
            // Another pause may have begun meanwhile.
            let is_open = turn.probe.is_some() || !self.paused.is_set();
            if is_open && !self.is_held() {
                return Some(turn);
            }
        }
    }

    /// Waits until no operator holds the endpoint.
    async fn wait_while_held(&self, lifecycle: &Lifecycle) -> Option<()> {
        if !self.is_held() {
            return Some(());
        }
        tokio::select! {
            biased;
            () = lifecycle.draining() => None,
            () = self.held.cleared() => Some(()),
        }
    }

    /// Waits until everything may go on, or it is this message's turn to probe.
    async fn wait_out_pause(&self, lifecycle: &Lifecycle) -> Option<Turn<'_>> {
        tokio::select! {
            biased;
            () = lifecycle.draining() => None,
            () = self.paused.cleared() => Some(Turn { probe: None }),
            turn = self.probe() => Some(turn),
        }
    }

    async fn probe(&self) -> Turn<'_> {
        let permit = self.turns.acquire().await.ok(); // It is never closed.
        let at = match &*self.lock() {
            State::Paused(pause) => pause.probe_at,
            State::Flowing(_) => Instant::now(),
        };
        sleep_until(at).await;
        Turn {
            probe: Some((self, permit)),
        }
    }

    /// Notes a success. While the endpoint is paused only that of a probe counts: what began before
    /// the pause says nothing about now.
    pub(crate) fn succeeded(&self, turn: &Turn<'_>) {
        if self.is_calm() {
            return;
        }
        let mut state = self.lock();
        match &*state {
            State::Paused(_) if turn.probe.is_none() => return,
            State::Paused(pause) => {
                let (endpoint, probes) = (&self.endpoint, pause.probes + 1);
                let seconds = pause.began.elapsed().as_secs_f64();
                tracing::info!(%endpoint, seconds, probes, "messages succeed again; the endpoint goes on");
            }
            State::Flowing(_) => {}
        }
        *state = State::Flowing(HashMap::new());
        self.is_calm.store(true, Ordering::Relaxed);
        self.paused.set(false);
    }

    /// Notes a failure that another message may have as well. Returns whether the endpoint is
    /// paused. One that `is_news` counts towards a pause.
    pub(crate) fn failed(&self, message: MessageId, error: &str, is_news: bool) -> bool {
        let limit = self.breaker.messages as usize;
        if limit == 0 {
            return false;
        }
        let mut state = self.lock();
        let failing = match &mut *state {
            State::Paused(pause) => {
                error.clone_into(&mut pause.error);
                return true;
            }
            State::Flowing(_) if !is_news => return false,
            State::Flowing(failing) => failing,
        };
        self.is_calm.store(false, Ordering::Relaxed);
        let kind = kind_of(error);
        if failing.len() >= KINDS_MAX && !failing.contains_key(&kind) {
            failing.clear();
        }
        let alike = failing.entry(kind).or_default();
        alike.insert(message);
        if alike.len() < limit {
            return false;
        }
        let endpoint = &self.endpoint;
        tracing::warn!(%endpoint, messages = limit, error, "every message fails alike; the endpoint pauses");
        self.counters.paused.increment();
        *state = State::Paused(Pause {
            began: Instant::now(),
            since: clock::now(),
            error: error.to_owned(),
            probes: 0,
            delay: self.breaker.probe_delay,
            probe_at: Instant::now() + self.breaker.probe_delay,
        });
        self.paused.set(true);
        true
    }

    /// Returns the pause, while there is one.
    pub(crate) fn pause(&self) -> Option<Pause> {
        match &*self.lock() {
            State::Paused(pause) => Some(pause.clone()),
            State::Flowing(_) => None,
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Turn<'_> {
    /// Whatever came of a probe, the next one waits; longer each time.
    fn drop(&mut self) {
        let Some((gate, _)) = &self.probe else {
            return;
        };
        if let State::Paused(pause) = &mut *gate.lock() {
            pause.probes += 1;
            pause.delay = (pause.delay * 2).min(gate.breaker.probe_delay_max);
            pause.probe_at = Instant::now() + pause.delay;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gate(messages: u32) -> Gate {
        let endpoint = EndpointName::new("work").expect("a usable name");
        let breaker = Breaker {
            messages,
            ..Breaker::default()
        };
        Gate::new(endpoint, breaker, None, Arc::default())
    }

    fn free() -> Turn<'static> {
        Turn { probe: None }
    }

    #[test]
    fn one_bad_message_among_good_ones_pauses_nothing() {
        let (gate, bad) = (gate(3), MessageId::new());
        for _ in 0..100 {
            assert!(
                !gate.failed(bad, "out of money", true),
                "it is always the same one"
            );
        }
        gate.succeeded(&free());
        for _ in 0..100 {
            assert!(!gate.failed(MessageId::new(), "out of money", true));
            assert!(!gate.failed(MessageId::new(), "out of money", true));
            gate.succeeded(&free());
        }
        assert!(gate.enter().is_some() && gate.pause().is_none());
    }

    #[test]
    fn messages_that_are_known_to_fail_pause_nothing_and_wait_all_the_same() {
        let gate = gate(2);
        for _ in 0..10 {
            assert!(!gate.failed(MessageId::new(), "away", false));
        }
        assert!(gate.is_calm());
        assert!(!gate.failed(MessageId::new(), "away", true));
        assert!(gate.failed(MessageId::new(), "away", true));
        assert!(gate.failed(MessageId::new(), "out of money", false));
        assert_eq!(gate.pause().expect("it is paused").error, "out of money");
    }

    #[test]
    fn failures_of_two_kinds_are_counted_apart_and_only_a_success_ends_the_count() {
        let gate = gate(3);
        for n in 0..2 {
            assert!(!gate.failed(
                MessageId::new(),
                &format!("order {n}: gateway is away"),
                true
            ));
            assert!(!gate.failed(MessageId::new(), "bank is away", true));
        }
        assert!(gate.failed(MessageId::new(), "order 7: gateway is away", true));
        assert!(gate.enter().is_none());
        assert_eq!(gate.counters.paused.get(), 1);
    }

    #[test]
    fn errors_without_end_are_not_alike_and_are_forgotten() {
        let gate = gate(3);
        let letters = ('a'..='z').flat_map(|a| ('a'..='z').map(move |b| format!("{a}{b}")));
        for error in letters {
            assert!(!gate.failed(MessageId::new(), &error, true));
        }
        let State::Flowing(failing) = &*gate.lock() else {
            panic!("it is paused");
        };
        assert!(failing.len() <= KINDS_MAX);
    }

    #[tokio::test(start_paused = true)]
    async fn probes_come_one_at_a_time_with_growing_pauses_until_one_succeeds() {
        let (gate, lifecycle) = (gate(1), Lifecycle::new());
        assert!(gate.failed(MessageId::new(), "away", true));
        let mut pauses = Vec::new();
        for _ in 0..7 {
            let began = Instant::now();
            let turn = gate.wait(&lifecycle).await.expect("nobody drains");
            pauses.push(began.elapsed().as_millis());
            let second = tokio::time::timeout(Duration::from_secs(60), gate.wait(&lifecycle));
            assert!(second.await.is_err(), "another one is trying");
            gate.succeeded(&free());
            assert!(gate.failed(MessageId::new(), "away still", true));
            drop(turn);
        }
        let doubled = [100, 200, 400, 800, 1000, 1000, 1000];
        assert!(
            pauses
                .iter()
                .zip(doubled)
                .all(|(is, at)| is.abs_diff(at) < 5),
            "{pauses:?}"
        );
        let (probe, other) = tokio::join!(
            async {
                let turn = gate.wait(&lifecycle).await.expect("nobody drains");
                gate.succeeded(&turn);
            },
            gate.wait(&lifecycle)
        );
        let () = probe;
        assert!(other.expect("nobody drains").probe.is_none());
        assert!(gate.enter().is_some() && gate.is_calm());
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_waits_is_given_back_when_the_host_drains() {
        let (gate, lifecycle) = (gate(1), Lifecycle::new());
        assert!(gate.failed(MessageId::new(), "away", true));
        lifecycle.drain();
        assert!(gate.wait(&lifecycle).await.is_none());
    }
}
