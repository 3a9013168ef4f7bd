//! Bulk changes as rows: what was selected when they began, how far they are, who drives them.

use std::time::Duration;

use futures_util::future::BoxFuture;
use serde::{Deserialize, Serialize};

use super::change::check_text;
use super::dead_letter::DeadLetterFilter;
#[cfg(doc)]
use super::page::PAGE_MAX;
use super::page::{Page, check_named};
use super::row::RowFilter;
use super::sent::SentFilter;
use super::verb::{Subject, Verb};
use crate::clock::Timestamp;
use crate::error::StoreError;

/// The most entries that one operation is for: its selection is one statement of a few seconds at
/// most.
pub const SELECTED_MAX: u32 = 1_000_000;

/// What an operation is for, decided when it begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Selected {
    /// Dead letters that a filter lets through.
    DeadLetters(Box<DeadLetterFilter>),
    /// Rows of the outbox that a filter lets through.
    Rows(Box<RowFilter>),
    /// Kept messages that a filter lets through.
    Sent(Box<SentFilter>),
    /// Those that are named: [`PAGE_MAX`] at most.
    Named(Vec<i64>),
}

impl Selected {
    /// Returns what the filter is about; `None` where ids say nothing of that.
    fn subject(&self) -> Option<Subject> {
        match self {
            Self::DeadLetters(_) => Some(Subject::DeadLetters),
            Self::Rows(_) => Some(Subject::Rows),
            Self::Sent(_) => Some(Subject::Sent),
            Self::Named(_) => None,
        }
    }
}

/// How fast an operation goes, and when it stops by itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pace {
    /// How many in a second at most; `None`: as fast as the database can.
    pub rate: Option<u32>,
    /// How many go first, and must be handled before the others follow; 0: none.
    pub canary: u32,
    /// It pauses when more than so many of a hundred fail again; `None`: only a canary counts, and
    /// none of it may fail.
    pub failures_percent_max: Option<u8>,
}

/// A bulk change that is to begin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewOperation {
    /// Who begins it.
    pub who: String,
    /// Why, in a few words; may be empty.
    pub why: String,
    /// What is done.
    pub verb: Verb,
    /// With what.
    pub selected: Selected,
    /// How fast.
    pub pace: Pace,
}

impl NewOperation {
    /// Checks what every store refuses alike.
    ///
    /// # Errors
    /// [`StoreError::Refused`] when too many ids are named, a text cannot be stored, rows are to go
    /// where none goes, or the filter is not about what the verb is for.
    pub fn check(&self) -> Result<(), StoreError> {
        check_text(&self.who, &self.why)?;
        check_text(self.verb.to().unwrap_or_default(), "")?;
        if let Verb::Rows(verb) = &self.verb {
            verb.check()?;
        }
        let refused = |fact: String| Err(StoreError::Refused(fact.into()));
        let subject = self.verb.subject();
        if let Some(other) = self.selected.subject().filter(|one| *one != subject) {
            let (word, subject, other) = (self.verb.as_str(), subject.as_str(), other.as_str());
            return refused(format!("`{word}` is for {subject}, not for {other}"));
        }
        match &self.selected {
            Selected::Named(ids) => check_named(ids),
            Selected::Rows(filter) => filter.check(),
            Selected::DeadLetters(filter) => filter.check(),
            Selected::Sent(_) => Ok(()),
        }
    }

    /// Refuses where more were found than one operation is for.
    ///
    /// # Errors
    /// [`StoreError::Refused`] then.
    pub fn check_total(&self, total: u64) -> Result<(), StoreError> {
        if total <= u64::from(SELECTED_MAX) {
            return Ok(());
        }
        let what = self.verb.subject().as_str();
        let fact = format!("more than {SELECTED_MAX} {what} are meant; say fewer");
        Err(StoreError::Refused(fact.into()))
    }

    /// Returns the selection as the operation keeps it for people.
    pub fn selection(&self) -> serde_json::Value {
        match &self.selected {
            Selected::Named(ids) => serde_json::json!({ "ids": ids }),
            Selected::DeadLetters(filter) => filter.describe(),
            Selected::Rows(filter) => filter.describe(),
            Selected::Sent(filter) => filter.describe(),
        }
    }
}

/// Where an operation is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OperationState {
    /// Somebody drives it, or did so until the lease ended.
    Running,
    /// An operator, or too many failures, stopped it for now.
    Paused,
    /// Everything that was selected had its turn.
    Done,
    /// An operator ended it; what was not its turn stays as it is.
    Cancelled,
}

impl OperationState {
    /// Returns the stored word.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Done => "done",
            Self::Cancelled => "cancelled",
        }
    }

    /// Reads the stored word. The tables hold no other.
    pub fn from_stored(word: &str) -> Self {
        match word {
            "running" => Self::Running,
            "paused" => Self::Paused,
            "cancelled" => Self::Cancelled,
            _ => Self::Done,
        }
    }

    /// Returns where a command leads from here; `None` where it means nothing.
    pub const fn after(self, command: Command) -> Option<Self> {
        match (self, command) {
            (Self::Running, Command::Pause) => Some(Self::Paused),
            (Self::Paused, Command::Resume) => Some(Self::Running),
            (Self::Running | Self::Paused, Command::Cancel) => Some(Self::Cancelled),
            (Self::Running, Command::Resume)
            | (Self::Paused, Command::Pause)
            | (Self::Done | Self::Cancelled, _) => None,
        }
    }
}

/// What an operator says to an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Command {
    /// Stop for now.
    Pause,
    /// Go on.
    Resume,
    /// Stop for good.
    Cancel,
}

impl Command {
    /// Returns the word by which audit entries name it.
    pub const fn action(self) -> &'static str {
        match self {
            Self::Pause => "pause_operation",
            Self::Resume => "resume_operation",
            Self::Cancel => "cancel_operation",
        }
    }

    /// Returns the one state that it leads to.
    pub const fn leads_to(self) -> OperationState {
        match self {
            Self::Pause => OperationState::Paused,
            Self::Resume => OperationState::Running,
            Self::Cancel => OperationState::Cancelled,
        }
    }

    /// Says whether it means something in a state, in which it does.
    pub const fn from_states(self) -> &'static [&'static str] {
        match self {
            Self::Pause => &["running"],
            Self::Resume => &["paused"],
            Self::Cancel => &["running", "paused"],
        }
    }
}

/// An operation as it is stored.
#[derive(Clone, Debug, PartialEq)]
pub struct StoredOperation {
    /// Its id in this database.
    pub id: i64,
    /// Where it is.
    pub state: OperationState,
    /// What is done.
    pub verb: Verb,
    /// How fast.
    pub pace: Pace,
    /// Who began it.
    pub who: String,
    /// Why.
    pub why: String,
    /// What was asked for, for people; what counts is what was found then.
    pub selection: serde_json::Value,
    /// The endpoints that gave up what was found, in the order of their names; none where it is not
    /// about dead letters.
    pub endpoints: Vec<String>,
    /// How many were found.
    pub total: u64,
    /// How many had their turn.
    pub taken: u64,
    /// How many of them were changed; the others were not as expected any more.
    pub changed: u64,
    /// Why it is paused.
    pub note: Option<String>,
    /// Who drives it, or did so last.
    pub driver: Option<String>,
    /// Until when the driver has it to itself; `None`: nobody drives it.
    pub lease_until: Option<Timestamp>,
    /// Raised whenever somebody else takes the wheel.
    pub epoch: i32,
    /// When it began, by the database's clock.
    pub created_at: Timestamp,
    /// When it last moved.
    pub updated_at: Timestamp,
}

impl StoredOperation {
    /// Says whether somebody drives it now.
    pub fn is_driven(&self, now: Timestamp) -> bool {
        self.state == OperationState::Running && self.lease_until.is_some_and(|until| until > now)
    }
}

/// Who drives an operation: a step under an older epoch changes nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wheel {
    /// The operation.
    pub id: i64,
    /// The epoch that taking the wheel raised.
    pub epoch: i32,
    /// How long nobody else takes the wheel after a step.
    pub lease: Duration,
}

/// What became of the messages that an operation redrove.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Redriven {
    /// Waiting for their first try, or in it.
    pub waiting: u64,
    /// Tried and failed, to be tried again.
    pub retrying: u64,
    /// Dead letters again.
    pub died_again: u64,
}

/// A command to an operation, with what the audit keeps of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told {
    /// The operation.
    pub id: i64,
    /// What it is told.
    pub command: Command,
    /// Who says it.
    pub who: String,
    /// Why; kept as the operation's note where it is paused.
    pub why: String,
}

impl Told {
    /// Checks what every store refuses alike.
    ///
    /// # Errors
    /// [`StoreError::Refused`] when a text cannot be stored.
    pub fn check(&self) -> Result<(), StoreError> {
        check_text(&self.who, &self.why)
    }
}

/// Bulk changes that outlive the process that drives them.
pub trait Operations: Send + Sync {
    /// Begins an operation: writes down what is meant, and the audit entry.
    ///
    /// `Ok(None)`: none are, and nothing was written.
    ///
    /// # Errors
    /// [`StoreError::Refused`] where more than [`SELECTED_MAX`] are meant, or as
    /// [`NewOperation::check`]; [`StoreError::Unknown`] when only a list of the operations tells.
    ///
    /// # Cancel safety
    /// One transaction: whole or not at all.
    fn begin_operation<'a>(
        &'a self,
        new: &'a NewOperation,
    ) -> BoxFuture<'a, Result<Option<StoredOperation>, StoreError>>;

    /// Reads operations, or the one of an id. May be dropped at any time.
    fn operations(
        &self,
        id: Option<i64>,
        page: Page,
    ) -> BoxFuture<'_, Result<Vec<StoredOperation>, StoreError>>;

    /// Takes the wheel of a running operation that nobody drives, and returns the operation with
    /// its new epoch. `Ok(None)`: it does not run, or somebody drives it.
    fn take_wheel<'a>(
        &'a self,
        id: i64,
        driver: &'a str,
        lease: Duration,
    ) -> BoxFuture<'a, Result<Option<StoredOperation>, StoreError>>;

    /// Changes the next entries of an operation in the order of their ids, [`PAGE_MAX`] at most, and
    /// writes how far it is, the audit entry and the new end of the lease. 0 only renews the lease.
    ///
    /// `Ok` has the operation as it is now, done where nothing is left. `Ok(None)`: it is paused or
    /// cancelled, or somebody else has the wheel; nothing was changed.
    ///
    /// # Errors
    /// [`StoreError::Unknown`]: calling again goes on after what was committed.
    ///
    /// # Cancel safety
    /// One transaction: whole or not at all.
    fn step(
        &self,
        wheel: Wheel,
        count: u32,
    ) -> BoxFuture<'_, Result<Option<StoredOperation>, StoreError>>;

    /// Pauses, resumes or cancels an operation, and writes the audit entry. The wheel is given up.
    /// `Ok(None)`: there is none of this id, or the command means nothing in its state.
    fn tell<'a>(
        &'a self,
        told: &'a Told,
    ) -> BoxFuture<'a, Result<Option<StoredOperation>, StoreError>>;

    /// Counts what became of the messages that an operation redrove. Looks through the rows that
    /// wait at its endpoints. May be dropped at any time.
    fn redriven(&self, id: i64) -> BoxFuture<'_, Result<Redriven, StoreError>>;
}

/// Fails to compile if `Operations` cannot be used as `dyn Operations`.
fn _obj_safe(_: &dyn Operations) {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_leads_where_its_table_says() {
        use OperationState::{Cancelled, Done, Paused, Running};
        for state in [Running, Paused, Done, Cancelled] {
            assert_eq!(OperationState::from_stored(state.as_str()), state);
            for command in [Command::Pause, Command::Resume, Command::Cancel] {
                let means = command.from_states().contains(&state.as_str());
                let expected = means.then_some(command.leads_to());
                assert_eq!(state.after(command), expected, "{state:?} {command:?}");
            }
        }
    }
}
