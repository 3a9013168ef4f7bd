//! Rows of the outbox: lists, and sums per destination.

use sagabus_core::StoreError;
use sagabus_core::admin::{DestinationOverview, First, Page, RowFilter, RowState, StoredRow};
use sqlx::sqlite::SqliteArguments;

use super::super::clock::{never, now};
use super::super::error::store_error;
use super::super::store::SqliteStore;
use super::dead_letters::add;
use crate::found;

/// `$1` destination, `$2` type, `$3` reason, `$4` message, `$5` id; `$6` how much of a body, `$7`
/// behind which id, `$8` how many.
macro_rules! rows {
    ($state:literal, $behind:literal, $order:literal) => {
        concat!(
            "select id, destination, message_id, message_type, headers, substr(body, 1, $6), ",
            "length(body), key, available_at, due_at, expires_at, epoch, failures, attempts, ",
            "parked, timer_kind, timer_key, timer_name, timer_generation, created_at ",
            "from sagabus_outbox where ",
            $state,
            " and ($1 is null or destination = $1) and ($2 is null or message_type = $2) ",
            "and ($3 is null or parked = $3) and ($4 is null or message_id = $4) ",
            "and ($5 is null or id = $5) and ($7 is null or id ",
            $behind,
            " $7) order by id ",
            $order,
            " limit $8"
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

const DESTINATIONS: &str = concat!(
    "select destination, sum(parked is null and available_at < ",
    never!(),
    "), sum(parked is null and available_at <= t.now), ",
    "min(iif(parked is null and available_at <= t.now, available_at, null)), ",
    "min(iif(parked is null, created_at, null)), sum(parked is not null) ",
    "from sagabus_outbox, (select ",
    now!(),
    " as now) t group by destination order by destination"
);

/// Reads rows of the outbox.
pub(super) async fn list(
    store: &SqliteStore,
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
    let mut arguments = SqliteArguments::default();
    let to = &mut arguments;
    add(to, filter.destination.clone())?;
    add(to, filter.message_type.clone())?;
    add(to, filter.reason.clone())?;
    add(to, filter.message.map(|id| id.as_uuid()))?;
    add(to, filter.id)?;
    add(to, page.body_bytes_max)?;
    add(to, page.after)?;
    add(to, page.size())?;
    let rows = sqlx::query_with(text, arguments)
        .fetch_all(store.reader())
        .await
        .map_err(store_error)?;
    rows.iter()
        .map(|row| found::row(row).map_err(store_error))
        .collect()
}

/// Sums the outbox up, per destination.
pub(super) async fn destinations(
    store: &SqliteStore,
) -> Result<Vec<DestinationOverview>, StoreError> {
    let rows = sqlx::query(DESTINATIONS)
        .fetch_all(store.reader())
        .await
        .map_err(store_error)?;
    rows.iter()
        .map(|row| found::destination(row).map_err(store_error))
        .collect()
}
