//! Schema and version: numbered migrations that only go forward, and the check at start-up.

use sagabus_core::{StoreError, StoreId};
use sqlx::sqlite::SqliteArguments;
use sqlx::{Arguments, Row};

use super::clock::now;
use super::error::store_error;
use super::store::SqliteStore;
use super::writer::Write;

/// Every migration, in order. Never edited once released: the next one is added.
const MIGRATIONS: &[(i32, &str)] = &[(1, include_str!("../../migrations/sqlite/0001_tables.sql"))];

/// The tables of this release.
const TABLES: &[&str] = &[
    "sagabus_audit",
    "sagabus_dead_letter",
    "sagabus_endpoint",
    "sagabus_history",
    "sagabus_host",
    "sagabus_inbox",
    "sagabus_instance",
    "sagabus_label",
    "sagabus_operation",
    "sagabus_operation_item",
    "sagabus_outbox",
    "sagabus_sent",
    "sagabus_store",
    "sagabus_subscription",
    "sagabus_swept",
];

const FIND_TABLES: &str =
    "select name from sqlite_master where type = 'table' and name like 'sagabus\\_%' escape '\\'";

const FIND_VERSION: &str = "select schema_version from sagabus_store";

const CREATE_STORE: &str = concat!(
    "insert into sagabus_store (id, schema_version, created_at) select $1, $2, ",
    now!(),
    " where not exists (select 1 from sagabus_store)"
);

const RAISE_VERSION: &str = "update sagabus_store set schema_version = $2";

/// Returns the SQL of every migration with its number.
pub(super) fn migrations() -> &'static [(i32, &'static str)] {
    MIGRATIONS
}

/// Brings the tables to this release, all in one transaction: on SQLite a migration is whole or
/// has not happened.
pub(super) async fn migrate(store: &SqliteStore) -> Result<(), StoreError> {
    let mut write = store.write().await?;
    write
        .step("begin immediate", SqliteArguments::default())
        .await?;
    let steps = match find(&mut write).await? {
        Found::Nothing => MIGRATIONS,
        Found::Version(version) if version <= latest() => after(version),
        other => {
            write.rollback().await;
            return Err(refusal(store, &other));
        }
    };
    for (number, text) in steps {
        write.step(*text, SqliteArguments::default()).await?;
        let version = version_arguments(*number)?;
        write.step(CREATE_STORE, version.clone()).await?;
        write.step(RAISE_VERSION, version).await?;
    }
    write.commit().await
}

/// Checks that the schema is whole and of this release.
pub(super) async fn check(store: &SqliteStore, write: &mut Write) -> Result<(), StoreError> {
    let found = find(write).await?;
    match found {
        Found::Version(version) if version == latest() => Ok(()),
        other => Err(refusal(store, &other)),
    }
}

/// What a file has of our tables.
enum Found {
    /// None of them.
    Nothing,
    /// Some of them, without these.
    Part(Vec<&'static str>),
    /// Those of this version.
    Version(i32),
}

async fn find(write: &mut Write) -> Result<Found, StoreError> {
    let replies = write.step(FIND_TABLES, SqliteArguments::default()).await?;
    let rows = replies.into_iter().flat_map(|reply| reply.rows);
    let names: Vec<String> = rows.map(|row| row.get(0)).collect();
    if names.is_empty() {
        return Ok(Found::Nothing);
    }
    let missing = |table: &&&str| !names.iter().any(|name| name == **table);
    let missing: Vec<&str> = TABLES.iter().filter(missing).copied().collect();
    if missing.contains(&"sagabus_store") {
        return Ok(Found::Part(missing));
    }
    let replies = write.step(FIND_VERSION, SqliteArguments::default()).await?;
    let row = replies.first().and_then(|reply| reply.rows.first());
    let version = row.map(|row| row.try_get(0).map_err(store_error));
    match version.transpose()? {
        // An older release has fewer tables, a newer one may have renamed some.
        Some(version) if missing.is_empty() || version != latest() => Ok(Found::Version(version)),
        _ => Ok(Found::Part(missing)),
    }
}

/// Says what is wrong with the tables and what to do.
fn refusal(store: &SqliteStore, found: &Found) -> StoreError {
    let path = store.path().display();
    let latest = latest();
    StoreError::Setup(match found {
        Found::Nothing => format!(
            "`{path}` has no sagabus tables; run `store.migrate()` once, or the statements of \
             `SqliteStore::migrations()` [SB0204]"
        ),
        Found::Part(missing) => format!(
            "`{path}` has a part of the sagabus tables only (without {}); restore the file from a \
             backup, or drop what is left and run `store.migrate()` [SB0205]",
            match missing.is_empty() {
                true => "a row in sagabus_store".to_owned(),
                false => missing.join(", "),
            }
        ),
        Found::Version(version) if *version < latest => format!(
            "`{path}` has the sagabus tables of version {version} and this release needs \
             {latest}; run `store.migrate()` [SB0206]"
        ),
        Found::Version(version) => format!(
            "`{path}` has the sagabus tables of version {version} and this release knows \
             {latest}; run the newer release of the service [SB0207]"
        ),
    })
}

/// The version of the schema that this release works with.
fn latest() -> i32 {
    MIGRATIONS.last().map_or(0, |(number, _)| *number)
}

/// Returns the migrations that a file of this version lacks.
fn after(version: i32) -> &'static [(i32, &'static str)] {
    let done = MIGRATIONS
        .iter()
        .take_while(|(number, _)| *number <= version);
    &MIGRATIONS[done.count()..]
}

fn version_arguments(version: i32) -> Result<SqliteArguments, StoreError> {
    let refused = |error| StoreError::Refused(error);
    let mut arguments = SqliteArguments::default();
    arguments.add(StoreId::new().as_uuid()).map_err(refused)?;
    arguments.add(version).map_err(refused)?;
    Ok(arguments)
}
