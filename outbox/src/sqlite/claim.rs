//! Due rows for endpoints or for a transport, taken for the time of a lease.
//!
//! One index, `(destination, available_at)`, says what is due. Of an ordered key only the oldest
//! row moves: the others, when their time comes while they are still behind, are put off by 60 s
//! in the same call, a bounded number at a time. Whoever removes the oldest pulls the next forward,
//! so putting off is only the price of not looking at the same rows over and over.

use std::time::Duration;

use bytes::Bytes;
use sagabus_core::envelope::{Envelope, Timer};
use sagabus_core::store::{Claim, ClaimFrom, ClaimedRow, Scan};
use sagabus_core::transports::TransportName;
use sagabus_core::unit_of_work::RowKey;
use sagabus_core::{InstanceId, MessageId, StoreError};
use sqlx::sqlite::{SqliteArguments, SqliteRow};
use sqlx::{Arguments, AssertSqlSafe, Row};

use super::clock::{deferral, now};
use super::encode::micros;
use super::error::{commit_error, store_error};
use super::store::SqliteStore;
use crate::row;

/// A row that may move, or one with an older row of its key before it.
macro_rules! is_behind {
    ($row:literal) => {
        concat!(
            "(",
            $row,
            ".per_key = 1 and exists (select 1 from sagabus_outbox older where ",
            "older.destination = ",
            $row,
            ".destination and older.key = ",
            $row,
            ".key and older.per_key = 1 and older.parked is null and older.id < ",
            $row,
            ".id))"
        )
    };
}

/// Due rows of one destination, the longest due first; `?` are: destination, how far back.
///
/// The bound keeps a call short whatever lies behind a blocked key: 1,000 rows take about 3 ms.
macro_rules! due {
    () => {
        concat!(
            "select id, destination, key, per_key from sagabus_outbox where destination = ? ",
            "and parked is null and available_at > ",
            now!(),
            " - ? and available_at <= ",
            now!(),
            " order by available_at limit 1000"
        )
    };
}

/// Puts off what is due and behind, then claims what is due and may move, for one destination.
pub(super) const CLAIM: &str = concat!(
    "update sagabus_outbox set available_at = ",
    now!(),
    " + ",
    deferral!(),
    " where exists (select 1 from sagabus_outbox where destination = ? and per_key = 1 ",
    "and parked is null) and id in (select due.id from (",
    due!(),
    ") due where ",
    is_behind!("due"),
    ");",
    "update sagabus_outbox set epoch = epoch + 1, starts = starts + 1, available_at = ",
    now!(),
    " + ? where id in (select due.id from (",
    due!(),
    ") due where not ",
    is_behind!("due"),
    " limit ?) returning id, epoch, destination, message_id, message_type, headers, body, key, ",
    "starts, failures, solo_starts, attempts, timer_kind, timer_key, timer_name, ",
    "timer_generation, coalesce(expires_at <= ",
    now!(),
    ", 0);"
);

/// Finds the addresses of one transport that have due rows, and how many up to `$1`: jumps from one
/// destination to the next. `$2` is how far back. A named transport's lie from `$3` to below `$4`;
/// the default one's, where `$3` is empty, are all but those of named ones (`:`), of nobody (`?`)
/// and of endpoints (`@`), which lie between `?` and `A`.
pub(super) const FIND_ADDRESSES: &str = concat!(
    "with recursive address (name) as (",
    "select min(destination) from sagabus_outbox where parked is null and destination >= $3 ",
    "union all select (select min(destination) from sagabus_outbox where parked is null ",
    "and destination > iif($3 = '' and address.name >= '?' and address.name < 'A', ",
    "'@' || char(127), iif($3 = '' and address.name >= ':' and address.name < ';', ",
    "':' || char(127), address.name))) ",
    "from address where address.name is not null and address.name < $4) ",
    "select name, (select count(*) from (select 1 from sagabus_outbox where destination = name ",
    "and parked is null and available_at > ",
    now!(),
    " - $2 and available_at <= ",
    now!(),
    " limit $1)) as n_due from address where name is not null ",
    "and name >= $3 and name < $4 and ($3 <> '' or ((name < ':' or name >= ';') ",
    "and (name < '?' or name >= 'A'))) and n_due > 0"
);

/// The most destinations in one text: their number makes the text, and texts are kept prepared.
const DESTINATIONS_MAX: usize = 16;

/// How far back a hot scan looks: rows that came due within the last minute.
const HOT: Duration = Duration::from_secs(60);

/// Claims due rows.
pub(super) async fn claim(
    store: &SqliteStore,
    claim: &Claim,
) -> Result<Vec<ClaimedRow>, StoreError> {
    let wanted = match &claim.from {
        ClaimFrom::Endpoints(endpoints) => endpoints
            .iter()
            .map(|(name, limit)| (row::endpoint_text(name), *limit))
            .collect(),
        ClaimFrom::Transport {
            name,
            limit,
            per_address,
            bounds,
        } => {
            let due = due_addresses(store, claim.scan, name, *per_address, bounds).await?;
            share(due, *limit)
        }
    };
    let mut claimed = Vec::new();
    for wanted in wanted.chunks(DESTINATIONS_MAX) {
        claim_destinations(store, claim, wanted, &mut claimed).await?;
    }
    Ok(claimed)
}

/// Claims for a few destinations in one transaction.
async fn claim_destinations(
    store: &SqliteStore,
    claim: &Claim,
    wanted: &[(String, u32)],
    claimed: &mut Vec<ClaimedRow>,
) -> Result<(), StoreError> {
    let text = ["begin immediate;", &CLAIM.repeat(wanted.len()), "commit"].concat();
    let (lease, reach) = (micros(claim.lease), reach(claim.scan));
    let mut arguments = SqliteArguments::default();
    for (destination, limit) in wanted {
        let destination = destination.as_str();
        add(&mut arguments, destination)?;
        add(&mut arguments, destination)?;
        add(&mut arguments, reach)?;
        add(&mut arguments, lease)?;
        add(&mut arguments, destination)?;
        add(&mut arguments, reach)?;
        add(&mut arguments, *limit)?;
    }
    let mut write = store.write().await?;
    let replies = write
        .whole(AssertSqlSafe(text), arguments)
        .await
        .map_err(commit_error)?;
    drop(write);
    for row in replies.iter().flat_map(|reply| &reply.rows) {
        claimed.push(read_row(row)?);
    }
    Ok(())
}

/// Lists the addresses of a transport that have due rows, with how many are wanted of each.
async fn due_addresses(
    store: &SqliteStore,
    scan: Scan,
    transport: &TransportName,
    per_address: u32,
    bounds: &[(String, u32)],
) -> Result<Vec<(String, u32)>, StoreError> {
    let prefix = transport.prefix();
    let rows = sqlx::query(FIND_ADDRESSES)
        .bind(per_address)
        .bind(reach(scan))
        .bind(&prefix)
        .bind(format!("{prefix}{}", char::MAX))
        .fetch_all(store.reader())
        .await
        .map_err(store_error)?;
    let mut due: Vec<(String, u32)> = Vec::with_capacity(rows.len());
    for row in rows {
        let address: String = row.try_get(0).map_err(store_error)?;
        let wish: u32 = row.try_get(1).map_err(store_error)?;
        let bound = bounds.iter().find(|(bounded, _)| *bounded == address);
        let wish = bound.map_or(wish, |(_, bound)| wish.min(*bound));
        if wish > 0 {
            due.push((address, wish));
        }
    }
    Ok(due)
}

/// Cuts wishes down to a limit, the smallest first: who wants less than an equal share gets it all,
/// so that one with much to do starves no other.
fn share(mut due: Vec<(String, u32)>, limit: u32) -> Vec<(String, u32)> {
    due.sort_unstable_by_key(|(_, wish)| *wish);
    let mut left = limit;
    let mut waiting = u32::try_from(due.len()).unwrap_or(u32::MAX);
    for (_, wish) in &mut due {
        *wish = (*wish).min(left.div_ceil(waiting.max(1)));
        left -= *wish;
        waiting -= 1;
    }
    due.retain(|(_, wish)| *wish > 0);
    due
}

fn reach(scan: Scan) -> i64 {
    match scan {
        Scan::Hot => micros(HOT),
        Scan::Cold => micros(Duration::MAX),
    }
}

/// Reads a claimed row. What is broken in it reads as nothing: losing the row would be worse.
fn read_row(row: &SqliteRow) -> Result<ClaimedRow, StoreError> {
    let message_id: Vec<u8> = row.try_get(3).map_err(store_error)?;
    let message_type: String = row.try_get(4).map_err(store_error)?;
    let headers: Vec<u8> = row.try_get(5).map_err(store_error)?;
    let body: Vec<u8> = row.try_get(6).map_err(store_error)?;
    let attempts: Option<Vec<u8>> = row.try_get(11).map_err(store_error)?;
    Ok(ClaimedRow {
        row: RowKey {
            id: row.try_get(0).map_err(store_error)?,
            epoch: row.try_get(1).map_err(store_error)?,
        },
        destination: row.try_get(2).map_err(store_error)?,
        envelope: Envelope {
            id: MessageId::from_uuid(row::uuid_from_bytes(&message_id)),
            message_type: message_type.into(),
            headers: row::headers_from_json(&headers),
            body: Bytes::from(body),
        },
        key: row.try_get(7).map_err(store_error)?,
        starts: row.try_get(8).map_err(store_error)?,
        failures: row.try_get(9).map_err(store_error)?,
        solo_starts: row.try_get(10).map_err(store_error)?,
        attempts: row::attempts_from_json(attempts.as_deref()),
        timer: read_timer(row)?,
        is_expired: row.try_get(16).map_err(store_error)?,
    })
}

fn read_timer(row: &SqliteRow) -> Result<Option<Timer>, StoreError> {
    let kind: Option<String> = row.try_get(12).map_err(store_error)?;
    let key: Option<String> = row.try_get(13).map_err(store_error)?;
    let name: Option<String> = row.try_get(14).map_err(store_error)?;
    let generation: Option<i64> = row.try_get(15).map_err(store_error)?;
    let (Some(kind), Some(key), Some(name)) = (kind, key, name) else {
        return Ok(None);
    };
    Ok(Some(Timer {
        owner: InstanceId {
            kind: kind.into(),
            key: key.into(),
        },
        name,
        generation: generation.unwrap_or_default().cast_unsigned(),
    }))
}

fn add<'t, T>(arguments: &mut SqliteArguments, value: T) -> Result<(), StoreError>
where
    T: sqlx::Encode<'t, sqlx::Sqlite> + sqlx::Type<sqlx::Sqlite>,
{
    arguments.add(value).map_err(StoreError::Refused)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_with_much_to_do_starves_no_other_and_gets_what_is_left() {
        let wishes = |wishes: &[(&str, u32)]| -> Vec<(String, u32)> {
            let owned = wishes.iter().map(|(name, n)| ((*name).to_owned(), *n));
            owned.collect()
        };
        let due = wishes(&[("big", 500), ("mid", 60), ("small", 5)]);
        assert_eq!(
            share(due, 100),
            wishes(&[("small", 5), ("mid", 48), ("big", 47)])
        );
        assert_eq!(share(wishes(&[("a", 9), ("b", 9)]), 1).len(), 1);
        assert_eq!(share(Vec::new(), 10), Vec::new());
    }
}
