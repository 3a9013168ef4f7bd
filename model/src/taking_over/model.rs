//! The steps that may follow a state, and what must hold in each.

use stateright::{Model, Property};

use super::state::{
    Action, Answer, FAILURES_MAX, HANDS, HOSTS, Hand, LATE, MESSAGES, Mutant, OURS, Source, State,
    THEIRS, Work,
};
use crate::check::Design;
use crate::fault::Faults;

/// The model.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TakingOver {
    pub(crate) mutant: Option<Mutant>,
    /// Whether a run of the program is followed, which does more of everything than an exploration.
    pub(crate) is_followed: bool,
}

impl Design for TakingOver {
    const NAME: &'static str = "taking over";
    type Mutant = Mutant;
    const MUTANTS: &'static [(Mutant, &'static str)] = &[
        (Mutant::AckFirst, ACKED_IS_OURS),
        (Mutant::InboxNotUnique, ONE_STEP),
        (Mutant::InboxInItsOwnTransaction, ACKED_IS_OURS),
        (Mutant::LoserKeepsItsInboxRow, ACKED_IS_OURS),
        (Mutant::DoubtIsSuccess, ACKED_IS_OURS),
        (Mutant::VersionNotChecked, NO_LOST_UPDATE),
        (Mutant::SettleWithoutEpoch, FENCED),
        (Mutant::CopyWithoutTakingOver, ONE_STEP),
        (Mutant::SourceRowNotHeld, ONE_STEP),
        (Mutant::DeadLetterAfterDelete, ACKED_IS_OURS),
    ];

    fn build(mutant: Option<Mutant>) -> Self {
        Self {
            mutant,
            is_followed: false,
        }
    }
}

const ONE_STEP: &str = "I-1 at most one disposition of a message is ever committed";
const ACKED_IS_OURS: &str = "I-2 what was acked or is in the inbox is done, given up or a row";
const AT_REST: &str = "I-2 at rest every message has exactly one disposition";
const NO_LOST_UPDATE: &str = "I-8 an instance keeps what every committed unit left in it";
const FENCED: &str = "I-10 who lost its lease takes back no recorded failure";

impl TakingOver {
    fn push_hand(&self, actions: &mut Vec<Action>, state: &State, host: usize, m: usize) {
        match state.hands[host][m] {
            Hand::Empty => {
                if state.ready[m] > 0 {
                    actions.push(Action::Receive(host, m));
                }
                if state.rows[m].is_some_and(|row| !row.is_leased) {
                    actions.push(Action::Claim(host, m));
                }
            }
            Hand::Got(_) | Hand::Lost(_) => actions.push(Action::Load(host, m)),
            Hand::Loaded(..) => {
                actions.push(Action::Handle(host, m));
                if m == 1 {
                    actions.push(Action::Fail(host, m));
                    actions.push(Action::GiveUp(host, m));
                }
                actions.push(Action::TryAgain(host, m));
            }
            Hand::Done(_) => {
                actions.push(Action::Ack(host, m));
                if state.faults.any() {
                    actions.push(Action::LoseAck(host, m));
                }
            }
            Hand::Waiting(_, Work::Apply { .. }) => actions.push(Action::TryAgain(host, m)),
            Hand::Waiting(..) | Hand::Doubt(..) => {}
        }
        // In an exploration it counts as a fault, because it raises an epoch for nothing.
        if state.faults.any() {
            actions.push(Action::PutBack(host, m));
        }
    }

    /// Lets a fault happen; `None` where it cannot.
    fn strike(&self, state: &mut State, fault: Action) -> Option<()> {
        match fault {
            Action::CommitUnheard(host, mask) => {
                let group = Self::group(state, host, mask)?;
                self.commit(state, &group);
                self.doubt(state, host, &group);
            }
            Action::CommitUnmade(host, mask) => {
                let group = Self::group(state, host, mask)?;
                self.doubt(state, host, &group);
            }
            Action::CommitLater(host, mask) => {
                let group = Self::group(state, host, mask)?;
                *state.late.iter_mut().find(|late| late.is_none())? = Some(group);
                self.doubt(state, host, &group);
            }
            Action::LoseAck(host, m) => {
                state.hands[host][m] = Hand::Empty;
                state.ready[m] += 1;
            }
            Action::Kill(host) => Self::kill(state, host),
            Action::Redeliver(m) => state.ready[m] += 1,
            Action::EndLease(m) => state.rows[m].as_mut()?.is_leased = false,
            Action::PutBack(host, m) => Self::put_back(state, host, m)?,
            _ => return None,
        }
        Some(())
    }
}

impl Model for TakingOver {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        vec![State::new([1; MESSAGES], Faults(2))]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        let hosts = if self.is_followed { HANDS } else { HOSTS };
        // Of those in a run that is followed only the last one does anything.
        let first = if self.is_followed { MESSAGES - 1 } else { 0 };
        for host in 0..hosts {
            for m in first..MESSAGES {
                self.push_hand(actions, state, host, m);
            }
            for mask in 1..1 << MESSAGES {
                if Self::group(state, host, mask).is_none() {
                    continue;
                }
                actions.push(Action::Commit(host, mask));
                if state.faults.any() {
                    actions.push(Action::CommitUnheard(host, mask));
                    actions.push(Action::CommitUnmade(host, mask));
                    let may_be_late = match self.is_followed {
                        true => state.late.contains(&None),
                        false => state.late == [None; LATE],
                    };
                    if may_be_late {
                        actions.push(Action::CommitLater(host, mask));
                    }
                }
            }
            if state.faults.any() && state.hands[host].iter().any(|hand| *hand != Hand::Empty) {
                actions.push(Action::Kill(host));
            }
        }
        for m in first..MESSAGES {
            if state.faults.any() && state.ready[m] < 2 {
                actions.push(Action::Redeliver(m));
            }
            if state.faults.any() && state.rows[m].is_some_and(|row| row.is_leased) {
                actions.push(Action::EndLease(m));
            }
        }
        let late = (0..LATE).filter(|which| state.late[*which].is_some());
        actions.extend(late.map(Action::CommitLate));
        let moves = |m: &usize| self.is_followed || *m == 0 && !state.is_moved_by_others[0];
        actions.extend((0..MESSAGES).filter(moves).map(Action::MoveInstance));
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        let mut state = last.clone();
        match action {
            Action::Receive(host, m) => {
                state.ready[m] -= 1;
                state.hands[host][m] = Hand::Got(Source::Delivery);
                state.is_acked[m] |= self.is(Mutant::AckFirst);
            }
            Action::Claim(host, m) => {
                let row = state.rows[m].as_mut()?;
                row.epoch += 1;
                row.is_leased = true;
                state.hands[host][m] = Hand::Got(Source::Row {
                    epoch: row.epoch,
                    failures: row.failures,
                });
            }
            Action::Load(host, m) => self.load(&mut state, host, m),
            Action::Handle(host, m) => Self::handle(&mut state, host, m),
            Action::Fail(host, m) => Self::fail(&mut state, host, m),
            Action::GiveUp(host, m) => {
                let Hand::Loaded(source, _) = state.hands[host][m] else {
                    return None;
                };
                state.hands[host][m] = Hand::Waiting(source, Work::GiveUp);
            }
            Action::Commit(host, mask) => {
                let group = Self::group(&state, host, mask)?;
                let answers = self.commit(&mut state, &group);
                self.answer(&mut state, host, &group, &answers);
            }
            Action::CommitLate(which) => {
                let group = state.late[which].take()?;
                self.commit(&mut state, &group);
            }
            Action::Ack(host, m) => {
                state.hands[host][m] = Hand::Empty;
                state.is_acked[m] = true;
            }
            Action::MoveInstance(m) => {
                state.is_moved_by_others[m] = true;
                state.instances[m].version += 1;
                state.instances[m].data |= THEIRS;
            }
            Action::TryAgain(host, m) => Self::try_again(&mut state, host, m)?,
            fault => {
                state.faults.strike();
                self.strike(&mut state, fault)?;
            }
        }
        Some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        promised().into_iter().chain(reached()).collect()
    }
}

/// What holds in every state.
fn promised() -> Vec<Property<TakingOver>> {
    vec![
        Property::always(ONE_STEP, |_, state: &State| {
            (0..MESSAGES).all(|m| state.effects[m] + state.dead[m] <= 1)
        }),
        Property::always(ACKED_IS_OURS, |_, state: &State| {
            let is_ours = |m: usize| {
                state.effects[m] + state.dead[m] > 0
                    || state.rows[m].is_some()
                    || !state.inbox[m] && !state.is_acked[m]
            };
            (0..MESSAGES).all(is_ours)
        }),
        Property::always(AT_REST, |_, state: &State| {
            let is_at_rest = state.ready == [0; MESSAGES]
                && state
                    .hands
                    .iter()
                    .flatten()
                    .all(|hand| *hand == Hand::Empty)
                && state.rows.iter().all(Option::is_none)
                && state.late == [None; LATE];
            !is_at_rest || (0..MESSAGES).all(|m| state.effects[m] + state.dead[m] == 1)
        }),
        Property::always(NO_LOST_UPDATE, |_, state: &State| {
            let has_ours =
                |m: usize| state.effects[m] == 0 || state.instances[m].data & OURS == OURS;
            let has_theirs =
                |m: usize| !state.is_moved_by_others[m] || state.instances[m].data & THEIRS > 0;
            (0..MESSAGES).all(|m| has_ours(m) && has_theirs(m))
        }),
        Property::always(FENCED, |_, state: &State| {
            let row = |m: usize| state.rows[m].map_or(FAILURES_MAX, |row| row.failures);
            (0..MESSAGES).all(|m| row(m) >= state.recorded[m])
        }),
    ]
}

/// What the search must come by, or it shows nothing.
fn reached() -> Vec<Property<TakingOver>> {
    vec![
        Property::sometimes(
            "a unit loses, and its neighbour in the group wins",
            |_, state: &State| {
                state.hands.iter().any(|hands| {
                    matches!(hands[0], Hand::Lost(Source::Delivery))
                        && hands[1] == Hand::Done(Answer::Committed)
                })
            },
        ),
        Property::sometimes("both hosts have claimed one row", |_, state: &State| {
            let holds =
                |hands: &[Hand; MESSAGES]| matches!(hands[1], Hand::Loaded(Source::Row { .. }, _));
            state.hands[..HOSTS].iter().all(holds)
        }),
        Property::sometimes(
            "a message is handled after it failed twice",
            |_, state: &State| state.recorded[1] == 2 && state.effects[1] == 1,
        ),
        Property::sometimes("a message is given up", |_, state: &State| {
            state.dead[1] == 1
        }),
        Property::sometimes("a call in doubt had been committed", |_, state: &State| {
            let is_doubt = |hands: &[Hand; MESSAGES]| {
                matches!(hands[0], Hand::Doubt(..)) && state.effects[0] == 1
            };
            state.hands.iter().any(is_doubt)
        }),
        Property::sometimes(
            "a call in doubt had not been committed",
            |_, state: &State| {
                let is_doubt = |hands: &[Hand; MESSAGES]| matches!(hands[0], Hand::Doubt(..));
                state.effects[0] == 0
                    && state.late == [None; LATE]
                    && state.hands.iter().any(is_doubt)
            },
        ),
        Property::sometimes(
            "a server commits what was made again meanwhile",
            |_, state: &State| {
                state.late[0].is_some_and(|group| group[0].is_some()) && state.effects[0] == 1
            },
        ),
    ]
}
