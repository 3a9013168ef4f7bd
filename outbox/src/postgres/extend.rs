//! The leases of what a host has in hand, and its heartbeat.

use sagabus_core::backlog::Extended;
use sagabus_core::clock::micros;
use sagabus_core::store::Extension;
use sagabus_core::{StoreError, Timestamp};
use sqlx::postgres::PgConnection;

use super::error::commit_error;
use super::measure::measure;
use super::store::PgStore;

const EXTEND: &str = "select rows, now from sagabus.extend_v1($1, $2, $3, $4, $5, $6)";

/// Extends everything in one call.
pub(super) async fn extend(store: &PgStore, extension: &Extension) -> Result<Extended, StoreError> {
    let ids: Vec<i64> = extension.rows.iter().map(|row| row.id).collect();
    let epochs: Vec<i32> = extension.rows.iter().map(|row| row.epoch).collect();
    let mut taken = store.take().await?;
    let connection: &mut PgConnection = &mut taken;
    let call = async move {
        let (count, now): (i64, i64) = sqlx::query_as(EXTEND)
            .bind(extension.host.as_uuid())
            .bind(ids)
            .bind(epochs)
            .bind(micros(extension.lease))
            .bind(extension.clock.as_micros())
            .bind(extension.is_last)
            .fetch_one(&mut *connection)
            .await?;
        Ok((count, now, measure(connection, &extension.measure).await?))
    };
    let answer = store.answer(call).await;
    let (count, now, backlog) = taken.finish(answer, commit_error)?;
    Ok(Extended {
        rows: count.unsigned_abs(),
        backlog,
        now: Timestamp::from_micros(now),
    })
}
