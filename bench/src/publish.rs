//! Where figures go: always below the folder of results; into the documentation only if the run
//! was correct, quiet, repeated often enough, and of a commit that others can check out.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use crate::report::Report;

/// Where published figures live, below the root of the work tree.
pub(crate) const PUBLISHED: &str = "docs/bench";
/// Fewer repetitions say nothing about how far they spread.
const REPS_MIN: usize = 5;

/// One set of figures as files: JSON for programs, Markdown and a chart for people.
#[derive(Debug)]
pub(crate) struct Figures {
    pub(crate) json: String,
    pub(crate) markdown: String,
    pub(crate) chart: String,
}

impl Figures {
    /// Writes the three files as `NAME.json`, `NAME.md` and `NAME.svg`; returns where the first is.
    pub(crate) fn write(&self, folder: &Path, name: &str) -> Result<PathBuf> {
        fs::create_dir_all(folder)
            .with_context(|| format!("cannot make `{}`", folder.display()))?;
        let files = [
            ("json", &self.json),
            ("md", &self.markdown),
            ("svg", &self.chart),
        ];
        for (ending, text) in files {
            let path = folder.join(format!("{name}.{ending}"));
            fs::write(&path, text).with_context(|| format!("cannot write `{}`", path.display()))?;
        }
        Ok(folder.join(format!("{name}.json")))
    }
}

/// Says why a report may not be published; nothing where it may.
pub(crate) fn objections(report: &Report) -> Vec<String> {
    let mut found = Vec::new();
    if report.rows.is_empty() {
        found.push("no row was run".to_owned());
    }
    if report.profile.reps < REPS_MIN {
        let reps = report.profile.reps;
        found.push(format!(
            "{reps} repetitions, and figures want {REPS_MIN} at least"
        ));
    }
    if report.profile.alone.is_some() {
        found.push("one subject ran alone".to_owned());
    }
    match report.machine.commit.as_deref() {
        None => found.push("nobody knows which commit was measured".to_owned()),
        Some(commit) if commit.ends_with("-dirty") => {
            found.push(format!("the work tree has changes ({commit})"));
        }
        Some(_) => {}
    }
    for line in &report.rows {
        let place = format!("{} on {}", line.row, line.on);
        let faults = line.found.faults.iter();
        found.extend(faults.map(|fault| format!("{place} has no figure: {fault}")));
        let noise = line.noise();
        found.extend(
            noise
                .iter()
                .map(|noise| format!("{place} is noisy: {noise}")),
        );
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::calibration::Calibration;
    use crate::machine::Facts;
    use crate::report::Line;
    use crate::row::{Found, Profile, QUICK};

    const QUIET: Calibration = Calibration {
        cpu_millis: 20.0,
        others: None,
        fsync_micros: 100.0,
        ping_micros: None,
    };

    fn report() -> Report {
        Report {
            profile: Profile { reps: 5, ..QUICK },
            machine: Facts {
                commit: Some("0123456789ab".to_owned()),
                ..Facts::default()
            },
            rows: vec![Line {
                row: "R1",
                on: "PostgreSQL, RabbitMQ",
                about: "",
                found: Found::default(),
                calibration: (QUIET, QUIET),
                seconds: 1.0,
            }],
            not_run: Vec::new(),
            promises: Vec::new(),
            seconds: 1.0,
        }
    }

    fn check(expected: &str, change: impl FnOnce(&mut Report)) {
        let mut report = report();
        change(&mut report);
        let found = objections(&report);
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].contains(expected), "{found:?}");
    }

    #[test]
    fn a_quiet_and_correct_run_of_a_commit_may_be_published() {
        assert_eq!(objections(&report()), [""; 0]);
    }

    #[test]
    fn every_reason_not_to_publish_is_said() {
        check("no row was run", |report| report.rows.clear());
        check("4 repetitions", |report| report.profile.reps = 4);
        check("changes", |report| {
            report.machine.commit = Some("0123456789ab-dirty".to_owned());
        });
        check("nobody knows", |report| report.machine.commit = None);
        check("is noisy: processor moved by 50 %", |report| {
            report.rows[0].calibration.1.cpu_millis = 30.0;
        });
        check("has no figure: 3 lost", |report| {
            report.rows[0].found.faults.push("3 lost".to_owned());
        });
    }
}
