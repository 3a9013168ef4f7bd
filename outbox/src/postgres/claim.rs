//! Due rows, for an endpoint's host or for a transport.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use sagabus_core::clock::micros;
use sagabus_core::envelope::{Envelope, Timer};
use sagabus_core::store::{Claim, ClaimFrom, ClaimedRow, Scan};
use sagabus_core::unit_of_work::RowKey;
use sagabus_core::{EndpointName, InstanceId, MessageId, StoreError};
use sqlx::postgres::{PgArguments, PgRow};
use sqlx::query::Query;
use sqlx::{Postgres, Row};

use super::error::commit_error;
use super::store::PgStore;
use crate::row;

const CLAIM: &str = "select id, epoch, destination, message_id, message_type, key, headers, body, \
    starts, failures, solo_starts, attempts, timer_kind, timer_key, timer_name, \
    timer_generation, expired, mark from sagabus.claim_v2($1, $2, $3, $4, $5)";

const CLAIM_TRANSPORT: &str = "select id, epoch, destination, message_id, message_type, key, \
    headers, body, starts, failures, solo_starts, attempts, timer_kind, timer_key, timer_name, \
    timer_generation, expired from sagabus.claim_transport_v2($1, $2, $3, $4, $5, $6)";

/// Claims that begin where the one before them ended, one after the other, until one looks at
/// everything again: for what others released meanwhile, or committed late.
const MARKED_MAX: u32 = 16;

/// How far the claims for one endpoint went, while it had more than was wanted. Only a hint: what is
/// not found behind it is looked for from the front, in the same call.
#[derive(Debug, Default)]
pub(super) struct Marks(Mutex<HashMap<String, Mark>>);

#[derive(Clone, Copy, Debug)]
struct Mark {
    at: i64,
    used: u32,
}

impl Marks {
    fn take(&self, destination: &str) -> Option<Mark> {
        let mark = self.lock().remove(destination);
        mark.filter(|mark| mark.used < MARKED_MAX)
    }

    fn put(&self, destination: String, mark: Mark) {
        self.lock().insert(destination, mark);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Mark>> {
        // A mark is whole after every insert.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Claims rows whose time has come.
pub(super) async fn claim(store: &PgStore, claim: &Claim) -> Result<Vec<ClaimedRow>, StoreError> {
    let rows = match &claim.from {
        ClaimFrom::Endpoints(wanted) => claim_endpoints(store, claim, wanted).await?,
        ClaimFrom::Transport {
            name,
            limit,
            per_address,
            except,
        } => {
            if *limit == 0 || *per_address == 0 {
                return Ok(Vec::new());
            }
            let query = sqlx::query(CLAIM_TRANSPORT)
                .bind(name.prefix())
                .bind(count(*limit))
                .bind(count(*per_address))
                .bind(except)
                .bind(claim.scan == Scan::Hot)
                .bind(micros(claim.lease));
            fetch(store, query).await?
        }
    };
    rows.iter()
        .map(|row| read(row).map_err(commit_error))
        .collect()
}

/// Claims rows of endpoints: of a single one from where the claim before this one ended.
async fn claim_endpoints(
    store: &PgStore,
    claim: &Claim,
    wanted: &[(EndpointName, u32)],
) -> Result<Vec<PgRow>, StoreError> {
    let [(name, limit)] = wanted else {
        return from(store, claim, wanted, None).await;
    };
    let (destination, limit) = (row::endpoint_text(name), *limit);
    let mark = store.marks().take(&destination);
    let mut rows = from(store, claim, wanted, mark).await?;
    let found = u32::try_from(rows.len()).unwrap_or(u32::MAX);
    if found < limit && mark.is_some() {
        let rest = [(name.clone(), limit - found)];
        match from(store, claim, &rest, None).await {
            Ok(more) => rows.extend(more),
            Err(error) if rows.is_empty() => return Err(error),
            Err(_) => {} // The next claim meets it; what is claimed is not given away for it.
        }
    } else if let (true, Some(last)) = (found == limit, rows.last()) {
        let at = last.try_get(17).map_err(commit_error)?;
        let used = mark.map_or(0, |mark| mark.used + 1);
        store.marks().put(destination, Mark { at, used });
    }
    Ok(rows)
}

async fn from(
    store: &PgStore,
    claim: &Claim,
    wanted: &[(EndpointName, u32)],
    mark: Option<Mark>,
) -> Result<Vec<PgRow>, StoreError> {
    if wanted.iter().all(|(_, limit)| *limit == 0) {
        return Ok(Vec::new());
    }
    let names = wanted.iter().map(|(name, _)| row::endpoint_text(name));
    let limits = wanted.iter().map(|(_, limit)| count(*limit));
    let query = sqlx::query(CLAIM)
        .bind(names.collect::<Vec<_>>())
        .bind(limits.collect::<Vec<_>>())
        // Of rows that became available in one moment some may be left.
        .bind(mark.map(|mark| mark.at - 1))
        .bind(claim.scan == Scan::Hot)
        .bind(micros(claim.lease));
    fetch(store, query).await
}

async fn fetch(
    store: &PgStore,
    query: Query<'_, Postgres, PgArguments>,
) -> Result<Vec<PgRow>, StoreError> {
    let mut taken = store.take().await?;
    let answer = store.answer(query.fetch_all(&mut *taken)).await;
    taken.finish(answer, commit_error)
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
