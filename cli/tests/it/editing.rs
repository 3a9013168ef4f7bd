//! What the program writes itself: bodies and data.

use std::time::Duration;

use sagabus_core::Store;
use sagabus_core::admin::{Page, RowFilter, StoreAdmin};
use sagabus_outbox::PgStore;
use serde_json::json;

use crate::parcels::{self, Hand, Release};
use crate::postgres::Database;
use crate::sagas::{lost_one, parcel};
use crate::scene::{Ran, Scene, run};

/// Writes a file beside the database, and returns its name.
fn file(scene: &Scene, text: &str) -> String {
    let path = scene.file().with_extension("json");
    std::fs::write(&path, text).unwrap();
    path.to_str().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_letter_is_edited_and_retried() {
    let (scene, store) = Scene::with_failures(3).await;
    let body = file(&scene, r#"{"order":99,"note":"mended"}"#);
    let edit = |id: &'static str, identity: &'static str| {
        [
            "dead-letters",
            "edit",
            id,
            "--body",
            &body,
            "--identity",
            identity,
        ]
        .map(str::to_owned)
        .to_vec()
    };
    let run = |arguments: Vec<String>, more: &[&str]| {
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        scene.run(&[&arguments[..], more].concat())
    };
    let unsure = run(edit("1", "keep"), &[]);
    assert_eq!(unsure.code, 2, "{unsure:?}");
    assert!(unsure.out.contains("before:") && unsure.out.contains("mended"));
    let preview = run(edit("1", "keep"), &["--dry-run"]);
    assert_eq!(preview.code, 0, "{preview:?}");
    assert_eq!(store.counts().await.unwrap().dead_letters, 3);

    let dead = store.dead_letters(3).await.unwrap();
    let (first, second) = (&dead[2], &dead[1]);
    for (id, identity) in [("1", "keep"), ("2", "new")] {
        let done = run(edit(id, identity), &["--yes", "--why", "typo"]);
        assert_eq!(done.code, 0, "{done:?}");
    }
    let again = run(edit("1", "keep"), &["--yes"]);
    assert_eq!(again.code, 1, "{again:?}");
    assert!(again.err.contains("dead letter 1 is redriven"), "{again:?}");
    let rows = store.rows(&RowFilter::default(), Page::oldest(10)).await;
    let rows: Vec<_> = rows.unwrap();
    let sent: Vec<_> = rows.iter().filter(|row| row.parked.is_none()).collect();
    assert_eq!(sent.len(), 2);
    assert_eq!(sent[0].envelope.id, first.envelope.id);
    assert_ne!(sent[1].envelope.id, second.envelope.id);
    for row in sent {
        assert_eq!(&row.envelope.body[..], br#"{"order":99,"note":"mended"}"#);
    }
    let audit = scene.json(&["audit", "--limit", "1"]);
    let detail = &audit["audit"][0]["detail"][0];
    assert_eq!(detail["id"], 2);
    assert!(
        detail["before"]["text"]
            .as_str()
            .unwrap()
            .contains("\"order\":1")
    );
    assert!(detail["after"]["text"].as_str().unwrap().contains("mended"));
    let hidden = scene.json(&["audit", "--limit", "1", "--role", "reader"]);
    let detail = &hidden["audit"][0]["detail"][0];
    assert_eq!(
        (&detail["id"], &detail["before"], &detail["after"]),
        (&2.into(), &json!(null), &json!(null))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_is_no_json_is_refused() {
    let (scene, store) = Scene::with_failures(1).await;
    let body = file(&scene, "{\"order\": ");
    let edit = ["dead-letters", "edit", "1", "--body"];
    let refused = scene.run(&[&edit[..], &[&body, "--identity", "keep", "--yes"]].concat());
    assert_eq!(refused.code, 1, "{refused:?}");
    assert!(
        refused.err.contains("the new body is no JSON"),
        "{refused:?}"
    );
    for (arguments, code) in [
        (&["/nowhere.json", "--identity", "keep", "--yes"][..], 2),
        (&[&body, "--yes"], 2),
        (&[&body, "--identity", "other", "--yes"], 2),
    ] {
        let refused = scene.run(&[&edit[..], arguments].concat());
        assert_eq!(refused.code, code, "{refused:?}");
    }
    assert_eq!(store.counts().await.unwrap().dead_letters, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_instance_is_altered_where_that_makes_sense() {
    let scene = lost_one().await;
    let alter = ["sagas", "alter", "parcel", "2", "--yes"];
    let data = file(&scene, r#"{"parcel":2,"found":true}"#);
    let done = scene.run(&[&alter[..], &["--state", "moving", "--data", &data]].concat());
    assert_eq!(done.code, 0, "{done:?}");
    assert!(
        done.out
            .ends_with("is altered; no live host was there to read it; its version is 3\n"),
        "{done:?}"
    );
    let shown = scene.json(&["sagas", "show", "parcel", "2"]);
    assert_eq!(
        (&shown["state"], &shown["version"]),
        (&"moving".into(), &3.into())
    );
    assert_eq!(shown["data"]["text"], r#"{"parcel":2,"found":true}"#);

    for (data, state, text) in [
        (
            "[1]",
            "moving",
            "the data was an object and would be a list",
        ),
        ("{", "moving", "the data is no JSON"),
        (r#"{"$saga":{},"data":{}}"#, "moving", "the part `$saga`"),
        (r#"{"parcel":2}"#, "flying", "has no state `flying`"),
    ] {
        let data = file(&scene, data);
        let ran = scene.run(&[&alter[..], &["--state", state, "--data", &data]].concat());
        assert_eq!(ran.code, 1, "{ran:?}");
        assert!(ran.err.contains(text), "{ran:?}");
    }
    assert_eq!(scene.run(&alter).code, 2, "nothing is to be altered");
    let nobody = scene.run(&["sagas", "alter", "parcel", "77", "--state", "lost", "--yes"]);
    assert_eq!(nobody.code, 3, "{nobody:?}");
    let shown = scene.json(&["sagas", "show", "parcel", "2"]);
    assert_eq!(shown["version"], 3);
    let hidden = scene.json(&["sagas", "show", "parcel", "2", "--role", "reader"]);
    assert_eq!(
        (&hidden["version"], &hidden["data"]["text"]),
        (&3.into(), &json!(""))
    );
}

/// Alters an instance that a live host can be asked about, by a program that goes on this database.
async fn a_live_host_reads_it(store: impl StoreAdmin + Store + Clone, program: &Program<'_>) {
    let host = parcels::host(store.clone(), Release::Current).await;
    host.bus().send(Hand { parcel: 2 }).await.unwrap();
    sagabus_testkit::wait::eventually("a parcel", || async {
        store.instance(&parcel("2")).await.unwrap()
    })
    .await;
    let alter = ["sagas", "alter", "parcel", "2", "--yes", "--data"];
    let unread = program(&[&alter[..], &[r#"{"parcel":"two"}"#]].concat());
    assert_eq!(unread.code, 1, "{unread:?}");
    let told = "`parcel` cannot read it, says carrier: ";
    assert!(unread.err.contains(told), "{unread:?}");
    assert!(unread.err.contains("invalid type: string"), "{unread:?}");
    let version = async || store.instance(&parcel("2")).await.unwrap().unwrap().version;
    assert_eq!(version().await, 1, "nothing is written");

    let data = r#"{"parcel":2,"note":"found"}"#;
    let read = program(&[&alter[..], &[data]].concat());
    let done = "parcel 2 is altered, read by carrier; its version is 2\n";
    assert!(read.out.ends_with(done), "{read:?}");
    let forced = program(&[&alter[..], &[r#"{"parcel":"two"}"#, "--unread"]].concat());
    let done = "parcel 2 is altered, unread; its version is 3\n";
    assert!(forced.out.ends_with(done), "{forced:?}");
    assert_eq!(version().await, 3);
    assert!(host.stop(Duration::from_secs(10)).await);
}

/// Runs the program with data in place of the file's name.
type Program<'a> = dyn Fn(&[&str]) -> Ran + 'a;

#[tokio::test(flavor = "multi_thread")]
async fn what_an_instance_is_to_be_is_read_by_a_live_host_first() {
    let (scene, store) = Scene::new().await;
    let program = |arguments: &[&str]| {
        let arguments = with_file(&scene, arguments);
        let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
        tokio::task::block_in_place(|| scene.run(&arguments))
    };
    a_live_host_reads_it(store, &program).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_instance_is_to_be_is_read_by_a_live_host_of_a_server_first() {
    let Some(database) = Database::new().await else {
        return;
    };
    let (scene, _) = Scene::new().await;
    let store = PgStore::connect(&database.url).await.unwrap();
    store.migrate().await.unwrap();
    let program = |arguments: &[&str]| {
        let arguments = with_file(&scene, arguments);
        let mut all = vec!["--store", database.url.as_str()];
        all.extend(arguments.iter().map(String::as_str));
        tokio::task::block_in_place(|| run(&all))
    };
    a_live_host_reads_it(store.clone(), &program).await;
    store.close();
    database.drop().await;
}

/// Puts what comes after `--data` into a file.
fn with_file(scene: &Scene, arguments: &[&str]) -> Vec<String> {
    let at = arguments.iter().position(|one| *one == "--data").unwrap() + 1;
    let mut all: Vec<_> = arguments.iter().map(|one| (*one).to_owned()).collect();
    all[at] = file(scene, arguments[at]);
    all
}

#[tokio::test(flavor = "multi_thread")]
async fn an_instance_is_ended_with_its_timers() {
    let scene = lost_one().await;
    let rows = |scene: &Scene| {
        scene.json(&["outbox", "rows"])["rows"]
            .as_array()
            .unwrap()
            .len()
    };
    let before = rows(&scene);
    let preview = scene.json(&["sagas", "complete", "parcel", "1", "--dry-run"]);
    assert_eq!(preview["timers"], json!({ "patience": 1 }));
    let looked = scene.run(&["sagas", "complete", "parcel", "1", "--dry-run"]);
    assert_eq!(
        looked.out, "end parcel 1 and remove its 1 timers\n",
        "{looked:?}"
    );
    let done = scene.run(&["sagas", "complete", "parcel", "1", "--yes", "--why", "sold"]);
    assert_eq!(done.code, 0, "{done:?}");
    let shown = scene.json(&["sagas", "show", "parcel", "1"]);
    assert_eq!(
        (&shown["status"], &shown["timers"]),
        (&"completed".into(), &json!({}))
    );
    assert_eq!(rows(&scene), before - 1, "its timer is gone");
    let again = scene.run(&["sagas", "complete", "parcel", "1", "--yes"]);
    assert_eq!(again.code, 1, "{again:?}");
    assert!(again.err.contains("is over"), "{again:?}");
}
