//! Processes that the bench starts: each does what one line tells it and answers with one line.

use std::ffi::OsStr;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::process::{Child as Process, ChildStdin, ChildStdout, Command};

use crate::machine;

/// A process that takes longer for an answer is stuck.
const PATIENCE: Duration = Duration::from_secs(330);

/// What became of the messages that one process handled.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Handled {
    pub(crate) seconds: f64,
    pub(crate) handled: i64,
    pub(crate) distinct: i64,
    pub(crate) left: i64,
}

/// A process with a way in and a way out; it ends with this.
pub(crate) struct Child {
    process: Process,
    orders: ChildStdin,
    says: BufReader<ChildStdout>,
}

impl Child {
    /// Starts a program and waits until it is ready.
    pub(crate) async fn start<S: AsRef<OsStr>>(program: &OsStr, arguments: &[S]) -> Result<Self> {
        let name = program.to_string_lossy();
        let mut process = Command::new(program)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("cannot start `{name}`"))?;
        let orders = process.stdin.take().context("no way in")?;
        let says = BufReader::new(process.stdout.take().context("no way out")?);
        let mut child = Self {
            process,
            orders,
            says,
        };
        let word = child.line().await?;
        ensure!(word == "ready", "`{name}` said `{word}` instead of `ready`");
        Ok(child)
    }

    /// Starts this program again, as another one.
    pub(crate) async fn again(arguments: &[&str]) -> Result<Self> {
        Self::start(std::env::current_exe()?.as_os_str(), arguments).await
    }

    /// Says something, and waits for nothing.
    pub(crate) async fn tell(&mut self, word: &str) -> Result<()> {
        self.orders
            .write_all(format!("{word}\n").as_bytes())
            .await?;
        Ok(())
    }

    /// Reads an answer.
    pub(crate) async fn answer<T: DeserializeOwned>(&mut self) -> Result<T> {
        let line = self.line().await?;
        serde_json::from_str(&line).with_context(|| format!("`{line}` is no answer"))
    }

    async fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        let read = tokio::time::timeout(PATIENCE, self.says.read_line(&mut line)).await;
        if read.with_context(|| format!("no word for {PATIENCE:?}"))?? == 0 {
            let ended = self.process.wait().await?;
            bail!("the process ended: {ended}");
        }
        Ok(line.trim().to_owned())
    }

    /// Returns the processor time that it used so far.
    pub(crate) fn cpu(&self) -> Option<Duration> {
        machine::cpu_of(self.process.id()?)
    }

    /// Returns the most memory that it ever had.
    pub(crate) fn most_kib(&self) -> Option<u64> {
        machine::memory_kib(self.process.id()?).map(|(_, most)| most)
    }

    /// Lets it end.
    pub(crate) async fn end(mut self) -> Result<()> {
        self.tell("end").await?;
        let ended = self.process.wait().await?;
        ensure!(ended.success(), "the process ended: {ended}");
        Ok(())
    }
}

/// For the process itself: waits for a line.
pub(crate) async fn order() -> Result<()> {
    let read = tokio::task::spawn_blocking(|| std::io::stdin().read_line(&mut String::new()));
    read.await?.context("nobody gives orders")?;
    Ok(())
}
