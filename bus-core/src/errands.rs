//! What operators ask of a live host: to rehearse a message, which is handled and undone, or to
//! move an instance by hand, which is a unit of work like any other.

use std::any::Any;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::BoxFuture;

use crate::admin::{
    ANSWERED, ASKED, Errand, ErrandAnswer, Forced, Report, TAKEN, Task, Verdict, errand_id,
};
use crate::clock::Timestamp;
use crate::committer::Answer;
use crate::context::{Ctx, Handling, Staged};
use crate::dispatch::Undispatchable;
use crate::envelope::{Envelope, Timer};
use crate::error::{CodecError, HandlerError, chain};
use crate::handler::{Decoded, Need, Subscriber};
use crate::handling::Endpoint;
use crate::headers::{self, Headers};
use crate::id::{CorrelationId, InstanceId, MessageId};
use crate::migrating::migrate;
use crate::pipeline::Next;
use crate::reading::read;
use crate::store::{Instance, OpenTransaction, Question, Subscription};
use crate::telling::{failed, tell};
use crate::unit_of_work::{
    HistoryDetail, HistoryEntry, InstanceChange, InstanceStatus, Outcome, UnitOfWork,
};

/// The type of the message that history shows for an instance that was moved by hand.
const BY_HAND: &str = "sagabus.by-hand";
/// The version of the shape of an errand's row.
const SHAPE: i32 = 1;

/// Says whether an endpoint's row asks for something that no host has taken yet.
pub(crate) fn is_asked(row: &Instance) -> bool {
    row.status == InstanceStatus::Running && row.state.as_deref() == Some(ASKED)
}

/// Does what an endpoint's row asks for, where this host is the first to take it.
pub(crate) async fn attend(endpoint: Arc<Endpoint>, row: Instance, now: Timestamp) {
    let errand = match serde_json::from_slice::<Errand>(&row.data) {
        Ok(errand) if errand.until > now => errand,
        Ok(_) => return, // Nobody waits for it any more.
        Err(error) => {
            // A newer release's command line asked: the asker is told by its own patience.
            let endpoint = &endpoint.name;
            tracing::warn!(%endpoint, %error, "an errand cannot be read");
            return;
        }
    };
    if !write(&endpoint, row.version, TAKEN, row.data).await {
        return; // Another host was faster, or the operator asked for something else.
    }
    let report = match errand.task {
        Task::Rehearse(parcel) => {
            let (envelope, timer) = parcel.open();
            rehearse(&endpoint, envelope, timer).await
        }
        Task::Transition(forced) => transition(&endpoint, *forced).await,
        Task::Migrate(batch) => migrate(&endpoint, *batch).await,
        Task::Read(candidate) => read(&endpoint, *candidate).await,
    };
    let answer = ErrandAnswer {
        host: endpoint.host.name.clone(),
        report,
    };
    let data = serde_json::to_vec(&answer).expect("an answer is always JSON");
    if !write(&endpoint, row.version + 1, ANSWERED, data.into()).await {
        let endpoint = &endpoint.name;
        tracing::warn!(%endpoint, "nobody waits for the answer to an errand any more");
    }
}

/// Moves the endpoint's errand on from a version. False: somebody else has moved it.
async fn write(endpoint: &Endpoint, expected: i64, state: &'static str, data: Bytes) -> bool {
    let status = match state {
        ANSWERED => InstanceStatus::Completed,
        _ => InstanceStatus::Running,
    };
    let unit = UnitOfWork {
        instance: Some(InstanceChange {
            id: errand_id(endpoint.name.as_str()),
            expected,
            status,
            state: Some(state.into()),
            schema_version: SHAPE,
            data,
            timers: Default::default(),
            disarmed: Vec::new(),
            origin: None,
            labels: None,
        }),
        ..UnitOfWork::default()
    };
    let answer = endpoint.committer.commit(unit).await;
    matches!(answer, Some(Answer::Done(Outcome::Committed)))
}

/// Handles a message as it would be handled now, and undoes all of it.
async fn rehearse(endpoint: &Endpoint, envelope: Envelope, timer: Option<Timer>) -> Report {
    let (subscriber, decoded) = match endpoint.dispatch.decode(&envelope) {
        Ok((subscriber, decoded)) => (Arc::clone(subscriber), decoded),
        Err(Undispatchable { reason, error }) => {
            return Report {
                verdict: Verdict::Refused {
                    reason: Some(reason.as_str().to_owned()),
                    error,
                },
                ..Report::default()
            };
        }
    };
    let name = subscriber.name().to_owned();
    let of = |verdict| Report {
        handler: Some(name.clone()),
        verdict,
        ..Report::default()
    };
    if let Some(skipped) = why_skipped(endpoint, &*subscriber) {
        return of(skipped);
    }
    let owner = timer.as_ref().map(|timer| timer.owner.clone());
    let instance_id = owner.or_else(|| decoded.instance.clone());
    let question = Question {
        label: decoded.label.clone().filter(|_| instance_id.is_none()),
        instance: instance_id.clone(),
        ..Question::default()
    };
    let Some(loaded) = endpoint.loader.ask(&question).await else {
        return of(stopped());
    };
    let instance = loaded.answer.instance.clone();
    let held = |timer: &Timer| {
        instance
            .as_ref()
            .and_then(|one| one.timers.get(&timer.name))
    };
    if timer
        .as_ref()
        .is_some_and(|one| held(one) != Some(&one.generation))
    {
        let note = Some("stale_timer".to_owned());
        return Report {
            note,
            ..of(Verdict::Well)
        };
    }
    let found = instance.as_ref().map(|one| one.id.clone());
    let run = Run {
        envelope,
        timer,
        instance_id: instance_id.or(found),
        instance: instance.clone(),
    };
    let (staged, transaction) = match run.on(endpoint, &*subscriber, decoded.message).await {
        Ok(done) => done,
        Err(error) => return of(failed(endpoint, &*subscriber, &error)),
    };
    if let Some(transaction) = transaction {
        transaction.rollback().await;
    }
    tell(endpoint, of(Verdict::Well), &staged, instance.as_ref())
}

/// Says why a message is not rehearsed: nobody declared that a rollback undoes what it does.
fn why_skipped(endpoint: &Endpoint, subscriber: &dyn Subscriber) -> Option<Verdict> {
    let message_type = subscriber.subscription().message_type;
    if subscriber.merges() || endpoint.rehearsed.contains(&&*message_type) {
        return None;
    }
    Some(Verdict::Skipped {
        why: format!(
            "it may touch what no database undoes; if it does not, its endpoint says so for \
             `{message_type}` with `.rehearses::<..>()`"
        ),
    })
}

/// Moves an instance of a machine to another state, or to its end, with what its machine does on the
/// way.
async fn transition(endpoint: &Endpoint, forced: Forced) -> Report {
    let of = |verdict| Report {
        handler: Some(forced.instance.kind.to_string()),
        verdict,
        ..Report::default()
    };
    let refused = |error: String| {
        of(Verdict::Refused {
            reason: None,
            error,
        })
    };
    let machine = match mover(endpoint, &forced) {
        Ok(machine) => machine,
        Err(error) => return refused(error),
    };
    let question = Question {
        instance: Some(forced.instance.clone()),
        ..Question::default()
    };
    let Some(loaded) = endpoint.loader.ask(&question).await else {
        return of(stopped());
    };
    let found = loaded.answer.instance.clone();
    let is_it =
        |one: &Instance| one.status == InstanceStatus::Running && one.version == forced.version;
    let Some(instance) = found.filter(is_it) else {
        return refused(format!(
            "{} moved meanwhile; look at it again",
            forced.instance
        ));
    };
    let run = Run {
        envelope: by_hand(&instance),
        timer: None,
        instance_id: Some(forced.instance.clone()),
        instance: Some(instance.clone()),
    };
    let envelope = run.envelope.clone();
    let by_hand = ByHand {
        subscriber: &*machine,
        deed: forced.to.as_deref().map_or(Deed::Cancel, Deed::MoveTo),
    };
    let (staged, transaction) = match run.on(endpoint, &by_hand, Box::new(())).await {
        Ok(done) => done,
        Err(error) => return of(failed(endpoint, &*machine, &error)),
    };
    let report = tell(endpoint, of(Verdict::Well), &staged, Some(&instance));
    let done = forced.to.as_ref().map_or("cancelled", |_| "moved");
    let note = format!("{done} by {}", forced.who);
    let unit = unit_by_hand(endpoint, &envelope, staged, note);
    match commit(endpoint, unit, transaction).await {
        Ok(Outcome::Committed | Outcome::Duplicate) => report,
        Ok(Outcome::Conflict) => {
            refused("the instance moved meanwhile; look at it again".to_owned())
        }
        Err(error) => refused(error),
    }
}

/// Finds who moves an instance.
fn mover(endpoint: &Endpoint, forced: &Forced) -> Result<Arc<dyn Subscriber>, String> {
    let (kind, name) = (&forced.instance.kind, &endpoint.name);
    let Some(to) = &forced.to else {
        return Ok(saga_of(endpoint, kind)?.0);
    };
    let all = endpoint.dispatch.subscribers().into_iter();
    let mut sagas = all.filter(|one| one.name() == &**kind);
    let found = sagas.find_map(|one| Some((one, one.has_state(to)?)));
    match found {
        Some((machine, true)) => Ok(Arc::clone(machine)),
        Some((_, false)) => Err(format!("machine `{kind}` has no state `{to}`")),
        None => Err(format!("endpoint `{name}` has no machine `{kind}` here")),
    }
}

/// Finds a saga or machine by its kind, with the version of the data of its instances.
pub(crate) fn saga_of(
    endpoint: &Endpoint,
    kind: &str,
) -> Result<(Arc<dyn Subscriber>, i32), String> {
    let all = endpoint.dispatch.subscribers().into_iter();
    let mut sagas = all.filter(|one| one.name() == kind);
    let found = sagas.find_map(|one| Some((Arc::clone(one), one.schema_version()?)));
    let name = &endpoint.name;
    found.ok_or_else(|| format!("endpoint `{name}` has no saga or machine `{kind}` here"))
}

/// Commits what an operator had done to an instance.
pub(crate) async fn commit(
    endpoint: &Endpoint,
    unit: UnitOfWork,
    transaction: Option<Box<dyn OpenTransaction>>,
) -> Result<Outcome, String> {
    let outcome = match transaction {
        Some(transaction) => endpoint.committer.commit_through(transaction, unit).await,
        None => match endpoint.committer.commit(unit).await {
            Some(Answer::Done(outcome)) => Ok(outcome),
            Some(Answer::Refused(error)) => Err(error),
            None => return Err("the host stopped; look at the instance".to_owned()),
        },
    };
    outcome.map_err(|error| chain(&error))
}

/// One run of a subscriber in the endpoint's pipeline.
pub(crate) struct Run {
    pub(crate) envelope: Envelope,
    pub(crate) timer: Option<Timer>,
    pub(crate) instance_id: Option<InstanceId>,
    pub(crate) instance: Option<Instance>,
}

pub(crate) type Ran = (Staged, Option<Box<dyn OpenTransaction>>);

impl Run {
    /// Runs it, and returns what it staged with the transaction that it left open.
    pub(crate) async fn on(
        self,
        endpoint: &Endpoint,
        subscriber: &dyn Subscriber,
        message: Box<dyn Any + Send + Sync>,
    ) -> Result<Ran, HandlerError> {
        let handling = Handling {
            envelope: self.envelope,
            endpoint: endpoint.name.clone(),
            attempt: 1,
            instance_id: self.instance_id,
            instance: self.instance,
            timer: self.timer,
            given_up: None,
        };
        let cx = Ctx::new(handling, Arc::clone(&endpoint.host));
        // A message that may kill its host runs alone, also beside this.
        let _shared = endpoint.solo.read().await;
        let next = Next::new(&endpoint.pipeline, subscriber, message);
        let result = next.run(&cx).await;
        let staged = cx.close();
        let transaction = cx.transaction().try_lock().map(|mut slot| slot.take());
        match (result, transaction) {
            (Ok(()), Ok(transaction)) => Ok((staged, transaction)),
            (Ok(()), Err(_)) => {
                let error = "handler returned while something else still holds its `Tx`";
                Err(HandlerError::new(error).terminal())
            }
            (Err(error), transaction) => {
                if let Ok(Some(transaction)) = transaction {
                    transaction.rollback().await;
                }
                Err(error)
            }
        }
    }
}

/// A saga or machine as the pipeline runs it where an operator does something to one of its
/// instances.
pub(crate) struct ByHand<'a> {
    pub(crate) subscriber: &'a dyn Subscriber,
    pub(crate) deed: Deed<'a>,
}

/// What an operator does to an instance.
pub(crate) enum Deed<'a> {
    MoveTo(&'a str),
    Cancel,
    WriteAnew,
}

impl Subscriber for ByHand<'_> {
    fn subscription(&self) -> Subscription {
        self.subscriber.subscription()
    }

    fn name(&self) -> &str {
        self.subscriber.name()
    }

    fn version(&self) -> u32 {
        self.subscriber.version()
    }

    fn needs(&self) -> Vec<Need> {
        Vec::new() // Checked with the subscriber's own.
    }

    fn decode(&self, envelope: &Envelope) -> Result<Decoded, CodecError> {
        self.subscriber.decode(envelope)
    }

    fn handle<'b>(
        &'b self,
        _: Box<dyn Any + Send + Sync>,
        cx: &'b Ctx,
    ) -> BoxFuture<'b, Result<(), HandlerError>> {
        match self.deed {
            Deed::MoveTo(state) => self.subscriber.move_to(state, cx),
            Deed::Cancel => self.subscriber.cancel(cx),
            Deed::WriteAnew => Box::pin(std::future::ready(self.subscriber.rewrite(cx))),
        }
    }
}

/// Makes the message that stands for an operator's hand in history and headers.
pub(crate) fn by_hand(instance: &Instance) -> Envelope {
    let id = MessageId::new();
    let known = instance.origin.as_ref().map(|origin| origin.correlation_id);
    let mut of = Headers::default();
    let conversation = known.unwrap_or_else(|| CorrelationId::from(id));
    of.set(headers::CORRELATION_ID, conversation.to_string());
    Envelope {
        id,
        message_type: BY_HAND.into(),
        headers: of,
        body: Bytes::new(),
    }
}

/// Makes the unit of an instance that an operator changes: it answers no delivery.
pub(crate) fn unit_by_hand(
    endpoint: &Endpoint,
    from: &Envelope,
    staged: Staged,
    note: String,
) -> UnitOfWork {
    let change = staged.instance.as_ref();
    let outgoing = staged.outgoing.iter();
    let timers = outgoing.clone().filter_map(|one| one.timer.as_ref());
    let detail = HistoryDetail {
        state_from: staged.state_from.clone(),
        state_to: change.and_then(|change| change.state.clone()),
        is_over: change.is_some_and(InstanceChange::is_over),
        sent: outgoing
            .map(|one| (one.envelope.id, one.envelope.message_type.clone()))
            .collect(),
        armed: timers.map(|timer| timer.name.clone()).collect(),
        cancelled: change.map_or_else(Vec::new, |change| change.disarmed.clone()),
        host: Some(endpoint.host.name.clone()),
        attempt: 1,
        note: Some(note.into()),
        ..HistoryDetail::default()
    };
    let entry = endpoint.keeps_history.then(|| HistoryEntry {
        endpoint: endpoint.id,
        message_id: from.id,
        message_type: from.message_type.clone(),
        correlation_id: from.correlation_id(),
        instance: change.map(|change| (change.id.clone(), change.expected + 1)),
        detail,
    });
    UnitOfWork {
        instance: staged.instance,
        outgoing: staged.outgoing,
        history: entry.into_iter().collect(),
        ..UnitOfWork::default()
    }
}

fn stopped() -> Verdict {
    Verdict::Refused {
        reason: None,
        error: "the host stops".to_owned(),
    }
}
