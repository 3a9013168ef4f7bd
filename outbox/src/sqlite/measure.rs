//! What waits, as a host asks about it with its heartbeat.

use std::time::Duration;

use sagabus_core::StoreError;
use sagabus_core::backlog::{Backlog, Measure, Wanted};
use sqlx::Row;

use super::clock::now;
use super::error::store_error;
use super::store::SqliteStore;
use crate::row;

/// Counts the rows of an endpoint, timers left out, up to a limit. What is due late lies at the end
/// of the index, where timers are: so it looks at no more than ten thousand rows beyond its limit,
/// whatever is planned for later.
pub(super) const COUNT: &str = "select min($2, count(*)) from (select timer_name from sagabus_outbox \
    where destination = $1 and parked is null order by available_at limit $2 + 10000) \
    where timer_name is null";

/// Finds the destination whose longest due row could have been taken for the longest time: jumps
/// from one destination to the next.
pub(super) const OLDEST: &str = concat!(
    "with recursive step (name) as (",
    "select min(destination) from sagabus_outbox where parked is null ",
    "union all select (select min(destination) from sagabus_outbox where parked is null ",
    "and destination > step.name) from step where step.name is not null) ",
    "select name, ",
    now!(),
    " - (select min(available_at) from sagabus_outbox where destination = name ",
    "and parked is null) as age from step where name is not null and age >= 0 ",
    "order by age desc limit 1"
);

/// Measures what is asked.
pub(super) async fn measure(store: &SqliteStore, measure: &Measure) -> Result<Backlog, StoreError> {
    let mut backlog = Backlog::default();
    if measure.is_empty() {
        return Ok(backlog);
    }
    let reader = store.reader();
    for (name, limit) in &measure.endpoints {
        let count: i64 = sqlx::query_scalar(COUNT)
            .bind(row::endpoint_text(name))
            .bind(i64::from(*limit))
            .fetch_one(reader)
            .await
            .map_err(store_error)?;
        backlog.counts.push(u32::try_from(count).unwrap_or(*limit));
    }
    if measure.oldest == Wanted::Yes {
        let found = sqlx::query(OLDEST).fetch_optional(reader).await;
        if let Some(found) = found.map_err(store_error)? {
            let name = found.try_get(0).map_err(store_error)?;
            let age: i64 = found.try_get(1).map_err(store_error)?;
            backlog.oldest = Some((name, Duration::from_micros(age.unsigned_abs())));
        }
    }
    Ok(backlog)
}
