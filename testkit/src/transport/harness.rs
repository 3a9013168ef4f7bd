//! Names of this test alone, and short words for calling a transport.

use std::any::Any;
use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use sagabus_core::endpoint::{EndpointName, Order};
use sagabus_core::envelope::Envelope;
use sagabus_core::error::TransportError;
use sagabus_core::headers::Headers;
use sagabus_core::id::{MessageId, StoreId};
use sagabus_core::message::Kind;
use sagabus_core::store::{EndpointSpec, Subscription};
use sagabus_core::transport::{Delivery, Publication, Transport, address};

use super::under_test::{Allowed, Breakable, Skippable, TransportUnderTest};
use crate::service;
use crate::wait::PATIENCE;

/// How many deliveries a replica takes in hand, where a test does not care.
const PREFETCH: u32 = 50;

/// A transport with endpoints whose names no other test uses.
pub struct Harness {
    /// The transport.
    pub transport: Arc<dyn Transport>,
    /// The same broker, as another process reaches it.
    pub peer: Arc<dyn Transport>,
    /// The store that owns the endpoints.
    pub store: StoreId,
    pub(super) destinations: usize,
    lacks: Vec<Skippable>,
    breakable: Option<Arc<dyn Breakable>>,
    allowed: Allowed,
    name: String,
    scope: String,
    _keep: Option<Box<dyn Any + Send + Sync>>,
}

impl fmt::Debug for Harness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Harness")
            .field("transport", &self.transport)
            .field("scope", &self.scope)
            .finish_non_exhaustive()
    }
}

/// A stream of deliveries.
pub(super) type Deliveries = BoxStream<'static, Delivery>;

impl Harness {
    pub(super) fn new(name: &str, test: TransportUnderTest, allowed: Allowed) -> Arc<Self> {
        let id = MessageId::new().as_uuid().simple().to_string();
        Arc::new(Self {
            transport: test.transport,
            peer: test.peer,
            store: StoreId::new(),
            destinations: test.destinations,
            lacks: test.lacks,
            breakable: test.breakable,
            allowed,
            name: name.to_owned(),
            // The end of a new identity is its random part.
            scope: id[20..].to_owned(),
            _keep: test.keep,
        })
    }

    /// Says whether the transport does something that it may honestly not do, and prints it if not.
    ///
    /// # Panics
    /// When the transport's conformance test does not allow itself to skip it.
    pub fn can(&self, what: Skippable) -> bool {
        let capabilities = self.transport.capabilities();
        let does = match what {
            Skippable::ReportsUnroutable => capabilities.reports_unroutable,
            Skippable::OrderedPublish => capabilities.ordered_publish,
            Skippable::CountsRedeliveries => capabilities.counts_redeliveries,
            Skippable::OrdersByKey => capabilities.order == Order::PerKey,
            Skippable::TellsStoresApart => true,
            Skippable::CutsConnections => self.breakable.is_some(),
            // Known when it is tried.
            Skippable::Nacks | Skippable::CutsBeforeConfirm => self.breakable.is_some(),
        };
        (does && !self.lacks.contains(&what)) || self.skip(what)
    }

    /// Prints that something is skipped and returns false.
    pub(super) fn skip(&self, what: Skippable) -> bool {
        assert!(
            self.allowed.contains(&what),
            "{} skips {what:?}, which its conformance test does not allow",
            self.name
        );
        // A test's thread has its whole name, and with it whose conformance this is.
        let thread = std::thread::current();
        let test = thread.name().unwrap_or(&self.name);
        service::say(&format!("SKIPPED CAPABILITY: {what:?} in {test}"));
        false
    }

    /// Returns how to break the broker, once [`can`](Self::can) has said that it is possible.
    pub(super) fn breakable(&self) -> &dyn Breakable {
        self.breakable.as_deref().expect("`can` was asked before")
    }

    /// Makes a message type of this test.
    pub fn message_type(&self, name: &str) -> String {
        format!("shop.{name}.{}", self.scope)
    }

    /// Describes an endpoint of this test that takes events.
    pub fn endpoint(&self, name: &str, events: &[&str]) -> EndpointSpec {
        let taken = events.iter().map(|event| (Kind::Event, *event));
        self.endpoint_taking(name, Order::Unordered, taken)
    }

    /// Describes an endpoint of this test.
    pub fn endpoint_taking<'a>(
        &self,
        name: &str,
        order: Order,
        taken: impl IntoIterator<Item = (Kind, &'a str)>,
    ) -> EndpointSpec {
        let subscriptions = taken.into_iter().map(|(kind, name)| Subscription {
            message_type: self.message_type(name).into(),
            kind,
        });
        EndpointSpec {
            name: EndpointName::new(&format!("{name}-{}", self.scope))
                .expect("the suite's endpoint names are usable"),
            order,
            subscriptions: subscriptions.collect(),
        }
    }

    /// Declares endpoints.
    pub async fn declare(&self, endpoints: &[&EndpointSpec]) {
        let endpoints: Vec<_> = endpoints.iter().copied().cloned().collect();
        let declared = self.transport.declare(self.store, &endpoints).await;
        declared.expect("endpoints are declared");
    }

    /// Starts to receive for an endpoint.
    pub async fn receive(&self, endpoint: &EndpointSpec) -> Deliveries {
        subscribe(&*self.transport, endpoint, PREFETCH).await
    }

    /// Makes a message for an address.
    pub fn message(&self, kind: Kind, name: &str) -> Publication {
        let message_type = self.message_type(name);
        let headers: Headers = [
            ("content-type", "application/json"),
            ("sagabus-kind", kind.as_str()),
        ]
        .into_iter()
        .collect();
        Publication {
            address: address(kind, &message_type),
            envelope: Envelope {
                id: MessageId::new(),
                message_type: message_type.into(),
                headers,
                body: Bytes::from_static(br#"{"order":1}"#),
            },
            key: None,
        }
    }

    /// Makes an event.
    pub fn event(&self, name: &str) -> Publication {
        self.message(Kind::Event, name)
    }

    /// Makes several events of a type, and lists their identities.
    pub fn events(&self, name: &str, count: usize) -> (Vec<Publication>, Vec<MessageId>) {
        let events: Vec<_> = (0..count).map(|_| self.event(name)).collect();
        let ids = events.iter().map(|one| one.envelope.id).collect();
        (events, ids)
    }

    /// Publishes messages that the broker must take.
    pub async fn publish(&self, window: &[Publication]) {
        for (index, answer) in self.answers(window).await.into_iter().enumerate() {
            answer.unwrap_or_else(|error| panic!("message {index} was not taken: {error:?}"));
        }
    }

    /// Publishes messages, and returns the answers.
    pub async fn answers(&self, window: &[Publication]) -> Vec<Result<(), TransportError>> {
        let answers = self.transport.publish(window).await;
        assert_eq!(answers.len(), window.len(), "one answer per message");
        answers
    }

    /// Publishes messages until each was taken, as the relay does it.
    pub async fn publish_until_taken(&self, window: &[Publication]) {
        let mut left = window.to_vec();
        let look = async {
            while !left.is_empty() {
                let answers = self.answers(&left).await;
                let mut answers = answers.into_iter();
                left.retain(|_| answers.next().is_none_or(|answer| answer.is_err()));
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        let ended = tokio::time::timeout(PATIENCE, look).await;
        ended.expect("the transport reconnects and publishes");
    }
}

/// Starts to receive for an endpoint.
pub(super) async fn subscribe(
    transport: &dyn Transport,
    endpoint: &EndpointSpec,
    prefetch: u32,
) -> Deliveries {
    let deliveries = transport.subscribe(endpoint, prefetch).await;
    deliveries.expect("a declared endpoint can be received for")
}

/// Waits for the next delivery.
pub(super) async fn next(deliveries: &mut Deliveries) -> Delivery {
    tokio::time::timeout(PATIENCE, deliveries.next())
        .await
        .expect("a delivery comes")
        .expect("the stream goes on")
}

/// Receives and acks a number of messages, and returns their identities in the order in which they
/// came.
pub(super) async fn ack(deliveries: &mut Deliveries, count: usize) -> Vec<MessageId> {
    let mut ids = Vec::new();
    for _ in 0..count {
        let delivery = next(deliveries).await;
        ids.push(delivery.envelope.id);
        delivery.ack().await;
    }
    ids
}

/// Receives and acks until every wanted message has come; what comes besides must have been sent.
pub(super) async fn ack_all(deliveries: &mut Deliveries, wanted: &[MessageId], sent: &[MessageId]) {
    let mut missing: HashSet<_> = wanted.iter().copied().collect();
    while !missing.is_empty() {
        let delivery = next(deliveries).await;
        assert!(sent.contains(&delivery.envelope.id), "nobody sent this");
        missing.remove(&delivery.envelope.id);
        delivery.ack().await;
    }
}

/// Sorts identities, for comparing where no order is promised.
pub(super) fn sorted(mut ids: Vec<MessageId>) -> Vec<MessageId> {
    ids.sort();
    ids
}
