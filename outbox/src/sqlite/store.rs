//! `SqliteStore`: opening the file, and where each call goes.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use sagabus_core::backlog::Extended;
use sagabus_core::store::{
    Answer, Attached, Claim, ClaimedRow, CommitReport, Extension, Group, Question, Registration,
    Retention, Store, Swept,
};
use sagabus_core::{Lifecycle, StoreError};
use sqlx::sqlite::{
    SqliteConnectOptions, SqliteConnection, SqliteJournalMode, SqlitePool, SqlitePoolOptions,
    SqliteSynchronous,
};
use sqlx::{ConnectOptions, Executor, Row};
use tokio::sync::Mutex;
use tokio::time::timeout;

use super::sweep::Cursors;
use super::writer::{Write, Writer};
use super::{attach, claim, commit, extend, load, migrate, sweep};
use crate::nudge::Nudger;
use crate::wakeup::Wakeups;

/// Where the file is and how it is used.
#[derive(Clone, Debug)]
pub struct SqliteConfig {
    /// The database file; made when it does not exist, its directory is not.
    pub path: PathBuf,
    /// How long a write waits for others: another process's write, or an open transaction of this
    /// one. Default 5 s, far above what a group of the engine's own takes.
    pub busy_timeout: Duration,
    /// Connections that read beside the one that writes. Default 3: the loader asks one question
    /// at a time, the rest is for tools and for the user's own queries.
    pub readers_max: u32,
    /// How often other processes' commits are looked for. Default 10 ms, half of the 20 ms within
    /// which a message written by another process is to be seen.
    pub wakeup_interval: Duration,
    /// How long a handler may hold the one writer through its `Tx`, from its first statement on.
    /// Default 1 s; then the handler has failed and is rolled back.
    pub tx_limit: Duration,
}

impl SqliteConfig {
    /// Makes the default configuration for a file.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            busy_timeout: Duration::from_secs(5),
            readers_max: 3,
            wakeup_interval: Duration::from_millis(10),
            tx_limit: Duration::from_secs(1),
        }
    }

    fn options(&self) -> SqliteConnectOptions {
        SqliteConnectOptions::new()
            .filename(&self.path)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            // A commit that was seen is on the disk: messages are acknowledged on its word.
            .synchronous(SqliteSynchronous::Full)
            .foreign_keys(true)
            .busy_timeout(self.busy_timeout)
            // Texts differ by which sections a group has; a few dozen in practice.
            .statement_cache_capacity(256)
            .disable_statement_logging()
    }
}

/// A database file that keeps inbox, outbox, instances, history and dead letters.
///
/// Cheap to clone: clones share the connections.
///
/// # Examples
/// ```no_run
/// # async fn open() -> Result<(), sagabus_core::StoreError> {
/// let store = sagabus_outbox::SqliteStore::open("orders.db").await?;
/// store.migrate().await?;
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct SqliteStore {
    inner: Arc<Inner>,
}

/// What clones share.
struct Inner {
    config: SqliteConfig,
    writer: Arc<Mutex<Writer>>,
    readers: SqlitePool,
    wakeups: Arc<Wakeups>,
    nudger: Nudger,
    /// Owns the tasks that roll back for cancelled futures.
    cleanup: Lifecycle,
    cursors: Cursors,
}

impl SqliteStore {
    /// Opens a file with the default configuration, making it when it does not exist.
    ///
    /// # Errors
    /// As [`open_with`](Self::open_with).
    pub async fn open(path: impl AsRef<Path>) -> Result<Self, StoreError> {
        Self::open_with(SqliteConfig::new(path.as_ref())).await
    }

    /// Opens a file, and checks that it can be written and that SQLite keeps its promises there.
    ///
    /// # Errors
    /// [`StoreError::Setup`] with what to do when the directory does not exist, the file cannot
    /// be written, is no database, or does not take write-ahead logging; [`StoreError::Busy`] when
    /// another process holds it for longer than the busy time-out.
    pub async fn open_with(config: SqliteConfig) -> Result<Self, StoreError> {
        check_path(&config.path)?;
        let options = config.options();
        let mut connection = options
            .connect()
            .await
            .map_err(|error| open_error(&config.path, error))?;
        check_connection(&config, &mut connection).await?;
        let readers = SqlitePoolOptions::new()
            .max_connections(config.readers_max.max(1))
            .test_before_acquire(false)
            .connect_lazy_with(options.clone().pragma("query_only", "on"));
        let wakeups = Arc::new(Wakeups::new());
        let nudged = Arc::clone(&wakeups);
        Ok(Self {
            inner: Arc::new(Inner {
                writer: Arc::new(Mutex::new(Writer::new(options, connection))),
                readers,
                wakeups,
                nudger: Nudger::new(move || nudged.nudge()),
                cleanup: Lifecycle::new(),
                cursors: Cursors::default(),
                config,
            }),
        })
    }

    /// Creates or updates the tables, under a lock. Running it again changes nothing.
    ///
    /// # Errors
    /// [`StoreError::Setup`] when the file was migrated by a newer release.
    ///
    /// # Cancel safety
    /// One transaction: whole or not at all.
    pub async fn migrate(&self) -> Result<(), StoreError> {
        migrate::migrate(self).await
    }

    /// Returns the statements of every migration with its number, for those who run their own.
    pub fn migrations() -> &'static [(i32, &'static str)] {
        migrate::migrations()
    }

    /// Returns the connections that read, for the user's own queries. They refuse to write.
    pub fn reader(&self) -> &SqlitePool {
        &self.inner.readers
    }

    /// Wakes every host that is attached: rows may have become available.
    pub fn nudge(&self) {
        self.inner.wakeups.nudge();
    }

    /// Closes the connections that read. The one that writes ends with the last clone.
    pub async fn close(&self) {
        self.inner.readers.close().await;
    }

    pub(super) fn path(&self) -> &Path {
        &self.inner.config.path
    }

    pub(super) fn config(&self) -> &SqliteConfig {
        &self.inner.config
    }

    pub(super) fn wakeups(&self) -> &Wakeups {
        &self.inner.wakeups
    }

    pub(super) fn cursors(&self) -> &Cursors {
        &self.inner.cursors
    }

    pub(super) fn nudger(&self) -> &Nudger {
        &self.inner.nudger
    }

    /// Waits for the right to write.
    ///
    /// # Errors
    /// [`StoreError::Busy`] when somebody of this process holds it for longer than the busy
    /// time-out: a handler's or an API's open transaction.
    pub(super) async fn write(&self) -> Result<Write, StoreError> {
        let acquired = Write::acquire(&self.inner.writer, &self.inner.cleanup);
        let acquired = timeout(self.inner.config.busy_timeout, acquired).await;
        acquired.map_err(|elapsed| StoreError::Busy(elapsed.into()))
    }

    /// Takes the right to write if nobody has it.
    pub(super) fn try_write(&self) -> Option<Write> {
        Write::try_acquire(&self.inner.writer, &self.inner.cleanup)
    }
}

impl fmt::Debug for SqliteStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SqliteStore")
            .field("path", &self.inner.config.path)
            .finish_non_exhaustive()
    }
}

impl Store for SqliteStore {
    fn attach<'a>(
        &'a self,
        registration: &'a Registration,
        lifecycle: &'a Lifecycle,
    ) -> BoxFuture<'a, Result<Attached, StoreError>> {
        attach::attach(self, registration, lifecycle).boxed()
    }

    fn load<'a>(
        &'a self,
        questions: &'a [Question],
    ) -> BoxFuture<'a, Result<Vec<Answer>, StoreError>> {
        load::load(self, questions).boxed()
    }

    fn commit<'a>(&'a self, group: &'a Group) -> BoxFuture<'a, Result<CommitReport, StoreError>> {
        commit::commit(self, group).boxed()
    }

    fn claim<'a>(&'a self, claim: &'a Claim) -> BoxFuture<'a, Result<Vec<ClaimedRow>, StoreError>> {
        claim::claim(self, claim).boxed()
    }

    fn extend<'a>(
        &'a self,
        extension: &'a Extension,
    ) -> BoxFuture<'a, Result<Extended, StoreError>> {
        extend::extend(self, extension).boxed()
    }

    fn sweep<'a>(&'a self, retention: &'a Retention) -> BoxFuture<'a, Result<Swept, StoreError>> {
        sweep::sweep(self, retention).boxed()
    }
}

/// Refuses what SQLite would only call "unable to open database file".
fn check_path(path: &Path) -> Result<(), StoreError> {
    let shown = path.display();
    if path.is_dir() {
        return Err(StoreError::Setup(format!(
            "`{shown}` is a directory; give the path of a file in it [SB0216]"
        )));
    }
    let directory = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => return Ok(()),
    };
    if directory.is_dir() {
        return Ok(());
    }
    Err(StoreError::Setup(format!(
        "cannot open `{shown}`: there is no directory `{}`; create it first [SB0216]",
        directory.display()
    )))
}

/// Reads back what was asked for: SQLite answers a setting that it cannot keep with silence.
async fn check_connection(
    config: &SqliteConfig,
    connection: &mut SqliteConnection,
) -> Result<(), StoreError> {
    const SETTINGS: &str = "select (select journal_mode from pragma_journal_mode), \
        (select synchronous from pragma_synchronous), \
        (select foreign_keys from pragma_foreign_keys)";
    let path = &config.path;
    let row = connection
        .fetch_one(SETTINGS)
        .await
        .map_err(|error| open_error(path, error))?;
    let settings: (String, i64, i64) = (row.get(0), row.get(1), row.get(2));
    if settings != ("wal".to_owned(), 2, 1) {
        return Err(StoreError::Setup(format!(
            "`{}` does not keep write-ahead logging with full synchronisation (journal_mode, \
             synchronous, foreign_keys are {settings:?}); put the file on a local disk [SB0216]",
            path.display()
        )));
    }
    // Opening falls back to reading only without a word; beginning to write does not.
    connection
        .execute("begin immediate; rollback")
        .await
        .map(|_| ())
        .map_err(|error| open_error(path, error))
}

/// Says what to do about a file that cannot be used.
fn open_error(path: &Path, error: sqlx::Error) -> StoreError {
    let shown = path.display();
    match super::error::store_error(error) {
        StoreError::Unavailable(source) => StoreError::Setup(format!(
            "cannot write `{shown}` ({source}); the process needs to read and write the file and \
             its directory"
        )),
        StoreError::Other(source) => StoreError::Setup(format!(
            "cannot use `{shown}` as a database ({source}); give the path of a SQLite file or of \
             a new one"
        )),
        other => other,
    }
}
