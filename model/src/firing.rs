//! What recurs: two hosts that declare one schedule, an operator, and commits whose answer is lost.

use stateright::{Model, Property};

use crate::check::Design;
use crate::fault::Faults;

const HOSTS: usize = 2;
/// Times at which it recurs: 1, 2 and so on. Missed ones are all made up for.
const TIMES: usize = 3;

/// What may be wrong with the design.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mutant {
    /// The schedule moves whatever its version is.
    NoVersion,
    /// The schedule moves in one commit, its messages are written in the next one.
    MessagesApart,
    /// A host decides by its own clock, which is ahead.
    OwnClock,
    /// A commit in doubt is made again whatever became of the first one.
    DoubtIsBlind,
    /// An operator's pause leaves the version as it is.
    PauseWithoutVersion,
    /// What passed while it was paused counts as missed.
    PauseIsMissed,
}

/// How the schedule stands: `ScheduleState`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Mark {
    Waiting,
    Paused,
    Resumed,
    Asked,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Row {
    version: u8,
    mark: Mark,
    /// The next time; beyond the last one it never is.
    next: u8,
}

/// What a host holds between its look and the answer to its commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Turn {
    read: Row,
    clock: u8,
    /// The answer was lost: whether it is written is not known.
    is_in_doubt: bool,
    /// The schedule has moved; the messages are not written (a defect).
    is_half: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct State {
    now: u8,
    row: Row,
    hosts: [Option<Turn>; HOSTS],
    fired: [u8; TIMES],
    /// Times that passed while it was paused.
    passed: [bool; TIMES],
    asked: u8,
    answered: u8,
    was_early: bool,
    fired_in_pause: bool,
    operations: u8,
    faults: Faults,
}

/// One step. The name behind each is the function that it stands for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Action {
    /// Time passes, by the database's clock.
    Tick,
    /// `recurring.rs`, `Scheduler::look`: reads the row and the clock.
    Look(usize),
    /// `Scheduler::fire`, `sagabus.commit_v1`: moves by version, with its messages.
    Commit(usize),
    /// It is written, and the answer is lost.
    CommitUnheard(usize),
    /// It is not written, and the answer is lost.
    CommitUnmade(usize),
    /// `committer.rs`: the same values again.
    CommitAgain(usize),
    /// The second half of a commit that should be one.
    WriteMessages(usize),
    /// The process dies.
    Crash(usize),
    /// `StoreAdmin::change` with `ScheduleVerb::Pause`.
    Pause,
    /// With `ScheduleVerb::Resume`.
    Resume,
    /// With `ScheduleVerb::Fire`.
    Ask,
}

/// The model.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Firing {
    mutant: Option<Mutant>,
}

const ONCE: &str = "I-6 each time is fired at most once, by whichever host";
const ALL: &str = "I-3 each time that came while it was not paused is fired";
const EARLY: &str = "I-11 nothing is fired before its time by the database's clock";
const PAUSED: &str = "nothing is fired after a pause is committed, but what is asked for";
const LEFT_OUT: &str = "what passed while it was paused is left out";

impl Design for Firing {
    const NAME: &'static str = "firing";
    type Mutant = Mutant;
    const MUTANTS: &'static [(Mutant, &'static str)] = &[
        (Mutant::NoVersion, ONCE),
        (Mutant::MessagesApart, ALL),
        (Mutant::OwnClock, EARLY),
        (Mutant::DoubtIsBlind, ONCE),
        (Mutant::PauseWithoutVersion, PAUSED),
        (Mutant::PauseIsMissed, LEFT_OUT),
    ];

    fn build(mutant: Option<Mutant>) -> Self {
        Self { mutant }
    }
}

impl Turn {
    /// `Schedule::decide`: which times are fired, and how the row stands then; `None`: nothing.
    fn decide(&self) -> Option<(std::ops::Range<u8>, bool, Row)> {
        let Row {
            version,
            mark,
            next,
        } = self.read;
        let (fires, asked, next) = match mark {
            Mark::Paused => return None,
            Mark::Resumed => (0..0, false, self.clock + 1),
            Mark::Asked => (0..0, true, next),
            Mark::Waiting if next > self.clock => return None,
            Mark::Waiting => (next..self.clock + 1, false, self.clock + 1),
        };
        let mark = Mark::Waiting;
        let version = version + 1;
        Some((
            fires,
            asked,
            Row {
                version,
                mark,
                next,
            },
        ))
    }
}

impl Firing {
    fn is(&self, mutant: Mutant) -> bool {
        self.mutant == Some(mutant)
    }

    /// Writes a host's turn where the version is the one that it read.
    fn write(&self, state: &mut State, host: usize) {
        let Some(turn) = state.hosts[host] else {
            return;
        };
        let is_blind =
            self.is(Mutant::NoVersion) || self.is(Mutant::DoubtIsBlind) && turn.is_in_doubt;
        if state.row.version != turn.read.version && !is_blind {
            return;
        }
        let Some((_, _, row)) = turn.decide() else {
            return;
        };
        let was_paused = state.row.mark == Mark::Paused;
        state.row = Row {
            version: state.row.version + 1,
            ..row
        };
        if self.is(Mutant::MessagesApart) {
            state.hosts[host] = Some(Turn {
                is_half: true,
                ..turn
            });
            return;
        }
        Self::send(state, turn, was_paused);
    }

    fn send(state: &mut State, turn: Turn, was_paused: bool) {
        let Some((fires, asked, _)) = turn.decide() else {
            return;
        };
        state.answered += u8::from(asked);
        for time in fires {
            state.was_early |= time > state.now;
            state.fired_in_pause |= was_paused;
            if let Some(fired) = state.fired.get_mut(usize::from(time) - 1) {
                *fired += 1;
            }
        }
    }

    fn operate(&self, state: &mut State, mark: Mark) {
        state.operations -= 1;
        state.row.mark = mark;
        let is_silent = mark == Mark::Paused && self.is(Mutant::PauseWithoutVersion);
        state.row.version += u8::from(!is_silent);
    }

    fn push_host(&self, actions: &mut Vec<Action>, state: &State, host: usize) {
        let Some(turn) = &state.hosts[host] else {
            actions.push(Action::Look(host));
            return;
        };
        if state.faults.any() {
            actions.push(Action::Crash(host));
        }
        if turn.is_half {
            actions.push(Action::WriteMessages(host));
        } else if turn.is_in_doubt {
            actions.push(Action::CommitAgain(host));
        } else {
            actions.push(Action::Commit(host));
            if state.faults.any() {
                actions.extend([Action::CommitUnheard(host), Action::CommitUnmade(host)]);
            }
        }
    }

    /// Keeps a turn whose commit was not answered.
    fn doubt(state: &mut State, host: usize) {
        state.faults.strike();
        if let Some(turn) = &mut state.hosts[host] {
            turn.is_in_doubt = true;
        }
    }

    fn is_at_rest(state: &State) -> bool {
        usize::from(state.now) >= TIMES
            && state.hosts.iter().all(Option::is_none)
            && state.row.mark == Mark::Waiting
            && state.row.next > state.now
    }
}

impl Model for Firing {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        vec![State {
            now: 0,
            row: Row {
                version: 1,
                mark: Mark::Waiting,
                next: 1,
            },
            hosts: [None; HOSTS],
            fired: [0; TIMES],
            passed: [false; TIMES],
            asked: 0,
            answered: 0,
            was_early: false,
            fired_in_pause: false,
            operations: 3,
            faults: Faults(2),
        }]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        if usize::from(state.now) < TIMES {
            actions.push(Action::Tick);
        }
        for host in 0..HOSTS {
            self.push_host(actions, state, host);
        }
        if state.operations > 0 {
            match state.row.mark {
                Mark::Waiting => actions.extend([Action::Pause, Action::Ask]),
                Mark::Paused => actions.push(Action::Resume),
                Mark::Resumed | Mark::Asked => {}
            }
        }
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        let mut state = last.clone();
        match action {
            Action::Tick => {
                if state.row.mark == Mark::Paused {
                    state.passed[usize::from(state.now)] = true;
                }
                state.now += 1;
            }
            Action::Look(host) => {
                let turn = Turn {
                    read: state.row,
                    clock: state.now + u8::from(self.is(Mutant::OwnClock)),
                    is_in_doubt: false,
                    is_half: false,
                };
                turn.decide()?;
                state.hosts[host] = Some(turn);
            }
            Action::Commit(host) | Action::CommitAgain(host) => {
                self.write(&mut state, host);
                let is_half = state.hosts[host].is_some_and(|turn| turn.is_half);
                if !is_half {
                    state.hosts[host] = None;
                }
            }
            Action::CommitUnheard(host) => {
                self.write(&mut state, host);
                Self::doubt(&mut state, host);
            }
            Action::CommitUnmade(host) => Self::doubt(&mut state, host),
            Action::WriteMessages(host) => {
                if let Some(turn) = state.hosts[host].take() {
                    Self::send(&mut state, turn, false);
                }
            }
            Action::Crash(host) => {
                state.faults.strike();
                state.hosts[host] = None;
            }
            Action::Pause => self.operate(&mut state, Mark::Paused),
            Action::Resume if self.is(Mutant::PauseIsMissed) => {
                self.operate(&mut state, Mark::Waiting);
            }
            Action::Resume => self.operate(&mut state, Mark::Resumed),
            Action::Ask => {
                state.asked += 1;
                self.operate(&mut state, Mark::Asked);
            }
        }
        Some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always(ONCE, |_, state: &State| {
                state.fired.iter().all(|fired| *fired <= 1) && state.answered <= state.asked
            }),
            Property::always(ALL, |_, state: &State| {
                // It was paused or asked for by nobody: else a time may rightly be left out.
                let is_plain = state.operations == 3;
                let is_whole = state.fired.iter().all(|fired| *fired == 1);
                !Self::is_at_rest(state) || !is_plain || is_whole
            }),
            Property::always(EARLY, |_, state: &State| !state.was_early),
            Property::always(PAUSED, |_, state: &State| !state.fired_in_pause),
            Property::always(LEFT_OUT, |_, state: &State| {
                let mut times = state.fired.iter().zip(state.passed);
                times.all(|(fired, passed)| !passed || *fired == 0)
            }),
            Property::sometimes("missed times are made up for", |_, state: &State| {
                state.now == 3 && state.fired == [1, 1, 1] && state.operations == 3
            }),
            Property::sometimes("a host finds it moved by the other", |_, state: &State| {
                let is_late = |turn: &Turn| turn.read.version < state.row.version;
                state.fired[0] == 1 && state.hosts.iter().flatten().any(is_late)
            }),
            Property::sometimes("a commit in doubt was written", |_, state: &State| {
                let is_written =
                    |turn: &Turn| turn.is_in_doubt && turn.read.version < state.row.version;
                state.hosts.iter().flatten().any(is_written)
            }),
            Property::sometimes("it goes on after a pause", |_, state: &State| {
                state.passed[0] && state.fired[2] == 1
            }),
            Property::sometimes("what was asked for is fired", |_, state: &State| {
                state.answered == 1 && state.row.mark == Mark::Waiting
            }),
        ]
    }
}
