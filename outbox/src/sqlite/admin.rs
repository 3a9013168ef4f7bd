//! What operators and tests read and change.

use bytes::Bytes;
use sagabus_core::clock::Timestamp;
use sagabus_core::envelope::Envelope;
use sagabus_core::store::{Counts, Instance, StoredDeadLetter};
use sagabus_core::{InstanceId, MessageId, StoreError};
use sqlx::sqlite::{SqliteArguments, SqliteRow};
use sqlx::{Arguments, Row};

use super::clock::now;
use super::error::{commit_error, store_error};
use super::load::read_instance;
use super::store::SqliteStore;
use crate::row;

const COUNTS: &str = "select \
    (select count(*) from sagabus_outbox where parked is null), \
    (select count(*) from sagabus_outbox where parked is not null), \
    (select count(*) from sagabus_inbox), \
    (select count(*) from sagabus_instance where completed = 0), \
    (select count(*) from sagabus_instance where completed = 1), \
    (select count(*) from sagabus_dead_letter where status = 'open'), \
    (select count(*) from sagabus_history)";

const FIND_DEAD_LETTERS: &str = "select id, endpoint, message_id, message_type, headers, body, \
    reason, attempts, at from sagabus_dead_letter where status = 'open' order by id desc limit $1";

/// Writes the row, then closes the dead letter.
const REDRIVE: &str = concat!(
    "begin immediate; insert into sagabus_outbox (message_id, message_type, destination, key, ",
    "per_key, headers, body, available_at, created_at) ",
    "select d.message_id, d.message_type, '@' || d.endpoint, d.key, ",
    "coalesce(e.per_key, 0) = 1 and d.key is not null, d.headers, d.body, ",
    now!(),
    ", ",
    now!(),
    " from sagabus_dead_letter d left join sagabus_endpoint e on e.name = d.endpoint ",
    "where d.id = $1 and d.status = 'open'; ",
    "update sagabus_dead_letter set status = 'redriven' where id = $1 and status = 'open'; commit"
);

/// The place in [`REDRIVE`] of the statement that counts.
const REDRIVEN: usize = 2;

const FIND_INSTANCE: &str = "select version, completed, state, schema_version, data, timers, \
    origin from sagabus_instance where kind = $1 and key = $2";

/// Counts rows.
pub(super) async fn counts(store: &SqliteStore) -> Result<Counts, StoreError> {
    let row = sqlx::query(COUNTS)
        .fetch_one(store.reader())
        .await
        .map_err(store_error)?;
    let count = |at: usize| -> Result<u64, StoreError> {
        let count: i64 = row.try_get(at).map_err(store_error)?;
        Ok(count.cast_unsigned())
    };
    Ok(Counts {
        outbox: count(0)?,
        parked: count(1)?,
        inbox: count(2)?,
        running: count(3)?,
        completed: count(4)?,
        dead_letters: count(5)?,
        history: count(6)?,
    })
}

/// Reads open dead letters, the latest first.
pub(super) async fn dead_letters(
    store: &SqliteStore,
    limit: u32,
) -> Result<Vec<StoredDeadLetter>, StoreError> {
    let rows = sqlx::query(FIND_DEAD_LETTERS)
        .bind(limit)
        .fetch_all(store.reader())
        .await
        .map_err(store_error)?;
    rows.iter().map(read_dead_letter).collect()
}

/// Turns a dead letter back into a row of its endpoint.
pub(super) async fn redrive(store: &SqliteStore, id: i64) -> Result<bool, StoreError> {
    let mut arguments = SqliteArguments::default();
    arguments.add(id).map_err(StoreError::Refused)?;
    let mut write = store.write().await?;
    let replies = write
        .whole(REDRIVE, arguments)
        .await
        .map_err(commit_error)?;
    drop(write);
    let is_redriven = replies.get(REDRIVEN).is_some_and(|reply| reply.changes > 0);
    if is_redriven {
        store.nudge();
    }
    Ok(is_redriven)
}

/// Reads one instance.
pub(super) async fn instance(
    store: &SqliteStore,
    id: &InstanceId,
) -> Result<Option<Instance>, StoreError> {
    let row = sqlx::query(FIND_INSTANCE)
        .bind(id.kind.as_ref())
        .bind(&id.key)
        .fetch_optional(store.reader())
        .await
        .map_err(store_error)?;
    match row {
        Some(row) => read_instance(&row, id, 0),
        None => Ok(None),
    }
}

fn read_dead_letter(row: &SqliteRow) -> Result<StoredDeadLetter, StoreError> {
    let message_id: Vec<u8> = row.try_get(2).map_err(store_error)?;
    let message_type: String = row.try_get(3).map_err(store_error)?;
    let headers: Vec<u8> = row.try_get(4).map_err(store_error)?;
    let body: Vec<u8> = row.try_get(5).map_err(store_error)?;
    let attempts: Vec<u8> = row.try_get(7).map_err(store_error)?;
    Ok(StoredDeadLetter {
        id: row.try_get(0).map_err(store_error)?,
        endpoint: row.try_get(1).map_err(store_error)?,
        envelope: Envelope {
            id: MessageId::from_uuid(row::uuid_from_bytes(&message_id)),
            message_type: message_type.into(),
            headers: row::headers_from_json(&headers),
            body: Bytes::from(body),
        },
        reason: row.try_get(6).map_err(store_error)?,
        attempts: row::attempts_from_json(Some(&attempts)),
        at: Timestamp::from_micros(row.try_get(8).map_err(store_error)?),
    })
}
