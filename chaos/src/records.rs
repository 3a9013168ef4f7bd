//! What the database holds at the end, read with plain SQL.

use std::collections::BTreeMap;

use anyhow::Result;
use sqlx::{Connection, PgConnection, SqliteConnection};
use uuid::Uuid;

use crate::site::{Engine, Site};

/// One unit that committed.
#[derive(Clone, Debug)]
pub(crate) struct Handled {
    pub(crate) message: Uuid,
    pub(crate) kind: Option<String>,
    pub(crate) key: Option<String>,
    pub(crate) version: Option<i64>,
    /// Identity and type of what it sent.
    pub(crate) sent: Vec<(Uuid, String)>,
}

/// Everything that is judged.
#[derive(Clone, Debug, Default)]
pub(crate) struct Records {
    pub(crate) ledger: Vec<(i64, String, i64)>,
    /// Transfers that an API's own transaction wrote.
    pub(crate) placed: Vec<i64>,
    pub(crate) history: Vec<Handled>,
    /// Key to version.
    pub(crate) instances: BTreeMap<String, i64>,
    /// Identity, reason and type.
    pub(crate) dead: Vec<(Uuid, String, String)>,
    /// Rows that still wait.
    pub(crate) outbox: i64,
}

#[derive(serde::Deserialize, Default)]
struct Detail {
    #[serde(default)]
    sent: Vec<(Uuid, String)>,
}

type Entry = (Uuid, Option<String>, Option<String>, Option<i64>, Vec<u8>);

/// Reads everything over one connection; the engines' connections share no type.
macro_rules! read {
    ($connection:expr, $prefix:literal) => {{
        let connection = $connection;
        let history: Vec<Entry> = sqlx::query_as(concat!(
            "select message_id, kind, key, version, detail from ",
            $prefix,
            "history order by id"
        ))
        .fetch_all(&mut *connection)
        .await?;
        let instances: Vec<(String, i64)> =
            sqlx::query_as(concat!("select key, version from ", $prefix, "instance"))
                .fetch_all(&mut *connection)
                .await?;
        Records {
            ledger: sqlx::query_as("select transfer, leg, cents from ledger")
                .fetch_all(&mut *connection)
                .await?,
            placed: sqlx::query_scalar("select id from transfer")
                .fetch_all(&mut *connection)
                .await?,
            history: handled(history),
            instances: instances.into_iter().collect(),
            dead: sqlx::query_as(concat!(
                "select message_id, reason, message_type from ",
                $prefix,
                "dead_letter where status <> 'redriven'"
            ))
            .fetch_all(&mut *connection)
            .await?,
            outbox: sqlx::query_scalar(concat!("select count(*) from ", $prefix, "outbox"))
                .fetch_one(&mut *connection)
                .await?,
        }
    }};
}

fn handled(entries: Vec<Entry>) -> Vec<Handled> {
    let each = entries
        .into_iter()
        .map(|(message, kind, key, version, detail)| {
            let detail: Detail = serde_json::from_slice(&detail).unwrap_or_default();
            Handled {
                message,
                kind,
                key,
                version,
                sent: detail.sent,
            }
        });
    each.collect()
}

impl Records {
    pub(crate) async fn read(site: &Site) -> Result<Self> {
        Ok(match &site.engine {
            Engine::Sqlite(path) => {
                let url = format!("sqlite://{}", path.display());
                let mut connection = SqliteConnection::connect(&url).await?;
                read!(&mut connection, "sagabus_")
            }
            Engine::Postgres { server, .. } => {
                let mut connection = PgConnection::connect(&server.url()).await?;
                read!(&mut connection, "sagabus.")
            }
        })
    }
}
