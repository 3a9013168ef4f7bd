//! Promises about time: messages of other processes and of strangers' transactions, a claim beside
//! a long line, and everybody else while one handler sleeps.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use futures_util::future::{BoxFuture, FutureExt};
use sagabus_core::store::{Claim, ClaimFrom, Scan};
use sagabus_core::{Bus, EndpointName, Host, HostBuilder, RunningHost};
use sagabus_outbox::BusExt;
use sqlx::Connection;

use super::l1::arrived;
use crate::filling;
use crate::measure::Window;
use crate::ratio::{Must, Promise};
use crate::row::{Bench, Found, Latency, Run};
use crate::services::{Backend, Filling, Place};
use crate::stopwatch::Stopwatch;
use crate::workload::{ENDPOINT, NOTE, Ping};

/// How long a host may take to stop.
const STOP: Duration = Duration::from_secs(10);
/// The pause between two messages.
const PACE: Duration = Duration::from_millis(15);

async fn handling_host(place: &Place, stopwatch: &Arc<Stopwatch>) -> Result<RunningHost> {
    let host = Host::builder("handles")
        .shared_store(place.open().await?.store)
        .state(Arc::clone(stopwatch))
        .endpoint(ENDPOINT, |e| e.handle(arrived))
        .build()?;
    Ok(host.start().await?)
}

fn ping(stopwatch: &Stopwatch) -> Ping {
    Ping {
        at: stopwatch.now(),
        note: NOTE.into(),
    }
}

/// Puts latencies into a table and a promise about their 99th percentile.
fn found(what: &str, run: Run, must: f64) -> Result<Found> {
    let latency = run.latency.context("nothing was measured")?;
    let mut found = Found {
        faults: run.faults.clone(),
        ..Found::default()
    };
    let promise = Promise::new(what, latency.p99, Must::AtMost(must));
    found.promises.push(promise);
    found.runs.insert("ours", vec![run]);
    Ok(found)
}

fn count(bench: &Bench) -> u32 {
    // A second and a half of the quick profile.
    (bench.profile.seconds * 200.0) as u32
}

/// A message that another host sent, through a store of its own.
pub(crate) fn between_hosts(bench: &Bench, backend: Backend) -> BoxFuture<'_, Result<Found>> {
    async move {
        let place = bench.services.place(backend, &Filling::none()).await?;
        let stopwatch = Stopwatch::new();
        let handles = handling_host(&place, &stopwatch).await?;
        let sends: HostBuilder = Host::builder("sends").shared_store(place.open().await?.store);
        let sends = sends.build()?.start().await?;
        let bus = sends.bus();
        let window = Window::open(&place).await?;
        for _ in 0..count(bench) {
            bus.send(ping(&stopwatch)).await?;
            tokio::time::sleep(PACE).await;
        }
        let run = finish(bench, &place, window, &stopwatch).await?;
        sends.stop(STOP).await;
        handles.stop(STOP).await;
        bench.services.remove(place).await?;
        let must = match backend {
            Backend::Postgres => 50.0,
            Backend::Sqlite => 20.0,
        };
        found("p99 ms from another host's send", run, must)
    }
    .boxed()
}

/// A message in a transaction of the user's own, whose commit the bus does not see.
pub(crate) fn strangers(bench: &Bench, backend: Backend) -> BoxFuture<'_, Result<Found>> {
    async move {
        let place = bench.services.place(backend, &Filling::none()).await?;
        let stopwatch = Stopwatch::new();
        let host = handling_host(&place, &stopwatch).await?;
        let bus = host.bus();
        let window = Window::open(&place).await?;
        match backend {
            Backend::Postgres => {
                let mut connection = place.postgres().await?;
                for _ in 0..count(bench) {
                    let mut transaction = connection.begin().await?;
                    send_through(&bus, &mut transaction, &stopwatch).await?;
                    transaction.commit().await?;
                    tokio::time::sleep(PACE).await;
                }
            }
            Backend::Sqlite => {
                let mut connection = place.sqlite().await?;
                for _ in 0..count(bench) {
                    let mut transaction = connection.begin_with("begin immediate").await?;
                    send_through(&bus, &mut transaction, &stopwatch).await?;
                    transaction.commit().await?;
                    tokio::time::sleep(PACE).await;
                }
            }
        }
        let run = finish(bench, &place, window, &stopwatch).await?;
        host.stop(STOP).await;
        bench.services.remove(place).await?;
        found("p99 ms from `bus.outbox(&mut tx)`", run, 50.0)
    }
    .boxed()
}

async fn send_through<Db: sagabus_outbox::Engine>(
    bus: &Bus,
    transaction: &mut sqlx::Transaction<'_, Db>,
    stopwatch: &Stopwatch,
) -> Result<()> {
    bus.outbox(transaction).send(ping(stopwatch)).await?;
    Ok(())
}

async fn finish(
    bench: &Bench,
    place: &Place,
    window: Window,
    stopwatch: &Stopwatch,
) -> Result<Run> {
    let messages = usize::try_from(count(bench))?;
    if !stopwatch.wait_for(messages, STOP).await {
        bail!("not every message was handled");
    }
    let mut run = window.close(place, u64::from(count(bench)), None).await?;
    run.latency = Latency::of(stopwatch.taken());
    Ok(run)
}

/// Rows that wait behind one blocked key, and those of other keys that go on meanwhile.
const FOLLOWERS: u64 = 300_000;
const OTHERS: u64 = 2_000;

/// Claims while one key has a long line.
pub(crate) fn long_line(bench: &Bench, backend: Backend) -> BoxFuture<'_, Result<Found>> {
    async move {
        let filling = filling::long_line(FOLLOWERS, OTHERS);
        let place = bench.services.place(backend, &filling).await?;
        let store = place.open().await?.store;
        let claim = Claim {
            from: ClaimFrom::Endpoints(vec![(EndpointName::new(ENDPOINT)?, 100)]),
            lease: Duration::from_secs(60),
            scan: Scan::Cold,
        };
        let mut took = Vec::new();
        let (mut claimed, mut blocked_count) = (0, 0);
        let window = Window::open(&place).await?;
        // All claims before the last follower is out of the way are alike.
        let enough = Duration::from_secs_f64(bench.profile.seconds * 5.0);
        let deadline = Instant::now() + enough;
        while claimed < OTHERS && Instant::now() < deadline {
            let started = Instant::now();
            let rows = store.claim(&claim).await?;
            took.push(started.elapsed());
            let blocked = rows
                .iter()
                .filter(|row| row.key.as_deref() == Some("blocked"));
            blocked_count += i64::try_from(blocked.count())?;
            claimed += u64::try_from(rows.len())?;
        }
        let calls = u64::try_from(took.len())?;
        let mut run = window.close(&place, calls, None).await?;
        run.latency = Latency::of(took);
        run.expect("claimed rows of the blocked key", blocked_count, 0);
        drop(store);
        bench.services.remove(place).await?;
        found("p99 ms of a claim beside 300k followers", run, 10.0)
    }
    .boxed()
}
