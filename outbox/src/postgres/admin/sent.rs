//! What brokers took and is kept: listed, and sent again.

use sagabus_core::admin::{First, Page, SentFilter, StoredSent};
use sagabus_core::{StoreError, Timestamp};
use sqlx::postgres::PgArguments;

use super::super::error::store_error;
use super::super::store::PgStore;
use super::change::noted;
use super::dead_letters::add;
use crate::found;

/// `$1` since, `$2` until, `$3` destination, `$4` type; `$5` behind which id, `$6` how many.
macro_rules! sent {
    ($behind:literal, $order:literal) => {
        concat!(
            "select id, message_id, message_type, destination, key, sent_at, kept_until ",
            "from sagabus.sent where ($1::bigint is null or sent_at >= $1) ",
            "and ($2::bigint is null or sent_at < $2) and ($3::text is null or destination = $3) ",
            "and ($4::text is null or message_type = $4) and ($5::bigint is null or id ",
            $behind,
            " $5) order by id ",
            $order,
            " limit $6::bigint"
        )
    };
}

const LATEST: &str = sent!("<", "desc");
const OLDEST: &str = sent!(">", "asc");

/// `$1` who, `$2` action, `$3` why; `$4` ids. As they were, in the order in which they were written.
pub(super) const REPUBLISH: &str = concat!(
    "with done as (delete from sagabus.sent where id = any($4) ",
    "returning id, destination as place, message_id, message_type, key, per_key, headers, body, ",
    "expires_at), ",
    "written as (insert into sagabus.outbox (message_id, message_type, destination, key, per_key, ",
    "headers, body, available_at, expires_at, created_at) ",
    "select d.message_id, d.message_type, d.place, d.key, d.per_key, d.headers, d.body, t.now, ",
    "d.expires_at, t.now from done d, (select sagabus.now_micros() as now offset 0) t ",
    "order by d.id)",
    noted!("destination")
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
    let mut arguments = PgArguments::default();
    let to = &mut arguments;
    add(to, filter.since.map(Timestamp::as_micros))?;
    add(to, filter.until.map(Timestamp::as_micros))?;
    add(to, filter.destination.clone())?;
    add(to, filter.message_type.clone())?;
    add(to, page.after)?;
    add(to, i64::from(page.size()))?;
    let mut taken = store.take().await?;
    let call = sqlx::query_with(text, arguments).fetch_all(&mut *taken);
    let answer = store.answer(call).await;
    let rows = taken.finish(answer, store_error)?;
    rows.iter()
        .map(|row| found::sent(row).map_err(store_error))
        .collect()
}
