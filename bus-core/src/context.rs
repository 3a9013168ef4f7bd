//! What a handler may do: read what it handles, and stage what it wants.

use std::borrow::Cow;
use std::fmt;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::asking::Answers;
use crate::endpoint::{Destination, EndpointName};
use crate::envelope::{Due, Envelope, Identity, Outgoing, Timer};
use crate::error::{BusError, HandlerError};
use crate::handler::States;
use crate::headers::{self, Headers};
use crate::id::{CorrelationId, InstanceId, MessageId};
use crate::message::{Command, Event, Kind, Message};
use crate::protection::{self, Protector};
use crate::request;
use crate::store::{Instance, OpenTransaction, Store};
use crate::sync::{Mutex, MutexGuard, Notify, time};
use crate::transport;
use crate::transports::Transports;
use crate::unit_of_work::{InstanceChange, Reason};

/// What a handler may do with the message that it handles. Cheap to clone.
///
/// Nothing that is staged here reaches anyone before the unit of work has committed; if the
/// handler fails, it is dropped. After the handler has returned, every call is an error and does
/// nothing.
#[derive(Clone)]
pub struct Ctx {
    inner: Arc<Inner>,
}

/// The transaction that a handler's own SQL opened, if it did. Shared by the `Tx` extractor, which
/// fills it at first use, and the engine, which ends it.
pub type TransactionSlot = Arc<tokio::sync::Mutex<Option<Box<dyn OpenTransaction>>>>;

struct Inner {
    envelope: Envelope,
    endpoint: EndpointName,
    attempt: u32,
    host: Arc<HostFacts>,
    instance_id: Option<InstanceId>,
    instance: Option<Instance>,
    timer: Option<Timer>,
    given_up: Option<String>,
    staged: Mutex<Staged>,
    transaction: TransactionSlot,
    limit_changed: Notify,
}

/// What every context of a host shares.
pub struct HostFacts {
    /// The host's name.
    pub name: String,
    /// The shared values.
    pub states: States,
    /// The store.
    pub store: Arc<dyn Store>,
    /// What carries commands and events, where it is not the database.
    pub transports: Arc<Transports>,
    /// Who waits for answers.
    pub(crate) answers: Arc<Answers>,
    /// What seals and opens bodies, where that is declared.
    pub(crate) protector: Option<Arc<Protector>>,
}

impl HostFacts {
    /// Returns where an answer to `outgoing` finds one of this host's endpoints.
    pub(crate) fn reply_address(&self, endpoint: &EndpointName, outgoing: &Outgoing) -> String {
        let by_broker = match outgoing.destination {
            Destination::Endpoint(_) => false,
            Destination::Address(_) => !self.transports.is_empty(),
            Destination::Owner | Destination::Subscribers | Destination::Watchers => {
                let message_type = &outgoing.envelope.message_type;
                self.transports.of(message_type).is_some()
            }
        };
        match by_broker {
            true => transport::endpoint_address(endpoint),
            false => format!("@{endpoint}"),
        }
    }
}

impl fmt::Debug for HostFacts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HostFacts")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

/// What a handler has asked for so far.
#[derive(Debug, Default)]
pub struct Staged {
    /// What is to be sent.
    pub outgoing: Vec<Outgoing>,
    /// How the instance moves.
    pub instance: Option<InstanceChange>,
    /// The state that a machine left.
    pub state_from: Option<Cow<'static, str>>,
    /// What was decided where nothing ran.
    pub note: Option<Cow<'static, str>>,
    /// When the handler has to be done, if something that it holds says so.
    pub(crate) limit: Option<Instant>,
    pub(crate) is_closed: bool,
}

/// What a context is made from.
#[derive(Debug)]
pub struct Handling {
    /// The message.
    pub envelope: Envelope,
    /// Where it is handled.
    pub endpoint: EndpointName,
    /// Which try this is, from 1.
    pub attempt: u32,
    /// The instance that the message is for.
    pub instance_id: Option<InstanceId>,
    /// The instance as loaded, tombstones included.
    pub instance: Option<Instance>,
    /// The timer that the message is, if it is one.
    pub timer: Option<Timer>,
    /// Why the message would be given up, where this run is the answer to that.
    pub given_up: Option<String>,
}

impl Ctx {
    /// Makes a context for one try of one message.
    pub fn new(handling: Handling, host: Arc<HostFacts>) -> Self {
        let Handling {
            envelope,
            endpoint,
            attempt,
            instance_id,
            instance,
            timer,
            given_up,
        } = handling;
        let staged = Mutex::new(Staged::default());
        let transaction = TransactionSlot::default();
        let inner = Inner {
            envelope,
            endpoint,
            attempt,
            host,
            instance_id,
            instance,
            timer,
            given_up,
            staged,
            transaction,
            limit_changed: Notify::new(),
        };
        Self {
            inner: Arc::new(inner),
        }
    }

    /// Sends a command to its owner.
    ///
    /// # Errors
    /// When it cannot be encoded, or the handler has returned.
    pub fn send<C: Command>(&self, command: C) -> Result<MessageId, HandlerError> {
        self.stage(&command)
    }

    /// Publishes an event to everyone who subscribed.
    ///
    /// # Errors
    /// When it cannot be encoded, or the handler has returned.
    pub fn publish<E: Event>(&self, event: E) -> Result<MessageId, HandlerError> {
        self.stage(&event)
    }

    /// Answers the message that is being handled.
    ///
    /// # Errors
    /// When it asked for no answer (a terminal error: trying again cannot help), when the answer
    /// cannot be encoded, or the handler has returned.
    pub fn reply<M: Message>(&self, answer: M) -> Result<MessageId, HandlerError> {
        self.push_reply(Outgoing::new(&answer)?)
    }

    /// Stages a prepared message as the answer to the one that is being handled.
    ///
    /// # Errors
    /// As [`reply`](Self::reply).
    pub fn push_reply(&self, answer: Outgoing) -> Result<MessageId, HandlerError> {
        let destination = self.reply_destination()?;
        let mut answer = answer.to(destination);
        request::carry_over(self.headers(), &mut answer.envelope.headers);
        self.push(answer)
    }

    /// Sends or publishes a message, by its kind, when `after` has passed.
    ///
    /// # Errors
    /// When it cannot be encoded, or the handler has returned.
    pub fn schedule<M: Message>(
        &self,
        after: Duration,
        message: M,
    ) -> Result<MessageId, HandlerError> {
        let mut outgoing = self.outgoing(&message)?;
        outgoing.due = Due::After(after);
        self.push(outgoing)
    }

    /// Sends a message to a named endpoint of this database, whatever its kind.
    ///
    /// # Errors
    /// When it cannot be encoded, the name is unusable, or the handler has returned.
    pub fn send_to<M: Message>(
        &self,
        endpoint: &str,
        message: M,
    ) -> Result<MessageId, HandlerError> {
        let destination = Destination::Endpoint(EndpointName::new(endpoint)?);
        self.push(Outgoing::new(&message)?.to(destination))
    }

    /// Stages a message for where its kind says: a command for its owner, an event for its
    /// subscribers, a plain message for the requester.
    ///
    /// # Errors
    /// As [`send`](Self::send) and [`reply`](Self::reply).
    pub fn stage<M: Message>(&self, message: &M) -> Result<MessageId, HandlerError> {
        let outgoing = self.outgoing(message)?;
        self.push(outgoing)
    }

    /// Stages a prepared message: the conversation's headers are added.
    ///
    /// # Errors
    /// When headers or body break a bound, or the handler has returned.
    pub fn push(&self, mut outgoing: Outgoing) -> Result<MessageId, HandlerError> {
        let protector = self.inner.host.protector.as_deref();
        protection::reopen(protector, &mut outgoing);
        self.inherit(&mut outgoing);
        let checked = outgoing.envelope.check();
        checked
            .and_then(|()| protection::seal(protector, &mut outgoing))
            .map_err(|error| HandlerError::from(error).terminal())?;
        let id = outgoing.envelope.id;
        self.staged()?.outgoing.push(outgoing);
        Ok(id)
    }

    /// Puts a message back into this endpoint as it came, with its identity: for one that was kept
    /// aside and may now be handled.
    ///
    /// # Errors
    /// When the handler has returned.
    pub fn give_back(&self, envelope: Envelope) -> Result<(), HandlerError> {
        let destination = Destination::Endpoint(self.inner.endpoint.clone());
        let outgoing = Outgoing::from_envelope(envelope, destination);
        self.staged()?.outgoing.push(outgoing);
        Ok(())
    }

    /// Returns the shared value of this type.
    ///
    /// # Errors
    /// When the host was given none. Sagas declare it with `.uses::<..>()`, so that `build()` says
    /// so first.
    pub fn state<T: Send + Sync + 'static>(&self) -> Result<Arc<T>, HandlerError> {
        self.inner.host.states.get::<T>().ok_or_else(|| {
            let name = std::any::type_name::<T>();
            HandlerError::new(format!(
                "host has no state of type `{name}`; add it with `.state(..)`"
            ))
        })
    }

    /// Returns the identity of the message, the same for every try.
    pub fn message_id(&self) -> MessageId {
        self.inner.envelope.id
    }

    /// Returns the conversation.
    pub fn correlation_id(&self) -> CorrelationId {
        self.inner.envelope.correlation_id()
    }

    /// Returns the message's headers.
    pub fn headers(&self) -> &Headers {
        &self.inner.envelope.headers
    }

    /// Returns the message as it travelled: its body is sealed, where that is how it came.
    pub fn envelope(&self) -> &Envelope {
        &self.inner.envelope
    }

    /// Returns where the message is handled.
    pub fn endpoint(&self) -> &EndpointName {
        &self.inner.endpoint
    }

    /// Returns which try this is, from 1; tries before a restart count.
    pub fn attempt(&self) -> u32 {
        self.inner.attempt
    }

    /// Returns which instance the message is for.
    pub fn instance_id(&self) -> Option<&InstanceId> {
        self.inner.instance_id.as_ref()
    }

    /// Returns the instance that the message is for, as loaded; tombstones included.
    pub fn instance(&self) -> Option<&Instance> {
        self.inner.instance.as_ref()
    }

    /// Returns the timer that the message is, if it is one.
    pub fn timer(&self) -> Option<&Timer> {
        self.inner.timer.as_ref()
    }

    /// Returns why the message would be given up, where this run is the answer to that.
    pub fn given_up(&self) -> Option<&str> {
        self.inner.given_up.as_deref()
    }

    /// Returns the host's store, for extractors.
    pub fn store(&self) -> &Arc<dyn Store> {
        &self.inner.host.store
    }

    /// Returns where the handler's own transaction is kept, for extractors.
    pub fn transaction(&self) -> &TransactionSlot {
        &self.inner.transaction
    }

    /// Lets the handler take at most `time` more, because it now holds something that others wait
    /// for. A handler that takes longer has failed, and what it held is taken from it.
    ///
    /// # Errors
    /// When the handler has returned.
    pub fn limit(&self, time: Duration) -> Result<(), HandlerError> {
        let until = Instant::now() + time;
        let mut staged = self.staged()?;
        staged.limit = Some(staged.limit.map_or(until, |earlier| earlier.min(until)));
        drop(staged);
        self.inner.limit_changed.notify_one();
        Ok(())
    }

    /// Resolves when the handler has to be done; never where nothing says so.
    pub(crate) async fn limit_reached(&self) {
        loop {
            let limit = self.lock().limit;
            match limit {
                None => self.inner.limit_changed.notified().await,
                Some(until) => tokio::select! {
                    biased;
                    () = time::sleep_until(until) => return,
                    () = self.inner.limit_changed.notified() => {}
                },
            }
        }
    }

    /// Stages a change of the instance. The last one counts.
    ///
    /// # Errors
    /// When the handler has returned.
    pub fn change_instance(&self, change: InstanceChange) -> Result<(), HandlerError> {
        self.staged()?.instance = Some(change);
        Ok(())
    }

    /// Notes for the history what state was left, or what was decided where nothing ran.
    ///
    /// # Errors
    /// When the handler has returned.
    pub fn note(
        &self,
        state_from: Option<Cow<'static, str>>,
        note: Option<Cow<'static, str>>,
    ) -> Result<(), HandlerError> {
        let mut staged = self.staged()?;
        (staged.state_from, staged.note) = (state_from, note);
        Ok(())
    }

    /// Ends the handler's time: returns what it staged, and refuses everything from now on.
    pub(crate) fn close(&self) -> Staged {
        let closed = Staged {
            is_closed: true,
            ..Staged::default()
        };
        std::mem::replace(&mut *self.lock(), closed)
    }

    fn outgoing<M: Message>(&self, message: &M) -> Result<Outgoing, HandlerError> {
        let mut outgoing =
            Outgoing::new(message).map_err(|error| HandlerError::from(error).terminal())?;
        match M::KIND {
            Kind::Command | Kind::Event => Ok(outgoing),
            Kind::Reply => {
                request::carry_over(self.headers(), &mut outgoing.envelope.headers);
                Ok(outgoing.to(self.reply_destination()?))
            }
        }
    }

    fn reply_destination(&self) -> Result<Destination, HandlerError> {
        let no_address = || HandlerError::dead(Reason::NoReplyAddress, BusError::NoReplyAddress);
        let address = self
            .headers()
            .get(headers::REPLY_TO)
            .ok_or_else(no_address)?;
        // An address comes from outside: it is data, looked up and never composed into anything.
        Destination::parse(address)
            .map_err(|error| HandlerError::dead(Reason::NoReplyAddress, error))
    }

    /// Copies the conversation, names the cause, and asks for answers to this endpoint.
    fn inherit(&self, outgoing: &mut Outgoing) {
        let from = &self.inner.envelope;
        let headers = &mut outgoing.envelope.headers;
        // An answer to the request that started an instance belongs to that conversation.
        if headers.get(headers::CORRELATION_ID).is_none() {
            headers.set(headers::CORRELATION_ID, from.correlation_id());
        }
        headers.set(headers::CAUSATION_ID, from.id);
        for name in [headers::TRACEPARENT, headers::TRACESTATE] {
            if let Some(value) = from.headers.get(name) {
                headers.set(name, value);
            }
        }
        let is_command = headers.get(headers::KIND) == Some(Kind::Command.as_str());
        if is_command && headers.get(headers::REPLY_TO).is_none() {
            let host = &self.inner.host;
            let address = host.reply_address(&self.inner.endpoint, outgoing);
            outgoing.envelope.headers.set(headers::REPLY_TO, address);
        }
    }

    /// Returns who waits for answers in this process.
    pub(crate) fn answers(&self) -> &Answers {
        &self.inner.host.answers
    }

    fn staged(&self) -> Result<MutexGuard<'_, Staged>, HandlerError> {
        let staged = self.lock();
        if staged.is_closed {
            Err(BusError::ContextClosed.into())
        } else {
            Ok(staged)
        }
    }

    fn lock(&self) -> MutexGuard<'_, Staged> {
        // A panic while staging leaves a list that is whole up to the last push.
        self.inner
            .staged
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Ctx {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ctx")
            .field("message_id", &self.message_id())
            .field("message_type", &self.inner.envelope.message_type)
            .field("endpoint", &self.inner.endpoint)
            .field("attempt", &self.inner.attempt)
            .finish_non_exhaustive()
    }
}

impl Outgoing {
    /// Gives the message an identity that its caller chose and may use again.
    #[must_use]
    pub fn with_id(mut self, id: MessageId) -> Self {
        self.envelope.id = id;
        self.identity = Identity::Given;
        self
    }
}
