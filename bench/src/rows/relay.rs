//! R1, R2 and R6: what waits in the outbox goes to a broker, against a relay by hand.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use futures_util::future::{BoxFuture, FutureExt};
use sagabus_core::message::Message as _;
use sagabus_core::{Bus, HostBuilder, RunningHost};
use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, Connection};
use tokio::task::JoinHandle;

use crate::bare::relay::{Keep, Relay};
use crate::brokers::Broker;
use crate::brokers::target::Target;
use crate::filling;
use crate::measure::{Count, PATIENCE, Plan, RATE, Sameness, Subject, Window, compare};
use crate::ratio::Must;
use crate::row::{Bench, Found, Run};
use crate::services::{Backend, Filling, Place};
use crate::workload::{NOTE, SendStatement};

/// Messages before the measured ones: connections open, statements are prepared.
pub(super) const WARM_UP: u64 = 1_000;
/// Lanes of the relay by hand.
const LANES: usize = 2;
/// Kafka takes a short backlog before it can be measured.
const KAFKA_TIMES: u64 = 3;
/// The longest backlog.
const BACKLOG_MAX: u64 = 200_000;
/// Between two looks at how far a relay is.
pub(super) const LOOK: Duration = Duration::from_millis(1);
/// Destinations of the row about many.
const MANY: usize = 1_000;

/// By whom rows are relayed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum By {
    Ours,
    Bare(Keep),
}

/// Where to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum To {
    /// One exchange with one queue, or one topic.
    Plain,
    /// One exchange that spreads over eight queues.
    Spread,
    /// So many exchanges that share eight queues.
    Many(usize),
}

impl To {
    /// Makes what is meant, and returns the addresses.
    pub(super) async fn open(self, target: &mut Target) -> Result<Vec<String>> {
        Ok(match self {
            Self::Plain => vec![target.command(SendStatement::TYPE).await?],
            Self::Spread => vec![target.spread().await?],
            Self::Many(count) => target.many(count).await?,
        })
    }
}

/// To a quorum queue.
pub(crate) fn to_rabbitmq(bench: &Bench, _: Backend) -> BoxFuture<'_, Result<Found>> {
    let must = Some(Must::AtLeast(0.80));
    beside(bench, Broker::RabbitMq, Keep::Lease, must).boxed()
}

/// To a quorum queue, beside a relay whose locks last as long as its transaction: less log.
pub(crate) fn beside_locks(bench: &Bench, _: Backend) -> BoxFuture<'_, Result<Found>> {
    beside(bench, Broker::RabbitMq, Keep::Lock, None).boxed()
}

/// To a topic of four partitions.
pub(crate) fn to_kafka(bench: &Bench, _: Backend) -> BoxFuture<'_, Result<Found>> {
    let must = Some(Must::AtLeast(0.75));
    beside(bench, Broker::Kafka, Keep::Lease, must).boxed()
}

async fn beside(bench: &Bench, broker: Broker, keep: Keep, must: Option<Must>) -> Result<Found> {
    let ours = move |n| drain(bench, broker, To::Plain, n, By::Ours).boxed();
    let bare = move |n| drain(bench, broker, To::Plain, n, By::Bare(keep)).boxed();
    compare(Plan {
        profile: bench.profile,
        subjects: [Subject::new("ours", ours), Subject::new("bare", bare)],
        count: Count::Fixed(backlog(bench, broker)),
        figures: RATE,
        must,
        // How much log is shown: it depends on how many rows share a page with those that go.
        sameness: Sameness::Rows,
    })
    .await
}

/// To a thousand exchanges that share eight queues, beside one that has all eight.
pub(crate) fn many_destinations(bench: &Bench, _: Backend) -> BoxFuture<'_, Result<Found>> {
    async move {
        let broker = Broker::RabbitMq;
        let many = move |n| drain(bench, broker, To::Many(MANY), n, By::Ours).boxed();
        let one = move |n| drain(bench, broker, To::Spread, n, By::Ours).boxed();
        compare(Plan {
            profile: bench.profile,
            subjects: [Subject::new("1,000", many), Subject::new("one", one)],
            count: Count::Fixed(backlog(bench, broker)),
            figures: RATE,
            must: Some(Must::AtLeast(0.80)),
            sameness: Sameness::None,
        })
        .await
    }
    .boxed()
}

pub(super) fn backlog(bench: &Bench, broker: Broker) -> u64 {
    match broker {
        Broker::RabbitMq => bench.profile.backlog,
        Broker::Kafka => (bench.profile.backlog * KAFKA_TIMES).min(BACKLOG_MAX),
    }
}

/// A relay at work.
pub(super) enum Program {
    Ours(RunningHost),
    Bare(Arc<Relay>, JoinHandle<Result<()>>),
}

impl Program {
    async fn start(place: &Place, target: &Target, address: &str, by: By) -> Result<Self> {
        match by {
            By::Ours => Self::ours(place, target.host("bench")).await,
            By::Bare(keep) => Self::bare(place, target, Relay::new(address, keep, None)).await,
        }
    }

    /// Starts a host that has nothing but rows to relay.
    pub(super) async fn ours(place: &Place, host: HostBuilder) -> Result<Self> {
        let host = host.shared_store(place.open().await?.store).build()?;
        Ok(Self::Ours(host.start().await?))
    }

    pub(super) async fn bare(place: &Place, target: &Target, relay: Arc<Relay>) -> Result<Self> {
        let outlets = target.outlets(LANES).await?;
        let running = Arc::clone(&relay).run(place.clone(), outlets);
        Ok(Self::Bare(relay, tokio::spawn(running)))
    }

    /// Returns the host's bus, where there is a host.
    pub(super) fn bus(&self) -> Option<Bus> {
        match self {
            Self::Ours(host) => Some(host.bus()),
            Self::Bare(..) => None,
        }
    }

    pub(super) fn published(&self) -> u64 {
        match self {
            Self::Ours(host) => host.counters().published.get(),
            Self::Bare(relay, _) => relay.published(),
        }
    }

    /// Waits until so many messages are confirmed.
    pub(super) async fn until(&self, count: u64) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        while self.published() < count {
            let published = self.published();
            if matches!(self, Self::Bare(_, running) if running.is_finished()) {
                bail!("the relay by hand ended after {published} of {count} messages");
            }
            if Instant::now() > deadline {
                bail!("{published} of {count} messages were published within {PATIENCE:?}");
            }
            tokio::time::sleep(LOOK).await;
        }
        Ok(())
    }

    /// Stops, and notes what is worth knowing. Returns how often a message was not taken.
    pub(super) async fn stop(self, run: &mut Run) -> Result<i64> {
        match self {
            Self::Ours(host) => {
                let counters = host.counters();
                let claimed = counters.claimed.get() as f64;
                let per_claim = claimed / counters.claims.get().max(1) as f64;
                run.notes.insert("rows per claim", per_claim);
                if !host.stop(Duration::from_secs(10)).await {
                    bail!("the host did not stop within 10 s");
                }
                Ok(i64::try_from(host.counters().publish_failures.get())?)
            }
            // It ends with what is not taken.
            Self::Bare(relay, running) => {
                relay.stop();
                running.await??;
                Ok(0)
            }
        }
    }
}

pub(super) async fn drain(
    bench: &Bench,
    broker: Broker,
    to: To,
    messages: u64,
    by: By,
) -> Result<Run> {
    let place = bench
        .services
        .place(Backend::Postgres, &Filling::none())
        .await?;
    let mut target = Target::open(bench, broker).await?;
    let addresses = to.open(&mut target).await?;
    let warm_up = WARM_UP.max(2 * u64::try_from(addresses.len())?);
    Backlog::write(&place, &addresses, warm_up, NOTE)
        .await?
        .release()
        .await?;
    // Written, but not there before its commit: the program has warmed up by then.
    let backlog = Backlog::write(&place, &addresses, messages, NOTE).await?;
    let program = Program::start(&place, &target, &addresses[0], by).await?;
    program.until(warm_up).await?;
    place.settle().await?;
    backlog.release().await?;
    program.until(warm_up + 1).await?;

    let window = Window::open_with(&place, bench, broker).await?;
    let begun = program.published();
    program.until(warm_up + messages).await?;
    until_empty(&place).await?;
    let total = warm_up + messages;
    let mut run = window.close(&place, total - begun, None).await?;

    let bytes = run.bytes.unwrap_or_default() as f64;
    run.notes
        .insert("log bytes per message", bytes / run.messages as f64);
    let refused = program.stop(&mut run).await?;
    run.expect("messages that were not taken", refused, 0);
    run.rows = place.counts().await?;
    run.expect("rows left in the outbox", run.rows["outbox"], 0);
    let arrived = target.take_all(total).await?;
    arrived.check(&mut run, total)?;
    target.close().await?;
    bench.services.remove(place).await?;
    Ok(run)
}

/// Waits until every row is deleted: what is published and not deleted is published again.
pub(crate) async fn until_empty(place: &Place) -> Result<()> {
    let mut connection = place.postgres().await?;
    let deadline = Instant::now() + PATIENCE;
    loop {
        let left = "select exists (select 1 from sagabus.outbox)";
        let is_left: bool = sqlx::query_scalar(left).fetch_one(&mut connection).await?;
        if !is_left {
            return Ok(());
        }
        if Instant::now() > deadline {
            bail!("rows were left in the outbox for {PATIENCE:?}");
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// Rows for a broker, in a transaction that is still open.
pub(super) struct Backlog {
    connection: PgConnection,
}

impl Backlog {
    /// Writes so many messages, to each address in turn.
    pub(super) async fn write(
        place: &Place,
        addresses: &[String],
        count: u64,
        note: &str,
    ) -> Result<Self> {
        let insert = filling::outgoing(addresses, &count.to_string(), note);
        let mut connection = place.postgres().await?;
        sqlx::query("begin").execute(&mut connection).await?;
        sqlx::query(AssertSqlSafe(insert))
            .execute(&mut connection)
            .await?;
        sqlx::query("analyze sagabus.outbox")
            .execute(&mut connection)
            .await?;
        Ok(Self { connection })
    }

    /// Lets everybody see them.
    pub(super) async fn release(mut self) -> Result<()> {
        sqlx::query("commit").execute(&mut self.connection).await?;
        self.connection.close().await?;
        Ok(())
    }
}
