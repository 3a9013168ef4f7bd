//! One message, from its place in the lane to its settled end.

use std::any::Any;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, RwLock};
use tokio::time::Instant;

use crate::backoff::jittered;
use crate::care::Care;
use crate::committer::CommitterHandle;
use crate::context::{Ctx, Handling, HostFacts};
use crate::counters::Counters;
use crate::dispatch::Dispatch;
use crate::endpoint::{EndpointId, EndpointName, Order};
use crate::error::HandlerError;
use crate::faults::{self, Point};
use crate::gate::{Gate, Turn};
use crate::handler::{Decoded, Subscriber};
use crate::id::InstanceId;
use crate::inflow::Inflow;
use crate::intake::{Arrival, InHand};
use crate::job::{Dispatched, Job};
use crate::lifecycle::Lifecycle;
use crate::loader::LoaderHandle;
use crate::mirror::Mirror;
use crate::pipeline::{Middleware, Next};
use crate::retry::{Decision, Retries};
use crate::store::{Instance, Question};
use crate::sync::time;
use crate::tries::Tries;
use crate::unit_of_work::{KeyAfterDeath, Reason, RowKey, Settle};

/// How long a broker's message waits at a paused endpoint's gate before the database takes it over:
/// a third of what RabbitMQ allows. As a row it may wait for ever; no more of them than the endpoint
/// has places.
const BROKER_PATIENCE: Duration = Duration::from_secs(600);

/// What all messages of an endpoint share while it runs.
pub(crate) struct Endpoint {
    pub(crate) name: EndpointName,
    pub(crate) id: EndpointId,
    pub(crate) order: Order,
    /// What a dead letter's key does; goes on where no order is promised.
    pub(crate) key_after: KeyAfterDeath,
    /// Where its dead letters are published, if they are.
    pub(crate) mirror: Option<Mirror>,
    pub(crate) dispatch: Dispatch,
    pub(crate) pipeline: Vec<Arc<dyn Middleware>>,
    pub(crate) retries: Retries,
    pub(crate) keeps_history: bool,
    pub(crate) host: Arc<HostFacts>,
    pub(crate) loader: LoaderHandle,
    pub(crate) committer: CommitterHandle,
    pub(crate) in_hand: Arc<InHand>,
    pub(crate) counters: Arc<Counters>,
    /// Held for writing by a message that runs alone in the whole host.
    pub(crate) solo: Arc<RwLock<()>>,
    pub(crate) lifecycle: Lifecycle,
    /// What every try passes.
    pub(crate) gate: Arc<Gate>,
    /// What a broker's messages wait for.
    pub(crate) inflow: Arc<Inflow>,
    /// The message types whose handling does nothing but what a rollback undoes.
    pub(crate) rehearsed: Vec<&'static str>,
}

/// Handles one message to its end: committed and acked, written down for later, or a dead letter.
/// A forced stop leaves it to its lease or its redelivery.
pub(crate) async fn run(endpoint: &Endpoint, job: Job) {
    let (case, decoded, held) = Case::open(endpoint, job);
    case.run(decoded).await;
    held.let_go(endpoint);
}

/// What a message holds while it is handled.
pub(crate) struct Held {
    row: Option<RowKey>,
    place: OwnedSemaphorePermit,
}

impl Held {
    pub(crate) fn let_go(self, endpoint: &Endpoint) {
        if let Some(row) = self.row {
            endpoint.in_hand.let_go(row);
        }
        drop(self.place);
        endpoint.in_hand.freed.notify_one();
    }
}

/// One message and what happened to it so far.
pub(crate) struct Case<'a> {
    pub(crate) endpoint: &'a Endpoint,
    pub(crate) arrival: Arrival,
    pub(crate) tries: Tries,
    /// How often it was run again at once after a conflict.
    pub(crate) conflicts: u32,
    /// It failed while the endpoint was paused.
    pub(crate) was_held: bool,
    /// Why the message is given up, once its handler may still answer that.
    pub(crate) given_up: Option<String>,
    /// The instance for which it failed last.
    pub(crate) instance: Option<InstanceId>,
}

/// How one try ended.
pub(crate) enum End {
    /// The unit is committed.
    Settled,
    /// The message had ended before, here or on another host: nothing of the unit is written, unless
    /// it was this unit whose commit had not answered.
    Known,
    /// Somebody else was faster: load and run again. With what is known of the cause.
    Reload(String),
    /// The database ended the try: so it costs none. With what is known of the cause.
    Excused(String),
    /// The handler failed.
    Failed(HandlerError),
    /// The outcome is not known, and redelivery will tell.
    Abandoned,
}

/// A message that is about to be tried.
struct Ready {
    subscriber: Arc<dyn Subscriber>,
    /// Gone once a handler has it.
    message: Option<Box<dyn Any + Send + Sync>>,
    question: Question,
    care: Care,
}

/// What follows one try.
enum Step {
    /// Nothing more is tried.
    End(Fate),
    /// It failed.
    Follow(Decision),
}

/// What becomes of a message when trying is over.
enum Fate {
    /// It is done: the broker may forget it.
    Ack,
    /// The host was forced to stop.
    Leave,
    /// It is written down for later.
    Postpone(Duration),
    /// The same, outside its line.
    SetAside(Duration),
    /// It goes back as if it had not come.
    GiveBack,
    /// Redelivery will tell.
    Abandon,
    /// It is a dead letter.
    Dead(Reason, Option<String>),
}

impl<'a> Case<'a> {
    /// Takes a job apart.
    pub(crate) fn open(endpoint: &'a Endpoint, job: Job) -> (Self, Dispatched, Held) {
        let Job {
            arrival,
            place,
            decoded,
        } = job;
        let (row, attempts) = match &arrival {
            Arrival::Row(row) => (Some(row.row), row.attempts.clone()),
            Arrival::Delivery(_) => (None, Vec::new()),
        };
        let case = Self {
            endpoint,
            arrival,
            tries: Tries::of(attempts),
            conflicts: 0,
            was_held: false,
            given_up: None,
            instance: None,
        };
        (case, decoded, Held { row, place })
    }
}

// What rarely happens is boxed where it is awaited, and what a future needs not carry is dealt with
// before there is one: every message allocates a task that is as large as the largest way through
// here, and is moved into it.
impl<'a> Case<'a> {
    /// Says whether nothing about the message asks for care: it has not expired, and no start of it
    /// ended without a word.
    pub(crate) fn is_plain(&self) -> bool {
        Care::of(&self.arrival) == Care::None
    }

    pub(crate) fn run(mut self, dispatched: Dispatched) -> impl Future<Output = ()> + Send {
        let ready = self.ready(dispatched);
        async move {
            let fate = match ready {
                Ok(mut ready) => self.try_it(&mut ready).await,
                Err(fate) => fate,
            };
            match fate {
                Fate::Ack => self.ack().await,
                Fate::Leave => {}
                fate => Box::pin(self.meet(fate)).await,
            }
        }
    }

    /// Says what the message needs before it is tried, or why it is not.
    fn ready(&self, dispatched: Dispatched) -> Result<Ready, Fate> {
        let care = match Care::of(&self.arrival) {
            Care::Expired => {
                self.endpoint.counters.expired.increment();
                return Err(Fate::Dead(Reason::Expired, None));
            }
            Care::KilledHost(error) => return Err(Fate::Dead(Reason::KilledHost, Some(error))),
            Care::TakeOver => return Err(Fate::Postpone(Duration::ZERO)),
            care => care,
        };
        let (subscriber, decoded) =
            dispatched.map_err(|refused| Fate::Dead(refused.reason, Some(refused.error)))?;
        Ok(Ready {
            subscriber,
            question: self.question(&decoded),
            message: Some(decoded.message),
            care,
        })
    }

    /// Tries the message as often as it is tried at once.
    async fn try_it(&mut self, ready: &mut Ready) -> Fate {
        loop {
            // A handler that ran has used its message up: each further try decodes again.
            let message = match ready.message.take() {
                Some(message) => message,
                None => match self.endpoint.dispatch.decode(self.arrival.envelope()) {
                    Ok((_, again)) => again.message,
                    Err(refused) => return Fate::Dead(refused.reason, Some(refused.error)),
                },
            };
            // Before any lock: a message may wait here for as long as an outage lasts.
            let turn = match self.endpoint.gate.enter() {
                Some(turn) => turn,
                None => match Box::pin(self.wait_for_turn()).await {
                    Some(turn) => turn,
                    None => return Fate::GiveBack,
                },
            };
            let (subscriber, question) = (&*ready.subscriber, &ready.question);
            let step = if let Care::Alone(row) = &mut ready.care {
                let untold = row.take();
                Box::pin(self.try_alone(subscriber, message, question, &turn, untold)).await
            } else {
                let _shared = self.endpoint.solo.read().await;
                self.try_once(subscriber, message, question, &turn).await
            };
            drop(turn);
            let decision = match step {
                Step::End(fate) => return fate,
                Step::Follow(decision) => decision,
            };
            match decision {
                Decision::Now | Decision::Held => {}
                Decision::Reload => {
                    let pause = Duration::from_millis(2) * 2u32.pow(self.conflicts);
                    Box::pin(time::sleep(jittered(pause))).await;
                }
                Decision::Later(delay) => return Fate::Postpone(jittered(delay)),
                Decision::NotBefore(delay) => return Fate::Postpone(delay),
                Decision::Aside(delay) => return Fate::SetAside(jittered(delay)),
                Decision::Dead(reason) => return Fate::Dead(reason, None),
            }
        }
    }

    /// Does with the message what was decided.
    async fn meet(self, fate: Fate) {
        match fate {
            Fate::Ack => self.ack().await,
            Fate::Leave => {}
            Fate::Postpone(after) => self.postpone(after).await,
            Fate::SetAside(after) => self.set_aside(after).await,
            Fate::GiveBack => self.give_back().await,
            Fate::Abandon => self.abandon().await,
            Fate::Dead(reason, error) => self.dead(reason, error).await,
        }
    }

    /// Waits until the endpoint's gate lets the message through. `None`: it is to be given back.
    async fn wait_for_turn(&self) -> Option<Turn<'a>> {
        let turn = self.endpoint.gate.wait(&self.endpoint.lifecycle);
        match &self.arrival {
            Arrival::Row(_) => turn.await,
            Arrival::Delivery(_) => time::timeout(BROKER_PATIENCE, turn).await.ok().flatten(),
        }
    }

    /// Tries a message of which earlier starts ended without a word, with nothing else beside it.
    async fn try_alone(
        &mut self,
        subscriber: &dyn Subscriber,
        message: Box<dyn Any + Send + Sync>,
        question: &Question,
        turn: &Turn<'_>,
        untold: Option<RowKey>,
    ) -> Step {
        let _alone = self.endpoint.solo.write().await;
        if let Some(row) = untold {
            self.endpoint.committer.settle(Settle::StartSolo(row)).await;
        }
        self.try_once(subscriber, message, question, turn).await
    }

    /// Asks what is known about the message and runs its handler once.
    async fn try_once(
        &mut self,
        subscriber: &dyn Subscriber,
        message: Box<dyn Any + Send + Sync>,
        question: &Question,
        turn: &Turn<'_>,
    ) -> Step {
        let Some(loaded) = self.endpoint.loader.ask(question).await else {
            return Step::End(Fate::Leave);
        };
        faults::at(Point::Loaded);
        let _in_use = loaded.in_use;
        let answer = loaded.answer;
        if answer.is_taken_over {
            self.endpoint.counters.duplicates.increment();
            return Step::End(Fate::Ack);
        }
        if answer.is_blocked {
            return Step::End(Fate::Postpone(Duration::ZERO));
        }
        let by_label = answer.instance.as_ref();
        let by_label = by_label.filter(|_| question.instance.is_none());
        let by_label = by_label.map(|one| one.id.clone());
        let end = if self.is_stale_timer(answer.instance.as_ref()) {
            Box::pin(self.commit_nothing("stale_timer")).await
        } else {
            let end = self.attempt(subscriber, message, question, answer.instance, turn);
            let end = end.await;
            if matches!(end, End::Settled | End::Known) {
                self.endpoint.gate.succeeded(turn);
            }
            end
        };
        match end {
            End::Settled | End::Known => Step::End(Fate::Ack),
            End::Abandoned => Step::End(Fate::Abandon),
            End::Reload(cause) => Step::Follow(self.excused(cause)),
            End::Excused(cause) => Step::Follow(self.ended_by_database(cause)),
            End::Failed(error) => {
                self.instance = question.instance.clone().or(by_label);
                Step::Follow(self.failed(&error, subscriber))
            }
        }
    }

    pub(crate) fn question(&self, decoded: &Decoded) -> Question {
        let instance = match &self.arrival {
            Arrival::Row(row) => row.timer.as_ref().map(|timer| timer.owner.clone()),
            Arrival::Delivery(_) => None,
        };
        let instance = instance.or_else(|| decoded.instance.clone());
        let label = decoded.label.clone().filter(|_| instance.is_none());
        let Arrival::Delivery(delivery) = &self.arrival else {
            return Question {
                instance,
                label,
                ..Question::default()
            };
        };
        let key = (self.endpoint.order == Order::PerKey)
            .then(|| self.arrival.key())
            .flatten();
        Question {
            taken_over: Some((self.endpoint.id, delivery.envelope.id)),
            instance,
            label,
            blocked: key.map(|key| (self.endpoint.name.clone(), key.to_owned())),
            fate: None,
        }
    }

    /// Says whether this is a timer that its instance no longer holds.
    pub(crate) fn is_stale_timer(&self, instance: Option<&Instance>) -> bool {
        let Arrival::Row(row) = &self.arrival else {
            return false;
        };
        let Some(timer) = &row.timer else {
            return false;
        };
        let held = instance.and_then(|instance| instance.timers.get(&timer.name));
        held != Some(&timer.generation)
    }

    /// Runs the handler once and commits what it wants.
    fn attempt(
        &self,
        subscriber: &dyn Subscriber,
        message: Box<dyn Any + Send + Sync>,
        question: &Question,
        instance: Option<Instance>,
        turn: &Turn<'_>,
    ) -> impl Future<Output = End> + Send {
        let found = || instance.as_ref().map(|one| one.id.clone());
        let id = question.instance.clone().or_else(found);
        let cx = self.context(id, instance);
        async move {
            let started = Instant::now();
            let result = Next::new(&self.endpoint.pipeline, subscriber, message)
                .run(&cx)
                .await;
            faults::at(Point::Handled);
            let unit = self.bounded_unit(cx.close(), started);
            // A handler that gave its `Tx` away still holds the slot: its writes cannot be
            // committed.
            let transaction = cx.transaction().try_lock().map(|mut slot| slot.take());
            match (result, transaction) {
                (Ok(()), Ok(None)) => {
                    // What others need worked; whether this is stored is another matter.
                    self.endpoint.gate.succeeded(turn);
                    match unit {
                        Ok(unit) => self.commit_grouped(unit).await,
                        Err(error) => End::Failed(error),
                    }
                }
                (Ok(()), Ok(Some(transaction))) => {
                    Box::pin(self.commit_through(unit, transaction)).await
                }
                (Ok(()), Err(_)) => End::Failed(
                    HandlerError::new("handler returned while something else still holds its `Tx`")
                        .terminal(),
                ),
                (Err(error), Ok(Some(transaction))) => {
                    let is_excused = error.is_excused(|cause| transaction.excuses(cause));
                    transaction.rollback().await;
                    self.end_of(error, is_excused)
                }
                (Err(error), _) => {
                    let is_excused = error.is_excused(|_| false);
                    self.end_of(error, is_excused)
                }
            }
        }
    }

    /// Makes the context of one try.
    pub(crate) fn context(
        &self,
        instance_id: Option<InstanceId>,
        instance: Option<Instance>,
    ) -> Ctx {
        let timer = match &self.arrival {
            Arrival::Row(row) => row.timer.clone(),
            Arrival::Delivery(_) => None,
        };
        let handling = Handling {
            envelope: self.arrival.envelope().clone(),
            endpoint: self.endpoint.name.clone(),
            attempt: self.tries.failures() + 1,
            instance_id,
            instance,
            timer,
            given_up: self.given_up.clone(),
        };
        Ctx::new(handling, Arc::clone(&self.endpoint.host))
    }
}
