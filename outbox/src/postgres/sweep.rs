//! Retention, a page at a time.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use sagabus_core::StoreError;
use sagabus_core::clock::micros;
use sagabus_core::store::{Retention, Swept};
use sqlx::Row;
use sqlx::postgres::{PgConnection, PgRow};
use uuid::Uuid;

use super::error::commit_error;
use super::store::PgStore;

const SWEEP_INBOX: &str = "select seen, removed, last_message, last_endpoint \
    from sagabus.sweep_inbox_v1($1, $2, $3, $4)";

const SWEEP_INSTANCES: &str = "select seen, removed, last_kind, last_key \
    from sagabus.sweep_instances_v1($1, $2, $3, $4)";

const SWEEP_HISTORY: &str = "select sagabus.sweep_history_v1($1, $2)";

const SWEEP_DEAD_LETTERS: &str = "select sagabus.sweep_dead_letters_v1($1, $2)";

const SWEEP_AUDIT: &str = "select sagabus.sweep_audit_v1($1, $2)";

const SWEEP_SENT: &str = "select sagabus.sweep_sent_v1($1)";

const SWEEP_HOSTS: &str = "select sagabus.sweep_hosts_v1($1, $2)";

/// Where the next page begins. Only a hint: a process that starts anew begins at the front.
#[derive(Debug, Default)]
pub(super) struct Cursors(Mutex<Places>);

#[derive(Clone, Debug, Default)]
struct Places {
    inbox: (Uuid, i32),
    instance: (String, String),
}

impl Cursors {
    fn lock(&self) -> MutexGuard<'_, Places> {
        // A place is whole after every assignment.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What one page had.
#[derive(Clone, Copy, Debug, Default)]
struct Page {
    seen: i64,
    removed: i64,
}

impl Page {
    /// Says whether there may be more to remove: the page was full, and worth it. Pages with less
    /// than a tenth to remove are left to the next sweep, or every sweep would walk whole tables.
    fn is_full(self, rows_max: i64) -> bool {
        self.seen >= rows_max && self.removed * 10 >= rows_max
    }
}

/// Removes what is older than its retention from every table.
///
/// The inbox has no index on time. New identities sort last, so the oldest are at the front of its
/// key: each sweep looks there first, and spends what it has left on a page that wanders through
/// the whole key, for identities that others chose.
pub(super) async fn sweep(store: &PgStore, retention: &Retention) -> Result<Swept, StoreError> {
    let rows_max = i64::from(retention.rows_max.max(1));
    let mut swept = Swept::default();

    let (front, _) = inbox_page(store, (Uuid::nil(), -1), rows_max, retention.inbox).await?;
    let rest = rows_max - front.removed;
    let mut wandering = Page::default();
    if rest > 0 && front.seen >= rows_max {
        let place = store.cursors().lock().inbox;
        let (page, next) = inbox_page(store, place, rest, retention.inbox).await?;
        store.cursors().lock().inbox = next.unwrap_or_default();
        wandering = page;
    }
    swept.inbox = (front.removed + wandering.removed).unsigned_abs();
    swept.is_full |= front.is_full(rows_max) || wandering.is_full(rest);

    let tombstones = instance_page(store, rows_max, retention.finished()).await?;
    swept.tombstones = tombstones.removed.unsigned_abs();
    swept.is_full |= tombstones.is_full(rows_max);

    let history = oldest(store, SWEEP_HISTORY, rows_max, retention.history).await?;
    oldest(store, SWEEP_HOSTS, rows_max, retention.history).await?;
    swept.history = history.unsigned_abs();
    swept.is_full |= history >= rows_max;

    let dead = oldest(store, SWEEP_DEAD_LETTERS, rows_max, retention.dealt_with()).await?;
    let audit = oldest(store, SWEEP_AUDIT, rows_max, retention.audit).await?;
    (swept.dead_letters, swept.audit) = (dead.unsigned_abs(), audit.unsigned_abs());
    swept.is_full |= dead >= rows_max || audit >= rows_max;

    let sent = sweep_sent(store, rows_max).await?;
    swept.sent = sent.unsigned_abs();
    swept.is_full |= sent >= rows_max;
    Ok(swept)
}

/// Removes what was kept for as long as its host declared, and counts it.
async fn sweep_sent(store: &PgStore, rows_max: i64) -> Result<i64, StoreError> {
    let mut taken = store.take().await?;
    let call = sqlx::query_scalar(SWEEP_SENT)
        .bind(page_size(rows_max))
        .fetch_one(&mut *taken);
    let answer = store.answer(call).await;
    taken.finish(answer, commit_error)
}

/// Sweeps one page of the inbox and returns where the next one begins, if there is one.
async fn inbox_page(
    store: &PgStore,
    (message, endpoint): (Uuid, i32),
    rows_max: i64,
    kept: Duration,
) -> Result<(Page, Option<(Uuid, i32)>), StoreError> {
    let call = |connection| inbox_call(connection, message, endpoint, rows_max, kept);
    let mut taken = store.take().await?;
    let answer = store.answer(call(&mut taken)).await;
    let row = taken.finish(answer, commit_error)?;
    let page = page(&row).map_err(commit_error)?;
    let is_last = page.seen < rows_max;
    let last = (
        row.try_get(2).map_err(commit_error)?,
        row.try_get(3).map_err(commit_error)?,
    );
    match last {
        (Some(message), Some(endpoint)) if !is_last => Ok((page, Some((message, endpoint)))),
        _ => Ok((page, None)),
    }
}

async fn inbox_call(
    connection: &mut PgConnection,
    message: Uuid,
    endpoint: i32,
    rows_max: i64,
    kept: Duration,
) -> Result<PgRow, sqlx::Error> {
    sqlx::query(SWEEP_INBOX)
        .bind(message)
        .bind(endpoint)
        .bind(page_size(rows_max))
        .bind(micros(kept))
        .fetch_one(connection)
        .await
}

/// Sweeps the next page of the instances.
async fn instance_page(store: &PgStore, rows_max: i64, kept: Duration) -> Result<Page, StoreError> {
    let (kind, key) = store.cursors().lock().instance.clone();
    let mut taken = store.take().await?;
    let call = sqlx::query(SWEEP_INSTANCES)
        .bind(kind)
        .bind(key)
        .bind(page_size(rows_max))
        .bind(micros(kept))
        .fetch_one(&mut *taken);
    let answer = store.answer(call).await;
    let row = taken.finish(answer, commit_error)?;
    let page = page(&row).map_err(commit_error)?;
    let last: (Option<String>, Option<String>) = (
        row.try_get(2).map_err(commit_error)?,
        row.try_get(3).map_err(commit_error)?,
    );
    store.cursors().lock().instance = match last {
        (Some(kind), Some(key)) if page.seen >= rows_max => (kind, key),
        _ => Default::default(),
    };
    Ok(page)
}

/// Removes the oldest entries of a table and counts them.
async fn oldest(
    store: &PgStore,
    text: &'static str,
    rows_max: i64,
    kept: Duration,
) -> Result<i64, StoreError> {
    let mut taken = store.take().await?;
    let call = sqlx::query_scalar(text)
        .bind(page_size(rows_max))
        .bind(micros(kept))
        .fetch_one(&mut *taken);
    let answer = store.answer(call).await;
    taken.finish(answer, commit_error)
}

fn page(row: &PgRow) -> Result<Page, sqlx::Error> {
    Ok(Page {
        seen: row.try_get(0)?,
        removed: row.try_get(1)?,
    })
}

fn page_size(rows_max: i64) -> i32 {
    i32::try_from(rows_max).unwrap_or(i32::MAX)
}
