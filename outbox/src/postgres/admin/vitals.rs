//! How the server is doing.

use std::time::Duration;

use sagabus_core::StoreError;
use sagabus_core::admin::{TableVitals, Vitals};
use sqlx::Row;

use super::super::error::store_error;
use super::super::store::PgStore;

/// Bytes; held places; seconds of the longest transaction and age of what anything looks back to.
/// Of other users' sessions, a role without `pg_read_all_stats` sees neither: those are left out.
const VITALS: &str = "select pg_database_size(current_database()), \
    (select count(*) from sagabus.outbox where parked is null \
        and available_at >= sagabus.never_micros()), \
    (select max(extract(epoch from clock_timestamp() - xact_start))::float8 \
        from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid()), \
    greatest( \
        (select max(age(backend_xmin)) from pg_stat_activity \
            where datname = current_database() and pid <> pg_backend_pid()), \
        (select max(age(transaction)) from pg_prepared_xacts), \
        (select max(greatest(age(xmin), age(catalog_xmin))) from pg_replication_slots))::bigint";

/// More dead rows than autovacuum leaves by itself (a fifth of the rows), and enough to matter.
const TABLES: &str = "select relname::text, n_live_tup, n_dead_tup from pg_stat_user_tables \
    where schemaname = 'sagabus' and n_dead_tup > 10000 and n_dead_tup > n_live_tup / 5 \
    order by n_dead_tup desc, relname";

/// Reads what the server knows of itself.
pub(super) async fn vitals(store: &PgStore) -> Result<Vitals, StoreError> {
    let mut taken = store.take().await?;
    let connection = &mut *taken;
    let call = async move {
        let row = sqlx::query(VITALS).fetch_one(&mut *connection).await?;
        let tables = sqlx::query(TABLES).fetch_all(connection).await?;
        let count = |count: i64| count.max(0).cast_unsigned();
        let seconds: Option<f64> = row.try_get(2)?;
        let horizon: Option<i64> = row.try_get(3)?;
        let table = |row: &sqlx::postgres::PgRow| -> Result<TableVitals, sqlx::Error> {
            Ok(TableVitals {
                name: row.try_get(0)?,
                rows: count(row.try_get(1)?),
                dead_rows: count(row.try_get(2)?),
            })
        };
        Ok(Vitals {
            bytes: count(row.try_get(0)?),
            free_bytes: None,
            held: count(row.try_get(1)?),
            oldest_transaction: seconds.and_then(|one| Duration::try_from_secs_f64(one).ok()),
            horizon_transactions: horizon.map(count),
            tables: tables.iter().map(table).collect::<Result<_, _>>()?,
        })
    };
    let answer = store.answer(call).await;
    taken.finish(answer, store_error)
}
