//! The steps that may follow a state, and what must hold in each.

use stateright::{Model, Property};

use super::state::{Action, Behind, HOSTS, Host, Mutant, ROWS, Row, State, When, Writer};
use crate::check::Design;
use crate::fault::Faults;

const IN_ORDER: &str = "order: no row is in hand while one that it comes after is there";
const HEAD_MOVES: &str = "I-7 the head of a line is never left deferred";

/// The model.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ordered {
    pub(crate) mutant: Option<Mutant>,
}

impl Design for Ordered {
    const NAME: &'static str = "order per key";
    type Mutant = Mutant;
    const MUTANTS: &'static [(Mutant, &'static str)] = &[
        (Mutant::ClaimOutOfOrder, IN_ORDER),
        (Mutant::BornLeasedBehindOthers, IN_ORDER),
        (Mutant::FollowerDeferredForEver, HEAD_MOVES),
        (Mutant::DeferredWithoutLock, HEAD_MOVES),
        (Mutant::DeferredBehindWhatGoes, HEAD_MOVES),
        (Mutant::OnlyTheOldestIsPulled, HEAD_MOVES),
    ];

    fn build(mutant: Option<Mutant>) -> Self {
        Self { mutant }
    }
}

impl Ordered {
    fn push_writer(&self, actions: &mut Vec<Action>, state: &State, row: usize) {
        match state.writers[row] {
            Writer::Idle => actions.push(Action::LookBefore(row)),
            // Ids are given in the order of inserts.
            Writer::Looked(_) => {
                let is_next = (0..row).all(|older| {
                    matches!(
                        state.writers[older],
                        Writer::Inserted(_) | Writer::Committed
                    )
                });
                if is_next {
                    actions.push(Action::Insert(row));
                }
            }
            Writer::Inserted(_) => {
                actions.push(Action::CommitRow(row));
                if self.may_be_born_leased(state, row) {
                    let idle = (0..HOSTS).filter(|host| state.hosts[*host] == Host::Idle);
                    actions.extend(idle.map(|host| Action::CommitRowLeased(row, host)));
                }
            }
            Writer::Committed => {}
        }
    }

    fn push_host(&self, actions: &mut Vec<Action>, state: &State, host: usize) {
        match state.hosts[host] {
            Host::Idle => {
                let is_free = |row: &usize| {
                    let is_now = matches!(
                        state.rows[*row],
                        Row::There {
                            when: When::Now,
                            ..
                        }
                    );
                    is_now && !state.is_locked(*row)
                };
                let free = (0..ROWS).filter(is_free);
                actions.extend(free.map(|row| Action::LockForClaim(host, row)));
            }
            Host::Locked(_) => actions.push(Action::LookForOlder(host)),
            Host::Looked { .. } => actions.push(Action::EndClaim(host)),
            Host::Holding { row, .. } => {
                if self.may_delete(state, row) {
                    actions.push(Action::Delete(host));
                }
                if state.faults.any() && !state.is_locked(row) {
                    actions.push(Action::Release(host));
                }
            }
            Host::Deleted(_) => actions.push(Action::Pull(host)),
            Host::Pulled { .. } => actions.push(Action::CommitSettle(host)),
        }
        if state.faults.any() && state.hosts[host] != Host::Idle {
            actions.push(Action::Kill(host));
        }
    }
}

impl Model for Ordered {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        vec![State {
            rows: [Row::Unseen; ROWS],
            writers: [Writer::Idle; ROWS],
            before: [[false; ROWS]; ROWS],
            hosts: [Host::Idle; HOSTS],
            faults: Faults(2),
        }]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        for row in 0..ROWS {
            self.push_writer(actions, state, row);
            match state.rows[row] {
                Row::There {
                    when: When::Soon, ..
                } => actions.push(Action::ComeBack(row)),
                Row::There {
                    when: When::Leased, ..
                } if state.faults.any() && !state.is_locked(row) => {
                    actions.push(Action::EndLease(row));
                }
                _ => {}
            }
        }
        for host in 0..HOSTS {
            self.push_host(actions, state, host);
        }
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        let mut state = last.clone();
        let set_when = |state: &mut State, row: usize, to: When| {
            if let Row::There { when, .. } = &mut state.rows[row] {
                *when = to;
            }
        };
        match action {
            Action::LookBefore(row) => self.look_before(&mut state, row),
            Action::Insert(row) => {
                if let Writer::Looked(behind) = state.writers[row] {
                    state.writers[row] = Writer::Inserted(behind);
                }
            }
            Action::CommitRow(row) => self.commit_row(&mut state, row),
            Action::CommitRowLeased(row, host) => {
                self.commit_row(&mut state, row);
                let when = When::Leased;
                state.rows[row] = Row::There { when, epoch: 1 };
                state.hosts[host] = Host::Holding { row, epoch: 1 };
            }
            Action::LockForClaim(host, row) => state.hosts[host] = Host::Locked(row),
            Action::LookForOlder(host) => self.look_for_older(&mut state, host),
            Action::EndClaim(host) => self.end_claim(&mut state, host),
            Action::Delete(host) => Self::delete(&mut state, host),
            Action::Pull(host) => self.pull(&mut state, host)?,
            Action::CommitSettle(host) => Self::commit_settle(&mut state, host),
            Action::Release(host) => {
                state.faults.strike();
                Self::release(&mut state, host);
            }
            Action::ComeBack(row) => set_when(&mut state, row, When::Now),
            Action::EndLease(row) => {
                state.faults.strike();
                set_when(&mut state, row, When::Now);
            }
            Action::Kill(host) => {
                state.faults.strike();
                state.hosts[host] = Host::Idle;
            }
        }
        Some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always(IN_ORDER, |_, state: &State| Self::keeps_order(state)),
            Property::always(HEAD_MOVES, |_, state: &State| {
                let head = (0..ROWS).find(|row| state.is_seen(*row));
                let is_far = |row: usize| {
                    matches!(
                        state.rows[row],
                        Row::There {
                            when: When::Far,
                            ..
                        }
                    )
                };
                state.is_any_open() || !head.is_some_and(is_far)
            }),
            Property::sometimes("all rows are gone", |_, state: &State| {
                state.rows == [Row::Gone; ROWS]
            }),
            Property::sometimes("two followers wait to be pulled", |_, state: &State| {
                let is_far = |row: &&Row| {
                    matches!(
                        row,
                        Row::There {
                            when: When::Far,
                            ..
                        }
                    )
                };
                state.rows.iter().filter(is_far).count() == 2
            }),
            Property::sometimes("a follower is pulled", |_, state: &State| {
                let pulls = |host: &Host| matches!(host, Host::Pulled { next: Some(_), .. });
                state.hosts.iter().any(pulls)
            }),
            Property::sometimes("a claim finds a row held back", |_, state: &State| {
                let finds = |host: &Host| {
                    matches!(
                        host,
                        Host::Looked {
                            behind: Behind::Held(_),
                            ..
                        }
                    )
                };
                state.hosts.iter().any(finds)
            }),
            Property::sometimes("two hosts hold one row", |_, state: &State| {
                let row = |host: usize| match state.hosts[host] {
                    Host::Holding { row, .. } => Some(row),
                    _ => None,
                };
                row(0).is_some() && row(0) == row(1)
            }),
        ]
    }
}
