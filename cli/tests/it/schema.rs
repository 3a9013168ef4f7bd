//! The schema as a noun, names that lead to another noun, and a release compared from outside.

use std::path::Path;

use sagabus_core::admin::StoreAdmin;
use serde_json::{Value, json};

use crate::rehearsing::on_file;
use crate::scene::{Scene, run};

#[tokio::test(flavor = "multi_thread")]
async fn a_schema_says_of_which_version_it_is() {
    let (scene, store) = Scene::new().await;
    let version = store.about().await.unwrap().schema_version;
    let ran = scene.run(&["schema", "status"]);
    let line = format!("the schema is of version {version}, as this release needs it\n");
    assert_eq!((ran.code, ran.out), (0, line), "{}", ran.err);
    let json = scene.json(&["schema", "status"]);
    assert_eq!(
        json,
        json!({ "schema_version": version, "needed": version })
    );

    on_file(&scene, "update sagabus_store set schema_version = 0").await;
    let ran = scene.run(&["schema", "status"]);
    assert_eq!(ran.code, 4, "{ran:?}");
    assert!(
        ran.err.contains("of version 0") && ran.err.contains("SB0206"),
        "{ran:?}"
    );
    let missing = run(&["--store", "nowhere.db", "schema", "status"]);
    assert_eq!(missing.code, 4, "{missing:?}");
    assert!(!Path::new("nowhere.db").exists(), "looking makes no file");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_migration_that_is_only_looked_at_is_not_made() {
    let (scene, store) = Scene::new().await;
    let version = store.about().await.unwrap().schema_version;
    let look = ["schema", "migrate", "--dry-run"];
    let ran = scene.run(&look);
    let line = format!("nothing would be changed: the schema is of version {version}\n");
    assert_eq!((ran.code, ran.out), (0, line), "{}", ran.err);

    on_file(&scene, "update sagabus_store set schema_version = 0").await;
    let ran = scene.run(&look);
    let line = format!("would bring the schema to version {version}; now:\n");
    assert!(ran.code == 0 && ran.out.starts_with(&line), "{ran:?}");
    assert!(ran.out.contains("of version 0"), "{ran:?}");
    let json = scene.json(&look);
    assert_eq!(json["preview"]["schema_version"], Value::Null);
    assert_eq!(json["preview"]["needed"], version);
    assert_eq!(scene.run(&["schema", "status"]).code, 4, "it is as it was");

    for noun in [&look[..], &["demo", "--dry-run"]] {
        let missing = run(&[&["--store", "nowhere.db"], noun].concat());
        assert_eq!(missing.code, 0, "{missing:?}");
        assert!(!Path::new("nowhere.db").exists(), "looking makes no file");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn instances_and_why_are_other_words_for_sagas_and_messages_show() {
    let (scene, store) = Scene::with_failures(1).await;
    let [sagas, instances] = ["sagas", "instances"].map(|noun| scene.run(&[noun, "list"]));
    assert_eq!((sagas.code, &sagas.out), (0, &instances.out));
    let dead = store.counts().await.unwrap().dead_letters;
    assert_eq!(dead, 1);
    let shown = scene.json(&["dead-letters", "show", "1"]);
    let id = shown["message_id"].as_str().unwrap();
    let [show, why] = ["show", "why"].map(|verb| scene.run(&["messages", verb, id]));
    assert!(show.out.contains("given up at payments"), "{show:?}");
    assert_eq!((show.code, &show.out), (why.code, &why.out));
}

/// Compares a release, told by a file.
fn plan(scene: &Scene, release: &Value) -> (i32, String) {
    let file = scene.file().with_extension("json");
    std::fs::write(&file, release.to_string()).unwrap();
    let ran = scene.run(&["plan", "--release", file.to_str().unwrap()]);
    (ran.code, ran.out + &ran.err)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_release_is_compared_by_what_its_program_said() {
    let (scene, _) = Scene::with_failures(2).await;
    let retried = scene.run(&["dead-letters", "retry", "--all", "--yes"]);
    assert_eq!(retried.code, 0, "two messages wait: {retried:?}");
    let mut release = scene.json(&["describe"]);
    let (code, said) = plan(&scene, &release);
    assert_eq!(code, 0, "{said}");
    release["hosts"][0]["endpoints"] = json!([]);
    let (code, said) = plan(&scene, &release);
    assert_eq!(code, 6, "{said}");
    assert!(said.contains("payments"), "{said}");

    for nonsense in [json!({}), json!({ "hosts": [] }), json!({ "hosts": [{}] })] {
        let (code, said) = plan(&scene, &nonsense);
        assert_eq!(code, 2, "{nonsense}: {said}");
    }
    let ran = scene.run(&["plan"]);
    assert_eq!(ran.code, 2, "{ran:?}");
    assert!(ran.err.contains("--release FILE"), "{ran:?}");
}
