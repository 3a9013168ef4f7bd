//! What an API uses: send, publish, schedule, outside of any handler.

use std::fmt;
use std::future::{Future, IntoFuture};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use futures_util::future::BoxFuture;

use crate::announce::{Announcer, Announcing};
use crate::asking::Requesting;
use crate::clock::Timestamp;
use crate::committer::{Answer, CommitterHandle};
use crate::context::HostFacts;
use crate::endpoint::{Destination, EndpointName};
use crate::envelope::{Due, Identity, Outgoing};
use crate::error::{BusError, CodecError};
use crate::headers;
use crate::id::MessageId;
use crate::message::{Command, Event, Message};
use crate::overload::Overload;
use crate::protection;
use crate::sync::RwLock;
use crate::unit_of_work::UnitOfWork;

tokio::task_local! {
    /// Set while a handler runs.
    static INSIDE_HANDLER: ();
}

/// Runs a handler with the mark that makes every `Bus` refuse.
#[cfg(not(sagabus_shuttle))]
pub(crate) fn inside_handler<F: Future>(handler: F) -> impl Future<Output = F::Output> {
    INSIDE_HANDLER.scope((), handler)
}

/// Runs a handler. The mark is a thread's, and shuttle has one thread for all tasks.
#[cfg(sagabus_shuttle)]
pub(crate) fn inside_handler<F: Future>(handler: F) -> impl Future<Output = F::Output> {
    handler
}

/// Sends and publishes from outside of handlers. Cheap to clone; shared by all of a process.
///
/// Each call is durable when it returns `Ok`, and waits for as long as the database cannot be
/// reached. To commit a message together with your own rows, use
/// `store.begin(&bus)` or `bus.outbox(&mut your_transaction)`.
#[derive(Clone, Default)]
pub struct Bus {
    running: Arc<RwLock<Option<Running>>>,
}

/// What a bus needs of its running host.
#[derive(Clone)]
pub(crate) struct Running {
    pub(crate) committer: CommitterHandle,
    pub(crate) facts: Arc<HostFacts>,
    pub(crate) announcer: Announcer,
    pub(crate) overload: Arc<Overload>,
}

impl Bus {
    /// Sends a command to its owner. Await it; options go before: `.with_id(..)`, `.after(..)`.
    pub fn send<C: Command>(&self, command: C) -> Sending<'_> {
        Sending {
            bus: self,
            outgoing: Outgoing::new(&command),
        }
    }

    /// Publishes an event to everyone who subscribed. Await it; options go before.
    pub fn publish<E: Event>(&self, event: E) -> Sending<'_> {
        Sending {
            bus: self,
            outgoing: Outgoing::new(&event),
        }
    }

    /// Asks: sends a command to its owner and waits for what its handler answers, which is a typed
    /// message, the news that it failed for good, or nothing within the time.
    ///
    /// An endpoint of this host takes the answers: `.endpoint("shop", |e| e.answers::<Price>())`.
    ///
    /// # Examples
    /// ```
    /// # use std::time::Duration;
    /// # use sagabus_core::{Bus, Command, Message};
    /// # use sagabus_core::error::RequestError;
    /// async fn price<P: Message>(bus: Bus, ask: impl Command) -> Result<P, RequestError> {
    ///     bus.request::<P>(ask).within(Duration::from_secs(2)).await
    /// }
    /// ```
    pub fn request<R: Message>(&self, command: impl Command) -> Requesting<'_, R> {
        Requesting::new(self.send(command))
    }

    /// Announces an event: to the broker first, without the database, for facts that cannot be
    /// refused. Our own endpoint applies it. Await it, or `.applied_within(..)`.
    ///
    /// The host declares it by [`announces`](crate::HostBuilder::announces). Without a broker it is
    /// published through the outbox. Waits for as long as the broker cannot be reached.
    pub fn announce<E: Event>(&self, event: E) -> Announcing<'_> {
        Announcing::new(self.publish(event))
    }

    /// Sends or publishes a message, by its kind, when `after` has passed on the database's clock.
    pub fn schedule<M: Message>(&self, after: Duration, message: M) -> Sending<'_> {
        Sending {
            bus: self,
            outgoing: Outgoing::new(&message),
        }
        .after(after)
    }

    /// Stores messages in one unit of their own: all or none. Waits for as long as the database
    /// cannot be reached.
    ///
    /// # Errors
    /// [`BusError::InsideHandler`], [`BusError::NotRunning`], [`BusError::Overloaded`] where the host
    /// has a limit, [`BusError::Store`] when the database refused, [`BusError::CommitUnknown`] when
    /// the host was stopped meanwhile.
    ///
    /// # Cancel safety
    /// A dropped call may or may not have sent.
    pub async fn send_all(&self, mut outgoing: Vec<Outgoing>) -> Result<(), BusError> {
        let facts = self.running()?.facts;
        let protector = facts.protector.as_deref();
        for one in &mut outgoing {
            protection::reopen(protector, one);
            protection::seal(protector, one)?;
        }
        self.store_all(outgoing).await
    }

    /// Stores messages that are prepared.
    pub(crate) async fn store_all(&self, outgoing: Vec<Outgoing>) -> Result<(), BusError> {
        let engine = self.engine()?;
        let message_ids: Vec<_> = outgoing.iter().map(|one| one.envelope.id).collect();
        // A commit in doubt is made again with the same values: the identity tells.
        let outgoing = outgoing
            .into_iter()
            .map(|one| Outgoing {
                identity: Identity::Given,
                ..one
            })
            .collect();
        match engine
            .commit(UnitOfWork {
                outgoing,
                ..UnitOfWork::default()
            })
            .await
        {
            Some(Answer::Done(_)) => Ok(()),
            Some(Answer::Refused(error)) => Err(error.into()),
            None => Err(BusError::CommitUnknown { message_ids }),
        }
    }

    /// Prepares a message as this host sends it, for the doors that commit it with user rows.
    ///
    /// # Errors
    /// [`BusError::InsideHandler`], [`BusError::NotRunning`], [`BusError::Codec`].
    pub fn prepare(&self, mut outgoing: Outgoing) -> Result<Outgoing, BusError> {
        let running = self.running()?;
        let protector = running.facts.protector.as_deref();
        protection::reopen(protector, &mut outgoing);
        let mut outgoing = outgoing.begun_by(&running.facts.name)?;
        protection::seal(protector, &mut outgoing)?;
        Ok(outgoing)
    }

    /// Returns the committer of the running host, for the doors that commit with user rows.
    ///
    /// # Errors
    /// [`BusError::InsideHandler`], [`BusError::NotRunning`], [`BusError::Overloaded`].
    pub fn engine(&self) -> Result<CommitterHandle, BusError> {
        let running = self.running()?;
        running.overload.check()?;
        Ok(running.committer)
    }

    pub(crate) fn open(&self, running: Running) {
        *self.running.write().unwrap_or_else(PoisonError::into_inner) = Some(running);
    }

    pub(crate) fn close(&self) {
        *self.running.write().unwrap_or_else(PoisonError::into_inner) = None;
    }

    fn running(&self) -> Result<Running, BusError> {
        if INSIDE_HANDLER.try_with(|()| ()).is_ok() {
            return Err(BusError::InsideHandler);
        }
        let running = self.running.read().unwrap_or_else(PoisonError::into_inner);
        running.clone().ok_or(BusError::NotRunning)
    }
}

impl fmt::Debug for Bus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bus").finish_non_exhaustive()
    }
}

/// A message about to be sent: set options, then await it for its identity.
#[must_use = "nothing is sent before it is awaited"]
#[derive(Debug)]
pub struct Sending<'a> {
    bus: &'a Bus,
    outgoing: Result<Outgoing, CodecError>,
}

impl<'a> Sending<'a> {
    /// Prepares it for being announced instead.
    pub(crate) fn into_announcement(self) -> Result<(&'a Bus, Announcer, Outgoing), BusError> {
        let announcer = self.bus.running()?.announcer;
        let outgoing = self.bus.prepare(self.outgoing?)?;
        Ok((self.bus, announcer, outgoing))
    }

    /// Prepares it for being sent by one who waits for the answer, and who seals it once it says so.
    pub(crate) fn into_request(self) -> Result<(&'a Bus, Arc<HostFacts>, Outgoing), BusError> {
        let facts = self.bus.running()?.facts;
        let outgoing = self.outgoing?.begun_by(&facts.name)?;
        Ok((self.bus, facts, outgoing))
    }

    /// Gives the message an identity of the caller's, so that the same call can be made again:
    /// a second message with this identity is recognised and changes nothing.
    pub fn with_id(self, id: MessageId) -> Self {
        self.with(|outgoing| outgoing.with_id(id))
    }

    /// Lets it be received when `delay` has passed on the database's clock.
    pub fn after(self, delay: Duration) -> Self {
        self.with(|outgoing| Outgoing {
            due: Due::After(delay),
            ..outgoing
        })
    }

    /// Lets it be received at a time of the database's clock.
    pub fn at(self, time: Timestamp) -> Self {
        self.with(|outgoing| Outgoing {
            due: Due::At(time),
            ..outgoing
        })
    }

    /// Makes it worthless when `time` has passed since it was due.
    pub fn expires_after(self, time: Duration) -> Self {
        self.with(|outgoing| Outgoing {
            expires_after: Some(time),
            ..outgoing
        })
    }

    /// Sends it to a named endpoint of this database, whatever its kind.
    pub fn to(self, endpoint: &EndpointName) -> Self {
        self.with(|outgoing| outgoing.to(Destination::Endpoint(endpoint.clone())))
    }

    /// Sets the key that keeps order where the destination promises it.
    pub fn key(self, key: impl Into<String>) -> Self {
        let key = key.into();
        self.with(|mut outgoing| {
            outgoing.envelope.headers.set(headers::KEY, key.clone());
            Outgoing {
                key: Some(key),
                ..outgoing
            }
        })
    }

    /// Sets a header.
    pub fn header(self, name: &str, value: &str) -> Self {
        self.with(|mut outgoing| {
            outgoing.envelope.headers.set(name.to_owned(), value);
            outgoing
        })
    }

    fn with(self, change: impl FnOnce(Outgoing) -> Outgoing) -> Self {
        Self {
            outgoing: self.outgoing.map(change),
            ..self
        }
    }
}

impl<'a> IntoFuture for Sending<'a> {
    type Output = Result<MessageId, BusError>;
    type IntoFuture = BoxFuture<'a, Self::Output>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move {
            let outgoing = self.bus.prepare(self.outgoing?)?;
            let id = outgoing.envelope.id;
            self.bus.store_all(vec![outgoing]).await?;
            Ok(id)
        })
    }
}
