//! The inbox: what was taken over, and what was done with it.

use sagabus_core::StoreError;
use sagabus_core::admin::{InboxFilter, Page, TakenOver};

use super::super::error::store_error;
use super::super::store::PgStore;
use crate::found;

/// `$1` message, `$2` endpoint, `$3` since, `$4` until, `$5` and `$6` behind which, `$7` how many.
/// Columns as those of history, then of the inbox.
macro_rules! inbox {
    ($message:literal) => {
        concat!(
            "select h.id, h.at, e.name, i.endpoint_id, i.message_id, h.message_type, ",
            "h.correlation_id, h.kind, h.key, h.version, h.detail, i.message_id, e.name, ",
            "i.accepted_at from (select i.message_id, i.endpoint_id, i.accepted_at ",
            "from sagabus.inbox i where ",
            $message,
            " and ($2::text is null or i.endpoint_id = ",
            "(select e.id from sagabus.endpoint e where e.name = $2)) ",
            "and ($3::bigint is null or i.accepted_at >= $3) ",
            "and ($4::bigint is null or i.accepted_at < $4) ",
            "and ($5::uuid is null or (i.message_id, i.endpoint_id) < ($5, coalesce(",
            "(select e.id from sagabus.endpoint e where e.name = $6::text), 0))) ",
            "order by i.message_id desc, i.endpoint_id desc limit $7::bigint) i ",
            "left join sagabus.endpoint e on e.id = i.endpoint_id ",
            "left join lateral (select * from sagabus.history h ",
            "where h.message_id = i.message_id and h.endpoint_id = i.endpoint_id ",
            "order by h.id desc limit 1) h on true ",
            "order by i.message_id desc, i.endpoint_id desc"
        )
    };
}

const ALL: &str = inbox!("$1::uuid is null");
const ONE: &str = inbox!("i.message_id = $1");

/// Reads what was taken over.
pub(super) async fn inbox(
    store: &PgStore,
    filter: &InboxFilter,
    limit: u32,
) -> Result<Vec<TakenOver>, StoreError> {
    let text = if filter.message.is_some() { ONE } else { ALL };
    let after = filter.after.as_ref();
    let mut taken = store.take().await?;
    let call = sqlx::query(text)
        .bind(filter.message.map(|id| id.as_uuid()))
        .bind(filter.endpoint.clone())
        .bind(filter.since.map(|at| at.as_micros()))
        .bind(filter.until.map(|at| at.as_micros()))
        .bind(after.map(|(message, _)| message.as_uuid()))
        .bind(after.and_then(|(_, endpoint)| endpoint.clone()))
        .bind(i64::from(Page::latest(limit).size()))
        .fetch_all(&mut *taken);
    let answer = store.answer(call).await;
    let rows = taken.finish(answer, store_error)?;
    rows.iter()
        .map(|row| found::taken_over(row).map_err(store_error))
        .collect()
}
