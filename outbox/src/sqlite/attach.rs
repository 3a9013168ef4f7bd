//! Registers a host with its endpoints and subscriptions, and watches for other processes' commits.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use sagabus_core::endpoint::{EndpointId, EndpointName, Order};
use sagabus_core::message::Kind;
use sagabus_core::store::{Attached, EndpointSpec, Registration, Routes, Target};
use sagabus_core::{Lifecycle, StoreError, StoreId};
use sqlx::sqlite::{SqliteArguments, SqliteConnection, SqliteRow};
use sqlx::{Arguments, Row};
use tokio::time::MissedTickBehavior;

use super::clock::{now, read_now};
use super::error::store_error;
use super::migrate;
use super::store::SqliteStore;
use super::writer::Write;
use crate::row;

const PUT_HOST: &str = concat!(
    "insert into sagabus_host (id, name, definitions, started_at, heartbeat_at) ",
    "values ($1, $2, $3, ",
    now!(),
    ", ",
    now!(),
    ") on conflict (id) do update set name = excluded.name, definitions = excluded.definitions, ",
    "heartbeat_at = excluded.heartbeat_at, stopped_at = null"
);

const PUT_ENDPOINT: &str = "insert into sagabus_endpoint (name, per_key) values ($1, $2) \
    on conflict (name) do update set per_key = excluded.per_key where per_key <> excluded.per_key";

const PUT_SUBSCRIPTION: &str = "insert into sagabus_subscription (message_type, endpoint_id, kind) \
    select $1, id, $2 from sagabus_endpoint where name = $3 \
    on conflict (message_type, endpoint_id) do update set kind = excluded.kind \
    where kind <> excluded.kind";

const FIND_OTHER_OWNER: &str = "select e.name from sagabus_subscription s \
    join sagabus_endpoint e on e.id = s.endpoint_id \
    where s.message_type = $1 and s.kind = 'command' and e.name <> $2 order by e.name";

const RAISE_ROUTES: &str = "update sagabus_store set routes_version = routes_version + 1";

const FIND_STORE: &str = "select id, routes_version from sagabus_store";

const FIND_ENDPOINTS: &str = "select id, name, per_key from sagabus_endpoint order by name";

const FIND_SUBSCRIPTIONS: &str = "select s.message_type, s.endpoint_id \
    from sagabus_subscription s join sagabus_endpoint e on e.id = s.endpoint_id \
    order by s.message_type, e.name";

/// Hands commands that nobody took to the endpoints that own them now. What is not due before
/// later stands in no line, as always.
const ADOPT: &str = concat!(
    "update sagabus_outbox as o set destination = '@' || a.name, parked = null, ",
    "per_key = a.per_key = 1 and o.key is not null and coalesce(o.due_at, 0) <= ",
    now!(),
    ", available_at = max(",
    now!(),
    ", coalesce(o.due_at, 0)) from (select n.id, e.name, e.per_key ",
    "from sagabus_subscription b join sagabus_endpoint e on e.id = b.endpoint_id ",
    "join sagabus_outbox n on n.destination = '?' || b.message_type and n.parked = 'no_owner' ",
    "where b.kind = 'command' order by n.id limit $1) as a where o.id = a.id"
);

/// Parked commands that go to their owner in one transaction.
const ADOPTED_MAX: u64 = 1000;

/// Changes whenever somebody else commits: another process, or another connection of this one.
const DATA_VERSION: &str = "pragma data_version";

/// Registers in one transaction, and starts the watch.
pub(super) async fn attach(
    store: &SqliteStore,
    registration: &Registration,
    lifecycle: &Lifecycle,
) -> Result<Attached, StoreError> {
    let mut write = store.write().await?;
    write
        .step("begin immediate", SqliteArguments::default())
        .await?;
    migrate::check(store, &mut write).await?;
    put_host(&mut write, registration).await?;
    let mut has_changed = false;
    for endpoint in &registration.endpoints {
        has_changed |= put_endpoint(&mut write, endpoint).await?;
    }
    if has_changed {
        write.step(RAISE_ROUTES, SqliteArguments::default()).await?;
    }
    let store_id = find_store(&mut write).await?;
    let routes = routes(write.connection().await?).await?;
    write.commit().await?;
    adopt(&mut write).await?;
    // Before anybody learns that we are here, so that no later commit is missed.
    let seen = data_version(&mut write).await;
    drop(write);
    let wakeups = store.wakeups().subscribe();
    lifecycle.spawn(watch(store.clone(), lifecycle.clone(), seen));
    Ok(Attached {
        store: store_id,
        endpoints: own_endpoints(registration, &routes),
        routes,
        wakeups,
        now: read_now(store).await?,
    })
}

/// Each batch commits by itself, so that many leave the file to others in between.
async fn adopt(write: &mut Write) -> Result<(), StoreError> {
    loop {
        let mut arguments = SqliteArguments::default();
        add(
            &mut arguments,
            i64::try_from(ADOPTED_MAX).unwrap_or(i64::MAX),
        )?;
        let replies = write.step(ADOPT, arguments).await?;
        let adopted: u64 = replies.iter().map(|reply| reply.changes).sum();
        if adopted > 0 {
            tracing::info!(adopted, "commands that nobody took go to their owners");
        }
        if adopted < ADOPTED_MAX {
            return Ok(());
        }
    }
}

/// Reads who takes what, inside the open transaction.
pub(super) async fn routes(connection: &mut SqliteConnection) -> Result<Routes, StoreError> {
    let version = rows(connection, FIND_STORE).await?;
    let version = version
        .first()
        .map(|row| row.try_get(1).map_err(store_error));
    let mut targets = HashMap::new();
    for row in rows(connection, FIND_ENDPOINTS).await? {
        let target = read_target(&row)?;
        targets.insert(target.id, target);
    }
    let mut subscribers: BTreeMap<String, Vec<Target>> = BTreeMap::new();
    for row in rows(connection, FIND_SUBSCRIPTIONS).await? {
        let message_type = row.try_get(0).map_err(store_error)?;
        let id = EndpointId(row.try_get(1).map_err(store_error)?);
        let target = targets.get(&id).cloned();
        subscribers.entry(message_type).or_default().extend(target);
    }
    let by_type = subscribers.into_iter();
    let by_name = targets.into_values();
    Ok(Routes {
        version: version.transpose()?.unwrap_or_default(),
        subscribers: by_type
            .map(|(name, targets)| (name, Arc::from(targets)))
            .collect(),
        endpoints: by_name
            .map(|target| (target.name.clone(), target))
            .collect(),
    })
}

/// Bumps the wake-ups when somebody else has committed, until the host drains.
///
/// It asks on the connection that writes, on which only *other* connections' commits count; while
/// that one is busy, whoever has it makes rows available or claims them anyway.
async fn watch(store: SqliteStore, lifecycle: Lifecycle, mut seen: Option<i64>) {
    let mut ticks = tokio::time::interval(store.config().wakeup_interval);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = lifecycle.draining() => return,
            _ = ticks.tick() => {}
        }
        let Some(mut write) = store.try_write() else {
            continue;
        };
        let version = data_version(&mut write).await;
        drop(write);
        if version != seen {
            store.nudge();
        }
        seen = version;
    }
}

/// Reads the version; none where it cannot be read, which counts as a change once.
async fn data_version(write: &mut Write) -> Option<i64> {
    let connection = write.connection().await.ok()?;
    sqlx::query_scalar(DATA_VERSION)
        .fetch_one(connection)
        .await
        .ok()
}

async fn put_host(write: &mut Write, registration: &Registration) -> Result<(), StoreError> {
    let definitions =
        serde_json::to_vec(&registration.definitions).expect("a JSON value is always JSON");
    let mut arguments = SqliteArguments::default();
    add(&mut arguments, registration.host.as_uuid())?;
    add(&mut arguments, registration.host_name.as_str())?;
    add(&mut arguments, definitions)?;
    write.step(PUT_HOST, arguments).await.map(|_| ())
}

/// Registers an endpoint, and says whether routes changed by it.
async fn put_endpoint(write: &mut Write, endpoint: &EndpointSpec) -> Result<bool, StoreError> {
    let mut arguments = SqliteArguments::default();
    add(&mut arguments, endpoint.name.as_str())?;
    add(&mut arguments, endpoint.order == Order::PerKey)?;
    let mut has_changed = has_written(write, PUT_ENDPOINT, arguments).await?;
    for subscription in &endpoint.subscriptions {
        let message_type = subscription.message_type.as_ref();
        if subscription.kind == Kind::Command {
            refuse_second_owner(write, message_type, &endpoint.name).await?;
        }
        let mut arguments = SqliteArguments::default();
        add(&mut arguments, message_type)?;
        add(&mut arguments, subscription.kind.as_str())?;
        add(&mut arguments, endpoint.name.as_str())?;
        has_changed |= has_written(write, PUT_SUBSCRIPTION, arguments).await?;
    }
    Ok(has_changed)
}

/// A command has one owner; a second one must not even be registered, or every sender would see two.
async fn refuse_second_owner(
    write: &mut Write,
    message_type: &str,
    endpoint: &EndpointName,
) -> Result<(), StoreError> {
    let mut arguments = SqliteArguments::default();
    add(&mut arguments, message_type)?;
    add(&mut arguments, endpoint.as_str())?;
    let replies = write.step(FIND_OTHER_OWNER, arguments).await?;
    let Some(row) = replies.first().and_then(|reply| reply.rows.first()) else {
        return Ok(());
    };
    let owner: String = row.try_get(0).map_err(store_error)?;
    write.rollback().await;
    Err(StoreError::Setup(format!(
        "command `{message_type}` belongs to endpoint `{owner}` in this database, and endpoint \
         `{endpoint}` wants it too; remove one handler, make it an event, or delete the \
         subscription of an endpoint that is no more [SB0213]"
    )))
}

async fn find_store(write: &mut Write) -> Result<StoreId, StoreError> {
    let rows = rows(write.connection().await?, FIND_STORE).await?;
    let bytes = rows
        .first()
        .map(|row| row.try_get::<Vec<u8>, _>(0).map_err(store_error));
    let bytes = bytes.transpose()?.unwrap_or_default();
    Ok(StoreId::from_uuid(row::uuid_from_bytes(&bytes)))
}

fn own_endpoints(
    registration: &Registration,
    routes: &Routes,
) -> HashMap<EndpointName, EndpointId> {
    let specs = registration.endpoints.iter();
    let targets = specs.filter_map(|spec| routes.endpoints.get(&spec.name));
    targets
        .map(|target| (target.name.clone(), target.id))
        .collect()
}

fn read_target(row: &SqliteRow) -> Result<Target, StoreError> {
    let name: String = row.try_get(1).map_err(store_error)?;
    let is_ordered: bool = row.try_get(2).map_err(store_error)?;
    Ok(Target {
        id: EndpointId(row.try_get(0).map_err(store_error)?),
        name: EndpointName::new(&name).map_err(|error| StoreError::Other(error.into()))?,
        order: match is_ordered {
            true => Order::PerKey,
            false => Order::Unordered,
        },
    })
}

async fn rows(
    connection: &mut SqliteConnection,
    sql: &'static str,
) -> Result<Vec<SqliteRow>, StoreError> {
    let rows = sqlx::query(sql).fetch_all(connection).await;
    rows.map_err(store_error)
}

async fn has_written(
    write: &mut Write,
    sql: &'static str,
    arguments: SqliteArguments,
) -> Result<bool, StoreError> {
    let replies = write.step(sql, arguments).await?;
    Ok(replies.iter().any(|reply| reply.changes > 0))
}

fn add<'t, T>(arguments: &mut SqliteArguments, value: T) -> Result<(), StoreError>
where
    T: sqlx::Encode<'t, sqlx::Sqlite> + sqlx::Type<sqlx::Sqlite>,
{
    arguments.add(value).map_err(StoreError::Refused)
}
