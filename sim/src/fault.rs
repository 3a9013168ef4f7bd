//! Everything that may go wrong, by name, and how often it did.

use std::collections::BTreeMap;

/// One kind of fault, or one way in which it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Fault {
    /// A store's call fails before anything is done.
    StoreFailed,
    /// A store's call takes long.
    StoreSlow,
    /// The answer to a commit is lost, and it was carried out.
    DoubtMade,
    /// The answer to a commit is lost, and it was not carried out.
    DoubtNotMade,
    /// The answer to a commit is lost, and it is carried out later.
    DoubtMadeLate,
    /// The answer to a claim or an extension is lost, and it was carried out.
    AnswerLost,
    /// A handler's own transaction is in doubt, and had committed.
    TxDoubtMade,
    /// A handler's own transaction is in doubt, and had not.
    TxDoubtNotMade,
    /// Other hosts' wake-ups do not come.
    WakeupsLost,
    /// A window is not taken: the broker is away.
    BrokerAway,
    /// A window is taken, and its confirms are lost.
    ConfirmsLost,
    /// A part of a window is taken, the rest is in doubt.
    WindowTorn,
    /// A window stands still in its middle, for longer than the leases of its rows.
    WindowStalled,
    /// The broker refuses one message.
    Nacked,
    /// The broker has a message twice.
    Duplicated,
    /// Messages arrive in another order than they were sent in.
    Reordered,
    /// A delivery is given back and comes again.
    Redelivered,
    /// An ack does not arrive.
    AckLost,
    /// A host's connection to the broker is lost: what it has in hand comes again.
    ConnectionLost,
    /// A host ends, wherever it is.
    Killed,
    /// A host ends within a call, before it is carried out.
    KilledBeforeCall,
    /// A host ends within a call, after it was carried out.
    KilledAfterCall,
    /// A host stands still for longer than its leases.
    Frozen,
    /// A host is told to stop, and does.
    Stopped,
    /// The machines' clocks are set an hour forward or back.
    ClockStepped,
    /// The client sends a message again under its identity.
    SentAgain,
    /// A message was recognised as a duplicate.
    DuplicateFound,
    /// An instance had moved meanwhile.
    ConflictFound,
}

impl Fault {
    /// Every kind.
    pub const ALL: [Self; 28] = [
        Self::StoreFailed,
        Self::StoreSlow,
        Self::DoubtMade,
        Self::DoubtNotMade,
        Self::DoubtMadeLate,
        Self::AnswerLost,
        Self::TxDoubtMade,
        Self::TxDoubtNotMade,
        Self::WakeupsLost,
        Self::BrokerAway,
        Self::ConfirmsLost,
        Self::WindowTorn,
        Self::WindowStalled,
        Self::Nacked,
        Self::Duplicated,
        Self::Reordered,
        Self::Redelivered,
        Self::AckLost,
        Self::ConnectionLost,
        Self::Killed,
        Self::KilledBeforeCall,
        Self::KilledAfterCall,
        Self::Frozen,
        Self::Stopped,
        Self::ClockStepped,
        Self::SentAgain,
        Self::DuplicateFound,
        Self::ConflictFound,
    ];

    /// Returns what it is called in a report.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::StoreFailed => "store calls that failed",
            Self::StoreSlow => "store calls that took long",
            Self::DoubtMade => "commits in doubt, made",
            Self::DoubtNotMade => "commits in doubt, not made",
            Self::DoubtMadeLate => "commits in doubt, made late",
            Self::AnswerLost => "other answers lost",
            Self::TxDoubtMade => "transactions in doubt, made",
            Self::TxDoubtNotMade => "transactions in doubt, not made",
            Self::WakeupsLost => "wake-ups lost",
            Self::BrokerAway => "windows not taken",
            Self::ConfirmsLost => "windows with confirms lost",
            Self::WindowTorn => "windows torn",
            Self::WindowStalled => "windows stalled beyond their leases",
            Self::Nacked => "messages refused",
            Self::Duplicated => "messages doubled",
            Self::Reordered => "messages reordered",
            Self::Redelivered => "messages delivered again",
            Self::AckLost => "acks lost",
            Self::ConnectionLost => "connections lost",
            Self::Killed => "hosts killed",
            Self::KilledBeforeCall => ".. before a call",
            Self::KilledAfterCall => ".. after a call",
            Self::Frozen => "hosts frozen",
            Self::Stopped => "hosts stopped",
            Self::ClockStepped => "clocks stepped",
            Self::SentAgain => "messages sent again",
            Self::DuplicateFound => "duplicates recognised",
            Self::ConflictFound => "conflicts",
        }
    }
}

/// How often each fault happened.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally(BTreeMap<Fault, u64>);

impl Tally {
    /// Counts one more.
    pub(crate) fn count(&mut self, fault: Fault) {
        *self.0.entry(fault).or_default() += 1;
    }

    /// Adds another run's.
    pub fn add(&mut self, other: &Self) {
        for (fault, count) in &other.0 {
            *self.0.entry(*fault).or_default() += count;
        }
    }

    /// Returns how often one happened.
    pub fn of(&self, fault: Fault) -> u64 {
        self.0.get(&fault).copied().unwrap_or_default()
    }

    /// Lists what never happened.
    pub fn missing(&self) -> Vec<Fault> {
        let all = Fault::ALL.into_iter();
        all.filter(|fault| self.of(*fault) == 0).collect()
    }
}
