//! What operators change, and what is left of it in the audit.

use bytes::Bytes;
use serde_json::{Value, json};

use super::errand::{Errand, Transitioned};
use super::page::PAGE_MAX;
use super::row::RowVerb;
use super::verb::REPUBLISH_SENT;
use crate::clock::Timestamp;
use crate::codec::BODY_BYTES_MAX;
use crate::envelope::Envelope;
use crate::error::StoreError;
use crate::id::{InstanceId, MessageId};
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
        check_text(&self.who, &self.why)?;
        let bytes = self.action.bytes();
        if bytes > BODY_BYTES_MAX {
            let fact = format!("{bytes} bytes, of {BODY_BYTES_MAX} at most");
            return Err(StoreError::Refused(fact.into()));
        }
        if let Action::SendMessage { envelope, .. } = &self.action {
            envelope
                .check()
                .map_err(|error| StoreError::Refused(error.into()))?;
        }
        if let Action::ChangeRows { verb, .. } = &self.action {
            verb.check()?;
        }
        let count = self.action.ids().len();
        if count > PAGE_MAX as usize {
            let fact = format!("{count} ids in one change, of {PAGE_MAX} at most");
            return Err(StoreError::Refused(fact.into()));
        }
        Ok(())
    }
}

/// Refuses texts that no column takes.
pub(super) fn check_text(who: &str, why: &str) -> Result<(), StoreError> {
    let refused = |fact: String| Err(StoreError::Refused(fact.into()));
    for text in [who, why] {
        if text.contains('\0') {
            return refused("who and why take no NUL character".to_owned());
        }
        if text.len() > TEXT_BYTES_MAX {
            return refused(format!("who and why take {TEXT_BYTES_MAX} bytes at most"));
        }
    }
    Ok(())
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
    /// Puts messages that brokers took, and that are kept, into the outbox again: as they were, in the
    /// order in which they were written. They are kept anew when they are sent.
    RepublishSent(Vec<i64>),
    /// Does with rows that wait, are in hand or are parked what a verb says.
    ChangeRows {
        /// Their ids.
        ids: Vec<i64>,
        /// What is done.
        verb: RowVerb,
    },
    /// Puts a message of the operator's at an endpoint, to be handled at once, out of line: what holds
    /// its key up does not hold it up. The id is the row's; none where there is no such endpoint.
    SendMessage {
        /// The endpoint.
        endpoint: String,
        /// The message.
        envelope: Box<Envelope>,
    },
    /// Turns one open dead letter back into a row of its endpoint with another body, where its body
    /// is still what the operator saw.
    EditDeadLetter(Edit),
    /// Replaces data and state of an instance that goes on, where its version is still the one that
    /// the operator saw; timers and labels stay. Its version moves by one, so that a handler that
    /// has the old data in hand loads and runs again; the id is the new version.
    AlterInstance(Alteration),
    /// Ends an instance that goes on, where its version is still the one that the operator saw, and
    /// removes its timers; the id is the new version.
    CompleteInstance {
        /// Which one.
        instance: InstanceId,
        /// Its version.
        version: i64,
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
    /// Lets no host send by a transport; the id is 1. Messages for it stay in the outbox.
    PauseTransport {
        /// Its name; `default` for the one without a name.
        transport: String,
    },
    /// Lets hosts send by a paused transport again; the id is 1.
    ResumeTransport {
        /// Its name; `default` for the one without a name.
        transport: String,
    },
    /// Pauses, resumes, fires or removes a schedule; the id is its new version, or its last.
    ChangeSchedule {
        /// Its name.
        name: String,
        /// What is done.
        verb: ScheduleVerb,
    },
    /// Asks a live host of an endpoint to do something that takes the service's code, where the
    /// endpoint is about nothing else; the id is the version of the errand's row.
    AskHost(Box<Errand>),
    /// Writes what a host made of an instance that it was asked to move into the audit entry of who
    /// asked for it, where nothing stands there yet; the id is the instance's new version.
    NoteTransition(Box<Transitioned>),
}

impl Action {
    /// Returns the ids that it names; none where it names something else.
    pub fn ids(&self) -> &[i64] {
        match self {
            Self::RedriveDeadLetters(ids)
            | Self::DiscardDeadLetters(ids)
            | Self::RestoreDeadLetters(ids)
            | Self::RepublishSent(ids)
            | Self::ChangeRows { ids, .. }
            | Self::MoveTimers { ids, .. }
            | Self::CancelTimers(ids) => ids,
            Self::SendMessage { .. }
            | Self::EditDeadLetter(_)
            | Self::AlterInstance(_)
            | Self::CompleteInstance { .. }
            | Self::RemoveSubscription { .. }
            | Self::RemoveEndpoint { .. }
            | Self::PauseEndpoint { .. }
            | Self::ResumeEndpoint { .. }
            | Self::PauseTransport { .. }
            | Self::ResumeTransport { .. }
            | Self::ChangeSchedule { .. }
            | Self::AskHost(_)
            | Self::NoteTransition(_) => &[],
        }
    }

    /// Returns how many bytes of body or data it writes.
    fn bytes(&self) -> usize {
        match self {
            Self::EditDeadLetter(edit) => edit.after.len(),
            Self::AlterInstance(alteration) => alteration.after.data.len(),
            _ => 0,
        }
    }

    /// Returns the word by which audit entries name it.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::RedriveDeadLetters(_) => "redrive_dead_letters",
            Self::DiscardDeadLetters(_) => "discard_dead_letters",
            Self::RestoreDeadLetters(_) => "restore_dead_letters",
            Self::RepublishSent(_) => REPUBLISH_SENT,
            Self::ChangeRows { verb, .. } => verb.as_str(),
            Self::SendMessage { .. } => "send_message",
            Self::EditDeadLetter(_) => "edit_dead_letter",
            Self::AlterInstance(_) => "alter_instance",
            Self::CompleteInstance { .. } => "complete_instance",
            Self::RemoveSubscription { .. } => "remove_subscription",
            Self::RemoveEndpoint { .. } => "remove_endpoint",
            Self::MoveTimers { due: Some(_), .. } => "move_timers",
            Self::MoveTimers { due: None, .. } => "fire_timers",
            Self::CancelTimers(_) => "cancel_timers",
            Self::PauseEndpoint { .. } => "pause_endpoint",
            Self::ResumeEndpoint { .. } => "resume_endpoint",
            Self::PauseTransport { .. } => "pause_transport",
            Self::ResumeTransport { .. } => "resume_transport",
            Self::ChangeSchedule { verb, .. } => verb.as_str(),
            Self::AskHost(errand) => errand.as_str(),
            Self::NoteTransition(_) => "note_transition",
        }
    }
}

/// Another body for a dead letter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Edit {
    /// The dead letter.
    pub id: i64,
    /// The identity that the message has from now on: its own, or a new one, by which nobody who
    /// had it before recognises it.
    pub message: MessageId,
    /// The body that the operator saw.
    pub before: Bytes,
    /// The body that it gets.
    pub after: Bytes,
}

impl Edit {
    /// Returns what the audit keeps beside the dead letter's names.
    pub fn detail(&self) -> Value {
        json!({
            "sent_as": self.message,
            "before": shown(&self.before),
            "after": shown(&self.after),
        })
    }
}

/// Other data for an instance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Alteration {
    /// Which one.
    pub instance: InstanceId,
    /// The version that the operator saw.
    pub version: i64,
    /// What the operator saw.
    pub before: Held,
    /// What it gets.
    pub after: Held,
}

impl Alteration {
    /// Returns what the audit keeps.
    pub fn detail(&self) -> Value {
        json!({
            "kind": self.instance.kind,
            "key": self.instance.key,
            "version": self.version,
            "before": self.before.detail(),
            "after": self.after.detail(),
        })
    }
}

/// What an instance holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    /// The named state of a machine.
    pub state: Option<String>,
    /// Its data.
    pub data: Bytes,
}

impl Held {
    fn detail(&self) -> Value {
        json!({ "state": self.state, "data": shown(&self.data) })
    }
}

/// Shows bytes: as text where they are text.
pub(super) fn shown(bytes: &Bytes) -> Value {
    match std::str::from_utf8(bytes) {
        Ok(text) => json!({ "text": text }),
        Err(_) => {
            let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
            json!({ "hex": hex })
        }
    }
}
