//! What operators and tests read and change.

use bytes::Bytes;
use sagabus_core::envelope::Envelope;
use sagabus_core::store::{Counts, Instance, Question, StoredDeadLetter};
use sagabus_core::{InstanceId, MessageId, StoreError, Timestamp};
use sqlx::Row;
use sqlx::postgres::PgRow;

use super::error::{commit_error, store_error};
use super::load;
use super::store::PgStore;
use crate::row;

const COUNTS: &str = "select \
    (select count(*) from sagabus.outbox where parked is null), \
    (select count(*) from sagabus.outbox where parked is not null), \
    (select count(*) from sagabus.inbox), \
    (select count(*) from sagabus.instance where not completed), \
    (select count(*) from sagabus.instance where completed), \
    (select count(*) from sagabus.dead_letter where status = 'open'), \
    (select count(*) from sagabus.history)";

const DEAD_LETTERS: &str = "select id, endpoint, message_id, message_type, headers, body, reason, \
    attempts, at from sagabus.dead_letter where status = 'open' order by id desc limit $1";

/// One statement, so one transaction. Its place in line is the last; the claim sees to the order.
const REDRIVE: &str = "with taken as ( \
        update sagabus.dead_letter set status = 'redriven' where id = $1 and status = 'open' \
        returning endpoint, message_id, message_type, key, headers, body \
    ) \
    insert into sagabus.outbox (message_id, message_type, destination, key, per_key, headers, \
        body, available_at, created_at) \
    select t.message_id, t.message_type, '@' || t.endpoint, t.key, \
        t.key is not null and coalesce(e.per_key, false), t.headers, t.body, \
        sagabus.now_micros(), sagabus.now_micros() \
    from taken t left join sagabus.endpoint e on e.name = t.endpoint";

/// Counts rows, of one moment.
pub(super) async fn counts(store: &PgStore) -> Result<Counts, StoreError> {
    let mut taken = store.take().await?;
    let answer = store
        .answer(sqlx::query(COUNTS).fetch_one(&mut *taken))
        .await;
    let row = taken.finish(answer, store_error)?;
    let count = |index| -> Result<u64, StoreError> {
        let count: i64 = row.try_get(index).map_err(store_error)?;
        Ok(count.unsigned_abs())
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
    store: &PgStore,
    limit: u32,
) -> Result<Vec<StoredDeadLetter>, StoreError> {
    let mut taken = store.take().await?;
    let call = sqlx::query(DEAD_LETTERS)
        .bind(i64::from(limit))
        .fetch_all(&mut *taken);
    let answer = store.answer(call).await;
    let rows = taken.finish(answer, store_error)?;
    rows.iter()
        .map(|row| dead_letter(row).map_err(store_error))
        .collect()
}

/// Makes a dead letter a row of its endpoint again.
pub(super) async fn redrive(store: &PgStore, id: i64) -> Result<bool, StoreError> {
    let mut taken = store.take().await?;
    let answer = store
        .answer(sqlx::query(REDRIVE).bind(id).execute(&mut *taken))
        .await;
    let done = taken.finish(answer, commit_error)?;
    let is_redriven = done.rows_affected() > 0;
    if is_redriven {
        store.nudge();
    }
    Ok(is_redriven)
}

/// Reads one instance, tombstones included.
pub(super) async fn instance(
    store: &PgStore,
    id: &InstanceId,
) -> Result<Option<Instance>, StoreError> {
    let question = Question {
        instance: Some(id.clone()),
        ..Question::default()
    };
    let answers = load::load(store, &[question]).await?;
    Ok(answers.into_iter().next().and_then(|one| one.instance))
}

fn dead_letter(found: &PgRow) -> Result<StoredDeadLetter, sqlx::Error> {
    Ok(StoredDeadLetter {
        id: found.try_get(0)?,
        endpoint: found.try_get(1)?,
        envelope: Envelope {
            id: MessageId::from_uuid(found.try_get(2)?),
            message_type: found.try_get::<String, _>(3)?.into(),
            headers: row::headers_from_json(found.try_get(4)?),
            body: Bytes::from(found.try_get::<Vec<u8>, _>(5)?),
        },
        reason: found.try_get(6)?,
        attempts: row::attempts_from_json(Some(found.try_get(7)?)),
        at: Timestamp::from_micros(found.try_get(8)?),
    })
}
