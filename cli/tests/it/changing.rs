//! What the program changes.

use sagabus_core::admin::StoreAdmin;

use crate::scene::Scene;

#[tokio::test(flavor = "multi_thread")]
async fn a_change_that_nobody_confirms_is_not_made() {
    let (scene, store) = Scene::with_failures(2).await;
    let before = store.counts().await.unwrap();
    for verb in ["retry", "discard"] {
        let ran = scene.run(&["dead-letters", verb, "--all"]);
        assert_eq!(ran.code, 2, "{ran:?}");
        assert!(
            ran.out.contains("shop.charge"),
            "the preview is shown: {}",
            ran.out
        );
        assert!(ran.err.contains("add `--yes` to do it"), "{}", ran.err);
        let ran = scene.run(&["dead-letters", verb, "--all", "--dry-run"]);
        assert_eq!(ran.code, 0, "{ran:?}");
        let ran = scene.run(&["dead-letters", verb, "--yes"]);
        assert_eq!(ran.code, 2, "{ran:?}");
        assert!(ran.err.contains("which dead letters?"), "{}", ran.err);
        let ran = scene.run(&["dead-letters", verb, "1", "--all", "--yes"]);
        assert_eq!(ran.code, 2, "{ran:?}");
    }
    let ran = scene.run(&["outbox", "discard", "--all"]);
    assert_eq!(ran.code, 2, "{ran:?}");
    assert_eq!(store.counts().await.unwrap(), before);
    let audit = scene.json(&["audit"]);
    assert_eq!(audit["audit"], serde_json::json!([]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_whole_group_is_retried_once() {
    let (scene, store) = Scene::with_failures(7).await;
    let retry = ["dead-letters", "retry", "--text", "DECLINED"];
    let ran = scene.run(&[&retry[..], &["--yes", "--why", "gateway is back"]].concat());
    assert_eq!(
        (
            ran.code,
            ran.out.contains("retried 7 dead letters (operation 1)")
        ),
        (0, true),
        "{ran:?}"
    );
    let counts = store.counts().await.unwrap();
    assert_eq!((counts.outbox, counts.dead_letters), (7, 0));
    let ran = scene.run(&[&retry[..], &["--yes"]].concat());
    assert_eq!(
        (ran.code, ran.out.as_str()),
        (0, "retried 0 dead letters\n")
    );

    let audit = scene.json(&["audit", "--oldest-first"]);
    let rows: Vec<_> = audit["audit"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| {
            assert_eq!((&one["who"], &one["operation"]), (&"ada".into(), &1.into()));
            assert_eq!(one["why"], "gateway is back");
            let count = one["detail"].as_array().unwrap().len();
            (one["action"].as_str().unwrap(), count)
        })
        .collect();
    assert_eq!(rows, [("begin_operation", 1), ("redrive_dead_letters", 7)]);
    assert_eq!(
        scene.json(&["audit", "--oldest-first", "--operation", "1"]),
        audit
    );
    let others = scene.json(&["audit", "--operation", "2"]);
    assert_eq!(others["audit"], serde_json::json!([]));
    let id = audit["audit"][1]["id"].to_string();
    let ran = scene.run(&["audit", &id]);
    assert!(
        ran.out.starts_with("redrive_dead_letters, by ada, "),
        "{ran:?}"
    );
    assert!(
        ran.out.contains("why: gateway is back\noperation 1\n"),
        "{ran:?}"
    );
    assert_eq!(ran.out.matches("\"message_type\"").count(), 7, "{ran:?}");
    let redriven = scene.json(&["dead-letters", "list", "--status", "redriven"]);
    assert_eq!(redriven["dead_letters"].as_array().unwrap().len(), 7);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_prints_one_document_of_json() {
    let (scene, _) = Scene::with_failures(4).await;
    let preview = scene.json(&["dead-letters", "retry", "--all", "--dry-run"]);
    assert_eq!(preview["preview"]["count"], 4);
    let result = scene.json(&["dead-letters", "retry", "1", "2", "--yes"]);
    assert_eq!(
        (&result["state"], &result["changed"], &result["passed_over"]),
        (&"done".into(), &2.into(), &0.into())
    );
    let result = scene.json(&["dead-letters", "discard", "2", "3", "--yes"]);
    assert_eq!(
        (&result["changed"], &result["passed_over"]),
        (&1.into(), &1.into())
    );
    let shown = scene.json(&["operations", "show", "1"]);
    assert_eq!(shown["redriven"]["waiting"], 2);
    let listed = scene.json(&["operations", "list"]);
    assert_eq!(listed["operations"].as_array().unwrap().len(), 2);
    let preview = scene.json(&["outbox", "discard", "--all", "--dry-run"]);
    assert_eq!(preview["preview"]["count"], 1);
    let result = scene.json(&["outbox", "discard", "--all", "--yes"]);
    assert_eq!(result["changed"], 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_named_twice_is_meant_once() {
    let (scene, _) = Scene::with_failures(2).await;
    let twice = ["dead-letters", "discard", "2", "1", "2"];
    let preview = scene.json(&[&twice[..], &["--dry-run"]].concat());
    assert_eq!(preview["preview"]["count"], 2);
    let result = scene.json(&[&twice[..], &["--yes"]].concat());
    assert_eq!(
        (&result["changed"], &result["passed_over"]),
        (&2.into(), &0.into())
    );
    let row = scene.json(&["outbox", "parked"])["rows"][0]["id"].to_string();
    let result = scene.json(&["outbox", "discard", &row, &row, "--yes"]);
    assert_eq!(
        (&result["changed"], &result["passed_over"]),
        (&1.into(), &0.into())
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rate_is_kept() {
    let (scene, _) = Scene::with_failures(10).await;
    let started = tokio::time::Instant::now();
    let ran = scene.run(&["dead-letters", "discard", "--all", "--rate", "10", "--yes"]);
    assert_eq!(ran.code, 0, "{ran:?}");
    // Ten at ten a second, two at a time; faster would be a broken promise.
    assert!(
        started.elapsed().as_millis() >= 800,
        "{:?}",
        started.elapsed()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_discarded_by_mistake_is_restored() {
    let (scene, store) = Scene::with_failures(3).await;
    assert_eq!(
        scene
            .run(&["dead-letters", "discard", "1", "3", "--yes"])
            .code,
        0
    );
    assert_eq!(store.counts().await.unwrap().dead_letters, 1);
    let ran = scene.run(&["dead-letters", "restore", "3", "--yes"]);
    assert_eq!(
        ran.out.lines().last(),
        Some("restored 1 dead letters (operation 2)")
    );
    assert_eq!(store.counts().await.unwrap().dead_letters, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_parked_command_without_owner_stays_and_can_be_discarded() {
    let (scene, store) = Scene::with_failures(0).await;
    let ran = scene.run(&["outbox", "release", "--all", "--yes"]);
    assert_eq!(ran.code, 0, "{ran:?}");
    assert!(
        ran.out
            .contains("released 0 rows (operation 1)\n1 stay as they are"),
        "{}",
        ran.out
    );
    assert_eq!(store.counts().await.unwrap().parked, 1);
    let ran = scene.run(&["outbox", "discard", "--type", "shop.ship", "--yes"]);
    assert!(ran.out.contains("discarded 1 rows"), "{ran:?}");
    assert_eq!(store.counts().await.unwrap().parked, 0);
    let audit = scene.json(&["audit"]);
    assert_eq!(audit["audit"][0]["detail"][0]["message_type"], "shop.ship");
}
