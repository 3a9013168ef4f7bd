//! A transaction with the user's SQL in it, on the connection that writes.

use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use sagabus_core::StoreError;
use sagabus_core::bus::Bus;
use sagabus_core::error::BusError;
use sagabus_core::store::{CommitReport, Group, OpenTransaction, Routes};
use sagabus_core::unit_of_work::Outcome;
use sqlx::Sqlite;
use sqlx::sqlite::SqliteConnection;

use super::commit::write_inside;
use super::store::SqliteStore;
use super::writer::Write;
use crate::nudge::Nudger;
use crate::tx::{BusTransaction, sealed};

/// An open transaction, which has the only connection that writes. Dropped, it rolls back before
/// anybody else gets the connection.
#[derive(Debug)]
pub struct SqliteTransaction {
    store: SqliteStore,
    write: Write,
}

impl SqliteTransaction {
    async fn begin(store: &SqliteStore) -> Result<Self, StoreError> {
        let mut write = store.write().await?;
        write.lend().await?;
        Ok(Self {
            store: store.clone(),
            write,
        })
    }

    async fn commit(mut self, group: &Group) -> Result<CommitReport, StoreError> {
        self.write.take_back().await?;
        let written = write_inside(self.write.connection().await?, group).await;
        let is_whole = |report: &CommitReport| {
            let mut outcomes = report.outcomes.iter();
            outcomes.all(|outcome| *outcome == Outcome::Committed)
        };
        match written {
            Ok(written) if is_whole(&written.report) => {
                self.write.commit_lent().await?;
                if written.has_available {
                    self.store.nudge();
                }
                Ok(written.report)
            }
            other => {
                self.write.rollback().await;
                other.map(|written| written.report)
            }
        }
    }
}

impl OpenTransaction for SqliteTransaction {
    fn commit<'a>(
        self: Box<Self>,
        group: &'a Group,
    ) -> BoxFuture<'a, Result<CommitReport, StoreError>> {
        Self::commit(*self, group).boxed()
    }

    fn rollback(mut self: Box<Self>) -> BoxFuture<'static, ()> {
        async move { self.write.rollback().await }.boxed()
    }
}

impl sealed::Engine for Sqlite {
    type Store = SqliteStore;
    type Open = SqliteTransaction;

    const STORE: &'static str = "SqliteStore";

    async fn begin(store: &SqliteStore) -> Result<SqliteTransaction, StoreError> {
        SqliteTransaction::begin(store).await
    }

    async fn connection(open: &mut SqliteTransaction) -> Result<&mut SqliteConnection, StoreError> {
        open.write.connection().await
    }

    async fn write(
        connection: &mut SqliteConnection,
        group: &Group,
    ) -> Result<Option<Routes>, StoreError> {
        match write_inside(connection, group).await {
            Ok(_) => Ok(None),
            Err(StoreError::StaleRoutes(routes)) => Ok(Some(*routes)),
            Err(error) => Err(error),
        }
    }

    fn limit(store: &SqliteStore) -> Option<Duration> {
        Some(store.config().tx_limit)
    }

    fn nudger(store: &SqliteStore) -> &Nudger {
        store.nudger()
    }
}

impl sealed::UserTransaction for SqliteConnection {
    type Db = Sqlite;

    fn connection(&mut self) -> &mut SqliteConnection {
        self
    }
}

impl SqliteStore {
    /// Begins a transaction whose rows and messages commit together; the messages leave at once.
    ///
    /// It has the only connection that writes: keep it short, and await nothing else in between.
    ///
    /// # Errors
    /// [`BusError::NotRunning`], [`BusError::InsideHandler`], or [`BusError::Store`] when others
    /// write for longer than the busy time-out.
    ///
    /// # Cancel safety
    /// A cancelled call leaves no transaction behind.
    ///
    /// # Examples
    /// ```
    /// # use sagabus_core::{BusError, bus::Bus};
    /// # use sagabus_outbox::SqliteStore;
    /// # async fn example<E: sagabus_core::Event>(
    /// #     store: SqliteStore, bus: Bus, order_placed: E,
    /// # ) -> Result<(), Box<dyn std::error::Error>> {
    /// let mut tx = store.begin(&bus).await?;
    /// sqlx::query("insert into orders (cents) values (4711)").execute(tx.conn().await?).await?;
    /// tx.publish(order_placed)?;
    /// tx.commit().await?;
    /// # Ok(()) }
    /// ```
    pub async fn begin(&self, bus: &Bus) -> Result<BusTransaction<Sqlite>, BusError> {
        BusTransaction::begin(self, bus).await
    }
}
