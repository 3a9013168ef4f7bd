//! A process of ours, known by its id *and* its start time, so that a number that the system has
//! given to somebody else since is never signalled.

use std::fs;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde::{Deserialize, Serialize};

use crate::fail::{Result, fail};

/// Between two looks at a process that was told to end.
const POLL: Duration = Duration::from_millis(20);

/// A process that we started.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Owned {
    pub(crate) pid: i32,
    /// Start time in clock ticks since boot: field 22 of `/proc/<pid>/stat`.
    pub(crate) started: u64,
}

impl Owned {
    /// The running process of this id, if a word of its command line ends with `mark` (a data
    /// folder; somebody who reads a file in that folder is not meant).
    pub(crate) fn marked(pid: i32, mark: &str) -> Option<Self> {
        let words = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
        if !words
            .split(|byte| *byte == 0)
            .any(|word| word.ends_with(mark.as_bytes()))
        {
            return None;
        }
        Some(Self {
            pid,
            started: start_time(pid)?,
        })
    }

    /// Every running process that is marked so.
    pub(crate) fn all_marked(mark: &str) -> Vec<Self> {
        let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
        let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        pids.filter_map(|pid| Self::marked(pid, mark)).collect()
    }

    /// Every running process that is marked so, or was started by one: its environment names the
    /// mark.
    pub(crate) fn all_left_by(mark: &str) -> Vec<Self> {
        let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
        let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        let left = pids.filter(|pid| {
            ["cmdline", "environ"].iter().any(|file| {
                let words = fs::read(format!("/proc/{pid}/{file}")).unwrap_or_default();
                let mut words = words.split(|byte| *byte == 0);
                words.any(|word| word.ends_with(mark.as_bytes()))
            })
        });
        left.filter_map(|pid: i32| {
            let started = start_time(pid)?;
            Some(Self { pid, started })
        })
        .collect()
    }

    /// Whether it still runs; a zombie does not.
    pub(crate) fn is_running(&self) -> bool {
        start_time(self.pid) == Some(self.started)
    }

    /// Sends each signal in turn, with the time it may take, until the process has ended.
    pub(crate) fn end(&self, steps: &[(Signal, Duration)]) -> Result<()> {
        for (signal, patience) in steps {
            let deadline = Instant::now() + *patience;
            if self.is_running() {
                // It may end between the look and the signal: the loop below notices.
                let _ = Pid::from_raw(self.pid).map(|pid| kill_process(pid, *signal));
            }
            while self.is_running() && Instant::now() < deadline {
                std::thread::sleep(POLL);
            }
            if !self.is_running() {
                return Ok(());
            }
        }
        fail(format!(
            "process {} does not end; look at it with `ps -p {}`",
            self.pid, self.pid
        ))
    }
}

fn start_time(pid: i32) -> Option<u64> {
    parse_start_time(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

/// The command name stands in parentheses and may itself contain spaces and parentheses.
fn parse_start_time(stat: &str) -> Option<u64> {
    let mut fields = stat.rsplit_once(") ")?.1.split_ascii_whitespace();
    if matches!(fields.next()?, "Z" | "X") {
        return None;
    }
    fields.nth(18)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn start_time_is_field_22_whatever_the_name_is() {
        let rest = "1 5 5 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 987654 22 33";
        assert_eq!(
            parse_start_time(&format!("5 (a b) c) S {rest}")),
            Some(987_654)
        );
        assert_eq!(parse_start_time(&format!("5 (x) Z {rest}")), None);
        assert_eq!(parse_start_time("5 (x"), None);
    }

    #[test]
    fn a_process_is_ended_only_when_it_is_still_the_same_one() {
        let mut child = Command::new("sleep").arg("600.25").spawn().unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        assert_eq!(Owned::marked(pid, "another mark"), None);
        // The child shows our own command line until it has become `sleep`.
        let owned = loop {
            if let Some(owned) = Owned::marked(pid, "600.25") {
                break owned;
            }
        };

        let reused = Owned {
            pid,
            started: owned.started + 1,
        };
        reused.end(&[(Signal::KILL, Duration::ZERO)]).unwrap();
        assert!(owned.is_running());

        owned
            .end(&[(Signal::TERM, Duration::from_secs(10))])
            .unwrap();
        assert!(!owned.is_running());
        child.wait().unwrap();
    }
}
