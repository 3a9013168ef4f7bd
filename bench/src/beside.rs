//! Two reports beside each other: what became better or worse by more than repetitions spread.

use std::fmt::Write as _;
use std::path::Path;

use anyhow::Result;

use crate::ratio::Ratio;
use crate::report::{Line, Report};
use crate::session;

/// How a ratio changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Change {
    Same,
    Better,
    Worse,
}

/// Two reports as a table, and whether something became worse.
#[derive(Debug)]
pub(crate) struct Beside {
    pub(crate) table: String,
    pub(crate) is_worse: bool,
}

/// Puts two files of results beside each other.
pub(crate) fn files(old: &Path, new: &Path) -> Result<Beside> {
    let (old, new): (Report, Report) = (session::read(old)?, session::read(new)?);
    Ok(beside(&old, &new))
}

fn beside(old: &Report, new: &Report) -> Beside {
    let mut table = String::from(
        "| row | on | ratio | old | new | change | |\n|---|---|---|---|---|---|---|\n",
    );
    let mut is_worse = false;
    for line in &new.rows {
        let before = old.rows.iter().find(|before| is_same(before, line));
        let Some(before) = before else {
            let _ = writeln!(table, "| {} | {} | | | | | new |", line.row, line.on);
            continue;
        };
        for ratio in &line.found.ratios {
            let mut same = before.found.ratios.iter();
            let Some(before) = same.find(|before| before.what == ratio.what) else {
                continue;
            };
            let change = change(before, ratio);
            is_worse |= change == Change::Worse;
            write_line(&mut table, line, before, ratio, change);
        }
        if !line.found.faults.is_empty() {
            is_worse = true;
            let (row, on) = (line.row, line.on);
            let _ = writeln!(table, "| {row} | {on} | | | no figure | | WORSE |");
        }
    }
    for line in &old.rows {
        if !new.rows.iter().any(|after| is_same(after, line)) {
            let _ = writeln!(
                table,
                "| {} | {} | | | | | not run now |",
                line.row, line.on
            );
        }
    }
    Beside { table, is_worse }
}

fn is_same(one: &Line, other: &Line) -> bool {
    one.row == other.row && one.on == other.on
}

/// Only ranges that do not touch are a change. Of times less is better, of rates more.
fn change(old: &Ratio, new: &Ratio) -> Change {
    let is_time = old.what.starts_with('p') && !old.what.starts_with("part");
    let (less, more) = match is_time {
        true => (Change::Better, Change::Worse),
        false => (Change::Worse, Change::Better),
    };
    if new.max < old.min {
        less
    } else if new.min > old.max {
        more
    } else {
        Change::Same
    }
}

fn write_line(table: &mut String, line: &Line, old: &Ratio, new: &Ratio, change: Change) {
    let shown = |ratio: &Ratio| {
        let Ratio {
            median, min, max, ..
        } = ratio;
        format!("{median:.2} ({min:.2}-{max:.2})")
    };
    let percent = (new.median / old.median - 1.0) * 100.0;
    let word = match change {
        Change::Same => "same",
        Change::Better => "better",
        Change::Worse => "WORSE",
    };
    // Writing to a string cannot fail.
    let _ = writeln!(
        table,
        "| {} | {} | {} | {} | {} | {percent:+.0} % | {word} |",
        line.row,
        line.on,
        new.what,
        shown(old),
        shown(new),
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ratio(what: &str, values: [f64; 3]) -> Ratio {
        Ratio::of(what, values.to_vec()).unwrap()
    }

    #[test]
    fn ranges_that_touch_are_no_change() {
        let old = ratio("rate: ours / bare", [0.5, 0.6, 0.7]);
        assert_eq!(change(&old, &ratio("", [0.7, 0.8, 0.9])), Change::Same);
        assert_eq!(change(&old, &ratio("", [0.71, 0.8, 0.9])), Change::Better);
        assert_eq!(change(&old, &ratio("", [0.3, 0.4, 0.49])), Change::Worse);
    }

    #[test]
    fn a_longer_time_is_worse() {
        let old = ratio("p50: ours / bare", [1.0, 1.1, 1.2]);
        assert_eq!(change(&old, &ratio("", [1.3, 1.4, 1.5])), Change::Worse);
        assert_eq!(change(&old, &ratio("", [0.3, 0.4, 0.5])), Change::Better);
    }
}
