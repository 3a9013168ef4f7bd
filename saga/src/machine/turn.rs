//! One message moving one instance: what it does, where that leads, and what is staged.

use std::collections::BTreeSet;
use std::sync::Arc;

use futures_util::future::BoxFuture;
use sagabus_core::error::HandlerError;
use sagabus_core::request::Request;
use sagabus_core::unit_of_work::InstanceStatus;
use sagabus_core::{Ctx, InstanceId, Reason, Result, headers};

use super::definition::{Act, Definition, Ending, Erased, Moment, Transition, lineage};
use super::when::holds;
use crate::effects::{Before, Effects, Move, changed_labels, stage};
use crate::lock;
use crate::saga::{Saga, SagaState};
use crate::stored::{Book, Deferred, write};

/// Messages that one instance keeps for a later state: more is a machine that never takes them.
const DEFERRED_MAX: usize = 100;
/// Their bytes together, which every message of the instance has to carry along.
const DEFERRED_BYTES_MAX: usize = 256 * 1024;
/// How often one message may be kept for a later state.
const DEFERRALS_MAX: u32 = 20;

pub(super) struct Turn<'a, S: Saga> {
    definition: &'a Definition<S>,
    cx: &'a Ctx,
    id: &'a InstanceId,
    /// `None` for a new instance.
    from: Option<S::State>,
    state: Option<S::State>,
    status: InstanceStatus,
    /// Away only while an act has it.
    data: Option<S>,
    book: Book,
    note: Option<&'static str>,
    labels: Before,
    pub(super) effects: Effects,
}

impl<'a, S: Saga> Turn<'a, S> {
    pub(super) fn new(
        definition: &'a Definition<S>,
        cx: &'a Ctx,
        from: Option<S::State>,
        data: S,
        mut book: Book,
    ) -> Result<Self> {
        definition.rename_parts(&mut book);
        let id = cx.instance_id();
        Ok(Self {
            definition,
            cx,
            id: id.ok_or_else(|| HandlerError::new("message has lost its key").terminal())?,
            from,
            state: from,
            status: InstanceStatus::Running,
            labels: Before::of(cx, from.is_none(), &data),
            data: Some(data),
            book,
            note: None,
            effects: Effects::new(Arc::clone(&definition.name)),
        })
    }

    /// Does what a transition says, and goes where it ends.
    pub(super) async fn perform(&mut self, transition: &Transition<S>, message: &Erased) -> Result {
        self.act(&transition.performance.acts, message).await?;
        match transition.ending {
            Ending::To(next) if self.state != Some(next) => self.go(Some(next)).await,
            Ending::Finalize => self.end().await,
            Ending::To(_) | Ending::Stay | Ending::Ignore | Ending::Defer => Ok(()),
        }
    }

    /// Goes where an operator says, as a transition without acts would.
    pub(super) async fn move_by_hand(&mut self, to: S::State) -> Result {
        match self.state == Some(to) {
            true => Ok(()),
            false => self.go(Some(to)).await,
        }
    }

    /// Goes to the end.
    pub(super) async fn end(&mut self) -> Result {
        self.status = InstanceStatus::Completed;
        self.go(None).await
    }

    async fn act(&mut self, acts: &[Act<S>], message: &Erased) -> Result {
        for act in acts {
            let mut data = self.data.take().ok_or_else(gone)?;
            match act {
                Act::Do(act) => act(&mut data, message, &mut self.effects)?,
                Act::Run(run) => data = run(data, message, self.cx).await?,
                Act::If(condition, acts) => {
                    let holds = holds(Some(condition), &data, message);
                    self.data = Some(data);
                    if holds {
                        self.act_in_case(acts, message).await?;
                    }
                    continue;
                }
            }
            self.data = Some(data);
        }
        Ok(())
    }

    fn act_in_case<'b>(
        &'b mut self,
        acts: &'b [Act<S>],
        message: &'b Erased,
    ) -> BoxFuture<'b, Result> {
        Box::pin(self.act(acts, message))
    }

    /// Leaves the state for another one, or for the end.
    async fn go(&mut self, next: Option<S::State>) -> Result {
        let outer = |state: Option<S::State>| -> Vec<S::State> {
            state.map_or_else(Vec::new, |state| lineage(state).collect())
        };
        let (left, entered) = (outer(self.state), outer(next));
        // From the innermost outwards; what contains both is not left.
        for state in left.iter().filter(|state| !entered.contains(state)) {
            self.hooks(Moment::Leaving(*state)).await?;
        }
        if next.is_some() {
            self.hooks(Moment::BeforeEnteringAny).await?;
        }
        if self.state.is_some() {
            self.hooks(Moment::AfterLeavingAny).await?;
        }
        for state in entered.iter().rev().filter(|state| !left.contains(state)) {
            self.hooks(Moment::Entering(*state)).await?;
        }
        match next {
            Some(_) => self.state = next,
            None => self.hooks(Moment::Finishing).await?,
        }
        Ok(())
    }

    async fn hooks(&mut self, moment: Moment<S::State>) -> Result {
        let definition = self.definition;
        for hook in definition.hooks.iter().filter(|hook| hook.moment == moment) {
            self.act(&hook.performance.acts, &()).await?;
        }
        Ok(())
    }

    /// Says whether a message is a part of something that the state waits for.
    pub(super) fn sees(&self, message_type: &str) -> bool {
        let Some(state) = self.state else {
            return false;
        };
        let mut composites = self.definition.composites.iter();
        composites.any(|one| {
            one.in_state(state).is_some() && one.parts.iter().any(|part| part == message_type)
        })
    }

    /// Notes that a part has come, and does what the whole says when it is complete.
    pub(super) async fn see(&mut self, message_type: &str) -> Result {
        let definition = self.definition;
        for composite in &definition.composites {
            let is_part = composite.parts.iter().any(|part| part == message_type);
            // What the transition before it left behind waits for nothing any more.
            let state = self
                .state
                .filter(|_| self.status == InstanceStatus::Running);
            let Some(state) = state.filter(|_| is_part) else {
                continue;
            };
            let (from, now) = (self.from.unwrap_or(state), state);
            let transition = composite.in_state(from).or_else(|| composite.in_state(now));
            let Some(transition) = transition else {
                continue;
            };
            let seen = self.book.seen.entry(composite.name.to_owned()).or_default();
            seen.insert(message_type.to_owned());
            let wanted: BTreeSet<_> = composite.parts.iter().collect();
            if seen.iter().collect::<BTreeSet<_>>() == wanted {
                self.book.seen.remove(composite.name);
                self.perform(transition, &()).await?;
            }
        }
        Ok(())
    }

    /// Takes note that a question has its answer.
    pub(super) fn answered(&mut self, request: Request) {
        lock::answered(&mut self.book, &mut self.effects, self.cx, request);
    }

    /// Accepts the message without an effect, by intention.
    pub(super) fn ignore(mut self, request: Option<Request>) -> Result {
        if let Some(request) = request {
            self.answered(request);
        }
        self.note = Some("ignored");
        self.stage()
    }

    /// Keeps the message until the state changes.
    pub(super) fn defer(mut self) -> Result {
        let mut envelope = self.cx.envelope().clone();
        let times = envelope.headers.get(headers::DEFERRALS);
        let times = times.and_then(|times| times.parse().ok()).unwrap_or(0u32) + 1;
        let deferred = Deferred::new(&envelope);
        let bytes: usize = self.book.deferred.iter().map(Deferred::size).sum();
        let is_full = self.book.deferred.len() >= DEFERRED_MAX
            || bytes + deferred.size() > DEFERRED_BYTES_MAX;
        if is_full || times > DEFERRALS_MAX {
            let error = self.refusal().chain();
            let error = if is_full {
                format!("{error}, and keeps no more for later")
            } else {
                format!("{error}; kept for later {DEFERRALS_MAX} times already")
            };
            return Err(HandlerError::dead(Reason::DeferredTooOften, error));
        }
        envelope.headers.set(headers::DEFERRALS, times.to_string());
        self.book.deferred.push(Deferred::new(&envelope));
        self.note = Some("deferred");
        self.stage()
    }

    /// Returns the decision that the state does not take the message.
    pub(super) fn refusal(&self) -> HandlerError {
        let (name, message_type) = (&self.definition.name, &self.cx.envelope().message_type);
        let state = self.state.map_or("", SagaState::name);
        let error = format!("{name} takes no `{message_type}` in state `{state}`");
        HandlerError::dead(Reason::EventNotAcceptedInState, error)
    }

    /// Stages what the turn came to.
    pub(super) fn stage(mut self) -> Result {
        let is_over = self.status == InstanceStatus::Completed;
        if let Some(entries) = self.book.entries() {
            if is_over || self.state != self.from {
                let deferred = std::mem::take(&mut entries.deferred);
                let envelopes = deferred.into_iter().map(Deferred::into_envelope);
                self.effects.give_back(envelopes);
            }
            if is_over {
                entries.seen.clear();
            }
        }
        lock::settle(&mut self.book, &mut self.effects, self.cx, is_over)?;
        let data = self.data.take().ok_or_else(gone)?;
        let to = Move {
            id: self.id.clone(),
            is_new: self.from.is_none(),
            status: self.status,
            state_from: self.from.map(SagaState::name),
            state: self.state.map(SagaState::name),
            schema_version: S::SCHEMA_VERSION,
            data: write(&data, &self.book)?,
            note: self.note,
            labels: changed_labels(&self.labels, &data)?,
        };
        stage(self.cx, to, self.effects)
    }
}

/// An act that failed took the data with it; its error has ended the turn before this.
fn gone() -> HandlerError {
    HandlerError::new("the data went with a step that failed").terminal()
}
