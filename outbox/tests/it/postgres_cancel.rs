//! Calls that are dropped in the middle: whole or nothing, and nobody else suffers.

use sagabus_core::MessageId;
use sagabus_core::store::Store;
use sagabus_core::unit_of_work::Outcome;
use sagabus_outbox::{PgConfig, PgStore};

use crate::postgres_support::Database;
use crate::postgres_units::{Dice, Site, cancelled_after};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cancelled_commit_is_whole_or_nothing_and_later_ones_are_kept() {
    let Some((database, _)) = Database::migrated().await else {
        return;
    };
    let mut config = PgConfig::new(database.url()).unwrap();
    // Few connections, so that a spoilt one would be met again at once.
    config.engine_connections_max = 2;
    let site = Site::new(PgStore::connect_with(config).await.unwrap()).await;
    let mut dice = Dice::new(7);
    let (mut cancelled, mut whole, mut written, mut later) = (0, 0, 0, 0);
    for _ in 0..200 {
        let ids: Vec<_> = (0..1 + dice.below(20)).map(|_| MessageId::new()).collect();
        let group = site.group(ids.iter().map(|id| site.unit(*id)).collect());
        let answer = cancelled_after(dice.below(5000), site.store.commit(&group)).await;
        cancelled += u32::from(answer.is_none());

        // Whoever comes next on the same connections is not touched.
        let next = site.group(vec![site.unit(MessageId::new())]);
        let report = site.store.commit(&next).await.unwrap();
        assert_eq!(report.outcomes, [Outcome::Committed]);
        later += 1;

        // Asking again tells what became of it, and makes it whole.
        let outcomes = loop {
            match site.store.commit(&group).await {
                Ok(report) => break report.outcomes,
                Err(error) => assert!(error.is_transient(), "{error:?}"),
            }
        };
        assert!(
            outcomes.iter().all(|one| *one == outcomes[0]),
            "a group is whole: {outcomes:?}"
        );
        written += ids.len() as i64;
        whole += u32::from(answer.is_none() && outcomes[0] == Outcome::Duplicate);
    }
    println!("{cancelled} of 200 calls were cancelled, {whole} of them had committed");
    assert!(
        cancelled > 20,
        "some calls must have been cancelled: {cancelled}"
    );
    for table in [
        "select count(*) from sagabus.inbox",
        "select count(*) from sagabus.history",
        "select count(*) from sagabus.outbox",
    ] {
        assert_eq!(database.number(table).await, written + later, "{table}");
    }
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_whose_server_is_lost_is_unknown_and_asking_again_tells() {
    let Some((database, store)) = Database::migrated().await else {
        return;
    };
    let site = Site::new(store).await;
    let id = MessageId::new();
    let group = site.group(vec![site.unit(id)]);
    // Somebody holds the key, so that the call is under way when its server is ended.
    let mut holder = database.connection().await;
    let mut held = sqlx::Connection::begin(&mut holder).await.unwrap();
    sqlx::query("insert into sagabus.inbox values ($1, $2, 0)")
        .bind(id.as_uuid())
        .bind(site.target("orders").id.0)
        .execute(&mut *held)
        .await
        .unwrap();
    let kill = async {
        sagabus_testkit::wait::eventually("waiting call", || async {
            let ended = database
                .number(
                    "select count(pg_terminate_backend(pid)) from pg_stat_activity \
                     where datname = current_database() and wait_event_type = 'Lock'",
                )
                .await;
            (ended > 0).then_some(())
        })
        .await;
    };
    let (answer, ()) = tokio::join!(site.store.commit(&group), kill);
    let error = answer.unwrap_err();
    assert!(
        matches!(error, sagabus_core::StoreError::Unknown(_)),
        "{error:?}"
    );
    held.rollback().await.unwrap();
    let report = site.store.commit(&group).await.unwrap();
    assert_eq!(report.outcomes, [Outcome::Committed]);
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_held_key_makes_a_group_busy_and_leaves_others_alone() {
    let Some((database, store)) = Database::migrated().await else {
        return;
    };
    let site = Site::new(store).await;
    let id = MessageId::new();
    let mut holder = database.connection().await;
    let mut held = sqlx::Connection::begin(&mut holder).await.unwrap();
    sqlx::query("insert into sagabus.inbox values ($1, $2, 0)")
        .bind(id.as_uuid())
        .bind(site.target("orders").id.0)
        .execute(&mut *held)
        .await
        .unwrap();
    let blocked = site.group(vec![site.unit(id), site.unit(MessageId::new())]);
    let free = site.group(vec![site.unit(MessageId::new())]);
    let (blocked, free) = tokio::join!(site.store.commit(&blocked), site.store.commit(&free));
    let error = blocked.unwrap_err();
    assert!(
        matches!(error, sagabus_core::StoreError::Busy(_)),
        "{error:?}"
    );
    assert_eq!(free.unwrap().outcomes, [Outcome::Committed]);
    held.rollback().await.unwrap();
    let rows = database.number("select count(*) from sagabus.inbox").await;
    assert_eq!(rows, 1, "of a busy group nothing is written");
    site.stop().await;
}
