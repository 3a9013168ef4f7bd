//! How a machine is declared. The types make a missing ending a compile error.

use std::any::Any;
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

use sagabus_core::envelope::Outgoing;
use sagabus_core::handler::subscription_of;
use sagabus_core::{BuildError, Command, EndpointBuilder, Event, HandlerError, Message};

use super::check::check;
use super::definition::{Act, Definition, Effects, Ending, Init, MessageFacts, Step, Transition};
use super::run::{MachineSubscriber, decode};
use crate::correlate::Correlate;
use crate::saga::{Saga, SagaState};

/// A machine that is being declared; given to an endpoint with `.machine(..)`.
#[must_use = "give it to an endpoint with `.machine(..)`"]
pub struct StateMachine<S: Saga> {
    definition: Definition<S>,
}

impl<S: Saga> StateMachine<S> {
    /// Starts a machine. The name is stored with every instance: choose it for good.
    pub fn named(name: &str) -> Self {
        Self {
            definition: Definition::new(name),
        }
    }

    /// Adds what a message does when there is no instance for it yet. Several messages may start
    /// an instance; whichever comes first does.
    pub fn initially<T: Initial<S>>(mut self, transition: T) -> Self {
        let transition = transition.into_transition();
        let message_type = transition.message.subscription.message_type.clone();
        let entry = self.definition.entry(&transition.message);
        if entry.initial.replace(transition).is_some() {
            self.fault(format!("`{message_type}` is declared twice in `initially`"));
        }
        self
    }

    /// Adds what a message does in a state.
    pub fn during<T: During<S>>(mut self, state: S::State, transition: T) -> Self {
        let transition = transition.into_transition();
        let message_type = transition.message.subscription.message_type.clone();
        let entry = self.definition.entry(&transition.message);
        if entry.by_state.insert(state, transition).is_some() {
            let state = state.name();
            self.fault(format!(
                "`{message_type}` is declared twice in state `{state}`"
            ));
        }
        self
    }

    /// Adds what a message does in every state that says nothing else about it.
    pub fn during_any<T: During<S>>(mut self, transition: T) -> Self {
        let transition = transition.into_transition();
        let message_type = transition.message.subscription.message_type.clone();
        let entry = self.definition.entry(&transition.message);
        if entry.in_any_state.replace(transition).is_some() {
            self.fault(format!(
                "`{message_type}` is declared twice in `during_any`"
            ));
        }
        self
    }

    /// Describes the machine as JSON: states, transitions and their steps.
    pub fn describe(&self) -> serde_json::Value {
        self.definition.describe()
    }

    fn fault(&mut self, fault: String) {
        self.definition.faults.push(fault);
    }
}

impl<S: Saga> std::fmt::Debug for StateMachine<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StateMachine")
            .field("name", &self.definition.name)
            .finish_non_exhaustive()
    }
}

/// Puts machines on endpoints.
pub trait MachineEndpoint {
    /// Adds a machine: the endpoint takes all of its messages. `build()` refuses a machine with
    /// states that cannot be reached or left, or with contradictions.
    #[must_use]
    fn machine<S: Saga>(self, machine: StateMachine<S>) -> Self;
}

impl MachineEndpoint for EndpointBuilder {
    fn machine<S: Saga>(self, machine: StateMachine<S>) -> Self {
        let definition = machine.definition;
        let name = &definition.name;
        let faults = check(&definition);
        if !faults.is_empty() {
            let error = format!("machine `{name}`: {}", faults.join("; "));
            return self.refuse(BuildError::Definition(error));
        }
        let mut endpoint = self.definition(definition.describe());
        let definition = Arc::new(definition);
        for index in 0..definition.messages.len() {
            let subscriber = MachineSubscriber::new(Arc::clone(&definition), index);
            endpoint = endpoint.subscribe(Arc::new(subscriber));
        }
        endpoint
    }
}

/// The transition has not said how the instance begins: fit for `during`.
#[derive(Debug)]
pub struct NotStarted;
/// The transition makes a new instance: fit for `initially`.
#[derive(Debug)]
pub struct Started;
/// The transition has no ending yet.
#[derive(Debug)]
pub struct Open;
/// The transition has its ending.
#[derive(Debug)]
pub struct Closed;

/// What happens when a message of type `M` comes: steps in order, then one ending.
#[must_use = "give it to `initially`, `during` or `during_any`"]
pub struct When<S: Saga, M, Start, End> {
    transition: Transition<S>,
    types: Types<M, Start, End>,
}

/// Carries types without values.
type Types<M, Start, End> = PhantomData<fn() -> (M, Start, End)>;

impl<S: Saga, M, Start, End> std::fmt::Debug for When<S, M, Start, End> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("When")
            .field("steps", &self.transition.steps)
            .finish_non_exhaustive()
    }
}

impl<S: Saga, M: Message + Correlate<S>> When<S, M, NotStarted, Open> {
    pub(crate) fn new() -> Self {
        let message = MessageFacts {
            subscription: subscription_of::<M>(),
            version: M::VERSION,
            decode: decode::<S, M>,
        };
        let (acts, steps) = (Vec::new(), Vec::new());
        let transition = Transition {
            message,
            init: None,
            acts,
            steps,
            ending: Ending::Stay,
        };
        Self {
            transition,
            types: PhantomData,
        }
    }

    /// Makes the instance's data from the message that starts it.
    pub fn init(
        mut self,
        init: impl Fn(&M) -> S + Send + Sync + 'static,
    ) -> When<S, M, Started, Open> {
        let init: Init<S> = Box::new(move |message| init(typed(message)));
        self.transition.init = Some(init);
        When {
            transition: self.transition,
            types: PhantomData,
        }
    }
}

impl<S: Saga, M: Message, Start> When<S, M, Start, Open> {
    /// Changes the instance's data.
    pub fn then(self, change: impl Fn(&mut S, &M) + Send + Sync + 'static) -> Self {
        self.act("then", "changes data", move |data, message, _| {
            change(data, message);
            Ok(())
        })
    }

    /// Sends a command to its owner.
    pub fn send<C: Command>(self, make: impl Fn(&S, &M) -> C + Send + Sync + 'static) -> Self {
        self.act("send", C::TYPE, move |data, message, effects| {
            effects.outgoing.push(outgoing(&make(data, message))?);
            Ok(())
        })
    }

    /// Publishes an event to everyone who subscribed.
    pub fn publish<E: Event>(self, make: impl Fn(&S, &M) -> E + Send + Sync + 'static) -> Self {
        self.act("publish", E::TYPE, move |data, message, effects| {
            effects.outgoing.push(outgoing(&make(data, message))?);
            Ok(())
        })
    }

    /// Answers whoever sent the message.
    pub fn reply<R: Message>(self, make: impl Fn(&S, &M) -> R + Send + Sync + 'static) -> Self {
        self.act("reply", R::TYPE, move |data, message, effects| {
            effects.replies.push(outgoing(&make(data, message))?);
            Ok(())
        })
    }

    /// Arms a timer: the message comes back to this machine when `after` has passed. Arming a name
    /// again replaces it.
    pub fn schedule<T: Message + Correlate<S>>(
        self,
        name: &'static str,
        after: Duration,
        make: impl Fn(&S, &M) -> T + Send + Sync + 'static,
    ) -> Self {
        self.act("schedule", name, move |data, message, effects| {
            effects
                .armed
                .push((name, after, outgoing(&make(data, message))?));
            Ok(())
        })
    }

    /// Cancels a timer. One that has fired already is a recorded no-op when it arrives.
    pub fn unschedule(self, name: &'static str) -> Self {
        self.act("unschedule", name, move |_, _, effects| {
            effects.armed.retain(|(armed, ..)| *armed != name);
            effects.disarmed.push(name);
            Ok(())
        })
    }

    /// Ends in another state.
    pub fn transition_to(self, state: S::State) -> When<S, M, Start, Closed> {
        self.end(Ending::To(state))
    }

    /// Ends the instance: its timers are cancelled and a tombstone stays.
    pub fn finalize(self) -> When<S, M, Start, Closed> {
        self.end(Ending::Finalize)
    }

    fn act<A>(mut self, verb: &'static str, what: impl Into<String>, act: A) -> Self
    where
        A: Fn(&mut S, &M, &mut Effects) -> Result<(), HandlerError> + Send + Sync + 'static,
    {
        let act: Act<S> =
            Box::new(move |data, message, effects| act(data, typed(message), effects));
        self.transition.acts.push(act);
        self.transition.steps.push(Step {
            verb,
            what: what.into(),
        });
        self
    }

    fn end(mut self, ending: Ending<S::State>) -> When<S, M, Start, Closed> {
        self.transition.ending = ending;
        When {
            transition: self.transition,
            types: PhantomData,
        }
    }
}

impl<S: Saga, M: Message> When<S, M, NotStarted, Open> {
    /// Ends in the same state.
    pub fn stay(self) -> When<S, M, NotStarted, Closed> {
        self.end(Ending::Stay)
    }
}

/// A transition that makes a new instance and has its ending.
#[diagnostic::on_unimplemented(
    message = "this transition cannot start an instance",
    label = "needs `.init(..)` first and an ending last",
    note = "begin with `.init(|message| Data {{ .. }})` and end with `.transition_to(State)` or \
            `.finalize()`"
)]
pub trait Initial<S: Saga>: sealed::Sealed {
    #[doc(hidden)]
    fn into_transition(self) -> Transition<S>;
}

/// A transition of an instance that exists, with its ending.
#[diagnostic::on_unimplemented(
    message = "this transition has no ending, or starts an instance",
    label = "needs an ending and no `.init(..)`",
    note = "end it with `.transition_to(State)`, `.stay()` or `.finalize()`; `.init(..)` belongs \
            into `initially`"
)]
pub trait During<S: Saga>: sealed::Sealed {
    #[doc(hidden)]
    fn into_transition(self) -> Transition<S>;
}

impl<S: Saga, M> Initial<S> for When<S, M, Started, Closed> {
    fn into_transition(self) -> Transition<S> {
        self.transition
    }
}

impl<S: Saga, M> During<S> for When<S, M, NotStarted, Closed> {
    fn into_transition(self) -> Transition<S> {
        self.transition
    }
}

mod sealed {
    /// Keeps the traits of transitions to this module.
    pub trait Sealed {}
    impl<S: super::Saga, M, Start, End> Sealed for super::When<S, M, Start, End> {}
}

fn outgoing<M: Message>(message: &M) -> Result<Outgoing, HandlerError> {
    // A message that has no encoded form will have none the next time either.
    Outgoing::new(message).map_err(|error| HandlerError::from(error).terminal())
}

fn typed<M: Message>(message: &dyn Any) -> &M {
    message
        .downcast_ref::<M>()
        .expect("an entry is given messages of its own type only")
}
