//! Rows of the outbox that operators set aside, hurry on, or send elsewhere.

use sagabus_core::StoreError;
use sagabus_core::admin::RowVerb;
use sagabus_core::unit_of_work::RowKey;
use serde_json::Value;
use sqlx::Row;

use super::super::clock::{never, now};
use super::super::error::store_error;
use super::super::rows::Rows;
use super::super::sections::PARK_ROWS;
use super::super::writer::Write;
use super::change::{Done, id_argument, sum, summed, summed_by, text_argument};
use super::dead_letters::add;

/// `$1` ids as JSON, as in what releases and discards rows.
const FIND_MOVING: &str = concat!(
    "select id, message_id, message_type, destination, epoch from sagabus_outbox ",
    "where parked is null and timer_name is null and available_at < ",
    never!(),
    " and id in (select value from json_each($1)) order by id"
);

/// A command that nobody took goes to the endpoint that takes it by now.
const FIND_RELEASED: &str = concat!(
    "select o.id, o.message_id, o.message_type, o.destination from sagabus_outbox o ",
    "where o.parked is not null and o.id in ",
    "(select value from json_each($1))",
    " and (o.destination not like '?%' or exists (select 1 from sagabus_subscription s ",
    "where s.message_type = o.message_type and s.kind = 'command')) order by o.id"
);

const ADDRESS: &str = concat!(
    "update sagabus_outbox as o set destination = '@' || e.name, ",
    "per_key = e.per_key = 1 and o.key is not null and coalesce(o.due_at, 0) <= ",
    now!(),
    " from sagabus_subscription s join sagabus_endpoint e on e.id = s.endpoint_id ",
    "where o.destination like '?%' and s.message_type = o.message_type and s.kind = 'command' ",
    "and o.id in ",
    "(select value from json_each($1))"
);

const RELEASE: &str = concat!(
    "update sagabus_outbox set parked = null, starts = 0, failures = 0, solo_starts = 0, ",
    "attempts = null, available_at = max(",
    now!(),
    ", coalesce(due_at, 0)) where id in ",
    "(select value from json_each($1))"
);

const REMOVE_ROWS: &str = concat!(
    "delete from sagabus_outbox where parked is not null and id in ",
    "(select value from json_each($1))",
    " returning id, message_id, message_type, destination"
);

/// What has more starts than failures is in hand, or was when its host died.
const EXPEDITE: &str = concat!(
    "update sagabus_outbox set available_at = ",
    now!(),
    ", due_at = min(due_at, ",
    now!(),
    ") where parked is null and timer_name is null and starts <= failures and available_at > ",
    now!(),
    " and available_at < ",
    never!(),
    " and id in (select value from json_each($1)) ",
    "returning id, message_id, message_type, destination"
);

/// `$2` to where.
const FIND_READDRESSED: &str = concat!(
    "select id, message_id, message_type, destination from sagabus_outbox ",
    "where parked is not null and id in (select value from json_each($1)) ",
    "and ($2 not like '@%' or exists (select 1 from sagabus_endpoint e where '@' || e.name = $2)) ",
    "order by id"
);

const READDRESS: &str = concat!(
    "update sagabus_outbox as o set destination = $2, per_key = case when $2 like '@%' then ",
    "(select e.per_key from sagabus_endpoint e where '@' || e.name = $2) = 1 ",
    "and o.key is not null and coalesce(o.due_at, 0) <= ",
    now!(),
    " else o.per_key end where o.id in (select value from json_each($1))"
);

/// Does with rows what a verb says, inside the open transaction.
pub(super) async fn change(
    write: &mut Write,
    ids: &[i64],
    verb: &RowVerb,
) -> Result<Done, StoreError> {
    match verb {
        RowVerb::Park => park(write, ids).await,
        RowVerb::Release => release(write, ids).await,
        RowVerb::Expedite => summed(write, EXPEDITE, ids, "destination").await,
        RowVerb::Readdress { to } => readdress(write, ids, to).await,
        RowVerb::Discard => summed(write, REMOVE_ROWS, ids, "destination").await,
        RowVerb::Purge => {
            // Set aside first, so that those behind them go on; what was parked before is, too.
            park(write, ids).await?;
            summed(write, REMOVE_ROWS, ids, "destination").await
        }
    }
}

async fn park(write: &mut Write, ids: &[i64]) -> Result<Done, StoreError> {
    let replies = write.step(FIND_MOVING, id_argument(ids)?).await?;
    let mut done = Done::default();
    let mut meant = Rows::default();
    for row in replies.iter().flat_map(|reply| &reply.rows) {
        let (id, detail) = sum(row, "destination").map_err(store_error)?;
        let epoch = row.try_get(4).map_err(store_error)?;
        meant.row_key(RowKey { id, epoch }).end();
        done.0.push(id);
        done.1.push(detail);
    }
    if meant.count > 0 {
        let meant = meant.json();
        for text in PARK_ROWS {
            write.step(*text, text_argument(&meant)?).await?;
        }
    }
    Ok(done)
}

async fn release(write: &mut Write, ids: &[i64]) -> Result<Done, StoreError> {
    let done = summed(write, FIND_RELEASED, ids, "destination").await?;
    for text in [ADDRESS, RELEASE] {
        write.step(text, id_argument(&done.0)?).await?;
    }
    Ok(done)
}

async fn readdress(write: &mut Write, ids: &[i64], to: &str) -> Result<Done, StoreError> {
    let with_place = |ids: &[i64]| {
        let mut arguments = id_argument(ids)?;
        add(&mut arguments, to.to_owned())?;
        Ok::<_, StoreError>(arguments)
    };
    let mut done = summed_by(write, FIND_READDRESSED, with_place(ids)?, "destination").await?;
    write.step(READDRESS, with_place(&done.0)?).await?;
    write.step(RELEASE, id_argument(&done.0)?).await?;
    for detail in &mut done.1 {
        detail["to"] = Value::from(to);
    }
    Ok(done)
}
