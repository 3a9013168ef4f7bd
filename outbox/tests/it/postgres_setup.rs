//! A store that is not safe to use says so, and what to do.

use sagabus_core::error::chain;
use sagabus_core::store::{Registration, Store};
use sagabus_core::{HostId, Lifecycle, MessageId, StoreError};
use sagabus_outbox::{PgConfig, PgStore};
use sqlx::{AssertSqlSafe, Connection};

use crate::postgres_support::Database;
use crate::postgres_units::Site;

/// Attaches a host without endpoints and returns the set-up error.
async fn refusal(store: &PgStore) -> String {
    let registration = Registration {
        host: HostId::new(),
        host_name: "test".to_owned(),
        endpoints: Vec::new(),
        definitions: serde_json::json!({}),
    };
    match store.attach(&registration, &Lifecycle::new()).await {
        Err(StoreError::Setup(text)) => text,
        other => panic!("the store must be refused: {other:?}"),
    }
}

#[tokio::test]
async fn a_database_without_schema_is_refused_with_the_remedy() {
    let Some(database) = Database::empty().await else {
        return;
    };
    let text = refusal(&database.store().await).await;
    assert!(text.contains("has no schema `sagabus`"), "{text}");
    assert!(text.contains("store.migrate()"), "{text}");
}

#[tokio::test]
async fn a_part_of_the_schema_is_refused_by_name() {
    let Some((database, store)) = Database::migrated().await else {
        return;
    };
    database.run("drop function sagabus.extend_v1").await;
    let text = refusal(&store).await;
    assert!(text.contains("without extend_v1"), "{text}");
    database.run("delete from sagabus.store").await;
    let text = refusal(&store).await;
    assert!(text.contains("a part of the schema"), "{text}");
    let again = store.migrate().await.unwrap_err();
    assert!(matches!(again, StoreError::Setup(_)), "{again:?}");
}

#[tokio::test]
async fn an_older_and_a_newer_schema_are_told_apart() {
    let Some((database, store)) = Database::migrated().await else {
        return;
    };
    database
        .run("update sagabus.store set schema_version = 1")
        .await;
    let text = refusal(&store).await;
    assert!(text.contains("run `store.migrate()`"), "{text}");
    database
        .run("update sagabus.store set schema_version = 99")
        .await;
    let text = refusal(&store).await;
    assert!(text.contains("version 99"), "{text}");
    assert!(text.contains("newer release"), "{text}");
    let error = store.migrate().await.unwrap_err();
    assert!(matches!(error, StoreError::Setup(_)), "{error:?}");
}

#[tokio::test]
async fn a_database_that_takes_no_writes_is_refused() {
    let Some((database, _)) = Database::migrated().await else {
        return;
    };
    database
        .run(
            "do $$ begin execute format('alter database %I set default_transaction_read_only = \
             on', current_database()); end $$",
        )
        .await;
    let text = refusal(&database.store().await).await;
    assert!(text.contains("takes no writes"), "{text}");
    assert!(text.contains("primary"), "{text}");
}

#[tokio::test]
async fn a_migration_that_fails_leaves_nothing() {
    let Some(database) = Database::empty().await else {
        return;
    };
    // Refused in the middle: the tables are there by then, the functions come behind them.
    database
        .run(
            "create function refuse() returns event_trigger language plpgsql as $$ begin \
                if exists (select from pg_event_trigger_ddl_commands() \
                    where object_identity like 'sagabus.commit_v1(%') then \
                    raise exception 'not here'; \
                end if; end $$; \
             create event trigger refuse on ddl_command_end execute function refuse()",
        )
        .await;
    let store = database.store().await;
    let error = store.migrate().await.unwrap_err();
    assert!(chain(&error).contains("not here"), "{error:?}");
    let left = "select count(*) from pg_class where relnamespace = \
        (select oid from pg_namespace where nspname = 'sagabus')";
    assert_eq!(database.number(left).await, 0);
    let text = refusal(&store).await;
    assert!(text.contains("has no schema `sagabus`"), "{text}");
    database.run("drop event trigger refuse").await;
    store.migrate().await.unwrap();
    Site::new(store).await.stop().await;
}

#[tokio::test]
async fn migrating_at_once_from_many_processes_is_harmless() {
    let Some(database) = Database::empty().await else {
        return;
    };
    let migrate = || async {
        let store = database.store().await;
        store.migrate().await
    };
    let all = futures_util::future::join_all((0..5).map(|_| migrate())).await;
    all.into_iter().for_each(|one| one.unwrap());
    let versions = database.number("select count(*) from sagabus.store").await;
    assert_eq!(versions, 1);
}

#[tokio::test]
async fn migrations_run_by_hand_make_the_same_schema() {
    let Some(database) = Database::empty().await else {
        return;
    };
    let mut connection = database.connection().await;
    for (number, sql) in PgStore::migrations() {
        let text = format!("begin;\n{sql}\ncommit;");
        sqlx::raw_sql(AssertSqlSafe(text))
            .execute(&mut connection)
            .await
            .unwrap_or_else(|error| panic!("migration {number}: {error}"));
    }
    let site = Site::new(database.store().await).await;
    let group = site.group(vec![site.unit(MessageId::new())]);
    site.store.commit(&group).await.unwrap();
    site.stop().await;
}

/// A database with another default must not make `ON CONFLICT` an error.
#[tokio::test]
async fn a_serializable_database_still_answers_duplicate() {
    let Some((database, _)) = Database::migrated().await else {
        return;
    };
    database
        .run(
            "do $$ begin execute format('alter database %I set default_transaction_isolation = \
             serializable', current_database()); end $$",
        )
        .await;
    let site = Site::new(database.store().await).await;
    let id = MessageId::new();
    let calls = (0..8).map(|_| async {
        let group = site.group(vec![site.unit(id)]);
        site.store.commit(&group).await.unwrap().outcomes[0]
    });
    let outcomes = futures_util::future::join_all(calls).await;
    let committed = outcomes
        .iter()
        .filter(|one| **one == sagabus_core::Outcome::Committed);
    assert_eq!(committed.count(), 1, "{outcomes:?}");
    site.stop().await;
}

#[tokio::test]
async fn a_password_is_never_printed() {
    const SECRET: &str = "open-sesame";
    let url = format!("postgres://somebody:{SECRET}@127.0.0.1:1/nowhere");
    let config = PgConfig::new(&url).unwrap();
    assert!(!format!("{config:?}").contains(SECRET));
    let error = PgStore::connect_with(config).await.unwrap_err();
    assert!(matches!(error, StoreError::Unavailable(_)), "{error:?}");
    assert!(!format!("{error:?} {error}").contains(SECRET));
    let broken = PgConfig::new(&format!("postgres://somebody:{SECRET}@[::1")).unwrap_err();
    assert!(!format!("{broken:?} {broken}").contains(SECRET));

    let Some((database, store)) = Database::migrated().await else {
        return;
    };
    let url = database
        .url()
        .replacen("postgres@", &format!("postgres:{SECRET}@"), 1);
    if let Ok(with_password) = PgStore::connect(&url).await {
        assert!(!format!("{with_password:?}").contains(SECRET));
    }
    assert!(format!("{store:?}").contains("PgStore"));
}

#[tokio::test]
async fn a_database_that_does_not_exist_is_a_setup_error() {
    let Some(database) = Database::empty().await else {
        return;
    };
    let url = format!("{}_not_there", database.url());
    let error = PgStore::connect(&url).await.unwrap_err();
    assert!(
        matches!(&error, StoreError::Setup(text) if text.contains("does not exist")),
        "{error:?}"
    );
    let mut connection = database.connection().await;
    connection.ping().await.unwrap();
}
