//! What the model is made of: messages in hands, in the inbox and in rows.

use crate::fault::Faults;

/// Messages, each for an instance of its own. The first one's instance is also moved by somebody
/// else, so that its unit may lose; the second one's handler may fail.
pub(crate) const MESSAGES: usize = 2;
/// Hosts that an exploration has; a run that is followed has one for each pair of hands.
pub(crate) const HOSTS: usize = 2;
pub(crate) const HANDS: usize = 8;
/// Calls of one message that may be late at once in a run that is followed.
pub(crate) const LATE: usize = 6;
/// Failures after which a message is given up.
pub(crate) const FAILURES_MAX: u8 = 4;
/// What the unit of the message and what somebody else leaves in an instance.
pub(crate) const OURS: u8 = 1;
pub(crate) const THEIRS: u8 = 2;

/// What may be wrong with the design.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mutant {
    /// A delivery is acked when it is received.
    AckFirst,
    /// The inbox is read before the handler and not unique in the commit call.
    InboxNotUnique,
    /// The inbox row is written before the handler, in a transaction of its own.
    InboxInItsOwnTransaction,
    /// The inbox row of a unit that did not move its instance stays.
    LoserKeepsItsInboxRow,
    /// A commit in doubt is taken for a commit.
    DoubtIsSuccess,
    /// An instance is written without a look at its version.
    VersionNotChecked,
    /// A release is not conditional on the epoch.
    SettleWithoutEpoch,
    /// A failed delivery is copied for later without an inbox row.
    CopyWithoutTakingOver,
    /// A unit that answers a row does not look whether the row is there.
    SourceRowNotHeld,
    /// A message that is given up is deleted first and noted then.
    DeadLetterAfterDelete,
}

/// How a message is in a host's hands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Source {
    Delivery,
    /// Its own row, as it was claimed.
    Row {
        epoch: u8,
        failures: u8,
    },
}

/// What a unit writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Work {
    /// The effect and the instance, as computed from what was loaded.
    Apply { expected: u8, data: u8 },
    /// The message as a row for later.
    TakeOver { failures: u8 },
    /// Its row, for later once more: a settle.
    Release { failures: u8 },
    /// A dead letter.
    GiveUp,
    /// A dead letter whose row is gone already; only a mutant does so.
    NoteDeath,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Hand {
    Empty,
    Got(Source),
    Loaded(Source, Instance),
    /// With the committer.
    Waiting(Source, Work),
    /// The call was made and its answer lost: it will be made again with the same values.
    Doubt(Source, Work),
    /// Its unit lost: it is loaded and run again.
    Lost(Source),
    /// Done here; to be acked where it is a delivery.
    Done(Answer),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Answer {
    Committed,
    Duplicate,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Row {
    pub(crate) epoch: u8,
    pub(crate) is_leased: bool,
    pub(crate) failures: u8,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Instance {
    pub(crate) version: u8,
    /// Who left something in it.
    pub(crate) data: u8,
}

/// Units that share one commit call, by message.
pub(crate) type Group = [Option<(Source, Work)>; MESSAGES];

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct State {
    /// Copies that the broker has and nobody holds.
    pub(crate) ready: [u8; MESSAGES],
    pub(crate) hands: [[Hand; MESSAGES]; HANDS],
    pub(crate) inbox: [bool; MESSAGES],
    pub(crate) rows: [Option<Row>; MESSAGES],
    pub(crate) instances: [Instance; MESSAGES],
    pub(crate) effects: [u8; MESSAGES],
    pub(crate) dead: [u8; MESSAGES],
    pub(crate) is_acked: [bool; MESSAGES],
    /// The most failures that a row has ever had.
    pub(crate) recorded: [u8; MESSAGES],
    pub(crate) is_moved_by_others: [bool; MESSAGES],
    /// Calls that a server has in hand and whose client is gone. An exploration has one at a time.
    pub(crate) late: [Option<Group>; LATE],
    pub(crate) faults: Faults,
}

impl State {
    /// Nothing has happened; the broker has so many copies of each message.
    pub(crate) fn new(ready: [u8; MESSAGES], faults: Faults) -> Self {
        Self {
            ready,
            hands: [[Hand::Empty; MESSAGES]; HANDS],
            inbox: [false; MESSAGES],
            rows: [None; MESSAGES],
            instances: [Instance::default(); MESSAGES],
            effects: [0; MESSAGES],
            dead: [0; MESSAGES],
            is_acked: [false; MESSAGES],
            recorded: [0; MESSAGES],
            is_moved_by_others: [false; MESSAGES],
            late: [None; LATE],
            faults,
        }
    }
}

/// One step. The name behind each is the function that it stands for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Action {
    /// `receiver.rs`: a delivery comes in.
    Receive(usize, usize),
    /// `claimer.rs`, `sagabus.claim_v1`: the message's row is claimed, its epoch raised.
    Claim(usize, usize),
    /// `loader.rs`, `sagabus.load_v1`: is it known, which instance?
    Load(usize, usize),
    /// `handling.rs`, `Case::attempt`: the handler succeeds, its unit is with the committer.
    Handle(usize, usize),
    /// `retry.rs`, `Retry::decide`: the handler fails; what follows is with the committer.
    Fail(usize, usize),
    /// `handling.rs`, `Fate::Dead`: the message is given up at its first failure.
    GiveUp(usize, usize),
    /// `committer.rs`, `sagabus.commit_smooth_v1`, and where somebody loses `sagabus.commit_v1`: a
    /// group is committed and answered. A bit per message.
    Commit(usize, u8),
    /// `store.rs`, `StoreError::Unknown`: the server commits, the answer is lost.
    CommitUnheard(usize, u8),
    /// The server never sees the call, the client does not know.
    CommitUnmade(usize, u8),
    /// The server has the call in hand when its client gives up; or the committer, when the message
    /// is let go of (`lifecycle.rs`, `Lifecycle::spawn_uncut`).
    CommitLater(usize, u8),
    /// A server whose client is gone commits.
    CommitLate(usize),
    /// `settling.rs`, `Case::ack`.
    Ack(usize, usize),
    /// The ack never reaches the broker.
    LoseAck(usize, usize),
    /// A process is killed; what it held comes again.
    Kill(usize),
    /// The broker delivers a copy too many.
    Redeliver(usize),
    /// A lease ends while its holder still goes on, however long it was stopped.
    EndLease(usize),
    /// Another unit moves a message's instance: in an exploration the first one's, once.
    MoveInstance(usize),
    /// `settling.rs`, `Case::give_back`, `Case::set_aside` and `Case::abandon`: put back, or written
    /// down, without a failure; a message under suspicion, before it is run.
    PutBack(usize, usize),
    /// `handling.rs`, `Case::try_once`; `merging.rs`: the try is ended by the database, or with the
    /// messages that it was merged with; it is loaded and run again.
    TryAgain(usize, usize),
}
