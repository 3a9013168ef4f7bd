//! `sagabus accounts`.

use std::time::Duration;

use sagabus_core::admin::StoreAdmin;
use sagabus_core::message::{self, Kind, Message};
use sagabus_core::{History, Host, Result, RunningHost, Store};
use sagabus_outbox::PgStore;
use sagabus_testkit::wait::eventually;
use sqlx::{Connection, SqliteConnection};

use crate::postgres::{Database, on_server};
use crate::scene::{Charge, Ran, Scene, run};

/// An event that follows a charge.
#[derive(serde::Serialize, serde::Deserialize)]
struct Charged {
    order: u32,
}

impl Message for Charged {
    const TYPE: &'static str = "shop.charged";
    const KIND: Kind = Kind::Event;
}

impl message::Event for Charged {}

async fn charge(command: Charge) -> Charged {
    let order = command.order;
    Charged { order }
}

async fn note(_: Charged) -> Result<()> {
    Ok(())
}

/// Starts a host whose charges are noted at two endpoints, one of them without a history.
pub(crate) async fn host(store: impl Store) -> RunningHost {
    let host = Host::builder("shop")
        .store(store)
        .endpoint("payments", |e| e.handle(charge))
        .endpoint("ledger", |e| e.handle(note))
        .endpoint("metrics", |e| e.handle(note).history(History::NotKept));
    host.build().unwrap().start().await.unwrap()
}

/// Lets two charges through, and leaves one that waits at `ledger` and `metrics`, which are paused.
async fn plays(store: &(impl Store + StoreAdmin + Clone), run: impl Fn(&[&str]) -> Ran) {
    let host = host(store.clone()).await;
    let charge = async |order| {
        let note = "ok".to_owned();
        host.bus().send(Charge { order, note }).await.unwrap();
    };
    let rest = async |rows| {
        eventually("rows at rest", async || {
            (store.counts().await.unwrap().outbox == rows).then_some(())
        })
        .await;
    };
    charge(1).await;
    charge(2).await;
    rest(0).await;
    for endpoint in ["ledger", "metrics"] {
        let paused = run(&["endpoints", "pause", endpoint, "--yes"]);
        assert_eq!(paused.code, 0, "{paused:?}");
    }
    let is_held = async || {
        let all = host.endpoints();
        let mut held = all.iter().filter(|one| one.endpoint.as_str() != "payments");
        held.all(|one| one.flow == sagabus_core::Flow::Paused)
            .then_some(())
    };
    eventually("paused endpoints", is_held).await;
    charge(3).await;
    rest(2).await;
    assert!(host.stop(Duration::from_secs(10)).await);
}

/// What was sent, handled and waits is counted; a row that somebody deletes is named.
async fn balance_until(delete: impl AsyncFnOnce(), run: impl Fn(&[&str]) -> Ran) {
    let whole = run(&["accounts"]);
    assert_eq!(whole.code, 0, "{whole:?}");
    for text in [
        "balanced: all 6 messages are accounted for",
        "endpoint `metrics` keeps no history and has no account",
    ] {
        assert!(whole.out.contains(text), "{text}: {whole:?}");
    }
    delete().await;
    let ran = run(&["accounts", "--json"]);
    assert_eq!(ran.code, 6, "{ran:?}");
    assert!(ran.err.contains("1 messages came, and nothing is left"));
    let accounts: serde_json::Value = serde_json::from_str(&ran.out).unwrap();
    assert_eq!(accounts["is_balanced"], false);
    assert_eq!(accounts["without_history"][0], "metrics");
    let ledger = &accounts["accounts"][0];
    assert_eq!(ledger["endpoint"], "ledger");
    for (name, count) in [("created", 3), ("handled", 2), ("missing", 1)] {
        assert_eq!(ledger[name], count, "{name}: {ledger}");
    }
    let payments = &accounts["accounts"][1];
    for (name, count) in [("accepted", 3), ("created", 0), ("handled", 3)] {
        assert_eq!(payments[name], count, "{name}: {payments}");
    }
    let missing = accounts["missing"].as_array().unwrap();
    assert_eq!(missing.len(), 1);
    assert_eq!(missing[0]["message_type"], "shop.charged");
    let people = run(&["accounts"]);
    assert_eq!(people.code, 6, "{people:?}");
    let id = missing[0]["message_id"].as_str().unwrap();
    assert!(people.out.contains(id), "{people:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_is_deleted_by_hand_is_missed_in_a_file() {
    let (scene, store) = Scene::new().await;
    plays(&store, |words| scene.run(words)).await;
    let delete = async || {
        let url = format!("sqlite:{}", scene.file().display());
        let mut connection = SqliteConnection::connect(&url).await.unwrap();
        let sql = "delete from sagabus_outbox where destination = '@ledger'";
        let deleted = sqlx::query(sql).execute(&mut connection).await.unwrap();
        assert_eq!(deleted.rows_affected(), 1);
    };
    balance_until(delete, |words| scene.run(words)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_is_deleted_by_hand_is_missed_on_a_server() {
    let Some(database) = Database::new().await else {
        return;
    };
    let store = PgStore::connect(&database.url).await.unwrap();
    store.migrate().await.unwrap();
    let at = |words: &[&str]| run(&[&["--store", &database.url][..], words].concat());
    plays(&store, at).await;
    let delete = async || {
        let sql = "delete from sagabus.outbox where destination = '@ledger'";
        on_server(&database.url, sql.to_owned()).await;
    };
    balance_until(delete, at).await;
    store.close();
    database.drop().await;
}
