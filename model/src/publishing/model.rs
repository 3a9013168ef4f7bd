//! The steps that may follow a state, and what must hold in each.

use stateright::{Model, Property};

use super::state::{Action, HANDS, HOSTS, Hand, Mutant, ROWS, Row, State, Unit};
use crate::check::Design;
use crate::fault::Faults;

/// The model.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Publishing {
    pub(crate) mutant: Option<Mutant>,
    /// Whether a run of the program is followed, which has more hands than an exploration.
    pub(crate) is_followed: bool,
}

const NOT_LOST: &str = "I-3 a row goes only when the broker has its message";
const AT_REST: &str = "I-3 at rest every committed unit's message has its effect";
const NO_GHOST: &str = "I-4 the broker has nothing that no committed unit wrote";
const ONE_IDENTITY: &str = "I-5 every publication of a row has one identity";
const ONE_EFFECT: &str = "I-6 a message has its effect once, however often it is published";

impl Design for Publishing {
    const NAME: &'static str = "publishing";
    type Mutant = Mutant;
    const MUTANTS: &'static [(Mutant, &'static str)] = &[
        (Mutant::PublishInHandler, NO_GHOST),
        (Mutant::PublishAfterDoubt, NO_GHOST),
        (Mutant::DeleteFirst, NOT_LOST),
        (Mutant::Watermark, AT_REST),
        (Mutant::UnroutableAsConfirmed, NOT_LOST),
        (Mutant::DoubtAsConfirmed, NOT_LOST),
        (Mutant::NewIdentity, ONE_IDENTITY),
        (Mutant::OutboxInItsOwnTransaction, AT_REST),
    ];

    fn build(mutant: Option<Mutant>) -> Self {
        Self {
            mutant,
            is_followed: false,
        }
    }
}

impl Publishing {
    fn push_hand(&self, actions: &mut Vec<Action>, state: &State, host: usize, m: usize) {
        match state.hands[host][m] {
            Hand::Empty => {
                let is_free = matches!(
                    state.rows[m],
                    Row::There {
                        is_leased: false,
                        ..
                    }
                );
                let is_new = !self.is(Mutant::Watermark) || m >= state.seen_up_to;
                if is_free && is_new {
                    actions.push(Action::Claim(host, m));
                }
            }
            Hand::Ready { .. } => {
                let is_there = !matches!(state.rows[m], Row::Gone);
                if self.is(Mutant::DeleteFirst) && is_there {
                    actions.push(Action::Delete(host, m));
                    return;
                }
                actions.push(Action::Publish(host, m));
                if state.faults.any() {
                    actions.push(Action::PublishUnheard(host, m));
                    actions.push(Action::Refuse(host, m));
                    actions.push(Action::Return(host, m));
                }
            }
            Hand::Confirmed { .. } => actions.push(Action::Delete(host, m)),
        }
    }

    fn push_unit(actions: &mut Vec<Action>, state: &State, m: usize) {
        match state.units[m] {
            Unit::Waiting => actions.extend((0..HOSTS).map(|host| Action::Handle(host, m))),
            Unit::Open(_) => {
                actions.push(Action::Commit(m));
                actions.push(Action::CommitAvailable(m));
                if state.faults.any() {
                    actions.extend([true, false].map(|it| Action::CommitUnheard(m, it)));
                    actions.push(Action::CommitUnmade(m));
                }
            }
            Unit::Doubt(_) => {
                actions.extend([true, false].map(|it| Action::Resubmit(m, it)));
                if state.faults.any() {
                    actions.extend([true, false].map(|it| Action::CommitUnheard(m, it)));
                    actions.push(Action::CommitUnmade(m));
                }
            }
            Unit::Rowless(_) => actions.push(Action::WriteRow(m)),
            Unit::Over => {}
        }
    }
}

impl Model for Publishing {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        vec![State::new(Faults(2))]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        let hosts = if self.is_followed { HANDS } else { HOSTS };
        for m in 0..ROWS {
            Self::push_unit(actions, state, m);
            for host in 0..hosts {
                self.push_hand(actions, state, host, m);
            }
            let queued = (0..=HOSTS).filter(|of| state.queued[m][*of] > 0);
            actions.extend(queued.map(|of| Action::Deliver(m, of)));
            if state.faults.any()
                && matches!(
                    state.rows[m],
                    Row::There {
                        is_leased: true,
                        ..
                    }
                )
            {
                actions.push(Action::EndLease(m));
            }
        }
        if state.faults.any() {
            actions.extend((0..hosts).map(Action::Kill));
        }
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        let mut state = last.clone();
        match action {
            Action::Handle(host, m) => {
                state.units[m] = Unit::Open(host);
                if self.is(Mutant::PublishInHandler) {
                    Self::take(&mut state, m, host);
                }
            }
            Action::Commit(m) => self.commit(&mut state, m, true),
            Action::CommitAvailable(m) => self.commit(&mut state, m, false),
            Action::Resubmit(m, is_leased) => {
                let Unit::Doubt(host) = state.units[m] else {
                    return None;
                };
                // `Duplicate` when it had been made: nothing goes on from memory.
                state.units[m] = Unit::Over;
                if !state.is_committed[m] {
                    state.units[m] = Unit::Open(host);
                    self.commit(&mut state, m, is_leased);
                }
            }
            Action::WriteRow(m) => {
                let Unit::Rowless(host) = state.units[m] else {
                    return None;
                };
                Self::write(&mut state, m, host, false);
                state.units[m] = Unit::Over;
            }
            Action::Claim(host, m) => {
                let Row::There {
                    epoch,
                    is_leased,
                    of,
                } = &mut state.rows[m]
                else {
                    return None;
                };
                *epoch += 1;
                *is_leased = true;
                state.hands[host][m] = Hand::Ready {
                    epoch: *epoch,
                    of: *of,
                };
                state.seen_up_to = if self.is(Mutant::Watermark) { m + 1 } else { 0 };
            }
            Action::Publish(host, m) => self.publish(&mut state, host, m),
            Action::Delete(host, m) => self.delete(&mut state, host, m),
            Action::Deliver(m, of) => {
                state.queued[m][of] -= 1;
                if !state.inbox[m][of] {
                    state.inbox[m][of] = true;
                    state.effects[m] += 1;
                }
            }
            fault => {
                state.faults.strike();
                self.fault(&mut state, fault);
            }
        }
        Some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always(NOT_LOST, |_, state: &State| {
                let is_safe =
                    |m: usize| state.rows[m] != Row::Gone || state.taken[m].contains(&true);
                (0..ROWS).all(is_safe)
            }),
            Property::always(AT_REST, |model, state: &State| {
                // A relay that goes by ids sees nothing more of what is behind it.
                let is_unseen = |m: usize| model.is(Mutant::Watermark) && m < state.seen_up_to;
                let is_quiet = |m: usize| {
                    state.units[m] == Unit::Over
                        && state.queued[m] == [0; HOSTS + 1]
                        && (!matches!(state.rows[m], Row::There { .. }) || is_unseen(m))
                };
                let is_idle = state
                    .hands
                    .iter()
                    .flatten()
                    .all(|hand| *hand == Hand::Empty);
                !(is_idle && (0..ROWS).all(is_quiet)) || state.effects == [1; ROWS]
            }),
            Property::always(NO_GHOST, |_, state: &State| {
                (0..ROWS).all(|m| state.is_committed[m] || !state.taken[m].contains(&true))
            }),
            Property::always(ONE_IDENTITY, |_, state: &State| {
                let one = |taken: &[bool; HOSTS + 1]| taken.iter().filter(|is| **is).count() <= 1;
                state.taken.iter().all(one)
            }),
            Property::always(ONE_EFFECT, |_, state: &State| {
                state.effects.iter().all(|count| *count <= 1)
            }),
            Property::sometimes("everything has its effect", |_, state: &State| {
                state.effects == [1; ROWS] && state.rows == [Row::Gone; ROWS]
            }),
            Property::sometimes("a message is published twice", |_, state: &State| {
                state.queued.iter().flatten().any(|count| *count == 2)
            }),
            Property::sometimes("two relays have one row", |_, state: &State| {
                let has = |host: usize| matches!(state.hands[host][0], Hand::Ready { .. });
                has(0) && has(1)
            }),
            Property::sometimes("a commit in doubt had been made", |_, state: &State| {
                matches!(state.units[0], Unit::Doubt(_)) && state.is_committed[0]
            }),
            Property::sometimes("the younger row is visible first", |_, state: &State| {
                matches!(state.units[0], Unit::Open(_)) && state.is_committed[1]
            }),
        ]
    }
}
