//! L1 over a real broker: from send to whoever receives there, the commit included, against the
//! shortest way by hand: insert, commit, publish. Both are received by the same plain client.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use futures_util::future::{BoxFuture, FutureExt};
use sagabus_core::message::Message;
use tokio::task::JoinHandle;

use super::l1::at_pace;
use super::run::drained;
use crate::bare::fast_publish::Service;
use crate::brokers::target::Target;
use crate::brokers::{Arrived, Broker};
use crate::measure::{Count, Figure, Plan, Sameness, Subject, Window, compare};
use crate::ratio::{Must, Promise};
use crate::row::{Bench, Found, Latency, Run};
use crate::services::{Backend, Filling, Place};
use crate::stopwatch::Stopwatch;
use crate::workload::Ping;

/// What is compared: lower is better.
pub(super) const LATENCIES: &[Figure] = &[("p50", Run::p50), ("p99", Run::p99)];
/// Messages a second.
const PACE: u32 = 1_000;
/// The least time that a run takes, in seconds: a percentile needs samples.
const SECONDS_MIN: f64 = 1.0;
/// Seconds before the measured ones: a broker's first messages take long. Kafka's take longest: an
/// idempotent producer sends nothing for its first half second, by hand as well, and what it owes
/// by then is sent within the next.
const WARM_UP: u32 = 1;
/// The most milliseconds that one message in a hundred may take longer than.
const P99_MAX: f64 = 5.0;

/// Over a quorum queue.
pub(crate) fn over_rabbitmq(bench: &Bench, _: Backend) -> BoxFuture<'_, Result<Found>> {
    row(bench, Broker::RabbitMq).boxed()
}

/// Over a topic.
pub(crate) fn over_kafka(bench: &Bench, _: Backend) -> BoxFuture<'_, Result<Found>> {
    row(bench, Broker::Kafka).boxed()
}

async fn row(bench: &Bench, broker: Broker) -> Result<Found> {
    let mut found = compare(Plan {
        profile: bench.profile,
        subjects: [
            Subject::new("ours", move |n| ours(bench, broker, PACE, n).boxed()),
            Subject::new("bare", move |n| bare(bench, broker, n).boxed()),
        ],
        count: Count::Fixed(messages(bench, PACE)),
        figures: LATENCIES,
        must: Some(Must::AtMost(1.5)),
        sameness: Sameness::Rows,
    })
    .await?;
    if let Some(p99) = crate::report::median(&found.runs["ours"], |run| Some(run.p99())) {
        let promise = Promise::new("p99 ms", p99, Must::AtMost(P99_MAX));
        found.promises.push(promise);
    }
    Ok(found)
}

/// Returns how many messages a run has at this pace, those that warm up included.
pub(super) fn messages(bench: &Bench, pace: u32) -> u64 {
    let seconds = bench.profile.seconds.max(SECONDS_MIN) + f64::from(WARM_UP);
    (f64::from(pace) * seconds) as u64
}

/// Returns how many of them warm up.
pub(super) fn warm_up(pace: u32) -> usize {
    (pace * WARM_UP) as usize
}

/// What every subject has.
pub(super) struct Way {
    pub(super) place: Place,
    target: Target,
    pub(super) address: String,
    pub(super) stopwatch: Arc<Stopwatch>,
    /// From send to the end of the commit.
    committed: Arc<Stopwatch>,
    watching: JoinHandle<Result<Arrived>>,
}

impl Way {
    pub(super) async fn open(bench: &Bench, broker: Broker) -> Result<Self> {
        let place = bench
            .services
            .place(Backend::Postgres, &Filling::none())
            .await?;
        let mut target = Target::open(bench, broker).await?;
        let address = target.command(Ping::TYPE).await?;
        let stopwatch = Stopwatch::new();
        let watching = target.watch(&stopwatch).await?;
        Ok(Self {
            committed: stopwatch.again(),
            place,
            target,
            address,
            stopwatch,
            watching,
        })
    }

    /// Checks that everything arrived once, and leaves nothing.
    pub(super) async fn close(self, bench: &Bench, messages: u64, mut run: Run) -> Result<Run> {
        run.rows = self.place.counts().await?;
        run.expect("rows left in the outbox", run.rows["outbox"], 0);
        if let Some(latency) = Latency::of(self.committed.taken()) {
            run.notes.insert("committed after ms", latency.p50);
        }
        self.target.close().await?;
        let arrived = self.watching.await??;
        arrived.check(&mut run, messages)?;
        // How many digits the time of sending has differs.
        run.rows.remove("arrived bytes");
        bench.services.remove(self.place).await?;
        Ok(run)
    }
}

pub(super) async fn ours(bench: &Bench, broker: Broker, pace: u32, messages: u64) -> Result<Run> {
    let way = Way::open(bench, broker).await?;
    let host = way.target.host("bench");
    let host = host.shared_store(way.place.open().await?.store).build()?;
    let host = host.start().await?;
    let bus = host.bus();
    let send = |ping: Ping| {
        let (bus, committed) = (bus.clone(), Arc::clone(&way.committed));
        async move {
            let at = ping.at;
            bus.send(ping).await?;
            committed.stop(at);
            Ok(())
        }
    };
    let window = Window::open_with(&way.place, bench, broker).await?;
    let mut run = at_pace(
        window,
        &way.place,
        &way.stopwatch,
        pace,
        (warm_up(pace), messages),
        send,
    )
    .await?;
    drained(&way.place, 0).await?;
    let claimed = host.counters().claimed.get() as f64;
    run.notes
        .insert("claimed of all", claimed / messages as f64);
    host.stop(Duration::from_secs(10)).await;
    way.close(bench, messages, run).await
}

async fn bare(bench: &Bench, broker: Broker, messages: u64) -> Result<Run> {
    let way = Way::open(bench, broker).await?;
    let outlet = way.target.outlets(1).await?.remove(0);
    let service = Service::start(&way.place, outlet, way.address.clone()).await?;
    let send = |ping: Ping| {
        let (service, committed) = (Arc::clone(&service), Arc::clone(&way.committed));
        async move {
            let message = service.store(&ping).await?;
            committed.stop(ping.at);
            service.publish(message).await
        }
    };
    let window = Window::open_with(&way.place, bench, broker).await?;
    let run = at_pace(
        window,
        &way.place,
        &way.stopwatch,
        PACE,
        (warm_up(PACE), messages),
        send,
    )
    .await?;
    service.stop().await?;
    way.close(bench, messages, run).await
}
