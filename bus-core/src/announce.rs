//! Listen-to-yourself: an event goes to the broker first, and our own endpoint applies it.
//!
//! For facts that cannot be refused: the announcement touches no database, so an API stays up while
//! the database is down. State and announcement converge when the endpoint applies the event through
//! its inbox, or raise an alarm as a dead letter. (The name is from the microservice literature;
//! others call it "event-carried command" or "publish first".)

use std::collections::HashMap;
use std::future::IntoFuture;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;

use crate::backoff::Backoff;
use crate::bus::{Bus, Sending};
use crate::endpoint::EndpointId;
use crate::envelope::Outgoing;
use crate::error::{BusError, TransportError};
use crate::id::MessageId;
use crate::lifecycle::Lifecycle;
use crate::message::Kind;
use crate::store::{Fate, Question, Store};
use crate::sync::time::{Instant, sleep_until, timeout_at};
use crate::transport::{Publication, Transport, address};
use crate::transports::Transports;

/// The pause after the first look at what became of an announcement; doubled after each.
const LOOK_FIRST: Duration = Duration::from_millis(5);
/// The longest pause between two looks.
const LOOK_LONGEST: Duration = Duration::from_millis(250);

/// What a running host needs for announcing.
#[derive(Clone, Debug)]
pub(crate) struct Announcer {
    pub(crate) transports: Arc<Transports>,
    pub(crate) store: Arc<dyn Store>,
    /// The types that the host announces, with its endpoints that apply them.
    pub(crate) appliers: Arc<HashMap<String, Vec<EndpointId>>>,
    pub(crate) lifecycle: Lifecycle,
}

impl Announcer {
    fn appliers(&self, message_type: &str) -> Result<&[EndpointId], BusError> {
        let found = self.appliers.get(message_type);
        found.map(Vec::as_slice).ok_or(BusError::NotAnnounced {
            message_type: message_type.to_owned(),
        })
    }

    /// Publishes until the broker has taken it, every time with the same identity and bytes.
    async fn publish(&self, transport: &dyn Transport, outgoing: Outgoing) -> Result<(), BusError> {
        let message_type = outgoing.envelope.message_type.as_ref();
        let window = [Publication {
            address: address(Kind::Event, message_type),
            envelope: outgoing.envelope,
            key: outgoing.key,
        }];
        let mut outage = Backoff::new("announce");
        loop {
            let results = tokio::select! {
                biased;
                results = transport.publish(&window) => results,
                () = self.lifecycle.draining() => {
                    let stopped = TransportError::Unknown("the host was stopped".into());
                    return Err(stopped.into());
                }
            };
            let result = results
                .into_iter()
                .next()
                .unwrap_or_else(|| Err(TransportError::Unknown("no answer".into())));
            match result {
                Ok(()) => {
                    outage.ended();
                    return Ok(());
                }
                Err(error @ (TransportError::Unavailable(_) | TransportError::Unknown(_))) => {
                    outage.failed(&error).await;
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Looks until the message is applied or given up at every endpoint, or the time is over. A
    /// database that does not answer knows nothing.
    async fn await_fate(&self, endpoints: &[EndpointId], id: MessageId, time: Duration) -> Fate {
        let deadline = Instant::now() + time;
        let questions: Vec<_> = endpoints
            .iter()
            .map(|endpoint| Question {
                fate: Some((*endpoint, id)),
                ..Question::default()
            })
            .collect();
        let mut pause = LOOK_FIRST;
        loop {
            let looked = timeout_at(deadline, self.store.load(&questions)).await;
            if let Ok(Ok(answers)) = looked {
                let fates = || answers.iter().map(|one| one.fate.unwrap_or(Fate::Pending));
                if fates().any(|fate| fate == Fate::DeadLettered) {
                    return Fate::DeadLettered;
                }
                if fates().all(|fate| fate == Fate::Applied) {
                    return Fate::Applied;
                }
            }
            let now = Instant::now();
            if now >= deadline {
                return Fate::Pending;
            }
            sleep_until(deadline.min(now + pause)).await;
            pause = (pause * 2).min(LOOK_LONGEST);
        }
    }
}

/// An event about to be announced: set options, then await it for its identity, or wait until it
/// is applied with [`applied_within`](Self::applied_within).
#[must_use = "nothing is announced before it is awaited"]
#[derive(Debug)]
pub struct Announcing<'a> {
    sending: Sending<'a>,
}

impl<'a> Announcing<'a> {
    pub(crate) fn new(sending: Sending<'a>) -> Self {
        Self { sending }
    }

    /// Gives the event an identity of the caller's, so that the same call can be made again: a
    /// second event with this identity is recognised where it is applied and changes nothing.
    pub fn with_id(self, id: MessageId) -> Self {
        Self::new(self.sending.with_id(id))
    }

    /// Sets the key that keeps order where the destination promises it.
    pub fn key(self, key: impl Into<String>) -> Self {
        Self::new(self.sending.key(key))
    }

    /// Sets a header.
    pub fn header(self, name: &str, value: &str) -> Self {
        Self::new(self.sending.header(name, value))
    }

    /// Announces the event, then waits for up to `time` until every endpoint of this service that
    /// takes it has applied it, in whichever process its handler ran.
    ///
    /// [`Fate::Pending`] after that time means not yet, also where the database did not answer: the
    /// event is with the broker and will be applied or become a dead letter.
    ///
    /// # Errors
    /// As awaiting it without a time.
    ///
    /// # Cancel safety
    /// A dropped call may or may not have announced.
    pub async fn applied_within(self, time: Duration) -> Result<Fate, BusError> {
        let (bus, announcer, outgoing) = self.sending.into_announcement()?;
        let id = outgoing.envelope.id;
        let endpoints = announcer
            .appliers(&outgoing.envelope.message_type)?
            .to_vec();
        announce(bus, &announcer, outgoing).await?;
        Ok(announcer.await_fate(&endpoints, id, time).await)
    }
}

impl<'a> IntoFuture for Announcing<'a> {
    type Output = Result<MessageId, BusError>;
    type IntoFuture = BoxFuture<'a, Self::Output>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move {
            let (bus, announcer, outgoing) = self.sending.into_announcement()?;
            announcer.appliers(&outgoing.envelope.message_type)?;
            let id = outgoing.envelope.id;
            announce(bus, &announcer, outgoing).await?;
            Ok(id)
        })
    }
}

/// Hands an event to the broker; where the database is the bus, writes it to the outbox.
async fn announce(bus: &Bus, announcer: &Announcer, outgoing: Outgoing) -> Result<(), BusError> {
    match announcer.transports.of(&outgoing.envelope.message_type) {
        Some((_, transport)) => announcer.publish(&**transport, outgoing).await,
        None => bus.store_all(vec![outgoing]).await,
    }
}
