//! What a machine is made of, with the types of its messages erased.

use std::any::Any;
use std::collections::HashMap;
use std::fmt;
use std::panic::Location;
use std::sync::Arc;

use futures_util::future::BoxFuture;
use sagabus_core::handler::Need;
use sagabus_core::request::RequestFailed;
use sagabus_core::{Ctx, HandlerError, Message, Result};

use crate::correlate::Correlate;
use crate::effects::Effects;
use crate::message::{Finds, MessageFacts, RequestTimedOut};
use crate::saga::{Saga, SagaState};
use crate::standing::{Lives, Missing};
use crate::stored::Book;

/// A machine as it is run: which transition answers which message in which state.
pub(crate) struct Definition<S: Saga> {
    pub(crate) name: Arc<str>,
    pub(crate) messages: Vec<MessageEntry<S>>,
    pub(crate) composites: Vec<Composite<S>>,
    pub(crate) hooks: Vec<Hook<S>>,
    pub(crate) not_accepted: NotAccepted,
    pub(crate) missing: Missing,
    pub(crate) lives: Lives,
    /// It need not have a way to the end.
    pub(crate) is_endless: bool,
    /// Message types that have to be handled somewhere, and who said so.
    pub(crate) expected: Vec<(&'static str, &'static Location<'static>)>,
    /// What is wrong with it, found while it was declared.
    pub(crate) faults: Vec<String>,
}

/// Everything about one message type. Branches in the order in which they are tried.
pub(crate) struct MessageEntry<S: Saga> {
    pub(crate) message: MessageFacts,
    pub(crate) initial: Vec<Arc<Transition<S>>>,
    pub(crate) by_state: HashMap<S::State, Vec<Arc<Transition<S>>>>,
    pub(crate) in_any_state: Vec<Arc<Transition<S>>>,
    pub(crate) missing: Option<Missing>,
}

/// A transition that several messages together make happen.
pub(crate) struct Composite<S: Saga> {
    pub(crate) name: &'static str,
    pub(crate) parts: Vec<String>,
    pub(crate) by_state: HashMap<S::State, Arc<Transition<S>>>,
    pub(crate) in_any_state: Option<Arc<Transition<S>>>,
}

impl<S: Saga> Composite<S> {
    pub(crate) fn in_state(&self, state: S::State) -> Option<&Arc<Transition<S>>> {
        let by_state = lineage(state).find_map(|state| self.by_state.get(&state));
        by_state.or(self.in_any_state.as_ref())
    }
}

/// A message whose type only a closure of the user's knows.
pub(crate) type Erased = dyn Any + Send + Sync;
/// Makes new data from a starting message.
pub(crate) type Init<S> = Box<dyn Fn(&Erased) -> S + Send + Sync>;
/// Says whether a branch is taken.
pub(crate) type Condition<S> = Box<dyn Fn(&S, &Erased) -> bool + Send + Sync>;
/// Does one thing of a transition.
pub(crate) type Do<S> =
    Box<dyn Fn(&mut S, &Erased, &mut Effects) -> Result<(), HandlerError> + Send + Sync>;
/// Runs a user's async function.
pub(crate) type Run<S> =
    Box<dyn Fn(S, &Erased, &Ctx) -> BoxFuture<'static, Result<S>> + Send + Sync>;

/// One act of a transition.
pub(crate) enum Act<S> {
    Do(Do<S>),
    Run(Run<S>),
    If(Condition<S>, Vec<Self>),
}

/// Acts, and what is to be known of them.
pub(crate) struct Performance<S> {
    pub(crate) acts: Vec<Act<S>>,
    pub(crate) steps: Vec<Step>,
    pub(crate) needs: Vec<Need>,
}

impl<S> Default for Performance<S> {
    fn default() -> Self {
        Self {
            acts: Vec::new(),
            steps: Vec::new(),
            needs: Vec::new(),
        }
    }
}

/// What makes a transition happen.
#[derive(Clone)]
pub(crate) enum Trigger {
    Message(MessageFacts),
    /// All of several messages.
    All(&'static str, Vec<MessageFacts>),
    /// The answer to a question.
    Answer(&'static str, MessageFacts),
    /// The news that a question became a dead letter.
    Failed(&'static str),
    /// The news that a question was not answered in time.
    TimedOut(&'static str),
}

impl Trigger {
    pub(crate) fn by_key<S: Saga, M: Message + Correlate<S>>() -> Self {
        Self::Message(MessageFacts::by_key::<S, M>())
    }

    /// Returns the question that the message has to be about.
    pub(crate) fn request(&self) -> Option<&'static str> {
        match self {
            Self::Answer(name, _) | Self::Failed(name) | Self::TimedOut(name) => Some(name),
            Self::Message(_) | Self::All(..) => None,
        }
    }

    /// Returns the messages that it is made of, in a machine of this name.
    pub(crate) fn messages(&self, machine: &str) -> Vec<MessageFacts> {
        let failed = || MessageFacts::news::<RequestFailed>(RequestFailed::type_for(machine));
        let timed_out =
            || MessageFacts::news::<RequestTimedOut>(RequestTimedOut::type_for(machine));
        match self {
            Self::Message(facts) | Self::Answer(_, facts) => vec![facts.clone()],
            Self::All(_, parts) => parts.clone(),
            Self::Failed(_) => vec![failed()],
            Self::TimedOut(_) => vec![timed_out()],
        }
    }
}

/// What happens when a message comes in a state.
pub struct Transition<S: Saga> {
    pub(crate) trigger: Trigger,
    pub(crate) condition: Option<Condition<S>>,
    pub(crate) init: Option<Init<S>>,
    pub(crate) performance: Performance<S>,
    pub(crate) ending: Ending<S::State>,
    /// What happens instead where the message would be given up.
    pub(crate) on_failure: Option<Box<Self>>,
    /// Where it is declared.
    pub(crate) at: &'static Location<'static>,
}

/// How a transition ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ending<T> {
    To(T),
    Stay,
    Finalize,
    /// Nothing happens, and that is intended.
    Ignore,
    /// The message is kept until the state changes.
    Defer,
}

/// One step of a transition, for people and diagrams.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// `send`, `publish`, `reply`, `respond`, `schedule`, `unschedule`, `ask`, `reserve`, `release`,
    /// `run`, `then` or `if`.
    pub verb: &'static str,
    /// The message type, the name of the timer or question, or the function.
    pub what: String,
    /// The type of the message that it sends, or that its timer brings.
    pub brings: Option<&'static str>,
    /// It is done in one case only.
    pub is_in_one_case: bool,
}

/// What becomes of a message that its state does not take.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum NotAccepted {
    /// It is a dead letter with the reason `event_not_accepted_in_state`. The default.
    #[default]
    DeadLetter,
    /// It is accepted without an effect, with a note in the history.
    Ignore,
    /// It is kept until the state changes, and then handled again.
    Defer,
}

/// What happens at a moment in the life of an instance, whatever the message.
pub(crate) struct Hook<S: Saga> {
    pub(crate) moment: Moment<S::State>,
    pub(crate) performance: Performance<S>,
    /// Where it is declared.
    pub(crate) at: &'static Location<'static>,
}

/// A moment in the life of an instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Moment<T> {
    Entering(T),
    Leaving(T),
    BeforeEnteringAny,
    AfterLeavingAny,
    Finishing,
}

impl<S: Saga> fmt::Debug for Transition<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Transition")
            .field("steps", &self.performance.steps)
            .field("at", &self.at)
            .finish_non_exhaustive()
    }
}

impl<S: Saga> Definition<S> {
    pub(crate) fn new(name: &str) -> Self {
        Self {
            name: name.into(),
            messages: Vec::new(),
            composites: Vec::new(),
            hooks: Vec::new(),
            not_accepted: NotAccepted::default(),
            missing: Missing::default(),
            lives: Lives::default(),
            is_endless: false,
            expected: Vec::new(),
            faults: Vec::new(),
        }
    }

    /// Returns the entry of a message type, making it where it is new.
    pub(crate) fn entry(&mut self, message: &MessageFacts) -> &mut MessageEntry<S> {
        let is_it =
            |entry: &MessageEntry<S>| entry.message.message_type() == message.message_type();
        let known = self.messages.iter().position(is_it);
        let at = known.unwrap_or_else(|| {
            self.messages.push(MessageEntry {
                message: message.clone(),
                initial: Vec::new(),
                by_state: HashMap::new(),
                in_any_state: Vec::new(),
                missing: None,
            });
            self.messages.len() - 1
        });
        let entry = &mut self.messages[at];
        if message.finds == Finds::ByKey {
            // Which reads answers, too.
            entry.message = message.clone();
        }
        entry
    }

    /// Returns a composite, making it where it is new.
    pub(crate) fn composite(
        &mut self,
        name: &'static str,
        parts: &[MessageFacts],
        at: &'static Location<'static>,
    ) -> &mut Composite<S> {
        let parts: Vec<_> = parts
            .iter()
            .map(|one| one.message_type().to_string())
            .collect();
        let known = self.composites.iter().position(|one| one.name == name);
        if let Some(known) = known {
            if self.composites[known].parts != parts {
                self.faults.push(format!(
                    "`{name}` is declared with different messages ({at}); give each its name"
                ));
            }
            return &mut self.composites[known];
        }
        self.composites.push(Composite {
            name,
            parts,
            by_state: HashMap::new(),
            in_any_state: None,
        });
        let last = self.composites.len() - 1;
        &mut self.composites[last]
    }

    /// Brings parts of composites that were seen under a former name of their message to the name of
    /// today, under which the others are waited for.
    pub(crate) fn rename_parts(&self, book: &mut Book) {
        let Some(entries) = book.entries() else {
            return;
        };
        for parts in entries.seen.values_mut() {
            let renamed = std::mem::take(parts).into_iter().map(|part| {
                let mut entries = self.messages.iter().map(|entry| &entry.message);
                let entry = entries.find(|message| message.aliases.contains(&part.as_str()));
                entry.map_or(part, |message| message.message_type().to_string())
            });
            *parts = renamed.collect();
        }
    }

    /// Lists every transition with where it starts and on what.
    pub(crate) fn transitions(&self) -> Vec<Listed<'_, S>> {
        let mut all = Vec::new();
        for entry in &self.messages {
            let on = || entry.message.message_type().to_string();
            all.extend(
                entry
                    .initial
                    .iter()
                    .map(|one| (From::Initial, on(), &**one)),
            );
            // In the order of the states, so that a diagram is the same every time.
            for state in S::State::ALL {
                let branches = entry.by_state.get(state).into_iter().flatten();
                all.extend(branches.map(|one| (From::State(*state), on(), &**one)));
            }
            all.extend(
                entry
                    .in_any_state
                    .iter()
                    .map(|one| (From::Any, on(), &**one)),
            );
        }
        for composite in &self.composites {
            let on = || composite.parts.join(" + ");
            for state in S::State::ALL {
                let one = composite.by_state.get(state).into_iter();
                all.extend(one.map(|one| (From::State(*state), on(), &**one)));
            }
            let any = composite.in_any_state.iter();
            all.extend(any.map(|one| (From::Any, on(), &**one)));
        }
        all
    }

    /// Lists every performance: of transitions, of their failures, of hooks.
    pub(crate) fn performances(&self) -> Vec<&Performance<S>> {
        let mut all: Vec<_> = self.hooks.iter().map(|hook| &hook.performance).collect();
        for (_, _, transition) in self.transitions() {
            all.push(&transition.performance);
            all.extend(transition.on_failure.iter().map(|one| &one.performance));
        }
        all
    }

    /// Says whether no transition runs a function of the user's: then handling a message has no
    /// effect but what it stages, and may be done again.
    pub(crate) fn is_pure(&self) -> bool {
        fn is_pure<S>(acts: &[Act<S>]) -> bool {
            acts.iter().all(|act| match act {
                Act::Do(_) => true,
                Act::Run(_) => false,
                Act::If(_, acts) => is_pure(acts),
            })
        }
        self.performances().iter().all(|one| is_pure(&one.acts))
    }

    /// Says whether a message type has an answer to its own failure.
    pub(crate) fn compensates(&self, index: usize) -> bool {
        let entry = &self.messages[index];
        let branches = entry.by_state.values().flatten();
        let mut all = entry
            .initial
            .iter()
            .chain(branches)
            .chain(&entry.in_any_state);
        all.any(|one| one.on_failure.is_some())
    }
}

/// Where a transition starts, on what, and itself.
pub(crate) type Listed<'a, S> = (From<<S as Saga>::State>, String, &'a Transition<S>);

/// Where a transition starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum From<T> {
    Initial,
    State(T),
    Any,
}

/// Lists a state, the one that it is a part of, and so on outwards.
pub(crate) fn lineage<T: SagaState>(state: T) -> impl Iterator<Item = T> {
    // A state cannot be within more states than there are; a circle ends there.
    std::iter::successors(Some(state), |inner| inner.within()).take(T::ALL.len().max(1))
}
