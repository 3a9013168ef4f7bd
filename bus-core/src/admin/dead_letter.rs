//! Dead letters as they are stored, and which are meant.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

#[cfg(doc)]
use super::change::TEXT_BYTES_MAX;
use super::page::{check_searched, set_parts};
use crate::clock::Timestamp;
use crate::envelope::Envelope;
use crate::error::StoreError;
use crate::id::{InstanceId, MessageId};
use crate::unit_of_work::{Attempt, Label};

/// What became of a dead letter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DeadLetterStatus {
    /// Nobody has dealt with it.
    Open,
    /// It is a row of its endpoint again.
    Redriven,
    /// It is not wanted any more.
    Discarded,
}

impl DeadLetterStatus {
    /// Returns the stored word.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Redriven => "redriven",
            Self::Discarded => "discarded",
        }
    }

    /// Reads the stored word. The tables hold no other.
    pub fn from_stored(word: &str) -> Self {
        match word {
            "redriven" => Self::Redriven,
            "discarded" => Self::Discarded,
            _ => Self::Open,
        }
    }
}

/// Which dead letters are meant. What is `None` lets everything through; the default lets through
/// what is open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadLetterFilter {
    /// Only this one.
    pub id: Option<i64>,
    /// Only what is in this state.
    pub status: Option<DeadLetterStatus>,
    /// Only what this endpoint gave up.
    pub endpoint: Option<String>,
    /// Only this message type.
    pub message_type: Option<String>,
    /// Only this reason, as [`Reason::as_str`](crate::Reason::as_str) spells it.
    pub reason: Option<String>,
    /// Only this fingerprint.
    pub fingerprint: Option<String>,
    /// Only fingerprints with this text in them, in whatever case.
    pub text: Option<String>,
    /// Only this key.
    pub key: Option<String>,
    /// Only what was for an instance with this label.
    pub label: Option<Label>,
    /// Only this message.
    pub message: Option<MessageId>,
    /// Only what was given up at this time or later.
    pub since: Option<Timestamp>,
    /// Only what was given up before this time.
    pub until: Option<Timestamp>,
    /// Only what was there when this was the latest id: freezes a selection.
    pub id_max: Option<i64>,
}

impl Default for DeadLetterFilter {
    fn default() -> Self {
        Self {
            status: Some(DeadLetterStatus::Open),
            ..Self::any()
        }
    }
}

impl DeadLetterFilter {
    /// Lets everything through.
    pub const fn any() -> Self {
        Self {
            id: None,
            status: None,
            endpoint: None,
            message_type: None,
            reason: None,
            fingerprint: None,
            text: None,
            key: None,
            label: None,
            message: None,
            since: None,
            until: None,
            id_max: None,
        }
    }

    /// Checks what every store refuses alike.
    ///
    /// # Errors
    /// [`StoreError::Refused`] when the text has a NUL character or is longer than [`TEXT_BYTES_MAX`].
    pub fn check(&self) -> Result<(), StoreError> {
        check_searched(self.text.as_deref())
    }

    /// Says for people which parts of it are set.
    pub(super) fn describe(&self) -> Value {
        let at = |time: Option<Timestamp>| time.map(|time| time.to_string());
        let label = self.label.as_ref().map(|one| (&one.name, &one.value));
        set_parts([
            ("id", json!(self.id)),
            ("endpoint", json!(self.endpoint)),
            ("message_type", json!(self.message_type)),
            ("reason", json!(self.reason)),
            ("fingerprint", json!(self.fingerprint)),
            ("text", json!(self.text)),
            ("key", json!(self.key)),
            (
                "label",
                json!(label.map(|(name, value)| format!("{name}={value}"))),
            ),
            ("message", json!(self.message)),
            ("since", json!(at(self.since))),
            ("until", json!(at(self.until))),
            ("id_max", json!(self.id_max)),
        ])
    }
}

/// A dead letter as it is stored.
#[derive(Clone, Debug, PartialEq)]
pub struct StoredDeadLetter {
    /// Its id in this database.
    pub id: i64,
    /// What became of it.
    pub status: DeadLetterStatus,
    /// The endpoint that gave up.
    pub endpoint: String,
    /// The message; its body as far as it was asked for.
    pub envelope: Envelope,
    /// How long the body is.
    pub body_bytes: u64,
    /// Why, as [`Reason::as_str`](crate::Reason::as_str) spells it.
    pub reason: String,
    /// Its key, where it has one.
    pub key: Option<String>,
    /// The instance that it was for.
    pub instance: Option<InstanceId>,
    /// The kind of failure: equal for errors that differ in numbers and identities only.
    pub fingerprint: String,
    /// Every failed try.
    pub attempts: Vec<Attempt>,
    /// When, by the database's clock.
    pub at: Timestamp,
}

/// Dead letters of one endpoint that failed alike.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadLetterGroup {
    /// The endpoint that gave up.
    pub endpoint: String,
    /// What they have in common.
    pub fingerprint: String,
    /// How many there are.
    pub count: u64,
    /// When the first was given up.
    pub first_at: Timestamp,
    /// When the last was given up.
    pub last_at: Timestamp,
    /// The latest of them, as an example.
    pub example: i64,
}

/// What a filter lets through, in sum.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// How many.
    pub count: u64,
    /// The earliest.
    pub first_at: Option<Timestamp>,
    /// The latest.
    pub last_at: Option<Timestamp>,
    /// The largest id.
    pub id_max: Option<i64>,
}
