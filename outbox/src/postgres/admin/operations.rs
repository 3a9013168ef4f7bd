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
use sqlx::postgres::{PgArguments, PgRow};
use sqlx::{Arguments, Row};

use super::super::error::{commit_error, store_error};
use super::super::store::PgStore;
use super::dead_letters::{self, add};
use super::{outgoing, read, sent};
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

/// What is meant by a filter: `$20` ids, `$21` one more than may be meant, `$22` verb, `$23` to whom,
/// `$24` rate, `$25` canary, `$26` failures, `$27` who, `$28` why, `$29` what was asked for.
macro_rules! begin {
    ($what:literal, $filter:expr) => {
        concat!(
            "with picked as materialized (select id, ",
            $what,
            " where ",
            $filter,
            " and ($20::bigint[] is null or id = any($20)) limit $21), ",
            "found as materialized (select count(*) as total, max(id) as last_id, ",
            "coalesce(array_agg(distinct endpoint) filter (where endpoint is not null), '{}') ",
            "as endpoints from picked), ",
            "begun as (insert into sagabus.operation (state, verb, send_to, rate, canary, ",
            "failures_percent_max, who, why, selection, endpoints, last_id, total, created_at, ",
            "updated_at) ",
            "select 'running', $22, $23, $24, $25, $26, $27, $28, $29, f.endpoints, f.last_id, ",
            "f.total, sagabus.now_micros(), sagabus.now_micros() from found f ",
            "where f.total > 0 and f.total < $21 returning *), ",
            "items as (insert into sagabus.operation_item (operation_id, item_id) ",
            "select b.id, p.id from begun b cross join picked p), ",
            "noted as (insert into sagabus.audit (at, who, action, why, operation_id, detail) ",
            "select b.created_at, b.who, 'begin_operation', b.why, b.id, convert_to(",
            "jsonb_build_array(jsonb_build_object('verb', b.verb, 'to', b.send_to, ",
            "'total', b.total, 'selection', convert_from(b.selection, 'UTF8')::jsonb))::text, ",
            "'UTF8') from begun b) ",
            "select b.*, (select total from found) as found from (select ",
            columns!(),
            " from begun) b right join (select 1) one on true"
        )
    };
}

const BEGIN_DEAD_LETTERS: &str =
    begin!("endpoint from sagabus.dead_letter", dead_letters::filter!());

macro_rules! begin_rows {
    ($state:expr) => {
        begin!(
            "null::text as endpoint from sagabus.outbox",
            outgoing::filter!($state)
        )
    };
}

const BEGIN_ROWS: [&str; 6] = outgoing::each_state!(begin_rows);

const BEGIN_SENT: &str = begin!("null::text as endpoint from sagabus.sent", sent::filter!());

/// `$1` which one, `$2` behind which id, `$3` how many.
macro_rules! list {
    ($behind:literal, $order:literal) => {
        concat!(
            "select ",
            columns!(),
            " from sagabus.operation where ($1::bigint is null or id = $1) ",
            "and ($2::bigint is null or id ",
            $behind,
            " $2) order by id ",
            $order,
            " limit $3::bigint"
        )
    };
}

const LATEST: &str = list!("<", "desc");
const OLDEST: &str = list!(">", "asc");

/// `$1` which one, `$2` who drives, `$3` for how long.
const TAKE_WHEEL: &str = concat!(
    "update sagabus.operation set epoch = epoch + 1, driver = $2, ",
    "lease_until = sagabus.now_micros() + $3, updated_at = sagabus.now_micros() ",
    "where id = $1 and state = 'running' ",
    "and coalesce(lease_until, 0) <= sagabus.now_micros() returning ",
    columns!()
);

const STEP: &str = concat!(
    "select ",
    columns!(),
    " from sagabus.step_operation_v1($1, $2, $3, $4)"
);

/// `$1` who, `$2` action, `$3` why, `$4` which one, `$5` the new state, `$6` the states before.
const TELL: &str = concat!(
    "with told as (update sagabus.operation set state = $5, ",
    "note = case when $5 = 'paused' then $3 end, lease_until = null, ",
    "updated_at = sagabus.now_micros() where id = $4 and state = any($6) returning *), ",
    "noted as (insert into sagabus.audit (at, who, action, why, operation_id, detail) ",
    "select t.updated_at, $1, $2, $3, t.id, convert_to(jsonb_build_array(jsonb_build_object(",
    "'taken', t.taken, 'total', t.total))::text, 'UTF8') from told t) ",
    "select ",
    columns!(),
    " from told"
);

/// Says whether a message `m` had its turn in operation `p` as a dead letter of endpoint `e`.
macro_rules! had_its_turn {
    ($message:literal, $endpoint:literal) => {
        concat!(
            "exists (select 1 from sagabus.dead_letter d ",
            "join sagabus.operation_item i on i.operation_id = p.id and i.item_id = d.id ",
            "where d.message_id = ",
            $message,
            " and coalesce(p.send_to, d.endpoint) = ",
            $endpoint,
            " and d.id <= p.place)"
        )
    };
}

const REDRIVEN: &str = concat!(
    "with p as (select * from sagabus.operation where id = $1 and verb = 'redrive'), ",
    "rows as (select o.failures from p, sagabus.outbox o where o.destination in (select '@' || e ",
    "from unnest(case when p.send_to is null then p.endpoints else array[p.send_to] end) e) ",
    "and o.parked is null and o.available_at < sagabus.never_micros() and ",
    had_its_turn!("o.message_id", "substr(o.destination, 2)"),
    "), dead as (select distinct n.endpoint, n.message_id from p, sagabus.dead_letter n ",
    "where n.id > p.last_id and ",
    had_its_turn!("n.message_id", "n.endpoint"),
    ") select (select count(*) from rows where failures = 0), ",
    "(select count(*) from rows where failures > 0), (select count(*) from dead)"
);

impl Operations for PgStore {
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

async fn begin(store: &PgStore, new: &NewOperation) -> Result<Option<StoredOperation>, StoreError> {
    new.check()?;
    let named = match &new.selected {
        Selected::Named(ids) => Some(ids.clone()),
        _ => None,
    };
    let (text, mut arguments) = meant(new)?;
    let to = &mut arguments;
    while to.len() < FILTER_MAX {
        add(to, None::<String>)?;
    }
    add(to, named)?;
    add(to, i64::from(SELECTED_MAX) + 1)?;
    add(to, new.verb.as_str())?;
    add(to, new.verb.to().map(str::to_owned))?;
    add(to, new.pace.rate.map(i64::from))?;
    add(to, i64::from(new.pace.canary))?;
    add(to, new.pace.failures_percent_max.map(i64::from))?;
    add(to, new.who.clone())?;
    add(to, new.why.clone())?;
    add(to, row::value_to_json(&new.selection()))?;
    let found = many(store, text, arguments).await?;
    let Some(found) = found.first() else {
        return Ok(None);
    };
    let total: i64 = found.try_get("found").map_err(store_error)?;
    new.check_total(total.cast_unsigned())?;
    match total {
        0 => Ok(None),
        _ => found::operation(found).map(Some).map_err(store_error),
    }
}

/// Finds the statement for what an operation is for, and the values of its filter.
fn meant(new: &NewOperation) -> Result<(&'static str, PgArguments), StoreError> {
    let rows = |filter: &RowFilter| {
        let text = row::text_of(&BEGIN_ROWS, filter);
        Ok((text, outgoing::arguments(filter)?))
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
    store: &PgStore,
    id: Option<i64>,
    page: Page,
) -> Result<Vec<StoredOperation>, StoreError> {
    let text = match page.first {
        First::Latest => LATEST,
        First::Oldest => OLDEST,
    };
    let mut arguments = PgArguments::default();
    add(&mut arguments, id)?;
    add(&mut arguments, page.after)?;
    add(&mut arguments, i64::from(page.size()))?;
    read::all(store, text, arguments, found::operation).await
}

async fn take_wheel(
    store: &PgStore,
    id: i64,
    driver: &str,
    lease: Duration,
) -> Result<Option<StoredOperation>, StoreError> {
    let mut arguments = PgArguments::default();
    add(&mut arguments, id)?;
    add(&mut arguments, driver.to_owned())?;
    add(&mut arguments, micros(lease))?;
    one(store, TAKE_WHEEL, arguments).await
}

async fn step(
    store: &PgStore,
    wheel: Wheel,
    count: u32,
) -> Result<Option<StoredOperation>, StoreError> {
    let mut arguments = PgArguments::default();
    add(&mut arguments, wheel.id)?;
    add(&mut arguments, wheel.epoch)?;
    add(&mut arguments, count.min(PAGE_MAX).cast_signed())?;
    add(&mut arguments, micros(wheel.lease))?;
    let stepped = one(store, STEP, arguments).await?;
    if stepped.is_some() && count > 0 {
        store.nudge();
    }
    Ok(stepped)
}

async fn tell(store: &PgStore, told: &Told) -> Result<Option<StoredOperation>, StoreError> {
    told.check()?;
    let mut arguments = PgArguments::default();
    add(&mut arguments, told.who.clone())?;
    add(&mut arguments, told.command.action())?;
    add(&mut arguments, told.why.clone())?;
    add(&mut arguments, told.id)?;
    add(&mut arguments, told.command.leads_to().as_str())?;
    add(&mut arguments, told.command.from_states().to_vec())?;
    one(store, TELL, arguments).await
}

async fn redriven(store: &PgStore, id: i64) -> Result<Redriven, StoreError> {
    let mut arguments = PgArguments::default();
    add(&mut arguments, id)?;
    let mut taken = store.take().await?;
    let call = sqlx::query_with(REDRIVEN, arguments).fetch_one(&mut *taken);
    let answer = store.answer(call).await;
    let row = taken.finish(answer, store_error)?;
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

/// Runs a statement that changes an operation, and reads the one that it returns.
async fn one(
    store: &PgStore,
    text: &'static str,
    arguments: PgArguments,
) -> Result<Option<StoredOperation>, StoreError> {
    let rows = many(store, text, arguments).await?;
    let read = |row| found::operation(row).map_err(store_error);
    rows.first().map(read).transpose()
}

async fn many(
    store: &PgStore,
    text: &'static str,
    arguments: PgArguments,
) -> Result<Vec<PgRow>, StoreError> {
    let mut taken = store.take().await?;
    let call = sqlx::query_with(text, arguments).fetch_all(&mut *taken);
    let answer = store.answer(call).await;
    taken.finish(answer, commit_error)
}
