//! One row for a broker, followed through the model from its unit to the endpoint that takes it.

use super::model::Publishing;
use super::state::{Action, HANDS, Hand, Row, State};
use crate::fault::Faults;
use crate::follow::Follower;
use crate::hands::{Hands, Held};

/// The row that is followed; the other one is never written.
const M: usize = 0;
/// The host whose handler made it.
const BORN: usize = 0;

/// How a call that writes the row ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Written {
    /// It is written, and the answer came: it goes on from memory, or waits to be claimed.
    Heard(Option<Held>),
    /// It is written, and the answer was lost. Born leased, or available.
    Unheard(bool),
    /// The call was made again, and it, or another unit of the same message, had been made.
    Again,
    /// Nobody knows, and it was not written.
    Unmade,
}

/// What the broker did with a publication.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Published {
    /// It took it, and confirmed.
    Confirmed,
    /// It took it, and the confirm was lost.
    Unheard,
    /// It did not take it.
    Refused,
}

/// What was seen of a row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OfRow {
    /// Its unit was with the store. `Action::Commit` and those beside it.
    Written(Written),
    /// It was claimed under this epoch. `Action::Claim`.
    Claimed(Held, i32),
    /// One of these had it published. `Action::Publish` and those beside it.
    Published(Vec<Held>, Published),
    /// A relay gave it back unpublished. `Action::Refuse`.
    GivenBack(Held),
    /// It was deleted. `Action::Delete`.
    Deleted(Held),
    /// It is not in these hands any more. `Action::Kill`, of these hands alone.
    LetGo(Held),
    /// The first endpoint that takes it has taken it. `Action::Deliver`.
    Delivered,
}

/// One row for a broker.
#[derive(Debug)]
pub struct Outgoing {
    follower: Follower<Publishing>,
    hands: Hands,
    /// Whose settles have deleted it; each is made again where its answer was lost.
    deleted_by: Vec<Held>,
}

impl Default for Outgoing {
    fn default() -> Self {
        let model = Publishing {
            mutant: None,
            is_followed: true,
        };
        let state = State::new(Faults::ANY);
        Self {
            follower: Follower::new(model, state),
            hands: Hands::new(HANDS),
            deleted_by: Vec::new(),
        }
    }
}

impl Outgoing {
    /// Takes the step that was seen.
    ///
    /// # Errors
    /// What the model does not allow.
    pub fn see(&mut self, seen: &OfRow) -> Result<(), String> {
        match seen {
            OfRow::Written(written) => self.written(*written),
            OfRow::Claimed(held, epoch) => self.claimed(*held, *epoch),
            OfRow::Published(held, how) => self.published(held, *how),
            OfRow::GivenBack(held) => match self.hands.free(*held) {
                // Where the broker did not take it, the model has given it back.
                Some(slot) => self.follower.seen_or(
                    |state| state.hands[slot][M] == Hand::Empty,
                    |_, action| action == Action::Refuse(slot, M),
                ),
                None => Ok(()),
            },
            OfRow::Deleted(held) => self.deleted(*held),
            OfRow::LetGo(held) => match self.hands.free(*held) {
                Some(slot) => self.step(Action::Kill(slot)),
                None => Ok(()),
            },
            OfRow::Delivered => self.follower.seen_to_end(
                |_, action| matches!(action, Action::Deliver(M, _)),
                |before, _, after| after.effects[M] > before.effects[M],
            ),
        }
    }

    /// Says whether it is not known any more where the row is.
    pub fn is_lost(&self) -> bool {
        self.follower.is_lost()
    }

    /// Says whether the row may be gone, and its message where it belongs.
    pub fn may_be_done(&self) -> bool {
        self.follower
            .may_be(|state| state.effects[M] == 1 && state.rows[M] == Row::Gone)
    }

    fn step(&mut self, wanted: Action) -> Result<(), String> {
        self.follower.seen(|_, action| action == wanted)
    }

    fn written(&mut self, written: Written) -> Result<(), String> {
        // Not made, and somebody else has handled its message since: it never will be.
        let is_nobodys = !self.follower.may_be(|state| state.is_committed[M]);
        if written == Written::Again && is_nobodys {
            return Ok(());
        }
        self.follower
            .unseen(|_, action| action == Action::Handle(BORN, M));
        let held = match written {
            Written::Heard(held) => held,
            _ => None,
        };
        if let Some(held) = held
            && self.hands.take(held, BORN)? != BORN
        {
            return Err("written while somebody has it in hand".to_owned());
        }
        let is_seen = |before: &State, action| match (written, action) {
            (Written::Heard(Some(_)), Action::Commit(M) | Action::Resubmit(M, true))
            | (Written::Heard(None), Action::CommitAvailable(M) | Action::Resubmit(M, false)) => {
                true
            }
            (Written::Unheard(is_leased), Action::CommitUnheard(M, it)) => it == is_leased,
            (Written::Again, Action::Resubmit(M, _) | Action::CommitUnheard(M, _)) => {
                before.is_committed[M]
            }
            (Written::Unmade, Action::CommitUnmade(M)) => true,
            _ => false,
        };
        let is_end = |before: &State, _, after: &State| match written {
            Written::Heard(_) | Written::Unheard(_) => {
                after.is_committed[M] && !before.is_committed[M]
            }
            Written::Again | Written::Unmade => true,
        };
        self.follower.seen_to_end(is_seen, is_end)
    }

    fn claimed(&mut self, held: Held, epoch: i32) -> Result<(), String> {
        // The first pair is of the host whose unit wrote it, and may have to write it again.
        let slot = self.hands.take(held, BORN + 1)?;
        self.follower
            .unseen(|_, action| action == Action::EndLease(M));
        let is_it = |now: u8| i32::from(now) == epoch;
        self.follower.seen_to_end(
            |_, action| action == Action::Claim(slot, M),
            |_, _, after| matches!(after.rows[M], Row::There { epoch, .. } if is_it(epoch)),
        )
    }

    fn published(&mut self, held: &[Held], how: Published) -> Result<(), String> {
        let slots = self.hands.of(held);
        self.follower.seen(|_, action| match (how, action) {
            (Published::Confirmed, Action::Publish(host, M))
            | (Published::Unheard, Action::PublishUnheard(host, M))
            | (Published::Refused, Action::Refuse(host, M)) => slots.contains(&host),
            _ => false,
        })?;
        // The model gives it back at once, the relay by a settle that follows.
        if how != Published::Confirmed {
            self.free_emptied(held);
        }
        Ok(())
    }

    fn free_emptied(&mut self, held: &[Held]) {
        for one in held {
            let slots = self.hands.of(&[*one]);
            let is_full = |state: &State| {
                slots
                    .iter()
                    .any(|slot| state.hands[*slot][M] != Hand::Empty)
            };
            if !self.follower.may_be(is_full) {
                self.hands.free(*one);
            }
        }
    }

    fn deleted(&mut self, held: Held) -> Result<(), String> {
        if self.deleted_by.contains(&held) {
            return Ok(());
        }
        let Some(slot) = self.hands.free(held) else {
            return Err("deleted by who does not have it".to_owned());
        };
        self.deleted_by.push(held);
        self.step(Action::Delete(slot, M))
    }
}
