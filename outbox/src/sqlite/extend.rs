//! Leases of what a host has in hand, and its heartbeat.

use sagabus_core::StoreError;
use sagabus_core::backlog::Extended;
use sagabus_core::store::Extension;
use sqlx::Arguments;
use sqlx::sqlite::SqliteArguments;

use super::clock::{now, read_now};
use super::encode::micros;
use super::error::commit_error;
use super::measure::measure;
use super::rows::Rows;
use super::store::SqliteStore;

/// Extends what is still of its epoch.
pub(super) const EXTEND: &str = concat!(
    "begin immediate; update sagabus_host set heartbeat_at = ",
    now!(),
    ", behind = ",
    now!(),
    " - $4, stopped_at = case when $5 then ",
    now!(),
    " end where id = $1; update sagabus_outbox set available_at = ",
    now!(),
    " + $2 where id in (select o.id from json_each($3) e cross join sagabus_outbox o ",
    // As in the commit call's sections.
    "not indexed on o.id = e.value ->> 0 and o.epoch = e.value ->> 1 and o.parked is null); commit"
);

/// The place in [`EXTEND`] of the statement that counts.
const EXTENDED: usize = 2;

/// Extends leases and heartbeat in one transaction.
pub(super) async fn extend(
    store: &SqliteStore,
    extension: &Extension,
) -> Result<Extended, StoreError> {
    let mut rows = Rows::default();
    for row in &extension.rows {
        rows.row_key(*row).end();
    }
    let rows = match rows.count {
        0 => "[]".to_owned(),
        _ => rows.json(),
    };
    let mut arguments = SqliteArguments::default();
    let host = extension.host.as_uuid();
    arguments.add(host).map_err(StoreError::Refused)?;
    let lease = micros(extension.lease);
    arguments.add(lease).map_err(StoreError::Refused)?;
    arguments.add(rows).map_err(StoreError::Refused)?;
    let clock = extension.clock.as_micros();
    arguments.add(clock).map_err(StoreError::Refused)?;
    let is_last = extension.is_last;
    arguments.add(is_last).map_err(StoreError::Refused)?;
    let mut write = store.write().await?;
    let replies = write.whole(EXTEND, arguments).await.map_err(commit_error)?;
    drop(write);
    Ok(Extended {
        rows: replies.get(EXTENDED).map_or(0, |reply| reply.changes),
        backlog: measure(store, &extension.measure).await?,
        now: read_now(store).await?,
    })
}
