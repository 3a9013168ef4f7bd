//! What the model is made of: units, the rows that they write, and hands that have them.

use crate::fault::Faults;

/// Rows, each written by a unit of its own, in the order of their ids.
pub(crate) const ROWS: usize = 2;
/// Hosts that an exploration has; a run that is followed has one for each pair of hands.
pub(crate) const HOSTS: usize = 2;
pub(crate) const HANDS: usize = 4;

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
pub(crate) enum Unit {
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
pub(crate) enum Row {
    Absent,
    There { epoch: u8, is_leased: bool, of: u8 },
    Gone,
}

/// A row in a host's hands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Hand {
    Empty,
    Ready { epoch: u8, of: u8 },
    Confirmed { epoch: u8 },
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct State {
    pub(crate) units: [Unit; ROWS],
    /// Whether the unit's effect is committed.
    pub(crate) is_committed: [bool; ROWS],
    pub(crate) rows: [Row; ROWS],
    pub(crate) hands: [[Hand; ROWS]; HANDS],
    /// Identities that the broker took, by which run of the handler made them. The last one is
    /// nobody's.
    pub(crate) taken: [[bool; HOSTS + 1]; ROWS],
    /// Copies that wait at the broker.
    pub(crate) queued: [[u8; HOSTS + 1]; ROWS],
    /// Identities in the inbox of the endpoint that takes them.
    pub(crate) inbox: [[bool; HOSTS + 1]; ROWS],
    pub(crate) effects: [u8; ROWS],
    /// Of a relay that goes by ids.
    pub(crate) seen_up_to: usize,
    pub(crate) faults: Faults,
}

impl State {
    /// Nothing has happened.
    pub(crate) fn new(faults: Faults) -> Self {
        Self {
            units: [Unit::Waiting; ROWS],
            is_committed: [false; ROWS],
            rows: [Row::Absent; ROWS],
            hands: [[Hand::Empty; ROWS]; HANDS],
            taken: [[false; HOSTS + 1]; ROWS],
            queued: [[0; HOSTS + 1]; ROWS],
            inbox: [[false; HOSTS + 1]; ROWS],
            effects: [0; ROWS],
            seen_up_to: 0,
            faults,
        }
    }
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
    /// Committed, and the answer is lost. Born leased, or available.
    CommitUnheard(usize, bool),
    /// Not committed, and nobody knows.
    CommitUnmade(usize),
    /// `committer.rs`, `Shared::commit`: made again; the inbox row answers. Born leased,
    /// or available.
    Resubmit(usize, bool),
    /// A mutant's second transaction.
    WriteRow(usize),
    /// `relay.rs`, `sagabus.claim_transport_v1`.
    Claim(usize, usize),
    /// `relay.rs`, `Relay::publish`: the broker takes it and confirms.
    Publish(usize, usize),
    /// The broker takes it, the confirm is lost.
    PublishUnheard(usize, usize),
    /// The broker refuses it, or nobody is there; or it is given back (`Relay::give_back`).
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
