//! A transaction with the user's SQL in it, on a connection beside the engine's own.

use std::time::Duration;

use std::error::Error;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use sagabus_core::StoreError;
use sagabus_core::bus::Bus;
use sagabus_core::error::BusError;
use sagabus_core::store::{CommitReport, Group, OpenTransaction, Routes};
use sagabus_core::unit_of_work::Outcome;
use sqlx::postgres::{PgConnection, PgTransactionManager};
use sqlx::{Postgres, SqlSafeStr};
use sqlx_core::transaction::TransactionManager;
use tokio::time::timeout;

use super::attach;
use super::commit::{Door, announce, judge, write};
use super::connections::{Inheritance, Taken};
use super::error::{commit_error, is_excuse, late, store_error};
use super::store::PgStore;
use crate::nudge::Nudger;
use crate::tx::{BusTransaction, sealed};

macro_rules! begin {
    () => {
        "begin isolation level read committed; set local sagabus.tx = 'open'"
    };
}

/// The mark ends with the transaction, so that the commit call knows whether it is still the same.
const BEGIN: &str = begin!();

/// The end of one transaction and [`BEGIN`] for whoever waits for the connection: one round trip
/// where there were two. Where the first fails, the server does not come to the second.
const COMMIT_AND_BEGIN: &str = concat!("commit; ", begin!());

/// An open transaction. Dropped, its connection is closed and the server rolls back.
#[derive(Debug)]
pub struct PgTransaction {
    store: PgStore,
    taken: Taken,
}

impl PgTransaction {
    /// Begins.
    ///
    /// # Cancel safety
    /// Whoever drops this drops the connection: no later user can meet the open transaction, which
    /// the driver's own pool would let happen.
    async fn begin(store: &PgStore) -> Result<Self, StoreError> {
        let mut taken = match store.tx().take_or_inherit().await? {
            Inheritance::Rested(taken) => taken,
            Inheritance::Begun(taken) => {
                let store = store.clone();
                return Ok(Self { store, taken });
            }
        };
        let begin = PgTransactionManager::begin(&mut taken, Some(BEGIN.into_sql_str()));
        let error = match store.answer(begin).await {
            Some(Ok(())) => {
                let store = store.clone();
                return Ok(Self { store, taken });
            }
            Some(Err(error)) => store_error(error),
            None => not_written(late()),
        };
        taken.give_up();
        Err(error)
    }

    async fn commit(mut self, group: &Group) -> Result<CommitReport, StoreError> {
        let (report, written) = match self.write(group).await {
            Ok(done) => done,
            // Whom to ask for a rollback is gone, and the transaction with it.
            Err(error @ StoreError::Unavailable(_)) => {
                self.taken.give_up();
                return Err(error);
            }
            Err(error) => {
                self.end().await;
                return Err(error);
            }
        };
        if report.outcomes.iter().any(|one| *one != Outcome::Committed) {
            self.end().await;
            return Ok(report);
        }
        let store = self.store.clone();
        self.end_well().await?;
        announce(&store, group, &written);
        Ok(report)
    }

    /// Commits, and leaves the connection to whoever waits for it.
    ///
    /// A connection whose `COMMIT` failed is closed: the driver still counts a transaction on it.
    async fn end_well(self) -> Result<(), StoreError> {
        let Self { store, mut taken } = self;
        // With savepoints of the user's still open there is more than one thing to end.
        let is_plain = PgTransactionManager::get_transaction_depth(&taken) == 1;
        let heir = is_plain.then(|| taken.heir()).flatten();
        let Some(heir) = heir else {
            committed(store.answer(commit_all(&mut taken)).await)?;
            taken.give_back();
            return Ok(());
        };
        let commit = sqlx::raw_sql(COMMIT_AND_BEGIN).execute(&mut *taken);
        committed(store.answer(commit).await)?;
        if let Err(taken) = heir.inherit(taken) {
            Self { store, taken }.end().await;
        }
        Ok(())
    }

    /// Writes the group as the last statement: in a transaction that failed before, it fails.
    async fn write(
        &mut self,
        group: &Group,
    ) -> Result<(CommitReport, super::commit::Written), StoreError> {
        let call = write(&mut self.taken, group, Door::Handler);
        let limit = self.store.config().call_timeout;
        let written = timeout(limit, call).await.unwrap_or_else(|_| Err(late()));
        let written = written.map_err(not_written)?;
        let report = judge(&self.store, group, &written).await?;
        Ok((report, written))
    }

    /// Rolls back; a connection on which that fails is closed, which does the same.
    async fn end(mut self) {
        let rolled_back = self.store.answer(rollback_all(&mut self.taken)).await;
        if matches!(rolled_back, Some(Ok(()))) {
            self.taken.give_back();
        }
    }
}

impl OpenTransaction for PgTransaction {
    fn commit<'a>(
        self: Box<Self>,
        group: &'a Group,
    ) -> BoxFuture<'a, Result<CommitReport, StoreError>> {
        Self::commit(*self, group).boxed()
    }

    fn rollback(self: Box<Self>) -> BoxFuture<'static, ()> {
        self.end().boxed()
    }

    fn excuses(&self, error: &(dyn Error + 'static)) -> bool {
        error.downcast_ref::<sqlx::Error>().is_some_and(is_excuse)
    }
}

impl sealed::Engine for Postgres {
    type Store = PgStore;
    type Open = PgTransaction;

    const STORE: &'static str = "PgStore";

    async fn begin(store: &PgStore) -> Result<PgTransaction, StoreError> {
        PgTransaction::begin(store).await
    }

    async fn connection(open: &mut PgTransaction) -> Result<&mut PgConnection, StoreError> {
        Ok(&mut open.taken)
    }

    async fn write(
        connection: &mut PgConnection,
        group: &Group,
    ) -> Result<Option<Routes>, StoreError> {
        let written = write(connection, group, Door::Stranger).await?;
        if !written.is_stale() {
            return Ok(None);
        }
        let (_, routes) = attach::read_routes(connection).await.map_err(store_error)?;
        Ok(Some(routes))
    }

    fn limit(_: &PgStore) -> Option<Duration> {
        None
    }

    fn nudger(store: &PgStore) -> &Nudger {
        store.nudger()
    }
}

impl sealed::UserTransaction for PgConnection {
    type Db = Postgres;

    fn connection(&mut self) -> &mut PgConnection {
        self
    }
}

impl PgStore {
    /// Begins a transaction whose rows and messages commit together; the messages leave at once.
    ///
    /// # Errors
    /// [`BusError::NotRunning`], [`BusError::InsideHandler`], or [`BusError::Store`] when the
    /// database cannot be reached.
    ///
    /// # Cancel safety
    /// A cancelled call leaves no transaction behind.
    ///
    /// # Examples
    /// ```
    /// # use sagabus_core::{Bus, BusError, Event};
    /// # use sagabus_outbox::PgStore;
    /// async fn place(store: PgStore, bus: Bus, placed: impl Event) -> Result<(), BusError> {
    ///     let mut tx = store.begin(&bus).await?;
    ///     sqlx::query("insert into orders default values")
    ///         .execute(tx.conn().await?)
    ///         .await
    ///         .expect("the table is there");
    ///     tx.publish(placed)?;
    ///     tx.commit().await
    /// }
    /// ```
    pub async fn begin(&self, bus: &Bus) -> Result<BusTransaction<Postgres>, BusError> {
        BusTransaction::begin(self, bus).await
    }
}

/// Sorts the answer to a `COMMIT`; `None` is none in time.
fn committed<T>(answer: Option<Result<T, sqlx::Error>>) -> Result<(), StoreError> {
    match answer {
        Some(Ok(_)) => Ok(()),
        Some(Err(error)) => Err(commit_error(error)),
        None => Err(late()),
    }
}

/// Nothing is committed before `COMMIT` is sent.
fn not_written(error: StoreError) -> StoreError {
    match error {
        StoreError::Unknown(source) => StoreError::Unavailable(source),
        other => other,
    }
}

/// Commits, releasing first the savepoints that the user's code left open.
async fn commit_all(connection: &mut PgConnection) -> Result<(), sqlx::Error> {
    while PgTransactionManager::get_transaction_depth(connection) > 0 {
        PgTransactionManager::commit(connection).await?;
    }
    Ok(())
}

async fn rollback_all(connection: &mut PgConnection) -> Result<(), sqlx::Error> {
    while PgTransactionManager::get_transaction_depth(connection) > 0 {
        PgTransactionManager::rollback(connection).await?;
    }
    Ok(())
}
