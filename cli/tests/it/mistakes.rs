//! Mistakes that tools for operators made before, each with a test that this one does not repeat it:
//! the table in `CONTRIBUTING.md` names them all.

use std::path::Path;

use sagabus_core::admin::{AuditFilter, Page, RowFilter, StoreAdmin};
use sagabus_core::message::{self, Kind, Message};
use sagabus_core::unit_of_work::InstanceStatus;

use crate::parcels;
use crate::scene::{Scene, host, program, run};

/// A command whose number no reader with floating point keeps.
#[derive(serde::Serialize, serde::Deserialize)]
struct Large {
    z: u128,
    a: i64,
}

impl Message for Large {
    const TYPE: &'static str = "shop.large";
    const KIND: Kind = Kind::Command;
}
impl message::Command for Large {}

#[tokio::test(flavor = "multi_thread")]
async fn numbers_and_their_order_are_shown_as_they_came() {
    let (scene, store) = Scene::new().await;
    let host = host(store.clone()).await;
    let (z, a) = (u128::MAX, i64::MIN);
    host.bus().send(Large { z, a }).await.unwrap();
    let row = store.rows(&RowFilter::default(), Page::latest(1)).await;
    let id = row.unwrap()[0].id.to_string();
    let shown = scene.run(&["outbox", "show", &id]);
    let wanted = format!("{{\n  \"z\": {z},\n  \"a\": {a}\n}}\n");
    assert!(shown.out.ends_with(&wanted), "{}", shown.out);
    let json = scene.json(&["outbox", "show", &id]);
    let text = json["body"]["text"].as_str().unwrap();
    assert_eq!(text, format!("{{\"z\":{z},\"a\":{a}}}"));
    assert!(host.stop(std::time::Duration::from_secs(10)).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_discarded_does_not_come_back_with_a_retry_of_all() {
    let (scene, store) = Scene::with_failures(3).await;
    let discarded = scene.run(&["dead-letters", "discard", "2", "--yes"]);
    assert_eq!(discarded.code, 0, "{discarded:?}");
    let retried = scene.run(&["dead-letters", "retry", "--all", "--yes"]);
    assert_eq!(retried.code, 0, "{retried:?}");
    let rows = store.rows(&RowFilter::default(), Page::oldest(10)).await;
    let charges = rows.unwrap().into_iter();
    let charges = charges.filter(|row| &*row.envelope.message_type == "shop.charge");
    assert_eq!(charges.count(), 2, "two of three come again");
    let left = scene.json(&["dead-letters", "list", "--status", "discarded"]);
    assert_eq!(left["dead_letters"][0]["id"], 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn names_with_slashes_dots_and_spaces_are_names() {
    let (scene, store) = Scene::new().await;
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(scene.file());
    let mut connection = sqlx::ConnectOptions::connect(&options).await.unwrap();
    for key in ["a/b", "../../etc/passwd", "a b", "ü.%2f", "-1"] {
        sqlx::query(
            "insert into sagabus_instance (kind, key, version, completed, schema_version, data, \
             timers, created_at, updated_at) values ('parcel', $1, 1, 0, 1, x'7b7d', x'7b7d', 0, 0)",
        )
        .bind(key)
        .execute(&mut connection)
        .await
        .unwrap();
        let shown = scene.run(&["sagas", "show", "--", "parcel", key]);
        assert_eq!(shown.code, 0, "{key}: {shown:?}");
        assert!(shown.out.contains(key), "{key}: {shown:?}");
        let found = scene.json(&["sagas", "list", &format!("--key={key}")]);
        assert_eq!(found["instances"][0]["key"], key);
    }
    let running = store.counts().await.unwrap().running;
    assert_eq!(running, 5, "{:?}", InstanceStatus::Running);
}

/// Collects what all sources under a folder say.
fn sources(folder: &Path, into: &mut String) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, into);
        } else if path.extension().is_some_and(|end| end == "rs") {
            into.push_str(&std::fs::read_to_string(&path).unwrap());
        }
    }
}

#[test]
fn every_mistake_has_a_test_that_is_there() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let page = std::fs::read_to_string(root.join("CONTRIBUTING.md")).unwrap();
    let (_, section) = page
        .split_once("### Mistakes that other tools made")
        .unwrap();
    let (table, _) = section.split_once("\n## ").unwrap();
    let rows = table.lines().filter_map(|line| line.strip_prefix("| "));
    let tests = rows.filter_map(|row| row.split_once(" | ")).skip(1);
    let mut all = String::new();
    for folder in ["bus-core", "ops", "cli", "testkit"] {
        sources(&root.join(folder), &mut all);
    }
    let mut count = 0;
    for (mistake, tests) in tests {
        for name in tests.split('`').skip(1).step_by(2) {
            assert!(all.contains(&format!("fn {name}(")), "{mistake}: {name}");
            count += 1;
        }
    }
    assert!(count >= 18, "{count} tests are named");
}

#[test]
fn what_is_watched_is_never_changed_without_a_word() {
    let ran = run(&["--watch", "1", "outbox", "discard", "--all", "--yes"]);
    assert_eq!(ran.code, 2, "{ran:?}");
    let ran = run(&["--watch", "0", "status"]);
    assert_eq!(ran.code, 2, "{ran:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_looks_again_and_ends_with_the_store() {
    let (scene, _) = Scene::new().await;
    let file = scene.file();
    let mut watching = program(&["--store", file.to_str().unwrap(), "--watch", "1", "status"])
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut out = std::io::BufReader::new(watching.stdout.take().unwrap());
    let mut seen = 0;
    while seen < 2 {
        let mut line = String::new();
        assert!(
            std::io::BufRead::read_line(&mut out, &mut line).unwrap() > 0,
            "it ended"
        );
        seen += usize::from(line.starts_with("store "));
        assert!(
            !line.contains('\u{1b}'),
            "no terminal, no control: {line:?}"
        );
    }
    std::fs::remove_file(&file).unwrap();
    let ended = watching.wait().unwrap();
    assert_eq!(ended.code(), Some(4));
}

#[tokio::test(flavor = "multi_thread")]
async fn probes_and_questions_leave_no_trace() {
    let (scene, store) = Scene::new().await;
    let host = parcels::host(store.clone(), parcels::Release::Current).await;
    let before = store.counts().await.unwrap();
    for _ in 0..100 {
        assert!(host.health().liveness().is_well && host.health().readiness().is_well);
    }
    for question in [
        &["status"][..],
        &["hosts"],
        &["timers", "list"],
        &["schedules", "list"],
    ] {
        assert_eq!(scene.run(question).code, 0);
    }
    assert_eq!(store.counts().await.unwrap(), before);
    assert!(
        store
            .audit(&AuditFilter::default(), Page::latest(1))
            .await
            .unwrap()
            .is_empty()
    );
    assert!(host.stop(std::time::Duration::from_secs(10)).await);
}
