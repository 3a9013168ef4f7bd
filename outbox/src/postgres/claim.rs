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
    timer_generation, expired, mark \
    from sagabus.claim_v1($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)";

/// Claims that begin where the one before them ended, one after the other, until one looks at
/// everything again: for what others released meanwhile, or committed late.
const MARKED_MAX: u32 = 16;

/// How far the claims of each kind went at destinations that had more than was wanted. Only a hint:
/// what is not found behind a mark is looked for from the front, in the same call.
#[derive(Debug, Default)]
pub(super) struct Marks(Mutex<HashMap<String, Mark>>);

#[derive(Clone, Debug, Default)]
struct Mark {
    /// By destination.
    at: HashMap<String, i64>,
    used: u32,
}

impl Marks {
    fn take(&self, whose: &str) -> Mark {
        let mark = self.lock().remove(whose);
        mark.filter(|mark| mark.used < MARKED_MAX)
            .unwrap_or_default()
    }

    fn put(&self, whose: String, mark: Mark) {
        self.lock().insert(whose, mark);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Mark>> {
        // A mark is whole after every insert.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Rows wanted of one destination or more.
#[derive(Clone, Debug)]
enum Wanted {
    /// Of endpoints, each with its number.
    Endpoints(Vec<(String, u32)>),
    /// Of whatever a transport has, of some destinations fewer.
    Transport {
        prefix: String,
        limit: u32,
        each: u32,
        bounds: HashMap<String, u32>,
    },
}

impl Wanted {
    fn of(from: &ClaimFrom) -> Self {
        match from {
            ClaimFrom::Endpoints(wanted) => {
                let wanted = wanted.iter().filter(|(_, limit)| *limit > 0);
                let named =
                    |(name, limit): &(EndpointName, u32)| (row::endpoint_text(name), *limit);
                Self::Endpoints(wanted.map(named).collect())
            }
            ClaimFrom::Transport {
                name,
                limit,
                per_address,
                bounds,
            } => Self::Transport {
                prefix: name.prefix(),
                limit: *limit,
                each: *per_address,
                bounds: bounds.iter().cloned().collect(),
            },
        }
    }

    /// By this its marks are kept: what is claimed together goes on together.
    fn whose(&self) -> String {
        match self {
            Self::Endpoints(wanted) => {
                let names: Vec<&str> = wanted.iter().map(|(name, _)| name.as_str()).collect();
                names.concat()
            }
            Self::Transport { prefix, .. } => prefix.clone(),
        }
    }

    /// The number of rows wanted of one destination, by itself.
    fn most(&self, destination: &str) -> u32 {
        match self {
            Self::Endpoints(wanted) => {
                let limit = wanted.iter().find(|(name, _)| name == destination);
                limit.map_or(0, |(_, limit)| *limit)
            }
            Self::Transport { each, bounds, .. } => {
                let bound = bounds.get(destination);
                bound.map_or(*each, |bound| *bound.min(each))
            }
        }
    }

    fn total(&self) -> u32 {
        match self {
            Self::Endpoints(wanted) => wanted.iter().map(|(_, limit)| limit).sum(),
            Self::Transport { limit, each, .. } => *limit * (*each).min(1),
        }
    }

    /// The least number of rows of a destination which says that it may have more.
    fn full(&self) -> u32 {
        match self {
            Self::Endpoints(wanted) => {
                let limits = wanted.iter().map(|(_, limit)| *limit);
                limits.min().unwrap_or_default()
            }
            Self::Transport { limit, each, .. } => *limit.min(each),
        }
    }

    /// What is still wanted of destinations that were not looked at from the front.
    fn rest(mut self, found: &Found, marked: &HashMap<String, i64>) -> Self {
        let counts = found.counts.iter();
        let left =
            counts.map(|(name, count)| (name.clone(), self.most(name).saturating_sub(*count)));
        let left: Vec<_> = left.collect();
        match &mut self {
            Self::Endpoints(wanted) => {
                wanted.retain(|(name, _)| marked.contains_key(name));
                for (name, limit) in wanted.iter_mut() {
                    *limit -= found.of(name).min(*limit);
                }
                wanted.retain(|(_, limit)| *limit > 0);
            }
            Self::Transport { limit, bounds, .. } => {
                bounds.extend(left);
                *limit -= found.total().min(*limit);
            }
        }
        self
    }
}

/// What a claim found.
#[derive(Debug, Default)]
struct Found {
    rows: Vec<PgRow>,
    /// By destination.
    counts: HashMap<String, u32>,
    /// How far it went where there may be more.
    marks: HashMap<String, i64>,
}

impl Found {
    fn of(&self, destination: &str) -> u32 {
        self.counts.get(destination).copied().unwrap_or_default()
    }

    fn total(&self) -> u32 {
        u32::try_from(self.rows.len()).unwrap_or(u32::MAX)
    }
}

/// Claims rows whose time has come, from where the claim before this one ended.
pub(super) async fn claim(store: &PgStore, claim: &Claim) -> Result<Vec<ClaimedRow>, StoreError> {
    let wanted = Wanted::of(&claim.from);
    let (whose, total) = (wanted.whose(), wanted.total());
    let before = store.marks().take(&whose);
    let mut found = from(store, claim, &wanted, &before.at).await?;
    let mut marks = std::mem::take(&mut found.marks);
    let is_short = |name: &String| {
        let is_over = matches!(wanted, Wanted::Transport { .. }) && found.total() >= total;
        !is_over && found.of(name) < wanted.most(name)
    };
    marks.retain(|name, _| !is_short(name));
    if before.at.keys().any(is_short) {
        let rest = wanted.clone().rest(&found, &before.at);
        match from(store, claim, &rest, &HashMap::new()).await {
            Ok(more) => found.rows.extend(more.rows),
            Err(error) if found.rows.is_empty() => return Err(error),
            Err(_) => {} // The next claim meets it; what is claimed is not given away for it.
        }
    }
    if !marks.is_empty() {
        let used = before.used + 1;
        store.marks().put(whose, Mark { at: marks, used });
    }
    let rows = found.rows.iter();
    rows.map(|row| read(row).map_err(commit_error)).collect()
}

async fn from(
    store: &PgStore,
    claim: &Claim,
    wanted: &Wanted,
    marks: &HashMap<String, i64>,
) -> Result<Found, StoreError> {
    let (total, full) = (wanted.total(), wanted.full());
    if total == 0 {
        return Ok(Found::default());
    }
    // Of rows that became available in one moment some may be left.
    let since = |name: &String| marks.get(name).map(|at| at - 1);
    let query = sqlx::query(CLAIM);
    let query = match wanted {
        Wanted::Endpoints(wanted) => query
            .bind(None::<&str>)
            .bind(None::<Vec<String>>)
            .bind(None::<Vec<i32>>)
            .bind(None::<i32>)
            .bind(wanted.iter().map(|one| one.0.clone()).collect::<Vec<_>>())
            .bind(wanted.iter().map(|one| count(one.1)).collect::<Vec<_>>())
            .bind(wanted.iter().map(|one| since(&one.0)).collect::<Vec<_>>()),
        Wanted::Transport {
            prefix,
            each,
            bounds,
            ..
        } => query
            .bind(prefix.clone())
            .bind(bounds.keys().cloned().collect::<Vec<_>>())
            .bind(bounds.values().copied().map(count).collect::<Vec<_>>())
            .bind(count(*each))
            .bind(marks.keys().cloned().collect::<Vec<_>>())
            .bind(None::<Vec<i32>>)
            .bind(marks.keys().map(since).collect::<Vec<_>>()),
    };
    let query = query
        .bind(count(total))
        .bind(count(full))
        .bind(claim.scan == Scan::Hot)
        .bind(micros(claim.lease));
    sort(fetch(store, query).await?).map_err(commit_error)
}

/// Tells rows from marks.
fn sort(answer: Vec<PgRow>) -> Result<Found, sqlx::Error> {
    let mut found = Found::default();
    for row in answer {
        let destination: &str = row.try_get(2)?;
        if let Some(mark) = row.try_get(17)? {
            found.marks.insert(destination.to_owned(), mark);
            continue;
        }
        match found.counts.get_mut(destination) {
            Some(count) => *count += 1,
            None => {
                found.counts.insert(destination.to_owned(), 1);
            }
        }
        found.rows.push(row);
    }
    Ok(found)
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
