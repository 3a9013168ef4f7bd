//! What the program shows.

use sagabus_core::admin::{Page, RowFilter, StoreAdmin};

use crate::scene::{Scene, host};

#[tokio::test(flavor = "multi_thread")]
async fn a_status_says_what_to_look_at() {
    let (scene, _) = Scene::with_failures(3).await;
    let ran = scene.run(&["status"]);
    assert_eq!(ran.code, 0, "{}", ran.err);
    for line in [
        "dead letters 3;",
        "0 waiting, 1 parked",
        "3     payments",
        "! 3 messages are dead letters",
        "`sagabus dead-letters groups` shows why",
        "! 1 outgoing rows are parked",
    ] {
        assert!(ran.out.contains(line), "{line}: {}", ran.out);
    }
    let status = scene.json(&["status"]);
    assert_eq!(status["counts"]["dead_letters"], 3);
    assert_eq!(status["about"]["engine"], "sqlite");
}

#[tokio::test(flavor = "multi_thread")]
async fn dead_letters_are_listed_grouped_and_shown() {
    let (scene, _) = Scene::with_failures(3).await;
    let ran = scene.run(&["dead-letters", "list"]);
    assert_eq!(ran.out.lines().count(), 4, "{}", ran.out);
    assert!(ran.out.starts_with("ID  WHEN"), "{}", ran.out);
    assert!(ran.out.contains("shop.charge"), "{}", ran.out);

    let page = scene.json(&["dead-letters", "list", "--limit", "2"]);
    let ids: Vec<_> = page["dead_letters"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| &one["id"])
        .collect();
    assert_eq!(ids, [3, 2]);
    assert_eq!(page["next"], 2);
    let rest = scene.json(&["dead-letters", "list", "--limit", "2", "--after", "2"]);
    assert_eq!(rest["dead_letters"].as_array().unwrap().len(), 1);
    assert_eq!(rest["next"], serde_json::Value::Null);

    let groups = scene.json(&["dead-letters", "groups"]);
    assert_eq!(groups["groups"][0]["count"], 3);
    let fingerprint = groups["groups"][0]["fingerprint"].as_str().unwrap();
    assert!(
        fingerprint.starts_with("terminal: card of order # was declined"),
        "{fingerprint}"
    );
    let found = scene.json(&["dead-letters", "list", "--fingerprint", fingerprint]);
    assert_eq!(found["dead_letters"].as_array().unwrap().len(), 3);

    let ran = scene.run(&["dead-letters", "show", "1"]);
    for text in [
        "dead letter 1 (open)",
        "card of order 0 was declined \\u{1b}[2J",
        "\"order\": 0",
        "attempt 1 ",
    ] {
        assert!(ran.out.contains(text), "{text}: {}", ran.out);
    }
    let one = scene.json(&["dead-letters", "show", "1"]);
    let body: serde_json::Value =
        serde_json::from_str(one["body"]["text"].as_str().unwrap()).unwrap();
    assert_eq!(body["note"], "\u{1b}]0;owned\u{7}", "JSON has it as it was");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_outbox_is_summed_up_and_its_parked_rows_are_listed() {
    let (scene, store) = Scene::with_failures(1).await;
    let ran = scene.run(&["outbox", "list"]);
    assert!(ran.out.contains("?shop.ship"), "{}", ran.out);
    let parked = scene.json(&["outbox", "parked"]);
    assert_eq!(parked["rows"][0]["parked"], "no_owner");
    assert_eq!(parked["rows"][0]["message_type"], "shop.ship");
    let row = store
        .rows(&RowFilter::default(), Page::latest(1))
        .await
        .unwrap()
        .remove(0);
    let id = row.id.to_string();
    let ran = scene.run(&["outbox", "show", &id]);
    assert!(ran.out.contains("\"order\": 7"), "{}", ran.out);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_tells_its_life() {
    let (scene, store) = Scene::with_failures(1).await;
    let dead = store.dead_letters(1).await.unwrap().remove(0);
    let id = dead.envelope.id.to_string();
    let ran = scene.run(&["messages", "show", &id]);
    assert!(
        ran.out
            .contains("given up at payments after 1 tries: dead letter 1 (open)"),
        "{}",
        ran.out
    );
    assert!(ran.out.contains("\nsent by host shop\n"), "{}", ran.out);
    let told = scene.json(&["messages", "show", &id]);
    assert_eq!(
        (&told["source"], &told["created_by"]),
        (&"shop".into(), &serde_json::Value::Null)
    );
    assert_eq!(told["dead_letters"][0]["id"], 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn hosts_endpoints_and_definitions_are_shown() {
    let (scene, store) = Scene::new().await;
    let host = host(store).await;
    let hosts = scene.json(&["hosts"]);
    assert_eq!(hosts["hosts"][0]["name"], "shop");
    assert_eq!(hosts["hosts"][0]["is_alive"], true);
    let ran = scene.run(&["endpoints", "list"]);
    assert!(ran.out.contains("command  shop.charge"), "{}", ran.out);
    let ran = scene.run(&["describe", "shop"]);
    assert!(ran.out.contains("endpoint payments"), "{}", ran.out);
    assert!(ran.out.contains("command shop.charge"), "{}", ran.out);

    let refused = scene.run(&["endpoints", "remove", "payments", "--yes"]);
    assert_eq!(refused.code, 1, "{refused:?}");
    assert!(
        refused.err.contains("host `shop` runs endpoint `payments`"),
        "{}",
        refused.err
    );
    host.stop(std::time::Duration::from_secs(10)).await;
}
