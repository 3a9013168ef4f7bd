//! The table, for people and for programs.

use std::fmt::Write as _;

use serde::Serialize;

use crate::machine::Facts;
use crate::row::{Found, Latency, Must, Profile, Promise, Ratio, Run};

/// Everything that one call measured.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    pub(crate) profile: Profile,
    pub(crate) machine: Facts,
    pub(crate) rows: Vec<Line>,
    /// What rows promise together.
    pub(crate) promises: Vec<Promise>,
    pub(crate) seconds: f64,
}

/// One row with what it found.
#[derive(Debug, Serialize)]
pub(crate) struct Line {
    pub(crate) row: &'static str,
    pub(crate) on: &'static str,
    pub(crate) about: &'static str,
    pub(crate) found: Found,
    pub(crate) seconds: f64,
}

impl Report {
    /// Says whether every run was correct and every promise was kept.
    pub(crate) fn is_good(&self) -> bool {
        let is_correct = self.rows.iter().all(|line| line.found.faults.is_empty());
        is_correct && self.all_promises().all(|promise| promise.is_kept())
    }

    fn all_promises(&self) -> impl Iterator<Item = &Promise> {
        let of_rows = self.rows.iter().flat_map(|line| &line.found.promises);
        of_rows.chain(&self.promises)
    }

    /// Returns the table as Markdown.
    pub(crate) fn markdown(&self) -> String {
        let mut text = String::new();
        let _ = self.write(&mut text); // Writing to a string cannot fail.
        text
    }

    fn write(&self, out: &mut String) -> std::fmt::Result {
        let (machine, profile) = (&self.machine, &self.profile);
        let version = machine.postgres.as_deref().unwrap_or("none");
        let load = |load: Option<f64>| load.map_or_else(|| "?".into(), |load| format!("{load:.1}"));
        writeln!(
            out,
            "{} cores shared by everything, fdatasync {:.0} us, PostgreSQL {version}, profile {} ({} \
             repetitions of about {} s), load {} before and {} after, {:.0} s in all.\n",
            machine.cores,
            machine.fsync_micros,
            profile.name,
            profile.reps,
            profile.seconds,
            load(machine.load_before),
            load(machine.load_after),
            self.seconds,
        )?;
        writeln!(
            out,
            "| row | database | subject | messages/s | CPU us client, database, broker | p50, p99, max ms | ratio (min-max) | promise |"
        )?;
        writeln!(out, "|---|---|---|---|---|---|---|---|")?;
        for line in &self.rows {
            write_line(out, line)?;
        }
        for promise in &self.promises {
            let what = &promise.what;
            writeln!(
                out,
                "| {what} | | | | | | {:.2} | {} |",
                promise.is,
                kept(promise)
            )?;
        }
        writeln!(out)?;
        for line in &self.rows {
            for fault in &line.found.faults {
                writeln!(out, "- no figure for {} on {}: {fault}", line.row, line.on)?;
            }
        }
        Ok(())
    }
}

fn write_line(out: &mut String, line: &Line) -> std::fmt::Result {
    let Line { row, on, found, .. } = line;
    if !found.faults.is_empty() {
        return writeln!(out, "| {row} | {on} | no figure | | | | | |");
    }
    let shown = |ratio: &Ratio| {
        let Ratio {
            what,
            median,
            min,
            max,
        } = ratio;
        let name = what.split(':').next().filter(|_| found.ratios.len() > 1);
        let name = name.map_or_else(String::new, |name| format!("{name} "));
        format!("{name}{median:.2} ({min:.2}-{max:.2})")
    };
    let ratio = found
        .ratios
        .iter()
        .map(shown)
        .collect::<Vec<_>>()
        .join("; ");
    let mut promises: Vec<String> = found.promises.iter().map(kept).collect();
    let mut is_first = true;
    for (subject, runs) in &found.runs {
        let (ratio, promises) = if is_first {
            (ratio.as_str(), std::mem::take(&mut promises).join("; "))
        } else {
            ("", String::new())
        };
        is_first = false;
        let rate = median(runs, |run| Some(run.rate()));
        let cpu = median(runs, |run| Some(run.cpu_micros()));
        let server = median(runs, Run::server_cpu_micros);
        let broker = median(runs, Run::broker_cpu_micros);
        let more = [server, broker].into_iter().flatten();
        let more = more
            .map(|cpu| format!(", {}", number(Some(cpu))))
            .collect::<String>();
        let (shown_rate, cpu) = (number(rate), number(cpu) + &more);
        let latency = latency(runs);
        let notes = notes(runs);
        writeln!(
            out,
            "| {row} | {on} | {subject}{notes} | {shown_rate} | {cpu} | {latency} | {ratio} | {promises} |"
        )?;
    }
    if found.runs.is_empty() {
        writeln!(out, "| {row} | {on} | | | | | | {} |", promises.join("; "))?;
    }
    Ok(())
}

fn kept(promise: &Promise) -> String {
    let (sign, limit) = match promise.must {
        Must::AtLeast(limit) => (">=", limit),
        Must::AtMost(limit) => ("<=", limit),
    };
    let word = if promise.is_kept() { "kept" } else { "MISSED" };
    format!("{} {:.2} {sign} {limit}: {word}", promise.what, promise.is)
}

fn notes(runs: &[Run]) -> String {
    let mut text = String::new();
    let Some(first) = runs.first() else {
        return text;
    };
    for name in first.notes.keys() {
        let value = median(runs, |run| run.notes.get(name).copied());
        let _ = write!(text, ", {name} {}", number(value)); // Cannot fail.
    }
    text
}

fn latency(runs: &[Run]) -> String {
    let all: Vec<Latency> = runs.iter().filter_map(|run| run.latency).collect();
    if all.is_empty() {
        return String::new();
    }
    let middle = |part: fn(&Latency) -> f64| {
        let mut values: Vec<f64> = all.iter().map(part).collect();
        values.sort_by(f64::total_cmp);
        values[(values.len() - 1) / 2]
    };
    format!(
        "{:.2}, {:.2}, {:.1}",
        middle(|one| one.p50),
        middle(|one| one.p99),
        middle(|one| one.max)
    )
}

/// Returns the median of a figure over runs.
pub(crate) fn median(runs: &[Run], figure: impl Fn(&Run) -> Option<f64>) -> Option<f64> {
    let mut values: Vec<f64> = runs.iter().filter_map(figure).collect();
    values.sort_by(f64::total_cmp);
    let last = values.len().checked_sub(1)?;
    Some((values[last / 2] + values[last.div_ceil(2)]) / 2.0)
}

fn number(value: Option<f64>) -> String {
    match value {
        None => String::new(),
        Some(value) if value >= 1000.0 => format!("{:.1}k", value / 1000.0),
        Some(value) if value >= 10.0 => format!("{value:.0}"),
        Some(value) => format!("{value:.1}"),
    }
}
