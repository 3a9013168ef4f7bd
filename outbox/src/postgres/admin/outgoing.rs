//! Rows of the outbox: lists, and sums per destination.

use sagabus_core::admin::{
    DestinationOverview, First, Page, RowFilter, RowState, StoredRow, Tally,
};
use sagabus_core::{StoreError, Timestamp};
use sqlx::postgres::PgArguments;

use super::super::store::PgStore;
use super::dead_letters::add;
use super::read;
use crate::{found, row};

/// `$1` destination, `$2` type, `$3` reason, `$4` message, `$5` ids, `$6` key, `$7` and `$8` from when
/// to when, `$9` the largest id, `$10` whether only what operators change as rows is meant, `$11` text
/// of the last error or of the reason, `$12` state. Where an instance is named: `$13` its kind, `$14`
/// its key.
macro_rules! filter {
    ($state:expr) => {
        concat!(
            $state,
            " and ($1::text is null or destination = $1) ",
            "and ($2::text is null or message_type = $2) and ($3::text is null or parked = $3) ",
            "and ($4::uuid is null or message_id = $4) and ($5::bigint[] is null or id = any($5)) ",
            "and ($6::text is null or key = $6) and ($7::bigint is null or created_at >= $7) ",
            "and ($8::bigint is null or created_at < $8) and ($9::bigint is null or id <= $9) ",
            "and (not $10 or timer_name is null and available_at < sagabus.never_micros()) ",
            "and ($11::text is null ",
            "or strpos(lower(parked collate \"C\"), lower($11 collate \"C\")) > 0 ",
            "or attempts is not null and strpos(lower(sagabus.last_error_v1(attempts) ",
            "collate \"C\"), lower($11 collate \"C\")) > 0) ",
            "and ($12::text is null or case $12 when 'parked' then parked is not null ",
            "when 'moving' then parked is null else timer_name is not null end)"
        )
    };
}

/// The texts of [`row::text_of`]: only what names `parked` itself may use the index of what is parked,
/// what names ids looks them up, and what names the instance uses the index of timers.
macro_rules! each_state {
    ($text:ident) => {
        [
            $text!("true"),
            $text!("parked is not null"),
            $text!("parked is null"),
            $text!("timer_name is not null"),
            $text!("id = any($5)"),
            $text!("timer_name is not null and timer_kind = $13 and timer_key = $14"),
        ]
    };
}

pub(super) use {each_state, filter};

/// `$15` how much of a body, `$16` behind which id, `$17` how many.
macro_rules! rows {
    ($state:expr, $behind:literal, $order:literal) => {
        concat!(
            "select id, destination, message_id, message_type, headers, ",
            "substr(body, 1, $15::int), length(body)::bigint, key, available_at, due_at, ",
            "expires_at, epoch, failures, attempts, parked, timer_kind, timer_key, timer_name, ",
            "timer_generation, created_at from sagabus.outbox where ",
            filter!($state),
            " and ($16::bigint is null or id ",
            $behind,
            " $16) order by id ",
            $order,
            " limit $17::bigint"
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

const LATEST: [&str; 6] = each_state!(latest);
const OLDEST: [&str; 6] = each_state!(oldest);
const COUNT: [&str; 6] = each_state!(count);

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
    filter.check()?;
    let mut arguments = PgArguments::default();
    let to = &mut arguments;
    add(to, filter.destination.clone())?;
    add(to, filter.message_type.clone())?;
    add(to, filter.reason.clone())?;
    add(to, filter.message.map(|id| id.as_uuid()))?;
    add(to, filter.ids.clone())?;
    add(to, filter.key.clone())?;
    add(to, filter.since.map(Timestamp::as_micros))?;
    add(to, filter.until.map(Timestamp::as_micros))?;
    add(to, filter.id_max)?;
    add(to, filter.is_changeable)?;
    add(to, filter.error.clone())?;
    add(to, filter.state.map(RowState::as_str))?;
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
