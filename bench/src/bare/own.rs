//! Rows of this database, claimed and handled in groups: one connection, whichever database it is.

use std::future::Future;
use std::time::{Duration, Instant};

use anyhow::Result;
use sqlx::{ColumnIndex, Decode, Row, Type};
use uuid::Uuid;

use super::{GROUP_MAX, Incoming, Sent, Towards, handed_on, one_per_account};

/// A connection to either database.
pub(crate) trait Groups: Send {
    /// Claims up to so many rows of a destination.
    fn claim(
        &mut self,
        destination: &'static str,
        wanted: i64,
    ) -> impl Future<Output = Result<Vec<Incoming>>> + Send;

    /// Reads, applies and writes a group. Returns what it sends, and the ids of its rows.
    fn handle(
        &mut self,
        group: &[Incoming],
        towards: Towards,
    ) -> impl Future<Output = Result<(Vec<i64>, Vec<Sent>)>> + Send;
}

/// Claims the rows of an endpoint and handles them, until there are none.
pub(crate) async fn rows(
    connection: &mut impl Groups,
    destination: &'static str,
) -> Result<(u64, Duration)> {
    let started = Instant::now();
    let mut handled = 0;
    let mut held_back = Vec::new();
    loop {
        let mut arrived = std::mem::take(&mut held_back);
        fill(connection, destination, &mut arrived).await?;
        let group = one_per_account(arrived, &mut held_back);
        if group.is_empty() {
            return Ok((handled, started.elapsed()));
        }
        connection.handle(&group, Towards::Endpoint).await?;
        handled += u64::try_from(group.len())?;
    }
}

/// Claims the rows of an endpoint, and handles what they send to it from memory, until nothing is left.
pub(crate) async fn steps(
    connection: &mut impl Groups,
    destination: &'static str,
) -> Result<(u64, Duration)> {
    let started = Instant::now();
    let mut handled = 0;
    let mut group = Vec::new();
    loop {
        fill(connection, destination, &mut group).await?;
        if group.is_empty() {
            return Ok((handled, started.elapsed()));
        }
        let (rows, sent) = connection.handle(&group, Towards::Itself).await?;
        handled += u64::try_from(group.len())?;
        group = handed_on(rows, sent)?;
    }
}

/// Claims as many rows as a group has room for.
async fn fill(
    connection: &mut impl Groups,
    destination: &'static str,
    group: &mut Vec<Incoming>,
) -> Result<()> {
    let wanted = i64::try_from(GROUP_MAX - group.len())?;
    group.extend(connection.claim(destination, wanted).await?);
    Ok(())
}

/// Reads a row that was claimed.
pub(super) fn incoming<'r, R>(row: &'r R) -> Result<Incoming>
where
    R: Row,
    usize: ColumnIndex<R>,
    i64: Decode<'r, R::Database> + Type<R::Database>,
    i32: Decode<'r, R::Database> + Type<R::Database>,
    Uuid: Decode<'r, R::Database> + Type<R::Database>,
    String: Decode<'r, R::Database> + Type<R::Database>,
    &'r [u8]: Decode<'r, R::Database> + Type<R::Database>,
{
    let key = (row.try_get(0)?, row.try_get(1)?);
    let (id, message_type) = (row.try_get(2)?, row.try_get(3)?);
    Incoming::from_row(key, id, message_type, row.try_get(4)?, row.try_get(5)?)
}
