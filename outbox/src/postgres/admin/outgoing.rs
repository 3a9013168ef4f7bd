//! Rows of the outbox: lists, and sums per destination.

use bytes::Bytes;
use sagabus_core::admin::{DestinationOverview, First, Page, RowFilter, RowState, StoredRow};
use sagabus_core::envelope::{Envelope, Timer};
use sagabus_core::{InstanceId, MessageId, StoreError, Timestamp};
use sqlx::Row;
use sqlx::postgres::{PgArguments, PgRow};

use super::super::error::store_error;
use super::super::store::PgStore;
use super::dead_letters::add;
use crate::row;

/// `$1` destination, `$2` type, `$3` reason, `$4` message, `$5` id; `$6` how much of a body, `$7`
/// behind which id, `$8` how many.
macro_rules! rows {
    ($state:literal, $behind:literal, $order:literal) => {
        concat!(
            "select id, destination, message_id, message_type, headers, ",
            "substr(body, 1, $6::int), length(body)::bigint, key, available_at, due_at, ",
            "expires_at, epoch, failures, attempts, parked, timer_kind, timer_key, timer_name, ",
            "timer_generation, created_at from sagabus.outbox where ",
            $state,
            " and ($1::text is null or destination = $1) ",
            "and ($2::text is null or message_type = $2) and ($3::text is null or parked = $3) ",
            "and ($4::uuid is null or message_id = $4) and ($5::bigint is null or id = $5) ",
            "and ($7::bigint is null or id ",
            $behind,
            " $7) order by id ",
            $order,
            " limit $8::bigint"
        )
    };
}

/// A text per state and order: only what names `parked` itself may use the index of what is parked.
const ANY: [&str; 2] = [rows!("true", "<", "desc"), rows!("true", ">", "asc")];
const PARKED: [&str; 2] = [
    rows!("parked is not null", "<", "desc"),
    rows!("parked is not null", ">", "asc"),
];
const MOVING: [&str; 2] = [
    rows!("parked is null", "<", "desc"),
    rows!("parked is null", ">", "asc"),
];
const TIMERS: [&str; 2] = [
    rows!("timer_name is not null", "<", "desc"),
    rows!("timer_name is not null", ">", "asc"),
];

const DESTINATIONS: &str = "select destination, \
    count(*) filter (where parked is null and available_at < sagabus.never_micros()), \
    count(*) filter (where parked is null and available_at <= t.now), \
    min(available_at) filter (where parked is null and available_at <= t.now), \
    min(created_at) filter (where parked is null), count(*) filter (where parked is not null) \
    from sagabus.outbox, (select sagabus.now_micros() as now offset 0) t \
    group by destination order by destination";

/// Reads rows of the outbox.
pub(super) async fn list(
    store: &PgStore,
    filter: &RowFilter,
    page: Page,
) -> Result<Vec<StoredRow>, StoreError> {
    let texts = match filter.state {
        None => ANY,
        Some(RowState::Parked) => PARKED,
        Some(RowState::Moving) => MOVING,
        Some(RowState::Timer) => TIMERS,
    };
    let text = match page.first {
        First::Latest => texts[0],
        First::Oldest => texts[1],
    };
    let mut arguments = PgArguments::default();
    let to = &mut arguments;
    add(to, filter.destination.clone())?;
    add(to, filter.message_type.clone())?;
    add(to, filter.reason.clone())?;
    add(to, filter.message.map(|id| id.as_uuid()))?;
    add(to, filter.id)?;
    add(to, page.body_bytes_max.cast_signed().max(0))?;
    add(to, page.after)?;
    add(to, i64::from(page.size()))?;
    let mut taken = store.take().await?;
    let call = sqlx::query_with(text, arguments).fetch_all(&mut *taken);
    let answer = store.answer(call).await;
    let rows = taken.finish(answer, store_error)?;
    rows.iter()
        .map(|row| read(row).map_err(store_error))
        .collect()
}

/// Sums the outbox up, per destination.
pub(super) async fn destinations(store: &PgStore) -> Result<Vec<DestinationOverview>, StoreError> {
    let mut taken = store.take().await?;
    let call = sqlx::query(DESTINATIONS).fetch_all(&mut *taken);
    let answer = store.answer(call).await;
    let rows = taken.finish(answer, store_error)?;
    rows.iter()
        .map(|row| read_destination(row).map_err(store_error))
        .collect()
}

fn read(found: &PgRow) -> Result<StoredRow, sqlx::Error> {
    let at = |column: usize| -> Result<Option<Timestamp>, sqlx::Error> {
        let micros: Option<i64> = found.try_get(column)?;
        Ok(micros.map(Timestamp::from_micros))
    };
    let attempts: Option<Vec<u8>> = found.try_get(13)?;
    Ok(StoredRow {
        id: found.try_get(0)?,
        destination: found.try_get(1)?,
        envelope: Envelope {
            id: MessageId::from_uuid(found.try_get(2)?),
            message_type: found.try_get::<String, _>(3)?.into(),
            headers: row::headers_from_json(found.try_get(4)?),
            body: Bytes::from(found.try_get::<Vec<u8>, _>(5)?),
        },
        body_bytes: found.try_get::<i64, _>(6)?.cast_unsigned(),
        key: found.try_get(7)?,
        available_at: Timestamp::from_micros(found.try_get(8)?),
        due_at: at(9)?,
        expires_at: at(10)?,
        epoch: found.try_get(11)?,
        failures: found.try_get(12)?,
        attempts: row::attempts_from_json(attempts.as_deref()),
        parked: found.try_get(14)?,
        timer: read_timer(found)?,
        created_at: Timestamp::from_micros(found.try_get(19)?),
    })
}

fn read_timer(found: &PgRow) -> Result<Option<Timer>, sqlx::Error> {
    let kind: Option<String> = found.try_get(15)?;
    let key: Option<String> = found.try_get(16)?;
    let name: Option<String> = found.try_get(17)?;
    let generation: Option<i64> = found.try_get(18)?;
    let (Some(kind), Some(key), Some(name)) = (kind, key, name) else {
        return Ok(None);
    };
    Ok(Some(Timer {
        owner: InstanceId {
            kind: kind.into(),
            key,
        },
        name,
        generation: generation.unwrap_or_default().cast_unsigned(),
    }))
}

fn read_destination(found: &PgRow) -> Result<DestinationOverview, sqlx::Error> {
    let at = |column: usize| -> Result<Option<Timestamp>, sqlx::Error> {
        let micros: Option<i64> = found.try_get(column)?;
        Ok(micros.map(Timestamp::from_micros))
    };
    Ok(DestinationOverview {
        destination: found.try_get(0)?,
        waiting: found.try_get::<i64, _>(1)?.cast_unsigned(),
        due: found.try_get::<i64, _>(2)?.cast_unsigned(),
        due_since: at(3)?,
        oldest_at: at(4)?,
        parked: found.try_get::<i64, _>(5)?.cast_unsigned(),
    })
}
