//! An outgoing row from its unit to the endpoint that takes it: born leased and gone on from
//! memory, or claimed by a relay; confirmed, returned or in doubt; recognised where it arrives.

use stateright::{Model, Property};

use crate::check::Design;
use crate::fault::Faults;

/// Rows, each written by a unit of its own, in the order of their ids.
const ROWS: usize = 2;
const HOSTS: usize = 2;

/// What may be wrong with the design.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mutant {
    /// A message leaves from inside its handler.
    PublishInHandler,
    /// A commit in doubt goes on from memory.
    PublishAfterDoubt,
    /// The row is deleted before it is published.
    DeleteFirst,
    /// A relay reads on from the last id that it saw.
    Watermark,
    /// A returned message counts as confirmed.
    UnroutableAsConfirmed,
    /// A publication in doubt counts as confirmed.
    DoubtAsConfirmed,
    /// Every publication gets an identity of its own.
    NewIdentity,
    /// The row is written in a transaction of its own, after the unit's.
    OutboxInItsOwnTransaction,
}

/// Where the transaction of a unit is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Unit {
    /// Its message is with the broker.
    Waiting,
    /// The handler has run in this host, the row has its id and is not visible.
    Open(usize),
    /// The answer to its commit was lost.
    Doubt(usize),
    /// Committed, and its row is yet to be written: only a mutant does so.
    Rowless(usize),
    Over,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Row {
    Absent,
    There { epoch: u8, is_leased: bool, of: u8 },
    Gone,
}

/// A row in a host's hands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Hand {
    Empty,
    Ready { epoch: u8, of: u8 },
    Confirmed { epoch: u8 },
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct State {
    units: [Unit; ROWS],
    /// Whether the unit's effect is committed.
    is_committed: [bool; ROWS],
    rows: [Row; ROWS],
    hands: [[Hand; ROWS]; HOSTS],
    /// Identities that the broker took, by which run of the handler made them. The last one is
    /// nobody's.
    taken: [[bool; HOSTS + 1]; ROWS],
    /// Copies that wait at the broker.
    queued: [[u8; HOSTS + 1]; ROWS],
    /// Identities in the inbox of the endpoint that takes them.
    inbox: [[bool; HOSTS + 1]; ROWS],
    effects: [u8; ROWS],
    /// Of a relay that goes by ids.
    seen_up_to: usize,
    faults: Faults,
}

/// One step. The name behind each is the function that it stands for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Action {
    /// `handling.rs`, `Case::attempt`.
    Handle(usize, usize),
    /// `committer.rs`: committed and seen; born leased, `Shared::hand_over`.
    Commit(usize),
    /// The same where the publisher has no room: born available.
    CommitAvailable(usize),
    /// Committed, and the answer is lost.
    CommitUnheard(usize),
    /// Not committed, and nobody knows.
    CommitUnmade(usize),
    /// `committer.rs`, `Shared::commit`: made again; the inbox row answers.
    Resubmit(usize),
    /// A mutant's second transaction.
    WriteRow(usize),
    /// `relay.rs`, `sagabus.claim_transport_v1`.
    Claim(usize, usize),
    /// `relay.rs`, `Relay::publish`: the broker takes it and confirms.
    Publish(usize, usize),
    /// The broker takes it, the confirm is lost.
    PublishUnheard(usize, usize),
    /// The broker refuses it, or nobody is there.
    Refuse(usize, usize),
    /// The broker returns it: there is no queue.
    Return(usize, usize),
    /// `relay.rs`, `Relay::settle`: `Settle::Delete`, under its epoch.
    Delete(usize, usize),
    /// A lease ends while its holder still goes on.
    EndLease(usize),
    /// A process is killed; its open transactions are rolled back and its messages come again.
    Kill(usize),
    /// The endpoint that takes the message commits its effect, or finds it in its inbox.
    Deliver(usize, usize),
}

/// The model.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Publishing {
    mutant: Option<Mutant>,
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
        Self { mutant }
    }
}

impl Publishing {
    fn is(&self, mutant: Mutant) -> bool {
        self.mutant == Some(mutant)
    }

    fn write(state: &mut State, m: usize, of: usize, is_leased: bool) {
        state.is_committed[m] = true;
        state.rows[m] = Row::There {
            epoch: u8::from(is_leased),
            is_leased,
            of: of as u8,
        };
    }

    fn commit(&self, state: &mut State, m: usize, is_leased: bool) {
        let Unit::Open(host) = state.units[m] else {
            return;
        };
        if self.is(Mutant::OutboxInItsOwnTransaction) {
            state.is_committed[m] = true;
            state.units[m] = Unit::Rowless(host);
            return;
        }
        Self::write(state, m, host, is_leased);
        state.units[m] = Unit::Over;
        if is_leased {
            let of = host as u8;
            state.hands[host][m] = Hand::Ready { epoch: 1, of };
        }
    }

    fn doubt(&self, state: &mut State, m: usize, was_made: bool) {
        let Unit::Open(host) = state.units[m] else {
            return;
        };
        if was_made {
            Self::write(state, m, host, true);
        }
        state.units[m] = Unit::Doubt(host);
        if self.is(Mutant::PublishAfterDoubt) {
            let of = host as u8;
            state.hands[host][m] = Hand::Ready { epoch: 1, of };
        }
    }

    fn take(state: &mut State, m: usize, of: usize) {
        state.taken[m][of] = true;
        state.queued[m][of] = (state.queued[m][of] + 1).min(2);
    }

    /// Lets the broker take what a host has ready.
    fn publish(&self, state: &mut State, host: usize, m: usize) {
        let Hand::Ready { epoch, of } = state.hands[host][m] else {
            return;
        };
        let again = state.taken[m][usize::from(of)];
        let of = if again && self.is(Mutant::NewIdentity) {
            HOSTS
        } else {
            usize::from(of)
        };
        Self::take(state, m, of);
        state.hands[host][m] = Hand::Confirmed { epoch };
    }

    /// Gives a row back: `Settle::Release`, under its epoch.
    fn release(state: &mut State, host: usize, m: usize) {
        let Hand::Ready { epoch, .. } = state.hands[host][m] else {
            return;
        };
        Self::let_go(&mut state.rows[m], epoch);
        state.hands[host][m] = Hand::Empty;
    }

    fn let_go(row: &mut Row, under: u8) {
        if let Row::There {
            epoch, is_leased, ..
        } = row
            && *epoch == under
        {
            *is_leased = false;
        }
    }

    fn delete(&self, state: &mut State, host: usize, m: usize) {
        let (epoch, next) = match state.hands[host][m] {
            Hand::Confirmed { epoch } => (epoch, Hand::Empty),
            Hand::Ready { epoch, of } => (epoch, Hand::Ready { epoch, of }),
            Hand::Empty => return,
        };
        if matches!(state.rows[m], Row::There { epoch: now, .. } if now == epoch) {
            state.rows[m] = Row::Gone;
        }
        state.hands[host][m] = next;
    }

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
                    actions.push(Action::CommitUnheard(m));
                    actions.push(Action::CommitUnmade(m));
                }
            }
            Unit::Doubt(_) => actions.push(Action::Resubmit(m)),
            Unit::Rowless(_) => actions.push(Action::WriteRow(m)),
            Unit::Over => {}
        }
    }

    fn kill(state: &mut State, host: usize) {
        state.hands[host] = [Hand::Empty; ROWS];
        for m in 0..ROWS {
            state.units[m] = match state.units[m] {
                Unit::Open(of) if of == host => Unit::Waiting,
                // It comes again, and the inbox row tells what became of it.
                Unit::Doubt(of) | Unit::Rowless(of) if of == host => {
                    if state.is_committed[m] {
                        Unit::Over
                    } else {
                        Unit::Waiting
                    }
                }
                other => other,
            };
        }
    }

    fn fault(&self, state: &mut State, action: Action) {
        match action {
            Action::CommitUnheard(m) => self.doubt(state, m, true),
            Action::CommitUnmade(m) => self.doubt(state, m, false),
            Action::PublishUnheard(host, m) => {
                let before = state.hands[host][m];
                self.publish(state, host, m);
                state.hands[host][m] = before;
                self.refused(state, host, m, Mutant::DoubtAsConfirmed);
            }
            Action::Refuse(host, m) => self.refused(state, host, m, Mutant::DoubtAsConfirmed),
            Action::Return(host, m) => self.refused(state, host, m, Mutant::UnroutableAsConfirmed),
            Action::EndLease(m) => {
                if let Row::There { is_leased, .. } = &mut state.rows[m] {
                    *is_leased = false;
                }
            }
            Action::Kill(host) => Self::kill(state, host),
            _ => {}
        }
    }

    /// Gives back what the broker did not take, or did not say that it took.
    fn refused(&self, state: &mut State, host: usize, m: usize, unless: Mutant) {
        match state.hands[host][m] {
            Hand::Ready { epoch, .. } if self.is(unless) => {
                state.hands[host][m] = Hand::Confirmed { epoch };
            }
            _ => Self::release(state, host, m),
        }
    }
}

impl Model for Publishing {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        vec![State {
            units: [Unit::Waiting; ROWS],
            is_committed: [false; ROWS],
            rows: [Row::Absent; ROWS],
            hands: [[Hand::Empty; ROWS]; HOSTS],
            taken: [[false; HOSTS + 1]; ROWS],
            queued: [[0; HOSTS + 1]; ROWS],
            inbox: [[false; HOSTS + 1]; ROWS],
            effects: [0; ROWS],
            seen_up_to: 0,
            faults: Faults(2),
        }]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        for m in 0..ROWS {
            Self::push_unit(actions, state, m);
            for host in 0..HOSTS {
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
            actions.extend((0..HOSTS).map(Action::Kill));
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
            Action::Resubmit(m) => {
                let Unit::Doubt(host) = state.units[m] else {
                    return None;
                };
                // `Duplicate` when it had been made: nothing goes on from memory.
                state.units[m] = Unit::Over;
                if !state.is_committed[m] {
                    state.units[m] = Unit::Open(host);
                    self.commit(&mut state, m, true);
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
