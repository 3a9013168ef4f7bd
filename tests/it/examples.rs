//! The examples: each prints what the text at its head says.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use tokio::process::Command;
use tokio::time::timeout;

use crate::demo::program;

/// Many times what the slowest one takes on a quiet machine.
const PATIENCE: Duration = Duration::from_secs(120);

/// Returns the block of text at the head of an example.
fn promised(source: &str) -> Vec<&str> {
    let head = source.lines().map_while(|line| line.strip_prefix("//!"));
    let block = head.skip_while(|line| line.trim() != "```text").skip(1);
    let block = block.map(str::trim);
    block.take_while(|line| *line != "```").collect()
}

async fn prints_what_it_promises(name: &str) {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("examples/{name}.rs"));
    let source = std::fs::read_to_string(file).expect("the example is there");
    let promised = promised(&source);
    assert!(!promised.is_empty(), "{name} promises nothing");
    let mut command = Command::new(program(name));
    let run = command.stdin(Stdio::null()).kill_on_drop(true).output();
    let output = timeout(PATIENCE, run).await;
    let output = output.expect("it ends in time").expect("it can be started");
    let (out, err) = (&output.stdout, &output.stderr);
    let (out, err) = (String::from_utf8_lossy(out), String::from_utf8_lossy(err));
    assert!(output.status.success(), "{name}: {out}{err}");
    assert_eq!(out.lines().collect::<Vec<_>>(), promised, "{name}: {err}");
}

/// A test for each example, so that one that fails is named.
macro_rules! examples {
    ($($test:ident $name:literal,)*) => {
        $(#[tokio::test]
        async fn $test() {
            prints_what_it_promises($name).await;
        })*

        #[test]
        fn every_numbered_example_is_checked() {
            let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples");
            let files = std::fs::read_dir(folder).expect("there are examples");
            let names = files.filter_map(|file| {
                let name = file.expect("it can be listed").file_name();
                let name = name.to_str()?.strip_suffix(".rs")?.to_owned();
                name.starts_with(|c: char| c.is_ascii_digit()).then_some(name)
            });
            let mut names: Vec<_> = names.collect();
            names.sort();
            assert_eq!(names, [$($name),*]);
        }
    };
}

examples! {
    a_message_is_handled "01_hello",
    a_turnstile_turns "02_state_machine",
    a_parcel_is_shipped "03_saga",
    a_loan_is_decided "04_loan_broker",
    a_loan_is_decided_by_a_saga "04_loan_broker_as_saga",
    a_trip_is_booked_or_undone "05_trip",
    an_account_is_never_overdrawn "06_bank",
    a_sign_up_is_reminded "07_sign_up",
    a_sign_up_is_reminded_by_a_saga "07_sign_up_as_saga",
    a_newsletter_goes_on_after_a_kill "08_newsletter",
    bulk_orders_are_joined "09_bulk_orders",
    a_carrier_is_never_called_twice "10_logistics",
    what_recurs_comes_once "11_recurring",
    a_card_is_seen_by_its_handler_alone "12_sealed",
}

/// Replaces what differs from run to run: identities, times, ages, the number of the schema.
fn normalised(text: &str) -> Vec<String> {
    text.lines().map(normalised_line).collect()
}

fn normalised_line(line: &str) -> String {
    let words: Vec<&str> = line.split_whitespace().collect();
    let digits = |text: &str| !text.is_empty() && text.chars().all(|c| c.is_ascii_digit());
    let shown = words.iter().enumerate().map(|(at, word)| {
        let before = at.checked_sub(1).map_or("", |at| words[at]);
        let is_age = words.get(at + 1) == Some(&"ago");
        let is_time = word.len() > 19 && word.ends_with('Z') && word.contains('T');
        let is_identity = word.len() == 36 && word.matches('-').count() == 4;
        match () {
            () if before == "schema" => "NUMBER),",
            () if is_age => "AGE",
            () if is_time => "TIME",
            () if is_identity => "ID",
            () if word.len() > 15 && digits(word) => "MICROS",
            () => word,
        }
    });
    shown.collect::<Vec<_>>().join(" ")
}

#[tokio::test]
async fn an_incident_is_played_as_its_transcript_says() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/incident/transcript.txt");
    let promised = std::fs::read_to_string(file).expect("the transcript is there");
    let mut command = Command::new(program("incident"));
    let run = command.stdin(Stdio::null()).kill_on_drop(true).output();
    let output = timeout(PATIENCE, run).await;
    let output = output.expect("it ends in time").expect("it can be started");
    let (out, err) = (&output.stdout, &output.stderr);
    let (out, err) = (String::from_utf8_lossy(out), String::from_utf8_lossy(err));
    assert!(output.status.success(), "{out}{err}");
    assert_eq!(normalised(&out), normalised(&promised), "{err}");
}

#[test]
fn what_differs_from_run_to_run_is_normalised_and_nothing_else() {
    for (line, expected) in [
        (
            "(sqlite, schema 7), 1 hosts",
            "(sqlite, schema NUMBER), 1 hosts",
        ),
        ("22  10s ago  payments", "22 AGE ago payments"),
        ("moved  2026-11-21T19:40:04.948000Z", "moved TIME"),
        ("x 01a1ff9f-79f5-74cc-a957-d83713c474c1", "x ID"),
        ("at: 1795290003957206", "at: MICROS"),
        ("retried 20 dead letters", "retried 20 dead letters"),
    ] {
        assert_eq!(normalised_line(line), expected);
    }
}
