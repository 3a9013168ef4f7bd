//! Messages in lines: each is handled after the one before it, and tells another endpoint.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use sagabus_shuttle::endpoint::Order;
use sagabus_shuttle::handler::State;
use sagabus_shuttle::memory::{MemoryStore, MemoryTransport};
use sagabus_shuttle::{Bus, Command, Event, Host, Kind, Message, Retry, RunningHost};
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;

/// Lines, and messages in each.
pub(crate) const LINES: u8 = 2;
pub(crate) const STEPS: u8 = 3;
/// Fewer places than messages, so that some wait for room.
const PLACES: usize = 3;

/// One message of a line.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Step {
    line: u8,
    number: u8,
}

impl Message for Step {
    const TYPE: &'static str = "line.step";
    const KIND: Kind = Kind::Command;

    fn message_key(&self) -> Option<String> {
        Some(self.line.to_string())
    }
}
impl Command for Step {}

/// What is told of it.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Stepped {
    line: u8,
    number: u8,
}

impl Message for Stepped {
    const TYPE: &'static str = "line.stepped";
    const KIND: Kind = Kind::Event;
}
impl Event for Stepped {}

/// What was handled, in its order.
#[derive(Debug, Default)]
pub(crate) struct Handled {
    lines: Mutex<BTreeMap<u8, Vec<u8>>>,
    told: Mutex<Vec<(u8, u8)>>,
    changed: Notify,
}

impl Handled {
    fn lines(&self) -> MutexGuard<'_, BTreeMap<u8, Vec<u8>>> {
        self.lines.lock().expect("nobody panics with it")
    }

    /// What was told, sorted.
    pub(crate) fn told(&self) -> Vec<(u8, u8)> {
        let mut told = self.told.lock().expect("nobody panics with it").clone();
        told.sort_unstable();
        told
    }

    /// Waits until so many different messages were told of; for ever, where one is lost.
    pub(crate) async fn until_told(&self, count: usize) {
        loop {
            let changed = self.changed.notified();
            let mut told = self.told();
            told.dedup();
            if told.len() >= count {
                return;
            }
            changed.await;
        }
    }

    /// Checks that each line was handled in its order.
    pub(crate) fn assert_in_order(&self) {
        for (line, steps) in &*self.lines() {
            assert!(steps.is_sorted(), "line {line}: {steps:?}");
        }
    }
}

/// Everything that there is to be told.
pub(crate) fn all() -> Vec<(u8, u8)> {
    let each = |line| (0..STEPS).map(move |number| (line, number));
    (0..LINES).flat_map(each).collect()
}

async fn step(step: Step, State(handled): State<Arc<Handled>>) -> sagabus_shuttle::Result<Stepped> {
    let Step { line, number } = step;
    handled.lines().entry(line).or_default().push(number);
    Ok(Stepped { line, number })
}

async fn tell(event: Stepped, State(handled): State<Arc<Handled>>) -> sagabus_shuttle::Result {
    let told = (event.line, event.number);
    handled
        .told
        .lock()
        .expect("nobody panics with it")
        .push(told);
    handled.changed.notify_waiters();
    Ok(())
}

/// What hosts of a test share.
#[derive(Clone)]
pub(crate) struct Place {
    pub(crate) store: MemoryStore,
    broker: Option<MemoryTransport>,
    pub(crate) handled: Arc<Handled>,
}

impl Place {
    pub(crate) fn new(has_broker: bool) -> Self {
        Self {
            store: MemoryStore::new(),
            broker: has_broker.then(MemoryTransport::new),
            handled: Arc::default(),
        }
    }

    pub(crate) async fn start(&self, name: &str, lease: Duration) -> RunningHost {
        let builder = Host::builder(name).store(self.store.clone()).lease(lease);
        let builder = match &self.broker {
            Some(broker) => builder.transport(broker.clone()),
            None => builder,
        };
        let builder = builder
            .state(Arc::clone(&self.handled))
            .endpoint("steps", |e| {
                let e = e.handle(step).retry(Retry::default());
                e.order(Order::PerKey).capacity(PLACES)
            })
            .endpoint("told", |e| e.handle(tell).capacity(PLACES));
        let host = builder.build().expect("it is put together well");
        host.start().await.expect("it starts")
    }
}

/// Sends every message of every line, in the order of each.
pub(crate) async fn send_all(bus: &Bus) {
    for number in 0..STEPS {
        for line in 0..LINES {
            let sent = bus.send(Step { line, number }).await;
            sent.expect("the store takes it");
        }
    }
}
