//! A shop that cannot lose an order: one process and one SQLite file, or three services with a
//! database each and a broker between them.
//!
//! ```text
//! cargo run --example orders                # a page: place orders, break payments, kill the process
//! cargo run --example orders -- --check     # the ledger: does everything add up?
//!
//! # The same without a page: dies every 700 ms, and still every order ends exactly once.
//! until cargo run -q --example orders -- --headless --orders 2000 --kill-after 700; do :; done
//! ```
//!
//! With `--rabbitmq URL` or `--kafka BROKERS` a broker carries the messages, with `--postgres URL`
//! the tables are in PostgreSQL, and with `--service` each service is a process of its own.
//!
//! Read on in this order: `messages.rs` and `machine.rs` (what an order is), `payments.rs`,
//! `shipping.rs`, `shop.rs` and `tables.rs` (who does it), `demo.rs`, `setup.rs`, `database.rs` and
//! `broker.rs` (how it is put together), `gateway/` (the outside world) and `ledger.rs` (the proof).

mod messages;
mod machine;
mod payments;
mod shipping;
mod shop;
mod tables;
mod gateway;
mod console;
mod setup;
mod database;
mod broker;
mod demo;
mod api;
mod headless;
mod ledger;

use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use clap::Parser;
use sagabus::Lifecycle;
use tokio::net::TcpListener;

use crate::broker::Broker;
use crate::database::Books;
use crate::demo::{Demo, Plan};
use crate::gateway::Till;
use crate::ledger::{Ledger, Verdict};
use crate::setup::{Carrier, Engine, Processes, Service, Setup, Site};

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
    #[arg(long, conflicts_with_all = ["headless", "gateway", "service"])]
    check: bool,

    /// Run one service only, with a database of its own. The others are processes like this one;
    /// a broker carries the messages between them.
    #[arg(
        long,
        value_name = "SERVICE",
        requires = "broker",
        conflicts_with = "gateway"
    )]
    service: Option<Service>,

    /// Messages travel over RabbitMQ: amqp://user:password@host:5672/vhost.
    #[arg(long, value_name = "URL", group = "broker")]
    rabbitmq: Option<String>,

    /// Messages travel over Kafka: host:9092, several with commas between them.
    #[arg(long, value_name = "BROKERS", group = "broker")]
    kafka: Option<String>,

    /// Tables are in PostgreSQL, in databases that are made for this shop: give the URL of one that
    /// is there.
    #[arg(long, value_name = "URL")]
    postgres: Option<String>,

    /// Where everything is kept. Default: `orders-demo` in cargo's target folder.
    #[arg(long, value_name = "DIR")]
    folder: Option<PathBuf>,

    /// Delete what earlier runs left in the folder, and begin anew. On a server or broker the new
    /// shop has other names; what the old one had there stays.
    #[arg(long, conflicts_with_all = ["check", "service"])]
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
        return check(&folder, options.postgres.as_deref()).await;
    }
    if options.gateway {
        std::fs::create_dir_all(&folder)
            .with_context(|| format!("cannot make the folder {}", folder.display()))?;
        return run_gateway(&folder, options.port.unwrap_or(0)).await;
    }
    if options.fresh {
        setup::delete_files(&folder, options.external_gateway.is_some())?;
    }
    let demo = Demo::start(plan(&folder, &options)?).await?;
    if let Some(millis) = options.kill_after {
        headless::die_after(&demo, millis);
    }
    match options.service {
        Some(Service::Payments | Service::Shipping) => headless::serve(demo).await?,
        _ if options.headless => return headless::run(demo, options.orders.into()).await,
        _ => api::run(demo, options.port).await?,
    }
    Ok(ExitCode::SUCCESS)
}

/// Says what this process runs, in a shop that is or becomes what the options say.
fn plan(folder: &Path, options: &Options) -> Result<Plan> {
    refuse_missing(options)?;
    let (carrier, broker) = match (&options.rabbitmq, &options.kafka) {
        (Some(url), _) => (Carrier::RabbitMq, Broker::RabbitMq(url.clone())),
        (_, Some(brokers)) => (Carrier::Kafka, Broker::Kafka(brokers.clone())),
        _ => (Carrier::Database, Broker::None),
    };
    let engine = match options.postgres {
        Some(_) => Engine::Postgres,
        None => Engine::Sqlite,
    };
    let processes = match options.service {
        Some(_) => Processes::OnePerService,
        None => Processes::One,
    };
    let setup = Setup {
        engine,
        carrier,
        processes,
    };
    Ok(Plan {
        site: Site::open(folder, setup)?,
        service: options.service,
        postgres: options.postgres.clone(),
        broker,
        external_gateway: options.external_gateway,
        fail_rate: options.fail_rate,
    })
}

/// Refuses what this program was built without, before anything is made.
fn refuse_missing(options: &Options) -> Result<()> {
    let wanted = [
        (
            "postgres",
            options.postgres.is_some(),
            cfg!(feature = "postgres"),
        ),
        (
            "rabbitmq",
            options.rabbitmq.is_some(),
            cfg!(feature = "rabbitmq"),
        ),
        ("kafka", options.kafka.is_some(), cfg!(feature = "kafka")),
    ];
    let wanted = wanted.into_iter().filter(|(_, is_wanted, _)| *is_wanted);
    let (names, is_built): (Vec<_>, Vec<_>) =
        wanted.map(|(name, _, is_built)| (name, is_built)).unzip();
    if is_built.iter().all(|is_built| *is_built) {
        return Ok(());
    }
    let names = names.join(",");
    bail!(
        "this program was built without what these options need; build it with: \
         cargo run --example orders --features {names} -- .."
    )
}

/// Prints the ledger of a folder's shop, over the databases of all services. Needs no running
/// demo, and does not disturb one.
async fn check(folder: &Path, postgres: Option<&str>) -> Result<ExitCode> {
    let Some(site) = Site::find(folder)? else {
        bail!(
            "there is no shop in {}: start the demo first",
            folder.display()
        );
    };
    let ledger = Ledger::read(folder, &Books::of(&site, postgres)?).await?;
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
