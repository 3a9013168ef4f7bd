//! A service's database: the bus's tables and its own, in SQLite or PostgreSQL.
//!
//! The tables are what any shop would have. None has a unique constraint beyond the orders'
//! numbers: that nothing happens twice is the bus's promise, and `ledger.rs` checks it.

use std::str::FromStr;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use sagabus::Store;
use sagabus::prelude::*;
use sagabus::store::StoreAdmin;
use sqlx::postgres::{PgConnectOptions, PgPool, PgPoolOptions, PgRow};
use sqlx::sqlite::{SqliteConnectOptions, SqlitePool, SqlitePoolOptions, SqliteRow};
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, FromRow};

use crate::setup::{Engine, Service, Site};

/// Of the service `orders`.
const ORDERS: &str = "
    create table if not exists orders (
        id    bigint primary key,
        cents bigint not null,
        card  text   not null
    );
    create table if not exists ends (
        order_id bigint not null,
        reason   text              -- why it was cancelled; null: finished
    );
    create index if not exists ends_order on ends (order_id);
";

/// Of the service `payments`.
const PAYMENTS: &str = "
    create table if not exists payments (
        order_id bigint not null,
        cents    bigint not null,  -- below zero: given back
        receipt  text   not null
    );
";

/// Of the service `shipping`.
const SHIPPING: &str = "create table if not exists shipments (order_id bigint not null);";

/// Connections that read: for the page and for the ledger.
const READERS_MAX: u32 = 2;

/// Does the same with whichever engine it is.
macro_rules! either {
    ($it:expr, $one:ident => $what:expr) => {
        match $it {
            Self::Sqlite($one) => $what,
            #[cfg(feature = "postgres")]
            Self::Postgres($one) => $what,
        }
    };
}
pub(crate) use either;

/// A database that the bus and a service share.
#[derive(Clone)]
pub(crate) enum Database {
    Sqlite(SqliteStore),
    #[cfg(feature = "postgres")]
    Postgres(PgStore),
}

impl Database {
    /// Opens the database of a service (`None`: of the whole shop), with all its tables.
    ///
    /// # Errors
    /// When it cannot be used, or this program was built without PostgreSQL.
    pub(crate) async fn open(
        site: &Site,
        keeper: Option<Service>,
        postgres: Option<&str>,
    ) -> Result<Self> {
        let tables = match keeper {
            None => [ORDERS, PAYMENTS, SHIPPING].concat(),
            Some(Service::Orders) => ORDERS.to_owned(),
            Some(Service::Payments) => PAYMENTS.to_owned(),
            Some(Service::Shipping) => SHIPPING.to_owned(),
        };
        match site.setup.engine {
            Engine::Sqlite => Self::open_sqlite(site, keeper, &tables).await,
            Engine::Postgres => {
                let url = postgres.context("the shop is in PostgreSQL: give --postgres URL")?;
                Self::open_postgres(url, &site.database_name(keeper), &tables).await
            }
        }
    }

    async fn open_sqlite(site: &Site, keeper: Option<Service>, tables: &str) -> Result<Self> {
        let file = site.database_file(keeper);
        let store = SqliteStore::open(&file).await?;
        store.migrate().await?;
        let mut connection = SqliteConnectOptions::new().filename(file).connect().await?;
        sqlx::raw_sql(AssertSqlSafe(tables))
            .execute(&mut connection)
            .await
            .context("cannot create the tables")?;
        connection.close().await?;
        Ok(Self::Sqlite(store))
    }

    #[cfg(feature = "postgres")]
    async fn open_postgres(url: &str, name: &str, tables: &str) -> Result<Self> {
        let mut config = sagabus::PgConfig::new(url)?;
        make_database(&config.options, name).await?;
        config.options = config.options.database(name);
        let options = config.options.clone();
        let store = PgStore::connect_with(config).await?;
        store.migrate().await?;
        let mut connection = options.connect().await?;
        sqlx::raw_sql(AssertSqlSafe(tables))
            .execute(&mut connection)
            .await
            .context("cannot create the tables")?;
        connection.close().await?;
        Ok(Self::Postgres(store))
    }

    #[cfg(not(feature = "postgres"))]
    async fn open_postgres(_: &str, name: &str, _: &str) -> Result<Self> {
        std::future::ready(Err(anyhow::anyhow!("no PostgreSQL here for {name}"))).await
    }

    /// Returns the store, for a host.
    pub(crate) fn store(&self) -> Arc<dyn Store> {
        either!(self, store => Arc::new(store.clone()))
    }

    /// Describes messages that stopped being tried: their orders would never end. There should be
    /// none, whatever happens.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub(crate) async fn dead_letters(&self) -> Result<Vec<String>> {
        const SHOWN_MAX: u32 = 5;
        let store: &dyn StoreAdmin = either!(self, store => store);
        let describe = |one: &sagabus::store::StoredDeadLetter| {
            let error = one.attempts.last().map_or("", |attempt| &attempt.error);
            format!(
                "{} at {}: {} ({error})",
                one.envelope.message_type, one.endpoint, one.reason
            )
        };
        let dead = store.dead_letters(SHOWN_MAX).await?;
        let mut described: Vec<_> = dead.iter().map(describe).collect();
        let parked = store.counts().await?.parked;
        if parked > 0 {
            described.push(format!(
                "{parked} messages that no service takes; start `payments` and `shipping` before \
                 `orders`, once"
            ));
        }
        Ok(described)
    }

    /// Closes what can be closed.
    pub(crate) async fn close(&self) {
        match self {
            Self::Sqlite(store) => store.close().await,
            #[cfg(feature = "postgres")]
            Self::Postgres(store) => store.close(),
        }
    }
}

/// Makes a database on a server, unless it is there.
#[cfg(feature = "postgres")]
async fn make_database(server: &PgConnectOptions, name: &str) -> Result<()> {
    let connection = server.connect().await;
    let mut connection = connection.context("cannot connect to PostgreSQL")?;
    let find = sqlx::query_scalar("select count(*) from pg_database where datname = $1");
    let found: i64 = find.bind(name).fetch_one(&mut connection).await?;
    if found == 0 {
        // The name is made of lower-case letters, digits and underscores, by `Site`.
        let create = AssertSqlSafe(format!("create database {name}"));
        let created = sqlx::raw_sql(create).execute(&mut connection).await;
        created.with_context(|| format!("cannot make the database {name}"))?;
    }
    connection.close().await?;
    Ok(())
}

/// Reads a database, whether or not a host runs on it.
#[derive(Clone)]
pub(crate) enum Reader {
    Sqlite(SqlitePool),
    Postgres(PgPool),
}

impl Reader {
    /// Describes a database that may not be there yet. Connects when it is asked.
    ///
    /// # Errors
    /// When the URL is missing or cannot be read.
    fn new(site: &Site, keeper: Option<Service>, postgres: Option<&str>) -> Result<Self> {
        Ok(match site.setup.engine {
            Engine::Sqlite => {
                let options = SqliteConnectOptions::new()
                    .filename(site.database_file(keeper))
                    .pragma("query_only", "on");
                let pool = SqlitePoolOptions::new().max_connections(READERS_MAX);
                Self::Sqlite(pool.connect_lazy_with(options))
            }
            Engine::Postgres => {
                let url = postgres.context("the shop is in PostgreSQL: give --postgres URL")?;
                let Ok(options) = PgConnectOptions::from_str(url) else {
                    // Not the driver's words: they may quote a password.
                    bail!("the URL of --postgres cannot be read");
                };
                let options = options.database(&site.database_name(keeper));
                let pool = PgPoolOptions::new().max_connections(READERS_MAX);
                Self::Postgres(pool.connect_lazy_with(options.disable_statement_logging()))
            }
        })
    }

    /// Reads all rows of a query. A database or table that nobody has made yet has none.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub(crate) async fn rows<T>(&self, query: &'static str) -> Result<Vec<T>>
    where
        T: for<'r> FromRow<'r, SqliteRow> + for<'r> FromRow<'r, PgRow> + Send + Unpin,
    {
        let rows = match self {
            Self::Sqlite(pool) => sqlx::query_as(query).fetch_all(pool).await,
            Self::Postgres(pool) => sqlx::query_as(query).fetch_all(pool).await,
        };
        match rows {
            Err(error) if is_not_there_yet(&error) => Ok(Vec::new()),
            rows => Ok(rows?),
        }
    }
}

fn is_not_there_yet(error: &sqlx::Error) -> bool {
    let Some(error) = error.as_database_error() else {
        return false;
    };
    let code = error.code();
    // SQLite: no such file. PostgreSQL: no such database, no such table.
    matches!(code.as_deref(), Some("14" | "3D000" | "42P01"))
        || error.message().starts_with("no such table")
}

/// The databases of all services: the same one three times, where they share it.
#[derive(Clone)]
pub(crate) struct Books {
    pub(crate) orders: Reader,
    pub(crate) payments: Reader,
    pub(crate) shipping: Reader,
}

impl Books {
    /// Describes where the shop's tables are. Connects when something is read.
    ///
    /// # Errors
    /// When the URL is missing or cannot be read.
    pub(crate) fn of(site: &Site, postgres: Option<&str>) -> Result<Self> {
        let reader = |service| Reader::new(site, site.keeper(service), postgres);
        Ok(Self {
            orders: reader(Service::Orders)?,
            payments: reader(Service::Payments)?,
            shipping: reader(Service::Shipping)?,
        })
    }
}
