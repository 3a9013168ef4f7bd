//! What is stored, summed up by what a release has to know to go on with it.

use sagabus_core::StoreError;
use sagabus_core::admin::{InstanceShape, SHAPES_MAX, WaitingShape, version_from_header};
use sqlx::Row;
use sqlx::sqlite::SqliteRow;

use super::super::clock::never;
use super::super::error::store_error;
use super::super::store::SqliteStore;

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
    let read = |row: &SqliteRow| -> Result<InstanceShape, sqlx::Error> {
        Ok(InstanceShape {
            kind: row.try_get(0)?,
            state: row.try_get(1)?,
            schema_version: row.try_get(2)?,
            count: row.try_get::<i64, _>(3)?.cast_unsigned(),
            key: row.try_get(4)?,
        })
    };
    rows.iter()
        .map(|row| read(row).map_err(store_error))
        .collect()
}

/// Sums up what waits at endpoints.
pub(super) async fn waiting(store: &SqliteStore) -> Result<Vec<WaitingShape>, StoreError> {
    let rows = ask(store, WAITING).await?;
    let read = |row: &SqliteRow| -> Result<WaitingShape, sqlx::Error> {
        let destination: String = row.try_get(0)?;
        let version: Option<String> = row.try_get(2)?;
        Ok(WaitingShape {
            endpoint: destination.trim_start_matches('@').to_owned(),
            message_type: row.try_get(1)?,
            version: version_from_header(version.as_deref()),
            timer_of: row.try_get(3)?,
            count: row.try_get::<i64, _>(4)?.cast_unsigned(),
        })
    };
    rows.iter()
        .map(|row| read(row).map_err(store_error))
        .collect()
}

async fn ask(store: &SqliteStore, text: &'static str) -> Result<Vec<SqliteRow>, StoreError> {
    let call = sqlx::query(text).bind(i64::from(SHAPES_MAX));
    call.fetch_all(store.reader()).await.map_err(store_error)
}
