//! What brokers took and is kept: listed, and sent again.

use sagabus_core::admin::{First, Page, SentFilter, StoredSent, Tally};
use sagabus_core::{MessageId, StoreError, Timestamp};
use sqlx::sqlite::SqliteArguments;

use super::super::clock::now;
use super::super::error::store_error;
use super::super::store::SqliteStore;
use super::super::writer::Write;
use super::change::{Done, id_argument, summed};
use super::dead_letters::add;
use crate::found;

/// `$1` since, `$2` until, `$3` destination, `$4` type, `$5` message.
macro_rules! filter {
    () => {
        "($1 is null or sent_at >= $1) and ($2 is null or sent_at < $2) \
         and ($3 is null or destination = $3) and ($4 is null or message_type = $4) \
         and ($5 is null or message_id = $5)"
    };
}

pub(super) use filter;

/// `$6` behind which id, `$7` how many.
macro_rules! sent {
    ($behind:literal, $order:literal) => {
        concat!(
            "select id, message_id, message_type, destination, key, sent_at, kept_until ",
            "from sagabus_sent where ",
            filter!(),
            " and ($6 is null or id ",
            $behind,
            " $6) order by id ",
            $order,
            " limit $7"
        )
    };
}

const LATEST: &str = sent!("<", "desc");
const OLDEST: &str = sent!(">", "asc");

const COUNT: &str = concat!(
    "select count(*), min(sent_at), max(sent_at), max(id) from sagabus_sent where ",
    filter!()
);

/// `$1` ids as JSON, in all of these texts.
const FIND: &str = "select id, message_id, message_type, destination from sagabus_sent \
    where id in (select value from json_each($1))";

/// As they were, in the order in which they were written.
const SEND: &str = concat!(
    "insert into sagabus_outbox (message_id, message_type, destination, key, per_key, headers, ",
    "body, available_at, expires_at, created_at) ",
    "select message_id, message_type, destination, key, per_key, headers, body, ",
    now!(),
    ", expires_at, ",
    now!(),
    " from sagabus_sent where id in (select value from json_each($1)) order by id"
);

const FORGET: &str = "delete from sagabus_sent where id in (select value from json_each($1))";

/// Lists what is kept.
pub(super) async fn list(
    store: &SqliteStore,
    filter: &SentFilter,
    page: Page,
) -> Result<Vec<StoredSent>, StoreError> {
    let text = match page.first {
        First::Latest => LATEST,
        First::Oldest => OLDEST,
    };
    let mut arguments = arguments(filter)?;
    add(&mut arguments, page.after)?;
    add(&mut arguments, page.size())?;
    let rows = sqlx::query_with(text, arguments)
        .fetch_all(store.reader())
        .await
        .map_err(store_error)?;
    rows.iter()
        .map(|row| found::sent(row).map_err(store_error))
        .collect()
}

/// Counts what a filter lets through.
pub(super) async fn count(store: &SqliteStore, filter: &SentFilter) -> Result<Tally, StoreError> {
    let row = sqlx::query_with(COUNT, arguments(filter)?)
        .fetch_one(store.reader())
        .await
        .map_err(store_error)?;
    found::tally(&row).map_err(store_error)
}

pub(super) fn arguments(filter: &SentFilter) -> Result<SqliteArguments, StoreError> {
    let mut arguments = SqliteArguments::default();
    let to = &mut arguments;
    add(to, filter.since.map(Timestamp::as_micros))?;
    add(to, filter.until.map(Timestamp::as_micros))?;
    add(to, filter.destination.clone())?;
    add(to, filter.message_type.clone())?;
    add(to, filter.message.as_ref().map(MessageId::as_uuid))?;
    Ok(arguments)
}

/// Puts what is kept into the outbox again, inside the open transaction.
pub(super) async fn republish(write: &mut Write, ids: &[i64]) -> Result<Done, StoreError> {
    let done = summed(write, FIND, ids, "destination").await?;
    for text in [SEND, FORGET] {
        write.step(text, id_argument(&done.0)?).await?;
    }
    Ok(done)
}
