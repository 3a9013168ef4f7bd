//! How the shop is put together: its endpoints on one host and one database, or each service a
//! process with a host and a database of its own.

use std::io::Write;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result};
use sagabus::prelude::*;
use sagabus::{HostBuilder, Lifecycle, RunningHost};

use crate::broker::Broker;
use crate::console::Console;
use crate::database::{Books, Database};
use crate::gateway::{Gateway, Till};
use crate::setup::{Service, Site};
use crate::shop::{self, Shop};
use crate::{payments, shipping};

/// How long what a killed process had in hand stays with it. Short, so that a restart goes on
/// quickly; a living process extends it.
const LEASE: Duration = Duration::from_secs(1);

/// How long a stop waits for what is in hand.
const STOP_DEADLINE: Duration = Duration::from_secs(5);

/// What a process runs, and with what.
pub(crate) struct Plan {
    pub(crate) site: Site,
    /// One service, or all.
    pub(crate) service: Option<Service>,
    pub(crate) postgres: Option<String>,
    pub(crate) broker: Broker,
    pub(crate) external_gateway: Option<SocketAddr>,
    pub(crate) fail_rate: u8,
}

/// The running shop, or one service of it.
pub(crate) struct Demo {
    pub(crate) site: Site,
    pub(crate) books: Books,
    pub(crate) console: Console,
    pub(crate) shop: Shop,
    /// `None`: another process has it.
    pub(crate) gateway: Option<Gateway>,
    pub(crate) lifecycle: Lifecycle,
    pub(crate) database: Database,
    host: RunningHost,
}

impl Demo {
    /// Opens files and databases, says what there is to resume, and starts the host.
    ///
    /// # Errors
    /// When one of them cannot be used, or another process has the gateway's file.
    pub(crate) async fn start(plan: Plan) -> Result<Self> {
        let Plan { site, service, .. } = plan;
        let console = Console::new();
        let who = service.map_or("the shop".to_owned(), |one| {
            format!("{} of the shop", one.name())
        });
        console.note(&format!("{who} is in {}", site.folder.display()));
        let lifecycle = Lifecycle::new();
        let gateway = match (plan.external_gateway, service) {
            (Some(address), _) => Some(Gateway::There(address)),
            (None, None | Some(Service::Payments)) => {
                Some(Gateway::Here(Till::open(&site.folder, &lifecycle).await?))
            }
            (None, Some(_)) => None,
        };
        let postgres = plan.postgres.as_deref();
        let database = Database::open(&site, service, postgres).await?;
        let books = Books::of(&site, postgres)?;
        say_what_resumes(&books, service, &console).await?;
        let host = Host::builder(service.map_or("shop", Service::name))
            .shared_store(database.store())
            .lease(LEASE)
            .state(console.clone());
        let host = gateway.iter().cloned().fold(host, HostBuilder::state);
        let services = Service::ALL.into_iter();
        let ours = services.filter(|one| service.is_none_or(|service| service == *one));
        let host = ours.fold(host, with_endpoint);
        let host = plan.broker.give_to(host, &site)?.build()?.start().await?;
        lifecycle.spawn(console.clone().sum_up());
        lifecycle.spawn(say_first(console.clone()));
        let (reader, bus) = (books.orders.clone(), host.bus());
        let shop = Shop::new(
            database.clone(),
            reader,
            bus,
            console.clone(),
            plan.fail_rate,
        );
        Ok(Self {
            site,
            books,
            console,
            shop,
            gateway,
            lifecycle,
            database,
            host,
        })
    }

    /// Stops in order: nothing new is taken, what is in hand is finished.
    pub(crate) async fn stop(self) {
        if !self.host.stop(STOP_DEADLINE).await {
            self.console
                .note("stopped with work in hand; the next start goes on with it");
        }
        self.lifecycle.stop(Duration::ZERO).await;
        self.console.flush();
        self.database.close().await;
    }
}

fn with_endpoint(host: HostBuilder, service: Service) -> HostBuilder {
    let name = service.name();
    match service {
        Service::Orders => host.endpoint(name, shop::endpoint),
        Service::Payments => host.endpoint(name, payments::endpoint),
        Service::Shipping => host.endpoint(name, shipping::endpoint),
    }
}

async fn say_what_resumes(
    books: &Books,
    service: Option<Service>,
    console: &Console,
) -> Result<()> {
    if service.is_some_and(|service| service != Service::Orders) {
        return Ok(());
    }
    let (placed, open) = shop::counts(&books.orders).await?;
    if placed == 0 {
        return Ok(());
    }
    if open == 0 {
        console.note(&format!("all {placed} orders have ended before"));
        return Ok(());
    }
    let stages = shop::stages(&books.orders).await?;
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

/// Waits until somebody asks the process to end: Ctrl-C, or SIGTERM.
///
/// # Errors
/// When signals cannot be listened for.
pub(crate) async fn told_to_stop() -> Result<()> {
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        let mut terminate = signal(SignalKind::terminate()).context("no signals")?;
        tokio::select! {
            stopped = tokio::signal::ctrl_c() => stopped.context("no signals"),
            _ = terminate.recv() => Ok(()),
        }
    }
    #[cfg(not(unix))]
    tokio::signal::ctrl_c().await.context("no signals")
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
