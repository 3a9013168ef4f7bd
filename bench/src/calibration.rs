//! What the machine can do at one moment: before and after a row, so that a figure that was
//! measured while somebody else had the processor or the disk is known as such.

use std::fs::{self, OpenOptions};
use std::io::{Seek, SeekFrom, Write};
use std::path::Path;
use std::time::Instant;

use anyhow::{Context as _, Result, anyhow};
use serde::{Deserialize, Serialize};

use crate::machine;
use crate::services::Services;

/// How far a measure may move while a row runs: beyond what these three vary on a quiet machine,
/// and less than one other busy process on one of two cores costs.
pub(crate) const MOVED_MAX: f64 = 0.20;
/// How much of the processor others may have: a quiet machine gives a piece of work more than nine
/// tenths of the time that passes, one other busy process on two cores takes a quarter.
pub(crate) const OTHERS_MAX: f64 = 0.15;

/// Measures of the machine; more is slower.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Calibration {
    /// A fixed piece of work on every core at once, in milliseconds.
    pub(crate) cpu_millis: f64,
    /// The part of that time in which others had the processor; it shows a neighbour that was there
    /// before a row and after it.
    #[serde(default)]
    pub(crate) others: Option<f64>,
    /// One `fdatasync` of a page.
    pub(crate) fsync_micros: f64,
    /// One round trip to PostgreSQL that asks for nothing.
    pub(crate) ping_micros: Option<f64>,
}

impl Calibration {
    /// Measures the machine, in less than a second.
    pub(crate) async fn take(services: &Services) -> Result<Self> {
        let folder = services.folder().to_owned();
        let local = tokio::task::spawn_blocking(move || {
            let (cpu_millis, others) = processor()?;
            anyhow::Ok(Self {
                cpu_millis,
                others: Some(others),
                fsync_micros: fsync_micros(&folder)?,
                ping_micros: None,
            })
        });
        Ok(Self {
            ping_micros: services.ping_micros().await?,
            ..local.await??
        })
    }

    /// Says so if others had too much of the processor.
    pub(crate) fn crowded(&self) -> Option<String> {
        let others = self.others.filter(|others| *others > OTHERS_MAX)?;
        Some(format!(
            "others had {:.0} % of the processor",
            others * 100.0
        ))
    }

    /// Says which measures moved too far from here to `after`.
    pub(crate) fn moved(&self, after: &Self) -> Vec<String> {
        let measures = [
            ("processor", Some((self.cpu_millis, after.cpu_millis))),
            ("fdatasync", Some((self.fsync_micros, after.fsync_micros))),
            ("ping", self.ping_micros.zip(after.ping_micros)),
        ];
        let mut found = Vec::new();
        for (name, measure) in measures {
            let Some((before, after)) = measure else {
                continue;
            };
            let moved = before.max(after) / before.min(after) - 1.0;
            if moved > MOVED_MAX {
                let percent = moved * 100.0;
                found.push(format!(
                    "{name} moved by {percent:.0} %: {before:.1}, then {after:.1}"
                ));
            }
        }
        found
    }

    /// Returns the measures as a line for people.
    pub(crate) fn shown(&self) -> String {
        let ping = self
            .ping_micros
            .map_or_else(|| "none".into(), |ping| format!("{ping:.0} us"));
        let others = self.others.map_or_else(String::new, |others| {
            format!(" ({:.0} % others')", others * 100.0)
        });
        format!(
            "processor {:.1} ms{others}, fdatasync {:.0} us, ping {ping}",
            self.cpu_millis, self.fsync_micros
        )
    }
}

/// Returns how long a fixed piece of work takes on all cores, and the part of that time in which it
/// waited for the processor, as medians of a few times.
fn processor() -> Result<(f64, f64)> {
    const TIMES: usize = 7;
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let (mut millis, mut others) = (Vec::with_capacity(TIMES), Vec::new());
    for _ in 0..TIMES {
        let started = Instant::now();
        let threads: Vec<_> = (0..cores).map(|_| std::thread::spawn(work)).collect();
        for thread in threads {
            let waited = thread.join();
            others.push(waited.map_err(|_| anyhow!("the processor's work panicked"))?);
        }
        millis.push(started.elapsed().as_secs_f64() * 1e3);
    }
    Ok((median(millis), median(others)))
}

/// Steps of a generator that nothing can skip; returns the part of the time in which the thread did
/// not run.
fn work() -> f64 {
    const STEPS: u64 = 10_000_000;
    let (started, used) = (Instant::now(), machine::cpu_of_thread());
    let mut x: u64 = 0x9e37_79b9_7f4a_7c15;
    for _ in 0..STEPS {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
    }
    std::hint::black_box(x);
    let used = machine::cpu_of_thread().saturating_sub(used);
    1.0 - used.as_secs_f64() / started.elapsed().as_secs_f64()
}

/// Returns what one `fdatasync` of a page costs, as the median of a few hundred.
fn fsync_micros(folder: &Path) -> Result<f64> {
    const SYNCS: usize = 300;
    let path = folder.join("fsync");
    let options = OpenOptions::new()
        .create(true)
        .write(true)
        .truncate(true)
        .open(&path);
    let mut file = options.with_context(|| format!("cannot write `{}`", path.display()))?;
    let page = [7; 8192];
    file.write_all(&page)?;
    file.sync_all()?;
    let mut micros = Vec::with_capacity(SYNCS);
    for _ in 0..SYNCS {
        file.seek(SeekFrom::Start(0))?;
        file.write_all(&page)?;
        let started = Instant::now();
        file.sync_data()?;
        micros.push(started.elapsed().as_secs_f64() * 1e6);
    }
    fs::remove_file(&path)?;
    Ok(median(micros))
}

/// Returns the middle one.
pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUIET: Calibration = Calibration {
        cpu_millis: 20.0,
        others: Some(0.02),
        fsync_micros: 100.0,
        ping_micros: Some(50.0),
    };

    #[test]
    fn a_measure_that_moved_too_far_is_named_whichever_way_it_moved() {
        let slower = Calibration {
            fsync_micros: 121.0,
            ..QUIET
        };
        let moved = QUIET.moved(&slower);
        assert_eq!(
            moved,
            ["fdatasync moved by 21 %: 100.0, then 121.0"],
            "{moved:?}"
        );
        assert_eq!(slower.moved(&QUIET).len(), 1);
    }

    #[test]
    fn what_stays_within_the_limit_or_is_not_there_says_nothing() {
        let near = Calibration {
            cpu_millis: 23.9,
            ping_micros: None,
            ..QUIET
        };
        assert_eq!(QUIET.moved(&near), [""; 0]);
    }

    #[test]
    fn a_neighbour_that_stays_is_seen_though_nothing_moves() {
        let crowded = Calibration {
            others: Some(0.25),
            ..QUIET
        };
        assert_eq!(crowded.moved(&crowded), [""; 0]);
        let said = crowded.crowded().unwrap();
        assert_eq!(said, "others had 25 % of the processor");
        assert_eq!(QUIET.crowded(), None);
    }

    #[test]
    fn a_thread_that_works_alone_runs_for_part_of_the_time_at_least() {
        let others = work();
        assert!((-0.1..1.0).contains(&others), "{others}");
    }
}
