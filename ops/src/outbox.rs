//! The outbox: a preview of the rows that a change is for. What is done with many is an operation.

use sagabus_core::admin::{Action, Page, RowFilter, RowVerb, StoreAdmin, StoredRow};

use crate::error::OpsError;
use crate::operator::Operator;
use crate::selection::{SAMPLE, Selection};

/// Counts and freezes what is meant, timers and the places of dead letters left out. Changes nothing.
///
/// # Errors
/// [`OpsError::Store`] when the store does not answer.
pub async fn select(
    admin: &dyn StoreAdmin,
    verb: &RowVerb,
    filter: RowFilter,
) -> Result<Selection<RowFilter, StoredRow>, OpsError> {
    let mut filter = RowFilter {
        state: verb.state(),
        is_changeable: true,
        ..filter
    };
    let tally = admin.count_rows(&filter).await?;
    filter.id_max = filter.id_max.or(tally.id_max).or(Some(0));
    let sample = admin
        .rows(&filter, Page::oldest(SAMPLE).without_bodies())
        .await?;
    Ok(Selection {
        filter,
        tally,
        sample,
    })
}

/// Changes rows that are named, in one transaction, and returns the ids of those that were changed. A
/// command that still nobody takes is not released.
///
/// # Errors
/// [`OpsError::Store`]: then nothing was changed, unless its outcome is unknown.
pub async fn change(
    admin: &dyn StoreAdmin,
    operator: &Operator,
    verb: RowVerb,
    ids: Vec<i64>,
) -> Result<Vec<i64>, OpsError> {
    let action = Action::ChangeRows { ids, verb };
    Ok(admin.change(&operator.does(action)).await?)
}

/// Reads one row, with its body.
///
/// # Errors
/// [`OpsError::NotFound`] when there is none of this id: it was sent, or never was.
pub async fn show(admin: &dyn StoreAdmin, id: i64) -> Result<StoredRow, OpsError> {
    let filter = RowFilter {
        ids: Some(vec![id]),
        ..RowFilter::default()
    };
    let found = admin.rows(&filter, Page::latest(1)).await?;
    found.into_iter().next().ok_or_else(|| {
        OpsError::NotFound(format!(
            "the outbox has no row {id}: it was sent, or discarded, or never was [SB0401]"
        ))
    })
}
