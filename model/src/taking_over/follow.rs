//! One message at one endpoint, followed through the model.

use super::model::TakingOver;
use super::state::{Action, Answer, FAILURES_MAX, HANDS, Hand, MESSAGES, OURS, Row, State, Work};
use crate::fault::Faults;
use crate::follow::Follower;
use crate::hands::{Hands, Held};

/// The message that is followed; the other one is done.
const M: usize = 1;
const MASK: u8 = 1 << M;

/// What a unit writes for the message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wrote {
    /// Its effect, on an instance of which this version was expected, if on one.
    Effect(Option<i64>),
    /// The message as a row of its own, which has failed so often.
    TakenOver(u8),
    /// Its row, for later, with so many failures where they are told.
    Released(Option<u8>),
    /// A dead letter.
    Dead,
}

/// What the store decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decided {
    /// It is written.
    Committed,
    /// It had been.
    Duplicate,
    /// Somebody was faster.
    Conflict,
}

/// How a call of the store ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call {
    /// The store decided, and its answer came.
    Heard(Decided),
    /// The store decided, and its answer was lost.
    Unheard(Decided),
    /// The store never saw it, and nobody knows.
    Unmade,
    /// The store will carry it out, and nobody knows.
    Later,
}

/// What was seen of a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OfMessage {
    /// The broker handed it over. `Action::Receive`.
    Received(Held),
    /// Its row was claimed, under this epoch and with so many failures. `Action::Claim`.
    Claimed(Held, i32, i32),
    /// A call with a unit or settle of it. One of these holds it; it was alone in its unit, or not.
    Called(Vec<Held>, Wrote, Call, bool),
    /// The store carried out a call whose client is gone. It was alone in its unit, or not.
    /// `Action::CommitLate`.
    Landed(Wrote, Decided, bool),
    /// It was acked, and the broker heard so or not. `Action::Ack`, `Action::LoseAck`.
    Acked(Held, bool),
    /// Its process let go of it: its unit may be with the committer. `Action::Kill`, of these
    /// hands alone.
    LetGo(Held),
    /// Its process is gone, and everything of it. The same.
    Died(Held),
    /// Its instance was moved by others, so many times. `Action::MoveInstance`.
    Moved(i64),
}

/// One message at one endpoint.
#[derive(Debug)]
pub struct Message {
    follower: Follower<TakingOver>,
    hands: Hands,
}

impl Message {
    /// Starts with a message that a broker brings, or one that a unit wrote as a row; its instance
    /// has been moved so often.
    pub fn new(is_row: bool, version: i64) -> Self {
        let model = TakingOver {
            mutant: None,
            is_followed: true,
        };
        let row = Row {
            epoch: 0,
            is_leased: false,
            failures: 0,
        };
        let mut state = State::new([0; MESSAGES], Faults::ANY);
        state.effects[0] = 1;
        state.instances[0].data = OURS;
        state.rows[M] = is_row.then_some(row);
        state.ready[M] = u8::from(!is_row);
        state.instances[M].version = small(version);
        Self {
            follower: Follower::new(model, state),
            hands: Hands::new(HANDS),
        }
    }

    /// Takes the step that was seen.
    ///
    /// # Errors
    /// What the model does not allow.
    pub fn see(&mut self, seen: &OfMessage) -> Result<(), String> {
        match seen {
            OfMessage::Received(held) => self.received(*held),
            OfMessage::Claimed(held, epoch, failures) => self.claimed(*held, *epoch, *failures),
            OfMessage::Called(held, wrote, call, is_alone) => {
                self.called(held, *wrote, *call, *is_alone)
            }
            // Who was merged lost with others, for which nothing is known here.
            OfMessage::Landed(_, Decided::Conflict, false) => Ok(()),
            OfMessage::Landed(wrote, decided, _) => self.landed(*wrote, *decided),
            OfMessage::Acked(held, is_heard) => self.acked(*held, *is_heard),
            OfMessage::LetGo(held) => self.let_go(*held, true),
            OfMessage::Died(held) => self.let_go(*held, false),
            OfMessage::Moved(times) => {
                self.unseen_runs();
                (0..*times).try_for_each(|_| {
                    self.follower
                        .seen(|_, action| action == Action::MoveInstance(M))
                })
            }
        }
    }

    /// Says whether too many copies of it were in hand at once to know where it is.
    pub fn is_lost(&self) -> bool {
        self.follower.is_lost()
    }

    /// Says whether the message may have come to exactly one end.
    pub fn may_be_done(&self) -> bool {
        self.follower
            .may_be(|state| state.effects[M] + state.dead[M] == 1 && state.rows[M].is_none())
    }

    fn received(&mut self, held: Held) -> Result<(), String> {
        let slot = self.hands.take(held, 0)?;
        // What was lost with a connection or a process comes again, and so does a copy.
        self.follower
            .unseen(|state, action| state.ready[M] == 0 && action == Action::Redeliver(M));
        self.follower
            .seen(|_, action| action == Action::Receive(slot, M))
    }

    fn claimed(&mut self, held: Held, epoch: i32, failures: i32) -> Result<(), String> {
        let slot = self.hands.take(held, 0)?;
        self.follower
            .unseen(|_, action| action == Action::EndLease(M));
        let (epoch, failures) = (small(epoch), small(failures));
        let is_it = |row: Row| row.epoch == epoch && row.failures == failures;
        self.follower.seen_to_end(
            |_, action| action == Action::Claim(slot, M),
            |_, _, after| after.rows[M].is_some_and(is_it),
        )
    }

    fn called(
        &mut self,
        held: &[Held],
        wrote: Wrote,
        call: Call,
        is_alone: bool,
    ) -> Result<(), String> {
        let slots = self.hands.of(held);
        if slots.is_empty() {
            return self.called_for_nobody(wrote, call);
        }
        self.unseen_runs();
        self.unseen_ends(&slots);
        // Who was merged and lost tries for itself.
        let tries_alone = |action| match (action, call) {
            (Action::TryAgain(host, M), Call::Heard(Decided::Conflict))
            | (Action::CommitUnmade(host, MASK), Call::Unheard(Decided::Conflict))
                if !is_alone =>
            {
                slots.contains(&host)
            }
            _ => false,
        };
        let is_seen = |before: &State, action| {
            let is_it = |host: usize| match before.hands[host][M] {
                Hand::Waiting(_, work) | Hand::Doubt(_, work) => is_work(work, wrote),
                _ => false,
            };
            let host = committing(action, call);
            tries_alone(action) || host.is_some_and(|host| slots.contains(&host) && is_it(host))
        };
        let is_end = |before: &State, action, after: &State| match (call, committing(action, call))
        {
            (Call::Heard(decided) | Call::Unheard(decided), Some(host)) if !tries_alone(action) => {
                has_become(wrote, decided, before, after) && is_told(call, after.hands[host][M])
            }
            _ => true,
        };
        self.follower.seen_to_end(is_seen, is_end)?;
        if let (Call::Heard(Decided::Committed | Decided::Duplicate), [one]) = (call, held) {
            self.free_emptied(*one);
        }
        Ok(())
    }

    /// The committer goes on with a call whose message was let go of.
    fn called_for_nobody(&mut self, wrote: Wrote, call: Call) -> Result<(), String> {
        let (Call::Heard(decided) | Call::Unheard(decided)) = call else {
            return Ok(());
        };
        match decided {
            Decided::Committed => self.landed(wrote, decided),
            // Nobody is told, and nothing is written.
            Decided::Duplicate | Decided::Conflict => Ok(()),
        }
    }

    fn landed(&mut self, wrote: Wrote, decided: Decided) -> Result<(), String> {
        self.unseen_runs();
        let is_seen = |before: &State, action| {
            let Action::CommitLate(which) = action else {
                return false;
            };
            let unit = before.late[which].and_then(|group| group[M]);
            unit.is_some_and(|(_, work)| is_work(work, wrote))
        };
        self.follower.seen_to_end(is_seen, |before, _, after| {
            has_become(wrote, decided, before, after)
        })
    }

    /// A row is gone with its unit or settle: nothing is in hand any more.
    fn free_emptied(&mut self, held: Held) {
        let slots = self.hands.of(&[held]);
        let is_full = |state: &State| {
            slots
                .iter()
                .any(|slot| state.hands[*slot][M] != Hand::Empty)
        };
        if !self.follower.may_be(is_full) {
            self.hands.free(held);
        }
    }

    fn acked(&mut self, held: Held, is_heard: bool) -> Result<(), String> {
        self.unseen_runs();
        let Some(slot) = self.hands.free(held) else {
            return Err("acked by who does not have it".to_owned());
        };
        let wanted = match is_heard {
            true => Action::Ack(slot, M),
            false => Action::LoseAck(slot, M),
        };
        self.follower.seen(|_, action| action == wanted)
    }

    fn let_go(&mut self, held: Held, goes_on: bool) -> Result<(), String> {
        let Some(slot) = self.hands.free(held) else {
            return Ok(());
        };
        let is_held = |state: &State| state.hands[slot][M] != Hand::Empty;
        if !self.follower.may_be(is_held) {
            return Ok(());
        }
        if goes_on {
            // Nothing cuts the committer off.
            self.unseen_runs();
            self.unseen_ends(&[slot]);
            self.follower
                .unseen(|_, action| action == Action::CommitLater(slot, MASK));
        }
        self.follower.seen(|_, action| action == Action::Kill(slot))
    }

    /// What follows a load: handled, failed or put back, and all of it with the committer.
    fn unseen_ends(&mut self, slots: &[usize]) {
        self.follower.unseen(|_, action| match action {
            Action::Handle(host, M)
            | Action::Fail(host, M)
            | Action::GiveUp(host, M)
            | Action::PutBack(host, M)
            | Action::TryAgain(host, M) => slots.contains(&host),
            _ => false,
        });
    }

    /// Loads, and the tries that ended without a word: they read what is about to change.
    fn unseen_runs(&mut self) {
        self.follower
            .unseen(|_, action| matches!(action, Action::Load(_, M) | Action::TryAgain(_, M)));
    }
}

/// Numbers of a run are far below this; what is not is like nothing that the model has.
fn small(number: impl TryInto<u8>) -> u8 {
    number.try_into().unwrap_or(u8::MAX)
}

fn is_work(work: Work, wrote: Wrote) -> bool {
    match (work, wrote) {
        (Work::Apply { expected, .. }, Wrote::Effect(seen)) => {
            seen.is_none_or(|seen| small(seen) == expected)
        }
        (Work::TakeOver { failures }, Wrote::TakenOver(seen)) => failures == seen,
        (Work::Release { failures }, Wrote::Released(seen)) => {
            seen.is_none_or(|seen| failures == seen.min(FAILURES_MAX))
        }
        (Work::GiveUp, Wrote::Dead) => true,
        _ => false,
    }
}

/// Names the host whose call it is, where a call may end so.
fn committing(action: Action, call: Call) -> Option<usize> {
    match (action, call) {
        (Action::Commit(host, MASK), Call::Heard(_))
        | (Action::CommitUnheard(host, MASK), Call::Unheard(_))
        | (Action::CommitUnmade(host, MASK), Call::Unmade)
        | (Action::CommitLater(host, MASK), Call::Later) => Some(host),
        _ => None,
    }
}

/// Says whether a call did to the message what the store decided.
fn has_become(wrote: Wrote, decided: Decided, before: &State, after: &State) -> bool {
    let has_effect = after.effects[M] > before.effects[M];
    let is_dead = after.dead[M] > before.dead[M];
    let is_row = after.rows[M].is_some() && before.rows[M].is_none();
    match (decided, wrote) {
        (Decided::Committed, Wrote::Effect(_)) => has_effect,
        (Decided::Committed, Wrote::TakenOver(_)) => is_row,
        (Decided::Committed, Wrote::Dead) => is_dead,
        // A settle is not answered for.
        (_, Wrote::Released(_)) => true,
        (Decided::Duplicate | Decided::Conflict, _) => !has_effect && !is_dead && !is_row,
    }
}

/// Says whether who called was told what was heard.
fn is_told(call: Call, hand: Hand) -> bool {
    match call {
        Call::Heard(Decided::Conflict) => matches!(hand, Hand::Lost(_)),
        Call::Heard(Decided::Committed) => {
            matches!(hand, Hand::Done(Answer::Committed) | Hand::Empty)
        }
        Call::Heard(Decided::Duplicate) => {
            matches!(hand, Hand::Done(Answer::Duplicate) | Hand::Empty)
        }
        _ => true,
    }
}
