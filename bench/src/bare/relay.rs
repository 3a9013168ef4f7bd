//! A relay by hand: claim a thousand rows, publish them as one window, delete them when all are
//! confirmed; two lanes, so that one publishes while the other claims.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Result;
use sqlx::Row;
use sqlx::postgres::{PgConnection, PgRow};
use tokio::sync::Mutex;

use super::LEASE;
use super::wire::{Message, Outlet};
use crate::lag::Lag;
use crate::services::Place;

/// Rows of one window: what measured best for both brokers with two lanes.
pub(crate) const WINDOW: i64 = 1_000;
/// How long a lane that found nothing waits.
const IDLE: Duration = Duration::from_millis(5);

/// A lease, as ours: whoever dies with rows in hand loses them to the next, and no transaction is
/// open while a broker is talked to.
const CLAIM: &str = "update sagabus.outbox o set epoch = o.epoch + 1, starts = o.starts + 1, \
    available_at = (extract(epoch from clock_timestamp()) * 1000000)::bigint + $2 \
    where o.id = any(array(select c.id from sagabus.outbox c where c.destination = $1 \
        and c.parked is null \
        and c.available_at <= (extract(epoch from clock_timestamp()) * 1000000)::bigint \
        order by c.available_at limit $3 for no key update skip locked)) \
    returning o.id, o.message_id, o.message_type, o.destination, o.headers, o.body";

/// Locks only: they last as long as the transaction, which is open until the confirms are there.
const LOCK: &str = "select o.id, o.message_id, o.message_type, o.destination, o.headers, o.body \
    from sagabus.outbox o where o.destination = $1 and o.parked is null \
    and o.available_at <= (extract(epoch from clock_timestamp()) * 1000000)::bigint + $2 * 0 \
    order by o.available_at limit $3 for update skip locked";

const DELETE: &str = "delete from sagabus.outbox where id = any($1)";

/// How rows are kept from others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Keep {
    Lease,
    Lock,
}

/// What all lanes share.
pub(crate) struct Relay {
    destination: String,
    keep: Keep,
    /// One lane claims at a time: two would step over each other's rows.
    claiming: Mutex<()>,
    published: AtomicU64,
    is_over: AtomicBool,
    lag: Option<Arc<Lag>>,
}

impl Relay {
    /// Makes a relay; `lag` is told of each confirm, where somebody wants to know.
    pub(crate) fn new(destination: &str, keep: Keep, lag: Option<Arc<Lag>>) -> Arc<Self> {
        Arc::new(Self {
            destination: destination.to_owned(),
            keep,
            claiming: Mutex::default(),
            published: AtomicU64::new(0),
            is_over: AtomicBool::new(false),
            lag,
        })
    }

    pub(crate) fn published(&self) -> u64 {
        self.published.load(Ordering::SeqCst)
    }

    /// Ends the lanes after what they have in hand.
    pub(crate) fn stop(&self) {
        self.is_over.store(true, Ordering::SeqCst);
    }

    /// Runs one lane per outlet until it is told to stop.
    pub(crate) async fn run(self: Arc<Self>, place: Place, outlets: Vec<Outlet>) -> Result<()> {
        let mut lanes = Vec::new();
        for outlet in outlets {
            let connection = place.postgres().await?;
            lanes.push(tokio::spawn(Arc::clone(&self).lane(connection, outlet)));
        }
        for lane in lanes {
            lane.await??;
        }
        Ok(())
    }

    async fn lane(self: Arc<Self>, mut connection: PgConnection, outlet: Outlet) -> Result<()> {
        while !self.is_over.load(Ordering::SeqCst) {
            let messages = self.claim(&mut connection).await?;
            if messages.is_empty() {
                self.end(&mut connection).await?;
                tokio::time::sleep(IDLE).await;
                continue;
            }
            outlet.publish(&messages).await?;
            if let Some(lag) = &self.lag {
                lag.confirmed(messages.iter().map(|message| message.id));
            }
            let count = u64::try_from(messages.len())?;
            self.published.fetch_add(count, Ordering::SeqCst);
            let rows: Vec<i64> = messages.iter().map(|message| message.row).collect();
            sqlx::query(DELETE)
                .bind(rows)
                .execute(&mut connection)
                .await?;
            self.end(&mut connection).await?;
        }
        Ok(())
    }

    async fn claim(&self, connection: &mut PgConnection) -> Result<Vec<Message>> {
        let _one_at_a_time = self.claiming.lock().await;
        let claim = match self.keep {
            Keep::Lease => CLAIM,
            Keep::Lock => {
                sqlx::query("begin").execute(&mut *connection).await?;
                LOCK
            }
        };
        let rows = sqlx::query(claim)
            .bind(&self.destination)
            .bind(LEASE)
            .bind(WINDOW)
            .fetch_all(connection)
            .await?;
        rows.iter().map(read).collect()
    }

    async fn end(&self, connection: &mut PgConnection) -> Result<()> {
        if self.keep == Keep::Lock {
            sqlx::query("commit").execute(connection).await?;
        }
        Ok(())
    }
}

fn read(row: &PgRow) -> Result<Message> {
    let headers: HashMap<String, String> = serde_json::from_slice(row.try_get(4)?)?;
    Ok(Message {
        row: row.try_get(0)?,
        id: row.try_get(1)?,
        message_type: row.try_get(2)?,
        destination: row.try_get(3)?,
        headers,
        body: row.try_get(5)?,
    })
}
