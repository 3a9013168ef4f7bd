//! H2 over a real broker: a state machine in groups, what it sends included, against a program that
//! groups by hand.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use futures_util::future::{BoxFuture, FutureExt};
use sagabus_core::RunningHost;
use sagabus_core::message::Message;
use sagabus_saga::MachineEndpoint;
use sqlx::postgres::PgConnection;
use tokio::task::JoinHandle;

use super::h2::check_accounts;
use super::relay::until_empty;
use super::run::Who;
use crate::bare::grouped::Grouped;
use crate::brokers::Broker;
use crate::brokers::feed::Feed;
use crate::brokers::target::Target;
use crate::filling;
use crate::measure::{Count, PATIENCE, Plan, RATE, Sameness, Window, compare};
use crate::ratio::Must;
use crate::row::{Bench, Found, Run};
use crate::services::{Backend, Filling, Place};
use crate::workload::{BalanceChanged, ENDPOINT, SendStatement, accounts};

/// Connections of the program that groups by hand.
const LANES: usize = 2;
/// The least part of the hand-written program's speed.
const MUST: f64 = 0.50;
/// Messages before the measured ones.
const WARM_UP: u64 = 1_000;
/// Between two looks at how far a program is.
const LOOK: Duration = Duration::from_millis(1);

/// From a quorum queue to a quorum queue.
pub(crate) fn over_rabbitmq(bench: &Bench, _: Backend) -> BoxFuture<'_, Result<Found>> {
    row(bench, Broker::RabbitMq).boxed()
}

/// From topics to topics.
pub(crate) fn over_kafka(bench: &Bench, _: Backend) -> BoxFuture<'_, Result<Found>> {
    row(bench, Broker::Kafka).boxed()
}

async fn row(bench: &Bench, broker: Broker) -> Result<Found> {
    let filling = filling::accounts();
    let filling = &filling;
    compare(Plan {
        profile: bench.profile,
        subjects: Who::both(move |who, n| run(bench, broker, filling, n, who).boxed()),
        count: Count::Fixed(bench.profile.backlog / 2),
        figures: RATE,
        must: Some(Must::AtLeast(MUST)),
        // A publisher that is slower than the handlers costs log: what it has no room for waits
        // in the database. How much log is shown.
        sameness: Sameness::Rows,
    })
    .await
}

/// A program at work.
enum Program {
    Ours(RunningHost),
    Bare(Arc<AtomicU64>, JoinHandle<Result<Vec<PgConnection>>>),
}

impl Program {
    async fn start(place: &Place, target: &Target, feed: &Feed, who: Who) -> Result<Self> {
        if who == Who::Ours {
            let host = target.host("bench");
            let host = host.shared_store(place.open().await?.store);
            let host = host.endpoint(ENDPOINT, |e| e.machine(accounts())).build()?;
            return Ok(Self::Ours(host.start().await?));
        }
        let handled = Arc::new(AtomicU64::new(0));
        let (inlet, acks) = feed.inlet(target).await?;
        let grouped = Grouped {
            place: place.clone(),
            inlet,
            acks,
            outlets: target.outlets(LANES).await?,
            prefix: target.prefix().map(Arc::from),
            total: feed.total,
            handled: Arc::clone(&handled),
        };
        Ok(Self::Bare(handled, tokio::spawn(grouped.run())))
    }

    fn handled(&self) -> u64 {
        match self {
            Self::Ours(host) => host.counters().committed.get(),
            Self::Bare(handled, _) => handled.load(Ordering::SeqCst),
        }
    }

    fn groups(&self) -> Option<u64> {
        match self {
            Self::Ours(host) => Some(host.counters().groups.get()),
            Self::Bare(..) => None,
        }
    }

    /// Returns how many rows the publisher had no room for when they were written.
    fn claimed(&self) -> Option<u64> {
        match self {
            Self::Ours(host) => Some(host.counters().claimed.get()),
            Self::Bare(..) => None,
        }
    }

    /// Waits until so many messages are handled.
    async fn until(&mut self, count: u64) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        while self.handled() < count {
            if let Self::Bare(handled, running) = self
                && running.is_finished()
                && handled.load(Ordering::SeqCst) < count
            {
                running.await??;
                bail!("the program by hand ended before {count} messages");
            }
            if Instant::now() > deadline {
                let handled = self.handled();
                bail!("{handled} of {count} messages were handled within {PATIENCE:?}");
            }
            tokio::time::sleep(LOOK).await;
        }
        Ok(())
    }

    async fn stop(self) -> Result<()> {
        match self {
            Self::Ours(host) => {
                if !host.stop(Duration::from_secs(10)).await {
                    bail!("the host did not stop within 10 s");
                }
            }
            Self::Bare(_, running) => drop(running.await??),
        }
        Ok(())
    }
}

async fn run(
    bench: &Bench,
    broker: Broker,
    filling: &Filling,
    messages: u64,
    who: Who,
) -> Result<Run> {
    let place = bench.services.place(Backend::Postgres, filling).await?;
    let mut target = Target::open(bench, broker).await?;
    target.event(BalanceChanged::TYPE).await?;
    target.command(SendStatement::TYPE).await?;
    let total = WARM_UP + messages;
    // All of them wait on the broker before anybody asks for them.
    let feed = Feed::write(&mut target, &place, total).await?;
    place.settle().await?;
    let mut program = Program::start(&place, &target, &feed, who).await?;
    program.until(WARM_UP).await?;

    let window = Window::open_with(&place, bench, broker).await?;
    let (begun, groups) = (program.handled(), program.groups());
    program.until(total).await?;
    until_empty(&place).await?;
    let groups = program.groups().zip(groups);
    let mut run = window.close(&place, total - begun, None).await?;
    if let Some((after, before)) = groups {
        let size = (total - begun) as f64 / (after - before) as f64;
        run.notes.insert("messages per group", size);
    }

    let bytes = run.bytes.unwrap_or_default() as f64;
    run.notes
        .insert("log bytes per message", bytes / run.messages as f64);
    if let Some(claimed) = program.claimed() {
        let part = claimed as f64 / (total as f64 * 1.5);
        run.notes.insert("claimed of all sent", part);
    }

    program.stop().await?;
    run.rows = place.counts().await?;
    run.expect("rows left in the outbox", run.rows["outbox"], 0);
    run.expect("dead letters", run.rows["dead_letters"], 0);
    let handled = i64::try_from(total)?;
    run.expect("messages in the inbox", run.rows["inbox"], handled);
    run.expect("history entries", run.rows["history"], handled);
    check_accounts(&place, total, &mut run).await?;
    run.expect("messages that are not acked", feed.left(&target).await?, 0);
    let arrived = target.take_all(total * 3 / 2).await?;
    arrived.check(&mut run, total * 3 / 2)?;
    // Which balance a message tells depends on the order of others, and so how many digits it has.
    run.rows.remove("arrived bytes");
    target.close().await?;
    bench.services.remove(place).await?;
    Ok(run)
}
