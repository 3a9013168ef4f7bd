//! A host process: the service of transfers, or the one of accounts.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::{Args, ValueEnum};
use sagabus::prelude::{Ctx, HandlerError, Host, MachineEndpoint, Retry};
use sagabus::store::Retention;
use sagabus::{
    Breaker, EndpointBuilder, HostBuilder, PgStore, Postgres, RunningHost, Sqlite, SqliteStore, Tx,
};
use sagabus_testkit::transfers::{
    Bounced, Credit, Credited, Debit, Debited, Refund, Refunded, Settled, bounces, cannot_be_noted,
    cents, stumbles, vanishes,
};
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::fmt::layer;
use tracing_subscriber::prelude::*;

use crate::carrier::Carrier;
use crate::clock;
use crate::machine::transfer_machine;
use crate::runs::Tells;

/// How long a row belongs to a host: short, so that zombies are many.
pub(crate) const LEASE: Duration = Duration::from_millis(900);
/// Within this a host that is told to stop has to be gone.
pub(crate) const DEADLINE: Duration = Duration::from_secs(10);
/// How often a host says what it has counted.
const SAYS: Duration = Duration::from_millis(250);

/// Which of the two services a process is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Service {
    Transfers,
    Accounts,
}

/// What a host process is told.
#[derive(Args, Clone, Debug)]
pub(crate) struct Arguments {
    #[arg(long)]
    pub(crate) service: Service,
    /// The replica's name, the same when it is started again.
    #[arg(long)]
    pub(crate) name: String,
    /// A PostgreSQL URL, or a SQLite file.
    #[arg(long)]
    pub(crate) database: String,
    /// As [`Carrier`] is told; none: the database is the bus.
    #[arg(long)]
    pub(crate) carrier: Option<String>,
    /// Say which message is tried when.
    #[arg(long)]
    pub(crate) tells: bool,
}

type Handled<T = ()> = sagabus::Result<T>;

/// Handlers for one engine: they differ by their `Tx` and by how parameters are written.
macro_rules! service {
    ($module:ident, $engine:ident, $store:ident, $insert:literal) => {
        pub(crate) mod $module {
            use super::*;

            async fn note(tx: &mut Tx<$engine>, id: i64, leg: &'static str, cents: i64) -> Handled {
                let connection = tx.conn().await?;
                let query = sqlx::query($insert).bind(id).bind(leg).bind(cents);
                query.execute(connection).await?;
                Ok(())
            }

            async fn debit(m: Debit, mut tx: Tx<$engine>) -> Handled<Debited> {
                note(&mut tx, m.id, "debit", -cents(m.id)).await?;
                Ok(Debited { id: m.id })
            }

            async fn credit(
                m: Credit,
                mut tx: Tx<$engine>,
                cx: Ctx,
            ) -> Handled<(Option<Credited>, Option<Bounced>)> {
                if bounces(m.id) {
                    return Ok((None, Some(Bounced { id: m.id })));
                }
                if vanishes(m.id) {
                    return Ok((None, None));
                }
                note(&mut tx, m.id, "credit", cents(m.id)).await?;
                if stumbles(m.id) && cx.attempt() < 3 {
                    return Err(HandlerError::new("stumbles after its first write"));
                }
                Ok((Some(Credited { id: m.id }), None))
            }

            async fn refund(m: Refund, mut tx: Tx<$engine>) -> Handled<Refunded> {
                note(&mut tx, m.id, "refund", cents(m.id)).await?;
                Ok(Refunded { id: m.id })
            }

            async fn note_settled(m: Settled, mut tx: Tx<$engine>) -> Handled {
                if cannot_be_noted(m.id) {
                    return Err(HandlerError::new("this one cannot be noted"));
                }
                note(&mut tx, m.id, "settled", 0).await
            }

            /// Gives a host the endpoints of its service.
            pub(crate) fn equip(
                builder: HostBuilder,
                store: $store,
                arguments: &Arguments,
            ) -> HostBuilder {
                let retry = retry();
                let builder = builder.store(store);
                let tells = |e: EndpointBuilder| match arguments.tells {
                    true => e.middleware(Tells),
                    false => e,
                };
                match arguments.service {
                    Service::Transfers => builder
                        .endpoint("transfers", |e| tells(e.machine(transfer_machine())))
                        .endpoint("audit", |e| {
                            // What fails here is meant to: where it alone is left of a storm, a
                            // pause would never end.
                            let e = e.handle(note_settled).retry(retry);
                            tells(e.breaker(Breaker::never()))
                        }),
                    Service::Accounts => builder
                        .endpoint("debits", |e| {
                            tells(e.handle(debit).handle(refund).retry(retry.clone()))
                        })
                        .endpoint("credits", |e| tells(e.handle(credit).retry(retry))),
                }
            }
        }
    };
}

service!(
    sqlite,
    Sqlite,
    SqliteStore,
    "insert into ledger (transfer, leg, cents) values (?, ?, ?)"
);
service!(
    postgres,
    Postgres,
    PgStore,
    "insert into ledger (transfer, leg, cents) values ($1, $2, $3)"
);

fn retry() -> Retry {
    Retry {
        immediate: 0,
        delayed: 3,
        delay: Duration::from_millis(20),
        delay_max: Duration::from_millis(50),
        ..Retry::default()
    }
}

/// Runs a host until it is told to stop.
pub(crate) async fn run(arguments: Arguments) -> Result<()> {
    log();
    clock::follow();
    let mut terminate = signal(SignalKind::terminate()).context("cannot hear SIGTERM")?;
    let carrier = arguments.carrier.as_deref().map(Carrier::parse);
    let carrier = carrier.transpose()?;
    let builder = Host::builder(&arguments.name)
        .lease(LEASE)
        .retention(Retention {
            interval: Duration::from_millis(500),
            ..Retention::default()
        });
    let builder = match &carrier {
        Some(carrier) => carrier.connect(builder, &arguments.name),
        None => builder,
    };
    let builder = if arguments.database.starts_with("postgres:") {
        let store = PgStore::connect(&arguments.database).await?;
        postgres::equip(builder, store, &arguments)
    } else {
        let store = SqliteStore::open(PathBuf::from(&arguments.database)).await?;
        sqlite::equip(builder, store, &arguments)
    };
    let host = builder.build()?.start().await?;
    println!("up");
    loop {
        tokio::select! {
            _ = terminate.recv() => break,
            () = tokio::time::sleep(SAYS) => {
                clock::follow();
                say(&host);
            }
        }
    }
    let in_hand: usize = host.endpoints().iter().map(|one| one.in_hand).sum();
    println!("told {} {in_hand}", clock::micros());
    let is_clean = host.stop(DEADLINE).await;
    say(&host);
    println!("stopped {}", if is_clean { "clean" } else { "late" });
    Ok(())
}

/// Has the host's log written to the errors of this life: warnings, or what `RUST_LOG` says.
fn log() {
    let wanted = std::env::var("RUST_LOG").ok();
    let targets = wanted.and_then(|text| text.parse::<Targets>().ok());
    let targets = targets.unwrap_or_else(|| Targets::new().with_default(LevelFilter::WARN));
    let lines = layer().with_ansi(false).with_writer(std::io::stderr);
    tracing_subscriber::registry()
        .with(targets)
        .with(lines)
        .init();
}

/// Says what was counted so far; the last such line of a process counts.
fn say(host: &RunningHost) {
    let counted: std::collections::BTreeMap<_, _> =
        host.counters().snapshot().into_iter().collect();
    println!("counted {}", serde_json::json!(counted));
    println!("clock {}", clock::engines());
}
