//! A lock that two sagas reserve: its keeper, its line, answers that overtake each other, dead
//! letters and an operator.

use stateright::{Model, Property};

use crate::check::Design;
use crate::fault::Faults;

/// Sagas that ask, once each.
const SAGAS: usize = 2;

/// What may be wrong with the design.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mutant {
    /// The keeper's endpoint promises no order per key.
    LineNotKept,
    /// A saga that ends while it waits sends nothing.
    EndForgetsTheWaiting,
    /// Whoever gives back frees the lock, whoever has it.
    TokenNotChecked,
    /// A question that became a dead letter is forgotten.
    FailedIsForgotten,
    /// Who takes over does not tell.
    TakenUntold,
    /// The loss of a lock is heard before the lock itself.
    LossOvertakes,
    /// A lock that is given back goes to nobody.
    NextIsForgotten,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Saga {
    Fresh,
    Asked,
    Has,
    /// Refused, robbed or ended.
    Over,
}

/// What is said to the keeper: rows of one key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Said {
    Reserve { saga: usize, takes_over: bool },
    Release(usize),
}

/// What the keeper, or the engine, says to a saga.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum News {
    Reserved,
    NotReserved,
    Lost,
    Failed,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct State {
    sagas: [Saga; SAGAS],
    line: Vec<Said>,
    /// The first of the line is a dead letter; its stub holds the others up.
    is_dead: bool,
    holder: Option<usize>,
    waiting: Vec<usize>,
    /// On its way to a saga, in any order.
    news: Vec<(usize, News)>,
    /// The keeper was told to give a lock back by a saga that had it, and another one waited.
    handed_on: bool,
    redriven: bool,
    faults: Faults,
}

impl State {
    fn is_at_rest(&self) -> bool {
        self.line.is_empty() && self.news.is_empty()
    }
}

/// One step. The name behind each is the function that it stands for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Action {
    /// `reserving.rs`, `settle`: a saga asks, waiting or taking over.
    Ask(usize, bool),
    /// `reserving.rs`, `settle`: a saga ends and gives back in the same commit.
    End(usize),
    /// `keeper.rs`, `Handles<Reserve>` and `Handles<Release>`: what is said at this place in line.
    Keep(usize),
    /// `keeper.rs`, `Handles<PatienceOver>`.
    LosePatience(usize),
    /// `keeper.rs`, `Handles<BreakLock>`: an operator, out of line.
    Break,
    /// `settling.rs`: the question becomes a dead letter, its asker is told.
    GiveUp,
    /// `StoreAdmin::change`: the dead letter stands in its place again.
    Redrive,
    /// `StoreAdmin::change`: it makes way.
    Discard,
    /// `reserving.rs`, `answered` and `too_early`.
    Hear(usize, News),
}

/// The model.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Locks {
    mutant: Option<Mutant>,
}

const BELIEVED: &str = "I-8 who believes to have a lock has it, or is being told that it lost it";
const FREE: &str = "I-2 at rest nobody has or awaits a lock who does not want it";
const ANSWERED: &str = "I-2 at rest who waits for a lock waits for somebody who has it";

impl Design for Locks {
    const NAME: &'static str = "locks";
    type Mutant = Mutant;
    const MUTANTS: &'static [(Mutant, &'static str)] = &[
        (Mutant::LineNotKept, FREE),
        (Mutant::EndForgetsTheWaiting, FREE),
        (Mutant::TokenNotChecked, BELIEVED),
        (Mutant::FailedIsForgotten, FREE),
        (Mutant::TakenUntold, BELIEVED),
        (Mutant::LossOvertakes, BELIEVED),
        (Mutant::NextIsForgotten, ANSWERED),
    ];

    fn build(mutant: Option<Mutant>) -> Self {
        Self { mutant }
    }
}

impl Locks {
    fn is(&self, mutant: Mutant) -> bool {
        self.mutant == Some(mutant)
    }

    fn tell(state: &mut State, saga: usize, news: News) {
        state.news.push((saga, news));
        // The order of what may be heard in any order is no difference.
        state.news.sort_unstable();
    }

    fn give(state: &mut State, saga: usize) {
        state.holder = Some(saga);
        Self::tell(state, saga, News::Reserved);
    }

    fn take_away(&self, state: &mut State) {
        if let Some(robbed) = state.holder.take()
            && !self.is(Mutant::TakenUntold)
        {
            Self::tell(state, robbed, News::Lost);
        }
    }

    fn go_on(&self, state: &mut State) {
        if state.holder.is_some() || state.waiting.is_empty() || self.is(Mutant::NextIsForgotten) {
            return;
        }
        let next = state.waiting.remove(0);
        state.handed_on = true;
        Self::give(state, next);
    }

    fn keep(&self, state: &mut State, at: usize) {
        match state.line.remove(at) {
            Said::Reserve { saga, takes_over } => match state.holder {
                None => Self::give(state, saga),
                Some(_) if takes_over => {
                    self.take_away(state);
                    Self::give(state, saga);
                }
                Some(_) => state.waiting.push(saga),
            },
            Said::Release(saga) => {
                state.waiting.retain(|one| *one != saga);
                if state.holder == Some(saga) || self.is(Mutant::TokenNotChecked) {
                    state.holder = None;
                }
                self.go_on(state);
            }
        }
    }

    fn hear(&self, state: &mut State, saga: usize, news: News) {
        let at = state.news.iter().position(|one| *one == (saga, news));
        at.map(|at| state.news.remove(at));
        match (state.sagas[saga], news) {
            (Saga::Asked, News::Reserved) => state.sagas[saga] = Saga::Has,
            (Saga::Asked, News::NotReserved) | (Saga::Has, News::Lost) => {
                state.sagas[saga] = Saga::Over;
            }
            (Saga::Asked, News::Failed) => {
                state.sagas[saga] = Saga::Over;
                if !self.is(Mutant::FailedIsForgotten) {
                    state.line.push(Said::Release(saga));
                }
            }
            // An answer to a question that is asked no more.
            _ => {}
        }
    }

    /// The loss waits until the lock itself was heard of.
    fn may_hear(&self, state: &State, saga: usize, news: News) -> bool {
        let is_early = state.sagas[saga] == Saga::Asked && news == News::Lost;
        !is_early || self.is(Mutant::LossOvertakes)
    }

    fn push_saga(&self, state: &State, saga: usize, actions: &mut Vec<Action>) {
        match state.sagas[saga] {
            Saga::Fresh => actions.extend([Action::Ask(saga, false), Action::Ask(saga, true)]),
            Saga::Asked | Saga::Has => actions.push(Action::End(saga)),
            Saga::Over => {}
        }
        if state.waiting.contains(&saga) {
            actions.push(Action::LosePatience(saga));
        }
    }
}

impl Model for Locks {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        vec![State {
            sagas: [Saga::Fresh; SAGAS],
            line: Vec::new(),
            is_dead: false,
            holder: None,
            waiting: Vec::new(),
            news: Vec::new(),
            handed_on: false,
            redriven: false,
            faults: Faults(2),
        }]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        for saga in 0..SAGAS {
            self.push_saga(state, saga, actions);
        }
        if state.is_dead {
            actions.extend([Action::Redrive, Action::Discard]);
        } else {
            let reach = match self.is(Mutant::LineNotKept) {
                true => state.line.len(),
                false => state.line.len().min(1),
            };
            actions.extend((0..reach).map(Action::Keep));
            let is_question = matches!(state.line.first(), Some(Said::Reserve { .. }));
            if is_question && state.faults.any() {
                actions.push(Action::GiveUp);
            }
        }
        if state.holder.is_some() && state.faults.any() {
            actions.push(Action::Break);
        }
        let news = state.news.iter();
        let heard = news.filter(|(saga, news)| self.may_hear(state, *saga, *news));
        actions.extend(heard.map(|(saga, news)| Action::Hear(*saga, *news)));
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        let mut state = last.clone();
        match action {
            Action::Ask(saga, takes_over) => {
                state.sagas[saga] = Saga::Asked;
                state.line.push(Said::Reserve { saga, takes_over });
            }
            Action::End(saga) => {
                let forgets = self.is(Mutant::EndForgetsTheWaiting);
                if state.sagas[saga] == Saga::Has || !forgets {
                    state.line.push(Said::Release(saga));
                }
                state.sagas[saga] = Saga::Over;
            }
            Action::Keep(at) => self.keep(&mut state, at),
            Action::LosePatience(saga) => {
                state.waiting.retain(|one| *one != saga);
                Self::tell(&mut state, saga, News::NotReserved);
            }
            Action::Break => {
                state.faults.strike();
                self.take_away(&mut state);
                self.go_on(&mut state);
            }
            Action::GiveUp => {
                state.faults.strike();
                state.is_dead = true;
                if let Some(Said::Reserve { saga, .. }) = state.line.first().copied() {
                    Self::tell(&mut state, saga, News::Failed);
                }
            }
            Action::Redrive => {
                state.is_dead = false;
                state.redriven = true;
            }
            Action::Discard => {
                state.is_dead = false;
                state.line.remove(0);
            }
            Action::Hear(saga, news) => self.hear(&mut state, saga, news),
        }
        Some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always(BELIEVED, |_, state: &State| {
                (0..SAGAS).all(|saga| {
                    state.sagas[saga] != Saga::Has
                        || state.holder == Some(saga)
                        || state.news.contains(&(saga, News::Lost))
                })
            }),
            Property::always(FREE, |_, state: &State| {
                let wants = |saga: &usize| matches!(state.sagas[*saga], Saga::Asked | Saga::Has);
                let mut who = state.holder.iter().chain(&state.waiting);
                !state.is_at_rest() || who.all(wants)
            }),
            Property::always(ANSWERED, |_, state: &State| {
                let asks = |saga: &usize| state.sagas[*saga] == Saga::Asked;
                let is_awaited = |saga: usize| state.waiting.contains(&saga);
                let has_place = (0..SAGAS).filter(asks).all(is_awaited);
                let is_held = state.waiting.is_empty() || state.holder.is_some();
                !state.is_at_rest() || has_place && is_held
            }),
            Property::sometimes("who waited gets the lock", |_, state: &State| {
                state.handed_on && state.sagas.contains(&Saga::Has)
            }),
            Property::sometimes(
                "a saga has a lock of which it was robbed",
                |_, state: &State| {
                    let is_robbed =
                        |saga: usize| state.sagas[saga] == Saga::Has && state.holder != Some(saga);
                    (0..SAGAS).any(is_robbed)
                },
            ),
            Property::sometimes("the loss is there before the lock", |_, state: &State| {
                let has = |news| state.news.contains(&(0, news));
                state.sagas[0] == Saga::Asked && has(News::Lost) && has(News::Reserved)
            }),
            Property::sometimes(
                "a question is redriven after its saga is over",
                |_, state: &State| {
                    state.redriven
                        && matches!(state.line.first(), Some(Said::Reserve { saga, .. })
                            if state.sagas[*saga] == Saga::Over)
                },
            ),
        ]
    }
}
