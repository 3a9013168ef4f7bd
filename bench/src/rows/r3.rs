//! R3: a relay that is not at its limit. Messages are committed at half and at four fifths of what ours
//! relays at most, by a stranger's transactions; how long each takes from its commit to the broker's
//! confirm, beside a relay by hand at the same rate.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Result;
use futures_util::future::{BoxFuture, FutureExt};
use sagabus_core::message::Message as _;
use sagabus_core::{Bus, Host};
use sagabus_outbox::BusExt;
use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, Connection};

use super::backlog;
use super::relay::{Program, until_empty};
use super::run::Who;
use crate::bare::relay::{Keep, Relay};
use crate::brokers::Broker;
use crate::brokers::target::Target;
use crate::filling;
use crate::lag::{Lag, Noting};
use crate::measure::{Count, Figure, Plan, Sameness, Window, compare};
use crate::row::{Bench, Found, Latency, Run};
use crate::services::{Backend, Filling};
use crate::workload::{NOTE, SendStatement, account_name};

/// What is compared: lower is better.
const LAGS: &[Figure] = &[("p50", Run::p50), ("p99", Run::p99), ("p99.9", Run::p999)];
/// Between two transactions.
const PAUSE: Duration = Duration::from_millis(10);
/// Of the messages of a run, one in so many warms up.
const WARM: usize = 10;

/// At half of the peak.
pub(crate) fn at_half(bench: &Bench, _: Backend) -> BoxFuture<'_, Result<Found>> {
    row(bench, 0.5).boxed()
}

/// At four fifths of the peak.
pub(crate) fn at_four_fifths(bench: &Bench, _: Backend) -> BoxFuture<'_, Result<Found>> {
    row(bench, 0.8).boxed()
}

async fn row(bench: &Bench, part: f64) -> Result<Found> {
    let peak = backlog::peak(bench).await?;
    if !peak.faults.is_empty() {
        let faults = peak.faults.into_iter();
        return Ok(Found {
            faults: faults.map(|fault| format!("peak: {fault}")).collect(),
            ..Found::default()
        });
    }
    let pace = peak.rate() * part;
    compare(Plan {
        profile: bench.profile,
        subjects: Who::both(move |who, n| run(bench, pace, n, who).boxed()),
        count: Count::Fixed((pace * bench.profile.stretch().as_secs_f64()) as u64),
        figures: LAGS,
        must: None,
        sameness: Sameness::Rows,
    })
    .await
}

async fn run(bench: &Bench, pace: f64, messages: u64, who: Who) -> Result<Run> {
    let broker = Broker::RabbitMq;
    let services = &bench.services;
    let place = services.place(Backend::Postgres, &Filling::none()).await?;
    let mut target = Target::open(bench, broker).await?;
    let address = target.command(SendStatement::TYPE).await?;
    let lag = Lag::new();
    let program = match who {
        Who::Ours => {
            let (transport, lag) = (target.transport(), Arc::clone(&lag));
            let host = Host::builder("bench").transport(Noting { transport, lag });
            Program::ours(&place, host).await?
        }
        Who::Bare => {
            let relay = Relay::new(&address, Keep::Lease, Some(Arc::clone(&lag)));
            Program::bare(&place, &target, relay).await?
        }
    };
    let mut stranger = Stranger {
        connection: place.postgres().await?,
        insert: filling::outgoing(&[address], "$1", NOTE) + " returning message_id",
        bus: program.bus(),
    };
    let window = Window::open_with(&place, bench, broker).await?;
    stranger.send_at(pace, messages, &lag).await?;
    program.until(messages).await?;
    until_empty(&place).await?;
    let mut run = window.close(&place, messages, None).await?;

    let refused = program.stop(&mut run).await?;
    run.expect("messages that were not taken", refused, 0);
    let mut taken = lag.taken();
    run.expect(
        "lags",
        i64::try_from(taken.len())?,
        i64::try_from(messages)?,
    );
    run.latency = Latency::of(taken.split_off(taken.len() / WARM));
    run.notes.insert("p99.9 ms", run.p999());
    run.rows = place.counts().await?;
    run.expect("rows left in the outbox", run.rows["outbox"], 0);
    target.take_all(messages).await?.check(&mut run, messages)?;
    // One message of each transaction goes by the bus, which has headers of its own.
    run.rows.remove("arrived bytes");
    target.close().await?;
    services.remove(place).await?;
    Ok(run)
}

/// A service whose commits the relay does not see.
struct Stranger {
    connection: PgConnection,
    insert: String,
    /// By this one message of each transaction is sent, where the relay is ours: it wakes it.
    bus: Option<Bus>,
}

impl Stranger {
    /// Sends messages at a steady pace, whatever becomes of what was sent.
    async fn send_at(&mut self, pace: f64, messages: u64, lag: &Lag) -> Result<()> {
        let started = Instant::now();
        let mut sent = 0;
        while sent < messages {
            tokio::time::sleep(PAUSE).await;
            let due = (started.elapsed().as_secs_f64() * pace) as u64;
            let due = due.min(messages);
            if due > sent {
                self.send(due - sent, lag).await?;
                sent = due;
            }
        }
        Ok(())
    }

    /// Sends so many messages in one transaction.
    async fn send(&mut self, count: u64, lag: &Lag) -> Result<()> {
        let by_bus = u64::from(self.bus.is_some());
        let mut transaction = self.connection.begin().await?;
        let mut ids = sqlx::query_scalar(AssertSqlSafe(self.insert.clone()))
            .bind(i64::try_from(count - by_bus)?)
            .fetch_all(&mut *transaction)
            .await?;
        if let Some(bus) = &self.bus {
            let statement = SendStatement {
                account: account_name(count),
                cents: 100,
                note: NOTE.into(),
            };
            let id = bus.outbox(&mut transaction).send(statement).await?;
            ids.push(id.as_uuid());
        }
        transaction.commit().await?;
        lag.committed(ids);
        Ok(())
    }
}
