//! How a machine is declared.

use std::panic::Location;
use std::sync::Arc;

use sagabus_core::{BuildError, EndpointBuilder, Message};

use super::check::{check, undeclared};
use super::definition::{Definition, Hook, Moment, NotAccepted, Transition, Trigger};
use super::describe::{dot, mermaid};
use super::run::MachineSubscriber;
use super::steps::Steps;
use super::when::{During, Initial, States};
use crate::correlate::Correlate;
use crate::message::MessageFacts;
use crate::saga::{Saga, SagaState};
use crate::standing::{Lives, Missing};

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
        let message = transition.trigger.messages(&self.definition.name).remove(0);
        let transition = Arc::new(transition);
        let entry = self.definition.entry(&message);
        let is_reached = add(&mut entry.initial, transition.clone());
        self.fault_unless(is_reached, &message, "in `initially`", &transition);
        self
    }

    /// Adds what a message does in a state, or in each of several: `[Stage::Paying, Stage::Late]`.
    pub fn during<T: During<S>>(mut self, states: impl States<S::State>, transition: T) -> Self {
        let transition = Arc::new(transition.into_transition());
        for state in states.list() {
            let place = format!("in state `{}`", state.name());
            let message = transition.trigger.messages(&self.definition.name).remove(0);
            let what = format!("`{}` ({})", message.message_type(), transition.at);
            self.definition.faults.extend(undeclared(state, &what));
            if let Trigger::All(name, parts) = &transition.trigger {
                let composite = self.definition.composite(name, parts, transition.at);
                let former = composite.by_state.insert(state, transition.clone());
                self.note_parts(parts, former.is_none(), &place, &transition);
                continue;
            }
            let entry = self.definition.entry(&message);
            let branches = entry.by_state.entry(state).or_default();
            let is_reached = add(branches, transition.clone());
            self.fault_unless(is_reached, &message, &place, &transition);
        }
        self
    }

    /// Adds what a message does in every state that says nothing else about it.
    pub fn during_any<T: During<S>>(mut self, transition: T) -> Self {
        let transition = Arc::new(transition.into_transition());
        let place = "in `during_any`";
        if let Trigger::All(name, parts) = &transition.trigger {
            let composite = self.definition.composite(name, parts, transition.at);
            let former = composite.in_any_state.replace(transition.clone());
            self.note_parts(parts, former.is_none(), place, &transition);
            return self;
        }
        let message = transition.trigger.messages(&self.definition.name).remove(0);
        let entry = self.definition.entry(&message);
        let is_reached = add(&mut entry.in_any_state, transition.clone());
        self.fault_unless(is_reached, &message, place, &transition);
        self
    }

    /// Adds what happens whenever a state is entered from outside it, whatever the message.
    #[track_caller]
    pub fn on_enter(
        self,
        state: S::State,
        steps: impl FnOnce(Steps<S, ()>) -> Steps<S, ()>,
    ) -> Self {
        self.hook(Moment::Entering(state), steps)
    }

    /// Adds what happens whenever a state is left, whatever the message.
    #[track_caller]
    pub fn on_leave(
        self,
        state: S::State,
        steps: impl FnOnce(Steps<S, ()>) -> Steps<S, ()>,
    ) -> Self {
        self.hook(Moment::Leaving(state), steps)
    }

    /// Adds what happens before any state is entered.
    #[track_caller]
    pub fn before_any(self, steps: impl FnOnce(Steps<S, ()>) -> Steps<S, ()>) -> Self {
        self.hook(Moment::BeforeEnteringAny, steps)
    }

    /// Adds what happens after any state has been left.
    #[track_caller]
    pub fn after_any(self, steps: impl FnOnce(Steps<S, ()>) -> Steps<S, ()>) -> Self {
        self.hook(Moment::AfterLeavingAny, steps)
    }

    /// Adds what happens whenever an instance ends, whichever way.
    #[track_caller]
    pub fn finally(self, steps: impl FnOnce(Steps<S, ()>) -> Steps<S, ()>) -> Self {
        self.hook(Moment::Finishing, steps)
    }

    /// Says what becomes of messages that their state does not take. Default: a dead letter.
    pub fn not_accepted(mut self, decision: NotAccepted) -> Self {
        self.definition.not_accepted = decision;
        self
    }

    /// Says what becomes of messages that find no instance and start none. Default: they wait for
    /// it for 30 s.
    pub fn missing(mut self, missing: Missing) -> Self {
        self.definition.missing = missing;
        self
    }

    /// As [`missing`](Self::missing), for one type of message.
    pub fn missing_for<M: Message + Correlate<S>>(mut self, missing: Missing) -> Self {
        let entry = self.definition.entry(&MessageFacts::by_key::<S, M>());
        entry.missing = Some(missing);
        self
    }

    /// Lets a key live once: a starting message for one that is over comes too late.
    pub fn once_per_key(mut self) -> Self {
        self.definition.lives = Lives::One;
        self
    }

    /// Lets instances live for ever: `build()` asks for no way to the end.
    pub fn endless(mut self) -> Self {
        self.definition.is_endless = true;
        self
    }

    /// Declares that the machine handles a message; `build()` refuses one that does nowhere.
    #[track_caller]
    pub fn expects<M: Message>(mut self) -> Self {
        self.definition.expected.push((M::TYPE, Location::caller()));
        self
    }

    /// Lists what is wrong with the machine, as `build()` does; for tests.
    pub fn check(&self) -> Vec<String> {
        check(&self.definition)
    }

    /// Describes the machine as JSON: states, transitions and their steps.
    pub fn describe(&self) -> serde_json::Value {
        self.definition.describe()
    }

    /// Draws the machine as a Mermaid state diagram.
    pub fn to_mermaid(&self) -> String {
        mermaid(&self.describe())
    }

    /// Draws the machine in the language of Graphviz.
    pub fn to_dot(&self) -> String {
        dot(&self.describe())
    }

    #[track_caller]
    fn hook(
        mut self,
        moment: Moment<S::State>,
        steps: impl FnOnce(Steps<S, ()>) -> Steps<S, ()>,
    ) -> Self {
        self.definition.hooks.push(Hook {
            moment,
            performance: steps(Steps::new()).performance,
            at: Location::caller(),
        });
        self
    }

    fn note_parts(
        &mut self,
        parts: &[MessageFacts],
        is_first: bool,
        place: &str,
        transition: &Transition<S>,
    ) {
        for part in parts {
            self.definition.entry(part);
        }
        if let Some(part) = parts.first() {
            self.fault_unless(is_first, part, place, transition);
        }
    }

    fn fault_unless(
        &mut self,
        is_reached: bool,
        message: &MessageFacts,
        place: &str,
        transition: &Transition<S>,
    ) {
        if is_reached {
            return;
        }
        let (message_type, at) = (message.message_type(), transition.at);
        self.definition.faults.push(format!(
            "`{message_type}` is declared twice {place} ({at}); give the first one a condition \
             with `when_if`, or remove one"
        ));
    }
}

/// Adds a branch and says whether it can be reached: nothing before it takes everything.
fn add<S: Saga>(branches: &mut Vec<Arc<Transition<S>>>, branch: Arc<Transition<S>>) -> bool {
    let takes_everything = |one: &Arc<Transition<S>>| {
        let request = one.trigger.request();
        one.condition.is_none() && (request.is_none() || request == branch.trigger.request())
    };
    let is_reached = !branches.iter().any(takes_everything);
    branches.push(branch);
    is_reached
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
