//! The guard: a few rows for a short time, by their ratios alone, so that what was reached is not lost
//! unseen. The machine may be busy: subjects take turns, limits are loose, a row that misses its limit
//! is measured a second time, and one that misses it while others had the machine is not judged.

use anyhow::Result;

use crate::ratio::Ratio;
use crate::report::{Line, Report};
use crate::row::{Bench, Profile, QUICK, Row};
use crate::{rows, session};

/// How much less than what was reached is let pass.
const LOOSER: f64 = 0.15;

/// How much is measured: little.
pub(crate) const GUARD: Profile = Profile {
    name: "guard",
    seconds: 0.4,
    backlog: 10_000,
    ..QUICK
};

/// Rows and what they reached, as the README's table has it; H1 is another one on each machine, and
/// has what it reached on the slower of two (docs/performance.md, "Missed").
const REACHED: &[(&str, f64)] = &[
    ("H1@PostgreSQL", 0.84),
    ("H2@PostgreSQL", 0.62),
    ("H2@SQLite", 0.79),
    ("H2@RabbitMQ", 0.80),
    ("H2@Kafka", 0.56),
    ("R1@RabbitMQ", 0.74),
    ("R2@Kafka", 0.71),
];

/// How many were kept, missed and not judged.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Tally {
    pub(crate) kept: usize,
    pub(crate) missed: usize,
    pub(crate) skipped: usize,
}

/// What came of a row.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    Kept(String),
    Missed(String),
    /// Below the limit, on a machine that was not ours alone.
    Noisy(String),
    NotRun,
}

/// Returns the guarded rows that were built.
pub(crate) fn rows() -> Vec<Row> {
    REACHED.iter().filter_map(|(name, _)| find(name)).collect()
}

fn find(name: &str) -> Option<Row> {
    let mut every = rows::every().into_iter();
    every.find(|row| format!("{}@{}", row.name, row.place()) == name)
}

/// Measures the rows, those that missed twice, and prints what came of each.
pub(crate) async fn run(bench: &Bench) -> Result<Tally> {
    println!("| row | reached | at least | is (min-max) | |\n|---|---|---|---|---|");
    let mut tally = Tally::default();
    for (name, reached) in REACHED {
        let least = reached - LOOSER;
        let verdict = match find(name) {
            Some(row) => twice(bench, row, least).await?,
            None => Verdict::NotRun,
        };
        let (count, is, word) = match &verdict {
            Verdict::Kept(is) => (&mut tally.kept, is.as_str(), "kept"),
            Verdict::Missed(is) => (&mut tally.missed, is.as_str(), "MISSED"),
            Verdict::Noisy(is) => (&mut tally.skipped, is.as_str(), "noisy, not judged"),
            Verdict::NotRun => (&mut tally.skipped, "", "not run"),
        };
        *count += 1;
        println!("| {name} | {reached:.2} | {least:.2} | {is} | {word} |");
    }
    Ok(tally)
}

/// Measures a row, and once more where it is not as it should be.
async fn twice(bench: &Bench, row: Row, least: f64) -> Result<Verdict> {
    let first = judge(&session::run(bench, vec![row], None).await?, least);
    Ok(match first {
        Verdict::Kept(_) | Verdict::NotRun => first,
        _ => judge(&session::run(bench, vec![row], None).await?, least),
    })
}

/// Says what the row's ratio is worth. A wrong run is missed however busy the machine was.
fn judge(report: &Report, least: f64) -> Verdict {
    let Some(line) = report.rows.first() else {
        return Verdict::NotRun;
    };
    let Line { found, .. } = line;
    if let Some(fault) = found.faults.first() {
        return Verdict::Missed(fault.clone());
    }
    let Some(ratio) = found.ratios.first() else {
        return Verdict::Missed("no ratio".to_owned());
    };
    let Ratio {
        median, min, max, ..
    } = ratio;
    let shown = format!("{median:.2} ({min:.2}-{max:.2})");
    if *median >= least {
        return Verdict::Kept(shown);
    }
    match line.noise().first() {
        Some(noise) if median.is_finite() => Verdict::Noisy(format!("{shown}: {noise}")),
        _ => Verdict::Missed(shown),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::Facts;
    use crate::row::Found;

    fn report(found: Found) -> Report {
        Report {
            profile: GUARD,
            machine: Facts::default(),
            rows: vec![Line {
                row: "H1",
                on: "PostgreSQL",
                about: "",
                found,
                calibration: Default::default(),
                seconds: 1.0,
            }],
            not_run: Vec::new(),
            promises: Vec::new(),
            seconds: 1.0,
        }
    }

    fn of(ratio: f64) -> Found {
        Found {
            ratios: Ratio::of("rate", vec![ratio]).into_iter().collect(),
            ..Found::default()
        }
    }

    #[test]
    fn every_guarded_row_is_one_row_of_its_name_and_place() {
        for (name, _) in REACHED {
            let is_broker = name.ends_with("@RabbitMQ") || name.ends_with("@Kafka");
            let is_built = cfg!(feature = "brokers") || !is_broker;
            assert_eq!(find(name).is_some(), is_built, "{name}");
        }
    }

    #[test]
    fn what_was_reached_is_what_the_documentation_says() {
        let text = include_str!("../../docs/performance.md");
        for (name, reached) in REACHED {
            let line = format!("| {name} | {reached:.2} | {:.2} |", reached - LOOSER);
            assert!(text.contains(&line), "docs/performance.md has no `{line}`");
        }
    }

    #[test]
    fn a_ratio_below_the_limit_a_fault_and_no_figure_are_missed() {
        let kept = Verdict::Kept("0.50 (0.50-0.50)".to_owned());
        assert_eq!(judge(&report(of(0.5)), 0.47), kept);
        let is_missed = |found| matches!(judge(&report(found), 0.47), Verdict::Missed(_));
        assert!(is_missed(of(0.46)));
        assert!(is_missed(of(f64::NAN)));
        assert!(is_missed(Found::default()));
        let mut nothing = report(of(0.9));
        nothing.rows.clear();
        assert_eq!(judge(&nothing, 0.47), Verdict::NotRun);
    }

    #[test]
    fn a_busy_machine_excuses_a_low_ratio_and_no_wrong_run() {
        let busy = |found| {
            let mut report = report(found);
            report.rows[0].calibration.0.others = Some(0.4);
            judge(&report, 0.47)
        };
        let said = "0.46 (0.46-0.46): others had 40 % of the processor".to_owned();
        assert_eq!(busy(of(0.46)), Verdict::Noisy(said));
        assert!(matches!(busy(of(0.5)), Verdict::Kept(_)));
        let lost = "a message was lost".to_owned();
        let wrong = Found {
            faults: vec![lost.clone()],
            ..of(0.9)
        };
        assert_eq!(busy(wrong), Verdict::Missed(lost));
    }
}
