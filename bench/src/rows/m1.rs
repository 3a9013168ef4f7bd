//! M1: the memory of a host that has nothing to do, in a process of its own.

use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use futures_util::future::{BoxFuture, FutureExt};
use sagabus_core::Host;
use sagabus_saga::MachineEndpoint;
use tokio::process::Command;

use crate::machine;
use crate::ratio::{Must, Promise};
use crate::row::{Bench, Found};
use crate::services::{Backend, Filling, Place};
use crate::workload::{ENDPOINT, accounts};

/// The most that it may use, in MiB.
const MUST: Must = Must::AtMost(25.0);
/// How long the host runs before it is looked at.
const RUNS: Duration = Duration::from_secs(3);

/// Runs an idle host and reads its memory.
pub(crate) fn idle_host(bench: &Bench, backend: Backend) -> BoxFuture<'_, Result<Found>> {
    async move {
        let place = bench.services.place(backend, &Filling::none()).await?;
        let at = match &place {
            Place::Postgres { url, .. } => url.clone(),
            Place::Sqlite { path } => path.display().to_string(),
        };
        let program = std::env::current_exe()?;
        let output = Command::new(program)
            .args(["idle-host", backend.name(), &at])
            .output()
            .await?;
        if !output.status.success() {
            bail!(
                "the idle host failed: {}",
                String::from_utf8_lossy(&output.stderr)
            );
        }
        let text = String::from_utf8(output.stdout)?;
        let mut kib = text.split_whitespace().map(str::parse::<f64>);
        let (now, most) = (kib.next(), kib.next());
        let (now, most) = now.zip(most).context("the idle host said nothing")?;
        let mut found = Found::default();
        let mib = |kib: f64| kib / 1024.0;
        let what = format!("MiB at most ({:.1} after {RUNS:?})", mib(now?));
        found.promises.push(Promise::new(what, mib(most?), MUST));
        bench.services.remove(place).await?;
        Ok(found)
    }
    .boxed()
}

/// The process itself: runs a host, prints its memory in KiB, and the most it ever had.
pub(crate) async fn run_idle_host(backend: &str, at: &str) -> Result<()> {
    let place = if backend == Backend::Sqlite.name() {
        Place::Sqlite { path: at.into() }
    } else {
        Place::Postgres {
            url: at.to_owned(),
            name: String::new(),
        }
    };
    let host = Host::builder("idle")
        .shared_store(place.open().await?.store)
        .endpoint(ENDPOINT, |e| e.machine(accounts()))
        .build()?
        .start()
        .await?;
    tokio::time::sleep(RUNS).await;
    let memory = machine::memory_kib(std::process::id());
    let (now, most) = memory.context("this system does not say what a process uses")?;
    println!("{now} {most}");
    host.stop(Duration::from_secs(5)).await;
    Ok(())
}
