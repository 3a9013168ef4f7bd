//! The program against PostgreSQL.

use std::time::Duration;

use sagabus_core::admin::{DeadLetterFilter, StoreAdmin};
use sagabus_outbox::PgStore;
use sqlx::{AssertSqlSafe, Connection, PgConnection};
use uuid::Uuid;

use crate::parcels::{self, Hand, Release};
use crate::scene::{self, Charge, Ship};

/// Runs a statement on the server.
pub(crate) async fn on_server(url: &str, sql: String) {
    try_on_server(url, &sql).await.unwrap();
}

/// Runs a statement that the server may refuse.
pub(crate) async fn try_on_server(url: &str, sql: &str) -> Result<(), sqlx::Error> {
    let mut connection = PgConnection::connect(url).await?;
    let sql = AssertSqlSafe(sql.to_owned());
    sqlx::raw_sql(sql).execute(&mut connection).await?;
    Ok(())
}

/// A database of its own on the server.
pub(crate) struct Database {
    pub(crate) url: String,
    server: String,
    name: String,
}

impl Database {
    /// Makes an empty one; none where there is no server and none is required.
    pub(crate) async fn new() -> Option<Self> {
        const URL: &str = "SAGABUS_POSTGRES_URL";
        let Ok(server) = std::env::var(URL) else {
            assert!(
                std::env::var_os("SAGABUS_SERVICES_REQUIRED").is_none(),
                "services are required, but {URL} is not set"
            );
            println!("SKIPPED: {URL} is not set");
            return None;
        };
        let name = format!("sagabus_cli_{}", Uuid::now_v7().simple());
        on_server(&server, format!("create database {name}")).await;
        let slash = server.rfind('/').unwrap();
        let url = format!("{}/{name}", &server[..slash]);
        Some(Self { url, server, name })
    }

    /// Removes it, whoever is connected.
    pub(crate) async fn drop(self) {
        let sql = format!("drop database {} with (force)", self.name);
        on_server(&self.server, sql).await;
    }
}

/// Fills a database as a host that stopped would leave it.
pub(crate) async fn fill(store: &PgStore, dead: u32) {
    let host = scene::host(store.clone()).await;
    for order in 0..dead {
        let note = "ok".to_owned();
        host.bus().send(Charge { order, note }).await.unwrap();
    }
    host.bus().send(Ship { order: 7 }).await.unwrap();
    sagabus_testkit::wait::eventually("dead letters", || async {
        let counts = store.counts().await.unwrap();
        (counts.dead_letters == u64::from(dead) && counts.parked == 1).then_some(())
    })
    .await;
    assert!(host.stop(Duration::from_secs(10)).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_works_on_a_file_works_on_a_server() {
    let Some(database) = Database::new().await else {
        return;
    };
    let url = database.url.clone();
    let run = |arguments: &[&str]| {
        let ran = scene::run(&[&["--store", &url][..], arguments].concat());
        assert_eq!(ran.code, 0, "{arguments:?}: {ran:?}");
        ran.out
    };

    let missing = scene::run(&["--store", &url, "status"]);
    assert_eq!(missing.code, 4, "{missing:?}");
    assert!(run(&["schema", "migrate"]).contains("the schema is of version"));
    let store = PgStore::connect(&url).await.unwrap();
    fill(&store, 5).await;
    assert!(run(&["status"]).contains("! 5 messages are dead letters"));
    assert!(run(&["dead-letters", "groups"]).contains("5      payments"));
    assert!(run(&["dead-letters", "list", "--text", "DECLINED"]).contains("shop.charge"));
    assert!(run(&["dead-letters", "show", "1"]).contains("\"order\": 0"));
    assert!(run(&["dead-letters", "discard", "1", "--yes"]).contains("discarded 1"));
    assert!(run(&["dead-letters", "restore", "1", "--yes"]).contains("restored 1"));
    let retried = run(&["dead-letters", "retry", "--all", "--yes"]);
    assert!(retried.contains("retried 5 dead letters"), "{retried}");
    assert!(run(&["outbox", "list"]).contains("@payments    5"));
    assert!(run(&["outbox", "discard", "--all", "--yes"]).contains("discarded 1 rows"));
    assert!(run(&["hosts"]).contains("shop"));
    assert!(run(&["describe"]).contains("endpoint payments"));
    let host = parcels::host(store.clone(), Release::Current).await;
    assert_eq!(run(&["machines", "show", "parcel"]), parcels::drawings()[0]);
    host.bus().send(Hand { parcel: 7 }).await.unwrap();
    let handed = async || (store.counts().await.unwrap().running == 1).then_some(());
    sagabus_testkit::wait::eventually("a parcel", handed).await;
    assert!(host.stop(Duration::from_secs(10)).await);
    let found = run(&[
        "sagas",
        "list",
        "--label",
        "tracking=t-7",
        "--older-than",
        "0s",
    ]);
    assert!(found.contains("parcel  moving"), "{found}");
    assert!(run(&["sagas", "show", "parcel", "7"]).contains("armed     patience"));
    assert!(run(&["sagas", "list", "--key", "8"]).contains("no such instances"));
    let audit = run(&["audit"]);
    assert_eq!(audit.lines().count(), 9, "{audit}");
    let redriven = store.count_dead_letters(&DeadLetterFilter::any()).await;
    assert_eq!(redriven.unwrap().count, 5);

    store.close();
    database.drop().await;
}
