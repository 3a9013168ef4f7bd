//! A host introduces itself and learns who takes what.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use sagabus_core::endpoint::{EndpointId, EndpointName, Order};
use sagabus_core::store::{Attached, EndpointSpec, Registration, Routes, Target};
use sagabus_core::{Lifecycle, StoreError, StoreId, Timestamp};
use sqlx::postgres::PgConnection;
use sqlx::{Connection, Row};
use tokio::time::timeout;
use uuid::Uuid;

use super::connections::Taken;
use super::error::{commit_error, store_error};
use super::store::PgStore;
use super::{listener, migrate};

const ATTACH: &str = "select has_changed, command, owner, claimant \
    from sagabus.attach_v1($1, $2, $3, $4, $5, $6, $7, $8)";

const ADOPT: &str = "select sagabus.adopt_v1($1)";

/// Parked commands that go to their owner in one call.
const ADOPTED_MAX: i32 = 1000;

const NOW: &str = "select sagabus.now_micros()";

const HAS_SETTLED: &str = "select sagabus.has_settled_v1()";

/// One statement, so that version and rows are of one moment.
const ROUTES: &str = "select s.id, s.routes_version, \
    array(select e.id from sagabus.endpoint e order by e.id), \
    array(select e.name from sagabus.endpoint e order by e.id), \
    array(select e.per_key from sagabus.endpoint e order by e.id), \
    array(select b.message_type from sagabus.subscription b \
        join sagabus.endpoint e on e.id = b.endpoint_id order by b.message_type, e.name), \
    array(select b.endpoint_id from sagabus.subscription b \
        join sagabus.endpoint e on e.id = b.endpoint_id order by b.message_type, e.name) \
    from sagabus.store s";

/// How often it is looked whether older calls have ended.
const SETTLED_POLL: Duration = Duration::from_millis(5);

/// How long is waited for them: longer than any call of ours. Only a stranger's transaction with
/// messages of ours lasts longer; it was placed by the routes of its time.
const SETTLED_MAX: Duration = Duration::from_secs(2);

/// Checks the schema, registers, reads the routes and starts to listen.
pub(super) async fn attach(
    store: &PgStore,
    registration: &Registration,
    lifecycle: &Lifecycle,
) -> Result<Attached, StoreError> {
    let mut taken = sound_connection(store).await?;
    let introducing = async {
        migrate::check(store, &mut taken).await?;
        if register(&mut taken, registration).await? {
            await_older_calls(&mut taken).await?;
        }
        adopt(&mut taken).await?;
        let (id, routes) = read_routes(&mut taken).await.map_err(store_error)?;
        let now = sqlx::query_scalar(NOW).fetch_one(&mut *taken).await;
        Ok((id, routes, now.map_err(store_error)?))
    };
    let limit = store.config().call_timeout;
    let (id, routes, now) = timeout(limit, introducing).await.unwrap_or_else(|_| {
        let late = format!("{}: no answer within {limit:?}", store.place());
        Err(StoreError::Unavailable(late.into()))
    })?;
    taken.give_back();
    lifecycle.spawn(listener::run(store.clone(), lifecycle.clone()));
    // Hosts that know older routes learn of the new ones with their next commit.
    let endpoints = registration
        .endpoints
        .iter()
        .filter_map(|spec| routes.endpoints.get(&spec.name))
        .map(|target| (target.name.clone(), target.id))
        .collect();
    Ok(Attached {
        store: id,
        endpoints,
        routes,
        wakeups: store.wakeups().subscribe(),
        now: Timestamp::from_micros(now),
    })
}

/// Takes a connection that answers. Those that rest since the store was made may have lost their
/// server, and a host that starts is told so by nobody else.
async fn sound_connection(store: &PgStore) -> Result<Taken, StoreError> {
    let mut taken = store.take().await?;
    if let Some(Ok(())) = store.answer(taken.ping()).await {
        return Ok(taken);
    }
    taken.give_up();
    store.take().await
}

/// Reads the routes as they are now.
pub(super) async fn routes(store: &PgStore) -> Result<Routes, StoreError> {
    let mut taken = store.take().await?;
    let answer = store.answer(read_routes(&mut taken)).await;
    taken.finish(answer, store_error).map(|(_, routes)| routes)
}

/// Writes host, endpoints and subscriptions; says whether the routes changed.
async fn register(
    connection: &mut PgConnection,
    registration: &Registration,
) -> Result<bool, StoreError> {
    let definitions = registration.definitions.to_string().into_bytes();
    let specs = &registration.endpoints;
    let names: Vec<&str> = specs.iter().map(|spec| spec.name.as_str()).collect();
    let per_key: Vec<bool> = specs
        .iter()
        .map(|spec| spec.order == Order::PerKey)
        .collect();
    let taken = |spec: &EndpointSpec| spec.subscriptions.len();
    let count = specs.iter().map(taken).sum();
    let (mut endpoints, mut types, mut kinds) = (
        Vec::with_capacity(count),
        Vec::with_capacity(count),
        Vec::with_capacity(count),
    );
    for spec in specs {
        for subscription in &spec.subscriptions {
            endpoints.push(spec.name.as_str());
            types.push(subscription.message_type.as_ref());
            kinds.push(subscription.kind.as_str());
        }
    }
    let answer = sqlx::query(ATTACH)
        .bind(registration.host.as_uuid())
        .bind(&registration.host_name)
        .bind(definitions)
        .bind(names)
        .bind(per_key)
        .bind(endpoints)
        .bind(types)
        .bind(kinds)
        .fetch_one(connection)
        .await
        .map_err(commit_error)?;
    let text = |index| -> Result<Option<String>, StoreError> {
        answer.try_get(index).map_err(commit_error)
    };
    if let (Some(command), Some(owner), Some(claimant)) = (text(1)?, text(2)?, text(3)?) {
        return Err(StoreError::Setup(format!(
            "command `{command}` belongs to endpoint `{owner}` in this database, and endpoint \
             `{claimant}` wants it too; remove one handler, make it an event, or delete the \
             subscription of an endpoint that is no more [SB0213]"
        )));
    }
    answer.try_get(0).map_err(commit_error)
}

/// Hands commands that nobody took to the endpoints that own them now.
async fn adopt(connection: &mut PgConnection) -> Result<(), StoreError> {
    loop {
        let adopting = sqlx::query_scalar(ADOPT).bind(ADOPTED_MAX);
        let adopted: i32 = adopting
            .fetch_one(&mut *connection)
            .await
            .map_err(store_error)?;
        if adopted > 0 {
            tracing::info!(adopted, "commands that nobody took go to their owners");
        }
        if adopted < ADOPTED_MAX {
            return Ok(());
        }
    }
}

/// Waits until every call that may not know of the new routes has ended.
///
/// It asks again and again instead of standing in line, where every later call would wait for it.
async fn await_older_calls(connection: &mut PgConnection) -> Result<(), StoreError> {
    let deadline = tokio::time::Instant::now() + SETTLED_MAX;
    loop {
        let has_settled: bool = sqlx::query_scalar(HAS_SETTLED)
            .fetch_one(&mut *connection)
            .await
            .map_err(commit_error)?;
        if has_settled {
            return Ok(());
        }
        if tokio::time::Instant::now() > deadline {
            tracing::warn!(
                "a transaction that placed messages by older routes is still open; its messages \
                 do not reach the new subscriptions"
            );
            return Ok(());
        }
        tokio::time::sleep(SETTLED_POLL).await;
    }
}

pub(super) async fn read_routes(
    connection: &mut PgConnection,
) -> Result<(StoreId, Routes), sqlx::Error> {
    let row = sqlx::query(ROUTES).fetch_one(connection).await?;
    let ids: Vec<i32> = row.try_get(2)?;
    let names: Vec<String> = row.try_get(3)?;
    let per_key: Vec<bool> = row.try_get(4)?;
    let types: Vec<String> = row.try_get(5)?;
    let takers: Vec<i32> = row.try_get(6)?;
    let mut targets = HashMap::new();
    for ((id, name), per_key) in ids.into_iter().zip(&names).zip(per_key) {
        let name = EndpointName::new(name).map_err(|error| sqlx::Error::Decode(error.into()))?;
        let order = if per_key {
            Order::PerKey
        } else {
            Order::Unordered
        };
        let target = Target {
            id: EndpointId(id),
            name,
            order,
        };
        targets.insert(id, target);
    }
    let mut subscribers: BTreeMap<String, Vec<Target>> = BTreeMap::new();
    for (message_type, taker) in types.into_iter().zip(takers) {
        let known = subscribers.entry(message_type).or_default();
        known.extend(targets.get(&taker).cloned());
    }
    let routes = Routes {
        version: row.try_get(1)?,
        subscribers: subscribers
            .into_iter()
            .map(|(message_type, targets)| (message_type, Arc::from(targets)))
            .collect(),
        endpoints: targets
            .into_values()
            .map(|target| (target.name.clone(), target))
            .collect(),
    };
    Ok((StoreId::from_uuid(row.try_get::<Uuid, _>(0)?), routes))
}
