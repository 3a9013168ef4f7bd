//! Bulk changes: selected once, then changed step by step, each step one transaction.

use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use sagabus_core::StoreError;
use sagabus_core::admin::{
    DeadLetterFilter, First, NewOperation, Operations, PAGE_MAX, Page, Redriven, RowFilter,
    SELECTED_MAX, Selected, SentFilter, StoredOperation, Subject, Told, Wheel,
};
use sagabus_core::clock::micros;
use serde_json::json;
use sqlx::sqlite::SqliteArguments;
use sqlx::{Arguments, Row};

use super::super::clock::{never, now};
use super::super::error::store_error;
use super::super::store::SqliteStore;
use super::super::writer::Write;
use super::change::{Note, deal};
use super::dead_letters::{self, add, narrow};
use super::{outgoing, sent};
use crate::{found, row};

/// In the order in which [`found::operation`] takes them.
macro_rules! columns {
    () => {
        "id, state, verb, send_to, rate, canary, failures_percent_max, who, why, selection, \
         endpoints, total, taken, changed, note, driver, lease_until, epoch, created_at, updated_at"
    };
}

/// How many values a filter has at most: those of the operation come behind.
const FILTER_MAX: usize = 19;

/// How an operation begins.
#[derive(Clone, Copy)]
struct Begin {
    /// `$20` ids as JSON, `$21` verb, `$22` to whom, `$23` rate, `$24` canary, `$25` failures, `$26`
    /// who, `$27` why, `$28` what was asked for.
    put: &'static str,
    /// `$20` ids as JSON, `$21` the operation.
    put_items: &'static str,
}

/// What is meant by a filter of a table, and the endpoints that gave it up.
macro_rules! begin {
    ($endpoints:literal, $table:literal, $filter:expr) => {
        Begin {
            put: concat!(
                "insert into sagabus_operation (state, verb, send_to, rate, canary, ",
                "failures_percent_max, who, why, selection, endpoints, last_id, total, ",
                "created_at, updated_at) ",
                "select 'running', $21, $22, $23, $24, $25, $26, $27, $28, ",
                $endpoints,
                ", coalesce(max(id), 0), count(*), ",
                now!(),
                ", ",
                now!(),
                meant!($table, $filter),
                " returning ",
                columns!()
            ),
            put_items: concat!(
                "insert into sagabus_operation_item (operation_id, item_id) select $21, id",
                meant!($table, $filter)
            ),
        }
    };
}

macro_rules! meant {
    ($table:literal, $filter:expr) => {
        concat!(
            " from ",
            $table,
            " where ",
            $filter,
            " and ($20 is null or id in (select value from json_each($20)))"
        )
    };
}

const BEGIN_DEAD_LETTERS: Begin = begin!(
    "coalesce(json_group_array(distinct endpoint), '[]')",
    "sagabus_dead_letter",
    dead_letters::wide!()
);

macro_rules! begin_rows {
    ($state:expr) => {
        begin!("'[]'", "sagabus_outbox", outgoing::filter!($state))
    };
}

const BEGIN_ROWS: [Begin; 6] = outgoing::each_state!(begin_rows);

const BEGIN_SENT: Begin = begin!("'[]'", "sagabus_sent", sent::filter!());

/// `$1` which one, `$2` behind which id, `$3` how many.
macro_rules! list {
    ($behind:literal, $order:literal) => {
        concat!(
            "select ",
            columns!(),
            " from sagabus_operation where ($1 is null or id = $1) ",
            "and ($2 is null or id ",
            $behind,
            " $2) order by id ",
            $order,
            " limit $3"
        )
    };
}

const LATEST: &str = list!("<", "desc");
const OLDEST: &str = list!(">", "asc");

/// `$1` which one, `$2` who drives, `$3` for how long.
const TAKE_WHEEL: &str = concat!(
    "update sagabus_operation set epoch = epoch + 1, driver = $2, lease_until = ",
    now!(),
    " + $3, updated_at = ",
    now!(),
    " where id = $1 and state = 'running' and coalesce(lease_until, 0) <= ",
    now!(),
    " returning ",
    columns!()
);

/// `$1` which one, `$2` its epoch.
const FIND_DRIVEN: &str = concat!(
    "select ",
    columns!(),
    " from sagabus_operation where id = $1 and epoch = $2 and state = 'running'"
);

/// `$1` the operation, `$2` how many.
const NEXT_ITEMS: &str = "select item_id from sagabus_operation_item i \
    where operation_id = $1 and item_id > (select place from sagabus_operation \
        where id = $1) order by item_id limit $2";

/// `$1` which one, `$2` how many had their turn, `$3` how many of them were changed, `$4` the last,
/// `$5` for how long the wheel is kept.
const MOVE_ON: &str = concat!(
    "update sagabus_operation set taken = taken + $2, changed = changed + $3, ",
    "place = coalesce($4, place), ",
    "state = case when taken + $2 = total then 'done' else state end, ",
    "lease_until = case when taken + $2 < total then ",
    now!(),
    " + $5 end, updated_at = ",
    now!(),
    " where id = $1 returning ",
    columns!()
);

/// `$1` which one, `$2` the new state, `$3` why, `$4` the states before as JSON.
const TELL: &str = concat!(
    "update sagabus_operation set state = $2, note = case when $2 = 'paused' then $3 end, ",
    "lease_until = null, updated_at = ",
    now!(),
    " where id = $1 and state in (select value from json_each($4)) returning ",
    columns!()
);

/// Says whether a message had its turn in operation `p` as a dead letter of an endpoint.
macro_rules! had_its_turn {
    ($message:literal, $endpoint:literal) => {
        concat!(
            "exists (select 1 from sagabus_dead_letter d join sagabus_operation_item i ",
            "on i.operation_id = p.id and i.item_id = d.id where d.message_id = ",
            $message,
            " and coalesce(p.send_to, d.endpoint) = ",
            $endpoint,
            " and d.id <= p.place)"
        )
    };
}

const REDRIVEN: &str = concat!(
    "with p as (select * from sagabus_operation where id = $1 and verb = 'redrive'), ",
    "rows as (select o.failures from p, json_each(case when p.send_to is null then p.endpoints ",
    "else json_array(p.send_to) end) e cross join sagabus_outbox o ",
    "on o.destination = '@' || e.value and o.parked is null and o.available_at < ",
    never!(),
    " where ",
    had_its_turn!("o.message_id", "e.value"),
    "), dead as (select distinct n.endpoint, n.message_id from p cross join sagabus_dead_letter n ",
    "on n.id > p.last_id where ",
    had_its_turn!("n.message_id", "n.endpoint"),
    ") select (select count(*) from rows where failures = 0), ",
    "(select count(*) from rows where failures > 0), (select count(*) from dead)"
);

impl Operations for SqliteStore {
    fn begin_operation<'a>(
        &'a self,
        new: &'a NewOperation,
    ) -> BoxFuture<'a, Result<Option<StoredOperation>, StoreError>> {
        begin(self, new).boxed()
    }

    fn operations(
        &self,
        id: Option<i64>,
        page: Page,
    ) -> BoxFuture<'_, Result<Vec<StoredOperation>, StoreError>> {
        list(self, id, page).boxed()
    }

    fn take_wheel<'a>(
        &'a self,
        id: i64,
        driver: &'a str,
        lease: Duration,
    ) -> BoxFuture<'a, Result<Option<StoredOperation>, StoreError>> {
        take_wheel(self, id, driver, lease).boxed()
    }

    fn step(
        &self,
        wheel: Wheel,
        count: u32,
    ) -> BoxFuture<'_, Result<Option<StoredOperation>, StoreError>> {
        step(self, wheel, count).boxed()
    }

    fn tell<'a>(
        &'a self,
        told: &'a Told,
    ) -> BoxFuture<'a, Result<Option<StoredOperation>, StoreError>> {
        tell(self, told).boxed()
    }

    fn redriven(&self, id: i64) -> BoxFuture<'_, Result<Redriven, StoreError>> {
        redriven(self, id).boxed()
    }
}

async fn begin(
    store: &SqliteStore,
    new: &NewOperation,
) -> Result<Option<StoredOperation>, StoreError> {
    new.check()?;
    let named = match &new.selected {
        Selected::Named(ids) => Some(json!(ids).to_string()),
        _ => None,
    };
    let (texts, mut meant) = meant(new)?;
    while meant.len() < FILTER_MAX {
        add(&mut meant, None::<String>)?;
    }
    add(&mut meant, named)?;
    let mut arguments = meant.clone();
    let to = &mut arguments;
    add(to, new.verb.as_str())?;
    add(to, new.verb.to().map(str::to_owned))?;
    add(to, new.pace.rate)?;
    add(to, new.pace.canary)?;
    add(to, new.pace.failures_percent_max)?;
    add(to, new.who.clone())?;
    add(to, new.why.clone())?;
    add(to, row::value_to_json(&new.selection()))?;
    let mut write = open(store).await?;
    let begun = one(&mut write, texts.put, arguments).await?;
    let begun = begun.ok_or_else(|| StoreError::Refused("no row was written".into()))?;
    if begun.total == 0 || begun.total > u64::from(SELECTED_MAX) {
        write.rollback().await;
        new.check_total(begun.total)?;
        return Ok(None);
    }
    add(&mut meant, begun.id)?;
    write.step(texts.put_items, meant).await?;
    let note = Note {
        who: &new.who,
        action: "begin_operation",
        why: &new.why,
        operation: Some(begun.id),
        detail: vec![json!({
            "verb": new.verb.as_str(),
            "to": new.verb.to(),
            "total": begun.total,
            "selection": begun.selection,
        })],
    };
    note.put(&mut write).await?;
    write.commit().await?;
    Ok(Some(begun))
}

/// Finds the statements for what an operation is for, and the values of its filter.
fn meant(new: &NewOperation) -> Result<(Begin, SqliteArguments), StoreError> {
    let rows = |filter: &RowFilter| {
        let texts = row::text_of(&BEGIN_ROWS, filter);
        Ok((texts, outgoing::arguments(filter)?))
    };
    let letters =
        |filter: &DeadLetterFilter| Ok((BEGIN_DEAD_LETTERS, dead_letters::arguments(filter)?));
    let sent = |filter: &SentFilter| Ok((BEGIN_SENT, sent::arguments(filter)?));
    match (&new.selected, new.verb.subject()) {
        (Selected::DeadLetters(filter), _) => letters(filter),
        (Selected::Rows(filter), _) => rows(filter),
        (Selected::Sent(filter), _) => sent(filter),
        (Selected::Named(_), Subject::DeadLetters) => letters(&DeadLetterFilter::any()),
        (Selected::Named(_), Subject::Rows) => rows(&RowFilter::default()),
        (Selected::Named(_), Subject::Sent) => sent(&SentFilter::default()),
    }
}

async fn list(
    store: &SqliteStore,
    id: Option<i64>,
    page: Page,
) -> Result<Vec<StoredOperation>, StoreError> {
    let text = match page.first {
        First::Latest => LATEST,
        First::Oldest => OLDEST,
    };
    let rows = sqlx::query(text)
        .bind(id)
        .bind(page.after)
        .bind(page.size())
        .fetch_all(store.reader())
        .await
        .map_err(store_error)?;
    rows.iter()
        .map(|row| found::operation(row).map_err(store_error))
        .collect()
}

async fn take_wheel(
    store: &SqliteStore,
    id: i64,
    driver: &str,
    lease: Duration,
) -> Result<Option<StoredOperation>, StoreError> {
    let mut arguments = SqliteArguments::default();
    add(&mut arguments, id)?;
    add(&mut arguments, driver.to_owned())?;
    add(&mut arguments, micros(lease))?;
    let mut write = open(store).await?;
    let taken = one(&mut write, TAKE_WHEEL, arguments).await?;
    write.commit().await?;
    Ok(taken)
}

async fn step(
    store: &SqliteStore,
    wheel: Wheel,
    count: u32,
) -> Result<Option<StoredOperation>, StoreError> {
    let mut write = open(store).await?;
    let mut arguments = SqliteArguments::default();
    add(&mut arguments, wheel.id)?;
    add(&mut arguments, wheel.epoch)?;
    let Some(operation) = one(&mut write, FIND_DRIVEN, arguments).await? else {
        write.rollback().await;
        return Ok(None);
    };
    let ids = next_items(&mut write, wheel.id, count.min(PAGE_MAX)).await?;
    let (changed, detail) = deal(&mut write, &operation.verb, &ids).await?;
    if !detail.is_empty() {
        let note = Note {
            who: &operation.who,
            action: operation.verb.action(),
            why: &operation.why,
            operation: Some(operation.id),
            detail,
        };
        note.put(&mut write).await?;
    }
    let mut arguments = SqliteArguments::default();
    add(&mut arguments, wheel.id)?;
    add(&mut arguments, ids.len() as i64)?;
    add(&mut arguments, changed.len() as i64)?;
    add(&mut arguments, ids.last().copied())?;
    add(&mut arguments, micros(wheel.lease))?;
    let stepped = one(&mut write, MOVE_ON, arguments).await?;
    write.commit().await?;
    drop(write);
    if !changed.is_empty() {
        store.nudge();
    }
    Ok(stepped)
}

async fn next_items(write: &mut Write, id: i64, count: u32) -> Result<Vec<i64>, StoreError> {
    let mut arguments = SqliteArguments::default();
    add(&mut arguments, id)?;
    add(&mut arguments, count)?;
    let replies = write.step(NEXT_ITEMS, arguments).await?;
    let rows = replies.iter().flat_map(|reply| &reply.rows);
    rows.map(|row| row.try_get(0).map_err(store_error))
        .collect()
}

async fn tell(store: &SqliteStore, told: &Told) -> Result<Option<StoredOperation>, StoreError> {
    told.check()?;
    let mut arguments = SqliteArguments::default();
    add(&mut arguments, told.id)?;
    add(&mut arguments, told.command.leads_to().as_str())?;
    add(&mut arguments, told.why.clone())?;
    add(
        &mut arguments,
        json!(told.command.from_states()).to_string(),
    )?;
    let mut write = open(store).await?;
    let Some(operation) = one(&mut write, TELL, arguments).await? else {
        write.rollback().await;
        return Ok(None);
    };
    let note = Note {
        who: &told.who,
        action: told.command.action(),
        why: &told.why,
        operation: Some(told.id),
        detail: vec![json!({ "taken": operation.taken, "total": operation.total })],
    };
    note.put(&mut write).await?;
    write.commit().await?;
    Ok(Some(operation))
}

async fn redriven(store: &SqliteStore, id: i64) -> Result<Redriven, StoreError> {
    let row = sqlx::query(REDRIVEN)
        .bind(id)
        .fetch_one(store.reader())
        .await
        .map_err(store_error)?;
    let count = |at: usize| -> Result<u64, StoreError> {
        let count: i64 = row.try_get(at).map_err(store_error)?;
        Ok(count.cast_unsigned())
    };
    Ok(Redriven {
        waiting: count(0)?,
        retrying: count(1)?,
        died_again: count(2)?,
    })
}

async fn open(store: &SqliteStore) -> Result<Write, StoreError> {
    let mut write = store.write().await?;
    write
        .step("begin immediate", SqliteArguments::default())
        .await?;
    Ok(write)
}

/// Runs a statement that returns an operation.
async fn one(
    write: &mut Write,
    text: &'static str,
    arguments: SqliteArguments,
) -> Result<Option<StoredOperation>, StoreError> {
    let replies = write.step(text, arguments).await?;
    let row = replies.first().and_then(|reply| reply.rows.first());
    row.map(|row| found::operation(row).map_err(store_error))
        .transpose()
}
