//! Bulk changes: paused, resumed, cancelled, elsewhere.

use std::process::{Child, Stdio};
use std::time::Duration;

use sagabus_core::admin::{AuditFilter, Page, RowFilter, StoreAdmin};
use sagabus_testkit::wait::eventually;

use crate::scene::{self, Ran, Scene, program};

/// The program on one database, by its URL or path.
struct Program(String);

impl Program {
    fn run(&self, arguments: &[&str]) -> Ran {
        scene::run(&[&["--store", &self.0], arguments].concat())
    }

    fn spawn(&self, arguments: &[&str]) -> Child {
        program(&[&["--store", &self.0], arguments].concat())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap()
    }

    fn on(scene: &Scene) -> Self {
        Self(scene.file().to_str().unwrap().to_owned())
    }
}

/// Waits until only so many dead letters are open.
async fn left_at_most(store: &dyn StoreAdmin, most: u64) {
    eventually("dead letters become fewer", || async {
        let left = store.counts().await.unwrap().dead_letters;
        (left <= most).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pause_is_noticed_by_the_process_that_drives() {
    let (scene, store) = Scene::with_failures(60).await;
    let program = Program::on(&scene);
    let mut child = program.spawn(&["dead-letters", "discard", "--all", "--rate", "10", "--yes"]);
    left_at_most(&store, 55).await;
    let paused = program.run(&["operations", "pause", "1", "--why", "lunch"]);
    assert!(
        paused.out.starts_with("operation 1 is paused"),
        "{paused:?}"
    );
    let stopped = tokio::time::Instant::now();
    assert_eq!(child.wait().unwrap().code(), Some(5));
    assert!(stopped.elapsed() < Duration::from_secs(1), "{stopped:?}");
    let left = store.counts().await.unwrap().dead_letters;
    assert!(left > 0 && left <= 55, "{left}");

    let listed = program.run(&["operations", "list"]).out;
    assert!(
        listed.contains("paused") && listed.contains("lunch"),
        "{listed}"
    );
    let status = program.run(&["status"]).out;
    assert!(
        status.contains("! operation 1 stands still after"),
        "{status}"
    );
    let again = program.run(&["operations", "pause", "1"]);
    assert_eq!(again.code, 1, "{again:?}");
    assert!(
        again
            .err
            .contains("operation 1 is paused; it cannot be paused")
    );
    let cancelled = program.run(&["operations", "cancel", "1"]);
    assert!(
        cancelled.out.contains("is cancelled after"),
        "{cancelled:?}"
    );
    assert!(!program.run(&["status"]).out.contains("operation 1"));
    let resumed = program.run(&["operations", "resume", "1"]);
    assert_eq!(resumed.code, 1, "{resumed:?}");
    assert_eq!(store.counts().await.unwrap().dead_letters, left);
    let audit = store
        .audit(&AuditFilter::default(), Page::latest(2))
        .await
        .unwrap();
    let actions: Vec<_> = audit.iter().map(|one| one.action.as_str()).collect();
    assert_eq!(actions, ["cancel_operation", "pause_operation"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_that_is_only_looked_at_changes_no_operation() {
    let (scene, store) = Scene::with_failures(30).await;
    let host = scene::host(store.clone()).await;
    let ran = scene.run(&["dead-letters", "retry", "--all", "--canary", "4", "--yes"]);
    assert_eq!(ran.code, 5, "{ran:?}");
    assert!(host.stop(Duration::from_secs(10)).await);
    let before = scene.json(&["operations", "show", "1"]);
    let audit = scene.json(&["audit"]);
    for (verb, todo) in [("resume", "go on with"), ("cancel", "cancel")] {
        let looked = scene.run(&["operations", verb, "1", "--dry-run"]);
        let told = format!("would {todo} operation 1, which is paused after 4 of 30\n");
        assert_eq!((looked.code, looked.out), (0, told), "{}", looked.err);
        let json = scene.json(&["operations", verb, "1", "--dry-run"]);
        assert_eq!(json["preview"]["state"], "paused");
    }
    let refused = scene.run(&["operations", "pause", "1", "--dry-run"]);
    assert_eq!(refused.code, 1, "{refused:?}");
    assert!(
        refused.err.contains("it cannot be paused [SB0403]"),
        "{refused:?}"
    );
    assert_eq!(scene.json(&["operations", "show", "1"]), before);
    assert_eq!(scene.json(&["audit"]), audit);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_canary_that_fails_again_stops_the_others() {
    let (scene, store) = Scene::with_failures(30).await;
    let program = Program::on(&scene);
    // The handler is as broken as before.
    let host = scene::host(store.clone()).await;
    let ran = program.run(&["dead-letters", "retry", "--all", "--canary", "4", "--yes"]);
    assert_eq!(ran.code, 5, "{ran:?}");
    assert!(ran.err.contains("of 4 failed again"), "{ran:?}");
    assert!(ran.err.contains("`sagabus operations resume 1` goes on"));
    assert!(host.stop(Duration::from_secs(10)).await);
    let shown = scene.json(&["operations", "show", "1"]);
    assert_eq!(
        (&shown["state"], &shown["taken"]),
        (&"paused".into(), &4.into())
    );
    assert_eq!(shown["redriven"]["died_again"], 4);
    assert_eq!(store.counts().await.unwrap().dead_letters, 30);

    // Whoever resumes it knows of these four.
    let resumed = program.run(&["operations", "resume", "1"]);
    assert_eq!(resumed.code, 0, "{resumed:?}");
    assert!(
        resumed.out.contains("retried 30 dead letters"),
        "{resumed:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn too_many_failures_pause_and_few_do_not() {
    let (scene, store) = Scene::with_failures(60).await;
    let program = Program::on(&scene);
    let host = scene::host(store.clone()).await;
    let slow = ["dead-letters", "retry", "--all", "--rate", "25", "--yes"];
    let ran = program.run(&[&slow[..], &["--stop-at", "20"]].concat());
    assert_eq!(ran.code, 5, "{ran:?}");
    let shown = scene.json(&["operations", "show", "1"]);
    let taken = shown["taken"].as_u64().unwrap();
    assert!((1..60).contains(&taken), "{shown}");
    let ran = program.run(&[
        "dead-letters",
        "retry",
        "--all",
        "--stop-at",
        "100",
        "--yes",
    ]);
    assert_eq!(ran.code, 0, "{ran:?}");
    assert!(host.stop(Duration::from_secs(10)).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn dead_letters_go_to_another_endpoint_that_is_known() {
    let (scene, store) = Scene::with_failures(3).await;
    let program = Program::on(&scene);
    let to = |name| ["dead-letters", "retry", "--all", "--to", name, "--yes"];
    let looked = program.run(&[&to("nowhere")[..5], &["--dry-run"]].concat());
    assert_eq!(looked.code, 3, "{looked:?}");
    let ran = program.run(&to("nowhere"));
    assert_eq!(ran.code, 3, "{ran:?}");
    assert!(
        ran.err.contains("there is no endpoint `nowhere`"),
        "{ran:?}"
    );
    let spare = scene::spare_host(store.clone()).await;
    assert!(spare.stop(Duration::from_secs(10)).await);
    let ran = program.run(&to("spare"));
    assert_eq!(ran.code, 0, "{ran:?}");
    let rows = store.rows(&RowFilter::default(), Page::oldest(10)).await;
    let there = |row: &&sagabus_core::admin::StoredRow| row.destination == "@spare";
    assert_eq!(rows.unwrap().iter().filter(there).count(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pace_that_makes_no_sense_is_refused() {
    let (scene, store) = Scene::with_failures(1).await;
    for (arguments, code) in [
        (&["retry", "--all", "--stop-at", "101"][..], 2),
        (&["retry", "--all", "--rate", "0"], 2),
        (&["discard", "--all", "--canary", "1"], 2),
    ] {
        let ran = scene.run(&[&["dead-letters"], arguments, &["--yes"]].concat());
        assert_eq!(ran.code, code, "{ran:?}");
    }
    for verb in ["show", "pause", "resume", "cancel"] {
        let ran = scene.run(&["operations", verb, "7"]);
        assert_eq!(ran.code, 3, "{verb}: {ran:?}");
    }
    assert_eq!(store.counts().await.unwrap().dead_letters, 1);
}
