//! Start-up: what is refused, and what the error says to do.

use sagabus_core::store::Store;
use sagabus_core::{Lifecycle, StoreError};
use sagabus_outbox::SqliteStore;

use crate::sqlite_support::{Bench, Folder, change, name, registration, setup_text};

#[tokio::test]
async fn connections_keep_the_promises_that_were_asked_for() {
    let bench = Bench::new().await;
    assert_eq!(bench.ask("pragma synchronous").await, 2);
    assert_eq!(bench.ask("pragma foreign_keys").await, 1);
    assert_eq!(bench.ask("pragma busy_timeout").await, 5000);
    let mode: String = sqlx::query_scalar("pragma journal_mode")
        .fetch_one(bench.reader())
        .await
        .unwrap();
    assert_eq!(mode, "wal");
    let write = sqlx::query("delete from sagabus_host").execute(bench.reader());
    assert!(write.await.is_err(), "readers only read");
}

#[tokio::test]
async fn a_file_that_cannot_be_used_is_refused_with_what_to_do() {
    let folder = Folder::new();
    let missing = folder.file().join("sub").join("x.db");
    let text = setup_text(SqliteStore::open(&missing).await);
    assert!(text.contains("there is no directory") && text.contains("create it"));

    let directory = folder.file().parent().unwrap().to_owned();
    let text = setup_text(SqliteStore::open(&directory).await);
    assert!(text.contains("is a directory"), "{text}");

    let garbage = folder.file();
    std::fs::write(&garbage, "no database, whatever its name ".repeat(100)).unwrap();
    let text = setup_text(SqliteStore::open(&garbage).await);
    assert!(
        text.contains("cannot use") && text.contains("as a database"),
        "{text}"
    );
}

/// The kernel refuses to make files there, whoever asks.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_directory_that_cannot_be_written_is_refused_with_what_to_do() {
    let text = setup_text(SqliteStore::open("/proc/sagabus-test.db").await);
    assert!(
        text.contains("cannot write `/proc/sagabus-test.db`"),
        "{text}"
    );
}

#[tokio::test]
async fn a_schema_that_is_missing_partial_older_or_newer_is_told_apart() {
    let folder = Folder::new();
    let store = SqliteStore::open(folder.file()).await.unwrap();
    let attach = async || {
        let lifecycle = Lifecycle::new();
        setup_text(store.attach(&registration(), &lifecycle).await)
    };
    let text = attach().await;
    assert!(text.contains("no sagabus tables") && text.contains("store.migrate()"));
    store.migrate().await.unwrap();
    store.migrate().await.unwrap();

    let latest = SqliteStore::migrations().last().unwrap().0;
    let partial =
        format!("update sagabus_store set schema_version = {latest}; drop table sagabus_history");
    let cases = [
        (
            "update sagabus_store set schema_version = 0",
            "of version 0",
        ),
        (
            "update sagabus_store set schema_version = 99",
            "newer release",
        ),
        (&partial, "without sagabus_history"),
        (
            "drop table sagabus_store",
            "a part of the sagabus tables only",
        ),
    ];
    for (sql, expected) in cases {
        change(&folder.file(), sql).await.unwrap();
        let text = attach().await;
        assert!(text.contains(expected), "{text}");
    }
    let text = setup_text(store.migrate().await);
    assert!(text.contains("restore the file from a backup"), "{text}");
}

#[tokio::test]
async fn a_migration_that_fails_leaves_nothing() {
    let folder = Folder::new();
    // The name of one of our indexes is taken, so that the migration fails half-way.
    change(
        &folder.file(),
        "create table other (x); create index sagabus_outbox_order on other (x)",
    )
    .await
    .unwrap();
    let store = SqliteStore::open(folder.file()).await.unwrap();
    assert!(matches!(store.migrate().await, Err(StoreError::Other(_))));
    change(&folder.file(), "drop table other").await.unwrap();
    let lifecycle = Lifecycle::new();
    let text = setup_text(store.attach(&registration(), &lifecycle).await);
    assert!(text.contains("no sagabus tables"), "{text}");
    store.migrate().await.unwrap();
}

#[tokio::test]
async fn two_processes_may_migrate_at_once() {
    let folder = Folder::new();
    let one = SqliteStore::open(folder.file()).await.unwrap();
    let two = SqliteStore::open(folder.file()).await.unwrap();
    let (first, second) = tokio::join!(one.migrate(), two.migrate());
    first.unwrap();
    second.unwrap();
    let lifecycle = Lifecycle::new();
    one.attach(&registration(), &lifecycle).await.unwrap();
}

#[tokio::test]
async fn attaching_again_changes_nothing_and_a_second_owner_is_refused() {
    let bench = Bench::new().await;
    let lifecycle = Lifecycle::new();
    let again = bench.attach(&registration(), &lifecycle).await.unwrap();
    assert_eq!(again.routes, bench.attached.routes);
    assert_eq!(again.store, bench.attached.store);
    assert_eq!(again.routes.subscribers["test.do"][0].name, name("plain"));

    let mut other = registration();
    other.endpoints.truncate(1);
    other.endpoints[0].name = name("thief");
    let text = setup_text(bench.attach(&other, &lifecycle).await);
    assert!(
        text.contains("`test.do` belongs to endpoint `plain`") && text.contains("`thief`"),
        "{text}"
    );
    let routes = bench.attach(&registration(), &lifecycle).await.unwrap();
    assert_eq!(routes.routes, bench.attached.routes);
}
