//! A database of its own for each test.

use std::time::Duration;

use sagabus_outbox::PgStore;
use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{AssertSqlSafe, Connection};
use uuid::Uuid;

/// Names the server on which tests make their databases.
const URL: &str = "SAGABUS_POSTGRES_URL";

/// A database that is dropped with this value.
pub(crate) struct Database {
    server: PgConnectOptions,
    name: String,
    url: String,
}

impl Database {
    /// Makes an empty database; `None`, with a word, where there is no server.
    pub(crate) async fn empty() -> Option<Self> {
        let Ok(url) = std::env::var(URL) else {
            assert!(
                std::env::var_os("SAGABUS_SERVICES_REQUIRED").is_none(),
                "services are required, but {URL} is not set"
            );
            println!("SKIPPED: {URL} is not set");
            return None;
        };
        let server: PgConnectOptions = url.parse().unwrap();
        let name = format!("sagabus_{}", Uuid::now_v7().simple());
        run(&server, format!("create database {name}")).await;
        let at = url.find('?').unwrap_or(url.len());
        let (place, settings) = url.split_at(at);
        let slash = place.rfind('/').unwrap();
        let url = format!("{}/{name}{settings}", &place[..slash]);
        Some(Self { server, name, url })
    }

    /// Makes a database with our schema, and a store on it.
    pub(crate) async fn migrated() -> Option<(Self, PgStore)> {
        let database = Self::empty().await?;
        let store = PgStore::connect(database.url()).await.unwrap();
        store.migrate().await.unwrap();
        Some((database, store))
    }

    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Another store on the same database, as another process has one.
    pub(crate) async fn store(&self) -> PgStore {
        PgStore::connect(&self.url).await.unwrap()
    }

    /// A connection that belongs to no store.
    pub(crate) async fn connection(&self) -> PgConnection {
        PgConnection::connect(&self.url).await.unwrap()
    }

    /// Reads one value.
    pub(crate) async fn number(&self, sql: &'static str) -> i64 {
        let mut connection = self.connection().await;
        sqlx::query_scalar(sql)
            .fetch_one(&mut connection)
            .await
            .unwrap()
    }

    /// Runs a statement.
    pub(crate) async fn run(&self, sql: &'static str) {
        self.run_text(sql).await;
    }

    /// Runs statements that a test put together.
    pub(crate) async fn run_text(&self, sql: &str) {
        let mut connection = self.connection().await;
        let sql = AssertSqlSafe(sql.to_owned());
        sqlx::raw_sql(sql).execute(&mut connection).await.unwrap();
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        let (server, name) = (self.server.clone(), self.name.clone());
        // A thread of its own: the test's runtime may be about to end, or in a panic.
        let dropped = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(run(
                &server,
                format!("drop database if exists {name} with (force)"),
            ));
        });
        let _ = dropped.join(); // A database too many harms nobody.
    }
}

async fn run(server: &PgConnectOptions, sql: String) {
    let work = async {
        let mut connection = PgConnection::connect_with(server).await.unwrap();
        sqlx::raw_sql(AssertSqlSafe(sql))
            .execute(&mut connection)
            .await
            .unwrap();
    };
    tokio::time::timeout(Duration::from_secs(60), work)
        .await
        .expect("the server answers within a minute");
}
