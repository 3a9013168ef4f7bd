//! Dead letters: preview, then redrive, discard or restore, in batches.

use std::fmt;

use sagabus_core::admin::{
    Action, DeadLetterFilter, DeadLetterStatus, Page, StoreAdmin, StoredDeadLetter, Tally,
};

use crate::error::OpsError;
use crate::operator::Operator;

/// How many dead letters a preview shows.
pub const SAMPLE: u32 = 5;

/// What is done with dead letters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    /// They become rows of their endpoints again.
    Redrive,
    /// They are not wanted any more, and stay readable.
    Discard,
    /// Discarded ones are open again.
    Restore,
}

impl Verb {
    /// Returns the status that a dead letter has for this to be done with it.
    pub const fn takes(self) -> DeadLetterStatus {
        match self {
            Self::Redrive | Self::Discard => DeadLetterStatus::Open,
            Self::Restore => DeadLetterStatus::Discarded,
        }
    }

    fn action(self, ids: Vec<i64>) -> Action {
        match self {
            Self::Redrive => Action::RedriveDeadLetters(ids),
            Self::Discard => Action::DiscardDeadLetters(ids),
            Self::Restore => Action::RestoreDeadLetters(ids),
        }
    }
}

/// What a change would touch, frozen: what dies later is not in it.
#[derive(Clone, Debug, PartialEq)]
pub struct Selection {
    /// What is done.
    pub verb: Verb,
    /// What is meant, with its largest id.
    pub filter: DeadLetterFilter,
    /// How many, when it was frozen.
    pub tally: Tally,
    /// The first few, without bodies.
    pub sample: Vec<StoredDeadLetter>,
}

/// Counts and freezes what is meant. Changes nothing.
///
/// # Errors
/// [`OpsError::Store`] when the store does not answer.
pub async fn select(
    admin: &dyn StoreAdmin,
    verb: Verb,
    filter: DeadLetterFilter,
) -> Result<Selection, OpsError> {
    let mut filter = DeadLetterFilter {
        status: Some(verb.takes()),
        ..filter
    };
    let tally = admin.count_dead_letters(&filter).await?;
    filter.id_max = filter.id_max.or(tally.id_max).or(Some(0));
    let sample = admin
        .find_dead_letters(&filter, Page::oldest(SAMPLE).without_bodies())
        .await?;
    Ok(Selection {
        verb,
        filter,
        tally,
        sample,
    })
}

/// How far a bulk change is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// How many were changed.
    pub changed: u64,
    /// How many were not as expected any more when it was their turn.
    pub passed_over: u64,
    /// The last id that was looked at.
    pub last: Option<i64>,
}

/// A bulk change under way: one batch per call, each its own transaction.
///
/// Dropping it stops the change between two batches. Selecting the same again, with the same
/// largest id, goes on where it stopped: what is done is not selected any more.
pub struct Work<'a> {
    admin: &'a dyn StoreAdmin,
    operator: &'a Operator,
    selection: &'a Selection,
    progress: Progress,
}

impl fmt::Debug for Work<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Work")
            .field("selection", &self.selection)
            .field("progress", &self.progress)
            .finish_non_exhaustive()
    }
}

impl<'a> Work<'a> {
    /// Begins to work a selection off, the oldest first.
    pub fn new(
        admin: &'a dyn StoreAdmin,
        operator: &'a Operator,
        selection: &'a Selection,
    ) -> Self {
        Self {
            admin,
            operator,
            selection,
            progress: Progress::default(),
        }
    }

    /// Returns what is worked off.
    pub fn selection(&self) -> &Selection {
        self.selection
    }

    /// Returns how far it is.
    pub fn progress(&self) -> Progress {
        self.progress
    }

    /// Changes the next batch; `None` when nothing is left.
    ///
    /// # Errors
    /// [`OpsError::Store`]: the batch is changed whole or not at all, and calling again goes on.
    pub async fn batch(&mut self, size: u32) -> Result<Option<Progress>, OpsError> {
        let page = Page::oldest(size.max(1))
            .behind(self.progress.last)
            .without_bodies();
        let found = self
            .admin
            .find_dead_letters(&self.selection.filter, page)
            .await?;
        let ids: Vec<i64> = found.iter().map(|one| one.id).collect();
        let Some(last) = ids.last().copied() else {
            return Ok(None);
        };
        let wanted = ids.len() as u64;
        let change = self.operator.does(self.selection.verb.action(ids));
        let changed = self.admin.change(&change).await?.len() as u64;
        self.progress.changed += changed;
        self.progress.passed_over += wanted - changed;
        self.progress.last = Some(last);
        Ok(Some(self.progress))
    }
}

/// Changes dead letters that are named one by one, all in one transaction, and returns the ids of
/// those that were changed.
///
/// # Errors
/// [`OpsError::Store`]: also when more are named than one change takes.
pub async fn change(
    admin: &dyn StoreAdmin,
    operator: &Operator,
    verb: Verb,
    ids: Vec<i64>,
) -> Result<Vec<i64>, OpsError> {
    Ok(admin.change(&operator.does(verb.action(ids))).await?)
}

/// Reads one dead letter, in whatever state it is.
///
/// # Errors
/// [`OpsError::NotFound`] when there is none of this id.
pub async fn show(admin: &dyn StoreAdmin, id: i64) -> Result<StoredDeadLetter, OpsError> {
    let filter = DeadLetterFilter {
        id: Some(id),
        ..DeadLetterFilter::any()
    };
    let found = admin.find_dead_letters(&filter, Page::latest(1)).await?;
    found.into_iter().next().ok_or_else(|| {
        OpsError::NotFound(format!(
            "there is no dead letter {id}; `sagabus dead-letters list` shows those there are [SB0401]"
        ))
    })
}
