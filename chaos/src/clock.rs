//! A host whose clock goes wrong: a file says by how much. libfaketime reads it, before the program;
//! or the program itself, and the engine alone goes by that clock.
//!
//! librdkafka does not run under libfaketime: it reads the time by calls that are replaced, and waits
//! until a time by glibc's `cnd_timedwait`, within which none is. Its waits are as long as the clock
//! is ahead, or none at all.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result};
use sagabus_core::chance;

use crate::dice::Dice;
use crate::process::Replica;

/// Names the library.
const LIBRARY: &str = "SAGABUS_FAKETIME";
/// Names the file, to a host that reads it itself.
const OWN: &str = "SAGABUS_CHAOS_CLOCK";
/// How far the clock is set, in minutes: at least and at most.
const MINUTES: (u64, u64) = (5, 180);
/// One step in so many sets it right.
const RIGHT: u64 = 4;
/// What a host says may be so old.
const NEAR: i64 = 60;

/// The clock of one host.
#[derive(Debug)]
pub(crate) struct Clock {
    host: usize,
    /// `None`: the host reads the file.
    library: Option<String>,
    file: PathBuf,
    /// What the host has not shown yet: seconds that its clock is ahead.
    awaited: Option<i64>,
}

impl Clock {
    /// Makes the clock of one of the hosts: of all its program, or of the engine alone.
    ///
    /// # Errors
    /// Why there is none.
    pub(crate) fn of(host: usize, folder: &Path, is_engines: bool) -> Result<Self, String> {
        let library = match is_engines {
            true => None,
            false => Some(std::env::var(LIBRARY).map_err(|_| format!("{LIBRARY} is not set"))?),
        };
        let mut clock = Self {
            host,
            library,
            file: folder.join("clock"),
            awaited: None,
        };
        clock.set(0).map_err(|error| error.to_string())?;
        Ok(clock)
    }

    /// Which host it is.
    pub(crate) fn host(&self) -> usize {
        self.host
    }

    /// What the host's process is told.
    pub(crate) fn variables(&self) -> Vec<(&'static str, String)> {
        let file = self.file.display().to_string();
        let Some(library) = &self.library else {
            return vec![(OWN, file)];
        };
        vec![
            ("LD_PRELOAD", library.clone()),
            ("FAKETIME_TIMESTAMP_FILE", file),
            ("FAKETIME_CACHE_DURATION", "1".to_owned()),
            // What waits goes by this clock, and no step of the other one changes it.
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1".to_owned()),
        ]
    }

    /// Sets the clock forward, back or right.
    pub(crate) fn step(&mut self, dice: &mut Dice) -> Result<()> {
        let seconds = 60 * i64::try_from(MINUTES.0 + dice.below(MINUTES.1 - MINUTES.0))?;
        let ahead = match dice.below(RIGHT) {
            0 => 0,
            n if n % 2 == 0 => seconds,
            _ => -seconds,
        };
        self.set(ahead)?;
        self.awaited = Some(ahead);
        Ok(())
    }

    /// Renames a file into place: the library may look at any moment.
    fn set(&mut self, ahead: i64) -> Result<()> {
        let draft = self.file.with_extension("draft");
        fs::write(&draft, format!("{ahead:+}\n")).context("a host's clock can be set")?;
        fs::rename(&draft, &self.file).context("a host's clock can be set")
    }

    /// Says whether the host has shown the latest step since this was asked last.
    pub(crate) fn look(&mut self, host: &Replica) -> bool {
        let (Some(ahead), Some(said)) = (self.awaited, host.said_clock()) else {
            return false;
        };
        let has_come = (said - now() - ahead).abs() < NEAR;
        self.awaited = self.awaited.filter(|_| !has_come);
        has_come
    }
}

/// Removes what libfaketime leaves of a process that was killed.
pub(crate) fn tidy(process: u32) {
    for name in ["faketime_shm_", "sem.faketime_sem_"] {
        // There is none of a process without the library.
        let _ = fs::remove_file(format!("/dev/shm/{name}{process}"));
    }
}

/// Has the engine go by the clock of the file, where a host is to read one.
pub(crate) fn follow() {
    let file = std::env::var_os(OWN);
    let said = file.and_then(|file| fs::read_to_string(file).ok());
    let ahead = said.and_then(|said| said.trim().parse::<i64>().ok());
    if let Some(ahead) = ahead {
        chance::set_clock(ahead * 1_000_000);
    }
}

/// Returns what the engine takes for the time, in seconds.
pub(crate) fn engines() -> i64 {
    sagabus_core::clock::now().as_micros() / 1_000_000
}

/// Returns this process's wall clock, in seconds.
pub(crate) fn now() -> i64 {
    micros() / 1_000_000
}

/// Returns this process's wall clock, in microseconds.
pub(crate) fn micros() -> i64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let since = since.unwrap_or(Duration::ZERO);
    i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
}
