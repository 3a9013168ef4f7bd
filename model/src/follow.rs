//! Follows a run of the program through a model: each thing that was seen must be a step that the
//! model has there.
//!
//! What was not seen (a load, a handler that ran) may have happened or not, so every state in which
//! the model may be is kept. Where none is left, the program did what the design does not know.

use std::fmt::Debug;
use std::hash::Hash;

use ahash::AHashSet;
use stateright::{Expectation, Model};

/// States in which a run may be at once. Where many copies of one message are in hand at once there
/// are more, and hardly anything would be checked: it is lost sight of, which is counted.
const STATES_MAX: usize = 5_000;

/// Every state of a model in which a run may be.
#[derive(Debug)]
pub(crate) struct Follower<M: Model> {
    model: M,
    /// Empty where it is lost sight of.
    now: AHashSet<M::State>,
}

impl<M: Model> Follower<M>
where
    M::State: Clone + Debug + Eq + Hash,
    M::Action: Copy + Debug,
{
    pub(crate) fn new(model: M, state: M::State) -> Self {
        let now = AHashSet::from([state]);
        Self { model, now }
    }

    /// Takes steps that nobody sees, any number of them.
    pub(crate) fn unseen(&mut self, is_unseen: impl Fn(&M::State, M::Action) -> bool) {
        let mut open: Vec<_> = self.now.iter().cloned().collect();
        let mut actions = Vec::new();
        while let Some(state) = open.pop() {
            self.model.actions(&state, &mut actions);
            for action in actions
                .drain(..)
                .filter(|action| is_unseen(&state, *action))
            {
                let next = self.model.next_state(&state, action);
                if let Some(next) = next.filter(|next| !self.now.contains(next)) {
                    self.now.insert(next.clone());
                    open.push(next);
                }
            }
            if self.now.len() > STATES_MAX {
                self.now.clear();
                return;
            }
        }
    }

    /// Says whether it is lost sight of.
    pub(crate) fn is_lost(&self) -> bool {
        self.now.is_empty()
    }

    /// Takes one of the steps that were seen, each told by its action and the state before it.
    pub(crate) fn seen(
        &mut self,
        is_seen: impl Fn(&M::State, M::Action) -> bool,
    ) -> Result<(), String> {
        self.step(|_| false, is_seen, |_, _, _| true)
    }

    /// Takes one of the steps that were seen and ended as was seen.
    pub(crate) fn seen_to_end(
        &mut self,
        is_seen: impl Fn(&M::State, M::Action) -> bool,
        is_end: impl Fn(&M::State, M::Action, &M::State) -> bool,
    ) -> Result<(), String> {
        self.step(|_| false, is_seen, is_end)
    }

    /// Takes one of the steps that were seen, but none from a state in which it is done already.
    pub(crate) fn seen_or(
        &mut self,
        is_done: impl Fn(&M::State) -> bool,
        is_seen: impl Fn(&M::State, M::Action) -> bool,
    ) -> Result<(), String> {
        self.step(is_done, is_seen, |_, _, _| true)
    }

    /// Few of the steps that a state has are asked for, so the others are not made.
    fn step(
        &mut self,
        is_done: impl Fn(&M::State) -> bool,
        is_seen: impl Fn(&M::State, M::Action) -> bool,
        is_end: impl Fn(&M::State, M::Action, &M::State) -> bool,
    ) -> Result<(), String> {
        if self.is_lost() {
            return Ok(());
        }
        let mut next = AHashSet::with_capacity(self.now.len());
        let mut actions = Vec::new();
        for state in &self.now {
            if is_done(state) {
                next.insert(state.clone());
                continue;
            }
            self.model.actions(state, &mut actions);
            let wanted = actions.drain(..).filter(|action| is_seen(state, *action));
            next.extend(wanted.filter_map(|action| {
                let after = self.model.next_state(state, action)?;
                is_end(state, action, &after).then_some(after)
            }));
        }
        if next.is_empty() {
            let state = self.now.iter().next();
            return Err(format!(
                "no step of the model, in any of {} states such as {state:?}",
                self.now.len()
            ));
        }
        self.now = next;
        self.check()
    }

    /// Says whether the run may be in such a state.
    pub(crate) fn may_be(&self, is_it: impl Fn(&M::State) -> bool) -> bool {
        self.is_lost() || self.now.iter().any(is_it)
    }

    /// What the model promises in every state, it promises in these.
    fn check(&self) -> Result<(), String> {
        for property in self.model.properties() {
            let is_promised = matches!(property.expectation, Expectation::Always);
            let holds = |state: &M::State| (property.condition)(&self.model, state);
            if let Some(state) = self.now.iter().find(|it| is_promised && !holds(it)) {
                return Err(format!("`{}` is broken in {state:?}", property.name));
            }
        }
        Ok(())
    }
}
