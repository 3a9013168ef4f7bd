//! What the model is made of: the rows of one line, who writes them and who holds them.

use crate::fault::Faults;

/// Rows of the line, in the order of their ids.
pub(crate) const ROWS: usize = 3;
pub(crate) const HOSTS: usize = 2;
/// The row that an API writes in a transaction of its own, which may stay open for long.
pub(crate) const OF_A_STRANGER: usize = 2;

/// What may be wrong with the design.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mutant {
    /// A claim takes rows whatever stands before them.
    ClaimOutOfOrder,
    /// A row goes on from memory whatever stands before it.
    BornLeasedBehindOthers,
    /// Whoever settles the head leaves its followers where they are.
    FollowerDeferredForEver,
    /// A follower is deferred without a lock on the row before it.
    DeferredWithoutLock,
    /// A claim defers a row behind one that is about to be gone.
    DeferredBehindWhatGoes,
    /// Whoever pulls looks at the oldest row alone, which may be about to be gone, too.
    OnlyTheOldestIsPulled,
}

/// When a row may be taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum When {
    Now,
    /// After a back-off: comes by itself.
    Soon,
    /// Deferred behind another row: must be pulled.
    Far,
    Leased,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Row {
    /// Not written, or written by a transaction that is open.
    Unseen,
    There {
        when: When,
        epoch: u8,
    },
    Gone,
}

/// The transaction that writes a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Writer {
    Idle,
    /// `sagabus.behind_v1` has answered.
    Looked(Behind),
    Inserted(Behind),
    Committed,
}

/// What stands before a row, as its writer or a claim knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Behind {
    Nobody,
    /// A row that is locked, so that whoever removes it will see the new one.
    Held(usize),
    /// A row that may be about to go.
    Unsure,
}

/// What a host's connection is at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Host {
    Idle,
    /// The first statement of a claim has locked a row.
    Locked(usize),
    /// The second one has looked for older rows.
    Looked {
        row: usize,
        behind: Behind,
    },
    /// The row is in hand, nothing is open.
    Holding {
        row: usize,
        epoch: u8,
    },
    /// A settle has deleted the row and is open.
    Deleted(usize),
    /// It has pulled what comes next, if there was something to pull, and is open.
    Pulled {
        row: usize,
        next: Option<usize>,
    },
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct State {
    pub(crate) rows: [Row; ROWS],
    pub(crate) writers: [Writer; ROWS],
    /// Which rows were committed when a row's writer looked: it comes after these.
    pub(crate) before: [[bool; ROWS]; ROWS],
    pub(crate) hosts: [Host; HOSTS],
    pub(crate) faults: Faults,
}

/// One step. The name behind each is the function that it stands for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Action {
    /// `sagabus.behind_v1`, called by `commit_v1`.
    LookBefore(usize),
    /// `sagabus.commit_v1`, step 6.
    Insert(usize),
    /// The writer's transaction commits.
    CommitRow(usize),
    /// The same, and the row goes on in this host's memory: `committer.rs`, `Shared::hand_over`.
    CommitRowLeased(usize, usize),
    /// `sagabus.claim_v1`, first statement: `for no key update skip locked`.
    LockForClaim(usize, usize),
    /// Second statement: is there an older row, and does it stay until this claim is over?
    LookForOlder(usize),
    /// Third statement, and commit: claimed, or deferred.
    EndClaim(usize),
    /// `sagabus.commit_v1`, steps 1 and 5: the row goes, under its epoch.
    Delete(usize),
    /// `sagabus.pull_v1`.
    Pull(usize),
    /// The settle commits.
    CommitSettle(usize),
    /// `Settle::Release` with a back-off.
    Release(usize),
    /// A back-off ends.
    ComeBack(usize),
    /// A lease ends while its holder still goes on.
    EndLease(usize),
    /// A process is killed; its open transaction is rolled back.
    Kill(usize),
}
