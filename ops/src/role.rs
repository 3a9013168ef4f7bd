//! Who may do what.

use std::fmt;
use std::str::FromStr;

use sagabus_core::StoreError;
use sagabus_core::admin::{Action, Task};

/// What somebody may do. Each role includes those before it.
///
/// A role is what a tool was told: it keeps a careful person from a slip. What keeps everybody out
/// is what the database grants to the login.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// Sees everything but what messages, instances and edits hold.
    Reader,
    /// Sees that, too.
    BodyReader,
    /// Retries, discards and restores dead letters, parks, releases, discards and purges rows, sends
    /// again what was sent, moves timers, pauses endpoints and schedules.
    Operator,
    /// Edits messages and instances, removes endpoints, makes the schema.
    Admin,
}

impl Role {
    /// Every role, the least first.
    pub const ALL: [Self; 4] = [Self::Reader, Self::BodyReader, Self::Operator, Self::Admin];

    /// Returns the word for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Reader => "reader",
            Self::BodyReader => "body-reader",
            Self::Operator => "operator",
            Self::Admin => "admin",
        }
    }

    /// Refuses what takes more than this role.
    ///
    /// # Errors
    /// [`StoreError::Forbidden`] then.
    pub fn demand(self, needed: Self, what: &str) -> Result<(), StoreError> {
        match self >= needed {
            true => Ok(()),
            false => Err(StoreError::Forbidden(format!(
                "role `{self}` may not {what}; that takes role `{needed}` [SB0408]"
            ))),
        }
    }

    /// Returns the role that a change takes. Every new change is decided here.
    pub const fn needed(action: &Action) -> Self {
        match action {
            Action::RedriveDeadLetters(_)
            | Action::DiscardDeadLetters(_)
            | Action::RestoreDeadLetters(_)
            | Action::RepublishSent(_)
            | Action::ChangeRows { .. }
            // Breaks a lock, and nothing else is made of it.
            | Action::SendMessage { .. }
            | Action::MoveTimers { .. }
            | Action::CancelTimers(_)
            | Action::PauseEndpoint { .. }
            | Action::ResumeEndpoint { .. }
            | Action::PauseTransport { .. }
            | Action::ResumeTransport { .. }
            | Action::ChangeSchedule { .. } => Self::Operator,
            Action::AskHost(errand) => match errand.task {
                // Shows what an instance holds, and nothing of it is left.
                Task::Rehearse(_) => Self::Operator,
                Task::Transition(_) | Task::Migrate(_) | Task::Read(_) => Self::Admin,
            },
            Action::EditDeadLetter(_)
            | Action::NoteTransition(_)
            | Action::AlterInstance(_)
            | Action::CompleteInstance { .. }
            | Action::RemoveSubscription { .. }
            | Action::RemoveEndpoint { .. } => Self::Admin,
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Role {
    type Err = String;

    fn from_str(word: &str) -> Result<Self, String> {
        let mut all = Self::ALL.into_iter();
        all.find(|role| role.as_str() == word).ok_or_else(|| {
            let known: Vec<_> = Self::ALL.iter().map(|role| role.as_str()).collect();
            format!("{word:?} is no role; write one of {}", known.join(", "))
        })
    }
}
