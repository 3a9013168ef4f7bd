//! Retention: removes what is older than it has to be, a bounded number of rows at a time.

use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::Duration;

use sagabus_core::StoreError;
use sagabus_core::store::{Retention, Swept};
use sqlx::Arguments;
use sqlx::Row;
use sqlx::sqlite::{SqliteArguments, SqliteRow};

use super::clock::now;
use super::encode::micros;
use super::error::{commit_error, store_error};
use super::rows::Rows;
use super::store::SqliteStore;

/// Where the sweeps go on. Inbox and instances have no index on their age, which every message
/// would pay for: they are read along their keys instead, a part at a time.
#[derive(Debug, Default)]
pub(super) struct Cursors {
    inbox: Mutex<Option<(Vec<u8>, i64)>>,
    tombstones: Mutex<Option<(String, String)>>,
}

/// How many rows are looked at for each that may be removed: reading is about 20 times cheaper
/// than deleting.
const LOOK_FACTOR: u32 = 20;

/// Looks at `$4` rows after a key; returns the last key looked at (first), then keys to remove.
pub(super) const FIND_INBOX: &str = concat!(
    "with part as materialized (select message_id, endpoint_id, accepted_at from sagabus_inbox ",
    "where (message_id, endpoint_id) > ($1, $2) order by message_id, endpoint_id limit $4) ",
    "select * from (select message_id, endpoint_id, 1 as is_last from part ",
    "order by message_id desc, endpoint_id desc limit 1) ",
    "union all select * from (select message_id, endpoint_id, 0 from part ",
    "where accepted_at <= ",
    now!(),
    " - $3 order by message_id, endpoint_id limit $5)"
);

/// Rows: message id (hexadecimal), endpoint id.
pub(super) const SWEEP_INBOX: &str = "begin immediate; delete from sagabus_inbox where (message_id, \
    endpoint_id) in (select unhex(value ->> 0), value ->> 1 from json_each($1)); commit";

/// As [`FIND_INBOX`], over tombstones.
pub(super) const FIND_TOMBSTONES: &str = concat!(
    "with part as materialized (select kind, key, completed, updated_at from sagabus_instance ",
    "where (kind, key) > ($1, $2) order by kind, key limit $4) ",
    "select * from (select kind, key, 1 as is_last from part ",
    "order by kind desc, key desc limit 1) ",
    "union all select * from (select kind, key, 0 from part where completed = 1 ",
    "and updated_at <= ",
    now!(),
    " - $3 order by kind, key limit $5)"
);

/// Rows: kind, key. The age is asked again: a new life may have begun meanwhile.
pub(super) const SWEEP_TOMBSTONES: &str = concat!(
    "begin immediate; delete from sagabus_instance where completed = 1 and updated_at <= ",
    now!(),
    " - $2 and (kind, key) in (select value ->> 0, value ->> 1 from json_each($1)); commit"
);

/// History is written in the order of time: its oldest rows have the smallest ids. What is removed
/// is written down for the accounts: nothing younger than the time of the second statement is gone.
pub(super) const SWEEP_HISTORY: &str = concat!(
    "begin immediate; delete from sagabus_history where id in (select id from sagabus_history ",
    "order by id limit $2) and at <= ",
    now!(),
    " - $1; insert into sagabus_swept (what, removed, through) select 'history', changes(), ",
    now!(),
    " - $1 where changes() > 0 on conflict (what) do update set ",
    "removed = removed + excluded.removed, through = max(through, excluded.through); ",
    "delete from sagabus_host where id in (select id from sagabus_host ",
    "where heartbeat_at <= ",
    now!(),
    " - $1 limit $2); commit"
);

/// A retention for what has ids in the order of time, as that of history.
macro_rules! sweep_oldest {
    ($what:literal, $oldest:literal) => {
        concat!(
            "begin immediate; delete from sagabus_",
            $what,
            " where id in (",
            $oldest,
            ") and at <= ",
            now!(),
            " - $1; insert into sagabus_swept (what, removed, through) select '",
            $what,
            "', changes(), ",
            now!(),
            " - $1 where changes() > 0 on conflict (what) do update set ",
            "removed = removed + excluded.removed, through = max(through, excluded.through); commit"
        )
    };
}

pub(super) const SWEEP_AUDIT: &str =
    sweep_oldest!("audit", "select id from sagabus_audit order by id limit $2");

/// Those that are open are kept. Each status has its own oldest: its index is in the order of ids.
pub(super) const SWEEP_DEAD_LETTERS: &str = sweep_oldest!(
    "dead_letter",
    "select id from (select id from sagabus_dead_letter where status = 'redriven' order by id \
    limit $2) union all select id from (select id from sagabus_dead_letter \
    where status = 'discarded' order by id limit $2) order by id limit $2"
);

pub(super) const SWEEP_SENT: &str = concat!(
    "begin immediate; delete from sagabus_sent where id in (select id from sagabus_sent ",
    "where kept_until < ",
    now!(),
    " order by kept_until limit $1); commit"
);

/// The place in the texts above of the statement that counts.
const SWEPT: usize = 1;

/// Removes what is too old from inbox, history and instances.
pub(super) async fn sweep(store: &SqliteStore, retention: &Retention) -> Result<Swept, StoreError> {
    let rows_max = retention.rows_max;
    let inbox = sweep_inbox(store, micros(retention.inbox), rows_max).await?;
    let mut arguments = SqliteArguments::default();
    add(&mut arguments, micros(retention.history))?;
    add(&mut arguments, rows_max)?;
    let history = delete(store, SWEEP_HISTORY, arguments).await?;
    let tombstones = sweep_tombstones(store, micros(retention.finished()), rows_max).await?;
    let dead = sweep_oldest(store, SWEEP_DEAD_LETTERS, retention.dealt_with(), rows_max).await?;
    let audit = sweep_oldest(store, SWEEP_AUDIT, retention.audit, rows_max).await?;
    let mut arguments = SqliteArguments::default();
    add(&mut arguments, rows_max)?;
    let sent = delete(store, SWEEP_SENT, arguments).await?;
    let most = inbox.max(history).max(tombstones).max(dead).max(audit);
    let most = most.max(sent);
    Ok(Swept {
        inbox,
        history,
        tombstones,
        dead_letters: dead,
        audit,
        sent,
        is_full: rows_max > 0 && most >= u64::from(rows_max),
    })
}

async fn sweep_inbox(store: &SqliteStore, age: i64, rows_max: u32) -> Result<u64, StoreError> {
    let from = take(&store.cursors().inbox);
    let (id, endpoint) = from.unwrap_or_default();
    let found = sqlx::query(FIND_INBOX)
        .bind(id)
        .bind(endpoint)
        .bind(age)
        .bind(rows_max.saturating_mul(LOOK_FACTOR))
        .bind(rows_max)
        .fetch_all(store.reader())
        .await
        .map_err(store_error)?;
    let mut old = Rows::default();
    let mut last_old = None;
    let mut last = None;
    for row in &found {
        let key: (Vec<u8>, i64) = (get(row, 0)?, get(row, 1)?);
        match get::<bool>(row, 2)? {
            true => last = Some(key),
            false => {
                old.begin().text(&hex(&key.0)).int(key.1).end();
                last_old = Some(key);
            }
        }
    }
    // A full sweep has not seen the rest of its part.
    let is_full = old.count >= i64::from(rows_max);
    put(
        &store.cursors().inbox,
        if is_full { last_old } else { last },
    );
    if old.count == 0 {
        return Ok(0);
    }
    let mut arguments = SqliteArguments::default();
    add(&mut arguments, old.json())?;
    delete(store, SWEEP_INBOX, arguments).await
}

async fn sweep_tombstones(store: &SqliteStore, age: i64, rows_max: u32) -> Result<u64, StoreError> {
    let from = take(&store.cursors().tombstones);
    let (kind, key) = from.unwrap_or_default();
    let found = sqlx::query(FIND_TOMBSTONES)
        .bind(kind)
        .bind(key)
        .bind(age)
        .bind(rows_max.saturating_mul(LOOK_FACTOR))
        .bind(rows_max)
        .fetch_all(store.reader())
        .await
        .map_err(store_error)?;
    let mut old = Rows::default();
    let mut last_old = None;
    let mut last = None;
    for row in &found {
        let id: (String, String) = (get(row, 0)?, get(row, 1)?);
        match get::<bool>(row, 2)? {
            true => last = Some(id),
            false => {
                old.begin().text(&id.0).text(&id.1).end();
                last_old = Some(id);
            }
        }
    }
    let is_full = old.count >= i64::from(rows_max);
    put(
        &store.cursors().tombstones,
        if is_full { last_old } else { last },
    );
    if old.count == 0 {
        return Ok(0);
    }
    let mut arguments = SqliteArguments::default();
    add(&mut arguments, old.json())?;
    add(&mut arguments, age)?;
    delete(store, SWEEP_TOMBSTONES, arguments).await
}

async fn sweep_oldest(
    store: &SqliteStore,
    sql: &'static str,
    kept: Duration,
    rows_max: u32,
) -> Result<u64, StoreError> {
    let mut arguments = SqliteArguments::default();
    add(&mut arguments, micros(kept))?;
    add(&mut arguments, rows_max)?;
    delete(store, sql, arguments).await
}

async fn delete(
    store: &SqliteStore,
    sql: &'static str,
    arguments: SqliteArguments,
) -> Result<u64, StoreError> {
    let mut write = store.write().await?;
    let replies = write.whole(sql, arguments).await.map_err(commit_error)?;
    Ok(replies.get(SWEPT).map_or(0, |reply| reply.changes))
}

/// Takes the place to go on from; none begins at the first key again.
fn take<K>(cursor: &Mutex<Option<K>>) -> Option<K> {
    cursor.lock().unwrap_or_else(PoisonError::into_inner).take()
}

fn put<K>(cursor: &Mutex<Option<K>>, key: Option<K>) {
    *cursor.lock().unwrap_or_else(PoisonError::into_inner) = key;
}

fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digits = bytes.iter().flat_map(|byte| [byte >> 4, byte & 15]);
    digits
        .map(|digit| char::from(DIGITS[usize::from(digit)]))
        .collect()
}

fn get<'r, T>(row: &'r SqliteRow, column: usize) -> Result<T, StoreError>
where
    T: sqlx::Decode<'r, sqlx::Sqlite> + sqlx::Type<sqlx::Sqlite>,
{
    row.try_get(column).map_err(store_error)
}

fn add<'t, T>(arguments: &mut SqliteArguments, value: T) -> Result<(), StoreError>
where
    T: sqlx::Encode<'t, sqlx::Sqlite> + sqlx::Type<sqlx::Sqlite>,
{
    arguments.add(value).map_err(StoreError::Refused)
}
