//! What the program changes.

use std::collections::HashSet;
use std::process::Stdio;

use sagabus_core::admin::{Page, RowFilter, StoreAdmin};

use crate::scene::{Scene, program};

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
async fn a_whole_group_is_retried_in_batches_once() {
    let (scene, store) = Scene::with_failures(7).await;
    let retry = [
        "dead-letters",
        "retry",
        "--text",
        "DECLINED",
        "--batch",
        "3",
    ];
    let ran = scene.run(&[&retry[..], &["--yes", "--why", "gateway is back"]].concat());
    assert_eq!(
        (ran.code, ran.out.contains("retried 7 dead letters")),
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
            assert_eq!(one["who"], "ada");
            assert_eq!(one["why"], "gateway is back");
            one["detail"].as_array().unwrap().len()
        })
        .collect();
    assert_eq!(rows, [3, 3, 1]);
    let redriven = scene.json(&["dead-letters", "list", "--status", "redriven"]);
    assert_eq!(redriven["dead_letters"].as_array().unwrap().len(), 7);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frozen_selection_leaves_what_died_later() {
    let (scene, store) = Scene::with_failures(5).await;
    let change = ["dead-letters", "retry", "--up-to", "2", "--yes"];
    let changed = scene.run(&change);
    assert_eq!(changed.code, 0, "{changed:?}");
    let left: Vec<i64> = store
        .dead_letters(10)
        .await
        .unwrap()
        .iter()
        .map(|one| one.id)
        .collect();
    assert_eq!(left, [5, 4, 3]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_prints_one_document_of_json() {
    let (scene, _) = Scene::with_failures(4).await;
    let preview = scene.json(&["dead-letters", "retry", "--all", "--dry-run"]);
    assert_eq!(preview["preview"]["count"], 4);
    assert_eq!(preview["up_to"], 4);
    let result = scene.json(&["dead-letters", "retry", "--up-to", "2", "--yes"]);
    let expected = serde_json::json!({ "changed": 2, "passed_over": 0, "up_to": 2 });
    assert_eq!(result, expected);
    let result = scene.json(&["dead-letters", "discard", "2", "3", "--yes"]);
    assert_eq!(
        (&result["changed"], &result["passed_over"]),
        (&1.into(), &1.into())
    );
    let preview = scene.json(&["outbox", "discard", "--all", "--dry-run"]);
    assert_eq!(preview["preview"]["count"], 1);
    let result = scene.json(&["outbox", "discard", "--all", "--yes"]);
    assert_eq!(result["changed"], 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rate_is_kept() {
    let (scene, _) = Scene::with_failures(10).await;
    let started = tokio::time::Instant::now();
    let ran = scene.run(&["dead-letters", "discard", "--all", "--rate", "10", "--yes"]);
    assert_eq!(ran.code, 0, "{ran:?}");
    // Ten at ten a second; faster would be a broken promise, slower a busy machine.
    assert!(
        started.elapsed().as_millis() >= 900,
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
    assert_eq!(ran.out.lines().last(), Some("restored 1 dead letters"));
    assert_eq!(store.counts().await.unwrap().dead_letters, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_parked_command_without_owner_stays_and_can_be_discarded() {
    let (scene, store) = Scene::with_failures(0).await;
    let ran = scene.run(&["outbox", "release", "--all", "--yes"]);
    assert_eq!(ran.code, 0, "{ran:?}");
    assert!(
        ran.out.contains("released 0 rows\n1 stay as they are"),
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

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_bulk_change_goes_on_and_neither_loses_nor_repeats_one() {
    let (scene, store) = Scene::with_failures(60).await;
    let file = scene.file();
    let slow = ["--batch", "2", "--rate", "20", "--yes"];
    let store_is = ["--store", file.to_str().unwrap()];
    let retry = [&store_is[..], &["dead-letters", "retry", "--all"], &slow].concat();
    let mut child = program(&retry).stdout(Stdio::null()).spawn().unwrap();
    sagabus_testkit::wait::eventually("some are retried", || async {
        let left = store.counts().await.unwrap().dead_letters;
        (left < 50).then_some(())
    })
    .await;
    child.kill().unwrap();
    child.wait().unwrap();
    let counts = store.counts().await.unwrap();
    assert!(counts.dead_letters > 0, "it was killed in the middle");
    assert_eq!(
        counts.outbox + counts.dead_letters,
        60,
        "each is one or the other"
    );

    let ran = scene.run(&["dead-letters", "retry", "--all", "--yes"]);
    let expected = format!("retried {} dead letters", counts.dead_letters);
    assert_eq!(ran.out.lines().last(), Some(expected.as_str()), "{ran:?}");
    let rows = store
        .rows(&RowFilter::default(), Page::oldest(500))
        .await
        .unwrap();
    let sent = rows.iter().filter(|row| row.parked.is_none());
    let messages: Vec<_> = sent.map(|row| row.envelope.id).collect();
    let distinct: HashSet<_> = messages.iter().collect();
    assert_eq!((messages.len(), distinct.len()), (60, 60));
    let audit = store.audit(Page::oldest(500)).await.unwrap();
    let noted: usize = audit
        .iter()
        .map(|one| one.detail.as_array().map_or(0, Vec::len))
        .sum();
    assert_eq!(noted, 60, "the audit has each once");
}
