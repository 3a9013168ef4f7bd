//! What is stored, summed up by what a release has to know to go on with it.

use sagabus_core::StoreError;
use sagabus_core::admin::{InstanceShape, SHAPES_MAX, WaitingShape};
use sqlx::sqlite::SqliteRow;

use super::super::clock::never;
use super::super::error::store_error;
use super::super::store::SqliteStore;
use crate::found;

const INSTANCES: &str = "select kind, state, schema_version, count(*), min(key) \
    from sagabus_instance where completed = 0 group by kind, state, schema_version \
    order by kind, coalesce(state, ''), schema_version limit $1";

const WAITING: &str = concat!(
    "select destination, message_type, version, timer_kind, count(*) from ( \
    select destination, message_type, timer_kind, \
        json_extract(cast(headers as text), '$.\"sagabus-version\"') as version \
    from sagabus_outbox where destination like '@%' and available_at < ",
    never!(),
    ") group by destination, message_type, version, timer_kind \
    order by destination, message_type, coalesce(version, ''), coalesce(timer_kind, '') limit $1"
);

/// Sums running instances up.
pub(super) async fn instances(store: &SqliteStore) -> Result<Vec<InstanceShape>, StoreError> {
    let rows = ask(store, INSTANCES).await?;
    rows.iter()
        .map(|row| found::instance_shape(row).map_err(store_error))
        .collect()
}

/// Sums up what waits at endpoints.
pub(super) async fn waiting(store: &SqliteStore) -> Result<Vec<WaitingShape>, StoreError> {
    let rows = ask(store, WAITING).await?;
    rows.iter()
        .map(|row| found::waiting_shape(row).map_err(store_error))
        .collect()
}

async fn ask(store: &SqliteStore, text: &'static str) -> Result<Vec<SqliteRow>, StoreError> {
    let call = sqlx::query(text).bind(i64::from(SHAPES_MAX));
    call.fetch_all(store.reader()).await.map_err(store_error)
}
