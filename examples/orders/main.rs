//! A shop that cannot lose an order: three endpoints, one SQLite file, no broker.
//!
//! ```text
//! cargo run --example orders                # a page: place orders, break payments, kill the process
//! cargo run --example orders -- --check     # the ledger: does everything add up?
//!
//! # The same without a page: dies every 700 ms, and still every order ends exactly once.
//! until cargo run -q --example orders -- --headless --orders 2000 --kill-after 700; do :; done
//! ```
//!
//! Read on in this order: `messages.rs` and `machine.rs` (what an order is), `payments.rs`,
//! `shipping.rs` and `shop.rs` (who does it), `demo.rs` (how it is put together), `gateway/` (the
//! outside world) and `ledger.rs` (the proof).

mod messages;
mod machine;
mod payments;
mod shipping;
mod shop;
mod gateway;
mod console;
mod demo;
mod api;
mod headless;
mod ledger;

use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::Parser;
use sagabus::Lifecycle;
use sqlx::sqlite::{SqliteConnectOptions, SqlitePool};
use tokio::net::TcpListener;

use crate::demo::Demo;
use crate::gateway::Till;
use crate::ledger::{Ledger, Verdict};

/// A shop that cannot lose an order. Kill it whenever you like, and start it again.
#[derive(Parser)]
struct Options {
    /// Serve no page: place orders up to a total, wait until all have ended, print the ledger.
    /// Run again, it places only the missing ones and resumes the rest.
    #[arg(long)]
    headless: bool,

    /// How many orders there shall be in total; their numbers are 1 to N.
    #[arg(long, value_name = "N", default_value_t = 200, requires = "headless")]
    orders: u32,

    /// Kill this very process with SIGKILL (exit 137) so many milliseconds after its first message
    /// was handled. Counted from there, so that every run gets somewhere, on a slow machine too.
    #[arg(long, value_name = "MS", requires = "headless")]
    kill_after: Option<u64>,

    /// Only check the ledger, from the gateway's file and the shop's own tables. Exit 0: it
    /// balances; 1: something is off; 3: nothing is off, but orders are still under way.
    #[arg(long, conflicts_with_all = ["headless", "gateway"])]
    check: bool,

    /// Where everything is kept. Default: `orders-demo` in cargo's target folder.
    #[arg(long, value_name = "DIR")]
    folder: Option<PathBuf>,

    /// Delete what earlier runs left in the folder, and begin anew.
    #[arg(long, conflicts_with = "check")]
    fresh: bool,

    /// The page's port (or the gateway's, with `--gateway`), 0 for any. Default: 8080 for the
    /// page, or any other if that is taken.
    #[arg(long)]
    port: Option<u16>,

    /// Cards of a hundred that are declined; a fifth as many belong to a bank that takes longer
    /// than a customer waits.
    #[arg(long, value_name = "PERCENT", default_value_t = 10,
          value_parser = clap::value_parser!(u8).range(0..=80))]
    fail_rate: u8,

    /// Run the payment gateway only, as a process of its own, and print its address.
    #[arg(long, conflicts_with = "headless")]
    gateway: bool,

    /// Use a gateway that runs in a process of its own, instead of one in this process.
    #[arg(long, value_name = "ADDRESS", conflicts_with_all = ["gateway", "check"])]
    external_gateway: Option<SocketAddr>,
}

#[tokio::main]
async fn main() -> ExitCode {
    match run(Options::parse()).await {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(options: Options) -> Result<ExitCode> {
    let folder = match &options.folder {
        Some(folder) => folder.clone(),
        None => default_folder()?,
    };
    if options.check {
        return check(&folder).await;
    }
    std::fs::create_dir_all(&folder)
        .with_context(|| format!("cannot make the folder {}", folder.display()))?;
    if options.gateway {
        return run_gateway(&folder, options.port.unwrap_or(0)).await;
    }
    if options.fresh {
        delete_files(&folder, options.external_gateway.is_some())?;
    }
    let demo = Demo::start(&folder, options.external_gateway, options.fail_rate).await?;
    if options.headless {
        return headless::run(demo, options.orders.into(), options.kill_after).await;
    }
    api::run(demo, options.port).await?;
    Ok(ExitCode::SUCCESS)
}

/// Prints the ledger of a folder. Needs no running demo, and does not disturb one.
async fn check(folder: &Path) -> Result<ExitCode> {
    let file = demo::file_in(folder);
    if !file.exists() {
        anyhow::bail!("there is no {}: start the demo first", file.display());
    }
    let options = SqliteConnectOptions::new()
        .filename(&file)
        .pragma("query_only", "on");
    let ledger = Ledger::read(folder, &SqlitePool::connect_with(options).await?).await?;
    print_ledger(folder, &ledger)
}

fn print_ledger(folder: &Path, ledger: &Ledger) -> Result<ExitCode> {
    // One write: nobody's line comes in between, and a closed pipe is an error, not a panic.
    writeln!(
        std::io::stdout(),
        "ledger of {}\n{ledger}",
        folder.display()
    )?;
    Ok(match ledger.verdict() {
        Verdict::Balanced => ExitCode::SUCCESS,
        Verdict::Off => ExitCode::FAILURE,
        Verdict::UnderWay => ExitCode::from(3),
    })
}

/// Runs the gateway until the process ends.
async fn run_gateway(folder: &Path, port: u16) -> Result<ExitCode> {
    let lifecycle = Lifecycle::new();
    let till = Till::open(folder, &lifecycle).await?;
    let sockets = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await?;
    writeln!(std::io::stdout(), "gateway at {}", sockets.local_addr()?)?;
    gateway::serve(sockets, till, &lifecycle).await?;
    Ok(ExitCode::SUCCESS)
}

/// Returns `target/orders-demo` beside this program, or a folder for temporary files where the
/// program was copied elsewhere.
fn default_folder() -> Result<PathBuf> {
    let program = std::env::current_exe().context("cannot tell where this program is")?;
    let is_target = |folder: &&Path| folder.join("CACHEDIR.TAG").exists();
    let target = program.ancestors().find(is_target).map(Path::to_owned);
    Ok(target
        .unwrap_or_else(std::env::temp_dir)
        .join("orders-demo"))
}

/// Deletes the files that the demo makes, and only those.
fn delete_files(folder: &Path, keep_gateway: bool) -> Result<()> {
    let of_gateway = gateway::file_in(folder);
    if !keep_gateway && let Ok(file) = std::fs::File::open(&of_gateway) {
        file.try_lock()
            .context("the demo, or its gateway, is running in this folder")?;
    }
    let file = demo::file_in(folder);
    let beside = |suffix| {
        let mut path = file.clone().into_os_string();
        path.push(suffix);
        PathBuf::from(path)
    };
    let mut files = vec![file.clone(), beside("-wal"), beside("-shm")];
    if !keep_gateway {
        files.push(of_gateway);
    }
    for file in files {
        match std::fs::remove_file(&file) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(error).with_context(|| format!("cannot delete {}", file.display()));
            }
            _ => {}
        }
    }
    Ok(())
}
