//! What brokers took and is kept: listed, and sent again.

use sagabus_core::admin::{First, Page, SentFilter, StoredSent, Tally};
use sagabus_core::{MessageId, StoreError, Timestamp};
use sqlx::postgres::PgArguments;

use super::super::store::PgStore;
use super::dead_letters::add;
use super::read;
use crate::found;

/// `$1` since, `$2` until, `$3` destination, `$4` type, `$5` message.
macro_rules! filter {
    () => {
        "($1::bigint is null or sent_at >= $1) and ($2::bigint is null or sent_at < $2) \
         and ($3::text is null or destination = $3) and ($4::text is null or message_type = $4) \
         and ($5::uuid is null or message_id = $5)"
    };
}

pub(super) use filter;

/// `$6` behind which id, `$7` how many.
macro_rules! sent {
    ($behind:literal, $order:literal) => {
        concat!(
            "select id, message_id, message_type, destination, key, sent_at, kept_until ",
            "from sagabus.sent where ",
            filter!(),
            " and ($6::bigint is null or id ",
            $behind,
            " $6) order by id ",
            $order,
            " limit $7::bigint"
        )
    };
}

const LATEST: &str = sent!("<", "desc");
const OLDEST: &str = sent!(">", "asc");

const COUNT: &str = concat!(
    "select count(*), min(sent_at), max(sent_at), max(id) from sagabus.sent where ",
    filter!()
);

/// Lists what is kept.
pub(super) async fn list(
    store: &PgStore,
    filter: &SentFilter,
    page: Page,
) -> Result<Vec<StoredSent>, StoreError> {
    let text = match page.first {
        First::Latest => LATEST,
        First::Oldest => OLDEST,
    };
    let mut arguments = arguments(filter)?;
    add(&mut arguments, page.after)?;
    add(&mut arguments, i64::from(page.size()))?;
    read::all(store, text, arguments, found::sent).await
}

/// Counts what a filter lets through.
pub(super) async fn count(store: &PgStore, filter: &SentFilter) -> Result<Tally, StoreError> {
    read::one(store, COUNT, arguments(filter)?, found::tally).await
}

pub(super) fn arguments(filter: &SentFilter) -> Result<PgArguments, StoreError> {
    let mut arguments = PgArguments::default();
    let to = &mut arguments;
    add(to, filter.since.map(Timestamp::as_micros))?;
    add(to, filter.until.map(Timestamp::as_micros))?;
    add(to, filter.destination.clone())?;
    add(to, filter.message_type.clone())?;
    add(to, filter.message.as_ref().map(MessageId::as_uuid))?;
    Ok(arguments)
}
