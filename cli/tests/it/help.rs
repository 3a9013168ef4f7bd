//! Help that fits a screen, and does not change unseen.

use std::path::Path;
use std::process::Stdio;

use crate::scene::{compare, program, run};

/// Every command with its verbs, as the help lists them.
fn verbs(arguments: &[&str]) -> Vec<String> {
    let ran = run(&[arguments, &["--help"]].concat());
    assert_eq!(ran.code, 0, "{ran:?}");
    let lines = ran.out.lines();
    let commands = lines.skip_while(|line| *line != "Commands:").skip(1);
    commands
        .take_while(|line| !line.is_empty())
        .filter_map(|line| line.split_whitespace().next().map(str::to_owned))
        .filter(|word| word != "help")
        .collect()
}

/// What the list of commands leaves out, so that it fits: it names them below.
const HIDDEN: &[&str] = &["plan", "demo", "completions", "man"];

/// Every command, the shorter paths first.
fn all_commands() -> Vec<Vec<String>> {
    let mut all = vec![Vec::new()];
    all.extend(HIDDEN.iter().map(|noun| vec![(*noun).to_owned()]));
    let mut at = 0;
    while at < all.len() {
        let path: Vec<String> = all[at].clone();
        let shown: Vec<&str> = path.iter().map(String::as_str).collect();
        for verb in verbs(&shown) {
            all.push([path.as_slice(), &[verb]].concat());
        }
        at += 1;
    }
    all
}

#[test]
fn every_command_has_an_example_and_fits_a_screen() {
    let all = all_commands();
    assert!(all.len() > 35, "{all:?}");
    for path in &all {
        let shown: Vec<&str> = path.iter().map(String::as_str).collect();
        let ran = run(&[&shown[..], &["--help"]].concat());
        let lines = ran.out.lines().count();
        assert!(lines <= 40, "{path:?} takes {lines} lines");
        let widest = ran.out.lines().map(|line| line.chars().count()).max();
        assert!(widest <= Some(100), "{path:?} has a line of {widest:?}");
        let has_verbs = ran.out.contains("\nCommands:\n");
        let has_example = ran.out.contains("Example:\n") || ran.out.contains("Examples:\n");
        assert!(
            has_example || has_verbs,
            "{path:?} has no example: {}",
            ran.out
        );
    }
}

/// The whole help, so that it does not change unseen.
#[test]
fn the_help_is_what_it_was() {
    let mut text = String::new();
    for path in all_commands() {
        let shown: Vec<&str> = path.iter().map(String::as_str).collect();
        let ran = run(&[&shown[..], &["--help"]].concat());
        text.push_str(&format!("## sagabus {}\n\n{}\n", path.join(" "), ran.out));
    }
    compare("help.txt", &text);
}

#[test]
fn help_names_the_exit_codes() {
    let ran = run(&["--help"]);
    assert!(
        ran.out.contains("sagabus explain exit-codes"),
        "{}",
        ran.out
    );
    let codes = run(&["explain", "exit-codes"]);
    for text in [
        "0     done",
        "5     a bulk change stopped half-way",
        "6     `doctor` found",
        "`plan` something",
    ] {
        assert!(codes.out.contains(text), "{text}: {}", codes.out);
    }
}

#[test]
fn shells_complete_and_pages_are_written() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let ran = program(&["completions", shell]).output().unwrap();
        let text = String::from_utf8(ran.stdout).unwrap();
        assert!(
            ran.status.success() && text.contains("dead-letters"),
            "{shell}: {text}"
        );
    }
    // Who closes the pipe has seen enough, whatever is printed.
    for words in [&["completions", "bash"][..], &["explain"]] {
        let mut named = program(words);
        let piped = named.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = piped.spawn().unwrap();
        drop(child.stdout.take());
        let ended = child.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&ended.stderr);
        assert!(!said.contains("panicked"), "{words:?}: {said}");
        assert_eq!(ended.status.code(), Some(0), "{words:?}: {said}");
    }
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("man");
    let ran = run(&["man", folder.to_str().unwrap()]);
    assert_eq!(ran.code, 0, "{ran:?}");
    let page = std::fs::read_to_string(folder.join("sagabus-dead-letters-retry.1")).unwrap();
    assert!(page.contains("incident\\-17"), "{page}");
}

#[test]
fn migrations_are_printed_for_either_engine() {
    let sqlite = run(&["--store", "new.db", "schema", "print"]);
    assert!(
        sqlite.out.contains("create table sagabus_outbox"),
        "{}",
        sqlite.err
    );
    let postgres = run(&["--store", "postgres://nowhere/x", "schema", "print"]);
    assert!(
        postgres.out.contains("create table sagabus.audit"),
        "{}",
        postgres.err
    );
    assert!(postgres.out.starts_with("-- migration 1\nbegin;\n"));
}
