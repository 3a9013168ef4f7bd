//! P1: how long healthy messages take at half of what the host can do, while one in a hundred fails
//! at every try; beside the same without those.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use futures_util::future::{BoxFuture, FutureExt};
use sagabus_core::{Bus, Command, HandlerError, Host, Kind, Message, Retry, RunningHost};
use serde::{Deserialize, Serialize};
use tokio::task::JoinSet;

use super::l1::{arrived, at_pace, tenth};
use crate::measure::{Count, Figure, Plan, Sameness, Subject, Window, compare};
use crate::ratio::Must;
use crate::row::{Bench, Found, Run};
use crate::services::{Backend, Filling, Place};
use crate::stopwatch::Stopwatch;
use crate::workload::{ENDPOINT, NOTE, Ping};

/// What is compared: lower is better.
const LATENCIES: &[Figure] = &[("p99", Run::p99), ("p50", Run::p50)];
/// How much longer the slowest healthy messages may take.
const MUST: Must = Must::AtMost(1.5);
/// Every so many messages, one that fails comes beside it.
const ONE_IN: u64 = 100;
/// The least time that a run takes, in seconds: a percentile needs samples.
const SECONDS_MIN: f64 = 2.0;
/// Who sends at once while the peak is looked for.
const SENDERS: usize = 16;
/// For how long that takes.
const PEAK_TIME: Duration = Duration::from_secs(1);

#[derive(Debug, Serialize, Deserialize)]
struct Spoilt {
    n: u64,
}

impl Message for Spoilt {
    const TYPE: &'static str = "bench.spoilt";
    const KIND: Kind = Kind::Command;
}
impl Command for Spoilt {}

async fn refuse(spoilt: Spoilt) -> Result<(), HandlerError> {
    Err(HandlerError::new(format!("{} cannot be handled", spoilt.n)))
}

/// Compares the two.
pub(crate) fn one_in_a_hundred(bench: &Bench, backend: Backend) -> BoxFuture<'_, Result<Found>> {
    async move {
        let pace = peak(bench, backend).await? / 2;
        let seconds = bench.profile.seconds.max(SECONDS_MIN);
        compare(Plan {
            profile: bench.profile,
            subjects: [
                Subject::new("some fail", move |n| {
                    run(bench, backend, pace, n, ONE_IN).boxed()
                }),
                Subject::new("none fails", move |n| {
                    run(bench, backend, pace, n, u64::MAX).boxed()
                }),
            ],
            count: Count::Fixed((f64::from(pace) * seconds) as u64),
            figures: LATENCIES,
            must: Some(MUST),
            sameness: Sameness::None,
        })
        .await
    }
    .boxed()
}

async fn start(place: &Place, stopwatch: &Arc<Stopwatch>) -> Result<RunningHost> {
    let retry = Retry {
        immediate: 1,
        delayed: 2,
        delay: Duration::from_millis(50),
        delay_max: Duration::from_millis(100),
        ..Retry::default()
    };
    let host = Host::builder("bench")
        .shared_store(place.open().await?.store)
        .state(Arc::clone(stopwatch))
        .endpoint(ENDPOINT, |e| e.handle(arrived).handle(refuse).retry(retry));
    Ok(host.build()?.start().await?)
}

/// Finds how many messages a second are sent and handled at most.
async fn peak(bench: &Bench, backend: Backend) -> Result<u32> {
    let place = bench.services.place(backend, &Filling::none()).await?;
    let stopwatch = Stopwatch::new();
    let host = start(&place, &stopwatch).await?;
    let started = Instant::now();
    let mut senders = JoinSet::new();
    for _ in 0..SENDERS {
        let (bus, stopwatch) = (host.bus(), Arc::clone(&stopwatch));
        senders.spawn(async move {
            let mut sent = 0;
            while started.elapsed() < PEAK_TIME {
                let at = stopwatch.now();
                bus.send(Ping {
                    at,
                    note: NOTE.into(),
                })
                .await?;
                sent += 1;
            }
            anyhow::Ok(sent)
        });
    }
    let mut sent = 0;
    while let Some(done) = senders.join_next().await {
        sent += done??;
    }
    if !stopwatch.wait_for(sent, Duration::from_secs(30)).await {
        bail!("not every message was handled");
    }
    let peak = sent as f64 / started.elapsed().as_secs_f64();
    host.stop(Duration::from_secs(10)).await;
    bench.services.remove(place).await?;
    Ok(peak as u32)
}

async fn run(
    bench: &Bench,
    backend: Backend,
    pace: u32,
    messages: u64,
    one_in: u64,
) -> Result<Run> {
    let place = bench.services.place(backend, &Filling::none()).await?;
    let stopwatch = Stopwatch::new();
    let host = start(&place, &stopwatch).await?;
    let bus: Bus = host.bus();
    let count = AtomicU64::new(0);
    let send = |ping| {
        let n = count.fetch_add(1, Ordering::Relaxed);
        let (bus, fails) = (bus.clone(), n % one_in == one_in / 2);
        async move {
            if fails {
                bus.send(Spoilt { n }).await?;
            }
            bus.send(ping).await?;
            Ok(())
        }
    };
    let window = Window::open(&place).await?;
    let mut run = at_pace(window, &place, &stopwatch, pace, tenth(messages)?, send).await?;
    run.notes.insert("messages/s", f64::from(pace));
    let spoilt = (0..messages).filter(|n| n % one_in == one_in / 2).count();
    let spoilt = i64::try_from(spoilt)?;
    let all_given_up = async || -> Result<bool> {
        let rows = place.counts().await?;
        Ok(rows["dead_letters"] == spoilt && rows["outbox"] == 0)
    };
    let deadline = Instant::now() + Duration::from_secs(10);
    while !all_given_up().await? && Instant::now() < deadline {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    host.stop(Duration::from_secs(10)).await;
    run.rows = place.counts().await?;
    run.expect("dead letters", run.rows["dead_letters"], spoilt);
    run.expect("rows left in the outbox", run.rows["outbox"], 0);
    let handled = i64::try_from(stopwatch.taken().len())?;
    run.expect("handled messages", handled, i64::try_from(messages)?);
    bench.services.remove(place).await?;
    Ok(run)
}
