//! Rows of the outbox as they are stored, and which are meant.

use serde_json::{Value, json};

use super::change::TEXT_BYTES_MAX;
#[cfg(doc)]
use super::page::PAGE_MAX;
use super::page::{check_named, check_searched, set_parts};
use crate::clock::Timestamp;
use crate::endpoint::Destination;
use crate::envelope::{Envelope, Timer};
use crate::error::StoreError;
use crate::id::{InstanceId, MessageId};
use crate::unit_of_work::Attempt;

/// Which rows of the outbox are meant. What is `None` lets everything through.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RowFilter {
    /// Only these rows: [`PAGE_MAX`] at most.
    pub ids: Option<Vec<i64>>,
    /// Only rows that wait for an operator, only the others, or only timers.
    pub state: Option<RowState>,
    /// Only rows for this destination, as it is stored: `@orders`, or a transport's address.
    pub destination: Option<String>,
    /// Only this message type.
    pub message_type: Option<String>,
    /// Only rows parked for this reason.
    pub reason: Option<String>,
    /// Only rows with this text in their last error or in the reason for which they are parked, in
    /// whatever case of A to Z.
    pub error: Option<String>,
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
    /// Only what was there when this was the latest id: freezes a selection.
    pub id_max: Option<i64>,
    /// Only what operators change as rows: neither timers nor the places of dead letters.
    pub is_changeable: bool,
}

impl RowFilter {
    /// Checks what every store refuses alike.
    ///
    /// # Errors
    /// [`StoreError::Refused`] when more than [`PAGE_MAX`] ids are named, or the text has a NUL
    /// character or is longer than [`TEXT_BYTES_MAX`].
    pub fn check(&self) -> Result<(), StoreError> {
        check_named(self.ids.as_deref().unwrap_or_default())?;
        check_searched(self.error.as_deref())
    }

    /// Says whether it lets a row through.
    pub(crate) fn lets(&self, row: &StoredRow) -> bool {
        let is = |wanted: &Option<String>, text: &str| {
            wanted.as_deref().is_none_or(|wanted| wanted == text)
        };
        let ids = self.ids.as_ref();
        ids.is_none_or(|ids| ids.contains(&row.id))
            && self.state.is_none_or(|state| state.has(row))
            && is(&self.destination, &row.destination)
            && is(&self.message_type, &row.envelope.message_type)
            && self.message.is_none_or(|id| id == row.envelope.id)
            && (self.reason.is_none() || self.reason == row.parked)
            && self.error.as_deref().is_none_or(|text| row.failed_by(text))
            && (self.key.is_none() || self.key == row.key)
            && self.owner.as_ref().is_none_or(|owner| {
                let timer = row.timer.as_ref();
                timer.is_some_and(|timer| timer.owner == *owner)
            })
            && self.since.is_none_or(|since| row.created_at >= since)
            && self.until.is_none_or(|until| row.created_at < until)
            && self.id_max.is_none_or(|id_max| row.id <= id_max)
            && (!self.is_changeable || row.timer.is_none() && !row.is_stub())
    }

    /// Says for people which parts of it are set; what an operation always leaves out is not said.
    pub(super) fn describe(&self) -> Value {
        let at = |time: Option<Timestamp>| time.map(|time| time.to_string());
        set_parts([
            ("ids", json!(self.ids)),
            ("state", json!(self.state.map(RowState::as_str))),
            ("destination", json!(self.destination)),
            ("message_type", json!(self.message_type)),
            ("reason", json!(self.reason)),
            ("error", json!(self.error)),
            ("message", json!(self.message)),
            ("key", json!(self.key)),
            ("owner", json!(self.owner)),
            ("since", json!(at(self.since))),
            ("until", json!(at(self.until))),
            ("id_max", json!(self.id_max)),
        ])
    }
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

impl RowState {
    /// Returns the word by which filters name it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Parked => "parked",
            Self::Moving => "moving",
            Self::Timer => "timer",
        }
    }

    fn has(self, row: &StoredRow) -> bool {
        match self {
            Self::Parked => row.parked.is_some(),
            Self::Moving => row.parked.is_none(),
            Self::Timer => row.timer.is_some(),
        }
    }
}

/// Why a row is parked that an operator set aside, where [`StoredRow::parked`] says so.
pub const PARKED_BY_OPERATOR: &str = "operator";

/// What an operator does with rows of the outbox, timers and stubs of dead letters left out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RowVerb {
    /// Sets rows aside that wait or are in hand, until an operator decides. What a host does with one
    /// meanwhile does not count; those behind it go on.
    Park,
    /// Lets hosts try parked rows again, with no attempts. A command that nobody took goes to the
    /// endpoint that takes it by now; it stays parked where there is none.
    Release,
    /// Makes rows due now that wait for their time. One that a host has in hand, or had when it died,
    /// is left to its lease.
    Expedite,
    /// Sends parked rows elsewhere and lets hosts try them, with no attempts.
    Readdress {
        /// As it is stored: `@orders`, which has to be there, or a transport's address.
        to: String,
    },
    /// Removes parked rows. Their audit entry is what is left of them.
    Discard,
    /// Removes rows for good, whether they wait, are in hand or are parked. What a host does with one
    /// meanwhile does not count; those behind it go on.
    Purge,
}

impl RowVerb {
    /// Returns the word by which audit entries name it.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Park => "park_rows",
            Self::Release => "release_rows",
            Self::Expedite => "expedite_rows",
            Self::Readdress { .. } => "readdress_rows",
            Self::Discard => "discard_rows",
            Self::Purge => "purge_rows",
        }
    }

    /// Reads the stored words. The tables hold no others.
    pub(super) fn from_stored(word: &str, to: Option<String>) -> Self {
        match (word, to) {
            ("park_rows", _) => Self::Park,
            ("expedite_rows", _) => Self::Expedite,
            ("discard_rows", _) => Self::Discard,
            ("purge_rows", _) => Self::Purge,
            ("readdress_rows", Some(to)) => Self::Readdress { to },
            _ => Self::Release,
        }
    }

    /// Says whose rows it changes; `None`: an operator's and the hosts'.
    pub const fn state(&self) -> Option<RowState> {
        match self {
            Self::Park | Self::Expedite => Some(RowState::Moving),
            Self::Release | Self::Readdress { .. } | Self::Discard => Some(RowState::Parked),
            Self::Purge => None,
        }
    }

    /// Refuses a destination to which no row goes.
    ///
    /// # Errors
    /// [`StoreError::Refused`] then.
    pub(super) fn check(&self) -> Result<(), StoreError> {
        let Self::Readdress { to } = self else {
            return Ok(());
        };
        let refused = |fact: String| Err(StoreError::Refused(fact.into()));
        let is_text = !to.contains(char::is_control) && to.len() <= TEXT_BYTES_MAX;
        if to.is_empty() || to.starts_with('?') || !is_text {
            let fact = "a destination is `@endpoint`, or an address of a transport as rows have it";
            return refused(fact.to_owned());
        }
        match Destination::parse(to) {
            Ok(_) => Ok(()),
            Err(error) => refused(error.to_string()),
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

    /// Says whether a text is in what went wrong with it at last, in whatever case.
    fn failed_by(&self, text: &str) -> bool {
        let last = self.attempts.last().map(|last| last.error.as_str());
        let text = text.to_ascii_lowercase();
        let mut said = last.into_iter().chain(self.parked.as_deref());
        said.any(|said| said.to_ascii_lowercase().contains(&text))
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
