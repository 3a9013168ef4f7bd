//! What operators change, and what is left of it in the audit.

use super::page::PAGE_MAX;
use crate::clock::Timestamp;
use crate::envelope::Envelope;
use crate::error::StoreError;
use crate::schedule::ScheduleVerb;

/// The longest name and reason: a sentence or two, and a link to an incident.
pub const TEXT_BYTES_MAX: usize = 1000;

/// One operator's change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// Who makes it: a person's or a program's name.
    pub who: String,
    /// Why, in a few words; may be empty.
    pub why: String,
    /// What is done.
    pub action: Action,
}

impl Change {
    /// Checks what every store refuses alike.
    ///
    /// # Errors
    /// [`StoreError::Refused`] when more than [`PAGE_MAX`] ids are named, a text has a NUL
    /// character or is longer than [`TEXT_BYTES_MAX`], or a message is out of bounds.
    pub fn check(&self) -> Result<(), StoreError> {
        let refused = |fact: String| Err(StoreError::Refused(fact.into()));
        for text in [&self.who, &self.why] {
            if text.contains('\0') {
                return refused("who and why take no NUL character".to_owned());
            }
            if text.len() > TEXT_BYTES_MAX {
                return refused(format!("who and why take {TEXT_BYTES_MAX} bytes at most"));
            }
        }
        if let Action::SendMessage { envelope, .. } = &self.action {
            envelope
                .check()
                .map_err(|error| StoreError::Refused(error.into()))?;
        }
        let count = self.action.ids().len();
        if count > PAGE_MAX as usize {
            return refused(format!("{count} ids in one change, of {PAGE_MAX} at most"));
        }
        Ok(())
    }
}

/// What an operator can do to stored rows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Turns open dead letters back into rows of their endpoints, with the same identity and no
    /// attempts, in the order of their ids: each in the place that its stub held, else the last.
    RedriveDeadLetters(Vec<i64>),
    /// Says of open dead letters that they are not wanted any more. They stay readable; a key that
    /// waited for one goes on.
    DiscardDeadLetters(Vec<i64>),
    /// Opens discarded dead letters again, but those whose message has another one open. Their keys
    /// have gone on and do not wait for them any more.
    RestoreDeadLetters(Vec<i64>),
    /// Lets hosts try parked rows again, with no attempts. A command that nobody took goes to the
    /// endpoint that takes it by now; it stays parked where there is none.
    ReleaseRows(Vec<i64>),
    /// Removes parked rows. Their audit entry is what is left of them.
    DiscardRows(Vec<i64>),
    /// Puts a message of the operator's at an endpoint, to be handled at once, out of line: what holds
    /// its key up does not hold it up. The id is the row's; none where there is no such endpoint.
    SendMessage {
        /// The endpoint.
        endpoint: String,
        /// The message.
        envelope: Box<Envelope>,
    },
    /// Ends the subscription of an endpoint to a type. Changes the routes;
    /// the id is the endpoint's.
    RemoveSubscription {
        /// The endpoint.
        endpoint: String,
        /// The type.
        message_type: String,
    },
    /// Removes an endpoint with its subscriptions, if the outbox has no row for it and no dead
    /// letter of it is open. Changes the routes;
    /// the id is the endpoint's.
    RemoveEndpoint {
        /// The endpoint.
        endpoint: String,
    },
    /// Moves timers that are not due yet to another time, or fires them now. What is due already is
    /// about to be handled, and stays.
    MoveTimers {
        /// Their rows.
        ids: Vec<i64>,
        /// When they are due; `None`: now.
        due: Option<Timestamp>,
    },
    /// Cancels timers that are not due yet: their instances do not wait for them any more.
    CancelTimers(Vec<i64>),
    /// Pauses an endpoint in all its hosts; the id is the endpoint's.
    PauseEndpoint {
        /// The endpoint.
        endpoint: String,
    },
    /// Lets a paused endpoint go on; the id is the endpoint's.
    ResumeEndpoint {
        /// The endpoint.
        endpoint: String,
    },
    /// Pauses, resumes, fires or removes a schedule; the id is its new version, or its last.
    ChangeSchedule {
        /// Its name.
        name: String,
        /// What is done.
        verb: ScheduleVerb,
    },
}

impl Action {
    /// Returns the ids that it names; none where it names something else.
    pub fn ids(&self) -> &[i64] {
        match self {
            Self::RedriveDeadLetters(ids)
            | Self::DiscardDeadLetters(ids)
            | Self::RestoreDeadLetters(ids)
            | Self::ReleaseRows(ids)
            | Self::DiscardRows(ids)
            | Self::MoveTimers { ids, .. }
            | Self::CancelTimers(ids) => ids,
            Self::SendMessage { .. }
            | Self::RemoveSubscription { .. }
            | Self::RemoveEndpoint { .. }
            | Self::PauseEndpoint { .. }
            | Self::ResumeEndpoint { .. }
            | Self::ChangeSchedule { .. } => &[],
        }
    }

    /// Returns the word by which audit entries name it.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::RedriveDeadLetters(_) => "redrive_dead_letters",
            Self::DiscardDeadLetters(_) => "discard_dead_letters",
            Self::RestoreDeadLetters(_) => "restore_dead_letters",
            Self::ReleaseRows(_) => "release_rows",
            Self::DiscardRows(_) => "discard_rows",
            Self::SendMessage { .. } => "send_message",
            Self::RemoveSubscription { .. } => "remove_subscription",
            Self::RemoveEndpoint { .. } => "remove_endpoint",
            Self::MoveTimers { due: Some(_), .. } => "move_timers",
            Self::MoveTimers { due: None, .. } => "fire_timers",
            Self::CancelTimers(_) => "cancel_timers",
            Self::PauseEndpoint { .. } => "pause_endpoint",
            Self::ResumeEndpoint { .. } => "resume_endpoint",
            Self::ChangeSchedule { verb, .. } => verb.as_str(),
        }
    }
}

/// A change as its audit entry keeps it.
#[derive(Clone, Debug, PartialEq)]
pub struct AuditEntry {
    /// Its id in this database.
    pub id: i64,
    /// When, by the database's clock.
    pub at: Timestamp,
    /// Who.
    pub who: String,
    /// What, as [`Action::as_str`] spells it.
    pub action: String,
    /// Why.
    pub why: String,
    /// What was changed: one object per row, with what a reader needs to find the message.
    pub detail: serde_json::Value,
}
