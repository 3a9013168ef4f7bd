//! Due rows, for an endpoint's host or for a transport.

use bytes::Bytes;
use sagabus_core::clock::micros;
use sagabus_core::envelope::{Envelope, Timer};
use sagabus_core::store::{Claim, ClaimFrom, ClaimedRow, Scan};
use sagabus_core::unit_of_work::RowKey;
use sagabus_core::{InstanceId, MessageId, StoreError};
use sqlx::Row;
use sqlx::postgres::{PgConnection, PgRow};

use super::error::commit_error;
use super::store::PgStore;
use crate::row;

const CLAIM: &str = "select id, epoch, destination, message_id, message_type, key, headers, body, \
    starts, failures, solo_starts, attempts, timer_kind, timer_key, timer_name, \
    timer_generation, expired from sagabus.claim_v1($1, $2, null, $3, $4)";

const CLAIM_TRANSPORT: &str = "select id, epoch, destination, message_id, message_type, key, \
    headers, body, starts, failures, solo_starts, attempts, timer_kind, timer_key, timer_name, \
    timer_generation, expired from sagabus.claim_transport_v2($1, $2, $3, $4, $5, $6)";

/// Claims rows whose time has come.
pub(super) async fn claim(store: &PgStore, claim: &Claim) -> Result<Vec<ClaimedRow>, StoreError> {
    let is_empty = match &claim.from {
        ClaimFrom::Endpoints(wanted) => wanted.iter().all(|(_, limit)| *limit == 0),
        ClaimFrom::Transport {
            limit, per_address, ..
        } => *limit == 0 || *per_address == 0,
    };
    if is_empty {
        return Ok(Vec::new());
    }
    let mut taken = store.take().await?;
    let answer = store.answer(call(&mut taken, claim)).await;
    let rows = taken.finish(answer, commit_error)?;
    rows.iter()
        .map(|row| read(row).map_err(commit_error))
        .collect()
}

async fn call(connection: &mut PgConnection, claim: &Claim) -> Result<Vec<PgRow>, sqlx::Error> {
    let is_hot = claim.scan == Scan::Hot;
    let query = match &claim.from {
        ClaimFrom::Endpoints(wanted) => {
            let names = wanted.iter().map(|(name, _)| row::endpoint_text(name));
            let limits = wanted.iter().map(|(_, limit)| count(*limit));
            sqlx::query(CLAIM)
                .bind(names.collect::<Vec<_>>())
                .bind(limits.collect::<Vec<_>>())
        }
        ClaimFrom::Transport {
            name,
            limit,
            per_address,
            except,
        } => sqlx::query(CLAIM_TRANSPORT)
            .bind(name.prefix())
            .bind(count(*limit))
            .bind(count(*per_address))
            .bind(except),
    };
    query
        .bind(is_hot)
        .bind(micros(claim.lease))
        .fetch_all(connection)
        .await
}

fn read(found: &PgRow) -> Result<ClaimedRow, sqlx::Error> {
    let timer = match (
        found.try_get::<Option<String>, _>(12)?,
        found.try_get::<Option<String>, _>(13)?,
        found.try_get::<Option<String>, _>(14)?,
    ) {
        (Some(kind), Some(key), Some(name)) => {
            let generation: Option<i64> = found.try_get(15)?;
            Some(Timer {
                owner: InstanceId {
                    kind: kind.into(),
                    key: key.into(),
                },
                name,
                generation: generation
                    .and_then(|number| u64::try_from(number).ok())
                    .unwrap_or_default(),
            })
        }
        _ => None,
    };
    Ok(ClaimedRow {
        row: RowKey {
            id: found.try_get(0)?,
            epoch: found.try_get(1)?,
        },
        destination: found.try_get(2)?,
        envelope: Envelope {
            id: MessageId::from_uuid(found.try_get(3)?),
            message_type: found.try_get::<String, _>(4)?.into(),
            headers: row::headers_from_json(found.try_get(6)?),
            body: Bytes::from(found.try_get::<Vec<u8>, _>(7)?),
        },
        key: found.try_get(5)?,
        starts: found.try_get(8)?,
        failures: found.try_get(9)?,
        solo_starts: found.try_get(10)?,
        attempts: row::attempts_from_json(found.try_get(11)?),
        timer,
        is_expired: found.try_get(16)?,
    })
}

fn count(number: u32) -> i32 {
    i32::try_from(number).unwrap_or(i32::MAX)
}
