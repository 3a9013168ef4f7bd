//! `sagabus inbox`.

use std::time::Duration;

use sagabus_core::admin::StoreAdmin;
use sagabus_testkit::wait::eventually;

use crate::accounts::host;
use crate::scene::{Charge, Scene};

#[tokio::test(flavor = "multi_thread")]
async fn what_was_handled_is_listed_with_time_host_and_type() {
    let (scene, store) = Scene::new().await;
    let host = host(store.clone()).await;
    let mut sent = Vec::new();
    for order in 1..=3 {
        let note = "ok".to_owned();
        let id = host.bus().send(Charge { order, note }).await.unwrap();
        sent.push(id.to_string());
    }
    let is_done = async || (store.counts().await.unwrap().outbox == 0).then_some(());
    eventually("all handled", is_done).await;
    assert!(host.stop(Duration::from_secs(10)).await);

    let page = scene.json(&["inbox", "list", "--limit", "2"]);
    let first = &page["inbox"][0];
    assert_eq!(first["message_id"], *sent[2], "the latest first");
    assert_eq!(first["endpoint"], "payments");
    assert_eq!(first["handled"]["message_type"], "shop.charge");
    assert_eq!(first["handled"]["detail"]["host"], "shop");
    let next = &page["next"];
    let (id, endpoint) = (next["message_id"].as_str(), next["endpoint"].as_str());
    let behind = [
        "--after",
        id.unwrap(),
        "--after-endpoint",
        endpoint.unwrap(),
    ];
    let rest = scene.json(&[&["inbox", "list"][..], &behind].concat());
    assert_eq!(rest["inbox"].as_array().unwrap().len(), 1);
    assert_eq!(rest["inbox"][0]["message_id"], *sent[0]);
    for (words, count) in [
        (["--endpoint", "payments"], 3),
        (["--endpoint", "ledger"], 0),
        (["--older-than", "1h"], 0),
        (["--younger-than", "1h"], 3),
    ] {
        let found = scene.json(&[&["inbox", "list"][..], &words].concat());
        let found = found["inbox"].as_array().unwrap();
        assert_eq!(found.len(), count, "{words:?}");
    }

    let people = scene.run(&["inbox", "list"]);
    assert!(people.out.starts_with("MESSAGE"), "{people:?}");
    assert!(people.out.contains("shop.charge"), "{people:?}");
    let shown = scene.run(&["inbox", "show", &sent[0]]);
    assert_eq!(shown.code, 0, "{shown:?}");
    assert!(shown.out.contains("taken over at payments"), "{shown:?}");
    assert!(
        shown.out.contains("handled by shop, attempt 1"),
        "{shown:?}"
    );
    let unknown = scene.run(&["inbox", "show", "01a1ffe0-c14d-721c-acd4-8bb5fe257e60"]);
    assert_eq!(unknown.code, 3, "{unknown:?}");
    assert!(unknown.err.contains("[SB0401]"), "{unknown:?}");
    for nonsense in [
        &["inbox", "show", "4711"][..],
        &["inbox", "list", "--older-than", "x"],
    ] {
        assert_eq!(scene.run(nonsense).code, 2, "{nonsense:?}");
    }
}
