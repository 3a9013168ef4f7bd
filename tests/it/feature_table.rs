//! The table of features beside other buses: what it says that we have, a test shows.

use std::path::Path;

/// The page with the table.
const PAGE: &str = include_str!("../../docs/state-machines.md");
/// What the table is headed by.
const HEAD: &str = "| feature | MassTransit | NServiceBus | here | test |";
/// What a row says that has no test.
const NOT_YET: &str = "not yet";

/// Returns the rows of the table, each as its cells.
fn rows() -> Vec<Vec<&'static str>> {
    let table = PAGE.lines().skip_while(|line| *line != HEAD).skip(2);
    let rows = table.take_while(|line| line.starts_with('|'));
    rows.map(|row| row.trim_matches('|').split(" | ").map(str::trim).collect())
        .collect()
}

/// Says what is wrong with a row, if something is.
fn fault(cells: &[&str]) -> Option<String> {
    let [feature, _, _, ours, test] = cells else {
        return Some(format!("{cells:?} has not five cells"));
    };
    let is_there = !ours.starts_with(NOT_YET);
    match (test.contains('`'), is_there) {
        (false, true) => Some(format!(
            "{feature} has no test and is not said to be missing"
        )),
        (false, false) => None,
        (true, false) => Some(format!("{feature} has a test and is said to be missing")),
        (true, true) => test.split("; ").find_map(|file| wrong(feature, file)),
    }
}

/// Says what is wrong with a file and the names of tests in it.
fn wrong(feature: &str, tests: &str) -> Option<String> {
    let words: Vec<&str> = tests.split('`').skip(1).step_by(2).collect();
    match words.as_slice() {
        [] => Some(format!("{feature}: {tests:?} names no file")),
        [file] => missing(feature, file, "fn main()"),
        [file, names @ ..] => {
            let named = |name: &&str| missing(feature, file, &format!("fn {name}("));
            names.iter().find_map(named)
        }
    }
}

fn missing(feature: &str, file: &str, what: &str) -> Option<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(file);
    let Ok(source) = std::fs::read_to_string(path) else {
        return Some(format!("{feature}: there is no {file}"));
    };
    (!source.contains(what)).then(|| format!("{feature}: {file} has no `{what}`"))
}

#[test]
fn every_feature_that_we_have_names_a_test_that_is_there() {
    let rows = rows();
    assert!(rows.len() > 30, "the table has {} rows", rows.len());
    let faults: Vec<String> = rows.iter().filter_map(|cells| fault(cells)).collect();
    assert_eq!(faults, [""; 0]);
}

#[test]
fn a_row_that_names_nothing_or_what_is_not_there_is_found() {
    let whole =
        "`saga/tests/it/machine.rs`: `an_order_goes_from_state_to_state_and_leaves_a_tombstone`";
    let cases = [
        (["a", "", "", "`b`", whole], None),
        (["a", "", "", "not yet", ""], None),
        (["a", "", "", "`b`", ""], Some("no test")),
        (["a", "", "", "not yet", whole], Some("said to be missing")),
        (
            ["a", "", "", "`b`", "`saga/nowhere.rs`: `c`"],
            Some("there is no"),
        ),
        (
            ["a", "", "", "`b`", "`saga/src/lib.rs`: `c`"],
            Some("has no `fn c(`"),
        ),
        (
            [
                "a",
                "",
                "",
                "`b`",
                &format!("{whole}; `saga/nowhere.rs`: `c`"),
            ],
            Some("there is no"),
        ),
        (
            ["a", "", "", "`b`", &format!("{whole}; ")],
            Some("names no file"),
        ),
    ];
    for (cells, wanted) in cases {
        let found = fault(&cells);
        let is_right = match wanted {
            None => found.is_none(),
            Some(fact) => found.as_ref().is_some_and(|found| found.contains(fact)),
        };
        assert!(is_right, "{cells:?}: {found:?}");
    }
    assert!(fault(&["too", "few"]).is_some());
}
