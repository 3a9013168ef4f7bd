//! The shape of every `--json`: names and types, which programs rely on.

use std::collections::BTreeMap;
use std::time::Duration;

use sagabus_core::admin::{
    Pace, Page, RowFilter, RowState, Selected, SentFilter, StoreAdmin, Verb,
};
use sagabus_core::memory::MemoryTransport;
use sagabus_core::{Flow, RunningHost, cron};
use sagabus_ops::{Operator, operations};
use sagabus_outbox::SqliteStore;
use sagabus_testkit::wait::eventually;
use serde_json::Value;

use crate::locks::{self, Come};
use crate::parcels::{self, Hand, Release};
use crate::rehearsing::{hosts_are_gone, stop};
use crate::scene::{Audited, Charge, Scene, Ship, compare, host_with, run, spare_host};
use crate::till::{refused_order, till};

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

/// Each looked at, then made.
fn both(scene: &Scene, changes: &[&[&str]]) -> String {
    let each = changes.iter().flat_map(|change| {
        let ways = ["--dry-run", "--yes"];
        ways.map(|way| [change, &[way][..]].concat())
    });
    shapes(scene, &each.collect::<Vec<_>>())
}

/// Two parcels under way, a room that is reserved, what recurs, and two events that a broker took.
async fn all_run(scene: &Scene, store: &SqliteStore) -> Vec<RunningHost> {
    let carrier = parcels::host(store.clone(), Release::Current).await;
    let hotel = locks::hotel(store.clone()).await;
    let shop = host_with(store.clone(), |builder| {
        builder
            .recurring("report", cron("0 6 1 1 *"), |_| Ship { order: 1 })
            .transport_named("archive", MemoryTransport::new())
            .route::<Audited>("archive")
            .keep_sent(Duration::from_secs(3600))
    })
    .await;
    for n in [1, 2] {
        carrier.bus().send(Hand { parcel: n }).await.unwrap();
        shop.bus().publish(Audited).await.unwrap();
    }
    hotel.bus().send(Come { guest: 1 }).await.unwrap();
    eventually("what runs", || async {
        let sent = store.sent(&SentFilter::default(), Page::latest(9)).await;
        let timers = RowFilter {
            state: Some(RowState::Timer),
            ..RowFilter::default()
        };
        let timers = store.count_rows(&timers).await.unwrap().count;
        let is_held = scene.json(&["locks", "list"])["locks"][0].is_object();
        (sent.unwrap().len() == 2 && timers == 2 && is_held).then_some(())
    })
    .await;
    vec![carrier, hotel, shop]
}

/// A change of many that nobody drives.
async fn begun(store: &SqliteStore) -> String {
    let operator = Operator {
        who: "ada".to_owned(),
        why: "snapshot".to_owned(),
    };
    let selected = Selected::Named(vec![1]);
    let begun = operations::begin(store, &operator, Verb::Discard, selected, Pace::default());
    begun.await.unwrap().unwrap().id.to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_shape_of_what_takes_a_live_host_is_what_it_was() {
    let (scene, store) = Scene::with_failures(3).await;
    let spare = spare_host(store.clone()).await;
    assert!(spare.stop(Duration::from_secs(10)).await);
    let hosts = all_run(&scene, &store).await;
    let timers = scene.json(&["timers", "list"])["timers"].clone();
    let timer = timers[0]["message_id"].as_str().unwrap();
    let mut text = shapes(
        &scene,
        &[
            vec!["dead-letters", "rehearse", "1"],
            vec!["messages", "rehearse", timer],
            vec!["locks", "list"],
        ],
    );
    let lost = ["sagas", "transition", "parcel", "1", "--to", "lost"];
    text += &both(
        &scene,
        &[
            &lost,
            &["sagas", "cancel", "parcel", "1"],
            &["sagas", "migrate", "parcel"],
            &["locks", "break", "room/12 A"],
            &["schedules", "fire", "report"],
            &["outbox", "republish", "--since", "1h", "--at-most", "9"],
            &["outbox", "pause", "--transport", "archive"],
            &["outbox", "resume", "--transport", "archive"],
        ],
    );
    eventually("a firing", || async {
        (scene.json(&["schedules", "show", "report"])["fired"] == 1).then_some(())
    })
    .await;
    assert_eq!(
        scene.run(&["endpoints", "pause", "payments", "--yes"]).code,
        0
    );
    let held = async || (hosts[2].endpoints()[0].flow == Flow::Paused).then_some(());
    eventually("a pause", held).await;
    let note = String::new();
    hosts[2]
        .bus()
        .send(Charge { order: 9, note })
        .await
        .unwrap();
    text += &both(
        &scene,
        &[
            &["outbox", "park", "--destination", "@payments"],
            &["outbox", "release", "--reason", "operator"],
        ],
    );
    assert_eq!(
        scene.run(&["schedules", "pause", "report", "--yes"]).code,
        0
    );
    text += &both(&scene, &[&["schedules", "resume", "report"]]);
    for host in hosts {
        assert!(host.stop(Duration::from_secs(10)).await);
    }
    hosts_are_gone(&scene).await;
    let removals: [&[&str]; 2] = [
        &["schedules", "remove", "report"],
        &["endpoints", "remove", "spare"],
    ];
    text += &both(&scene, &removals);
    let (first, second) = (begun(&store).await, begun(&store).await);
    for (verb, id) in [("pause", &first), ("resume", &first), ("cancel", &second)] {
        text += &shapes(
            &scene,
            &[
                vec!["operations", verb, id, "--dry-run"],
                vec!["operations", verb, id],
            ],
        );
    }
    let file = scene.file().with_extension("json");
    let release = scene.run(&["describe", "carrier", "--json"]).out;
    std::fs::write(&file, release).unwrap();
    text += &shapes(&scene, &[vec!["plan", "--release", file.to_str().unwrap()]]);
    text += &would_send().await;
    text += &granted();
    let text = text.replace(file.to_str().unwrap(), "FILE");
    compare("hosted.txt", &text);
}

/// A rehearsal of what would be handled, and would send.
async fn would_send() -> String {
    let (scene, store) = Scene::new().await;
    refused_order(&store).await;
    let mended = till(store, true).await;
    let text = shapes(&scene, &[vec!["dead-letters", "rehearse", "1"]]);
    stop(mended).await;
    text
}

/// What a server grants; nobody asks it.
fn granted() -> String {
    let ran = run(&[
        "--store",
        "postgres://nowhere/x",
        "schema",
        "grants",
        "--json",
    ]);
    assert_eq!(ran.code, 0, "{ran:?}");
    let document: Value = serde_json::from_str(&ran.out).unwrap();
    format!("## schema grants\n\n{}\n\n", shape(&document, 0))
}

/// Commands that print no document, and why.
const WITHOUT: [(&str, &str); 2] = [
    ("completions", "a script for a shell"),
    ("man", "pages in a folder"),
];

#[test]
fn every_command_has_a_document_whose_shape_is_kept() {
    let [help, documents, changes, hosted] = ["help.txt", "json.txt", "changes.txt", "hosted.txt"]
        .map(|name| {
            let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
            std::fs::read_to_string(folder.join(name)).unwrap()
        });
    let kept = [documents, changes, hosted].concat();
    let kept: Vec<_> = kept
        .lines()
        .filter_map(|line| line.strip_prefix("## "))
        .collect();
    let mut commands = 0;
    for part in help.split("## sagabus ").skip(1) {
        let (command, told) = part.split_once('\n').unwrap();
        let has_verbs = told.contains("\nCommands:\n");
        let prints_none = WITHOUT.iter().any(|(one, _)| *one == command);
        if has_verbs || command.is_empty() || prints_none {
            continue;
        }
        let is_kept = |one: &&str| {
            let rest = one.strip_prefix(command);
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(' '))
        };
        assert!(kept.iter().any(is_kept), "`{command}` is in no snapshot");
        commands += 1;
    }
    assert!(commands > 60, "{commands}");
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
