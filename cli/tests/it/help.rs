//! Help that fits a screen, and does not change unseen.

use crate::scene::run;

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

#[test]
fn the_commands_are_these() {
    let nouns = [
        "status",
        "doctor",
        "dead-letters",
        "outbox",
        "sagas",
        "messages",
        "hosts",
        "endpoints",
        "machines",
        "schedules",
        "describe",
        "migrate",
        "audit",
    ];
    assert_eq!(verbs(&[]), nouns);
    let dead_letters = ["list", "show", "groups", "retry", "discard", "restore"];
    assert_eq!(verbs(&["dead-letters"]), dead_letters);
    let outbox = ["list", "parked", "rows", "show", "release", "discard"];
    assert_eq!(verbs(&["outbox"]), outbox);
    assert_eq!(verbs(&["sagas"]), ["list", "show"]);
    assert_eq!(verbs(&["messages"]), ["show"]);
    assert_eq!(verbs(&["machines"]), ["list", "show"]);
    assert_eq!(verbs(&["endpoints"]), ["list", "remove"]);
}

#[test]
fn help_fits_a_screen_and_names_the_exit_codes() {
    let ran = run(&["--help"]);
    let lines = ran.out.lines().count();
    assert!(lines <= 50, "{lines} lines");
    for text in [
        "Exit codes:",
        "0  done",
        "5  a bulk change stopped half-way",
        "Examples:",
    ] {
        assert!(ran.out.contains(text), "{text}: {}", ran.out);
    }
}

#[test]
fn migrations_are_printed_for_either_engine() {
    let sqlite = run(&["--store", "new.db", "migrate", "--print"]);
    assert!(
        sqlite.out.contains("create table sagabus_outbox"),
        "{}",
        sqlite.err
    );
    let postgres = run(&["--store", "postgres://nowhere/x", "migrate", "--print"]);
    assert!(
        postgres.out.contains("create table sagabus.audit"),
        "{}",
        postgres.err
    );
    assert!(postgres.out.starts_with("-- migration 1\nbegin;\n"));
}
