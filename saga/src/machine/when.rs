//! What happens when a message comes. The types make a missing ending a compile error.

use std::marker::PhantomData;
use std::panic::Location;

use sagabus_core::Message;

use super::definition::{Condition, Ending, Init, Performance, Transition, Trigger};
use super::steps::{erased, typed};
use crate::correlate::Correlate;
use crate::message::MessageFacts;
use crate::saga::Saga;

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
            .field("steps", &self.transition.performance.steps)
            .finish_non_exhaustive()
    }
}

impl<S: Saga, M: Send + Sync + 'static> When<S, M, NotStarted, Open> {
    #[track_caller]
    pub(crate) fn new(trigger: Trigger) -> Self {
        let transition = Transition {
            trigger,
            condition: None,
            init: None,
            performance: Performance::default(),
            ending: Ending::Stay,
            on_failure: None,
            at: Location::caller(),
        };
        Self {
            transition,
            types: PhantomData,
        }
    }

    /// Takes the message only where `condition` is true, as [`Saga::when_if`] does: for answers, news
    /// and labels. Branches are tried in the order in which they are declared.
    pub fn given(mut self, condition: impl Fn(&S, &M) -> bool + Send + Sync + 'static) -> Self {
        self.transition.condition = Some(erased(condition));
        self
    }

    /// Makes the instance's data from the message that starts it.
    pub fn init(
        mut self,
        init: impl Fn(&M) -> S + Send + Sync + 'static,
    ) -> When<S, M, Started, Open> {
        let init: Init<S> = Box::new(move |message| init(typed(message)));
        self.transition.init = Some(init);
        self.retyped()
    }

    /// Ends in the same state.
    pub fn stay(self) -> When<S, M, NotStarted, Closed> {
        self.end(Ending::Stay)
    }
}

impl<S: Saga, M, Start> When<S, M, Start, Open> {
    pub(super) fn performance(&mut self) -> &mut Performance<S> {
        &mut self.transition.performance
    }

    /// Ends in another state.
    pub fn transition_to(self, state: S::State) -> When<S, M, Start, Closed> {
        self.end(Ending::To(state))
    }

    /// Ends the instance: its timers are cancelled and a tombstone stays.
    pub fn finalize(self) -> When<S, M, Start, Closed> {
        self.end(Ending::Finalize)
    }

    pub(crate) fn end(mut self, ending: Ending<S::State>) -> When<S, M, Start, Closed> {
        self.transition.ending = ending;
        self.retyped()
    }
}

impl<S: Saga, M, Start> When<S, M, Start, Closed> {
    /// Says what happens instead where the message would be given up: its tries are used up, or its
    /// error was terminal. Everything that the failed tries did is gone; the message is answered
    /// by this branch and is no dead letter.
    pub fn on_failure(mut self, branch: When<S, M, NotStarted, Closed>) -> Self {
        self.transition.on_failure = Some(Box::new(branch.transition));
        self
    }
}

impl<S: Saga, M, Start, End> When<S, M, Start, End> {
    fn retyped<S2, E2>(self) -> When<S, M, S2, E2> {
        When {
            transition: self.transition,
            types: PhantomData,
        }
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

/// Several messages that find the same instance: a tuple of two to five.
pub trait AllOf<S>: sealed::Sealed {
    #[doc(hidden)]
    fn message_types() -> Parts;
}

/// The messages of a composite.
#[derive(Debug)]
pub struct Parts(pub(crate) Vec<MessageFacts>);

/// Implements `AllOf` for a tuple.
macro_rules! impl_all_of {
    ($($part:ident),*) => {
        impl<S: Saga, $($part: Message + Correlate<S>),*> AllOf<S> for ($($part,)*) {
            fn message_types() -> Parts {
                Parts(vec![$(MessageFacts::by_key::<S, $part>()),*])
            }
        }
        impl<$($part),*> sealed::Sealed for ($($part,)*) {}
    };
}

impl_all_of!(A, B);
impl_all_of!(A, B, C);
impl_all_of!(A, B, C, D);
impl_all_of!(A, B, C, D, E);

/// One state or several: `Stage::Paying`, `[Stage::Paying, Stage::Packing]`, or a `Vec` of those that
/// are known when the program runs.
pub trait States<T> {
    #[doc(hidden)]
    fn list(self) -> Vec<T>;
}

impl<T> States<T> for T {
    fn list(self) -> Vec<T> {
        vec![self]
    }
}

impl<T, const N: usize> States<T> for [T; N] {
    fn list(self) -> Vec<T> {
        self.into()
    }
}

impl<T> States<T> for Vec<T> {
    fn list(self) -> Vec<T> {
        self
    }
}

mod sealed {
    /// Keeps the traits of transitions to this module.
    pub trait Sealed {}
    impl<S: super::Saga, M, Start, End> Sealed for super::When<S, M, Start, End> {}
}

/// A condition, kept beside what it decides.
pub(crate) fn holds<S>(
    condition: Option<&Condition<S>>,
    data: &S,
    message: &super::definition::Erased,
) -> bool {
    condition.is_none_or(|condition| condition(data, message))
}
