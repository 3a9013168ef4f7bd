//! What PostgreSQL's error codes mean to the engine.

use std::borrow::Cow;
use std::fmt::Display;

use sagabus_core::StoreError;
use sqlx::error::DatabaseError;
use sqlx::postgres::{PgDatabaseError, PgSeverity};

/// Raised by our functions where the transaction that was opened for a handler is no more.
const TRANSACTION_ENDED: &str = "SGB01";
/// A statement of the transaction failed before, and somebody went on nevertheless.
const IN_FAILED_TRANSACTION: &str = "25P02";
/// The server is a replica, or was made one meanwhile.
const READ_ONLY: &str = "25006";
/// Somebody holds a lock for longer than we wait.
const LOCK_NOT_AVAILABLE: &str = "55P03";

/// Sorts an error of a call that writes nothing.
pub(crate) fn store_error(error: sqlx::Error) -> StoreError {
    match commit_error(error) {
        StoreError::Unknown(source) => StoreError::Unavailable(source),
        other => other,
    }
}

/// Sorts an error of a call that may have committed: where the connection is lost, only asking
/// again tells.
pub(crate) fn commit_error(error: sqlx::Error) -> StoreError {
    let code = error.as_database_error().and_then(DatabaseError::code);
    if let Some(code) = code.map(Cow::into_owned) {
        return by_code(&code, error);
    }
    match &error {
        sqlx::Error::Encode(_) => StoreError::Refused(error.into()),
        sqlx::Error::Io(_) | sqlx::Error::Protocol(_) | sqlx::Error::WorkerCrashed => {
            StoreError::Unknown(error.into())
        }
        _ => StoreError::Other(error.into()),
    }
}

/// Says that the server did not answer a call in time that may have committed.
pub(super) fn late() -> StoreError {
    StoreError::Unknown(std::io::Error::from(std::io::ErrorKind::TimedOut).into())
}

/// Sorts an error of connecting to `place`: nothing was sent.
pub(super) fn connect_error(error: sqlx::Error, place: impl Display) -> StoreError {
    match &error {
        sqlx::Error::Configuration(_) | sqlx::Error::Tls(_) => StoreError::Setup(format!(
            "cannot connect to PostgreSQL: {}",
            sagabus_core::error::chain(&error)
        )),
        // Wrong password, no such role, no such database: waiting does not help.
        sqlx::Error::Database(database)
            if database
                .code()
                .is_some_and(|code| code.starts_with("28") || code == "3D000") =>
        {
            StoreError::Setup(format!(
                "PostgreSQL refuses the connection ({}); check role, password and database in the \
                 URL [SB0211]",
                database.message()
            ))
        }
        _ => StoreError::Unavailable(format!("{place}: {error}").into()),
    }
}

/// Says whether a connection may be used again after this error.
pub(super) fn is_harmless(error: &sqlx::Error) -> bool {
    let Some(database) = error.as_database_error() else {
        return matches!(error, sqlx::Error::Encode(_) | sqlx::Error::RowNotFound);
    };
    let severity = database
        .try_downcast_ref::<PgDatabaseError>()
        .map(PgDatabaseError::severity);
    severity == Some(PgSeverity::Error) && database.code().as_deref() != Some(READ_ONLY)
}

/// Says whether an error of a user's SQL is no fault of the statement: the server or the way to it
/// was lost, or somebody else was faster. Where the user's own time-out ended it, it is.
pub(super) fn is_excuse(error: &sqlx::Error) -> bool {
    /// A statement time-out, or somebody's `pg_cancel_backend`.
    const QUERY_CANCELED: &str = "57014";
    let code = error.as_database_error().and_then(DatabaseError::code);
    match code.as_deref() {
        Some(QUERY_CANCELED) => false,
        Some(READ_ONLY) => true,
        Some(code) => matches!(code.get(..2), Some("08" | "40" | "53" | "57")),
        None => matches!(error, sqlx::Error::Io(_) | sqlx::Error::WorkerCrashed),
    }
}

fn by_code(code: &str, error: sqlx::Error) -> StoreError {
    match (code, code.get(..2).unwrap_or_default()) {
        (TRANSACTION_ENDED, _) => StoreError::TransactionEnded,
        (IN_FAILED_TRANSACTION, _) => StoreError::Other(error.into()),
        (READ_ONLY, _) | (_, "53") => StoreError::Unavailable(error.into()),
        // 21: the same row twice in one call, which splitting the group separates.
        (_, "21" | "22" | "23" | "54") => StoreError::Refused(error.into()),
        (LOCK_NOT_AVAILABLE, _) | (_, "40") => StoreError::Busy(error.into()),
        (_, "08" | "57") => StoreError::Unknown(error.into()),
        (_, "42" | "3F") => StoreError::Setup(setup_text(&error)),
        _ => StoreError::Other(error.into()),
    }
}

fn setup_text(error: &sqlx::Error) -> String {
    let message = error.as_database_error().map_or("", DatabaseError::message);
    format!(
        "the schema `sagabus` cannot be used ({message}); run `store.migrate()` with this release, \
         and let this role use the schema"
    )
}
