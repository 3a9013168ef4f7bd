//! What each step does.

use super::model::Publishing;
use super::state::{Action, HOSTS, Hand, Mutant, ROWS, Row, State, Unit};

impl Publishing {
    pub(crate) fn is(&self, mutant: Mutant) -> bool {
        self.mutant == Some(mutant)
    }

    pub(crate) fn write(state: &mut State, m: usize, of: usize, is_leased: bool) {
        state.is_committed[m] = true;
        state.rows[m] = Row::There {
            epoch: u8::from(is_leased),
            is_leased,
            of: of as u8,
        };
    }

    pub(crate) fn commit(&self, state: &mut State, m: usize, is_leased: bool) {
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

    pub(crate) fn doubt(&self, state: &mut State, m: usize, made: Option<bool>) {
        let (Unit::Open(host) | Unit::Doubt(host)) = state.units[m] else {
            return;
        };
        if let Some(is_leased) = made.filter(|_| !state.is_committed[m]) {
            Self::write(state, m, host, is_leased);
        }
        state.units[m] = Unit::Doubt(host);
        if self.is(Mutant::PublishAfterDoubt) {
            let of = host as u8;
            state.hands[host][m] = Hand::Ready { epoch: 1, of };
        }
    }

    pub(crate) fn take(state: &mut State, m: usize, of: usize) {
        state.taken[m][of] = true;
        state.queued[m][of] = (state.queued[m][of] + 1).min(2);
    }

    /// Lets the broker take what a host has ready.
    pub(crate) fn publish(&self, state: &mut State, host: usize, m: usize) {
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
    pub(crate) fn release(state: &mut State, host: usize, m: usize) {
        let Hand::Ready { epoch, .. } = state.hands[host][m] else {
            return;
        };
        Self::let_go(&mut state.rows[m], epoch);
        state.hands[host][m] = Hand::Empty;
    }

    pub(crate) fn let_go(row: &mut Row, under: u8) {
        if let Row::There {
            epoch, is_leased, ..
        } = row
            && *epoch == under
        {
            *is_leased = false;
        }
    }

    pub(crate) fn delete(&self, state: &mut State, host: usize, m: usize) {
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

    pub(crate) fn kill(state: &mut State, host: usize) {
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

    pub(crate) fn fault(&self, state: &mut State, action: Action) {
        match action {
            Action::CommitUnheard(m, is_leased) => self.doubt(state, m, Some(is_leased)),
            Action::CommitUnmade(m) => self.doubt(state, m, None),
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
    pub(crate) fn refused(&self, state: &mut State, host: usize, m: usize, unless: Mutant) {
        match state.hands[host][m] {
            Hand::Ready { epoch, .. } if self.is(unless) => {
                state.hands[host][m] = Hand::Confirmed { epoch };
            }
            _ => Self::release(state, host, m),
        }
    }
}
