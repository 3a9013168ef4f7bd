//! How the shop is put together: one host, three endpoints, one SQLite file.

use std::io::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Result;
use sagabus::prelude::*;
use sagabus::store::StoreAdmin;
use sagabus::{Lifecycle, RunningHost};

use crate::console::Console;
use crate::gateway::{Gateway, Till};
use crate::shop::{self, Shop};
use crate::{payments, shipping};

/// How long what a killed process had in hand stays with it. Short, so that a restart goes on
/// quickly; a living process extends it.
const LEASE: Duration = Duration::from_secs(1);

/// How long a stop waits for what is in hand.
const STOP_DEADLINE: Duration = Duration::from_secs(5);

/// Returns where a folder's database is.
pub(crate) fn file_in(folder: &Path) -> PathBuf {
    folder.join("shop.db")
}

/// The running shop.
pub(crate) struct Demo {
    pub(crate) folder: PathBuf,
    pub(crate) console: Console,
    pub(crate) shop: Shop,
    pub(crate) gateway: Gateway,
    pub(crate) lifecycle: Lifecycle,
    store: SqliteStore,
    host: RunningHost,
}

impl Demo {
    /// Opens the folder's files, says what there is to resume, and starts the host.
    ///
    /// # Errors
    /// When a file cannot be used, or another process has the gateway's.
    pub(crate) async fn start(
        folder: &Path,
        external_gateway: Option<SocketAddr>,
        fail_rate: u8,
    ) -> Result<Self> {
        let console = Console::new();
        console.note(&format!("the shop is in {}", folder.display()));
        let lifecycle = Lifecycle::new();
        let gateway = match external_gateway {
            Some(address) => Gateway::There(address),
            None => Gateway::Here(Till::open(folder, &lifecycle).await?),
        };
        let file = file_in(folder);
        let store = SqliteStore::open(&file).await?;
        store.migrate().await?;
        shop::create_tables(&file).await?;
        say_what_resumes(&store, &console).await?;
        let host = Host::builder("shop")
            .store(store.clone())
            .lease(LEASE)
            .state(gateway.clone())
            .state(console.clone())
            .endpoint("orders", shop::endpoint)
            .endpoint("payments", payments::endpoint)
            .endpoint("shipping", shipping::endpoint)
            .build()?
            .start()
            .await?;
        lifecycle.spawn(console.clone().sum_up());
        lifecycle.spawn(say_first(console.clone()));
        let shop = Shop::new(store.clone(), host.bus(), console.clone(), fail_rate);
        let folder = folder.to_owned();
        Ok(Self {
            folder,
            console,
            shop,
            gateway,
            lifecycle,
            store,
            host,
        })
    }

    /// Describes messages that stopped being tried: their orders would never end. There should be
    /// none, whatever happens.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub(crate) async fn dead_letters(&self) -> Result<Vec<String>> {
        const SHOWN_MAX: u32 = 5;
        let dead = self.store.dead_letters(SHOWN_MAX).await?;
        let describe = |one: &sagabus::store::StoredDeadLetter| {
            let error = one.attempts.last().map_or("", |attempt| &attempt.error);
            format!(
                "{} at {}: {} ({error})",
                one.envelope.message_type, one.endpoint, one.reason
            )
        };
        Ok(dead.iter().map(describe).collect())
    }

    /// Stops in order: nothing new is taken, what is in hand is finished.
    pub(crate) async fn stop(self) {
        if !self.host.stop(STOP_DEADLINE).await {
            self.console
                .note("stopped with work in hand; the next start goes on with it");
        }
        self.lifecycle.stop(Duration::ZERO).await;
        self.console.flush();
        self.store.close().await;
    }
}

async fn say_what_resumes(store: &SqliteStore, console: &Console) -> Result<()> {
    let (placed, open) = shop::counts(store.reader()).await?;
    if placed == 0 {
        return Ok(());
    }
    if open == 0 {
        console.note(&format!("all {placed} orders have ended before"));
        return Ok(());
    }
    let stages = shop::stages(store.reader()).await?;
    let stages = stages.iter().map(|(stage, n)| format!("{n} {stage}"));
    let stages = stages.collect::<Vec<_>>().join(", ");
    console.note(&format!("resumed {open} orders of {placed}: {stages}"));
    Ok(())
}

async fn say_first(console: Console) {
    let after = console.first_handled().await;
    console.note(&format!(
        "first message handled {} ms after the start",
        after.as_millis()
    ));
}

/// Ends this process as a power cut would: nothing is flushed, closed or said goodbye to.
pub(crate) fn kill_this_process(console: &Console) -> ! {
    console.note("SIGKILL to this very process");
    // The line is for whoever watches; if nobody can, that is no reason not to die.
    let _ = std::io::stdout().flush();
    #[cfg(unix)]
    {
        let _ =
            rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
    }
    // Not reached where SIGKILL exists.
    std::process::abort()
}
