//! A transport that is another one but for a few answers.

use std::fmt;

use futures_util::future::BoxFuture;
use futures_util::stream::BoxStream;
use sagabus_core::StoreId;
use sagabus_core::error::TransportError;
use sagabus_core::store::EndpointSpec;
use sagabus_core::transport::{Capabilities, Delivery, Health, Publication, Transport};

/// What differs from the transport that it stands before; whatever is not said is as there.
pub trait Alteration: fmt::Debug + Send + Sync {
    /// Returns the transport that it stands before.
    fn transport(&self) -> &dyn Transport;

    /// Stands before [`Transport::capabilities`].
    fn capabilities(&self) -> Capabilities {
        self.transport().capabilities()
    }

    /// Stands before [`Transport::topology`].
    fn topology(&self, endpoints: &[EndpointSpec]) -> serde_json::Value {
        self.transport().topology(endpoints)
    }

    /// Stands before [`Transport::declare`].
    fn declare<'a>(
        &'a self,
        store: StoreId,
        endpoints: &'a [EndpointSpec],
    ) -> BoxFuture<'a, Result<(), TransportError>> {
        self.transport().declare(store, endpoints)
    }

    /// Stands before [`Transport::publish`].
    fn publish<'a>(
        &'a self,
        window: &'a [Publication],
    ) -> BoxFuture<'a, Vec<Result<(), TransportError>>> {
        self.transport().publish(window)
    }

    /// Stands before [`Transport::subscribe`].
    fn subscribe<'a>(
        &'a self,
        endpoint: &'a EndpointSpec,
        prefetch: u32,
    ) -> BoxFuture<'a, Result<BoxStream<'static, Delivery>, TransportError>> {
        self.transport().subscribe(endpoint, prefetch)
    }
}

/// A transport with an alteration.
#[derive(Clone, Debug)]
pub struct Altered<A>(pub A);

impl<A: Alteration> Transport for Altered<A> {
    fn capabilities(&self) -> Capabilities {
        self.0.capabilities()
    }

    fn declare<'a>(
        &'a self,
        store: StoreId,
        endpoints: &'a [EndpointSpec],
    ) -> BoxFuture<'a, Result<(), TransportError>> {
        self.0.declare(store, endpoints)
    }

    fn publish<'a>(
        &'a self,
        window: &'a [Publication],
    ) -> BoxFuture<'a, Vec<Result<(), TransportError>>> {
        self.0.publish(window)
    }

    fn subscribe<'a>(
        &'a self,
        endpoint: &'a EndpointSpec,
        prefetch: u32,
    ) -> BoxFuture<'a, Result<BoxStream<'static, Delivery>, TransportError>> {
        self.0.subscribe(endpoint, prefetch)
    }

    fn topology(&self, endpoints: &[EndpointSpec]) -> serde_json::Value {
        self.0.topology(endpoints)
    }

    fn health(&self) -> Health {
        self.0.transport().health()
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        self.0.transport().close()
    }
}
