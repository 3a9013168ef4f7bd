//! What a broker must do for us, and a delivery that is settled exactly once.

use std::fmt;
use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::stream::BoxStream;

use crate::clock::Timestamp;
use crate::endpoint::{EndpointName, Order};
use crate::envelope::Envelope;
use crate::error::TransportError;
use crate::id::StoreId;
use crate::message::Kind;
use crate::store::EndpointSpec;

/// A broker. Implemented for the in-memory broker, RabbitMQ and Kafka.
pub trait Transport: Send + Sync + fmt::Debug {
    /// Says what this broker can do. Never changes for a given configuration.
    fn capabilities(&self) -> Capabilities;

    /// Creates or verifies what the endpoints of `store` need. Idempotent; never loosens what
    /// exists.
    ///
    /// `Ok` promises that what is published from now on reaches the endpoints that take it, and waits
    /// for them; and that each endpoint is marked as owned by that store: two stores that share an
    /// endpoint would each recognise only the half of its messages that they have seen.
    ///
    /// # Errors
    /// [`TransportError::Setup`] with what to do, also where an endpoint is owned by another store;
    /// [`TransportError::Unavailable`] where the broker cannot be reached.
    ///
    /// # Cancel safety
    /// Declaring again is harmless.
    fn declare<'a>(
        &'a self,
        store: StoreId,
        endpoints: &'a [EndpointSpec],
    ) -> BoxFuture<'a, Result<(), TransportError>>;

    /// Publishes a window of messages and waits for the broker's word on each.
    ///
    /// Returns one result per publication, in order. `Ok` promises that the broker took
    /// responsibility and the message was routed (or is an event, which may have no subscriber).
    ///
    /// # Errors
    /// Of each message its own: [`TransportError::Unroutable`] and [`TransportError::Refused`] where
    /// the broker does not have it, [`TransportError::Unavailable`] where it was not sent,
    /// [`TransportError::Unknown`] where nobody can tell.
    ///
    /// # Cancel safety
    /// What was published by a dropped call is unknown: publish again, with the same id and bytes.
    fn publish<'a>(
        &'a self,
        window: &'a [Publication],
    ) -> BoxFuture<'a, Vec<Result<(), TransportError>>>;

    /// Starts receiving for an endpoint. The stream ends when `Delivery`s can no longer come; the
    /// transport reconnects by itself before that.
    ///
    /// `Ok` promises that every message that waits at the endpoint comes, to this replica or another,
    /// with at most `prefetch` of them in hand here at a time, and comes again until it is acked.
    ///
    /// # Errors
    /// [`TransportError::Setup`] with what to do, also where nobody declared the endpoint;
    /// [`TransportError::Unavailable`] where the broker cannot be reached.
    ///
    /// # Cancel safety
    /// Deliveries of a dropped stream are delivered again.
    fn subscribe<'a>(
        &'a self,
        endpoint: &'a EndpointSpec,
        prefetch: u32,
    ) -> BoxFuture<'a, Result<BoxStream<'static, Delivery>, TransportError>>;

    /// Says what [`declare`](Self::declare) makes sure of for these endpoints, as JSON for people:
    /// lists of what has a `name`, by kind (`queues`, `topics`), with its settings. Holds no
    /// secret and no address. Asks nobody.
    fn topology(&self, endpoints: &[EndpointSpec]) -> serde_json::Value {
        let _ = endpoints; // Where there is nothing to declare.
        serde_json::Value::Null
    }

    /// Says how the broker is doing, as far as this process knows. Asks nobody, so it never waits.
    fn health(&self) -> Health;

    /// Waits until the broker has every answer to a delivery, and leaves it. Called when the host
    /// has stopped and its streams are dropped; what a host leaves in order, another one takes over
    /// at once.
    ///
    /// # Cancel safety
    /// What was not told is a redelivery.
    fn close(&self) -> BoxFuture<'_, ()> {
        Box::pin(std::future::ready(()))
    }
}

/// Returns the address of a message type, as every transport understands it: where a command of this
/// type is sent, or an event of this type is published. Each has a name of its own for it, so that
/// rows that were written for one broker are sent by another.
pub fn address(kind: Kind, message_type: &str) -> String {
    [kind.as_str(), "/", message_type].concat()
}

/// Returns the address of an endpoint, as every transport understands it: where an answer to it
/// goes. The endpoint may be another database's.
pub fn endpoint_address(endpoint: &EndpointName) -> String {
    format!("endpoint/{endpoint}")
}

/// Fails to compile if `Transport` cannot be used as `dyn Transport`.
fn _obj_safe(_: &dyn Transport) {}

/// What a broker can do, as data: the engine branches on it, the conformance suite is chosen by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capabilities {
    /// What kind of broker it is, in a word for people.
    pub broker: &'static str,
    /// A command without a receiver is reported as unroutable.
    pub reports_unroutable: bool,
    /// Messages of one key, published in one window, arrive in order.
    pub ordered_publish: bool,
    /// A delivery says how often it was delivered before.
    pub counts_redeliveries: bool,
    /// How often the broker delivers a message before it gives it up by itself.
    pub deliveries: Deliveries,
    /// An ack counts for its message alone. Where it does not, an acked message behind one that is
    /// not may come again after its replica is lost.
    pub acks_each: bool,
    /// The order that a subscription can keep.
    pub order: Order,
    /// The largest body in bytes.
    pub body_bytes_max: usize,
}

/// How often a broker delivers a message that nobody acks. Lost connections and killed hosts count,
/// so a low limit drops healthy messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deliveries {
    /// Always again.
    Unlimited,
    /// So often.
    Limited(u32),
    /// Somebody else made the queues, and the broker does not tell.
    Unknown,
}

/// How a broker is doing, as a process that uses it sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Health {
    /// Nothing is known to be wrong.
    Connected,
    /// The broker takes no messages for now, for example because it runs out of disk; deliveries
    /// go on.
    Blocked {
        /// Since when, by this machine's clock.
        since: Timestamp,
        /// The broker's word, for people.
        reason: String,
    },
    /// The connection is lost or was never made; the transport keeps trying.
    Reconnecting {
        /// Since when, by this machine's clock.
        since: Timestamp,
        /// The last error, for people. Never contains a password.
        error: String,
    },
}

/// One message on its way to a broker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Publication {
    /// Where to.
    pub address: String,
    /// The message.
    pub envelope: Envelope,
    /// Its key.
    pub key: Option<String>,
}

/// A message that a broker handed to us and still counts as ours.
///
/// Settled exactly once, by giving it away. A dropped delivery is a redelivery.
pub struct Delivery {
    /// The message. Where the broker's message lacks an identity or a type, the transport fills in
    /// a derived identity and an empty type, and the endpoint makes a dead letter of it.
    pub envelope: Envelope,
    /// How often it was delivered before, where the broker counts.
    pub redeliveries: u32,
    /// The endpoint that it came to.
    pub endpoint: EndpointName,
    settler: Box<dyn Settler>,
}

impl Delivery {
    /// Wraps what a broker delivered, with the way to answer it.
    pub fn new(
        endpoint: EndpointName,
        envelope: Envelope,
        redeliveries: u32,
        settler: Box<dyn Settler>,
    ) -> Self {
        Self {
            envelope,
            redeliveries,
            endpoint,
            settler,
        }
    }

    /// Tells the broker that the message is ours for good. Only after the commit.
    ///
    /// # Cancel safety
    /// A lost ack is a redelivery, which the inbox recognises.
    pub async fn ack(self) {
        self.settler.settle(Verdict::Ack).await;
    }

    /// Gives the message back, to be delivered again after about `delay`.
    ///
    /// # Cancel safety
    /// A lost answer is a redelivery as well.
    pub async fn retry_after(self, delay: Duration) {
        self.settler.settle(Verdict::RetryAfter(delay)).await;
    }
}

impl fmt::Debug for Delivery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Delivery")
            .field("id", &self.envelope.id)
            .field("message_type", &self.envelope.message_type)
            .field("redeliveries", &self.redeliveries)
            .finish_non_exhaustive()
    }
}

/// How a delivery is answered. A settler that is dropped unused gives its message back.
pub trait Settler: Send + Sync {
    /// Answers the broker. A failure to do so is a redelivery, never an error to handle.
    fn settle(self: Box<Self>, verdict: Verdict) -> BoxFuture<'static, ()>;
}

/// The answer to a delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Taken over.
    Ack,
    /// Again, after about this long.
    RetryAfter(Duration),
}
