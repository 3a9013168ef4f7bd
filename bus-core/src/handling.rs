//! One message, from its place in the lane to its settled end.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, RwLock};
use tokio::time::Instant;

use crate::backoff::jittered;
use crate::committer::CommitterHandle;
use crate::context::{Ctx, Handling, HostFacts};
use crate::counters::Counters;
use crate::dispatch::Dispatch;
use crate::endpoint::{EndpointId, EndpointName, Order};
use crate::error::{Class, HandlerError, chain};
use crate::faults::{self, Point};
use crate::handler::{Decoded, Subscriber};
use crate::id::InstanceId;
use crate::intake::{Arrival, InHand};
use crate::job::{Dispatched, Job};
use crate::lifecycle::Lifecycle;
use crate::loader::LoaderHandle;
use crate::pipeline::{Middleware, Next};
use crate::retry::{Decision, Retry};
use crate::store::{Instance, Question};
use crate::tries::Tries;
use crate::unit_of_work::{Reason, RowKey, Settle};

/// Reruns after a conflict, before the message is written down for a moment later.
const CONFLICTS_MAX: u32 = 3;
/// Starts without a recorded end after which a message runs alone.
const LOST_STARTS_SUSPECT: i32 = 2;
/// Starts alone without a recorded end after which a message is a dead letter.
const SOLO_STARTS_MAX: i32 = 3;
/// Redeliveries by the broker after which a message is taken over before it is run.
const REDELIVERIES_SUSPECT: u32 = 2;

/// What all messages of an endpoint share while it runs.
pub(crate) struct Endpoint {
    pub(crate) name: EndpointName,
    pub(crate) id: EndpointId,
    pub(crate) order: Order,
    pub(crate) dispatch: Dispatch,
    pub(crate) pipeline: Vec<Arc<dyn Middleware>>,
    pub(crate) retry: Retry,
    pub(crate) keeps_history: bool,
    pub(crate) host: Arc<HostFacts>,
    pub(crate) loader: LoaderHandle,
    pub(crate) committer: CommitterHandle,
    pub(crate) in_hand: Arc<InHand>,
    pub(crate) counters: Arc<Counters>,
    /// Held for writing by a message that runs alone in the whole host.
    pub(crate) solo: Arc<RwLock<()>>,
    pub(crate) lifecycle: Lifecycle,
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
    conflicts: u32,
    /// Why the message is given up, once its handler may still answer that.
    given_up: Option<String>,
}

/// How one try ended.
pub(crate) enum End {
    /// The unit is committed, or had been before.
    Settled,
    /// Somebody else was faster, or the database ended the try: load and run again. With what is
    /// known of the cause.
    Reload(String),
    /// The handler failed.
    Failed(HandlerError),
    /// The outcome is not known, and redelivery will tell.
    Abandoned,
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
            given_up: None,
        };
        (case, decoded, Held { row, place })
    }
}

// What rarely happens is boxed where it is awaited: every message allocates a task that is as large
// as the largest way through here.
impl Case<'_> {
    /// Says whether nothing about the message asks for care: it has not expired, and no start of it
    /// ended without a word.
    pub(crate) fn is_plain(&self) -> bool {
        match &self.arrival {
            Arrival::Row(row) => {
                !row.is_expired && row.starts - 1 - row.failures < LOST_STARTS_SUSPECT
            }
            Arrival::Delivery(delivery) => delivery.redeliveries < REDELIVERIES_SUSPECT,
        }
    }

    pub(crate) async fn run(self, decoded: Dispatched) {
        if let Arrival::Row(row) = &self.arrival {
            if row.is_expired {
                self.endpoint.counters.expired.increment();
                return Box::pin(self.dead(Reason::Expired, None)).await;
            }
            if row.starts - 1 - row.failures >= LOST_STARTS_SUSPECT {
                return Box::pin(self.run_alone(decoded)).await;
            }
        }
        if let Arrival::Delivery(delivery) = &self.arrival
            && delivery.redeliveries >= REDELIVERIES_SUSPECT
        {
            return Box::pin(self.postpone(Duration::ZERO)).await;
        }
        let _shared = self.endpoint.solo.read().await;
        self.run_decoded(decoded).await;
    }

    /// Runs a message of which earlier starts ended without a word, with nothing else beside it.
    async fn run_alone(self, decoded: Dispatched) {
        if let Arrival::Row(row) = &self.arrival {
            if row.solo_starts >= SOLO_STARTS_MAX {
                let starts = row.starts - 1;
                let error = format!("{starts} starts ended without a word, the last ones alone");
                return self.dead(Reason::KilledHost, Some(error)).await;
            }
            let row = row.row;
            let _alone = self.endpoint.solo.write().await;
            self.endpoint.committer.settle(Settle::StartSolo(row)).await;
            return self.run_decoded(decoded).await;
        }
        self.run_decoded(decoded).await;
    }

    async fn run_decoded(mut self, decoded: Dispatched) {
        let (subscriber, decoded) = match decoded {
            Ok(decoded) => decoded,
            Err(refused) => {
                return Box::pin(self.dead(refused.reason, Some(refused.error))).await;
            }
        };
        let question = self.question(&decoded);
        let mut message = Some(decoded.message);
        loop {
            // A handler that ran has used its message up: each further try decodes again.
            let message = match message.take() {
                Some(message) => message,
                None => match subscriber.decode(self.arrival.envelope()) {
                    Ok(again) => again.message,
                    Err(error) => {
                        let error = Some(chain(&error));
                        return Box::pin(self.dead(Reason::Undecodable, error)).await;
                    }
                },
            };
            let Some(answer) = self.endpoint.loader.ask(question.clone()).await else {
                return;
            };
            faults::at(Point::Loaded);
            if answer.is_taken_over {
                self.endpoint.counters.duplicates.increment();
                return self.ack().await;
            }
            if answer.is_blocked {
                return Box::pin(self.postpone(Duration::ZERO)).await;
            }
            let end = if self.is_stale_timer(answer.instance.as_ref()) {
                Box::pin(self.commit_nothing("stale_timer")).await
            } else {
                let found = answer.instance.as_ref().map(|one| one.id.clone());
                let id = question.instance.clone().or(found);
                self.attempt(&*subscriber, message, id, answer.instance)
                    .await
            };
            let decision = match end {
                End::Settled => return self.ack().await,
                End::Abandoned => return Box::pin(self.abandon()).await,
                End::Reload(cause) => self.excused(cause),
                End::Failed(error) => self.failed(&error, &*subscriber),
            };
            match Box::pin(self.follow(decision)).await {
                Some(again) => self = again,
                None => return,
            }
        }
    }

    /// Does what was decided on a message that is not settled; returns it if it is to run again.
    async fn follow(self, decision: Decision) -> Option<Self> {
        match decision {
            Decision::Now => return Some(self),
            Decision::Reload => {
                let pause = Duration::from_millis(2) * 2u32.pow(self.conflicts);
                tokio::time::sleep(jittered(pause)).await;
                return Some(self);
            }
            Decision::Later(delay) => self.postpone(jittered(delay)).await,
            Decision::NotBefore(delay) => self.postpone(delay).await,
            Decision::Aside(delay) => self.set_aside(jittered(delay)).await,
            Decision::Dead(reason) => self.dead(reason, None).await,
        }
        None
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
    async fn attempt(
        &self,
        subscriber: &dyn Subscriber,
        message: Box<dyn std::any::Any + Send + Sync>,
        instance_id: Option<InstanceId>,
        instance: Option<Instance>,
    ) -> End {
        let cx = self.context(instance_id, instance);
        let started = Instant::now();
        let result = Next::new(&self.endpoint.pipeline, subscriber, message)
            .run(&cx)
            .await;
        faults::at(Point::Handled);
        let staged = cx.close();
        // A handler that gave its `Tx` away still holds the slot: its writes cannot be committed.
        let transaction = cx.transaction().try_lock().map(|mut slot| slot.take());
        match (result, transaction) {
            (Ok(()), Ok(transaction)) => self.commit(staged, started, transaction).await,
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

    /// Says how a try ended that left an error.
    fn end_of(&self, error: HandlerError, is_excused: bool) -> End {
        if is_excused {
            // The outage is in the log once, by those who talk to the database all the time.
            let (id, error) = (self.arrival.envelope().id, error.chain());
            tracing::debug!(%id, error, "try ended by the database; costs no attempt");
            return End::Reload(error);
        }
        End::Failed(error)
    }

    /// Records a failed try and says what follows.
    fn failed(&mut self, error: &HandlerError, subscriber: &dyn Subscriber) -> Decision {
        self.endpoint.counters.failed_attempts.increment();
        let class = error.class();
        match class {
            Class::Conflict => return self.excused(error.chain()),
            Class::RetryAfter(_) => self.tries.excuse(&self.endpoint.host.name, error.chain()),
            _ => self.tries.fail(&self.endpoint.host.name, error.chain()),
        }
        let (failures, excuses) = (self.tries.failures(), self.tries.excuses());
        let decision = self.endpoint.retry.decide(class, failures, excuses);
        let gives_up = matches!(
            decision,
            Decision::Dead(Reason::AttemptsExhausted | Reason::ExcusesExhausted | Reason::Terminal)
        );
        if gives_up && self.given_up.is_none() && subscriber.compensates() {
            self.given_up = Some(error.chain());
            return Decision::Now;
        }
        decision
    }

    /// Says what follows a try that others or the database ended: a few more at once, which nobody
    /// counts, then one that is written down and counted.
    fn excused(&mut self, cause: String) -> Decision {
        if self.conflicts < CONFLICTS_MAX {
            self.conflicts += 1;
            return Decision::Reload;
        }
        self.tries.excuse(&self.endpoint.host.name, cause);
        self.endpoint.retry.excuse(self.tries.excuses())
    }
}
