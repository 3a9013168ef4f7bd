//! `messages trace`: a conversation as a tree.

use std::time::Duration;

use sagabus_core::admin::{HistoryOf, Page, StoreAdmin};
use sagabus_core::memory::MemoryTransport;
use sagabus_core::message::{self, Kind, Message};
use sagabus_core::{Host, MessageId, Result, ResultExt, Retry, Store};
use sagabus_outbox::PgStore;
use sagabus_testkit::wait::eventually;
use serde_json::Value;

use crate::parcels::{self, Hand, Release};
use crate::postgres::Database;
use crate::scene::{Charge, Ran, Scene, run};

#[derive(serde::Serialize, serde::Deserialize)]
struct Place;

impl Message for Place {
    const TYPE: &'static str = "shop.place";
    const KIND: Kind = Kind::Command;
}

impl message::Command for Place {}

async fn place(_: Place) -> (Charge, Hand) {
    let note = String::new();
    (Charge { order: 1, note }, Hand { parcel: 1 })
}

async fn refuse(_: Charge) -> Result<()> {
    Err::<(), _>(std::io::Error::other("declined \u{1b}[2J")).terminal()
}

fn told(document: &Value) -> Vec<(u64, String)> {
    let all = document["messages"].as_array().unwrap().iter();
    all.map(|one| {
        let message_type = one["message_type"].as_str().unwrap().to_owned();
        (one["depth"].as_u64().unwrap(), message_type)
    })
    .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_conversation_is_shown_whole_from_any_of_its_messages() {
    let (scene, store) = Scene::new().await;
    let carrier = parcels::host(store.clone(), Release::Current).await;
    let shop = Host::builder("shop")
        .store(store.clone())
        .endpoint("orders", |e| e.handle(place))
        .endpoint("payments", |e| e.retry(Retry::none()).handle(refuse));
    let shop = shop.build().unwrap().start().await.unwrap();
    shop.bus().send(Place).await.unwrap();
    // Another conversation is none of it.
    shop.bus().send(Hand { parcel: 2 }).await.unwrap();
    eventually("a dead letter and two parcels", || async {
        let counts = store.counts().await.unwrap();
        (counts.dead_letters == 1 && counts.running == 2).then_some(())
    })
    .await;
    assert!(shop.stop(Duration::from_secs(10)).await);
    assert!(carrier.stop(Duration::from_secs(10)).await);

    let dead = store.dead_letters(1).await.unwrap().remove(0);
    let dead = dead.envelope.id.to_string();
    let from_below = scene.json(&["messages", "trace", &dead]);
    let wanted = [
        (0, "shop.place"),
        (1, "shop.charge"),
        (1, "parcels.hand"),
        (2, "parcels.lose"),
    ];
    let wanted = wanted.map(|(depth, name)| (depth, name.to_owned()));
    assert_eq!(told(&from_below), wanted, "{from_below:#}");
    let messages = &from_below["messages"];
    assert_eq!(messages[0]["history"][0]["endpoint"], "orders");
    assert_eq!(messages[1]["dead_letters"][0]["id"], 1);
    assert_eq!(messages[3]["rows"][0]["destination"], "@parcels");
    assert_eq!(from_below["is_cut"], false);

    let root = messages[0]["message_id"].as_str().unwrap();
    assert_eq!(scene.json(&["messages", "trace", root]), from_below);
    let timer = messages[3]["message_id"].as_str().unwrap();
    assert_eq!(scene.json(&["messages", "trace", timer]), from_below);

    let ran = scene.run(&["messages", "trace", &dead]);
    assert_eq!(ran.code, 0, "{}", ran.err);
    for line in [
        format!("\nshop.place {root}\n"),
        format!("\n  > shop.charge {dead}\n"),
        format!("\n    parcels.lose {timer}\n"),
        "given up at payments after 1 tries: dead letter 1 (open), terminal: declined".to_owned(),
        "handled at parcels, parcel 1 to version 1".to_owned(),
        "for @parcels: waits until".to_owned(),
    ] {
        assert!(ran.out.contains(&line), "{line}: {}", ran.out);
    }
}

#[derive(serde::Serialize, serde::Deserialize)]
struct Placed;

impl Message for Placed {
    const TYPE: &'static str = "shop.placed";
    const KIND: Kind = Kind::Event;
}

impl message::Event for Placed {}

/// Publishes an event, which a broker takes; returns the message that it came of, and its own.
async fn leaves_with_a_broker(store: &(impl Store + StoreAdmin + Clone)) -> (MessageId, MessageId) {
    async fn place_abroad(_: Place) -> Placed {
        Placed
    }
    let shop = Host::builder("shop")
        .store(store.clone())
        .transport_named("archive", MemoryTransport::new())
        .route::<Placed>("archive")
        .endpoint("orders", |e| e.handle(place_abroad));
    let shop = shop.build().unwrap().start().await.unwrap();
    let place = shop.bus().send(Place).await.unwrap();
    let is_sent = async || {
        let of = HistoryOf::Message(place);
        let found = store.history(&of, Page::oldest(1)).await.unwrap();
        let placed = found.first()?.entry.detail.sent.first()?.0;
        (store.counts().await.unwrap().outbox == 0).then_some(placed)
    };
    let (placed, _) = eventually("an event that has left", is_sent).await;
    assert!(shop.stop(Duration::from_secs(10)).await);
    (place, placed)
}

/// Who sent it is known, and that nothing else is.
fn is_told(run: impl Fn(&[&str]) -> Ran, place: MessageId, placed: MessageId) {
    let placed = placed.to_string();
    let shown = run(&["messages", "show", &placed]);
    assert_eq!(shown.code, 0, "{shown:?}");
    let sent = format!("sent at orders by shop, where shop.place {place} was handled");
    for text in [
        sent.as_str(),
        "nothing is known of its end: a broker has it",
    ] {
        assert!(shown.out.contains(text), "{text}: {shown:?}");
    }
    let json = run(&["messages", "why", &placed, "--json"]);
    let json: Value = serde_json::from_str(&json.out).unwrap();
    assert_eq!(
        json["created_by"]["message_id"],
        place.to_string(),
        "{json:#}"
    );
    let traced = run(&["messages", "trace", &placed]);
    assert_eq!(traced.code, 0, "{traced:?}");
    for line in [
        format!("shop.place {place}"),
        format!("> shop.placed {placed}"),
    ] {
        assert!(traced.out.contains(&line), "{line}: {traced:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_sent_what_left_with_a_broker_is_told_of_a_file() {
    let (scene, store) = Scene::new().await;
    let (place, placed) = leaves_with_a_broker(&store).await;
    is_told(|words| scene.run(words), place, placed);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_sent_what_left_with_a_broker_is_told_of_a_server() {
    let Some(database) = Database::new().await else {
        return;
    };
    let store = PgStore::connect(&database.url).await.unwrap();
    store.migrate().await.unwrap();
    let (place, placed) = leaves_with_a_broker(&store).await;
    let at = |words: &[&str]| run(&[&["--store", &database.url][..], words].concat());
    is_told(at, place, placed);
    store.close();
    database.drop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_sent_what_died_is_told() {
    let (scene, store) = Scene::new().await;
    let shop = Host::builder("shop")
        .store(store.clone())
        .endpoint("orders", |e| e.handle(place))
        .endpoint("payments", |e| e.retry(Retry::none()).handle(refuse));
    let shop = shop.build().unwrap().start().await.unwrap();
    let place = shop.bus().send(Place).await.unwrap();
    let dies = async || store.dead_letters(1).await.unwrap().pop();
    let (dead, _) = eventually("a dead letter", dies).await;
    assert!(shop.stop(Duration::from_secs(10)).await);
    let shown = scene.run(&["messages", "show", &dead.envelope.id.to_string()]);
    let sent = format!("sent at orders by shop, where shop.place {place} was handled");
    for text in [
        sent.as_str(),
        "given up at payments after 1 tries: dead letter 1 (open)",
    ] {
        assert!(shown.out.contains(text), "{text}: {shown:?}");
    }
    // What an API sent, nobody caused.
    let root = scene.run(&["messages", "show", &place.to_string()]);
    assert!(
        root.out.contains("handled at orders, attempt 1 on shop"),
        "{root:?}"
    );
    assert!(!root.out.contains("where"), "{root:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_no_table_knows_has_no_conversation() {
    let (scene, _store) = Scene::new().await;
    let id = "018f4e5a-0000-7000-8000-000000000001";
    let ran = scene.run(&["messages", "trace", id]);
    assert_eq!(ran.code, 3, "{}", ran.err);
    assert!(ran.err.contains("[SB0401]"), "{}", ran.err);
}
