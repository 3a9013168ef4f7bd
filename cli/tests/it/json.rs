//! The shape of every `--json`: names and types, which programs rely on.

use std::collections::BTreeMap;
use std::time::Duration;

use sagabus_core::cron;
use serde_json::Value;

use crate::scene::{Scene, Ship, compare, host_with};

/// Describes a document: an object by its names, a list by what its entries have together.
fn shape(value: &Value, indent: usize) -> String {
    match value {
        Value::Null => "null".to_owned(),
        Value::Bool(_) => "bool".to_owned(),
        Value::Number(_) => "number".to_owned(),
        Value::String(_) => "string".to_owned(),
        Value::Array(all) => {
            let mut shapes: Vec<_> = all.iter().map(|one| shape(one, indent)).collect();
            shapes.sort();
            shapes.dedup();
            format!("[{}]", shapes.join(" | "))
        }
        Value::Object(all) => {
            let pad = "  ".repeat(indent + 1);
            let names: BTreeMap<_, _> = all.iter().collect();
            let line = |(name, one): (&&String, &&Value)| {
                let deep = ["definitions", "headers", "detail", "clock_behind_seconds"]
                    .contains(&name.as_str());
                let shown = if deep {
                    "..".to_owned()
                } else {
                    shape(one, indent + 1)
                };
                format!("{pad}{name}: {shown}\n")
            };
            let lines: String = names.iter().map(line).collect();
            format!("{{\n{lines}{}}}", "  ".repeat(indent))
        }
    }
}

/// Describes what each command prints.
fn shapes(scene: &Scene, commands: &[Vec<&str>]) -> String {
    let mut text = String::new();
    for command in commands {
        let document = scene.json(command);
        let is_word = |word: &&&str| word.parse::<i64>().is_err() && word.len() < 30;
        let path: Vec<_> = command.iter().filter(is_word).copied().collect();
        let path = path.join(" ");
        text.push_str(&format!("## {path}\n\n{}\n\n", shape(&document, 0)));
    }
    text
}

#[tokio::test(flavor = "multi_thread")]
async fn the_shape_of_every_document_is_what_it_was() {
    let (scene, store) = Scene::with_failures(2).await;
    let host = host_with(store, |builder| {
        builder.recurring("report", cron("0 6 1 1 *"), |_| Ship { order: 1 })
    })
    .await;
    let dead = scene.json(&["dead-letters", "list"])["dead_letters"][0].clone();
    let message = dead["message_id"].as_str().unwrap_or_default().to_owned();
    let row = scene.json(&["outbox", "parked"])["rows"][0]["id"].to_string();
    let commands: Vec<Vec<&str>> = vec![
        vec!["status"],
        vec!["dead-letters", "list"],
        vec!["dead-letters", "show", "1"],
        vec!["dead-letters", "groups"],
        vec!["outbox", "list"],
        vec!["outbox", "rows"],
        vec!["outbox", "show", &row],
        vec!["inbox", "list"],
        vec!["inbox", "show", &message],
        vec!["sagas", "list"],
        vec!["messages", "show", &message],
        vec!["messages", "trace", &message],
        vec!["hosts"],
        vec!["describe"],
        vec!["endpoints", "list"],
        vec!["machines", "list"],
        vec!["schedules", "list"],
        vec!["schedules", "show", "report"],
        vec!["accounts"],
        vec!["audit"],
        vec!["explain", "SB0204"],
        vec!["explain", "exit-codes"],
    ];
    let mut text = shapes(&scene, &commands);
    assert!(host.stop(Duration::from_secs(10)).await);
    let doctor = scene.run(&["doctor", "--json"]);
    let document: Value = serde_json::from_str(&doctor.out).unwrap();
    text.push_str(&format!("## doctor\n\n{}\n", shape(&document, 0)));
    compare("json.txt", &text);
}

/// Each change twice: looked at, then made.
#[tokio::test(flavor = "multi_thread")]
async fn the_shape_of_every_change_is_what_it_was() {
    let (scene, _store) = Scene::new().await;
    let mut text = shapes(&scene, &[vec!["demo", "--dry-run"], vec!["demo"]]);
    let first = |list: &[&str], name: &str, at: usize| scene.json(list)[name][at]["id"].to_string();
    let dead = first(&["dead-letters", "list"], "dead_letters", 0);
    let parked = first(&["outbox", "parked"], "rows", 0);
    let timers = [0, 1].map(|at| first(&["timers", "list"], "timers", at));
    let file = scene.file().with_extension("json");
    std::fs::write(&file, "{\"order\":1}").unwrap();
    let file = file.to_str().unwrap();
    let about: Vec<Vec<&str>> = vec![
        vec!["sagas", "list"],
        vec!["sagas", "show", "order", "3"],
        vec!["machines", "list"],
        vec!["machines", "show", "order"],
        vec!["timers", "list"],
        vec!["timers", "show", &timers[0]],
        vec!["outbox", "parked"],
        vec!["locks", "list"],
        vec!["schema", "status"],
        vec!["schema", "print"],
    ];
    text.push_str(&shapes(&scene, &about));
    let edit = ["dead-letters", "edit", &dead, "--body", file];
    let changes: Vec<Vec<&str>> = vec![
        vec!["dead-letters", "discard", &dead],
        vec!["dead-letters", "restore", &dead],
        [&edit[..], &["--identity", "keep"]].concat(),
        vec!["dead-letters", "retry", "--text", "declined"],
        vec!["outbox", "discard", &parked],
        vec![
            "outbox",
            "purge",
            "--destination",
            "?depot.print-label",
            "--at-most",
            "9",
        ],
        vec!["outbox", "expedite", "--key", "nobody"],
        vec!["timers", "move", &timers[0], "2h"],
        vec!["timers", "fire", &timers[0]],
        vec!["timers", "cancel", &timers[1]],
        vec!["endpoints", "pause", "payments"],
        vec!["endpoints", "resume", "payments"],
        vec!["schedules", "pause", "daily-report"],
        vec!["sagas", "alter", "order", "25", "--state", "placed"],
        vec!["sagas", "complete", "order", "25"],
    ];
    for change in changes {
        for word in ["--dry-run", "--yes"] {
            text.push_str(&shapes(&scene, &[[&change[..], &[word]].concat()]));
        }
    }
    let after: Vec<Vec<&str>> = vec![
        vec!["operations", "list"],
        vec!["operations", "show", "1"],
        vec!["schema", "migrate", "--dry-run"],
        vec!["schema", "migrate"],
    ];
    text.push_str(&shapes(&scene, &after));
    compare("changes.txt", &text);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_is_printed_line_by_line() {
    let (scene, _store) = Scene::with_failures(2).await;
    let lines = |arguments: &[&str]| -> Vec<Value> {
        let ran = scene.run(&[arguments, &["-o", "ndjson"]].concat());
        assert_eq!(ran.code, 0, "{}", ran.err);
        let lines = ran.out.lines();
        lines
            .map(|one| serde_json::from_str(one).unwrap())
            .collect()
    };
    let listed = lines(&["dead-letters", "list"]);
    assert!(listed.len() > 1, "{listed:?}");
    let document = scene.json(&["dead-letters", "list"]);
    assert_eq!(Value::from(listed.clone()), document["dead_letters"]);
    // What is no list is one line, lists within it included.
    let id = listed[0]["id"].to_string();
    let show = ["dead-letters", "show", &id];
    assert_eq!(lines(&show), [scene.json(&show)]);
    let both = scene.run(&["dead-letters", "list", "--json", "-o", "table"]);
    assert_eq!(both.code, 2, "{}", both.err);
}
