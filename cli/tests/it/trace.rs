//! `messages trace`: a conversation as a tree.

use std::time::Duration;

use sagabus_core::admin::StoreAdmin;
use sagabus_core::message::{self, Kind, Message};
use sagabus_core::{Host, Result, ResultExt, Retry};
use sagabus_testkit::wait::eventually;
use serde_json::Value;

use crate::parcels::{self, Hand, Release};
use crate::scene::{Charge, Scene};

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
        "given up at payments: dead letter 1 (open), terminal: declined".to_owned(),
        "handled at parcels, parcel 1 to version 1".to_owned(),
        "for @parcels: waits until".to_owned(),
    ] {
        assert!(ran.out.contains(&line), "{line}: {}", ran.out);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_no_table_knows_has_no_conversation() {
    let (scene, _store) = Scene::new().await;
    let id = "018f4e5a-0000-7000-8000-000000000001";
    let ran = scene.run(&["messages", "trace", id]);
    assert_eq!(ran.code, 3, "{}", ran.err);
    assert!(ran.err.contains("[SB0401]"), "{}", ran.err);
}
