//! How a handler-per-message saga is put on an endpoint.

use std::any::Any;
use std::fmt;
use std::sync::Arc;

use futures_util::future::BoxFuture;
use sagabus_core::handler::{Need, downcast};
use sagabus_core::request::RequestFailed;
use sagabus_core::{BuildError, EndpointBuilder, Extract, Message, Order, Result};
use serde_json::json;

use super::context::SagaCtx;
use super::define::{Handles, NamedSaga, Starts};
use super::run::HandlerSubscriber;
use crate::correlate::{Correlate, CorrelateByLabel};
use crate::lock::keeper;
use crate::message::{MessageFacts, RequestTimedOut};
use crate::saga::Saga;
use crate::standing::{Lives, Missing};

/// Makes new data from a starting message.
pub(super) type Start<S> = fn(&dyn Any) -> S;
/// Handles a message.
pub(super) type Handle<S> =
    for<'a> fn(&'a mut S, Box<dyn Any + Send + Sync>, &'a mut SagaCtx) -> BoxFuture<'a, Result>;

/// Everything about one message type of a saga.
pub(super) struct Entry<S> {
    pub(super) message: MessageFacts,
    pub(super) start: Option<Start<S>>,
    pub(super) handle: Handle<S>,
}

/// A handler-per-message saga that is being declared; given to an endpoint with `.saga(..)`.
#[must_use = "give it to an endpoint with `.saga(..)`"]
pub struct HandlerSaga<S> {
    pub(super) name: Arc<str>,
    pub(super) entries: Vec<Entry<S>>,
    pub(super) needs: Vec<Need>,
    pub(super) missing: Missing,
    pub(super) lives: Lives,
    pub(super) merges: bool,
    faults: Vec<String>,
}

/// Starts to declare which messages a saga takes.
///
/// ```
/// # use sagabus_core::{Event, Kind, Message, Result};
/// # use sagabus_saga::{Correlate, Handles, NamedSaga, Saga, SagaCtx, Starts, saga};
/// # #[derive(serde::Serialize, serde::Deserialize)] struct Placed { id: u64 }
/// # impl Message for Placed { const TYPE: &'static str = "shop.placed"; const KIND: Kind = Kind::Event; }
/// # #[derive(serde::Serialize, serde::Deserialize)] struct Shipping { id: u64 }
/// # impl Saga for Shipping { type Key = u64; type State = (); }
/// # impl NamedSaga for Shipping { const NAME: &'static str = "shipping"; }
/// # impl Correlate<Shipping> for Placed { fn key(&self) -> u64 { self.id } }
/// # impl Starts<Placed> for Shipping { fn start(m: &Placed) -> Self { Self { id: m.id } } }
/// # impl Handles<Placed> for Shipping {
/// #     async fn handle(&mut self, _: Placed, _: &mut SagaCtx) -> Result { Ok(()) }
/// # }
/// let shipping = saga::<Shipping>().starts_with::<Placed>();
/// ```
pub fn saga<S: NamedSaga>() -> HandlerSaga<S> {
    HandlerSaga {
        name: S::NAME.into(),
        entries: Vec::new(),
        needs: Vec::new(),
        missing: Missing::default(),
        lives: Lives::default(),
        merges: false,
        faults: Vec::new(),
    }
}

impl<S: Saga> HandlerSaga<S> {
    /// Adds a message that begins the saga where there is none. Several may: they may come in any
    /// order, also at the same time.
    pub fn starts_with<M>(self) -> Self
    where
        M: Message + Correlate<S>,
        S: Starts<M>,
    {
        self.add(
            MessageFacts::by_key::<S, M>(),
            Some(|message| S::start(typed(message))),
            |data, message, cx| Box::pin(data.handle(downcast::<M>(message), cx)),
        )
    }

    /// Adds a message for an instance that exists.
    pub fn on<M>(self) -> Self
    where
        M: Message + Correlate<S>,
        S: Handles<M>,
    {
        let message = MessageFacts::by_key::<S, M>();
        self.add(message, None, |data, message, cx| {
            Box::pin(data.handle(downcast::<M>(message), cx))
        })
    }

    /// Adds a message for an instance that it finds by a label.
    pub fn on_by_label<M>(self) -> Self
    where
        M: Message + CorrelateByLabel<S>,
        S: Handles<M>,
    {
        let message = MessageFacts::by_label::<S, M>();
        self.add(message, None, |data, message, cx| {
            Box::pin(data.handle(downcast::<M>(message), cx))
        })
    }

    /// Adds an answer to a question that the saga asks with `cx.ask(..)`: it needs no key.
    pub fn on_answer<M>(self) -> Self
    where
        M: Message,
        S: Handles<M>,
    {
        let message = MessageFacts::by_request::<M>();
        self.add(message, None, |data, message, cx| {
            Box::pin(data.handle(downcast::<M>(message), cx))
        })
    }

    /// Adds the news that a question became a dead letter.
    pub fn on_request_failed(self) -> Self
    where
        S: Handles<RequestFailed>,
    {
        let message = MessageFacts::news::<RequestFailed>(RequestFailed::type_for(&self.name));
        self.add(message, None, |data, message, cx| {
            Box::pin(data.handle(downcast::<RequestFailed>(message), cx))
        })
    }

    /// Adds the news that a question was not answered in time.
    pub fn on_request_timed_out(self) -> Self
    where
        S: Handles<RequestTimedOut>,
    {
        let message = MessageFacts::news::<RequestTimedOut>(RequestTimedOut::type_for(&self.name));
        self.add(message, None, |data, message, cx| {
            Box::pin(data.handle(downcast::<RequestTimedOut>(message), cx))
        })
    }

    /// Declares what the handlers take from their context (`State<T>`, `Tx<Postgres>`), so that the
    /// host refuses to be built without it.
    pub fn uses<E: Extract>(mut self) -> Self {
        self.needs.extend(E::needs());
        self
    }

    /// Says what becomes of a message that finds no instance and starts none.
    pub fn missing(mut self, missing: Missing) -> Self {
        self.missing = missing;
        self
    }

    /// Lets a key live once: a starting message for one that is over comes too late.
    pub fn once_per_key(mut self) -> Self {
        self.lives = Lives::One;
        self
    }

    /// Lets messages that wait for one instance be handled in one unit, which makes a busy instance
    /// several times as fast. Only for handlers that do nothing but change data and stage: a message
    /// may be handled more than once before it commits. Machines without `.run(..)` do it anyway.
    pub fn merges(mut self) -> Self {
        self.merges = true;
        self
    }

    fn add(mut self, message: MessageFacts, start: Option<Start<S>>, handle: Handle<S>) -> Self {
        let is_it = |entry: &Entry<S>| entry.message.message_type() == message.message_type();
        if self.entries.iter().any(is_it) {
            let message_type = message.message_type();
            self.faults.push(format!("`{message_type}` is added twice"));
        }
        self.entries.push(Entry {
            message,
            start,
            handle,
        });
        self
    }

    /// Lists what is wrong with it; each sentence says what and what to do.
    fn check(&self) -> Vec<String> {
        let mut faults = self.faults.clone();
        faults.extend(crate::check::name_fault(&self.name));
        if self.entries.iter().all(|entry| entry.start.is_none()) {
            let fault = "nothing starts it; add a first message with `starts_with`";
            faults.push(fault.to_owned());
        }
        faults
    }

    fn describe(&self) -> serde_json::Value {
        let messages = self.entries.iter().map(|entry| {
            json!({
                "on": entry.message.message_type(),
                "starts": entry.start.is_some(),
            })
        });
        json!({
            "saga": &*self.name,
            "schema_version": S::SCHEMA_VERSION,
            "messages": messages.collect::<Vec<_>>(),
        })
    }
}

impl<S: Saga> fmt::Debug for HandlerSaga<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HandlerSaga")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

/// Puts handler-per-message sagas on endpoints.
pub trait SagaEndpoint {
    /// Adds a saga: the endpoint takes all of its messages.
    #[must_use]
    fn saga<S: Saga>(self, saga: HandlerSaga<S>) -> Self;

    /// Keeps the locks of this database ([`Reserve`](crate::Reserve)): one endpoint does it. It
    /// promises order per key, so that nothing about a lock overtakes what was said before.
    #[must_use]
    fn locks(self) -> Self;
}

impl SagaEndpoint for EndpointBuilder {
    fn saga<S: Saga>(self, saga: HandlerSaga<S>) -> Self {
        let faults = saga.check();
        if !faults.is_empty() {
            let error = format!("saga `{}`: {}", saga.name, faults.join("; "));
            return self.refuse(BuildError::Definition(error));
        }
        let mut endpoint = self.definition(saga.describe());
        let saga = Arc::new(saga);
        for index in 0..saga.entries.len() {
            let subscriber = HandlerSubscriber::new(Arc::clone(&saga), index);
            endpoint = endpoint.subscribe(Arc::new(subscriber));
        }
        endpoint
    }

    fn locks(self) -> Self {
        self.order(Order::PerKey).saga(keeper())
    }
}

pub(crate) fn typed<M: 'static>(message: &dyn Any) -> &M {
    message
        .downcast_ref::<M>()
        .expect("an entry is given messages of its own type only")
}
