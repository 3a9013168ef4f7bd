//! Timers of instances: moved, fired, cancelled while they are not due yet.

use sagabus_core::admin::{Action, Page, RowFilter, RowState, StoreAdmin, StoredRow};
use sagabus_core::{InstanceId, Timestamp};

use crate::error::OpsError;
use crate::operator::Operator;

/// What is done with a timer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    /// It is due at another time.
    Move(Timestamp),
    /// It is due now.
    Fire,
    /// Its instance waits for it no more.
    Cancel,
}

/// Reads timers, without their bodies: those of one type, or that one instance armed.
///
/// # Errors
/// [`OpsError::Store`] when the store does not answer.
pub async fn list(
    admin: &dyn StoreAdmin,
    message_type: Option<&str>,
    owner: Option<InstanceId>,
    page: Page,
) -> Result<Vec<StoredRow>, OpsError> {
    let filter = RowFilter {
        state: Some(RowState::Timer),
        message_type: message_type.map(str::to_owned),
        owner,
        ..RowFilter::default()
    };
    Ok(admin.rows(&filter, page.without_bodies()).await?)
}

/// Reads one timer, with its body.
///
/// # Errors
/// [`OpsError::NotFound`] when no timer has this id: it fired, was cancelled, or never was.
pub async fn show(admin: &dyn StoreAdmin, id: i64) -> Result<StoredRow, OpsError> {
    let filter = RowFilter {
        state: Some(RowState::Timer),
        ids: Some(vec![id]),
        ..RowFilter::default()
    };
    let found = admin.rows(&filter, Page::latest(1)).await?;
    found.into_iter().next().ok_or_else(|| {
        OpsError::NotFound(format!(
            "no timer has the id {id}: it fired, was cancelled, or never was; `sagabus timers \
             list` shows those that are armed [SB0401]"
        ))
    })
}

/// Moves, fires or cancels a timer that is not due yet.
///
/// # Errors
/// [`OpsError::NotFound`] when no timer has this id; [`OpsError::Refused`] when it is due: then a
/// host handles it.
pub async fn change(
    admin: &dyn StoreAdmin,
    operator: &Operator,
    verb: Verb,
    id: i64,
) -> Result<(), OpsError> {
    show(admin, id).await?;
    let ids = vec![id];
    let action = match verb {
        Verb::Move(at) => {
            let due = Some(at);
            Action::MoveTimers { ids, due }
        }
        Verb::Fire => Action::MoveTimers { ids, due: None },
        Verb::Cancel => Action::CancelTimers(ids),
    };
    match admin.change(&operator.does(action)).await?.is_empty() {
        false => Ok(()),
        true => Err(OpsError::Refused(format!(
            "timer {id} is due: a host handles it, or has; nothing was changed [SB0403]"
        ))),
    }
}
