//! The host processes: started, killed, stopped, told to go, and started again.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result};
use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, Command};
use tokio::time::Instant;

use crate::carrier::Carrier;
use crate::clock;
use crate::runs::Life;
use crate::service::{DEADLINE, Service};

/// A host starts in less than a second, or when what it needs is there again.
const STARTS_WITHIN: Duration = Duration::from_secs(40);
/// As much of what a host said as has its latest word on anything.
const LATEST: u64 = 4096;

/// One replica of a service.
#[derive(Debug)]
pub(crate) struct Replica {
    service: Service,
    name: String,
    database: String,
    carrier: Option<Carrier>,
    folder: PathBuf,
    /// What else its process is told.
    pub(crate) tells: bool,
    pub(crate) variables: Vec<(&'static str, String)>,
    /// How often it was started, and when last.
    lives: u32,
    since: Instant,
    child: Option<Child>,
}

/// How a replica ended that was told to go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Gone {
    InTime,
    TooLate,
    Badly,
}

impl Replica {
    pub(crate) fn new(
        service: Service,
        name: &str,
        database: &str,
        carrier: Option<&Carrier>,
        folder: &Path,
    ) -> Self {
        Self {
            service,
            name: name.to_owned(),
            database: database.to_owned(),
            carrier: carrier.cloned(),
            folder: folder.to_owned(),
            tells: false,
            variables: Vec::new(),
            lives: 0,
            since: Instant::now(),
            child: None,
        }
    }

    /// Starts it, with a log of this life.
    pub(crate) fn start(&mut self) -> Result<()> {
        self.lives += 1;
        self.since = Instant::now();
        let log = |kind| self.log(self.lives, kind);
        let file = |kind| File::create(log(kind)).context("a log can be written");
        let this = std::env::current_exe().context("a program knows its own path")?;
        let mut command = Command::new(this);
        let service = match self.service {
            Service::Transfers => "transfers",
            Service::Accounts => "accounts",
        };
        command.args(["host", "--service", service, "--name", &self.name]);
        command.args(["--database", &self.database]);
        if let Some(carrier) = &self.carrier {
            command.args(["--carrier", &carrier.told()]);
        }
        if self.tells {
            command.arg("--tells");
        }
        command.envs(self.variables.iter().map(|(name, value)| (name, value)));
        command.stdin(Stdio::null()).kill_on_drop(true);
        command.stdout(file("out")?).stderr(file("err")?);
        self.child = Some(
            command
                .spawn()
                .context("this program can be started again")?,
        );
        Ok(())
    }

    fn log(&self, life: u32, kind: &str) -> PathBuf {
        self.folder.join(format!("{}-{life}.{kind}", self.name))
    }

    fn pid(&self) -> Option<Pid> {
        let id = self.child.as_ref()?.id()?;
        Pid::from_raw(i32::try_from(id).ok()?)
    }

    fn signal(&self, signal: Signal) {
        if let Some(pid) = self.pid() {
            // One that ended by itself meanwhile is started again by whoever looks after it.
            let _ = kill_process(pid, signal);
        }
    }

    /// Kills it where it stands.
    pub(crate) async fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let id = child.id();
            let _ = child.kill().await; // One that ended by itself is as dead.
            if let Some(id) = id {
                clock::tidy(id);
            }
        }
    }

    /// Stops it without its knowing.
    pub(crate) fn freeze(&self) {
        self.signal(Signal::STOP);
    }

    /// Lets it go on.
    pub(crate) fn thaw(&self) {
        self.signal(Signal::CONT);
    }

    /// Tells it to go and waits.
    pub(crate) async fn terminate(&mut self) -> Gone {
        let started = Instant::now();
        self.signal(Signal::TERM);
        let Some(mut child) = self.child.take() else {
            return Gone::Badly;
        };
        let ended = tokio::time::timeout(DEADLINE * 2, child.wait()).await;
        match ended {
            Ok(Ok(status)) if !status.success() => Gone::Badly,
            Ok(Ok(_)) if started.elapsed() <= DEADLINE => Gone::InTime,
            _ => Gone::TooLate,
        }
    }

    /// Says whether it ended by itself.
    pub(crate) fn has_ended(&mut self) -> bool {
        match &mut self.child {
            Some(child) => !matches!(child.try_wait(), Ok(None)),
            None => true,
        }
    }

    /// Says whether it has started: it says so first.
    pub(crate) fn is_up(&self) -> bool {
        let mut first = [0; 3];
        let file = File::open(self.log(self.lives, "out"));
        let read = file.and_then(|mut file| file.read_exact(&mut first));
        read.is_ok() && first == *b"up\n"
    }

    /// Says whether it should have started by now, and has not.
    pub(crate) fn is_stuck(&self) -> bool {
        self.since.elapsed() > STARTS_WITHIN && !self.is_up()
    }

    /// What it took for the time last, in seconds.
    pub(crate) fn said_clock(&self) -> Option<i64> {
        let mut file = File::open(self.log(self.lives, "out")).ok()?;
        let length = file.metadata().ok()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(LATEST)))
            .ok()?;
        let mut text = Vec::new();
        file.read_to_end(&mut text).ok()?;
        let text = String::from_utf8_lossy(&text);
        let mut lines = text.lines().rev();
        lines.find_map(|line| line.strip_prefix("clock ")?.parse().ok())
    }

    /// Counts the lives whose log has one of these words.
    pub(crate) fn lives_with(&self, words: &[&str]) -> u64 {
        let has = |life: &u32| {
            let log = std::fs::read_to_string(self.log(*life, "err"));
            let log = log.unwrap_or_default();
            words.iter().any(|word| log.contains(word))
        };
        (1..=self.lives).filter(has).count() as u64
    }

    /// What each of its lives said.
    pub(crate) fn lives_told(&self) -> Vec<Life> {
        let each = (1..=self.lives).map(|life| {
            let text = std::fs::read_to_string(self.log(life, "out"));
            Life::of(&text.unwrap_or_default())
        });
        each.collect()
    }

    /// Adds up what all its lives have said that they counted, by their last words.
    pub(crate) fn counted(&self) -> BTreeMap<String, u64> {
        let mut sums = BTreeMap::new();
        for life in 1..=self.lives {
            let text = std::fs::read_to_string(self.log(life, "out")).unwrap_or_default();
            let mut lines = text.lines().rev();
            let last = lines.find_map(|line| {
                let said = line.strip_prefix("counted ")?;
                serde_json::from_str::<BTreeMap<String, u64>>(said).ok()
            });
            for (name, value) in last.unwrap_or_default() {
                *sums.entry(name).or_default() += value;
            }
        }
        sums
    }

    pub(crate) fn lives(&self) -> u32 {
        self.lives
    }
}
