//! Rows of the outbox as they are stored, and which are meant.

use crate::clock::Timestamp;
use crate::envelope::{Envelope, Timer};
use crate::id::{InstanceId, MessageId};
use crate::unit_of_work::Attempt;

/// Which rows of the outbox are meant. What is `None` lets everything through.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RowFilter {
    /// Only this row.
    pub id: Option<i64>,
    /// Only rows that wait for an operator, only the others, or only timers.
    pub state: Option<RowState>,
    /// Only rows for this destination, as it is stored: `@orders`, or a transport's address.
    pub destination: Option<String>,
    /// Only this message type.
    pub message_type: Option<String>,
    /// Only rows parked for this reason.
    pub reason: Option<String>,
    /// Only this message.
    pub message: Option<MessageId>,
    /// Only rows with this business key.
    pub key: Option<String>,
    /// Only timers that this instance armed.
    pub owner: Option<InstanceId>,
    /// Only rows that were written at this time or later.
    pub since: Option<Timestamp>,
    /// Only rows that were written before this time.
    pub until: Option<Timestamp>,
}

/// Who has the say over a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RowState {
    /// An operator.
    Parked,
    /// The hosts: it waits for its time or its turn, or is in hand.
    Moving,
    /// The instance that armed it: it is a timer, whatever else may be said of it.
    Timer,
}

/// Why a row is parked that an operator set aside, where [`StoredRow::parked`] says so.
pub const PARKED_BY_OPERATOR: &str = "operator";

/// What an operator does with rows of the outbox, timers and stubs of dead letters left out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RowVerb {
    /// Sets rows aside that wait or are in hand, until an operator decides. What a host does with one
    /// meanwhile does not count; those behind it go on.
    Park,
    /// Makes rows due now that wait for their time. One that a host has in hand, or had when it died,
    /// is left to its lease.
    Expedite,
    /// Sends parked rows elsewhere and lets hosts try them, with no attempts.
    Readdress {
        /// As it is stored: `@orders`, which has to be there, or a transport's address.
        to: String,
    },
}

impl RowVerb {
    /// Returns the word by which audit entries name it.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Park => "park_rows",
            Self::Expedite => "expedite_rows",
            Self::Readdress { .. } => "readdress_rows",
        }
    }
}

/// A row of the outbox as it is stored.
#[derive(Clone, Debug, PartialEq)]
pub struct StoredRow {
    /// Its id in this database.
    pub id: i64,
    /// As stored: `@orders`, a transport's address, or `?` and a type that nobody takes.
    pub destination: String,
    /// The message; its body as far as it was asked for.
    pub envelope: Envelope,
    /// How long the body is.
    pub body_bytes: u64,
    /// Its key, where it has one.
    pub key: Option<String>,
    /// When it may be taken: due time, back-off and lease in one.
    pub available_at: Timestamp,
    /// When it may be sent at the earliest, where that was said.
    pub due_at: Option<Timestamp>,
    /// When its time is over, where that was said.
    pub expires_at: Option<Timestamp>,
    /// How often it was claimed.
    pub epoch: i32,
    /// How often an error was recorded.
    pub failures: i32,
    /// The recorded errors.
    pub attempts: Vec<Attempt>,
    /// Why an operator has to decide, if one has to.
    pub parked: Option<String>,
    /// The timer that it is.
    pub timer: Option<Timer>,
    /// When it was written.
    pub created_at: Timestamp,
}

impl StoredRow {
    /// Says whether it only holds the place of a dead letter, whose key waits.
    pub fn is_stub(&self) -> bool {
        self.available_at == Timestamp::NEVER
    }
}

/// What the outbox holds for one destination.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DestinationOverview {
    /// As stored: `@orders`, or a transport's address.
    pub destination: String,
    /// Rows that an operator does not have to look at, stubs of dead letters left out.
    pub waiting: u64,
    /// Those of them whose time has come and that nobody has in hand.
    pub due: u64,
    /// Since when the longest due of them could have been taken.
    pub due_since: Option<Timestamp>,
    /// When the oldest of the waiting was written.
    pub oldest_at: Option<Timestamp>,
    /// Rows that wait for an operator.
    pub parked: u64,
}
