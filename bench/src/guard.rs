//! The guard: a few rows for a short time, by their ratios alone, so that what was reached is not lost
//! unseen. The machine may be busy: subjects take turns, limits are loose, and a row that misses its
//! limit is measured a second time.

use anyhow::Result;

use crate::ratio::Ratio;
use crate::report::{Line, Report};
use crate::row::{Bench, Profile, QUICK, Row};
use crate::{chosen, session};

/// How much less than what was reached is let pass.
const LOOSER: f64 = 0.15;

/// How much is measured: little.
pub(crate) const GUARD: Profile = Profile {
    name: "guard",
    seconds: 0.4,
    backlog: 10_000,
    ..QUICK
};

/// Rows and what they reached, as the README's table has it.
const REACHED: &[(&str, f64)] = &[
    ("H1@PostgreSQL", 1.03),
    ("H2@PostgreSQL", 0.62),
    ("H2@SQLite", 0.79),
    ("H2@RabbitMQ", 0.80),
    ("H2@Kafka", 0.56),
    ("R1@RabbitMQ", 0.74),
    ("R2@Kafka", 0.71),
];

/// Returns the guarded rows.
pub(crate) fn rows() -> Result<Vec<Row>> {
    let names: Vec<String> = REACHED.iter().map(|(name, _)| (*name).to_owned()).collect();
    chosen(&names)
}

/// Measures the rows, those that missed twice, and prints what came of each; says whether all is
/// well.
pub(crate) async fn run(bench: &Bench) -> Result<bool> {
    println!("| row | reached | at least | is (min-max) | |\n|---|---|---|---|---|");
    let mut is_good = true;
    for (row, (name, reached)) in rows()?.into_iter().zip(REACHED) {
        let least = reached - LOOSER;
        let mut judged = judge(&session::run(bench, vec![row], None).await?, least);
        if judged.is_err() {
            judged = judge(&session::run(bench, vec![row], None).await?, least);
        }
        is_good &= judged.is_ok();
        let (shown, word) = match judged {
            Ok(shown) => (shown, "kept"),
            Err(shown) => (shown, "MISSED"),
        };
        println!("| {name} | {reached:.2} | {least:.2} | {shown} | {word} |");
    }
    Ok(is_good)
}

/// Says what the row's ratio is; as an error where it is below `least` or there is none.
fn judge(report: &Report, least: f64) -> Result<String, String> {
    let Some(line) = report.rows.first() else {
        return Err("not run".to_owned());
    };
    let Line { found, .. } = line;
    if let Some(fault) = found.faults.first() {
        return Err(fault.clone());
    }
    let Some(ratio) = found.ratios.first() else {
        return Err("no ratio".to_owned());
    };
    let Ratio {
        median, min, max, ..
    } = ratio;
    let shown = format!("{median:.2} ({min:.2}-{max:.2})");
    if *median >= least {
        Ok(shown)
    } else {
        Err(shown)
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
        let rows = rows().unwrap();
        assert_eq!(rows.len(), REACHED.len());
        for (row, (name, _)) in rows.iter().zip(REACHED) {
            assert_eq!(format!("{}@{}", row.name, row.place()), *name);
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
    fn a_ratio_below_the_limit_a_fault_and_a_row_that_did_not_run_are_missed() {
        assert_eq!(judge(&report(of(0.5)), 0.47).unwrap(), "0.50 (0.50-0.50)");
        assert!(judge(&report(of(0.46)), 0.47).is_err());
        assert!(judge(&report(of(f64::NAN)), 0.47).is_err());
        assert!(judge(&report(Found::default()), 0.47).is_err());
        let wrong = Found {
            faults: vec!["a message was lost".to_owned()],
            ..of(0.9)
        };
        assert_eq!(
            judge(&report(wrong), 0.47).unwrap_err(),
            "a message was lost"
        );
        let mut nothing = report(of(0.9));
        nothing.rows.clear();
        assert_eq!(judge(&nothing, 0.47).unwrap_err(), "not run");
    }
}
