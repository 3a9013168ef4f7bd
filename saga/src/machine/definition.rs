//! What a machine is made of, with the types of its messages erased.

use std::any::Any;
use std::collections::HashMap;
use std::fmt;
use std::time::Duration;

use sagabus_core::HandlerError;
use sagabus_core::envelope::{Envelope, Outgoing};
use sagabus_core::error::CodecError;
use sagabus_core::handler::Decoded;
use sagabus_core::store::Subscription;
use serde_json::{Value, json};

use crate::saga::{Saga, SagaState};

/// A machine as it is run: which transition answers which message in which state.
pub(crate) struct Definition<S: Saga> {
    pub(crate) name: String,
    pub(crate) messages: Vec<MessageEntry<S>>,
    /// What is wrong with it, found while it was declared.
    pub(crate) faults: Vec<String>,
}

/// Everything about one message type.
pub(crate) struct MessageEntry<S: Saga> {
    pub(crate) message: MessageFacts,
    pub(crate) initial: Option<Transition<S>>,
    pub(crate) by_state: HashMap<S::State, Transition<S>>,
    pub(crate) in_any_state: Option<Transition<S>>,
}

/// What the engine needs to know of a message type.
#[derive(Clone)]
pub(crate) struct MessageFacts {
    pub(crate) subscription: Subscription,
    pub(crate) version: u32,
    /// Decodes a body and finds its instance, given the machine's name.
    pub(crate) decode: fn(&Envelope, &str) -> Result<Decoded, CodecError>,
}

/// Makes new data from a starting message.
pub(crate) type Init<S> = Box<dyn Fn(&dyn Any) -> S + Send + Sync>;
/// Does one thing of a transition.
pub(crate) type Act<S> =
    Box<dyn Fn(&mut S, &dyn Any, &mut Effects) -> Result<(), HandlerError> + Send + Sync>;

/// What happens when a message comes in a state.
pub struct Transition<S: Saga> {
    pub(crate) message: MessageFacts,
    pub(crate) init: Option<Init<S>>,
    pub(crate) acts: Vec<Act<S>>,
    pub(crate) steps: Vec<Step>,
    pub(crate) ending: Ending<S::State>,
}

/// How a transition ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ending<T> {
    To(T),
    Stay,
    Finalize,
}

/// One step of a transition, for people and diagrams.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// `send`, `publish`, `reply`, `schedule`, `unschedule` or `then`.
    pub verb: &'static str,
    /// The message type or the timer's name.
    pub what: String,
}

/// What a transition wants beside the new data.
#[derive(Default)]
pub(crate) struct Effects {
    pub(crate) outgoing: Vec<Outgoing>,
    pub(crate) replies: Vec<Outgoing>,
    pub(crate) armed: Vec<(&'static str, Duration, Outgoing)>,
    pub(crate) disarmed: Vec<&'static str>,
}

impl<S: Saga> fmt::Debug for Transition<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Transition")
            .field("steps", &self.steps)
            .finish_non_exhaustive()
    }
}

impl<S: Saga> Definition<S> {
    pub(crate) fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            messages: Vec::new(),
            faults: Vec::new(),
        }
    }

    /// Returns the entry of a message type, making it where it is new.
    pub(crate) fn entry(&mut self, message: &MessageFacts) -> &mut MessageEntry<S> {
        let is_it = |entry: &MessageEntry<S>| entry.message.subscription == message.subscription;
        let known = self.messages.iter().position(is_it);
        let at = known.unwrap_or_else(|| {
            self.messages.push(MessageEntry {
                message: message.clone(),
                initial: None,
                by_state: HashMap::new(),
                in_any_state: None,
            });
            self.messages.len() - 1
        });
        &mut self.messages[at]
    }

    /// Lists every transition: from which state (`None`: initially; `Some(None)`: in any state),
    /// on which message.
    pub(crate) fn transitions(
        &self,
    ) -> impl Iterator<Item = (From<S::State>, &str, &Transition<S>)> {
        self.messages.iter().flat_map(|entry| {
            let message_type = entry.message.subscription.message_type.as_ref();
            let initial = entry.initial.iter().map(|one| (From::Initial, one));
            // In the order of the states, so that a diagram is the same every time.
            let states = S::State::ALL.iter();
            let by_state = states.filter_map(|state| {
                entry
                    .by_state
                    .get(state)
                    .map(|one| (From::State(*state), one))
            });
            let any = entry.in_any_state.iter().map(|one| (From::Any, one));
            initial
                .chain(by_state)
                .chain(any)
                .map(move |(from, one)| (from, message_type, one))
        })
    }

    /// Describes the machine for tools that cannot see user code.
    pub(crate) fn describe(&self) -> Value {
        let name_of = |from: From<S::State>| match from {
            From::Initial => Value::Null,
            From::State(state) => json!(state.name()),
            From::Any => json!("*"),
        };
        let transitions = self.transitions().map(|(from, message_type, one)| {
            let to = match one.ending {
                Ending::To(state) => json!(state.name()),
                Ending::Stay => name_of(from),
                Ending::Finalize => json!("final"),
            };
            let steps = one
                .steps
                .iter()
                .map(|step| format!("{} {}", step.verb, step.what));
            json!({
                "from": name_of(from),
                "on": message_type,
                "to": to,
                "steps": steps.collect::<Vec<_>>(),
            })
        });
        json!({
            "machine": self.name,
            "schema_version": S::SCHEMA_VERSION,
            "states": S::State::ALL.iter().map(|state| state.name()).collect::<Vec<_>>(),
            "transitions": transitions.collect::<Vec<_>>(),
        })
    }
}

/// Where a transition starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum From<T> {
    Initial,
    State(T),
    Any,
}
