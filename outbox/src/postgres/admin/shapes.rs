//! What is stored, summed up by what a release has to know to go on with it.

use sagabus_core::StoreError;
use sagabus_core::admin::{InstanceShape, SHAPES_MAX, WaitingShape};
use sqlx::postgres::PgRow;

use super::super::error::store_error;
use super::super::store::PgStore;
use crate::found;

const INSTANCES: &str = "select kind, state, schema_version, count(*), min(key) \
    from sagabus.instance where not completed group by kind, state, schema_version \
    order by kind, coalesce(state, '') collate \"C\", schema_version limit $1::bigint";

/// The version is looked for in the text: what a message carries need be no JSON that this server
/// accepts.
const WAITING: &str = "select destination, message_type, version, timer_kind, count(*) from ( \
    select destination, message_type, timer_kind, \
        substring(convert_from(headers, 'UTF8') from '\"sagabus-version\":\"([^\"]*)\"') as version \
    from sagabus.outbox where destination like '@%' and available_at < sagabus.never_micros()) o \
    group by destination, message_type, version, timer_kind \
    order by destination, message_type, coalesce(version, '') collate \"C\", \
    coalesce(timer_kind, '') collate \"C\" limit $1::bigint";

/// Sums running instances up.
pub(super) async fn instances(store: &PgStore) -> Result<Vec<InstanceShape>, StoreError> {
    let rows = ask(store, INSTANCES).await?;
    rows.iter()
        .map(|row| found::instance_shape(row).map_err(store_error))
        .collect()
}

/// Sums up what waits at endpoints.
pub(super) async fn waiting(store: &PgStore) -> Result<Vec<WaitingShape>, StoreError> {
    let rows = ask(store, WAITING).await?;
    rows.iter()
        .map(|row| found::waiting_shape(row).map_err(store_error))
        .collect()
}

async fn ask(store: &PgStore, text: &'static str) -> Result<Vec<PgRow>, StoreError> {
    let mut taken = store.take().await?;
    let call = sqlx::query(text)
        .bind(i64::from(SHAPES_MAX))
        .fetch_all(&mut *taken);
    let answer = store.answer(call).await;
    taken.finish(answer, store_error)
}
