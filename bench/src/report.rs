//! The table, for people and for programs.

use std::fmt::Write as _;

use serde::{Deserialize, Serialize};

use crate::calibration::Calibration;
use crate::chart::{self, Bar, Curve};
use crate::machine::Facts;
use crate::publish::Figures;
use crate::ratio::{Must, Promise, Ratio};
use crate::row::{Found, Latency, Profile, Row, Run};

/// Everything that one call measured.
#[derive(Debug, Serialize, Deserialize)]
#[serde(bound(deserialize = "'de: 'static"))]
pub(crate) struct Report {
    pub(crate) profile: Profile,
    pub(crate) machine: Facts,
    pub(crate) rows: Vec<Line>,
    /// Rows that were asked for and could not run here.
    #[serde(default)]
    pub(crate) not_run: Vec<NotRun>,
    /// What rows promise together.
    pub(crate) promises: Vec<Promise>,
    pub(crate) seconds: f64,
}

/// One row that did not run, and why.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct NotRun {
    row: &'static str,
    on: &'static str,
    why: String,
}

impl NotRun {
    /// Says so, and remembers it for the table.
    pub(crate) fn of(row: &Row, why: String) -> Self {
        let (row, on) = (row.name, row.on());
        eprintln!("not run: {row} on {on}: {why}");
        Self { row, on, why }
    }

    pub(crate) fn is(&self, row: &Row) -> bool {
        self.row == row.name && self.on == row.on()
    }
}

/// One row with what it found.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Line {
    pub(crate) row: &'static str,
    pub(crate) on: &'static str,
    pub(crate) about: &'static str,
    pub(crate) found: Found,
    /// The machine before and after the row.
    #[serde(default)]
    pub(crate) calibration: (Calibration, Calibration),
    pub(crate) seconds: f64,
}

impl Line {
    /// Says why the row's figures are noise; nothing where they are not.
    pub(crate) fn noise(&self) -> Vec<String> {
        let (before, after) = &self.calibration;
        let mut found = before.moved(after);
        found.extend(before.crowded().or(after.crowded()));
        found.extend(self.found.ratios.iter().filter_map(Ratio::noise));
        found
    }
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

    /// Returns the figures as they are written to files.
    pub(crate) fn figures(&self) -> serde_json::Result<Figures> {
        Ok(Figures {
            json: serde_json::to_string_pretty(self)?,
            markdown: self.markdown(),
            chart: self.chart(),
        })
    }

    /// Draws the curves, or where there are none the first ratio of every row that has one.
    fn chart(&self) -> String {
        let panels: Vec<String> = self.rows.iter().filter_map(panel).collect();
        if panels.is_empty() {
            self.bars()
        } else {
            chart::below_each_other(&panels)
        }
    }

    fn bars(&self) -> String {
        let of_line = |line: &Line| {
            let ratio = line.found.ratios.first()?;
            let promise = line
                .found
                .promises
                .iter()
                .find(|one| one.what == ratio.what);
            let promised = promise.map(|promise| match promise.must {
                Must::AtLeast(limit) | Must::AtMost(limit) => limit,
            });
            let what = ratio.what.split(':').next().unwrap_or_default();
            let noisy = if line.noise().is_empty() {
                ""
            } else {
                " NOISY"
            };
            Some(Bar {
                label: format!("{} {}, {what}{noisy}", line.row, line.on),
                value: ratio.median,
                min: ratio.min,
                max: ratio.max,
                promised,
            })
        };
        let bars: Vec<Bar> = self.rows.iter().filter_map(of_line).collect();
        let commit = self.machine.commit.as_deref().unwrap_or("?");
        let title = format!("first subject / second, median and range; red: promised ({commit})");
        chart::bars(&title, &bars)
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
            "{} cores shared by everything, PostgreSQL {version}, {}, commit {}, profile {} ({} \
             repetitions of about {} s), load {} before and {} after, {:.0} s in all.\n",
            machine.cores,
            machine.compiler.as_deref().unwrap_or("unknown compiler"),
            machine.commit.as_deref().unwrap_or("?"),
            profile.name,
            profile.reps,
            profile.seconds,
            load(machine.load_before),
            load(machine.load_after),
            self.seconds,
        )?;
        if let (Some(first), Some(last)) = (self.rows.first(), self.rows.last()) {
            let (before, after) = (first.calibration.0.shown(), last.calibration.1.shown());
            writeln!(out, "Calibration before: {before}; after: {after}.\n")?;
        }
        writeln!(
            out,
            "| row | database | subject | messages/s | CPU us client, database, broker | most MiB | p50, p99, max ms | ratio (min-max) | promise |"
        )?;
        writeln!(out, "|---|---|---|---|---|---|---|---|---|")?;
        for line in &self.rows {
            write_line(out, line)?;
        }
        for NotRun { row, on, .. } in &self.not_run {
            writeln!(out, "| {row} | {on} | not run | | | | | | |")?;
        }
        for promise in &self.promises {
            let what = &promise.what;
            writeln!(
                out,
                "| {what} | | | | | | | {:.2} | {} |",
                promise.is,
                kept(promise)
            )?;
        }
        writeln!(out)?;
        for line in &self.rows {
            for fault in &line.found.faults {
                writeln!(out, "- no figure for {} on {}: {fault}", line.row, line.on)?;
            }
            for noise in line.noise() {
                writeln!(out, "- NOISY: {} on {}: {noise}", line.row, line.on)?;
            }
        }
        for NotRun { row, on, why } in &self.not_run {
            writeln!(out, "- not run: {row} on {on}: {why}")?;
        }
        Ok(())
    }
}

/// Draws the curve of a row.
fn panel(line: &Line) -> Option<String> {
    let found = &line.found;
    if found.curve.is_empty() || !found.faults.is_empty() {
        return None;
    }
    let point = |name: &&'static str| {
        let rate = median(found.runs.get(name)?, |run| Some(run.rate()))?;
        Some(((*name).to_owned(), rate))
    };
    let noisy = if line.noise().is_empty() {
        ""
    } else {
        ", NOISY"
    };
    let title = format!("{} on {}: {}{noisy}", line.row, line.on, line.about);
    let curve = Curve {
        label: "ours".to_owned(),
        points: found.curve.iter().filter_map(point).collect(),
    };
    Some(chart::curves(&title, "messages/s", &[curve]))
}

fn write_line(out: &mut String, line: &Line) -> std::fmt::Result {
    let Line { row, on, found, .. } = line;
    if !found.faults.is_empty() {
        return writeln!(out, "| {row} | {on} | no figure | | | | | | |");
    }
    let shown = |ratio: &Ratio| {
        let Ratio {
            what,
            median,
            min,
            max,
            ..
        } = ratio;
        let name = what.split(':').next().filter(|_| found.ratios.len() > 1);
        let name = name.map_or_else(String::new, |name| format!("{name} "));
        format!("{name}{median:.2} ({min:.2}-{max:.2})")
    };
    let mut ratios: Vec<String> = found.ratios.iter().map(shown).collect();
    if !line.noise().is_empty() {
        ratios.push("NOISY".to_owned());
    }
    let ratio = ratios.join("; ");
    let mut promises: Vec<String> = found.promises.iter().map(kept).collect();
    let mut is_first = true;
    for subject in found.subjects() {
        let runs = &found.runs[subject];
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
        let most = number(median(runs, Run::most_mib));
        writeln!(
            out,
            "| {row} | {on} | {subject}{notes} | {shown_rate} | {cpu} | {most} | {latency} | {ratio} | {promises} |"
        )?;
    }
    if found.runs.is_empty() {
        writeln!(
            out,
            "| {row} | {on} | | | | | | | {} |",
            promises.join("; ")
        )?;
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::row::QUICK;
    use crate::rows;

    #[test]
    fn what_did_not_run_and_what_went_wrong_is_in_the_table() {
        let all = rows::all();
        let wrong = Line {
            row: all[0].name,
            on: all[0].on(),
            about: "",
            found: Found {
                faults: vec!["3 messages were lost".to_owned()],
                ..Found::default()
            },
            calibration: Default::default(),
            seconds: 1.0,
        };
        let report = Report {
            profile: QUICK,
            machine: Facts::default(),
            rows: vec![wrong],
            not_run: vec![NotRun::of(&all[1], "no disk".to_owned())],
            promises: Vec::new(),
            seconds: 1.0,
        };
        let shown = report.markdown();
        for expected in [
            "| H1 | PostgreSQL | no figure |",
            "- no figure for H1 on PostgreSQL: 3 messages were lost",
            "| H1' | PostgreSQL | not run |",
            "- not run: H1' on PostgreSQL: no disk",
        ] {
            assert!(shown.contains(expected), "no `{expected}` in {shown}");
        }
    }
}
