//! The one connection that writes, and its transactions: ended or rolled back, whatever happens to
//! the future that opened them.

use std::sync::Arc;

use futures_util::TryStreamExt;
use sagabus_core::{Lifecycle, StoreError};
use sqlx::sqlite::{
    SqliteArguments, SqliteConnectOptions, SqliteConnection, SqliteRow, SqliteTransactionManager,
};
use sqlx::{ConnectOptions, Either, Executor, SqlSafeStr};
use sqlx_core::transaction::TransactionManager;
use tokio::runtime::Handle;
use tokio::sync::{Mutex, OwnedMutexGuard};

use super::error::{commit_error, store_error};

/// A savepoint ends with its transaction, by commit or rollback: while it is there, it is ours.
const MARK: &str = "savepoint sagabus_tx";

const END_MARK: &str = "release sagabus_tx";

/// What one statement of a text did.
#[derive(Debug)]
pub(crate) struct Reply {
    /// Rows that it inserted, updated or deleted; for other statements, what the last one did.
    pub(crate) changes: u64,
    /// The id of the last row that was inserted on this connection.
    pub(crate) last_id: i64,
    /// What it returned.
    pub(crate) rows: Vec<SqliteRow>,
}

/// The connection that writes. SQLite lets one write at a time anyway; queueing here is fair and
/// costs nothing, where SQLite's own busy handler sleeps and lets others pass.
#[derive(Debug)]
pub(crate) struct Writer {
    options: SqliteConnectOptions,
    connection: Option<SqliteConnection>,
    /// A transaction may be open: set before `BEGIN` is sent, unset after its end was seen.
    is_open: bool,
}

impl Writer {
    /// Wraps an open connection, and how to open another one should its thread die.
    pub(crate) fn new(options: SqliteConnectOptions, connection: SqliteConnection) -> Self {
        Self {
            options,
            connection: Some(connection),
            is_open: false,
        }
    }

    /// Returns the connection, a new one where the last was lost.
    async fn connection(&mut self) -> Result<&mut SqliteConnection, sqlx::Error> {
        if self.connection.is_none() {
            self.connection = Some(self.options.connect().await?);
            self.is_open = false;
        }
        self.connection.as_mut().ok_or(sqlx::Error::WorkerCrashed)
    }

    /// Runs a text of statements to its end or its first error.
    async fn run(
        &mut self,
        text: impl SqlSafeStr,
        arguments: SqliteArguments,
    ) -> Result<Vec<Reply>, sqlx::Error> {
        run(self.connection().await?, text, arguments).await
    }

    /// Ends whatever transaction is open, by closing the connection if there is no other way.
    async fn clean(&mut self) {
        if !self.is_open {
            return;
        }
        if let Some(connection) = self.connection.as_mut()
            && roll_back_all(connection).await.is_err()
        {
            self.connection = None;
        }
        self.is_open = false;
    }
}

/// Runs a text of statements to its end or its first error.
pub(crate) async fn run(
    connection: &mut SqliteConnection,
    text: impl SqlSafeStr,
    arguments: SqliteArguments,
) -> Result<Vec<Reply>, sqlx::Error> {
    let mut results = connection.fetch_many(sqlx::query_with(text, arguments));
    let mut replies = Vec::with_capacity(16);
    let mut rows = Vec::new();
    while let Some(result) = results.try_next().await? {
        match result {
            Either::Right(row) => rows.push(row),
            Either::Left(done) => replies.push(Reply {
                changes: done.rows_affected(),
                last_id: done.last_insert_rowid(),
                rows: std::mem::take(&mut rows),
            }),
        }
    }
    Ok(replies)
}

/// Rolls back what the driver counts, a user's open savepoints included, and what it does not.
async fn roll_back_all(connection: &mut SqliteConnection) -> Result<(), sqlx::Error> {
    while SqliteTransactionManager::get_transaction_depth(connection) > 0 {
        SqliteTransactionManager::rollback(connection).await?;
    }
    match connection.execute("rollback").await {
        Err(error) if !has_no_transaction(&error) => Err(error),
        _ => Ok(()),
    }
}

/// Says whether `ROLLBACK` failed because there was nothing to roll back.
fn has_no_transaction(error: &sqlx::Error) -> bool {
    error
        .as_database_error()
        .is_some_and(|error| error.message().contains("no transaction is active"))
}

/// Says whether a savepoint is gone, which ends with its transaction.
fn has_no_savepoint(error: &sqlx::Error) -> bool {
    error
        .as_database_error()
        .is_some_and(|error| error.message().contains("no such savepoint"))
}

async fn begin_marked(connection: &mut SqliteConnection) -> Result<(), sqlx::Error> {
    let begin = "begin immediate".into_sql_str();
    SqliteTransactionManager::begin(connection, Some(begin)).await?;
    connection.execute(MARK).await.map(|_| ())
}

async fn end_mark(connection: &mut SqliteConnection) -> Result<(), sqlx::Error> {
    while SqliteTransactionManager::get_transaction_depth(connection) > 1 {
        SqliteTransactionManager::commit(connection).await?;
    }
    connection.execute(END_MARK).await.map(|_| ())
}

/// The right to write, for one transaction at a time.
///
/// Dropped in the middle of a transaction (a cancelled future), it rolls back before anybody else
/// gets the connection: sqlx would leave the transaction open, and what others then write would
/// vanish with it.
#[derive(Debug)]
pub(crate) struct Write {
    writer: Option<OwnedMutexGuard<Writer>>,
    cleanup: Lifecycle,
}

impl Write {
    /// Waits for the connection.
    pub(crate) async fn acquire(writer: &Arc<Mutex<Writer>>, cleanup: &Lifecycle) -> Self {
        let mut guard = Arc::clone(writer).lock_owned().await;
        guard.clean().await;
        Self {
            writer: Some(guard),
            cleanup: cleanup.clone(),
        }
    }

    /// Takes the connection if nobody has it.
    pub(crate) fn try_acquire(writer: &Arc<Mutex<Writer>>, cleanup: &Lifecycle) -> Option<Self> {
        let guard = Arc::clone(writer).try_lock_owned().ok()?;
        Some(Self {
            writer: Some(guard),
            cleanup: cleanup.clone(),
        })
    }

    fn writer(&mut self) -> &mut Writer {
        self.writer
            .as_mut()
            .expect("only drop takes the guard away")
    }

    /// Returns the connection for statements inside the open transaction.
    pub(crate) async fn connection(&mut self) -> Result<&mut SqliteConnection, StoreError> {
        self.writer().connection().await.map_err(store_error)
    }

    /// Runs a text that begins and commits.
    ///
    /// # Errors
    /// As SQLite says; whatever was begun is rolled back.
    pub(crate) async fn whole(
        &mut self,
        text: impl SqlSafeStr,
        arguments: SqliteArguments,
    ) -> Result<Vec<Reply>, sqlx::Error> {
        let writer = self.writer();
        writer.clean().await;
        writer.is_open = true;
        let replies = writer.run(text, arguments).await;
        match replies {
            Ok(_) => writer.is_open = false,
            Err(_) => writer.clean().await,
        }
        replies
    }

    /// Runs a text that begins, or goes on in what was begun.
    ///
    /// # Errors
    /// As SQLite says; whatever was begun is rolled back.
    pub(crate) async fn step(
        &mut self,
        text: impl SqlSafeStr,
        arguments: SqliteArguments,
    ) -> Result<Vec<Reply>, StoreError> {
        let writer = self.writer();
        writer.is_open = true;
        let replies = writer.run(text, arguments).await;
        if replies.is_err() {
            writer.clean().await;
        }
        replies.map_err(store_error)
    }

    /// Begins a transaction that a user's code goes on with, counted by the driver so that its own
    /// nested ones become savepoints, and marked so that an end of it is noticed.
    ///
    /// # Errors
    /// As SQLite says; nothing is begun then.
    pub(crate) async fn lend(&mut self) -> Result<(), StoreError> {
        let writer = self.writer();
        writer.is_open = true;
        let begun = match writer.connection().await {
            Ok(connection) => begin_marked(connection).await,
            Err(error) => Err(error),
        };
        if begun.is_err() {
            writer.clean().await;
        }
        begun.map_err(store_error)
    }

    /// Takes back what was lent: ends the user's open savepoints and the mark.
    ///
    /// # Errors
    /// [`StoreError::TransactionEnded`] when it is not the same transaction any more; whatever is
    /// open is rolled back.
    pub(crate) async fn take_back(&mut self) -> Result<(), StoreError> {
        let writer = self.writer();
        let taken = match writer.connection().await {
            Ok(connection) => end_mark(connection).await,
            Err(error) => Err(error),
        };
        let Err(error) = taken else {
            return Ok(());
        };
        writer.clean().await;
        Err(match has_no_savepoint(&error) {
            true => StoreError::TransactionEnded,
            false => store_error(error),
        })
    }

    /// Commits what was lent and taken back.
    ///
    /// # Errors
    /// As [`commit`](Self::commit).
    pub(crate) async fn commit_lent(&mut self) -> Result<(), StoreError> {
        let writer = self.writer();
        let done = match writer.connection().await {
            Ok(connection) => SqliteTransactionManager::commit(connection).await,
            Err(error) => Err(error),
        };
        match done {
            Ok(()) => writer.is_open = false,
            Err(_) => writer.clean().await,
        }
        done.map_err(commit_error)
    }

    /// Commits what was begun.
    ///
    /// # Errors
    /// [`StoreError::Unknown`] when only asking again tells; otherwise nothing was written.
    pub(crate) async fn commit(&mut self) -> Result<(), StoreError> {
        let writer = self.writer();
        let done = writer.run("commit", SqliteArguments::default()).await;
        match done {
            Ok(_) => writer.is_open = false,
            Err(_) => writer.clean().await,
        }
        done.map(|_| ()).map_err(commit_error)
    }

    /// Rolls back what was begun.
    pub(crate) async fn rollback(&mut self) {
        self.writer().clean().await;
    }
}

impl Drop for Write {
    fn drop(&mut self) {
        let Some(mut guard) = self.writer.take_if(|writer| writer.is_open) else {
            return;
        };
        // Without a runtime nobody can wait here; whoever writes next cleans up first.
        if Handle::try_current().is_ok() {
            self.cleanup.spawn_uncut(async move { guard.clean().await });
        }
    }
}
