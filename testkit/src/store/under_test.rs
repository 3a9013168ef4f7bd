//! A store as the suite gets it, and how one behaviour is run on it.

use std::any::Any;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use sagabus_core::store::{Store, StoreAdmin};

use super::harness::Harness;
use crate::service;

/// How long one behaviour may take. The races take a few seconds on a busy machine.
const BEHAVIOUR_MAX: Duration = Duration::from_secs(120);

/// A fresh, migrated, empty store.
pub struct StoreUnderTest {
    /// The store.
    pub store: Arc<dyn Store>,
    /// Its administration.
    pub admin: Arc<dyn StoreAdmin>,
    /// The same database as another process would reach it: with connections of its own, where
    /// there are connections.
    pub peer: Arc<dyn Store>,
    /// What this backend does not do.
    pub lacks: Vec<Skippable>,
    /// What must live as long as the store: a folder, a container.
    pub keep: Option<Box<dyn Any + Send + Sync>>,
}

impl std::fmt::Debug for StoreUnderTest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StoreUnderTest")
            .field("store", &self.store)
            .field("lacks", &self.lacks)
            .finish_non_exhaustive()
    }
}

impl StoreUnderTest {
    /// Takes a store that does everything. `S` is cloned: clones share one database.
    pub fn new<S: Store + StoreAdmin + Clone>(store: S) -> Self {
        Self {
            admin: Arc::new(store.clone()),
            peer: Arc::new(store.clone()),
            store: Arc::new(store),
            lacks: Vec::new(),
            keep: None,
        }
    }

    /// Names a second way to the same database, with connections of its own.
    #[must_use]
    pub fn with_peer(mut self, peer: impl Store) -> Self {
        self.peer = Arc::new(peer);
        self
    }

    /// Says what this backend does not do.
    #[must_use]
    pub fn lacking(mut self, lacks: impl IntoIterator<Item = Skippable>) -> Self {
        self.lacks.extend(lacks);
        self
    }

    /// Keeps something alive as long as the store.
    #[must_use]
    pub fn keeping(mut self, keep: impl Any + Send + Sync) -> Self {
        self.keep = Some(Box::new(keep));
        self
    }
}

/// What a backend may honestly not do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Skippable {
    /// Refusing a NUL character in a text column: some databases store it.
    RefusesNul,
    /// Waking a peer before it polls.
    WakesPeers,
}

/// What a backend's conformance test allows itself to skip; everything else must be there.
pub type Allowed = &'static [Skippable];

/// Says that a backend cannot be tested here, and why; what a factory returns then.
///
/// # Panics
/// When `SAGABUS_SERVICES_REQUIRED` is set: where services are promised, a missing one is a
/// failure.
pub fn unavailable(reason: &str) -> Option<StoreUnderTest> {
    service::skip(reason);
    None
}

/// Runs one behaviour on a fresh store, on a runtime of its own.
///
/// # Panics
/// When the behaviour is not kept, or takes longer than two minutes.
pub fn run<B>(
    name: &str,
    allowed: Allowed,
    factory: impl Future<Output = Option<StoreUnderTest>>,
    behaviour: impl FnOnce(Arc<Harness>) -> B,
) where
    B: Future<Output = ()>,
{
    service::block_on(async {
        let Some(under_test) = factory.await else {
            return;
        };
        let keep = Harness::attach(name, under_test, allowed).await;
        tokio::time::timeout(BEHAVIOUR_MAX, behaviour(Arc::clone(&keep)))
            .await
            .unwrap_or_else(|_| panic!("{name} takes longer than {BEHAVIOUR_MAX:?}"));
        keep.stop().await;
    });
}
