//! What was found: how each mutant ended, and the table of it.

use std::collections::BTreeMap;

use crate::fail::{Result, fail};
use crate::say;

/// How a mutant ended, by the name of the list that cargo-mutants has for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum End {
    Caught,
    Missed,
    Timeout,
    /// It does not compile.
    Unviable,
}

pub(super) const ENDS: [(End, &str); 4] = [
    (End::Caught, "caught"),
    (End::Missed, "missed"),
    (End::Timeout, "timeout"),
    (End::Unviable, "unviable"),
];

/// How each mutant ended, by its name: `file:line:column: what was changed`.
pub(super) type Record = BTreeMap<String, End>;

/// Why mutants cannot be noticed, by their names.
pub(super) type Reasons = BTreeMap<String, &'static str>;

/// Writes a record as text, a line for each mutant.
pub(super) fn write(record: &Record) -> String {
    let lines = record
        .iter()
        .map(|(name, end)| format!("{} {name}\n", word(*end)));
    lines.collect()
}

pub(super) fn read(text: &str) -> Result<Record> {
    let read_line = |line: &str| {
        let (said, name) = line.split_once(' ')?;
        let (end, _) = ENDS.iter().find(|(_, word)| *word == said)?;
        Some((name.to_owned(), *end))
    };
    let each = text.lines().map(|line| match read_line(line) {
        Some(read) => Ok(read),
        None => fail(format!("the record of mutants has a line `{line}`")),
    });
    each.collect()
}

/// Shows what is known of these mutants, by their files, and names those that nothing noticed.
pub(super) fn show(names: &[String], record: &Record, reasons: &Reasons) {
    say::result(
        "| file | mutants | tried | caught | timeouts | missed | explained | unviable | noticed |",
    );
    say::result("|---|---:|---:|---:|---:|---:|---:|---:|---:|");
    for (file, tally) in tally(names, record, reasons) {
        show_line(&file, &tally);
    }
    let mut sum = Tally::default();
    for name in names {
        sum.add(record.get(name).copied(), reasons.contains_key(name));
    }
    show_line("all", &sum);
    let missed = names
        .iter()
        .filter(|name| record.get(*name) == Some(&End::Missed));
    for name in missed {
        match reasons.get(name) {
            Some(why) => say::detail(format_args!("explained: {name}: {why}")),
            None => say::result(format_args!("missed: {name}")),
        }
    }
}

pub(super) fn file_of(name: &str) -> &str {
    name.split(':').next().unwrap_or(name)
}

fn word(end: End) -> &'static str {
    let found = ENDS.iter().find(|(one, _)| *one == end);
    found.map_or("", |(_, word)| word)
}

/// What is known of one file.
#[derive(Debug, Default, PartialEq, Eq)]
struct Tally {
    all: usize,
    ends: BTreeMap<End, usize>,
    /// Of those that were missed.
    explained: usize,
}

impl Tally {
    fn of(&self, end: End) -> usize {
        self.ends.get(&end).copied().unwrap_or(0)
    }

    /// Per cent noticed of those that compile; one that hangs is noticed. An explanation notices
    /// nothing.
    fn share(&self) -> Option<usize> {
        let noticed = self.of(End::Caught) + self.of(End::Timeout);
        (noticed * 100).checked_div(noticed + self.of(End::Missed))
    }

    fn add(&mut self, end: Option<End>, is_explained: bool) {
        self.all += 1;
        if let Some(end) = end {
            *self.ends.entry(end).or_default() += 1;
            self.explained += usize::from(is_explained && end == End::Missed);
        }
    }
}

fn tally(names: &[String], record: &Record, reasons: &Reasons) -> BTreeMap<String, Tally> {
    let mut files: BTreeMap<String, Tally> = BTreeMap::new();
    for name in names {
        let file = files.entry(file_of(name).to_owned()).or_default();
        file.add(record.get(name).copied(), reasons.contains_key(name));
    }
    files
}

fn show_line(what: &str, tally: &Tally) {
    let tried: usize = tally.ends.values().sum();
    let share = tally
        .share()
        .map_or("-".to_owned(), |share| format!("{share} %"));
    let [caught, timeouts, missed, unviable] =
        [End::Caught, End::Timeout, End::Missed, End::Unviable].map(|end| tally.of(end));
    say::result(format_args!(
        "| {what} | {} | {tried} | {caught} | {timeouts} | {missed} | {} | {unviable} | {share} |",
        tally.all, tally.explained
    ));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_file_is_counted_and_one_that_hangs_is_noticed() {
        let text = "caught a.rs:1:1: x\nmissed a.rs:2:1: y\nmissed gone.rs:1:1: x\n\
                    timeout a.rs:3:1: z\nunviable b.rs:1:1: x\n";
        let record = read(text).unwrap();
        let all = [
            "a.rs:1:1: x",
            "a.rs:2:1: y",
            "a.rs:3:1: z",
            "a.rs:4:1: w",
            "b.rs:1:1: x",
        ];
        let all = all.map(str::to_owned);
        let why = |name: &str| (name.to_owned(), "it does the same");
        let reasons = Reasons::from([why("a.rs:2:1: y"), why("a.rs:3:1: z")]);
        let files = tally(&all, &record, &reasons);
        assert_eq!(files.len(), 2, "what is no mutant any more is not counted");
        let (a, b) = (&files["a.rs"], &files["b.rs"]);
        assert_eq!((a.all, a.ends.len(), a.share()), (4, 3, Some(66)));
        assert_eq!(a.explained, 1, "what was noticed needs no explanation");
        assert_eq!((b.of(End::Unviable), b.share()), (1, None));
    }

    #[test]
    fn a_record_is_read_as_it_was_written() {
        let record: Record = ENDS
            .iter()
            .map(|(end, word)| (format!("a.rs:1:1: {word} one"), *end))
            .collect();
        assert_eq!(read(&write(&record)).unwrap(), record);
        assert!(read("nonsense a.rs:1:1: x").is_err());
    }
}
