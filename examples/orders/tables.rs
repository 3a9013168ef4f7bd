//! The shop's own tables as handlers and the API write them, in the bus's transaction.

use anyhow::Result as AnyResult;
use sagabus::prelude::*;
use sagabus::{BusTransaction, Extract};

use crate::database::{Database, either};
use crate::messages::PlaceOrder;

/// A handler's own SQL: a [`Tx`] of whichever engine the service has. What it writes commits
/// together with the message and everything sent, or not at all.
///
/// A service with one engine takes `Tx<Sqlite>` or `Tx<Postgres>` itself, without such a type.
pub(crate) enum Tables {
    Sqlite(Tx<Sqlite>),
    #[cfg(feature = "postgres")]
    Postgres(Tx<Postgres>),
}

impl Extract for Tables {
    fn extract(cx: &Ctx) -> Result<Self> {
        #[cfg(feature = "postgres")]
        if (&**cx.store() as &dyn std::any::Any).is::<PgStore>() {
            return Tx::extract(cx).map(Self::Postgres);
        }
        Tx::extract(cx).map(Self::Sqlite)
    }
}

impl Tables {
    /// Adds a line to the books of payments. There is no unique constraint: that nothing is in
    /// them twice is the bus's promise, and the ledger checks it.
    pub(crate) async fn add_payment(&mut self, order_id: i64, cents: i64, receipt: &str) -> Result {
        const ADD: &str = "insert into payments (order_id, cents, receipt) values ($1, $2, $3)";
        either!(self, tx => {
            let add = sqlx::query(ADD).bind(order_id).bind(cents).bind(receipt);
            add.execute(tx.conn().await?).await?;
        });
        Ok(())
    }

    /// Books a parcel. No unique constraint here either: a second parcel would show in the ledger.
    pub(crate) async fn add_parcel(&mut self, order_id: i64) -> Result {
        const ADD: &str = "insert into shipments (order_id) values ($1)";
        either!(self, tx => {
            sqlx::query(ADD).bind(order_id).execute(tx.conn().await?).await?;
        });
        Ok(())
    }

    /// Notes that an order has ended, and why if it was cancelled.
    pub(crate) async fn add_end(&mut self, order_id: i64, reason: Option<&str>) -> Result {
        const ADD: &str = "insert into ends (order_id, reason) values ($1, $2)";
        either!(self, tx => {
            let add = sqlx::query(ADD).bind(order_id).bind(reason);
            add.execute(tx.conn().await?).await?;
        });
        Ok(())
    }
}

/// A transaction of the API: orders and the commands to carry them out commit together.
pub(crate) enum Placing {
    Sqlite(BusTransaction<Sqlite>),
    #[cfg(feature = "postgres")]
    Postgres(BusTransaction<Postgres>),
}

impl Placing {
    /// Begins one.
    ///
    /// # Errors
    /// When the database refuses.
    pub(crate) async fn begin(database: &Database, bus: &Bus) -> AnyResult<Self> {
        Ok(match database {
            Database::Sqlite(store) => Self::Sqlite(store.begin(bus).await?),
            #[cfg(feature = "postgres")]
            Database::Postgres(store) => Self::Postgres(store.begin(bus).await?),
        })
    }

    /// Returns the last order's number; 0: there is none.
    pub(crate) async fn last(&mut self) -> AnyResult<i64> {
        const LAST: &str = "select coalesce(max(id), 0) from orders";
        Ok(either!(self, tx => sqlx::query_scalar(LAST).fetch_one(tx.conn().await?).await?))
    }

    /// Returns which of the orders `1..=total` are there, in order.
    pub(crate) async fn placed(&mut self, total: i64) -> AnyResult<Vec<i64>> {
        const THERE: &str = "select id from orders where id between 1 and $1 order by id";
        Ok(either!(self, tx => {
            sqlx::query_scalar(THERE).bind(total).fetch_all(tx.conn().await?).await?
        }))
    }

    /// Writes an order and sends its command.
    pub(crate) async fn add(&mut self, command: PlaceOrder) -> AnyResult<()> {
        const ADD: &str = "insert into orders (id, cents, card) values ($1, $2, $3)";
        either!(self, tx => {
            let add = sqlx::query(ADD).bind(command.order_id).bind(command.cents);
            add.bind(&command.card).execute(tx.conn().await?).await?;
            tx.send(command)?;
        });
        Ok(())
    }

    /// Commits both.
    ///
    /// # Errors
    /// When the database refuses, or its answer was lost.
    pub(crate) async fn commit(self) -> AnyResult<()> {
        either!(self, tx => tx.commit().await?);
        Ok(())
    }
}
