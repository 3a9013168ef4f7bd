//! Rows of the outbox: lists, and sums per destination.

use sagabus_core::admin::{
    DestinationOverview, First, Page, RowFilter, RowState, StoredRow, Tally,
};
use sagabus_core::{StoreError, Timestamp};
use serde_json::json;
use sqlx::sqlite::SqliteArguments;

use super::super::clock::{never, now};
use super::super::error::store_error;
use super::super::store::SqliteStore;
use super::dead_letters::add;
use crate::{found, row};

/// `$1` destination, `$2` type, `$3` reason, `$4` message, `$5` ids, `$6` key, `$7` and `$8` from when
/// to when, `$9` the largest id, `$10` whether only what operators change as rows is meant, `$11` text
/// of the last error or of the reason, `$12` state. Where an instance is named: `$13` its kind, `$14`
/// its key. `lower` ends at a NUL, so that what it is given has none.
macro_rules! filter {
    ($state:expr) => {
        concat!(
            $state,
            " and ($1 is null or destination = $1) and ($2 is null or message_type = $2) ",
            "and ($3 is null or parked = $3) and ($4 is null or message_id = $4) ",
            "and ($5 is null or id in (select value from json_each($5))) and ($6 is null or key = $6) ",
            "and ($7 is null or created_at >= $7) and ($8 is null or created_at < $8) ",
            "and ($9 is null or id <= $9) and (not $10 or timer_name is null and available_at < ",
            never!(),
            ") and ($11 is null or instr(lower(parked), lower($11)) > 0 ",
            "or attempts is not null and instr(lower(json_extract(",
            "iif(json_valid(cast(attempts as text)), ",
            "replace(cast(attempts as text), '\\u0000', '\\ufffd'), '[]'), ",
            "'$[#-1].error')), lower($11)) > 0) ",
            "and ($12 is null or case $12 when 'parked' then parked is not null ",
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
            $text!("id in (select value from json_each($5))"),
            $text!("timer_name is not null and timer_kind = $13 and timer_key = $14"),
        ]
    };
}

pub(super) use {each_state, filter};

/// `$15` how much of a body, `$16` behind which id, `$17` how many.
macro_rules! rows {
    ($state:expr, $behind:literal, $order:literal) => {
        concat!(
            "select id, destination, message_id, message_type, headers, substr(body, 1, $15), ",
            "length(body), key, available_at, due_at, expires_at, epoch, failures, attempts, ",
            "parked, timer_kind, timer_key, timer_name, timer_generation, created_at ",
            "from sagabus_outbox where ",
            filter!($state),
            " and ($16 is null or id ",
            $behind,
            " $16) order by id ",
            $order,
            " limit $17"
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
            "select count(*), min(created_at), max(created_at), max(id) from sagabus_outbox where ",
            filter!($state)
        )
    };
}

const LATEST: [&str; 6] = each_state!(latest);
const OLDEST: [&str; 6] = each_state!(oldest);
const COUNT: [&str; 6] = each_state!(count);

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
    let text = match page.first {
        First::Latest => row::text_of(&LATEST, filter),
        First::Oldest => row::text_of(&OLDEST, filter),
    };
    let mut arguments = arguments(filter)?;
    add(&mut arguments, page.body_bytes_max)?;
    add(&mut arguments, page.after)?;
    add(&mut arguments, page.size())?;
    let rows = sqlx::query_with(text, arguments)
        .fetch_all(store.reader())
        .await
        .map_err(store_error)?;
    rows.iter()
        .map(|row| found::row(row).map_err(store_error))
        .collect()
}

/// Counts what a filter lets through.
pub(super) async fn count(store: &SqliteStore, filter: &RowFilter) -> Result<Tally, StoreError> {
    let row = sqlx::query_with(row::text_of(&COUNT, filter), arguments(filter)?)
        .fetch_one(store.reader())
        .await
        .map_err(store_error)?;
    found::tally(&row).map_err(store_error)
}

pub(super) fn arguments(filter: &RowFilter) -> Result<SqliteArguments, StoreError> {
    filter.check()?;
    let mut arguments = SqliteArguments::default();
    let to = &mut arguments;
    add(to, filter.destination.clone())?;
    add(to, filter.message_type.clone())?;
    add(to, filter.reason.clone())?;
    add(to, filter.message.map(|id| id.as_uuid()))?;
    add(to, filter.ids.as_ref().map(|ids| json!(ids).to_string()))?;
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

    /// Asserts that a plan looks rows up by what is named, and sorts none that it need not read.
    async fn looks_up(texts: [&str; 3], by: &str) {
        let mut connection = SqliteConnection::connect("sqlite::memory:").await.unwrap();
        for (_, text) in super::super::super::migrate::migrations() {
            sqlx::raw_sql(*text).execute(&mut connection).await.unwrap();
        }
        for text in texts {
            let explain = AssertSqlSafe(format!("explain query plan {text}"));
            let plan = sqlx::query(explain).fetch_all(&mut connection).await;
            let plan: Vec<String> = plan.unwrap().iter().map(|row| row.get(3)).collect();
            assert!(plan.iter().any(|line| line.contains(by)), "{plan:#?}");
        }
    }

    #[tokio::test]
    async fn rows_that_are_named_are_looked_up() {
        let by = "SEARCH sagabus_outbox USING INTEGER PRIMARY KEY (rowid=?)";
        looks_up([LATEST[4], OLDEST[4], COUNT[4]], by).await;
    }

    #[tokio::test]
    async fn timers_of_an_instance_are_looked_up() {
        let by = "INDEX sagabus_outbox_timer (timer_kind=? AND timer_key=?";
        looks_up([LATEST[5], OLDEST[5], COUNT[5]], by).await;
    }
}
