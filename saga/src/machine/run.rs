//! A machine at work: one message, one turn, one instance change.

use std::any::Any;
use std::sync::Arc;

use futures_util::future::BoxFuture;
use sagabus_core::envelope::Envelope;
use sagabus_core::error::{CodecError, HandlerError};
use sagabus_core::handler::{Decoded, Need, Subscriber};
use sagabus_core::request::Request;
use sagabus_core::store::{Instance, Subscription};
use sagabus_core::{Ctx, Reason, Result};

use super::definition::{
    Definition, Ending, Erased, MessageEntry, NotAccepted, Transition, lineage,
};
use super::turn::Turn;
use super::when::holds;
use crate::lock::too_early;
use crate::saga::{Saga, SagaState};
use crate::standing::{Standing, held, look};
use crate::stored::{Book, read};

/// One message type of a machine, as the engine sees it.
pub(crate) struct MachineSubscriber<S: Saga> {
    definition: Arc<Definition<S>>,
    index: usize,
    merges: bool,
}

impl<S: Saga> MachineSubscriber<S> {
    pub(crate) fn new(definition: Arc<Definition<S>>, index: usize) -> Self {
        let merges = definition.is_pure();
        Self {
            definition,
            index,
            merges,
        }
    }

    fn entry(&self) -> &MessageEntry<S> {
        &self.definition.messages[self.index]
    }

    async fn run(&self, message: Box<Erased>, cx: &Ctx) -> Result {
        let (definition, entry) = (&*self.definition, self.entry());
        let starts = !entry.initial.is_empty();
        let missing = entry.missing.unwrap_or(definition.missing);
        match look(cx, &definition.name, starts, definition.lives, missing)? {
            Standing::Nothing(note) => cx.note(None, Some(note.into())),
            Standing::Free => self.begin(&*message, cx).await,
            Standing::Running(instance, request) => {
                self.go_on(instance, request, &*message, cx).await
            }
        }
    }

    /// Starts an instance.
    async fn begin(&self, message: &Erased, cx: &Ctx) -> Result {
        let entry = self.entry();
        let mut chosen = None;
        for transition in &entry.initial {
            let Some(init) = &transition.init else {
                continue;
            };
            let data = init(message);
            if holds(transition.condition.as_ref(), &data, message) {
                chosen = Some((transition, data));
                break;
            }
        }
        let Some((transition, data)) = chosen else {
            let (name, message_type) = (&self.definition.name, entry.message.message_type());
            let error = format!("no branch of {name} takes this `{message_type}` to start with");
            return Err(HandlerError::dead(Reason::EventNotAcceptedInState, error));
        };
        let transition = or_failure(transition, cx)?;
        let mut turn = Turn::new(&self.definition, cx, None, data, Book::default())?;
        turn.perform(transition, message).await?;
        turn.see(entry.message.message_type()).await?;
        turn.stage()
    }

    /// Moves an instance to another state because an operator says so: what the machine does on the
    /// way from one state to another is done.
    async fn move_by_hand(&self, to: &str, cx: &Ctx) -> Result {
        let instance = held(cx)?;
        let (data, book) = read::<S>(instance)?;
        let from = current::<S>(instance)?;
        let mut states = S::State::ALL.iter().copied();
        let Some(to) = states.find(|state| state.name() == to) else {
            let name = &self.definition.name;
            let error = format!("machine `{name}` has no state `{to}`");
            return Err(HandlerError::new(error).terminal());
        };
        let mut turn = Turn::new(&self.definition, cx, Some(from), data, book)?;
        turn.move_by_hand(to).await?;
        turn.stage()
    }

    /// Ends an instance because an operator says so, as a transition to the end would that does
    /// nothing else.
    async fn end_by_hand(&self, cx: &Ctx) -> Result {
        let instance = held(cx)?;
        let (data, book) = read::<S>(instance)?;
        let from = current::<S>(instance)?;
        let mut turn = Turn::new(&self.definition, cx, Some(from), data, book)?;
        turn.end().await?;
        turn.stage()
    }

    /// Moves an instance on.
    async fn go_on(
        &self,
        instance: &Instance,
        request: Option<Request>,
        message: &Erased,
        cx: &Ctx,
    ) -> Result {
        let (definition, entry) = (&*self.definition, self.entry());
        let (data, book) = read::<S>(instance)?;
        let state = current::<S>(instance)?;
        too_early(&book, cx, request.as_ref())?;
        let request_name = request.as_ref().map(|request| request.name.as_str());
        let chosen = choose(entry, state, &data, message, request_name);
        let mut turn = Turn::new(definition, cx, Some(state), data, book)?;
        let Some(transition) = chosen else {
            if turn.sees(entry.message.message_type()) {
                turn.see(entry.message.message_type()).await?;
                return turn.stage();
            }
            return match definition.not_accepted {
                NotAccepted::Ignore => turn.ignore(request),
                NotAccepted::Defer => turn.defer(),
                NotAccepted::DeadLetter => Err(turn.refusal()),
            };
        };
        match transition.ending {
            Ending::Ignore => return turn.ignore(request),
            Ending::Defer => return turn.defer(),
            Ending::To(_) | Ending::Stay | Ending::Finalize => {}
        }
        if let Some(request) = request {
            turn.answered(request);
        }
        turn.perform(or_failure(transition, cx)?, message).await?;
        turn.see(entry.message.message_type()).await?;
        turn.stage()
    }
}

/// Reads the state that an instance is in.
fn current<S: Saga>(instance: &Instance) -> Result<S::State, HandlerError> {
    let name = instance.state.as_deref().unwrap_or_default();
    S::State::named(name).ok_or_else(|| {
        let error = format!("{} is in unknown state {name:?}", instance.id);
        HandlerError::dead(Reason::StateUndecodable, error)
    })
}

/// Finds the branch that takes a message: the state's own first, then those of the states that it
/// is within, then those of any state.
fn choose<'a, S: Saga>(
    entry: &'a MessageEntry<S>,
    state: S::State,
    data: &S,
    message: &Erased,
    request: Option<&str>,
) -> Option<&'a Transition<S>> {
    let by_state = lineage(state).filter_map(|state| entry.by_state.get(&state));
    let branches = by_state.flatten().chain(&entry.in_any_state);
    let takes = |one: &&Arc<Transition<S>>| {
        let wanted = one.trigger.request();
        (wanted.is_none() || wanted == request) && holds(one.condition.as_ref(), data, message)
    };
    branches.into_iter().find(takes).map(|one| &**one)
}

/// Returns the transition, or, where its message would be given up, its answer to that.
fn or_failure<'a, S: Saga>(
    transition: &'a Transition<S>,
    cx: &Ctx,
) -> Result<&'a Transition<S>, HandlerError> {
    let Some(error) = cx.given_up() else {
        return Ok(transition);
    };
    let answer = transition.on_failure.as_deref();
    // Another branch of the same message has an answer to its failure, this one has none.
    answer.ok_or_else(|| HandlerError::dead(Reason::AttemptsExhausted, error.to_owned()))
}

impl<S: Saga> Subscriber for MachineSubscriber<S> {
    fn subscription(&self) -> Subscription {
        self.entry().message.subscription.clone()
    }

    fn aliases(&self) -> &'static [&'static str] {
        self.entry().message.aliases
    }

    fn name(&self) -> &str {
        &self.definition.name
    }

    fn version(&self) -> u32 {
        self.entry().message.version
    }

    fn needs(&self) -> Vec<Need> {
        // The machine's as a whole: any message may lead to a hook or a composite.
        let performances = self.definition.performances().into_iter();
        performances.flat_map(|one| one.needs.clone()).collect()
    }

    fn decode(&self, envelope: &Envelope) -> Result<Decoded, CodecError> {
        (self.entry().message.decode)(envelope, &self.definition.name)
    }

    fn merges(&self) -> bool {
        self.merges
    }

    fn compensates(&self) -> bool {
        self.definition.compensates(self.index)
    }

    fn schema_version(&self) -> Option<i32> {
        Some(S::SCHEMA_VERSION)
    }

    fn rewrite(&self, cx: &Ctx) -> Result {
        let instance = held(cx)?;
        let (data, book) = read::<S>(instance)?;
        let state = current::<S>(instance)?;
        Turn::new(&self.definition, cx, Some(state), data, book)?.stage()
    }

    fn has_state(&self, name: &str) -> Option<bool> {
        Some(S::State::ALL.iter().any(|state| state.name() == name))
    }

    fn move_to<'a>(&'a self, state: &'a str, cx: &'a Ctx) -> BoxFuture<'a, Result> {
        Box::pin(self.move_by_hand(state, cx))
    }

    fn cancel<'a>(&'a self, cx: &'a Ctx) -> BoxFuture<'a, Result> {
        Box::pin(self.end_by_hand(cx))
    }

    fn handle<'a>(
        &'a self,
        message: Box<dyn Any + Send + Sync>,
        cx: &'a Ctx,
    ) -> BoxFuture<'a, Result> {
        Box::pin(self.run(message, cx))
    }
}

#[cfg(test)]
mod tests {
    use serde::{Deserialize, Serialize};

    use super::*;

    #[derive(Debug, Serialize, Deserialize)]
    struct Counter {
        count: u64,
    }

    impl Saga for Counter {
        type Key = u64;
        type State = ();
    }

    /// Up to 1032 bytes the C library of Linux has a list for each size; beyond, it searches.
    #[test]
    fn what_a_message_needs_while_it_is_handled_is_small() {
        fn of<A, F>(_: impl FnOnce(A) -> F) -> usize {
            size_of::<F>()
        }
        type Parts = (
            &'static MachineSubscriber<Counter>,
            Box<Erased>,
            &'static Ctx,
        );
        let bytes = of(|(subscriber, message, cx): Parts| subscriber.run(message, cx));
        assert!(bytes <= 1032, "{bytes} bytes");
    }
}
