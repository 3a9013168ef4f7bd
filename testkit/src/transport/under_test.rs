//! A transport as the suite gets it, and how one behaviour is run on it.

use std::any::Any;
use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use sagabus_core::transport::Transport;

use super::harness::Harness;
use crate::service;

/// How long one behaviour may take, reconnecting included.
const BEHAVIOUR_MAX: Duration = Duration::from_secs(120);

/// A connection to a broker. Names are unique per test, so the broker need not be empty.
pub struct TransportUnderTest {
    /// The transport.
    pub transport: Arc<dyn Transport>,
    /// The same broker, as another process reaches it.
    pub peer: Arc<dyn Transport>,
    /// What this broker does not do, beside what its capabilities say.
    pub lacks: Vec<Skippable>,
    /// How to break the broker, where that is possible.
    pub breakable: Option<Arc<dyn Breakable>>,
    /// To how many destinations the suite sends.
    pub destinations: usize,
    /// What must live as long as the transport.
    pub keep: Option<Box<dyn Any + Send + Sync>>,
}

impl fmt::Debug for TransportUnderTest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TransportUnderTest")
            .field("transport", &self.transport)
            .finish_non_exhaustive()
    }
}

impl TransportUnderTest {
    /// Takes two ways to one broker.
    pub fn new(transport: impl Transport + 'static, peer: impl Transport + 'static) -> Self {
        Self {
            transport: Arc::new(transport),
            peer: Arc::new(peer),
            lacks: Vec::new(),
            breakable: None,
            destinations: 200,
            keep: None,
        }
    }

    /// Says what this broker does not do.
    #[must_use]
    pub fn lacking(mut self, lacks: impl IntoIterator<Item = Skippable>) -> Self {
        self.lacks.extend(lacks);
        self
    }

    /// Says how the broker is broken.
    #[must_use]
    pub fn breaking(mut self, breakable: impl Breakable + 'static) -> Self {
        self.breakable = Some(Arc::new(breakable));
        self
    }

    /// Has the suite send to so many destinations, where they cost little. Default 200.
    #[must_use]
    pub fn reaching(mut self, destinations: usize) -> Self {
        self.destinations = destinations;
        self
    }

    /// Keeps something alive as long as the transport.
    #[must_use]
    pub fn keeping(mut self, keep: impl Any + Send + Sync) -> Self {
        self.keep = Some(Box::new(keep));
        self
    }
}

/// A broker that can be broken on purpose.
pub trait Breakable: Send + Sync {
    /// Cuts every connection that there is now. New ones are accepted.
    fn cut_connections(&self) -> BoxFuture<'_, ()>;

    /// Refuses a number of the next publications to an address, after letting some pass. `false`
    /// where this broker cannot be made to.
    fn nack<'a>(&'a self, address: &'a str, pass: u32, times: u32) -> BoxFuture<'a, bool>;

    /// Takes the next publication to an address and cuts its connection before the confirm. `false`
    /// where this broker cannot be made to.
    fn cut_before_confirm<'a>(&'a self, address: &'a str) -> BoxFuture<'a, bool>;
}

/// What a transport may honestly not do: [`Capabilities`](sagabus_core::Capabilities), and what its
/// broker cannot be made to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Skippable {
    /// `reports_unroutable`.
    ReportsUnroutable,
    /// `ordered_publish`.
    OrderedPublish,
    /// `counts_redeliveries`.
    CountsRedeliveries,
    /// `order` is per key.
    OrdersByKey,
    /// It tells stores apart that share its endpoints: a database that is the bus has one.
    TellsStoresApart,
    /// The suite can cut connections.
    CutsConnections,
    /// The suite can have a publication refused.
    Nacks,
    /// The suite can cut a connection between a publication and its confirm.
    CutsBeforeConfirm,
}

/// What a transport's conformance test allows itself to skip; everything else must be there.
pub type Allowed = &'static [Skippable];

/// Says that a transport cannot be tested here, and why; what a factory returns then.
///
/// # Panics
/// When `SAGABUS_SERVICES_REQUIRED` is set: where services are promised, a missing one is a
/// failure.
pub fn unavailable(reason: &str) -> Option<TransportUnderTest> {
    service::skip(reason);
    None
}

/// Runs one behaviour on a transport, on a runtime of its own.
///
/// # Panics
/// When the behaviour is not kept, or takes longer than two minutes.
pub fn run<B>(
    name: &str,
    allowed: Allowed,
    factory: impl Future<Output = Option<TransportUnderTest>>,
    behaviour: impl FnOnce(Arc<Harness>) -> B,
) where
    B: Future<Output = ()>,
{
    service::block_on(async {
        let Some(under_test) = factory.await else {
            return;
        };
        let harness = Harness::new(name, under_test, allowed);
        tokio::time::timeout(BEHAVIOUR_MAX, behaviour(harness))
            .await
            .unwrap_or_else(|_| panic!("{name} takes longer than {BEHAVIOUR_MAX:?}"));
    });
}
