//! L1: from the call that sends to the first line of the handler, the commit included, at a steady
//! pace over rows of this database; beside the shortest way by hand: insert, commit, channel.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use futures_util::future::{BoxFuture, FutureExt};
use sagabus_core::{Bus, Host, State};
use tokio::task::JoinSet;

use super::run::drained;
use crate::bare::fast_path;
use crate::measure::{Count, Figure, Plan, Sameness, Subject, Window, compare};
use crate::row::{Bench, Found, Latency, Run};
use crate::services::{Backend, Filling, Place};
use crate::stopwatch::Stopwatch;
use crate::workload::{ENDPOINT, NOTE, Ping};

/// What is compared: lower is better.
const LATENCIES: &[Figure] = &[("p50", Run::p50), ("p99", Run::p99)];
/// The least time that a run takes, in seconds: a percentile needs samples.
const SECONDS_MIN: f64 = 0.7;

/// At 100 messages a second.
pub(crate) fn at_100(bench: &Bench, backend: Backend) -> BoxFuture<'_, Result<Found>> {
    row(bench, backend, 100).boxed()
}

/// At 1,000 messages a second.
pub(crate) fn at_1000(bench: &Bench, backend: Backend) -> BoxFuture<'_, Result<Found>> {
    row(bench, backend, 1_000).boxed()
}

async fn row(bench: &Bench, backend: Backend, pace: u32) -> Result<Found> {
    let messages = f64::from(pace) * bench.profile.seconds.max(SECONDS_MIN);
    compare(Plan {
        profile: bench.profile,
        subjects: [
            Subject::new("ours", move |n| ours(bench, backend, pace, n).boxed()),
            Subject::new("bare", move |n| bare(bench, backend, pace, n).boxed()),
        ],
        count: Count::Fixed(messages as u64),
        figures: LATENCIES,
        must: None,
        sameness: Sameness::Rows,
    })
    .await
}

/// Sends at a steady pace, whatever becomes of what was sent; the first ones warm up.
pub(super) async fn at_pace<F>(
    window: Window,
    place: &Place,
    stopwatch: &Arc<Stopwatch>,
    pace: u32,
    (warm_up, messages): (usize, u64),
    send: impl Fn(Ping) -> F,
) -> Result<Run>
where
    F: Future<Output = Result<()>> + Send + 'static,
{
    let started = Instant::now();
    let mut sending = JoinSet::new();
    for n in 0..u32::try_from(messages)? {
        let due = started + Duration::from_secs(1) / pace * n;
        tokio::time::sleep_until(due.into()).await;
        let ping = Ping {
            at: stopwatch.now(),
            note: NOTE.into(),
        };
        sending.spawn(send(ping));
    }
    while let Some(sent) = sending.join_next().await {
        sent??;
    }
    let wanted = usize::try_from(messages)?;
    if !stopwatch.wait_for(wanted, Duration::from_secs(10)).await {
        bail!("not every message was handled");
    }
    let mut run = window.close(place, messages, None).await?;
    run.latency = Latency::of(stopwatch.taken().split_off(warm_up));
    Ok(run)
}

async fn ours(bench: &Bench, backend: Backend, pace: u32, messages: u64) -> Result<Run> {
    let place = bench.services.place(backend, &Filling::none()).await?;
    let stopwatch = Stopwatch::new();
    let host = Host::builder("bench")
        .shared_store(place.open().await?.store)
        .state(Arc::clone(&stopwatch))
        .endpoint(ENDPOINT, |e| e.handle(arrived))
        .build()?
        .start()
        .await?;
    let bus: Bus = host.bus();
    let send = |ping| {
        let bus = bus.clone();
        async move {
            bus.send(ping).await?;
            Ok(())
        }
    };
    let window = Window::open(&place).await?;
    let mut run = at_pace(window, &place, &stopwatch, pace, tenth(messages)?, send).await?;
    drained(&place, 0).await?;
    let counters = host.counters();
    run.notes.insert(
        "claimed of all",
        counters.claimed.get() as f64 / messages as f64,
    );
    host.stop(Duration::from_secs(10)).await;
    run.rows = place.counts().await?;
    bench.services.remove(place).await?;
    Ok(run)
}

/// The first tenth of a run warms up.
pub(super) fn tenth(messages: u64) -> Result<(usize, u64)> {
    Ok((usize::try_from(messages / 10)?, messages))
}

pub(crate) async fn arrived(ping: Ping, stopwatch: State<Arc<Stopwatch>>) {
    stopwatch.stop(ping.at);
}

async fn bare(bench: &Bench, backend: Backend, pace: u32, messages: u64) -> Result<Run> {
    let place = bench.services.place(backend, &Filling::none()).await?;
    let stopwatch = Stopwatch::new();
    let service = fast_path::Service::start(&place, &stopwatch).await?;
    let send = |ping| {
        let service = Arc::clone(&service);
        async move { service.send(ping).await }
    };
    let window = Window::open(&place).await?;
    let mut run = at_pace(window, &place, &stopwatch, pace, tenth(messages)?, send).await?;
    drained(&place, 0).await?;
    service.stop().await?;
    run.rows = place.counts().await?;
    bench.services.remove(place).await?;
    Ok(run)
}
