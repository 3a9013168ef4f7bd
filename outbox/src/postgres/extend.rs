//! The leases of what a host has in hand, and its heartbeat.

use sagabus_core::StoreError;
use sagabus_core::clock::micros;
use sagabus_core::store::Extension;

use super::error::commit_error;
use super::store::PgStore;

const EXTEND: &str = "select sagabus.extend_v1($1, $2, $3, $4)";

/// Extends everything in one call.
pub(super) async fn extend(store: &PgStore, extension: &Extension) -> Result<u64, StoreError> {
    let ids: Vec<i64> = extension.rows.iter().map(|row| row.id).collect();
    let epochs: Vec<i32> = extension.rows.iter().map(|row| row.epoch).collect();
    let mut taken = store.take().await?;
    let call = sqlx::query_scalar(EXTEND)
        .bind(extension.host.as_uuid())
        .bind(ids)
        .bind(epochs)
        .bind(micros(extension.lease))
        .fetch_one(&mut *taken);
    let answer = store.answer(call).await;
    let count: i64 = taken.finish(answer, commit_error)?;
    Ok(count.unsigned_abs())
}
