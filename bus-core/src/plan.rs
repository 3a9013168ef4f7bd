//! An endpoint: its handlers and settings, put together and checked.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;

use crate::asking::AnswerSubscriber;
use crate::dispatch::{Dispatch, taken_by};
use crate::endpoint::{EndpointName, Order};
use crate::error::BuildError;
use crate::gate::Breaker;
use crate::handler::{Given, Handler, HandlerSubscriber, Need, Subscriber};
use crate::message::Message;
use crate::mirror::mirrored_type;
use crate::pipeline::{Middleware, default_pipeline};
use crate::retry::{Retries, Retry};
use crate::store::{EndpointSpec, Retention, Subscription};
use crate::transports::TransportName;
use crate::unit_of_work::KeyAfterDeath;

/// An endpoint that is being put together.
#[must_use = "return it from the closure"]
pub struct EndpointBuilder {
    subscribers: Vec<Arc<dyn Subscriber>>,
    definitions: Vec<serde_json::Value>,
    answers: Vec<&'static str>,
    error: Option<BuildError>,
    retry: Retry,
    retries: Vec<(&'static str, Retry)>,
    reads: TransportName,
    order: Order,
    content_types: Option<Vec<String>>,
    capacity: usize,
    deadline: Duration,
    history: History,
    breaker: Breaker,
    rows_max: u32,
    rate: Option<(u32, Duration)>,
    key_after: KeyAfterDeath,
    mirrors: Mirrors,
    middlewares: Vec<Arc<dyn Middleware>>,
    rehearsed: Vec<&'static str>,
}

impl Default for EndpointBuilder {
    fn default() -> Self {
        Self {
            subscribers: Vec::new(),
            definitions: Vec::new(),
            answers: Vec::new(),
            error: None,
            retry: Retry::default(),
            retries: Vec::new(),
            reads: TransportName::default(),
            order: Order::default(),
            content_types: None,
            // Two and a half commit groups: one being committed, one being handled, and some.
            capacity: 256,
            deadline: Duration::from_secs(300),
            history: History::Kept,
            breaker: Breaker::default(),
            // Forty times what it has in hand: hours of single failures, seconds of an outage.
            rows_max: 10_000,
            rate: None,
            key_after: KeyAfterDeath::default(),
            mirrors: Mirrors::Nothing,
            middlewares: Vec::new(),
            rehearsed: Vec::new(),
        }
    }
}

/// Says whether an endpoint's units leave a history.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum History {
    /// One entry per message.
    Kept,
    /// None: saves a row per message, and `why` knows less.
    NotKept,
}

/// What an endpoint publishes beside what its handlers send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mirrors {
    Nothing,
    DeadLetters,
}

impl EndpointBuilder {
    /// Adds a handler: an async function whose first argument is the message.
    pub fn handle<H, Args>(self, handler: H) -> Self
    where
        H: Handler<Args>,
        Args: 'static,
    {
        self.subscribe(Arc::new(HandlerSubscriber::new(handler)))
    }

    /// Takes answers of this type for [`Bus::request`](crate::Bus::request), and the news of
    /// requests that failed. Every process of the service has this endpoint; each gets the answers
    /// to its own requests.
    pub fn answers<R: Message>(mut self) -> Self {
        if self.answers.is_empty() {
            let failures = AnswerSubscriber::of_failures();
            self.subscribers.push(Arc::new(failures));
        }
        self.answers.push(R::TYPE);
        self.subscribe(Arc::new(AnswerSubscriber::of::<R>()))
    }

    /// Adds a subscriber: what sagas and machines are made of.
    pub fn subscribe(mut self, subscriber: Arc<dyn Subscriber>) -> Self {
        self.subscribers.push(subscriber);
        self
    }

    /// Adds a definition that tools may show, as JSON.
    pub fn definition(mut self, definition: serde_json::Value) -> Self {
        self.definitions.push(definition);
        self
    }

    /// Notes that a definition is inconsistent; `build()` returns the first such error.
    pub fn refuse(mut self, error: BuildError) -> Self {
        self.error.get_or_insert(error);
        self
    }

    /// Runs something around every handler of this endpoint, inside of what always runs there; the
    /// first that is added is the outermost.
    pub fn middleware(mut self, middleware: impl Middleware + 'static) -> Self {
        self.middlewares.push(Arc::new(middleware));
        self
    }

    /// Declares that handling `M` here does nothing but what a rollback undoes: what it stages, and
    /// SQL through its `Tx`. Operators may then have a message handled and undone, to see what it
    /// would do now. A machine without `.run(..)` needs no such word, nor does a saga that merges.
    pub fn rehearses<M: Message>(mut self) -> Self {
        self.rehearsed.push(M::TYPE);
        self
    }

    /// Sets how often a failing message is tried.
    pub fn retry(mut self, retry: Retry) -> Self {
        self.retry = retry;
        self
    }

    /// Sets how often a failing `M` is tried, whatever holds for the other messages here.
    pub fn retry_for<M: Message>(mut self, retry: Retry) -> Self {
        self.retries.push((M::TYPE, retry));
        self
    }

    /// Makes this endpoint read from the transport of this name instead of the default one. Its
    /// commands are then sent by that transport, too. Answers to what its handlers ask come back by
    /// whichever transport carried the question.
    pub fn reads_from(mut self, transport: &str) -> Self {
        match TransportName::new(transport) {
            Ok(name) => self.reads = name,
            Err(error) => return self.refuse(error),
        }
        self
    }

    /// Sets the order that this endpoint promises.
    pub fn order(mut self, order: Order) -> Self {
        self.order = order;
        self
    }

    /// Takes only messages whose `content-type` is one of these, for example
    /// [`codec::JSON`](crate::codec::JSON); any other, and one without, becomes a dead letter with
    /// the reason `content_not_accepted`. Default: whatever a codec reads.
    pub fn content_types<'t>(mut self, content_types: impl IntoIterator<Item = &'t str>) -> Self {
        let all = content_types.into_iter().map(str::to_ascii_lowercase);
        self.content_types = Some(all.collect());
        self
    }

    /// Sets what the later messages of a key do when one of them became a dead letter. Matters where
    /// order is promised per key. Default: they wait.
    pub fn key_after_death(mut self, key_after: KeyAfterDeath) -> Self {
        self.key_after = key_after;
        self
    }

    /// Publishes each dead letter as well, as the event `<endpoint>-dlt`: by the transport from which
    /// the endpoint reads, through the outbox, in the transaction that writes the dead letter. It
    /// has the message's own body and headers, and says why in headers that begin with
    /// `sagabus-dead-`. For whoever watches the broker; a service's own code handles
    /// [`Fault`](crate::Fault). The dead letter in the database stays the one that is redriven.
    pub fn mirrors_dead_letters(mut self) -> Self {
        self.mirrors = Mirrors::DeadLetters;
        self
    }

    /// Sets how many messages this endpoint may have in hand. Default 256.
    pub fn capacity(mut self, messages: usize) -> Self {
        self.capacity = messages.max(1);
        self
    }

    /// Sets how long a handler may take. Default 5 min.
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    /// Says whether units leave a history. Default: kept.
    pub fn history(mut self, history: History) -> Self {
        self.history = history;
        self
    }

    /// Sets when the endpoint pauses because everything fails alike. Default: after 10 messages in a
    /// row.
    pub fn breaker(mut self, breaker: Breaker) -> Self {
        self.breaker = breaker;
        self
    }

    /// Lets handlers run no more often than `tries` times in each `per`, evenly spread, in each host:
    /// every try counts, also one that follows another at once. What has to wait for its turn holds
    /// its place. At least one try; default: no limit. Messages of one instance are then not merged.
    pub fn rate(mut self, tries: u32, per: Duration) -> Self {
        self.rate = Some((tries.max(1), per));
        self
    }

    /// Sets how many messages of a broker may wait in the database, for another try or behind
    /// another one of their key, before the broker keeps the others. Default 10,000, over all hosts;
    /// at least 1. Timers do not count. Without a broker there is no bound: the database is the bus.
    pub fn taken_over_max(mut self, messages: u32) -> Self {
        self.rows_max = messages.max(1);
        self
    }

    /// Checks it; what its handlers need only where it is said what is given.
    pub(crate) fn build(
        self,
        name: &str,
        given: Option<&Given<'_>>,
    ) -> Result<EndpointPlan, BuildError> {
        let endpoint = EndpointName::new(name)?;
        if let Some(error) = self.error {
            return Err(error);
        }
        if self.subscribers.is_empty() {
            return Err(BuildError::EndpointEmpty {
                name: name.to_owned(),
            });
        }
        let mut pipeline = default_pipeline(self.deadline);
        pipeline.extend(self.middlewares);
        let mut dispatch = Dispatch::default();
        if let Some(content_types) = self.content_types {
            dispatch.accept(content_types);
        }
        let mut subscriptions = Vec::with_capacity(self.subscribers.len());
        for subscriber in self.subscribers {
            let missing = |need: &Need| given.is_some_and(|given| !(need.is_met)(given));
            if let Some(need) = subscriber.needs().into_iter().find(missing) {
                return Err(BuildError::Missing {
                    endpoint: name.to_owned(),
                    handler: subscriber.name().to_owned(),
                    what: need.what,
                    remedy: need.remedy,
                });
            }
            subscriptions.extend(taken_by(&*subscriber));
            dispatch.add(name, subscriber)?;
        }
        demand_handlers(name, &subscriptions, &self.rehearsed, &self.retries)?;
        Ok(EndpointPlan {
            rehearsed: self.rehearsed,
            spec: EndpointSpec {
                name: endpoint,
                order: self.order,
                subscriptions,
            },
            reads: self.reads,
            definitions: self.definitions,
            answers: self.answers,
            pipeline,
            retries: Retries {
                all: self.retry,
                by_type: by_each_name(&dispatch, self.retries),
            },
            dispatch,
            capacity: self.capacity,
            history: self.history,
            breaker: self.breaker,
            rows_max: self.rows_max,
            rate: self.rate,
            key_after: self.key_after,
            mirrors: self.mirrors,
        })
    }
}

/// Refuses what is declared of a message type that the endpoint does not take.
fn demand_handlers(
    endpoint: &str,
    subscriptions: &[Subscription],
    rehearsed: &[&'static str],
    retries: &[(&'static str, Retry)],
) -> Result<(), BuildError> {
    let rehearsed = rehearsed.iter().map(|one| ("rehearses", *one));
    let retried = retries.iter().map(|(one, _)| ("retry_for", *one));
    for (setting, message_type) in rehearsed.chain(retried) {
        let mut taken = subscriptions.iter();
        if !taken.any(|taken| taken.message_type == message_type) {
            return Err(BuildError::SettingUnhandled {
                endpoint: endpoint.to_owned(),
                setting,
                message_type: message_type.to_owned(),
            });
        }
    }
    Ok(())
}

/// Finds what is said of a message type under each of its names: a message that waits may have come
/// under a former one.
fn by_each_name(dispatch: &Dispatch, said: Vec<(&'static str, Retry)>) -> HashMap<String, Retry> {
    let mut by_name = HashMap::new();
    for (message_type, retry) in said {
        let takers = dispatch
            .subscribers()
            .into_iter()
            .map(|one| taken_by(&**one));
        let names = takers.filter(|names| names.iter().any(|one| one.message_type == message_type));
        for name in names.flatten() {
            by_name.insert(name.message_type.into_owned(), retry.clone());
        }
    }
    by_name
}

impl fmt::Debug for EndpointBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EndpointBuilder")
            .field("subscribers", &self.subscribers.len())
            .finish_non_exhaustive()
    }
}

/// An endpoint, checked.
pub(crate) struct EndpointPlan {
    pub(crate) spec: EndpointSpec,
    pub(crate) reads: TransportName,
    pub(crate) dispatch: Dispatch,
    pub(crate) definitions: Vec<serde_json::Value>,
    /// The types that it takes as answers to requests of the process.
    pub(crate) answers: Vec<&'static str>,
    pub(crate) pipeline: Vec<Arc<dyn Middleware>>,
    pub(crate) retries: Retries,
    pub(crate) capacity: usize,
    pub(crate) history: History,
    pub(crate) breaker: Breaker,
    pub(crate) rows_max: u32,
    pub(crate) rate: Option<(u32, Duration)>,
    pub(crate) key_after: KeyAfterDeath,
    pub(crate) mirrors: Mirrors,
    /// The message types whose handling does nothing but what a rollback undoes.
    pub(crate) rehearsed: Vec<&'static str>,
}

impl EndpointPlan {
    /// Describes the endpoint, as JSON.
    pub(crate) fn describe(&self) -> serde_json::Value {
        let handlers = self.dispatch.subscribers().into_iter().map(|one| {
            let subscription = one.subscription();
            json!({
                "type": subscription.message_type,
                "kind": subscription.kind.as_str(),
                "aliases": one.aliases(),
                "version": one.version(),
                "handler": one.name(),
                "retry": self.retries.by_type.get(&*subscription.message_type).map(described),
                "rehearsed": one.merges()
                    || self.rehearsed.contains(&&*subscription.message_type),
            })
        });
        let mirrored =
            (self.mirrors == Mirrors::DeadLetters).then(|| mirrored_type(&self.spec.name));
        json!({
            "endpoint": self.spec.name,
            "reads_from": self.reads.to_string(),
            "order": self.spec.order,
            "key_after_death": self.key_after,
            "capacity": self.capacity,
            "keeps_history": self.history == History::Kept,
            "retry": described(&self.retries.all),
            "breaker": { "messages": self.breaker.messages },
            "taken_over_max": self.rows_max,
            "mirrors_dead_letters_to": mirrored,
            "rate": self.rate.map(|(tries, per)| {
                json!({ "tries": tries, "per_seconds": per.as_secs_f64() })
            }),
            "pipeline": self.pipeline.iter().map(|one| one.name()).collect::<Vec<_>>(),
            "handlers": handlers.collect::<Vec<_>>(),
            "definitions": self.definitions,
        })
    }
}

fn described(retry: &Retry) -> serde_json::Value {
    json!({
        "immediate": retry.immediate,
        "delayed": retry.delayed,
        "horizon_seconds": retry.horizon().as_secs_f64(),
        "excuses": retry.excuses,
    })
}

impl fmt::Debug for EndpointPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EndpointPlan")
            .field("spec", &self.spec)
            .finish_non_exhaustive()
    }
}

/// Refuses an inbox that forgets a message while it may still come again.
pub(crate) fn check_retention(
    endpoints: &[EndpointPlan],
    retention: &Retention,
) -> Result<(), BuildError> {
    /// What a broker may add: a consumer time-out of 30 min and a weekend's outage would be the
    /// user's to configure; an hour is the least that makes sense.
    const REDELIVERY: Duration = Duration::from_secs(60 * 60);
    let horizons = endpoints.iter().map(|endpoint| endpoint.retries.horizon());
    let horizon = horizons.max().unwrap_or_default() + REDELIVERY;
    if retention.inbox < horizon {
        return Err(BuildError::RetentionTooShort {
            retention: retention.inbox,
            horizon,
        });
    }
    Ok(())
}
