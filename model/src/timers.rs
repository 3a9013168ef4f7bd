//! A timer that an instance arms, moves, cancels and arms again in a second life, while a host has
//! it in hand, and after it became a dead letter that an operator redrives.

use stateright::{Model, Property};

use crate::check::Design;
use crate::fault::Faults;

/// How often the timer is armed.
const ARMED_MAX: usize = 3;
const HOSTS: usize = 2;

/// What may be wrong with the design.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mutant {
    /// The generations of a second life begin at one again.
    GenerationRestarts,
    /// A timer fires without a look at what its instance holds.
    GenerationNotChecked,
    /// Cancelling removes the row and leaves the instance as it is.
    CancelOnlyRemovesTheRow,
    /// A redriven timer is a message like any other.
    RedriveForgetsTheTimer,
    /// A timer may be claimed before it is due.
    ClaimedEarly,
    /// The row is deleted before the unit that answers it commits.
    RowDeletedFirst,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Row {
    Absent,
    /// Not due.
    Waiting,
    Due,
    Leased {
        epoch: u8,
    },
    Dead,
    Gone,
}

/// One arming of the timer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Armed {
    row: Row,
    epoch: u8,
    generation: u8,
    was_due: bool,
    is_cancelled: bool,
    is_redriven: bool,
    fired: u8,
    fired_wrongly: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Instance {
    version: u8,
    is_running: bool,
    /// The generation that it holds.
    held: Option<u8>,
    /// The last one that it gave.
    last: u8,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Hand {
    Empty,
    Claimed {
        timer: usize,
        epoch: u8,
    },
    /// The handler has run on what was loaded.
    Handled {
        timer: usize,
        epoch: u8,
        version: u8,
    },
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct State {
    timers: [Armed; ARMED_MAX],
    armed: usize,
    instance: Instance,
    hands: [Hand; HOSTS],
    faults: Faults,
}

/// One step. The name behind each is the function that it stands for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Action {
    /// `turn.rs`: a message starts an instance, or a second life of it, and arms the timer.
    Start,
    /// A message moves the timer: the row of the last one goes, a new one comes.
    Rearm,
    /// A message cancels it: `InstanceChange::disarmed`.
    Disarm,
    /// A message ends the instance.
    Complete,
    /// Time passes by the database's clock.
    BecomeDue(usize),
    /// `sagabus.claim_v1`.
    Claim(usize, usize),
    /// `handling.rs`, `Case::is_stale_timer` and `Case::attempt`.
    Handle(usize),
    /// The handler fails for good: `Case::dead`.
    GiveUp(usize),
    /// `sagabus.commit_v1`.
    Commit(usize),
    /// Committed, and the answer is lost.
    CommitUnheard(usize),
    /// `StoreAdmin::change`: an operator redrives the dead letter.
    Redrive(usize),
    /// A lease ends while its holder still goes on.
    EndLease(usize),
    /// A process is killed.
    Kill(usize),
}

/// The model.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Timers {
    mutant: Option<Mutant>,
}

const NO_EFFECT: &str = "I-9 a timer that was cancelled, or is not due, has no effect";
const ONCE: &str = "I-9 a timer has its effect at most once";
const NOT_LOST: &str = "I-9 an armed timer has its row, or its dead letter";

impl Design for Timers {
    const NAME: &'static str = "timers";
    type Mutant = Mutant;
    const MUTANTS: &'static [(Mutant, &'static str)] = &[
        (Mutant::GenerationRestarts, NO_EFFECT),
        (Mutant::GenerationNotChecked, NO_EFFECT),
        (Mutant::CancelOnlyRemovesTheRow, NO_EFFECT),
        (Mutant::RedriveForgetsTheTimer, NO_EFFECT),
        (Mutant::ClaimedEarly, NO_EFFECT),
        (Mutant::RowDeletedFirst, NOT_LOST),
    ];

    fn build(mutant: Option<Mutant>) -> Self {
        Self { mutant }
    }
}

impl Timers {
    fn is(&self, mutant: Mutant) -> bool {
        self.mutant == Some(mutant)
    }

    /// Cancels what is armed: the rows go that are still there.
    fn disarm(&self, state: &mut State) {
        for timer in &mut state.timers[..state.armed] {
            let is_over = timer.fired > 0;
            timer.is_cancelled |= !is_over;
            if !matches!(timer.row, Row::Dead) {
                timer.row = Row::Gone;
            }
        }
        if !self.is(Mutant::CancelOnlyRemovesTheRow) {
            state.instance.held = None;
        }
        state.instance.version += 1;
    }

    fn arm(state: &mut State) {
        let generation = state.instance.last + 1;
        state.timers[state.armed] = Armed {
            row: Row::Waiting,
            generation,
            ..NEVER_ARMED
        };
        state.armed += 1;
        state.instance.last = generation;
        state.instance.held = Some(generation);
    }

    fn start(&self, state: &mut State) {
        state.instance.is_running = true;
        state.instance.version += 1;
        if self.is(Mutant::GenerationRestarts) {
            state.instance.last = 0;
        }
        Self::arm(state);
    }

    fn handle(&self, state: &mut State, host: usize) {
        let Hand::Claimed { timer, epoch } = state.hands[host] else {
            return;
        };
        let instance = state.instance;
        let armed = &mut state.timers[timer];
        let is_plain = armed.is_redriven && self.is(Mutant::RedriveForgetsTheTimer);
        let checks = !is_plain && !self.is(Mutant::GenerationNotChecked);
        let is_stale = checks && instance.held != Some(armed.generation);
        let is_ours = armed.row == Row::Leased { epoch };
        if is_stale || !instance.is_running {
            // Recorded as a stale timer: the unit answers the row and does nothing else.
            if is_ours {
                armed.row = Row::Gone;
            }
            state.hands[host] = Hand::Empty;
            return;
        }
        if self.is(Mutant::RowDeletedFirst) && is_ours {
            armed.row = Row::Gone;
        }
        state.hands[host] = Hand::Handled {
            timer,
            epoch,
            version: instance.version,
        };
    }

    /// Commits the unit of a timer that fired.
    fn commit(&self, state: &mut State, host: usize) -> Hand {
        let Hand::Handled {
            timer,
            epoch,
            version,
        } = state.hands[host]
        else {
            return Hand::Empty;
        };
        let armed = &mut state.timers[timer];
        let is_ours = armed.row == Row::Leased { epoch } || self.is(Mutant::RowDeletedFirst);
        if !is_ours {
            return Hand::Empty;
        }
        if state.instance.version != version {
            return Hand::Claimed { timer, epoch };
        }
        armed.row = Row::Gone;
        armed.fired += 1;
        armed.fired_wrongly |= armed.is_cancelled || !armed.was_due;
        state.instance.version += 1;
        state.instance.held = None;
        Hand::Empty
    }

    fn give_up(state: &mut State, host: usize) {
        if let Hand::Claimed { timer, epoch } = state.hands[host] {
            let armed = &mut state.timers[timer];
            if armed.row == (Row::Leased { epoch }) {
                armed.row = Row::Dead;
            }
        }
        state.hands[host] = Hand::Empty;
    }

    fn push_timer(&self, actions: &mut Vec<Action>, state: &State, at: usize) {
        let timer = state.timers[at];
        let is_early = timer.row == Row::Waiting && self.is(Mutant::ClaimedEarly);
        match timer.row {
            Row::Waiting => actions.push(Action::BecomeDue(at)),
            Row::Dead if !timer.is_redriven => actions.push(Action::Redrive(at)),
            Row::Leased { .. } if state.faults.any() => actions.push(Action::EndLease(at)),
            _ => {}
        }
        if timer.row == Row::Due || is_early {
            let idle = (0..HOSTS).filter(|host| state.hands[*host] == Hand::Empty);
            actions.extend(idle.map(|host| Action::Claim(host, at)));
        }
    }
}

const NEVER_ARMED: Armed = Armed {
    row: Row::Absent,
    epoch: 0,
    generation: 0,
    was_due: false,
    is_cancelled: false,
    is_redriven: false,
    fired: 0,
    fired_wrongly: false,
};

impl Model for Timers {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        vec![State {
            timers: [NEVER_ARMED; ARMED_MAX],
            armed: 0,
            instance: Instance {
                version: 0,
                is_running: false,
                held: None,
                last: 0,
            },
            hands: [Hand::Empty; HOSTS],
            faults: Faults(1),
        }]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        if state.instance.is_running {
            actions.push(Action::Complete);
            if state.armed < ARMED_MAX {
                actions.push(Action::Rearm);
            }
            if state.instance.held.is_some() {
                actions.push(Action::Disarm);
            }
        } else if state.armed < ARMED_MAX {
            actions.push(Action::Start);
        }
        for at in 0..state.armed {
            self.push_timer(actions, state, at);
        }
        for host in 0..HOSTS {
            match state.hands[host] {
                Hand::Empty => continue,
                Hand::Claimed { .. } => {
                    actions.push(Action::Handle(host));
                    actions.push(Action::GiveUp(host));
                }
                Hand::Handled { .. } => {
                    actions.push(Action::Commit(host));
                    if state.faults.any() {
                        actions.push(Action::CommitUnheard(host));
                    }
                }
            }
            if state.faults.any() {
                actions.push(Action::Kill(host));
            }
        }
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        let mut state = last.clone();
        match action {
            Action::Start => self.start(&mut state),
            Action::Rearm => {
                self.disarm(&mut state);
                Self::arm(&mut state);
            }
            Action::Disarm => self.disarm(&mut state),
            Action::Complete => {
                self.disarm(&mut state);
                state.instance.is_running = false;
            }
            Action::BecomeDue(at) => {
                state.timers[at].row = Row::Due;
                state.timers[at].was_due = true;
            }
            Action::Claim(host, at) => {
                let timer = &mut state.timers[at];
                timer.epoch += 1;
                let epoch = timer.epoch;
                timer.row = Row::Leased { epoch };
                state.hands[host] = Hand::Claimed { timer: at, epoch };
            }
            Action::Handle(host) => self.handle(&mut state, host),
            Action::GiveUp(host) => Self::give_up(&mut state, host),
            Action::Commit(host) => state.hands[host] = self.commit(&mut state, host),
            Action::CommitUnheard(host) => {
                state.faults.strike();
                // It is made again with the same values: the row answers.
                self.commit(&mut state, host);
            }
            Action::Redrive(at) => {
                state.timers[at].row = Row::Due;
                state.timers[at].is_redriven = true;
            }
            Action::EndLease(at) => {
                state.faults.strike();
                state.timers[at].row = Row::Due;
            }
            Action::Kill(host) => {
                state.faults.strike();
                let held = state.hands[host];
                state.hands[host] = Hand::Empty;
                if let Hand::Claimed { timer, epoch } | Hand::Handled { timer, epoch, .. } = held {
                    let row = &mut state.timers[timer].row;
                    if *row == (Row::Leased { epoch }) {
                        *row = Row::Due;
                    }
                }
            }
        }
        Some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always(NO_EFFECT, |_, state: &State| {
                state.timers.iter().all(|timer| !timer.fired_wrongly)
            }),
            Property::always(ONCE, |_, state: &State| {
                state.timers.iter().all(|timer| timer.fired <= 1)
            }),
            Property::always(NOT_LOST, |_, state: &State| {
                let is_there = |timer: &Armed| {
                    let is_over = timer.fired > 0 || timer.is_cancelled;
                    is_over || !matches!(timer.row, Row::Absent | Row::Gone)
                };
                state.timers[..state.armed].iter().all(is_there)
            }),
            Property::sometimes("a timer fires", |_, state: &State| {
                state.timers[0].fired == 1
            }),
            Property::sometimes("a timer of the second life fires", |_, state: &State| {
                state.timers[1].fired == 1 && state.timers[0].is_cancelled
            }),
            Property::sometimes(
                "a host has in hand what was cancelled",
                |_, state: &State| {
                    let has = |hand: &Hand| matches!(*hand, Hand::Handled { timer, .. } if state.timers[timer].is_cancelled);
                    state.hands.iter().any(has)
                },
            ),
            Property::sometimes("a redriven timer fires", |_, state: &State| {
                state
                    .timers
                    .iter()
                    .any(|timer| timer.is_redriven && timer.fired == 1)
            }),
            Property::sometimes("a redriven timer is stale", |_, state: &State| {
                let is_stale =
                    |timer: &Armed| timer.is_redriven && timer.row == Row::Gone && timer.fired == 0;
                state.timers.iter().any(is_stale)
            }),
        ]
    }
}
