//! Rows of the outbox: lists, and sums per destination.

use sagabus_core::admin::{DestinationOverview, First, Page, RowFilter, StoredRow, Tally};
use sagabus_core::{StoreError, Timestamp};
use sqlx::postgres::PgArguments;

use super::super::store::PgStore;
use super::dead_letters::add;
use super::read;
use crate::{found, row};

/// `$1` destination, `$2` type, `$3` reason, `$4` message, `$5` id, `$6` key, `$7` and `$8` from when
/// to when, `$9` the largest id, `$10` whether only what operators change as rows is meant. Where an
/// instance is named: `$11` its kind, `$12` its key.
macro_rules! filter {
    ($state:expr) => {
        concat!(
            $state,
            " and ($1::text is null or destination = $1) ",
            "and ($2::text is null or message_type = $2) and ($3::text is null or parked = $3) ",
            "and ($4::uuid is null or message_id = $4) and ($5::bigint is null or id = $5) ",
            "and ($6::text is null or key = $6) and ($7::bigint is null or created_at >= $7) ",
            "and ($8::bigint is null or created_at < $8) and ($9::bigint is null or id <= $9) ",
            "and (not $10 or timer_name is null and available_at < sagabus.never_micros())"
        )
    };
}

/// A text per state, in the order of [`text`]: only what names `parked` itself may use the index of what
/// is parked, and what names the instance uses the index of timers.
macro_rules! each_state {
    ($text:ident) => {
        [
            $text!("true"),
            $text!("parked is not null"),
            $text!("parked is null"),
            $text!("timer_name is not null"),
            $text!("timer_name is not null and timer_kind = $11 and timer_key = $12"),
        ]
    };
}

pub(super) use {each_state, filter};

/// `$13` how much of a body, `$14` behind which id, `$15` how many.
macro_rules! rows {
    ($state:expr, $behind:literal, $order:literal) => {
        concat!(
            "select id, destination, message_id, message_type, headers, ",
            "substr(body, 1, $13::int), length(body)::bigint, key, available_at, due_at, ",
            "expires_at, epoch, failures, attempts, parked, timer_kind, timer_key, timer_name, ",
            "timer_generation, created_at from sagabus.outbox where ",
            filter!($state),
            " and ($14::bigint is null or id ",
            $behind,
            " $14) order by id ",
            $order,
            " limit $15::bigint"
        )
    };
}

macro_rules! latest {
    ($state:expr) => {
        rows!($state, "<", "desc")
    };
}

macro_rules! oldest {
    ($state:expr) => {
        rows!($state, ">", "asc")
    };
}

macro_rules! count {
    ($state:expr) => {
        concat!(
            "select count(*), min(created_at), max(created_at), max(id) from sagabus.outbox where ",
            filter!($state)
        )
    };
}

const LATEST: [&str; 5] = each_state!(latest);
const OLDEST: [&str; 5] = each_state!(oldest);
const COUNT: [&str; 5] = each_state!(count);

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
    let text = match page.first {
        First::Latest => row::text_of(&LATEST, filter),
        First::Oldest => row::text_of(&OLDEST, filter),
    };
    let mut arguments = arguments(filter)?;
    add(&mut arguments, page.body_bytes_max.cast_signed().max(0))?;
    add(&mut arguments, page.after)?;
    add(&mut arguments, i64::from(page.size()))?;
    read::all(store, text, arguments, found::row).await
}

/// Counts what a filter lets through.
pub(super) async fn count(store: &PgStore, filter: &RowFilter) -> Result<Tally, StoreError> {
    read::one(
        store,
        row::text_of(&COUNT, filter),
        arguments(filter)?,
        found::tally,
    )
    .await
}

pub(super) fn arguments(filter: &RowFilter) -> Result<PgArguments, StoreError> {
    let mut arguments = PgArguments::default();
    let to = &mut arguments;
    add(to, filter.destination.clone())?;
    add(to, filter.message_type.clone())?;
    add(to, filter.reason.clone())?;
    add(to, filter.message.map(|id| id.as_uuid()))?;
    add(to, filter.id)?;
    add(to, filter.key.clone())?;
    add(to, filter.since.map(Timestamp::as_micros))?;
    add(to, filter.until.map(Timestamp::as_micros))?;
    add(to, filter.id_max)?;
    add(to, filter.is_changeable)?;
    let owner = filter.owner.as_ref();
    add(to, owner.map(|owner| owner.kind.to_string()))?;
    add(to, owner.map(|owner| owner.key.to_string()))?;
    Ok(arguments)
}

/// Sums the outbox up, per destination.
pub(super) async fn destinations(store: &PgStore) -> Result<Vec<DestinationOverview>, StoreError> {
    read::all(
        store,
        DESTINATIONS,
        PgArguments::default(),
        found::destination,
    )
    .await
}
