//! The SQL store of sagabus: everything that touches SQL. The same files and functions for each
//! engine.

// What every engine shares.
#[cfg(any(feature = "postgres", feature = "sqlite"))]
mod row;
#[cfg(any(feature = "postgres", feature = "sqlite"))]
mod found;
#[cfg(any(feature = "postgres", feature = "sqlite"))]
mod wakeup;
#[cfg(any(feature = "postgres", feature = "sqlite"))]
mod nudge;
// The doors for user SQL.
#[cfg(any(feature = "postgres", feature = "sqlite"))]
mod tx;
// The engines.
#[cfg(feature = "postgres")]
mod postgres;
#[cfg(feature = "sqlite")]
mod sqlite;

#[cfg(feature = "postgres")]
pub use postgres::{PgConfig, PgStore};
#[cfg(feature = "sqlite")]
pub use sqlite::{SqliteConfig, SqliteStore};
#[cfg(feature = "postgres")]
pub use sqlx::Postgres;
#[cfg(feature = "sqlite")]
pub use sqlx::Sqlite;
#[cfg(any(feature = "postgres", feature = "sqlite"))]
pub use tx::{BusExt, BusTransaction, CtxExt, Engine, Outbox, Tx, UserTransaction};
