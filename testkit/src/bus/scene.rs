//! Messages, a log of what handlers saw, and hosts over a fresh store.

use std::future::Future;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use sagabus_core::memory::MemoryTransport;
use sagabus_core::store::{Counts, Store, StoreAdmin, StoredDeadLetter};
use sagabus_core::{
    Command, EndpointBuilder, Event, Host, HostBuilder, Kind, Message, Retry, RunningHost,
};
use serde::{Deserialize, Serialize};

use super::under_test::BusUnderTest;
use crate::wait::eventually;

/// How long one behaviour may take.
const BEHAVIOUR_MAX: Duration = Duration::from_secs(120);

/// Runs one behaviour on a fresh store, on a runtime of its own.
///
/// # Panics
/// When the behaviour is not kept, or takes longer than two minutes.
pub fn run<B>(
    name: &str,
    factory: impl Future<Output = Option<impl Into<BusUnderTest>>>,
    behaviour: impl FnOnce(Scene) -> B,
) where
    B: Future<Output = ()>,
{
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime needs threads and a timer");
    runtime.block_on(async {
        let Some(under_test) = factory.await else {
            return;
        };
        let under_test = under_test.into();
        if under_test.leaves_out(name) {
            return;
        }
        let scene = Scene::new(under_test);
        tokio::time::timeout(BEHAVIOUR_MAX, behaviour(scene))
            .await
            .unwrap_or_else(|_| panic!("{name} takes longer than {BEHAVIOUR_MAX:?}"));
    });
}

/// Asks for something, with a number to tell one from another.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Do {
    /// The number.
    pub n: u32,
}

impl Message for Do {
    const TYPE: &'static str = "test.do";
    const KIND: Kind = Kind::Command;
}
impl Command for Do {}

/// Tells that something was done.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Done {
    /// The number.
    pub n: u32,
}

impl Message for Done {
    const TYPE: &'static str = "test.done";
    const KIND: Kind = Kind::Event;
}
impl Event for Done {}

/// Answers.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Answered {
    /// The number.
    pub n: u32,
}

impl Message for Answered {
    const TYPE: &'static str = "test.answered";
}

/// What handlers saw, in order.
#[derive(Clone, Debug, Default)]
pub struct Log(Arc<Mutex<Vec<String>>>);

impl Log {
    /// Adds a line.
    pub fn add(&self, line: impl Into<String>) {
        self.0
            .lock()
            .expect("no test panics while it writes a line")
            .push(line.into());
    }

    /// Returns all lines.
    pub fn lines(&self) -> Vec<String> {
        self.0
            .lock()
            .expect("no test panics while it writes a line")
            .clone()
    }

    /// Returns how often a line was written.
    pub fn count(&self, line: &str) -> usize {
        self.lines().iter().filter(|one| *one == line).count()
    }

    /// Waits until there are `n` lines, and returns them.
    ///
    /// # Panics
    /// When that takes too long.
    pub async fn wait_for(&self, n: usize) -> Vec<String> {
        let what = format!("{n} lines in the log");
        let look = || async {
            let lines = self.lines();
            (lines.len() >= n).then_some(lines)
        };
        eventually(&what, look).await.0
    }
}

/// A fresh store and a log.
#[derive(Debug)]
pub struct Scene {
    under_test: BusUnderTest,
    /// What handlers saw.
    pub log: Log,
}

impl Scene {
    fn new(under_test: BusUnderTest) -> Self {
        Self {
            under_test,
            log: Log::default(),
        }
    }

    /// Returns the store as the first host reaches it.
    pub fn store(&self) -> Arc<dyn Store> {
        Arc::clone(&self.under_test.store.store)
    }

    /// Returns the store as another process would reach it.
    pub fn peer(&self) -> Arc<dyn Store> {
        Arc::clone(&self.under_test.store.peer)
    }

    /// Starts to build a host over the store: short leases, the log as a state.
    pub fn builder(&self, name: &str) -> HostBuilder {
        self.builder_on(name, self.store())
    }

    /// Starts to build a host over one way to the store.
    pub fn builder_on(&self, name: &str, store: Arc<dyn Store>) -> HostBuilder {
        let builder = Host::builder(name)
            .shared_store(store)
            .lease(Duration::from_millis(600))
            .state(self.log.clone());
        self.under_test.equip(builder)
    }

    /// Says whether a broker carries what the hosts send.
    pub fn has_broker(&self) -> bool {
        self.under_test.has_broker()
    }

    /// Gives a host a broker where it has none.
    pub fn with_broker(&self, builder: HostBuilder) -> HostBuilder {
        match self.has_broker() {
            true => builder,
            false => builder.transport(MemoryTransport::new()),
        }
    }

    /// Makes a broker for several hosts where they have none.
    pub fn shared_broker(&self) -> impl Fn(HostBuilder) -> HostBuilder {
        let broker = (!self.under_test.has_broker()).then(MemoryTransport::new);
        move |builder| match &broker {
            Some(broker) => builder.transport(broker.clone()),
            None => builder,
        }
    }

    /// Starts a host with one endpoint.
    pub async fn host(
        &self,
        endpoint: &str,
        build: impl FnOnce(EndpointBuilder) -> EndpointBuilder,
    ) -> RunningHost {
        start(self.builder("host").endpoint(endpoint, build)).await
    }

    /// Counts rows.
    pub async fn counts(&self) -> Counts {
        self.admin().counts().await.expect("rows can be counted")
    }

    /// Returns the administration of the store.
    pub fn admin(&self) -> &dyn StoreAdmin {
        &*self.under_test.store.admin
    }

    /// Waits until no row waits or is in hand.
    pub async fn quiet(&self) {
        let look = || async { (self.counts().await.outbox == 0).then_some(()) };
        eventually("an empty outbox", look).await;
    }

    /// Waits for `n` dead letters, and returns them.
    pub async fn dead_letters(&self, n: usize) -> Vec<StoredDeadLetter> {
        let look = || async {
            let dead = self
                .admin()
                .dead_letters(100)
                .await
                .expect("dead letters can be read");
            (dead.len() >= n).then_some(dead)
        };
        eventually("dead letters", look).await.0
    }
}

/// Builds and starts a host.
pub async fn start(builder: HostBuilder) -> RunningHost {
    let host = builder.build().expect("the host is put together well");
    host.start().await.expect("the host starts")
}

/// Stops a host that has nothing left to do.
pub async fn stop(host: RunningHost) {
    assert!(
        host.stop(Duration::from_secs(10)).await,
        "everything in hand was finished"
    );
}

/// Tries twice at once and twice later, quickly.
pub fn quick_retry() -> Retry {
    Retry {
        immediate: 1,
        delayed: 2,
        delay: Duration::from_millis(20),
        delay_max: Duration::from_millis(40),
        ..Retry::default()
    }
}
