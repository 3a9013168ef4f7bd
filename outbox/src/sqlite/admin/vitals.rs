//! How the file is doing.

use sagabus_core::StoreError;
use sagabus_core::admin::Vitals;
use sqlx::Row;

use super::super::clock::never;
use super::super::error::store_error;
use super::super::store::SqliteStore;

/// Size of a page; pages; free ones; held places.
const VITALS: &str = concat!(
    "select s.page_size, c.page_count, f.freelist_count, (select count(*) from sagabus_outbox ",
    "where parked is null and available_at >= ",
    never!(),
    ") from pragma_page_size s, pragma_page_count c, pragma_freelist_count f"
);

/// Reads what the file says of itself.
pub(super) async fn vitals(store: &SqliteStore) -> Result<Vitals, StoreError> {
    let row = sqlx::query(VITALS).fetch_one(store.reader()).await;
    let row = row.map_err(store_error)?;
    let count = |at: usize| -> Result<u64, StoreError> {
        let count: i64 = row.try_get(at).map_err(store_error)?;
        Ok(count.max(0).cast_unsigned())
    };
    Ok(Vitals {
        bytes: count(0)?.saturating_mul(count(1)?),
        free_bytes: Some(count(0)?.saturating_mul(count(2)?)),
        held: count(3)?,
        ..Vitals::default()
    })
}
