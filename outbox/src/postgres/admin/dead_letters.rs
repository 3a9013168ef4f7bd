//! Dead letters: lists, groups, sums.

use bytes::Bytes;
use sagabus_core::admin::{
    DeadLetterFilter, DeadLetterGroup, DeadLetterStatus, First, Page, StoredDeadLetter, Tally,
};
use sagabus_core::envelope::Envelope;
use sagabus_core::{InstanceId, MessageId, StoreError, Timestamp};
use sqlx::postgres::{PgArguments, PgRow};
use sqlx::{Arguments, Row};

use super::super::error::store_error;
use super::super::store::PgStore;
use crate::row;

/// `$1` status, `$2` endpoint, `$3` fingerprint, `$4` text in it, `$5` and `$6` the earliest and the
/// latest time, `$7` and `$8` the id and the largest id, `$9` type, `$10` reason, `$11` key, `$12`
/// message. What is null falls away when the statement is planned for its values.
macro_rules! filter {
    () => {
        concat!(
            "($1::text is null or status = $1) and ($2::text is null or endpoint = $2) ",
            "and ($3::text is null or fingerprint = $3) ",
            "and ($4::text is null or strpos(lower(fingerprint), lower($4)) > 0) ",
            "and ($5::bigint is null or at >= $5) and ($6::bigint is null or at < $6) ",
            "and ($7::bigint is null or id = $7) and ($8::bigint is null or id <= $8) ",
            "and ($9::text is null or message_type = $9) ",
            "and ($10::text is null or reason = $10) and ($11::text is null or key = $11) ",
            "and ($12::uuid is null or message_id = $12)"
        )
    };
}

pub(super) use filter;

/// `$13` how much of a body, `$14` behind which id, `$15` how many.
macro_rules! list {
    ($behind:literal, $order:literal) => {
        concat!(
            "select id, status, endpoint, message_id, message_type, headers, ",
            "substr(body, 1, $13::int), length(body)::bigint, reason, key, kind, instance_key, ",
            "fingerprint, attempts, at from sagabus.dead_letter where ",
            filter!(),
            " and ($14::bigint is null or id ",
            $behind,
            " $14) order by id ",
            $order,
            " limit $15::bigint"
        )
    };
}

const LATEST: &str = list!("<", "desc");
const OLDEST: &str = list!(">", "asc");

const GROUPS: &str = concat!(
    "select endpoint, fingerprint, count(*) as n, min(at), max(at), max(id) ",
    "from sagabus.dead_letter where ",
    filter!(),
    " group by endpoint, fingerprint order by n desc, endpoint, fingerprint limit $13::bigint"
);

const COUNT: &str = concat!(
    "select count(*), min(at), max(at), max(id) from sagabus.dead_letter where ",
    filter!()
);

/// Reads dead letters.
pub(super) async fn list(
    store: &PgStore,
    filter: &DeadLetterFilter,
    page: Page,
) -> Result<Vec<StoredDeadLetter>, StoreError> {
    let text = match page.first {
        First::Latest => LATEST,
        First::Oldest => OLDEST,
    };
    let mut arguments = arguments(filter)?;
    add(&mut arguments, page.body_bytes_max.cast_signed().max(0))?;
    add(&mut arguments, page.after)?;
    add(&mut arguments, i64::from(page.size()))?;
    let mut taken = store.take().await?;
    let call = sqlx::query_with(text, arguments).fetch_all(&mut *taken);
    let answer = store.answer(call).await;
    let rows = taken.finish(answer, store_error)?;
    rows.iter()
        .map(|row| read(row).map_err(store_error))
        .collect()
}

/// Groups dead letters by endpoint and fingerprint, the largest first.
pub(super) async fn groups(
    store: &PgStore,
    filter: &DeadLetterFilter,
    limit: u32,
) -> Result<Vec<DeadLetterGroup>, StoreError> {
    let mut arguments = arguments(filter)?;
    add(&mut arguments, i64::from(Page::latest(limit).size()))?;
    let mut taken = store.take().await?;
    let call = sqlx::query_with(GROUPS, arguments).fetch_all(&mut *taken);
    let answer = store.answer(call).await;
    let rows = taken.finish(answer, store_error)?;
    rows.iter()
        .map(|row| read_group(row).map_err(store_error))
        .collect()
}

/// Counts what a filter lets through.
pub(super) async fn count(store: &PgStore, filter: &DeadLetterFilter) -> Result<Tally, StoreError> {
    let mut taken = store.take().await?;
    let call = sqlx::query_with(COUNT, arguments(filter)?).fetch_one(&mut *taken);
    let answer = store.answer(call).await;
    let row = taken.finish(answer, store_error)?;
    read_tally(&row).map_err(store_error)
}

pub(super) fn arguments(filter: &DeadLetterFilter) -> Result<PgArguments, StoreError> {
    let mut arguments = PgArguments::default();
    let to = &mut arguments;
    add(to, filter.status.map(DeadLetterStatus::as_str))?;
    add(to, filter.endpoint.clone())?;
    add(to, filter.fingerprint.clone())?;
    add(to, filter.text.clone())?;
    add(to, filter.since.map(Timestamp::as_micros))?;
    add(to, filter.until.map(Timestamp::as_micros))?;
    add(to, filter.id)?;
    add(to, filter.id_max)?;
    add(to, filter.message_type.clone())?;
    add(to, filter.reason.clone())?;
    add(to, filter.key.clone())?;
    add(to, filter.message.map(|id| id.as_uuid()))?;
    Ok(arguments)
}

fn read(found: &PgRow) -> Result<StoredDeadLetter, sqlx::Error> {
    let kind: Option<String> = found.try_get(10)?;
    let instance_key: Option<String> = found.try_get(11)?;
    let attempts: Vec<u8> = found.try_get(13)?;
    Ok(StoredDeadLetter {
        id: found.try_get(0)?,
        status: DeadLetterStatus::from_stored(found.try_get(1)?),
        endpoint: found.try_get(2)?,
        envelope: Envelope {
            id: MessageId::from_uuid(found.try_get(3)?),
            message_type: found.try_get::<String, _>(4)?.into(),
            headers: row::headers_from_json(found.try_get(5)?),
            body: Bytes::from(found.try_get::<Vec<u8>, _>(6)?),
        },
        body_bytes: found.try_get::<i64, _>(7)?.cast_unsigned(),
        reason: found.try_get(8)?,
        key: found.try_get(9)?,
        instance: kind.zip(instance_key).map(|(kind, key)| InstanceId {
            kind: kind.into(),
            key,
        }),
        fingerprint: found.try_get(12)?,
        attempts: row::attempts_from_json(Some(&attempts)),
        at: Timestamp::from_micros(found.try_get(14)?),
    })
}

fn read_group(found: &PgRow) -> Result<DeadLetterGroup, sqlx::Error> {
    Ok(DeadLetterGroup {
        endpoint: found.try_get(0)?,
        fingerprint: found.try_get(1)?,
        count: found.try_get::<i64, _>(2)?.cast_unsigned(),
        first_at: Timestamp::from_micros(found.try_get(3)?),
        last_at: Timestamp::from_micros(found.try_get(4)?),
        example: found.try_get(5)?,
    })
}

fn read_tally(found: &PgRow) -> Result<Tally, sqlx::Error> {
    Ok(Tally {
        count: found.try_get::<i64, _>(0)?.cast_unsigned(),
        first_at: found
            .try_get::<Option<i64>, _>(1)?
            .map(Timestamp::from_micros),
        last_at: found
            .try_get::<Option<i64>, _>(2)?
            .map(Timestamp::from_micros),
        id_max: found.try_get(3)?,
    })
}

pub(super) fn add<'t, T>(arguments: &mut PgArguments, value: T) -> Result<(), StoreError>
where
    T: sqlx::Encode<'t, sqlx::Postgres> + sqlx::Type<sqlx::Postgres>,
{
    arguments.add(value).map_err(StoreError::Refused)
}
