//! One call of the bench: rows run one after the other, each between two calibrations, and each
//! kept as soon as it is done, so that a long run can go on where it was interrupted.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context as _, Result, bail};
use serde::{Deserialize, Serialize};

use crate::calibration::Calibration;
use crate::machine::{self, Facts};
use crate::report::{Line, NotRun, Report};
use crate::row::{Bench, Profile, Row};
use crate::rows;
use crate::services;

/// What a folder of kept rows is about: rows of two of these are never one table.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(bound(deserialize = "'de: 'static"))]
struct About {
    profile: Profile,
    commit: Option<String>,
}

/// Rows that are done, in files.
#[derive(Debug)]
pub(crate) struct Kept {
    folder: Option<PathBuf>,
}

impl Kept {
    /// Opens a folder for the rows of one profile and commit.
    pub(crate) fn open(folder: Option<PathBuf>, profile: Profile, facts: &Facts) -> Result<Self> {
        let Some(folder) = folder else {
            return Ok(Self { folder: None });
        };
        fs::create_dir_all(&folder)
            .with_context(|| format!("cannot make `{}`", folder.display()))?;
        let path = folder.join("about.json");
        let about = About {
            profile,
            commit: facts.commit.clone(),
        };
        if path.exists() {
            let found: About = read(&path)?;
            if found != about {
                let folder = folder.display();
                bail!(
                    "`{folder}` holds rows of another profile or commit ({found:?}, now {about:?}); \
                     name another folder"
                );
            }
        } else {
            write(&path, &about)?;
        }
        Ok(Self {
            folder: Some(folder),
        })
    }

    fn path(&self, row: &Row) -> Option<PathBuf> {
        Some(self.folder.as_ref()?.join(file_name(row)))
    }

    fn find(&self, row: &Row) -> Result<Option<Line>> {
        match self.path(row).filter(|path| path.exists()) {
            Some(path) => read(&path).map(Some),
            None => Ok(None),
        }
    }

    /// Keeps what is a figure; what went wrong is measured again.
    fn keep(&self, row: &Row, line: &Line) -> Result<()> {
        match self.path(row).filter(|_| line.noise().is_empty()) {
            Some(path) if line.found.faults.is_empty() => write(&path, line),
            _ => Ok(()),
        }
    }
}

/// Names the file of a row: letters that every file system takes, different for different rows.
fn file_name(row: &Row) -> String {
    let name = format!("{}@{}", row.name, row.on()).replace('\'', "1");
    let plain = name.replace(|c: char| !c.is_ascii_alphanumeric() && c != '@', "-");
    format!("{plain}.json")
}

/// Reads a file of ours. Its text lives as long as the program: names in it are like those that
/// the program was built with, and few.
pub(crate) fn read<T: Deserialize<'static>>(path: &Path) -> Result<T> {
    let said = || format!("cannot read `{}`", path.display());
    let text: &'static str = fs::read_to_string(path).with_context(said)?.leak();
    serde_json::from_str(text).with_context(said)
}

/// Writes a file whole or not at all.
fn write(path: &Path, value: &impl Serialize) -> Result<()> {
    let said = || format!("cannot write `{}`", path.display());
    let new = path.with_extension("new");
    fs::write(&new, serde_json::to_string_pretty(value)?).with_context(said)?;
    fs::rename(&new, path).with_context(said)
}

/// Runs rows, but for those that are kept.
pub(crate) async fn run(bench: &Bench, rows: Vec<Row>, kept: Option<PathBuf>) -> Result<Report> {
    let started = Instant::now();
    let mut facts = Facts::read();
    facts.postgres = bench.services.postgres_version().await?;
    let kept = Kept::open(kept, bench.profile, &facts)?;
    // What cannot run is said before the first hour, not behind it.
    let mut not_run = Vec::new();
    for row in &rows {
        if let (None, Some(why)) = (kept.find(row)?, why_not(bench, row)?) {
            not_run.push(NotRun::of(row, why));
        }
    }
    let mut lines = Vec::new();
    let mut before = Calibration::take(&bench.services).await?;
    for row in rows {
        if let Some(line) = kept.find(&row)? {
            eprintln!("{} on {}: kept", row.name, row.on());
            lines.push(line);
            continue;
        }
        if not_run.iter().any(|one| one.is(&row)) {
            continue;
        }
        // The rows before may have left less disk.
        if let Some(why) = why_not(bench, &row)? {
            not_run.push(NotRun::of(&row, why));
            continue;
        }
        let line = run_one(bench, &row, before).await?;
        before = line.calibration.1;
        kept.keep(&row, &line)?;
        lines.push(line);
    }
    facts.load_after = machine::load();
    Ok(Report {
        profile: bench.profile,
        machine: facts,
        promises: rows::promises(&lines),
        rows: lines,
        not_run,
        seconds: started.elapsed().as_secs_f64(),
    })
}

/// Says why a row cannot run here.
fn why_not(bench: &Bench, row: &Row) -> Result<Option<String>> {
    if !bench.services.has(row.backend) {
        return Ok(Some(format!("{} is not set", services::URL)));
    }
    if let Some(broker) = row.broker.filter(|broker| !bench.brokers.has(*broker)) {
        return Ok(Some(format!("{} is not set", broker.variable())));
    }
    if let Some(program) = row.peer.filter(|program| program.path().is_none()) {
        return Ok(Some(format!("{} is not built here", program.name())));
    }
    let (free, needed) = (
        machine::free_bytes(bench.services.folder())?,
        row.disk(&bench.profile),
    );
    let gib = |bytes: u64| bytes as f64 / f64::from(1 << 30);
    Ok((free < needed).then(|| {
        let (free, needed) = (gib(free), gib(needed));
        format!("it needs {needed:.1} GiB of disk, and {free:.1} are free")
    }))
}

async fn run_one(bench: &Bench, row: &Row, before: Calibration) -> Result<Line> {
    let started = Instant::now();
    let found = (row.run)(bench, row.backend).await;
    let found = found.with_context(|| format!("{} on {}", row.name, row.on()))?;
    let seconds = started.elapsed().as_secs_f64();
    let after = Calibration::take(&bench.services).await?;
    let line = Line {
        row: row.name,
        on: row.on(),
        about: row.about,
        found,
        calibration: (before, after),
        seconds,
    };
    let word = if line.noise().is_empty() {
        ""
    } else {
        ", NOISY"
    };
    eprintln!("{} on {}: {seconds:.1} s{word}", row.name, row.on());
    Ok(line)
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::*;
    use crate::ratio::Ratio;
    use crate::row::{Found, QUICK, Run};

    /// A new folder of this process.
    fn folder(name: &str) -> PathBuf {
        let name = format!("sagabus-bench-{}-{name}", std::process::id());
        std::env::temp_dir().join(name)
    }

    fn line(row: &Row) -> Line {
        let run = Run {
            messages: 10,
            seconds: 2.0,
            notes: BTreeMap::from([("rows per claim", 2.5)]),
            ..Run::default()
        };
        Line {
            row: row.name,
            on: row.on(),
            about: row.about,
            found: Found {
                runs: BTreeMap::from([("ours", vec![run])]),
                ratios: Ratio::of("rate", vec![0.5, 0.5, 0.6]).into_iter().collect(),
                ..Found::default()
            },
            calibration: Default::default(),
            seconds: 1.0,
        }
    }

    #[test]
    fn every_row_has_a_file_of_its_own() {
        let names: BTreeSet<String> = rows::every().iter().map(file_name).collect();
        assert_eq!(names.len(), rows::every().len());
    }

    #[test]
    fn a_row_that_is_kept_is_found_again_by_the_same_profile_and_commit_alone() {
        let (folder, facts) = (folder("kept"), Facts::default());
        let open = |profile| Kept::open(Some(folder.clone()), profile, &facts);
        let row = rows::all().remove(0);
        open(QUICK).unwrap().keep(&row, &line(&row)).unwrap();
        let found = open(QUICK).unwrap().find(&row).unwrap().unwrap();
        assert_eq!(found.row, row.name);
        assert_eq!(found.found.runs["ours"][0].messages, 10);
        assert_eq!(found.found.runs["ours"][0].notes["rows per claim"], 2.5);
        let longer = Profile {
            seconds: 9.0,
            ..QUICK
        };
        let refused = open(longer).unwrap_err().to_string();
        assert!(refused.contains("another profile or commit"), "{refused}");
        fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn what_is_noisy_or_wrong_is_measured_again() {
        let (folder, facts) = (folder("again"), Facts::default());
        let kept = Kept::open(Some(folder.clone()), QUICK, &facts).unwrap();
        let row = rows::all().remove(0);
        let mut wrong = line(&row);
        wrong.found.faults.push("a message was lost".to_owned());
        kept.keep(&row, &wrong).unwrap();
        assert!(kept.find(&row).unwrap().is_none());
        let mut noisy = line(&row);
        noisy.found.ratios[0].spread = 0.5;
        kept.keep(&row, &noisy).unwrap();
        assert!(kept.find(&row).unwrap().is_none());
        fs::remove_dir_all(folder).unwrap();
    }
}
