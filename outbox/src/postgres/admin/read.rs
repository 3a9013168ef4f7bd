//! Questions of operators: one connection, one statement, one answer.

use sagabus_core::StoreError;
use sqlx::postgres::{PgArguments, PgRow};

use super::super::error::store_error;
use super::super::store::PgStore;

/// Asks for rows, and reads each.
pub(super) async fn all<T>(
    store: &PgStore,
    text: &'static str,
    arguments: PgArguments,
    read: impl Fn(&PgRow) -> Result<T, sqlx::Error>,
) -> Result<Vec<T>, StoreError> {
    let mut taken = store.take().await?;
    let call = sqlx::query_with(text, arguments).fetch_all(&mut *taken);
    let answer = store.answer(call).await;
    let rows = taken.finish(answer, store_error)?;
    let found = rows.iter().map(read);
    found.collect::<Result<_, _>>().map_err(store_error)
}

/// Asks for the one row that there always is, and reads it.
pub(super) async fn one<T>(
    store: &PgStore,
    text: &'static str,
    arguments: PgArguments,
    read: impl Fn(&PgRow) -> Result<T, sqlx::Error>,
) -> Result<T, StoreError> {
    let mut taken = store.take().await?;
    let call = sqlx::query_with(text, arguments).fetch_one(&mut *taken);
    let answer = store.answer(call).await;
    let row = taken.finish(answer, store_error)?;
    read(&row).map_err(store_error)
}
