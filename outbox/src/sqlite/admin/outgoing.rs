//! Rows of the outbox: lists, and sums per destination.

use sagabus_core::admin::{DestinationOverview, First, Page, RowFilter, RowState, StoredRow};
use sagabus_core::{StoreError, Timestamp};
use sqlx::sqlite::SqliteArguments;

use super::super::clock::{never, now};
use super::super::error::store_error;
use super::super::store::SqliteStore;
use super::dead_letters::add;
use crate::found;

/// `$1` destination, `$2` type, `$3` reason, `$4` message, `$5` id; `$6` how much of a body, `$7`
/// behind which id, `$8` how many; `$9` key, `$10` and `$11` from when to when. Where an instance is
/// named: `$12` its kind, `$13` its key.
macro_rules! rows {
    ($state:expr, $behind:literal, $order:literal) => {
        concat!(
            "select id, destination, message_id, message_type, headers, substr(body, 1, $6), ",
            "length(body), key, available_at, due_at, expires_at, epoch, failures, attempts, ",
            "parked, timer_kind, timer_key, timer_name, timer_generation, created_at ",
            "from sagabus_outbox where ",
            $state,
            " and ($1 is null or destination = $1) and ($2 is null or message_type = $2) ",
            "and ($3 is null or parked = $3) and ($4 is null or message_id = $4) ",
            "and ($5 is null or id = $5) and ($9 is null or key = $9) ",
            "and ($10 is null or created_at >= $10) and ($11 is null or created_at < $11) ",
            "and ($7 is null or id ",
            $behind,
            " $7) order by id ",
            $order,
            " limit $8"
        )
    };
}

macro_rules! armed_by {
    () => {
        "timer_name is not null and timer_kind = $12 and timer_key = $13"
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

/// What names the instance uses the index of timers.
const ARMED_BY: [&str; 2] = [
    rows!(armed_by!(), "<", "desc"),
    rows!(armed_by!(), ">", "asc"),
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
    let texts = match (&filter.owner, filter.state) {
        (Some(_), _) => ARMED_BY,
        (None, None) => ANY,
        (None, Some(RowState::Parked)) => PARKED,
        (None, Some(RowState::Moving)) => MOVING,
        (None, Some(RowState::Timer)) => TIMERS,
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
    add(to, filter.key.clone())?;
    add(to, filter.since.map(Timestamp::as_micros))?;
    add(to, filter.until.map(Timestamp::as_micros))?;
    if let Some(owner) = &filter.owner {
        add(to, owner.kind.to_string())?;
        add(to, owner.key.to_string())?;
    }
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

#[cfg(test)]
mod tests {
    use sqlx::{AssertSqlSafe, Connection, Row, SqliteConnection};

    use super::*;

    #[tokio::test]
    async fn timers_of_an_instance_are_looked_up() {
        let mut connection = SqliteConnection::connect("sqlite::memory:").await.unwrap();
        for (_, text) in super::super::super::migrate::migrations() {
            sqlx::raw_sql(*text).execute(&mut connection).await.unwrap();
        }
        for text in ARMED_BY {
            let explain = AssertSqlSafe(format!("explain query plan {text}"));
            let plan = sqlx::query(explain).fetch_all(&mut connection).await;
            let plan: Vec<String> = plan.unwrap().iter().map(|row| row.get(3)).collect();
            let index = "INDEX sagabus_outbox_timer (timer_kind=? AND timer_key=?";
            assert!(plan.iter().any(|line| line.contains(index)), "{plan:#?}");
        }
    }
}
