//! The outbox: parked rows are released or discarded, after a preview.

use sagabus_core::admin::{Action, Page, RowFilter, RowState, StoreAdmin, StoredRow};

use crate::error::OpsError;
use crate::operator::Operator;

/// What is done with parked rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    /// Hosts try them again.
    Release,
    /// They are removed; their audit entry is what is left.
    Discard,
}

/// Reads parked rows that a change would touch, the oldest first, without bodies.
///
/// # Errors
/// [`OpsError::Store`] when the store does not answer.
pub async fn select(
    admin: &dyn StoreAdmin,
    filter: &RowFilter,
    limit: u32,
) -> Result<Vec<StoredRow>, OpsError> {
    let filter = RowFilter {
        state: Some(RowState::Parked),
        ..filter.clone()
    };
    let page = Page::oldest(limit).without_bodies();
    Ok(admin.rows(&filter, page).await?)
}

/// Changes parked rows and returns the ids of those that were changed. A command that still nobody
/// takes is not released.
///
/// # Errors
/// [`OpsError::Store`]: then nothing was changed, unless its outcome is unknown.
pub async fn change(
    admin: &dyn StoreAdmin,
    operator: &Operator,
    verb: Verb,
    rows: &[StoredRow],
) -> Result<Vec<i64>, OpsError> {
    let ids = rows.iter().map(|row| row.id).collect();
    let action = match verb {
        Verb::Release => Action::ReleaseRows(ids),
        Verb::Discard => Action::DiscardRows(ids),
    };
    Ok(admin.change(&operator.does(action)).await?)
}

/// Reads one row, with its body.
///
/// # Errors
/// [`OpsError::NotFound`] when there is none of this id: it was sent, or never was.
pub async fn show(admin: &dyn StoreAdmin, id: i64) -> Result<StoredRow, OpsError> {
    let filter = RowFilter {
        id: Some(id),
        ..RowFilter::default()
    };
    let found = admin.rows(&filter, Page::latest(1)).await?;
    found.into_iter().next().ok_or_else(|| {
        OpsError::NotFound(format!(
            "the outbox has no row {id}: it was sent, or discarded, or never was [SB0401]"
        ))
    })
}
