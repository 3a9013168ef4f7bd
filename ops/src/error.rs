//! Why an operator's action was not done.

use sagabus_core::StoreError;

/// Returned by the functions of this crate.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpsError {
    /// What was named is not there, or not in the state that the action is for.
    #[error("{0}")]
    NotFound(String),
    /// The action would harm what runs. The text says what to do first.
    #[error("{0}")]
    Refused(String),
    /// The store did not do it.
    #[error(transparent)]
    Store(#[from] StoreError),
}
