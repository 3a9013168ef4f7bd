//! What pages promise: ARCHITECTURE.md lists for those who watch a host what the code counts and
//! says, and the README comes to the point.

use std::collections::BTreeSet;
use std::path::Path;

use sagabus::counters::Counters;

const PAGE: &str = include_str!("../../ARCHITECTURE.md");

/// Returns what stands between backticks.
fn quoted(text: &str) -> Vec<&str> {
    text.split('`').skip(1).step_by(2).collect()
}

/// Returns a file of the sources without its line breaks, so that a text that goes on in the next
/// line is found.
fn source(folder: &str, file: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join(folder)
        .join(file);
    let text = std::fs::read_to_string(&path);
    let text = text.unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let words = text.split_whitespace().filter(|word| *word != "\\");
    words.collect::<Vec<_>>().join(" ")
}

#[test]
fn every_counter_is_listed_and_nothing_else() {
    let list = PAGE.split("Counters since start (").nth(1);
    let list = list.and_then(|rest| rest.split("\n\n").next());
    let listed: BTreeSet<_> = quoted(list.expect("there is a list"))
        .into_iter()
        .skip(1)
        .collect();
    let counters = Counters::default().snapshot();
    let counted: BTreeSet<_> = counters.iter().map(|(name, _)| *name).collect();
    assert_eq!(listed, counted);
}

#[test]
fn every_span_and_event_that_is_listed_is_said_with_its_fields() {
    let table = PAGE
        .split("| name | where | fields |\n|---|---|---|\n")
        .nth(1);
    let table = table.expect("there is a table");
    let rows = table.lines().take_while(|line| line.starts_with('|'));
    let mut count = 0;
    for row in rows {
        let cells: Vec<_> = row.trim_matches('|').split(" | ").collect();
        let [names, place, fields] = cells[..] else {
            panic!("{row} has not three cells");
        };
        let folder = match place.contains("RabbitMQ") {
            true => "bus-rabbitmq/src",
            false => "bus-core/src",
        };
        let file = quoted(place)[0];
        let source = source(folder, file);
        // A second name is cut short where the first says the rest.
        let names = quoted(names).into_iter();
        for name in names.filter(|name| !name.starts_with("..")) {
            assert!(source.contains(&format!("\"{name}\"")), "{file}: {name:?}");
        }
        for field in quoted(fields) {
            assert!(source.contains(field), "{file} says nothing of `{field}`");
        }
        count += 1;
    }
    assert!(count > 10, "{count} rows were read");
}

/// Lines before the first code, and of it.
#[test]
fn the_first_example_of_the_readme_is_on_the_first_screen() {
    const README: &str = include_str!("../../README.md");
    let lines = README.lines();
    let before = lines
        .clone()
        .take_while(|line| !line.starts_with("```rust"));
    let code = lines
        .skip_while(|line| !line.starts_with("```rust"))
        .skip(1);
    let code = code.take_while(|line| *line != "```");
    let (before, code) = (before.count(), code.count());
    assert!((1..=40).contains(&before), "{before} lines come before it");
    assert!((1..=35).contains(&code), "it has {code} lines");
}
