//! `PgStore`: connecting, and where each call goes.

use std::fmt;
use std::future::Future;
use std::str::FromStr;
use std::sync::{Arc, Weak};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use sagabus_core::backlog::Extended;
use sagabus_core::reach::is_this_machine;
use sagabus_core::store::{
    Answer, Attached, Claim, ClaimedRow, CommitReport, Extension, Group, Question, Registration,
    Retention, Store, Swept,
};
use sagabus_core::{Lifecycle, StoreError};
use sqlx::ConnectOptions;
use sqlx::postgres::{PgConnectOptions, PgSslMode};
use tokio::sync::Notify;
use tokio::time::timeout;

use super::claim::Marks;
use super::connections::{Connections, Taken};
use super::sweep::Cursors;
use super::{attach, claim, commit, extend, load, migrate, sweep};
use crate::nudge::Nudger;
use crate::wakeup::Wakeups;

/// How a PostgreSQL database is reached.
#[derive(Clone)]
pub struct PgConfig {
    /// Server, role, password and database.
    pub options: PgConnectOptions,
    /// The same database without a pooler in between, for `LISTEN` and `NOTIFY`. `None`: `options`
    /// go there directly. Without it a pooler in transaction mode loses wake-ups, and other hosts'
    /// messages wait for the next poll.
    pub direct: Option<PgConnectOptions>,
    /// Connections of the engine. Default 6: two committers, the loader, two claims, upkeep.
    pub engine_connections_max: usize,
    /// Connections of handlers' own transactions. Default 10, sqlx's own default for a pool.
    pub tx_connections_max: usize,
    /// How long connecting may take. Default 5 s.
    pub connect_timeout: Duration,
    /// How long a call waits for a connection that is in use. Default 30 s.
    pub wait_timeout: Duration,
    /// How long a call may go without an answer before its connection is given up and its outcome
    /// is unknown. Default 30 s: far above any group, far below a dead TCP peer's 15 minutes.
    pub call_timeout: Duration,
}

impl PgConfig {
    /// Makes the default configuration for a URL like `postgres://user:password@host/database`.
    ///
    /// Beyond this machine the server must prove its name by a certificate (`verify-full`), unless
    /// the URL says otherwise: `?sslmode=disable` goes without TLS.
    ///
    /// # Errors
    /// [`StoreError::Setup`] when it is no such URL. The text does not repeat it.
    pub fn new(url: &str) -> Result<Self, StoreError> {
        let options = PgConnectOptions::from_str(url).map_err(|_| {
            StoreError::Setup(
                "the database URL cannot be read; it looks like \
                 `postgres://user:password@host:5432/database` [SB0212]"
                    .to_owned(),
            )
        })?;
        Ok(Self {
            options: verified(options, url),
            direct: None,
            engine_connections_max: 6,
            tx_connections_max: 10,
            connect_timeout: Duration::from_secs(5),
            wait_timeout: Duration::from_secs(30),
            call_timeout: Duration::from_secs(30),
        })
    }

    fn connections(&self, count_max: usize) -> Arc<Connections> {
        let options = self.options.clone();
        Connections::new(options, count_max, self.connect_timeout, self.wait_timeout)
    }

    fn place(&self) -> Place<'_> {
        Place(&self.options)
    }
}

/// Asks a server beyond this machine for its certificate, where nobody has said otherwise. The
/// driver's own default goes on without TLS when the server, or somebody before it, has none.
fn verified(options: PgConnectOptions, url: &str) -> PgConnectOptions {
    let query = url.split_once('?').map_or("", |(_, query)| query);
    let mut names = query.split('&').filter_map(|pair| pair.split('=').next());
    let is_said = names.any(|name| ["sslmode", "ssl-mode"].contains(&name))
        || std::env::var_os("PGSSLMODE").is_some();
    match is_said || options.get_socket().is_some() || is_this_machine(options.get_host()) {
        true => options,
        false => options.ssl_mode(PgSslMode::VerifyFull),
    }
}

impl fmt::Debug for PgConfig {
    /// Leaves the password out, which the driver's own words for its options would show.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PgConfig")
            .field("server", &format_args!("{}", self.place()))
            .field("engine_connections_max", &self.engine_connections_max)
            .field("tx_connections_max", &self.tx_connections_max)
            .finish_non_exhaustive()
    }
}

/// Says where a database is, without its password.
pub(super) struct Place<'a>(pub(super) &'a PgConnectOptions);

impl fmt::Display for Place<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let user = self.0.get_username();
        write!(
            f,
            "{user}@{}:{}/{}",
            self.0.get_host(),
            self.0.get_port(),
            self.0.get_database().unwrap_or(user)
        )
    }
}

/// A PostgreSQL database that keeps inbox, outbox, instances, history and dead letters.
///
/// Cheap to clone: clones share the connections.
///
/// # Examples
/// ```no_run
/// # async fn open() -> Result<(), sagabus_core::StoreError> {
/// let store = sagabus_outbox::PgStore::connect("postgres://localhost/orders").await?;
/// store.migrate().await?;
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct PgStore {
    inner: Arc<Inner>,
}

/// What clones share.
struct Inner {
    config: PgConfig,
    engine: Arc<Connections>,
    tx: Arc<Connections>,
    wakeups: Wakeups,
    /// Asks the listeners to tell other processes.
    outbound: Notify,
    cursors: Cursors,
    marks: Marks,
    nudger: Nudger,
}

impl Inner {
    fn nudge(&self) {
        self.wakeups.nudge();
        self.outbound.notify_one();
    }
}

impl PgStore {
    /// Connects with the default configuration.
    ///
    /// # Errors
    /// As [`connect_with`](Self::connect_with).
    pub async fn connect(url: &str) -> Result<Self, StoreError> {
        Self::connect_with(PgConfig::new(url)?).await
    }

    /// Connects, and checks that the server answers.
    ///
    /// # Errors
    /// [`StoreError::Setup`] when role, password or database are refused;
    /// [`StoreError::Unavailable`] when the server does not answer.
    ///
    /// # Cancel safety
    /// Connecting again is harmless.
    pub async fn connect_with(mut config: PgConfig) -> Result<Self, StoreError> {
        // Statements are ours and always the same: what is worth logging is said by the engine.
        config.options = config.options.disable_statement_logging();
        let inner = Arc::new_cyclic(|inner: &Weak<Inner>| {
            let inner = Weak::clone(inner);
            Inner {
                engine: config.connections(config.engine_connections_max),
                tx: config.connections(config.tx_connections_max),
                wakeups: Wakeups::new(),
                outbound: Notify::new(),
                cursors: Cursors::default(),
                marks: Marks::default(),
                nudger: Nudger::new(move || inner.upgrade().iter().for_each(|one| one.nudge())),
                config,
            }
        });
        let store = Self { inner };
        store.inner.engine.take().await?.give_back();
        Ok(store)
    }

    /// Creates or updates the schema, under a lock. Running it again changes nothing.
    ///
    /// # Errors
    /// [`StoreError::Setup`] when the database was migrated by a newer release, is read-only, or
    /// its role may not create a schema.
    ///
    /// # Cancel safety
    /// One transaction: whole or not at all.
    pub async fn migrate(&self) -> Result<(), StoreError> {
        migrate::migrate(self).await
    }

    /// Returns the statements of every migration with its number, for those who run their own:
    /// each in a transaction.
    pub fn migrations() -> &'static [(i32, &'static str)] {
        migrate::migrations()
    }

    /// Returns the statements that make a role of the server for each role of the tools, with what
    /// it needs and no more. Run by who owns the schema; again after each migration.
    pub fn grants() -> &'static str {
        migrate::GRANTS
    }

    /// Wakes every host on this database: rows may have become available.
    pub fn nudge(&self) {
        self.inner.nudge();
    }

    /// Closes the connections that are not in use; those in use are closed when their call ends.
    pub fn close(&self) {
        self.inner.engine.close();
        self.inner.tx.close();
    }

    /// Says where the database is, without its password.
    pub(super) fn place(&self) -> impl fmt::Display {
        self.inner.config.place()
    }

    pub(super) fn config(&self) -> &PgConfig {
        &self.inner.config
    }

    pub(super) fn wakeups(&self) -> &Wakeups {
        &self.inner.wakeups
    }

    pub(super) fn outbound(&self) -> &Notify {
        &self.inner.outbound
    }

    pub(super) fn cursors(&self) -> &Cursors {
        &self.inner.cursors
    }

    pub(super) fn marks(&self) -> &Marks {
        &self.inner.marks
    }

    /// What wakes hosts after a stranger's commit.
    pub(super) fn nudger(&self) -> &Nudger {
        &self.inner.nudger
    }

    /// The connections of handlers' own transactions.
    pub(crate) fn tx(&self) -> &Arc<Connections> {
        &self.inner.tx
    }

    /// Takes a connection of the engine.
    pub(super) async fn take(&self) -> Result<Taken, StoreError> {
        self.inner.engine.take().await
    }

    /// Waits for the server's answer as long as a call may take.
    pub(super) async fn answer<T>(
        &self,
        call: impl Future<Output = Result<T, sqlx::Error>>,
    ) -> Option<Result<T, sqlx::Error>> {
        timeout(self.inner.config.call_timeout, call).await.ok()
    }

    /// Waits ten times as long, for what reads through whole tables and only people ask: a minute of
    /// accounts is worth waiting for, and nothing of the engine stands behind it.
    pub(super) async fn slow_answer<T>(
        &self,
        call: impl Future<Output = Result<T, sqlx::Error>>,
    ) -> Option<Result<T, sqlx::Error>> {
        let patience = self.inner.config.call_timeout.saturating_mul(10);
        timeout(patience, call).await.ok()
    }
}

impl fmt::Debug for PgStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PgStore")
            .field("server", &format_args!("{}", self.place()))
            .finish_non_exhaustive()
    }
}

impl Store for PgStore {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_beyond_this_machine_proves_its_name_unless_the_url_says_otherwise() {
        let mode = |url: &str| PgConfig::new(url).expect("a URL").options.get_ssl_mode();
        for host in [
            "db",
            "10.0.0.1",
            "db.example.org:5433",
            "localhost.example.org",
        ] {
            let url = format!("postgres://me:secret@{host}/shop");
            assert!(matches!(mode(&url), PgSslMode::VerifyFull), "{url}");
            let url = format!("{url}?application_name=sslmode&sslmode=disable");
            assert!(matches!(mode(&url), PgSslMode::Disable), "{url}");
        }
        for url in [
            "postgres://localhost/shop",
            "postgres://me:secret@127.0.0.1:1/shop",
            "postgres://me@[::1]/shop",
            "postgres:///shop?host=/run/postgresql",
        ] {
            assert!(matches!(mode(url), PgSslMode::Prefer), "{url}");
        }
        let elsewhere = mode("postgres://localhost/shop?host=db.example.org");
        assert!(matches!(elsewhere, PgSslMode::VerifyFull));
    }
}
