//! The shortest way from a commit to a handler by hand: insert the message, commit, give it to a
//! task through a channel; delete it when it is handled.

use std::sync::Arc;

use anyhow::{Context as _, Result};
use sqlx::postgres::{PgPool, PgPoolOptions};
use sqlx::sqlite::SqliteConnection;
use tokio::sync::{Mutex, mpsc};
use tokio::task::{JoinHandle, JoinSet};
use uuid::Uuid;

use super::detail;
use super::sqlite::now;
use crate::services::Place;
use crate::stopwatch::Stopwatch;
use crate::workload::Ping;

/// Connections: more than are ever in use at the paces that are measured.
const CONNECTIONS: u32 = 6;
const TYPE: &str = "bench.ping";

/// A service that sends to itself.
pub(crate) struct Service {
    database: Arc<Database>,
    channel: Mutex<Option<mpsc::Sender<Row>>>,
    handling: Mutex<Option<JoinHandle<Result<()>>>>,
}

enum Database {
    Postgres(PgPool),
    Sqlite(Mutex<SqliteConnection>),
}

struct Row {
    id: i64,
    message_id: Uuid,
    ping: Ping,
}

impl Service {
    pub(crate) async fn start(place: &Place, stopwatch: &Arc<Stopwatch>) -> Result<Arc<Self>> {
        let database = match place {
            Place::Postgres { url, .. } => {
                let options = PgPoolOptions::new().max_connections(CONNECTIONS);
                let options = options.min_connections(CONNECTIONS);
                Database::Postgres(options.test_before_acquire(false).connect(url).await?)
            }
            Place::Sqlite { .. } => Database::Sqlite(Mutex::new(place.sqlite().await?)),
        };
        let database = Arc::new(database);
        let (sender, channel) = mpsc::channel(1_000);
        let handling = handle(Arc::clone(&database), channel, Arc::clone(stopwatch));
        Ok(Arc::new(Self {
            database,
            channel: Mutex::new(Some(sender)),
            handling: Mutex::new(Some(tokio::spawn(handling))),
        }))
    }

    /// Stores a message and hands it over.
    pub(crate) async fn send(&self, ping: Ping) -> Result<()> {
        let message_id = Uuid::now_v7();
        let body = serde_json::to_vec(&ping)?;
        let headers = format!(
            "{{\"content-type\":\"application/json\",\"sagabus-kind\":\"command\",\
             \"sagabus-sent-at\":\"1700000000000000\",\"sagabus-source\":\"bench\",\
             \"sagabus-correlation-id\":\"{message_id}\"}}"
        );
        let id = self
            .database
            .insert(message_id, headers.as_bytes(), &body)
            .await?;
        let row = Row {
            id,
            message_id,
            ping,
        };
        let channel = self.channel.lock().await.clone().context("stopped")?;
        channel.send(row).await.context("the handler has ended")
    }

    /// Waits until everything is handled and deleted.
    pub(crate) async fn stop(&self) -> Result<()> {
        drop(self.channel.lock().await.take());
        match self.handling.lock().await.take() {
            Some(handling) => handling.await?,
            None => Ok(()),
        }
    }
}

async fn handle(
    database: Arc<Database>,
    mut channel: mpsc::Receiver<Row>,
    stopwatch: Arc<Stopwatch>,
) -> Result<()> {
    let mut deleting = JoinSet::new();
    while let Some(row) = channel.recv().await {
        stopwatch.stop(row.ping.at);
        let database = Arc::clone(&database);
        deleting.spawn(async move { database.delete(&row).await });
        while let Some(deleted) = deleting.try_join_next() {
            deleted??;
        }
    }
    while let Some(deleted) = deleting.join_next().await {
        deleted??;
    }
    Ok(())
}

impl Database {
    async fn insert(&self, message_id: Uuid, headers: &[u8], body: &[u8]) -> Result<i64> {
        const POSTGRES: &str = "with known as (insert into sagabus.inbox (message_id, \
            endpoint_id, accepted_at) values ($1, 1, $2) on conflict do nothing returning 1) \
            insert into sagabus.outbox (message_id, message_type, destination, headers, body, \
            available_at, epoch, starts, created_at) \
            select $1, $3, '@accounts', $4, $5, $2 + 15000000, 1, 1, $2 from known returning id";
        const SQLITE: &str = "begin immediate; \
            insert into sagabus_inbox (message_id, endpoint_id, accepted_at) values (?, 1, ?) \
            on conflict do nothing; \
            insert into sagabus_outbox (message_id, message_type, destination, headers, body, \
            available_at, epoch, starts, created_at) \
            values (?, ?, '@accounts', ?, ?, ? + 15000000, 1, 1, ?); commit";
        let now = now();
        match self {
            Self::Postgres(pool) => {
                let query = sqlx::query_scalar(POSTGRES).bind(message_id).bind(now);
                let query = query.bind(TYPE).bind(headers).bind(body);
                Ok(query.fetch_one(pool).await?)
            }
            Self::Sqlite(writer) => {
                let mut writer = writer.lock().await;
                let query = sqlx::query(SQLITE).bind(message_id).bind(now);
                let query = query.bind(message_id).bind(TYPE).bind(headers).bind(body);
                let query = query.bind(now).bind(now);
                Ok(query.execute(&mut *writer).await?.last_insert_rowid())
            }
        }
    }

    async fn delete(&self, row: &Row) -> Result<()> {
        const POSTGRES: &str = "with gone as (delete from sagabus.outbox where id = $1 \
            returning 1) insert into sagabus.history (at, endpoint_id, message_id, message_type, \
            correlation_id, detail) select $2, 1, $3, $4, $3, $5 from gone";
        const SQLITE: &str = "begin immediate; delete from sagabus_outbox where id = ?; \
            insert into sagabus_history (at, endpoint_id, message_id, message_type, \
            correlation_id, detail) values (?, 1, ?, ?, ?, ?); commit";
        let now = now();
        let detail = detail(&[], None, None)?;
        match self {
            Self::Postgres(pool) => {
                let query = sqlx::query(POSTGRES).bind(row.id).bind(now);
                let query = query.bind(row.message_id).bind(TYPE).bind(detail);
                query.execute(pool).await?;
            }
            Self::Sqlite(writer) => {
                let mut writer = writer.lock().await;
                let query = sqlx::query(SQLITE).bind(row.id).bind(now);
                let query = query.bind(row.message_id).bind(TYPE);
                let query = query.bind(row.message_id).bind(detail);
                query.execute(&mut *writer).await?;
            }
        }
        Ok(())
    }
}
