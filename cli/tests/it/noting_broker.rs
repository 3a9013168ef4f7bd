//! A broker that takes every message and notes which.

use std::collections::HashSet;
use std::sync::{Arc, Mutex};

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use futures_util::stream::BoxStream;
use sagabus_core::memory::MemoryTransport;
use sagabus_core::store::EndpointSpec;
use sagabus_core::transport::Publication;
use sagabus_core::{Capabilities, Delivery, Health, MessageId, StoreId, Transport, TransportError};

/// Clones share what they note.
#[derive(Clone, Debug, Default)]
pub(crate) struct NotingBroker {
    broker: MemoryTransport,
    taken: Arc<Mutex<Vec<MessageId>>>,
}

impl NotingBroker {
    /// Forgets what it has noted.
    pub(crate) fn forget(&self) {
        self.taken.lock().unwrap().clear();
    }

    /// Counts what it took, and how many messages that were.
    pub(crate) fn taken(&self) -> (u64, u64) {
        let taken = self.taken.lock().unwrap();
        let distinct: HashSet<_> = taken.iter().collect();
        (taken.len() as u64, distinct.len() as u64)
    }
}

impl Transport for NotingBroker {
    fn capabilities(&self) -> Capabilities {
        self.broker.capabilities()
    }

    fn declare<'a>(
        &'a self,
        store: StoreId,
        endpoints: &'a [EndpointSpec],
    ) -> BoxFuture<'a, Result<(), TransportError>> {
        self.broker.declare(store, endpoints)
    }

    fn publish<'a>(
        &'a self,
        window: &'a [Publication],
    ) -> BoxFuture<'a, Vec<Result<(), TransportError>>> {
        let ids = window.iter().map(|one| one.envelope.id);
        self.taken.lock().unwrap().extend(ids);
        std::future::ready(window.iter().map(|_| Ok(())).collect()).boxed()
    }

    fn subscribe<'a>(
        &'a self,
        endpoint: &'a EndpointSpec,
        prefetch: u32,
    ) -> BoxFuture<'a, Result<BoxStream<'static, Delivery>, TransportError>> {
        self.broker.subscribe(endpoint, prefetch)
    }

    fn health(&self) -> Health {
        self.broker.health()
    }
}
