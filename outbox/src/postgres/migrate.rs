//! Schema and version: numbered migrations that only go forward, and the check at start-up.

use sagabus_core::StoreError;
use sqlx::postgres::PgConnection;
use sqlx::{Connection, Row};

use super::error::commit_error;
use super::store::PgStore;

/// Every migration, in order. Never edited once released: the next one is added.
const MIGRATIONS: &[(i32, &str)] = &[
    (1, include_str!("../../migrations/postgres/0001_tables.sql")),
    (2, include_str!("../../migrations/postgres/0002_commit.sql")),
    (
        3,
        include_str!("../../migrations/postgres/0003_commit_beside.sql"),
    ),
    (
        4,
        include_str!("../../migrations/postgres/0004_commit_less.sql"),
    ),
    (5, include_str!("../../migrations/postgres/0005_load.sql")),
    (6, include_str!("../../migrations/postgres/0006_claim.sql")),
    (7, include_str!("../../migrations/postgres/0007_host.sql")),
    (8, include_str!("../../migrations/postgres/0008_sweep.sql")),
    (
        9,
        include_str!("../../migrations/postgres/0009_operate.sql"),
    ),
];

/// What makes the roles of operators.
pub(super) const GRANTS: &str = include_str!("../../migrations/postgres/grants.sql");

/// The tables and functions that this release calls.
const PARTS: &[&str] = &[
    "adopt_v1",
    "answer_row_v1",
    "attach_v1",
    "audit",
    "behind_v1",
    "cancel_timers_v1",
    "change_schedule_v1",
    "claim_v1",
    "close_dead_letters_v1",
    "commit_one_v1",
    "commit_smooth_v1",
    "commit_v1",
    "dead_letter",
    "edit_dead_letter_v1",
    "endpoint",
    "extend_v1",
    "find_labels_v1",
    "has_settled_v1",
    "history",
    "hold_v1",
    "host",
    "inbox",
    "instance",
    "known_v1",
    "label",
    "label_gone_v1",
    "label_v1",
    "load_v1",
    "moved_v1",
    "now_micros",
    "operation",
    "operation_item",
    "outbox",
    "pull_v1",
    "remove_endpoint_v1",
    "restore_dead_letters_v1",
    "send_one_v1",
    "step_operation_v1",
    "settle_v1",
    "store",
    "subscription",
    "sweep_audit_v1",
    "sweep_dead_letters_v1",
    "sweep_history_v1",
    "sweep_hosts_v1",
    "sweep_inbox_v1",
    "sweep_instances_v1",
    "swept",
    "swept_v1",
];

/// One migration at a time in a database; the number is ours, any would do.
const LOCK: &str = "select pg_advisory_xact_lock(5567012019871100)";

const FIND_PARTS: &str = "select c.relname::text from pg_class c \
    join pg_namespace n on n.oid = c.relnamespace and n.nspname = 'sagabus' \
    where c.relkind in ('r', 'p') \
    union select p.proname::text from pg_proc p \
    join pg_namespace n on n.oid = p.pronamespace and n.nspname = 'sagabus'";

const FIND_SERVER: &str = "select current_setting('server_version_num')::int, \
    pg_is_in_recovery(), current_setting('transaction_read_only') = 'on'";

const FIND_VERSION: &str = "select schema_version from sagabus.store";

/// Returns the SQL of every migration with its number.
pub(super) fn migrations() -> &'static [(i32, &'static str)] {
    MIGRATIONS
}

/// Brings the schema to this release, all in one transaction.
pub(super) async fn migrate(store: &PgStore) -> Result<(), StoreError> {
    let mut taken = store.take().await?;
    // A cancelled or failed migration drops the connection, and the server rolls back.
    let found = {
        let mut tx = taken.begin().await.map_err(commit_error)?;
        sqlx::query(LOCK)
            .execute(&mut *tx)
            .await
            .map_err(commit_error)?;
        let found = find(&mut tx).await?;
        let steps = match &found {
            Found::Nothing => MIGRATIONS,
            Found::Version(version) if *version <= latest() => after(*version),
            _ => return Err(refusal(store, &found)),
        };
        for (_, text) in steps {
            sqlx::raw_sql(*text)
                .execute(&mut *tx)
                .await
                .map_err(|error| migrate_error(store, error))?;
        }
        tx.commit().await.map_err(commit_error)
    };
    taken.give_back();
    found
}

/// Checks that the schema is whole and of this release, and that the database can be written.
pub(super) async fn check(
    store: &PgStore,
    connection: &mut PgConnection,
) -> Result<(), StoreError> {
    match find(connection).await? {
        Found::Version(version) if version == latest() => Ok(()),
        other => Err(refusal(store, &other)),
    }
}

/// What a database has of ours.
enum Found {
    /// A server of this version, which is too old.
    OldServer(i32),
    /// A server that takes no writes.
    ReadOnly,
    /// None of our tables and functions.
    Nothing,
    /// Some of them, without these.
    Part(Vec<&'static str>),
    /// Those of this version.
    Version(i32),
}

async fn find(connection: &mut PgConnection) -> Result<Found, StoreError> {
    let server = sqlx::query(FIND_SERVER)
        .fetch_one(&mut *connection)
        .await
        .map_err(commit_error)?;
    if server.get::<i32, _>(0) < 150_000 {
        return Ok(Found::OldServer(server.get(0)));
    }
    if server.get(1) || server.get(2) {
        return Ok(Found::ReadOnly);
    }
    let parts: Vec<String> = sqlx::query_scalar(FIND_PARTS)
        .fetch_all(&mut *connection)
        .await
        .map_err(commit_error)?;
    if parts.is_empty() {
        return Ok(Found::Nothing);
    }
    let missing = |part: &&&str| !parts.iter().any(|found| found == **part);
    let missing: Vec<&str> = PARTS.iter().filter(missing).copied().collect();
    if missing.contains(&"store") {
        return Ok(Found::Part(missing));
    }
    let version: Option<i32> = sqlx::query_scalar(FIND_VERSION)
        .fetch_optional(&mut *connection)
        .await
        .map_err(commit_error)?;
    match version {
        // An older release has fewer parts, a newer one may have renamed some.
        Some(version) if missing.is_empty() || version != latest() => Ok(Found::Version(version)),
        _ => Ok(Found::Part(missing)),
    }
}

/// Says what is wrong with the database and what to do.
fn refusal(store: &PgStore, found: &Found) -> StoreError {
    let place = store.place();
    let latest = latest();
    StoreError::Setup(match found {
        Found::OldServer(version) => format!(
            "`{place}` runs PostgreSQL {}; sagabus needs 15 or newer [SB0209]",
            version / 10_000
        ),
        Found::ReadOnly => format!(
            "`{place}` takes no writes (a replica, or `default_transaction_read_only` is on); \
             connect to the primary [SB0208]"
        ),
        Found::Nothing => format!(
            "`{place}` has no schema `sagabus`; run `store.migrate()` once, or the statements of \
             `PgStore::migrations()` [SB0204]"
        ),
        Found::Part(missing) => format!(
            "`{place}` has a part of the schema `sagabus` only (without {}); restore it from a \
             backup, or drop the schema and run `store.migrate()` [SB0205]",
            match missing.is_empty() {
                true => "a row in sagabus.store".to_owned(),
                false => missing.join(", "),
            }
        ),
        Found::Version(version) if *version < latest => format!(
            "`{place}` has the schema `sagabus` of version {version} and this release needs \
             {latest}; run `store.migrate()` [SB0206]"
        ),
        Found::Version(version) => format!(
            "`{place}` has the schema `sagabus` of version {version} and this release knows \
             {latest}; run the newer release of the service [SB0207]"
        ),
    })
}

fn migrate_error(store: &PgStore, error: sqlx::Error) -> StoreError {
    match error.as_database_error() {
        Some(database) => StoreError::Setup(format!(
            "`{}` refuses a migration ({}); let this role create the schema `sagabus`, or run the \
             statements of `PgStore::migrations()` as another one [SB0210]",
            store.place(),
            database.message()
        )),
        None => commit_error(error),
    }
}

/// The version of the schema that this release works with.
fn latest() -> i32 {
    MIGRATIONS.last().map_or(0, |(number, _)| *number)
}

/// Returns the migrations that a database of this version lacks.
fn after(version: i32) -> &'static [(i32, &'static str)] {
    let done = MIGRATIONS
        .iter()
        .take_while(|(number, _)| *number <= version);
    &MIGRATIONS[done.count()..]
}
