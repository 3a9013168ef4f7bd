//! Dead letters: lists, groups, sums.

use sagabus_core::admin::{
    DeadLetterFilter, DeadLetterGroup, DeadLetterStatus, First, Page, StoredDeadLetter, Tally,
};
use sagabus_core::{StoreError, Timestamp};
use sqlx::Arguments;
use sqlx::postgres::PgArguments;

use super::super::store::PgStore;
use super::read;
use crate::found;

/// `$1` status, `$2` endpoint, `$3` fingerprint, `$4` text in it, `$5` and `$6` the earliest and the
/// latest time, `$7` and `$8` the id and the largest id, `$9` type, `$10` reason, `$11` key, `$12`
/// message, `$13` and `$14` name and value of a label of the instance. What is null falls away when
/// the statement is planned for its values.
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
            "and ($12::uuid is null or message_id = $12) ",
            "and ($13::text is null or (kind, instance_key) in (select l.kind, l.key ",
            "from sagabus.label l where l.name = $13 and l.value = $14))"
        )
    };
}

pub(super) use filter;

/// `$15` how much of a body, `$16` behind which id, `$17` how many.
macro_rules! list {
    ($behind:literal, $order:literal) => {
        concat!(
            "select id, status, endpoint, message_id, message_type, headers, ",
            "substr(body, 1, $15::int), length(body)::bigint, reason, key, kind, instance_key, ",
            "fingerprint, attempts, at from sagabus.dead_letter where ",
            filter!(),
            " and ($16::bigint is null or id ",
            $behind,
            " $16) order by id ",
            $order,
            " limit $17::bigint"
        )
    };
}

const LATEST: &str = list!("<", "desc");
const OLDEST: &str = list!(">", "asc");

const GROUPS: &str = concat!(
    "select endpoint, fingerprint, count(*) as n, min(at), max(at), max(id) ",
    "from sagabus.dead_letter where ",
    filter!(),
    " group by endpoint, fingerprint order by n desc, endpoint, fingerprint limit $15::bigint"
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
    read::all(store, text, arguments, found::dead_letter).await
}

/// Groups dead letters by endpoint and fingerprint, the largest first.
pub(super) async fn groups(
    store: &PgStore,
    filter: &DeadLetterFilter,
    limit: u32,
) -> Result<Vec<DeadLetterGroup>, StoreError> {
    let mut arguments = arguments(filter)?;
    add(&mut arguments, i64::from(Page::latest(limit).size()))?;
    read::all(store, GROUPS, arguments, found::group).await
}

/// Counts what a filter lets through.
pub(super) async fn count(store: &PgStore, filter: &DeadLetterFilter) -> Result<Tally, StoreError> {
    read::one(store, COUNT, arguments(filter)?, found::tally).await
}

pub(super) fn arguments(filter: &DeadLetterFilter) -> Result<PgArguments, StoreError> {
    filter.check()?;
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
    add(to, filter.label.as_ref().map(|one| one.name.to_string()))?;
    add(to, filter.label.as_ref().map(|one| one.value.clone()))?;
    Ok(arguments)
}

pub(super) fn add<'t, T>(arguments: &mut PgArguments, value: T) -> Result<(), StoreError>
where
    T: sqlx::Encode<'t, sqlx::Postgres> + sqlx::Type<sqlx::Postgres>,
{
    arguments.add(value).map_err(StoreError::Refused)
}
