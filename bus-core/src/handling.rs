//! One message, from its place in the lane to its settled end.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, RwLock};
use tokio::time::Instant;

use crate::backoff::jittered;
use crate::clock;
use crate::committer::{Answer, CommitterHandle};
use crate::context::{Ctx, Handling, HostFacts, Staged};
use crate::counters::Counters;
use crate::dispatch::{Dispatch, Undispatchable};
use crate::endpoint::{Destination, EndpointId, EndpointName, Order};
use crate::envelope::{Due, Envelope, Outgoing};
use crate::error::{HandlerError, StoreError, chain};
use crate::faults::{self, Point};
use crate::handler::{Decoded, Subscriber};
use crate::headers;
use crate::id::InstanceId;
use crate::intake::{Arrival, InHand, Work};
use crate::lifecycle::Lifecycle;
use crate::loader::LoaderHandle;
use crate::pipeline::{Middleware, Next};
use crate::retry::{Decision, Retry};
use crate::store::{Instance, OpenTransaction, Question};
use crate::unit_of_work::{
    Attempt, DeadLetter, HistoryDetail, HistoryEntry, Outcome, Reason, Settle, Source, Start,
    UnitOfWork,
};

/// Reruns after a conflict, before the message is written down for a moment later.
const CONFLICTS_MAX: u32 = 3;
/// Starts without a recorded end after which a message runs alone.
const LOST_STARTS_SUSPECT: i32 = 2;
/// Starts alone without a recorded end after which a message is a dead letter.
const SOLO_STARTS_MAX: i32 = 3;
/// Redeliveries by the broker after which a message is taken over before it is run.
const REDELIVERIES_SUSPECT: u32 = 2;
/// Attempts that a row remembers: the latest. More would only repeat what these say.
const ATTEMPTS_KEPT: usize = 20;
/// The most messages that one unit may send.
const UNIT_MESSAGES_MAX: usize = 10_000;
/// The most bytes that one unit may write.
const UNIT_BYTES_MAX: usize = 16 * 1024 * 1024;

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

/// A message that has been decoded, or cannot be.
pub(crate) struct Job {
    arrival: Arrival,
    place: OwnedSemaphorePermit,
    decoded: Result<(Arc<dyn Subscriber>, Decoded), Undispatchable>,
}

/// Decodes a message.
pub(crate) fn decode(endpoint: &Endpoint, work: Work) -> Job {
    let Work { arrival, place } = work;
    let decoded = endpoint.dispatch.decode(arrival.envelope());
    let decoded = decoded.map(|(subscriber, decoded)| (Arc::clone(subscriber), decoded));
    faults::at(Point::Decoded);
    Job {
        arrival,
        place,
        decoded,
    }
}

impl Job {
    pub(crate) fn instance(&self) -> Option<&InstanceId> {
        self.decoded.as_ref().ok()?.1.instance.as_ref()
    }

    pub(crate) fn key(&self) -> Option<&str> {
        self.arrival.key()
    }

    pub(crate) fn into_work(self) -> Work {
        Work {
            arrival: self.arrival,
            place: self.place,
        }
    }
}

impl Arrival {
    fn envelope(&self) -> &Envelope {
        match self {
            Self::Row(row) => &row.envelope,
            Self::Delivery(delivery) => &delivery.envelope,
        }
    }

    fn key(&self) -> Option<&str> {
        match self {
            Self::Row(row) => row.key.as_deref(),
            Self::Delivery(delivery) => delivery.envelope.headers.get(headers::KEY),
        }
    }
}

/// Handles one message to its end: committed and acked, written down for later, or a dead letter.
/// A forced stop leaves it to its lease or its redelivery.
pub(crate) async fn run(endpoint: &Endpoint, job: Job) {
    let Job {
        arrival,
        place,
        decoded,
    } = job;
    let row = match &arrival {
        Arrival::Row(row) => Some(row.row),
        Arrival::Delivery(_) => None,
    };
    let attempts = match &arrival {
        Arrival::Row(row) => row.attempts.clone(),
        Arrival::Delivery(_) => Vec::new(),
    };
    let known_failures = attempts.len();
    let case = Case {
        endpoint,
        arrival,
        attempts,
        known_failures,
        conflicts: 0,
    };
    case.run(decoded).await;
    if let Some(row) = row {
        endpoint.in_hand.let_go(row);
    }
    drop(place);
    endpoint.in_hand.freed.notify_one();
}

/// One message and what happened to it so far.
struct Case<'a> {
    endpoint: &'a Endpoint,
    arrival: Arrival,
    attempts: Vec<Attempt>,
    known_failures: usize,
    conflicts: u32,
}

/// How one try ended.
enum End {
    /// The unit is committed, or had been before.
    Settled,
    /// Somebody else was faster: load and run again.
    Reload,
    /// The handler failed.
    Failed(HandlerError),
    /// The outcome is not known, and redelivery will tell.
    Abandoned,
}

impl Case<'_> {
    async fn run(self, decoded: Result<(Arc<dyn Subscriber>, Decoded), Undispatchable>) {
        if let Arrival::Row(row) = &self.arrival {
            if row.is_expired {
                self.endpoint.counters.expired.increment();
                return self.dead(Reason::Expired, None).await;
            }
            if row.starts - 1 - row.failures >= LOST_STARTS_SUSPECT {
                return self.run_alone(decoded).await;
            }
        }
        if let Arrival::Delivery(delivery) = &self.arrival
            && delivery.redeliveries >= REDELIVERIES_SUSPECT
        {
            return self.postpone(Duration::ZERO, Start::Counted).await;
        }
        let _shared = self.endpoint.solo.read().await;
        self.run_decoded(decoded).await;
    }

    /// Runs a message of which earlier starts ended without a word, with nothing else beside it.
    async fn run_alone(self, decoded: Result<(Arc<dyn Subscriber>, Decoded), Undispatchable>) {
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

    async fn run_decoded(
        mut self,
        decoded: Result<(Arc<dyn Subscriber>, Decoded), Undispatchable>,
    ) {
        let (subscriber, decoded) = match decoded {
            Ok(decoded) => decoded,
            Err(refused) => return self.dead(refused.reason, Some(refused.error)).await,
        };
        let question = self.question(&decoded);
        let mut message = Some(decoded.message);
        loop {
            // A handler that ran has used its message up: each further try decodes again.
            let message = match message.take() {
                Some(message) => message,
                None => match subscriber.decode(self.arrival.envelope()) {
                    Ok(again) => again.message,
                    Err(error) => return self.dead(Reason::Undecodable, Some(chain(&error))).await,
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
                return self.postpone(Duration::ZERO, Start::Counted).await;
            }
            let end = if self.is_stale_timer(answer.instance.as_ref()) {
                self.commit_nothing("stale_timer").await
            } else {
                self.attempt(
                    &*subscriber,
                    message,
                    question.instance.clone(),
                    answer.instance,
                )
                .await
            };
            let decision = match end {
                End::Settled => return self.ack().await,
                End::Abandoned => return self.abandon().await,
                End::Reload => Decision::Reload,
                End::Failed(error) => self.failed(&error),
            };
            match decision {
                Decision::Now => {}
                Decision::Reload if self.conflicts < CONFLICTS_MAX => {
                    self.conflicts += 1;
                    let pause = Duration::from_millis(2) * 2u32.pow(self.conflicts);
                    tokio::time::sleep(jittered(pause)).await;
                }
                Decision::Reload => {
                    let pause = jittered(Duration::from_millis(100));
                    return self.postpone(pause, Start::GivenBack).await;
                }
                Decision::Later(delay) => {
                    let has_failed = self.attempts.len() > self.known_failures;
                    let start = if has_failed {
                        Start::Counted
                    } else {
                        Start::GivenBack
                    };
                    return self.postpone(jittered(delay), start).await;
                }
                Decision::Dead(reason) => return self.dead(reason, None).await,
            }
        }
    }

    fn question(&self, decoded: &Decoded) -> Question {
        let instance = match &self.arrival {
            Arrival::Row(row) => row.timer.as_ref().map(|timer| timer.owner.clone()),
            Arrival::Delivery(_) => None,
        };
        let instance = instance.or_else(|| decoded.instance.clone());
        let Arrival::Delivery(delivery) = &self.arrival else {
            return Question {
                instance,
                ..Question::default()
            };
        };
        let key = (self.endpoint.order == Order::PerKey)
            .then(|| self.arrival.key())
            .flatten();
        Question {
            taken_over: Some((self.endpoint.id, delivery.envelope.id)),
            instance,
            blocked: key.map(|key| (self.endpoint.name.clone(), key.to_owned())),
        }
    }

    /// Says whether this is a timer that its instance no longer holds.
    fn is_stale_timer(&self, instance: Option<&Instance>) -> bool {
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
        let timer = match &self.arrival {
            Arrival::Row(row) => row.timer.clone(),
            Arrival::Delivery(_) => None,
        };
        let handling = Handling {
            envelope: self.arrival.envelope().clone(),
            endpoint: self.endpoint.name.clone(),
            attempt: u32::try_from(self.attempts.len()).unwrap_or(u32::MAX - 1) + 1,
            instance_id,
            instance,
            timer,
        };
        let cx = Ctx::new(handling, Arc::clone(&self.endpoint.host));
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
                transaction.rollback().await;
                End::Failed(error)
            }
            (Err(error), _) => End::Failed(error),
        }
    }

    async fn commit(
        &self,
        staged: Staged,
        started: Instant,
        transaction: Option<Box<dyn OpenTransaction>>,
    ) -> End {
        let unit = self.unit(staged, started);
        let (messages, bytes) = (unit.outgoing.len(), unit.size());
        if messages > UNIT_MESSAGES_MAX || bytes > UNIT_BYTES_MAX {
            if let Some(transaction) = transaction {
                transaction.rollback().await;
            }
            let error = format!(
                "unit of {messages} messages and {bytes} bytes is larger than {UNIT_MESSAGES_MAX} messages or {UNIT_BYTES_MAX} bytes"
            );
            return End::Failed(HandlerError::dead(Reason::UnitTooLarge, error));
        }
        let Some(transaction) = transaction else {
            return self.commit_grouped(unit).await;
        };
        faults::at(Point::BeforeTxCommit);
        match self
            .endpoint
            .committer
            .commit_through(transaction, unit)
            .await
        {
            Ok(Outcome::Committed | Outcome::Duplicate) => End::Settled,
            Ok(Outcome::Conflict) | Err(StoreError::Busy(_) | StoreError::Unavailable(_)) => {
                End::Reload
            }
            Err(StoreError::Unknown(error)) => {
                tracing::warn!(
                    error = chain(&*error),
                    "commit of a `Tx` is in doubt; redelivery will tell"
                );
                End::Abandoned
            }
            Err(error @ StoreError::TransactionEnded) => {
                End::Failed(HandlerError::from(error).terminal())
            }
            Err(error @ StoreError::Refused(_)) => {
                End::Failed(HandlerError::dead(Reason::RefusedByStore, error))
            }
            Err(error) => End::Failed(error.into()),
        }
    }

    async fn commit_grouped(&self, unit: UnitOfWork) -> End {
        match self.endpoint.committer.commit(unit).await {
            Some(Answer::Done(Outcome::Committed | Outcome::Duplicate)) => End::Settled,
            Some(Answer::Done(Outcome::Conflict)) => End::Reload,
            Some(Answer::Refused(error)) => {
                End::Failed(HandlerError::dead(Reason::RefusedByStore, error))
            }
            None => End::Abandoned,
        }
    }

    /// Accepts the message without an effect, and records why.
    async fn commit_nothing(&self, note: &'static str) -> End {
        let staged = Staged {
            note: Some(note.into()),
            ..Staged::default()
        };
        self.commit_grouped(self.unit(staged, Instant::now())).await
    }

    fn unit(&self, staged: Staged, started: Instant) -> UnitOfWork {
        let envelope = self.arrival.envelope();
        let history = self.endpoint.keeps_history.then(|| HistoryEntry {
            endpoint: self.endpoint.id,
            message_id: envelope.id,
            message_type: envelope.message_type.clone(),
            correlation_id: envelope.correlation_id(),
            instance: staged
                .instance
                .as_ref()
                .map(|change| (change.id.clone(), change.expected + 1)),
            detail: HistoryDetail {
                causation_id: envelope
                    .headers
                    .get(headers::CAUSATION_ID)
                    .and_then(|id| id.parse().ok()),
                state_from: staged.state_from,
                state_to: staged
                    .instance
                    .as_ref()
                    .and_then(|change| change.state.clone()),
                sent: staged
                    .outgoing
                    .iter()
                    .map(|one| (one.envelope.id, one.envelope.message_type.clone()))
                    .collect(),
                attempt: u32::try_from(self.attempts.len()).unwrap_or(u32::MAX - 1) + 1,
                micros: u64::try_from(started.elapsed().as_micros()).unwrap_or(u64::MAX),
                note: staged.note,
            },
        });
        UnitOfWork {
            sources: vec![self.source()],
            instance: staged.instance,
            outgoing: staged.outgoing,
            history: history.into_iter().collect(),
            failed: None,
        }
    }

    fn source(&self) -> Source {
        match &self.arrival {
            Arrival::Row(row) => Source::Row(row.row),
            Arrival::Delivery(delivery) => Source::Broker {
                endpoint: self.endpoint.id,
                message_id: delivery.envelope.id,
            },
        }
    }

    /// Records a failed try and says what follows.
    fn failed(&mut self, error: &HandlerError) -> Decision {
        self.endpoint.counters.failed_attempts.increment();
        let class = error.class();
        let costs_nothing = matches!(
            class,
            crate::error::Class::RetryAfter(_) | crate::error::Class::Conflict
        );
        if !costs_nothing {
            self.note_attempt(error.chain());
        }
        self.endpoint.retry.decide(class, self.failures())
    }

    fn failures(&self) -> u32 {
        let before = match &self.arrival {
            Arrival::Row(row) => u32::try_from(row.failures).unwrap_or(0),
            Arrival::Delivery(_) => 0,
        };
        let new = self.attempts.len() - self.known_failures;
        before + u32::try_from(new).unwrap_or(u32::MAX)
    }

    fn note_attempt(&mut self, error: String) {
        let host = self.endpoint.host.name.clone();
        self.attempts.push(Attempt {
            at: clock::now(),
            host,
            error,
        });
    }

    /// Writes the message down for later, with its attempts, and lets go of the original.
    async fn postpone(self, after: Duration, start: Start) {
        self.endpoint.counters.postponed.increment();
        let has_failed = self.attempts.len() > self.known_failures;
        if let Arrival::Row(row) = &self.arrival {
            let attempts = has_failed.then(|| self.attempts.clone());
            faults::at(Point::BeforeTakeOver);
            let release = Settle::Release {
                row: row.row,
                after,
                attempts,
                start,
            };
            self.endpoint.committer.settle(release).await;
            faults::at(Point::AfterTakeOver);
            return;
        }
        let destination = Destination::Endpoint(self.endpoint.name.clone());
        let mut copy = Outgoing::from_envelope(self.arrival.envelope().clone(), destination);
        copy.attempts.clone_from(&self.attempts);
        if !after.is_zero() {
            copy.due = Due::After(after);
        }
        let unit = UnitOfWork {
            sources: vec![self.source()],
            outgoing: vec![copy],
            ..UnitOfWork::default()
        };
        faults::at(Point::BeforeTakeOver);
        let end = self.commit_grouped(unit).await;
        faults::at(Point::AfterTakeOver);
        if let End::Settled = end {
            self.ack().await;
        }
    }

    /// Stops trying: the message becomes a dead letter, with everything that is known.
    async fn dead(mut self, reason: Reason, error: Option<String>) {
        if let Some(error) = error {
            self.note_attempt(error);
        }
        let excess = self.attempts.len().saturating_sub(ATTEMPTS_KEPT);
        self.attempts.drain(..excess);
        let envelope = self.arrival.envelope().clone();
        let (id, message_type) = (envelope.id, envelope.message_type.clone());
        let dead = DeadLetter {
            endpoint: self.endpoint.name.clone(),
            envelope,
            reason,
            attempts: self.attempts.clone(),
            key: self.arrival.key().map(str::to_owned),
            instance: None,
        };
        let unit = UnitOfWork {
            sources: vec![self.source()],
            failed: Some(Box::new(dead)),
            ..UnitOfWork::default()
        };
        faults::at(Point::BeforeDeadLetter);
        let end = self.commit_grouped(unit).await;
        faults::at(Point::AfterDeadLetter);
        match end {
            End::Settled => {
                self.endpoint.counters.dead_lettered.increment();
                let (endpoint, reason) = (&self.endpoint.name, reason.as_str());
                tracing::warn!(%id, %message_type, %endpoint, reason, "message is a dead letter");
                self.ack().await;
            }
            End::Failed(error) => {
                tracing::error!(%id, error = error.chain(), "dead letter was refused; the message comes again");
            }
            End::Reload | End::Abandoned => {}
        }
    }

    /// Lets go of a message whose commit is in doubt: it comes again, and the inbox or the epoch
    /// tells whether it was done.
    async fn abandon(self) {
        let after = Duration::from_millis(50);
        match self.arrival {
            Arrival::Row(row) => {
                let start = Start::GivenBack;
                let release = Settle::Release {
                    row: row.row,
                    after,
                    attempts: None,
                    start,
                };
                self.endpoint.committer.settle_all(vec![release]).await;
            }
            Arrival::Delivery(delivery) => delivery.retry_after(after).await,
        }
    }

    /// Tells the broker that the message is ours for good. A row is gone with its commit.
    async fn ack(self) {
        faults::at(Point::BeforeAck);
        if let Arrival::Delivery(delivery) = self.arrival {
            delivery.ack().await;
        }
        faults::at(Point::AfterAck);
    }
}
