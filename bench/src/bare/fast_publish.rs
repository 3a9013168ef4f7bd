//! The shortest way from a commit to a broker by hand: insert the message, commit, publish it from
//! memory; delete the rows that are confirmed, as many at once as there are.

use std::sync::Arc;

use anyhow::{Context as _, Result};
use sqlx::postgres::{PgConnection, PgPool, PgPoolOptions};
use tokio::sync::{Mutex, mpsc};
use tokio::task::JoinHandle;
use uuid::Uuid;

use super::postgres::DELETE;
use super::sqlite::now;
use super::wire::{Message, Outlet};
use super::{LEASE, SENT_AT};
use crate::services::Place;
use crate::workload::Ping;

/// Connections: more than are ever in use at the pace that is measured.
const CONNECTIONS: u32 = 6;
/// Rows that one statement deletes.
const GONE_MAX: usize = 1_000;
const TYPE: &str = "bench.ping";

const INSERT: &str = "insert into sagabus.outbox (message_id, message_type, destination, headers, \
    body, available_at, epoch, starts, created_at) values ($1, $2, $3, $4, $5, $6, 1, 1, $7) \
    returning id";

/// A service that sends.
pub(crate) struct Service {
    pool: PgPool,
    outlet: Outlet,
    destination: String,
    gone: Mutex<Option<mpsc::UnboundedSender<i64>>>,
    deleting: Mutex<Option<JoinHandle<Result<()>>>>,
}

impl Service {
    pub(crate) async fn start(
        place: &Place,
        outlet: Outlet,
        destination: String,
    ) -> Result<Arc<Self>> {
        let Place::Postgres { url, .. } = place else {
            anyhow::bail!("this row is for PostgreSQL");
        };
        let options = PgPoolOptions::new().max_connections(CONNECTIONS);
        let options = options.min_connections(CONNECTIONS);
        let pool = options.test_before_acquire(false).connect(url).await?;
        let (gone, rows) = mpsc::unbounded_channel();
        let deleting = delete(place.postgres().await?, rows);
        Ok(Arc::new(Self {
            pool,
            outlet,
            destination,
            gone: Mutex::new(Some(gone)),
            deleting: Mutex::new(Some(tokio::spawn(deleting))),
        }))
    }

    /// Stores a message. What this returns publishes it.
    pub(crate) async fn store(&self, ping: &Ping) -> Result<Message> {
        let id = Uuid::now_v7();
        let body = serde_json::to_vec(ping)?;
        let headers = [
            ("content-type", "application/json"),
            ("sagabus-kind", "command"),
            ("sagabus-sent-at", SENT_AT),
            ("sagabus-source", "bench"),
            ("sagabus-correlation-id", &id.to_string()),
        ];
        let owned = |(name, value): (&str, &str)| (name.to_owned(), value.to_owned());
        let headers = std::collections::HashMap::from_iter(headers.map(owned));
        let now = now();
        let query = sqlx::query_scalar(INSERT).bind(id).bind(TYPE);
        let query = query.bind(&self.destination);
        let query = query.bind(serde_json::to_vec(&headers)?).bind(&body);
        let query = query.bind(now + LEASE).bind(now);
        Ok(Message {
            row: query.fetch_one(&self.pool).await?,
            id,
            message_type: TYPE.to_owned(),
            destination: self.destination.clone(),
            headers,
            body,
        })
    }

    /// Publishes a message, and has its row deleted.
    pub(crate) async fn publish(&self, message: Message) -> Result<()> {
        let row = message.row;
        self.outlet.publish(&[message]).await?;
        let gone = self.gone.lock().await.clone().context("stopped")?;
        gone.send(row).context("nobody deletes any more")
    }

    /// Waits until everything is deleted.
    pub(crate) async fn stop(&self) -> Result<()> {
        drop(self.gone.lock().await.take());
        let deleting = self.deleting.lock().await.take();
        match deleting {
            Some(deleting) => deleting.await?,
            None => Ok(()),
        }
    }
}

async fn delete(
    mut connection: PgConnection,
    mut rows: mpsc::UnboundedReceiver<i64>,
) -> Result<()> {
    let mut gone = Vec::new();
    while rows.recv_many(&mut gone, GONE_MAX).await > 0 {
        let query = sqlx::query(DELETE).bind(std::mem::take(&mut gone));
        query.execute(&mut connection).await?;
    }
    Ok(())
}
