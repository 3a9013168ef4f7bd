//! What a server says of itself, for those who look for the cause of trouble.

use std::time::Duration;

use sagabus_core::admin::StoreAdmin;

use crate::postgres_support::Database;

#[tokio::test]
async fn an_open_transaction_and_what_it_looks_back_to_are_seen() {
    let Some((database, store)) = Database::migrated().await else {
        return;
    };
    let vitals = store.vitals().await.unwrap();
    assert!(vitals.bytes > 1_000_000, "{vitals:?}");
    assert_eq!((vitals.held, vitals.free_bytes), (0, None));
    assert!(vitals.tables.is_empty(), "{vitals:?}");

    use sqlx::{Connection, Executor};
    let mut other = sqlx::PgConnection::connect(database.url()).await.unwrap();
    let begin = "begin isolation level repeatable read; select count(*) from sagabus.outbox";
    other.execute(begin).await.unwrap();
    for _ in 0..3 {
        database.run("select pg_current_xact_id()").await;
    }
    let look = || async {
        let vitals = store.vitals().await.unwrap();
        let age = vitals.oldest_transaction?;
        let horizon = vitals.horizon_transactions?;
        (age > Duration::from_millis(20) && horizon >= 3).then_some(())
    };
    sagabus_testkit::wait::eventually("an old transaction", look).await;
}

#[tokio::test]
async fn a_table_with_many_dead_rows_is_named() {
    let Some((database, store)) = Database::migrated().await else {
        return;
    };
    database
        .run("alter table sagabus.inbox set (autovacuum_enabled = off)")
        .await;
    database
        .run(
            "insert into sagabus.inbox (message_id, endpoint_id, accepted_at) \
             select gen_random_uuid(), 1, 0 from generate_series(1, 20000)",
        )
        .await;
    database.run("delete from sagabus.inbox").await;
    let look = || async {
        let vitals = store.vitals().await.unwrap();
        let worst = vitals.tables.into_iter().next()?;
        Some((worst.name, worst.dead_rows > 10_000))
    };
    let (found, _) = sagabus_testkit::wait::eventually("a table with dead rows", look).await;
    assert_eq!(found, ("inbox".to_owned(), true));
}
