//! What waits, as a host asks about it with its heartbeat.

use std::time::Duration;

use sagabus_core::backlog::{Backlog, Measure, Wanted};
use sqlx::Row;
use sqlx::postgres::PgConnection;

use crate::row;

const MEASURE: &str = "select counts, oldest, age from sagabus.measure_v1($1, $2, $3)";

/// Measures what is asked.
pub(super) async fn measure(
    connection: &mut PgConnection,
    measure: &Measure,
) -> Result<Backlog, sqlx::Error> {
    if measure.is_empty() {
        return Ok(Backlog::default());
    }
    let endpoints = measure.endpoints.iter();
    let names: Vec<_> = endpoints
        .map(|(name, _)| row::endpoint_text(name))
        .collect();
    let limits = measure.endpoints.iter();
    let limits = limits.map(|(_, limit)| i32::try_from(*limit).unwrap_or(LIMIT_MAX));
    let found = sqlx::query(MEASURE)
        .bind(names)
        .bind(limits.map(|limit| limit.min(LIMIT_MAX)).collect::<Vec<_>>())
        .bind(measure.oldest == Wanted::Yes)
        .fetch_one(connection)
        .await?;
    let counts: Option<Vec<i32>> = found.try_get(0)?;
    let destination: Option<String> = found.try_get(1)?;
    let age: Option<i64> = found.try_get(2)?;
    Ok(Backlog {
        counts: counts
            .into_iter()
            .flatten()
            .map(|count| count.unsigned_abs())
            .collect(),
        oldest: destination
            .zip(age)
            .map(|(name, age)| (name, Duration::from_micros(age.unsigned_abs()))),
    })
}

/// So that the function's own margin fits in beside it.
const LIMIT_MAX: i32 = 1_000_000_000;
