//! Error codes: each is in the table, in the sources, and in the page made from the table.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use sagabus_core::error::codes::ALL;

use crate::scene::{Scene, run};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Returns every code in brackets that a folder's sources end an error with.
fn codes_under(folder: &Path, found: &mut BTreeSet<String>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            codes_under(&path, found);
        } else if path.extension().is_some_and(|end| end == "rs") {
            let text = std::fs::read_to_string(&path).unwrap();
            let behind = text.split("[SB").skip(1);
            let codes = behind.filter_map(|rest| Some(format!("SB{}", rest.split_once(']')?.0)));
            found.extend(codes.filter(|code| code.len() == 6));
        }
    }
}

#[test]
fn every_code_is_in_the_table_and_in_use() {
    let mut used = BTreeSet::new();
    for folder in [
        "bus-core/src",
        "bus-rabbitmq/src",
        "bus-kafka/src",
        "outbox/src",
        "ops/src",
        "cli/src",
        "saga/src",
    ] {
        codes_under(&root().join(folder), &mut used);
    }
    // Examples in the documentation and tests of the table itself.
    used.remove("SB9999");
    let known: BTreeSet<_> = ALL.iter().map(|one| one.code.to_owned()).collect();
    assert_eq!(
        used.difference(&known).collect::<Vec<_>>(),
        [""; 0],
        "not in the table"
    );
    assert_eq!(
        known.difference(&used).collect::<Vec<_>>(),
        [""; 0],
        "in no error"
    );
}

#[test]
fn the_page_says_what_the_table_says() {
    let mut page = String::from(
        "# Error codes\n\n\
         Errors that people read end with a code, like `[SB0204]`: the thing, the fact and what to \
         do are in the error; the rest is here, and in `sagabus explain SB0204`. This page is made \
         from `bus-core/src/error/codes.rs`: `BLESS=1 cargo test -p sagabus-cli --test it explain`.\n",
    );
    for one in ALL {
        let (code, title, why, remedy) = (one.code, one.title, one.why, one.remedy);
        page.push_str(&format!("\n## {code}: {title}\n\n{why}\n\n{remedy}\n"));
    }
    let file = root().join("docs/errors.md");
    if std::env::var_os("BLESS").is_some() {
        std::fs::write(&file, &page).unwrap();
    }
    let written = std::fs::read_to_string(file).unwrap();
    assert!(
        written == page,
        "docs/errors.md is not what the table says; bless it"
    );
}

#[test]
fn a_code_is_explained_without_a_database() {
    let ran = run(&["explain", "sb0204"]);
    assert_eq!(ran.code, 0, "{ran:?}");
    assert!(
        ran.out.starts_with("SB0204: the schema is missing\n"),
        "{}",
        ran.out
    );
    let all = run(&["explain"]);
    assert_eq!(all.out.lines().count(), ALL.len() + 1);
    let unknown = run(&["explain", "SB9999\u{1b}[2J"]);
    assert_eq!(unknown.code, 3, "{unknown:?}");
    assert!(unknown.err.contains("\\u{1b}"), "{unknown:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn errors_end_with_their_code_and_say_where_more_is() {
    let (scene, _) = Scene::new().await;
    for (arguments, code) in [
        (&["dead-letters", "show", "4711"][..], "SB0401"),
        (&["dead-letters", "retry", "--yes"], "SB0304"),
        (&["outbox", "discard", "--yes"], "SB0304"),
        (
            &["messages", "show", "018f4e5a-0000-7000-8000-000000000001"],
            "SB0401",
        ),
        (&["schedules", "show", "nothing"], "SB0401"),
        (&["endpoints", "remove", "nobody", "--yes"], "SB0401"),
        (&["sagas", "show", "order", "4711"], "SB0401"),
        (&["operations", "show", "4711"], "SB0401"),
        (&["locks", "break", "room/12"], "SB0401"),
        (&["machines", "show", "nobody"], "SB0401"),
        (&["describe", "nobody"], "SB0401"),
        (&["timers", "show", "4711"], "SB0401"),
        (
            &["inbox", "show", "018f4e5a-0000-7000-8000-000000000001"],
            "SB0401",
        ),
        (
            &["dead-letters", "retry", "--all", "--status", "any"],
            "SB0308",
        ),
        (&["plan"], "SB0308"),
        (&["plan", "--release", "nowhere.json"], "SB0308"),
        (&["schema", "grants"], "SB0308"),
        (
            &[
                "dead-letters",
                "edit",
                "1",
                "--body",
                "no",
                "--identity",
                "new",
            ],
            "SB0308",
        ),
        (&["schema", "migrate", "--role", "operator"], "SB0408"),
        (
            &["outbox", "release", "1", "--to", "?nobody", "--yes"],
            "SB0401",
        ),
        (&["demo", "--role", "reader"], "SB0408"),
    ] {
        let ran = scene.run(arguments);
        assert_ne!(ran.code, 0);
        assert!(
            ran.err.contains(&format!("[{code}]\n")),
            "{arguments:?}: {ran:?}"
        );
        let more = format!("`sagabus explain {code}` tells more");
        assert!(ran.err.contains(&more), "{arguments:?}: {ran:?}");
    }
    for (arguments, code) in [
        (&["status"][..], "SB0301"),
        (&["--store", "mysql://h/x", "status"], "SB0302"),
        (&["--store", "/nowhere.db", "status"], "SB0303"),
        (&["--store", "postgres://u@[", "status"], "SB0212"),
        (&["--store", "/", "schema", "migrate"], "SB0216"),
        (
            &["--store", "postgres://u@127.0.0.1:1/x", "status"],
            "SB0226",
        ),
    ] {
        let ran = run(arguments);
        assert!(ran.err.contains(code), "{arguments:?}: {ran:?}");
    }
}
