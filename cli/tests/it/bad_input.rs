//! What the program is given by mistake, or by those who mean harm.

use crate::scene::{Scene, run};

#[test]
fn a_store_that_cannot_be_used_says_what_to_do() {
    let cases = [
        (&["status"][..], 2, "which database?"),
        (&["--store", "", "status"], 2, "which database?"),
        (
            &["--store", "/nowhere/at/all.db", "status"],
            4,
            "there is no file",
        ),
        (
            &["--store", "sqlite:///nowhere.db", "status"],
            4,
            "there is no file",
        ),
        (
            &["--store", "mysql://root:hunter2@h/x", "status"],
            2,
            "no store speaks `mysql://`",
        ),
        (
            &["--store", "postgres://u:hunter2@127.0.0.1:1/x", "status"],
            4,
            "",
        ),
        (
            &["--store", "postgres://u:hunter2@[", "status"],
            4,
            "cannot be read",
        ),
    ];
    for (arguments, code, text) in cases {
        let ran = run(arguments);
        assert_eq!(ran.code, code, "{ran:?}");
        assert!(ran.err.contains(text), "{ran:?}");
        assert!(
            !ran.err.contains("hunter2"),
            "a password is shown: {}",
            ran.err
        );
        assert!(ran.out.is_empty(), "{ran:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_schema_of_another_release_is_refused() {
    let (scene, store) = Scene::new().await;
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(scene.file());
    let mut connection = sqlx::ConnectOptions::connect(&options).await.unwrap();
    for (version, text) in [(0, "run `store.migrate()`"), (999, "the newer release")] {
        sqlx::query("update sagabus_store set schema_version = $1")
            .bind(version)
            .execute(&mut connection)
            .await
            .unwrap();
        let ran = scene.run(&["dead-letters", "list"]);
        assert_eq!(ran.code, 4, "{ran:?}");
        assert!(ran.err.contains(text), "{ran:?}");
    }
    store.close().await;
}

#[test]
fn a_file_that_is_no_database_is_refused() {
    let ran = run(&["--store", env!("CARGO_BIN_EXE_sagabus"), "status"]);
    assert_eq!(ran.code, 4, "{ran:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn unknown_ids_and_names_have_a_code_of_their_own() {
    let (scene, _) = Scene::new().await;
    for arguments in [
        &["dead-letters", "show", "4711"][..],
        &["dead-letters", "retry", "4711", "--yes"],
        &["outbox", "show", "4711"],
        &["outbox", "discard", "4711", "--yes"],
        &["sagas", "show", "order", "4711"],
        &["messages", "show", "018f4e5a-0000-7000-8000-000000000001"],
        &["endpoints", "remove", "nobody", "--yes"],
        &["describe", "nobody"],
    ] {
        let ran = scene.run(arguments);
        assert_eq!(ran.code, 3, "{arguments:?}: {ran:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn arguments_out_of_bounds_are_refused() {
    let (scene, _) = Scene::new().await;
    for arguments in [
        &["dead-letters", "list", "--limit", "0"][..],
        &["dead-letters", "list", "--limit", "501"],
        &["dead-letters", "list", "--older-than", "soon"],
        &["dead-letters", "show", "first"],
        &["dead-letters", "retry", "--all", "--rate", "0"],
        &["dead-letters", "retry", "--all", "--yes", "--dry-run"],
        &[
            "dead-letters",
            "retry",
            "--all",
            "--status",
            "discarded",
            "--yes",
        ],
        &["messages", "show", "not-an-identity"],
        &["frobnicate"],
    ] {
        let ran = scene.run(arguments);
        assert_eq!(ran.code, 2, "{arguments:?}: {ran:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn texts_of_attackers_are_values_and_nothing_else() {
    let (scene, _) = Scene::with_failures(1).await;
    let hostile = "'; drop table sagabus_outbox; -- % _ \u{1b}[31m";
    for option in [
        "--endpoint",
        "--type",
        "--key",
        "--text",
        "--fingerprint",
        "--reason",
    ] {
        let ran = scene.run(&["dead-letters", "list", option, hostile]);
        assert_eq!(
            (ran.code, ran.out.as_str()),
            (0, "no dead letters\n"),
            "{option}"
        );
    }
    let ran = scene.run(&["sagas", "show", hostile, hostile]);
    assert_eq!(ran.code, 3, "{ran:?}");
    let long = "x".repeat(5000);
    let ran = scene.run(&["dead-letters", "retry", "1", "--yes", "--why", &long]);
    assert_eq!(ran.code, 1, "{ran:?}");
    assert!(ran.err.contains("1000 bytes at most"), "{ran:?}");
}
