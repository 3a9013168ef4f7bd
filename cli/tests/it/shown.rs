//! What every noun shows of the demo's data, kept in `demo.txt`: the same on SQLite and PostgreSQL.

use std::fmt::Write;

use sagabus_core::{MessageId, Timestamp};
use serde_json::Value;

use crate::postgres::{Database, on_server};
use crate::rehearsing::hosts_are_gone;
use crate::scene::{Ran, Scene, compare, run};

/// What is asked; `DEAD` stands for the dead letter of order 7, `MESSAGE` for its message.
const COMMANDS: &[&str] = &[
    "status",
    "doctor",
    "dead-letters groups",
    "dead-letters list",
    "dead-letters list --text declined --limit 2",
    "dead-letters show DEAD",
    "dead-letters discard --text declined --dry-run",
    "messages show MESSAGE",
    "messages trace MESSAGE",
    "outbox list",
    "outbox parked",
    "outbox rows --destination @orders",
    "outbox republish --since 1h --at-most 10",
    "inbox list --endpoint orders --limit 3",
    "sagas list",
    "sagas list --state placed",
    "sagas show order 3",
    "sagas show order 8",
    "locks list",
    "machines list",
    "machines show order",
    "timers list",
    "schedules list",
    "schedules show daily-report",
    "endpoints list",
    "hosts",
    "describe demo-shop",
    "operations list",
    "accounts",
    "endpoints pause payments --yes --why snapshot",
    "endpoints list",
    "dead-letters discard DEAD --yes --why snapshot",
    "operations list",
    "operations show 1",
    "audit",
    "audit --action pause_endpoint",
    "audit --by bob",
    "audit 1000",
];

/// Replaces what differs from run to run: identities, times and ages, numbers of rows, and the order
/// of lines of a list, which is that in which the shop's messages happened to be handled.
fn settled(text: &str) -> String {
    let mut header = Vec::new();
    let lines: Vec<String> = text.lines().map(|one| line(one, &mut header)).collect();
    let mut settled: Vec<String> = Vec::with_capacity(lines.len());
    for part in lines.chunk_by(|a, b| a.starts_with('#') == b.starts_with('#')) {
        let mut part = part.to_vec();
        if part[0].starts_with('#') {
            part.sort();
        }
        settled.append(&mut part);
    }
    settled.join("\n")
}

/// Settles one line; `header` is that of the table in which it stands.
fn line(line: &str, header: &mut Vec<String>) -> String {
    let text = line.trim_start();
    let indent = &line[..line.len() - text.len()];
    let is_header = |c: char| c.is_ascii_uppercase() || c == ' ';
    if text.is_empty() || text.chars().all(is_header) {
        let names = text
            .split("  ")
            .map(str::trim)
            .filter(|name| !name.is_empty());
        *header = names.map(str::to_owned).collect();
    }
    let cells = text
        .split("  ")
        .map(str::trim)
        .filter(|cell| !cell.is_empty());
    let mut cells: Vec<String> = cells.map(cell).collect();
    let at = header
        .iter()
        .position(|name| name == "ID" || name == "EXAMPLE");
    if let Some(id) = at.and_then(|at| cells.get_mut(at)).filter(|id| number(id)) {
        "#".clone_into(id);
    }
    format!("{indent}{}", cells.join("  "))
}

/// What stands before a number that differs from run to run, or from engine to engine.
const NUMBERED: &[&str] = &["row", "letter", "--after", "schema", "sagabus-sent-at:"];

fn number(word: &str) -> bool {
    !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_digit())
}

fn cell(cell: &str) -> String {
    let words: Vec<&str> = cell.split(' ').collect();
    let is_age = |word: &str| {
        let count = word.trim_end_matches(['s', 'm', 'h', 'd']);
        count.len() + 1 == word.len() && number(count)
    };
    let mut settled = Vec::with_capacity(words.len());
    for (at, word) in words.iter().enumerate() {
        let bare = word.trim_matches(|c: char| ".,:;()`\"".contains(c));
        let next = words.get(at + 1).copied();
        let before = at.checked_sub(1).map(|at| words[at]);
        let shown = if bare.parse::<MessageId>().is_ok() {
            word.replace(bare, "ID")
        } else if bare.parse::<Timestamp>().is_ok() {
            word.replace(bare, "TIME")
        } else if is_age(bare) && (next == Some("ago") || before == Some("in")) {
            word.replace(bare, "SOME")
        } else if number(bare) && before.is_some_and(|word| NUMBERED.contains(&word)) {
            word.replace(bare, "#")
        } else if bare == "sqlite" || bare == "postgres" {
            word.replace(bare, "ENGINE")
        } else if word.starts_with("{\"ids\":") {
            "{\"ids\":[#]}".to_owned()
        } else {
            (*word).to_owned()
        };
        settled.push(shown);
    }
    settled.join(" ")
}

/// Finds the dead letter of order 7, and its message.
fn find(run: &impl Fn(&[&str]) -> Ran) -> (String, String) {
    let json = |arguments: &[&str]| -> Value {
        let ran = run(&[arguments, &["--json"]].concat());
        serde_json::from_str(&ran.out).unwrap()
    };
    let all = json(&["dead-letters", "list", "--text", "declined"]);
    let ids = all["dead_letters"].as_array().unwrap().iter();
    for id in ids.map(|one| one["id"].to_string()) {
        let shown = json(&["dead-letters", "show", &id]);
        if shown["body"]["text"] == r#"{"order":7}"# {
            let message = shown["message_id"].as_str().unwrap();
            return (id, message.to_owned());
        }
    }
    panic!("order 7 was declined: {all:#}");
}

/// Shows everything, and compares it with what is kept.
async fn check(run: impl Fn(&[&str]) -> Ran, hosts_are_gone: impl Future<Output = ()>) {
    let mut text = String::new();
    let filled = run(&["demo"]);
    assert_eq!(filled.code, 0, "{filled:?}");
    hosts_are_gone.await;
    let (dead, message) = find(&run);
    for command in COMMANDS {
        let words: Vec<&str> = command.split(' ').collect();
        let named = words.iter().map(|word| match *word {
            "DEAD" => dead.as_str(),
            "MESSAGE" => message.as_str(),
            word => word,
        });
        let ran = run(&named.collect::<Vec<_>>());
        let (out, err) = (settled(&ran.out), settled(&ran.err));
        writeln!(text, "$ sagabus {command}").unwrap();
        for part in [out, err].iter().filter(|part| !part.is_empty()) {
            writeln!(text, "{part}").unwrap();
        }
        writeln!(text, "= {}\n", ran.code).unwrap();
    }
    compare("demo.txt", &text);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_noun_shows_the_demo_on_a_file() {
    let (scene, _store) = Scene::new().await;
    check(|arguments| scene.run(arguments), hosts_are_gone(&scene)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_noun_shows_the_demo_on_a_server() {
    let Some(database) = Database::new().await else {
        return;
    };
    let url = database.url.clone();
    let gone = "update sagabus.host set heartbeat_at = 1".to_owned();
    check(
        |arguments| run(&[&["--store", &url], arguments].concat()),
        on_server(&database.url, gone),
    )
    .await;
    database.drop().await;
}
