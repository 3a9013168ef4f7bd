//! D1: messages that fall due, beside very many that are for later: how late they are handled.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use futures_util::future::{BoxFuture, FutureExt};
use sagabus_core::{Bus, Host};

use super::l1::{arrived, at_pace};
use super::run::drained;
use crate::filling;
use crate::measure::Window;
use crate::ratio::{Must, Promise};
use crate::row::{Bench, Found, Latency};
use crate::services::Backend;
use crate::stopwatch::Stopwatch;
use crate::workload::{ENDPOINT, Ping};

/// How many fall due in a second.
const PACE: u32 = 1_000;
/// How long before that they are sent: long enough that none is still in its sender's memory.
const DELAY: Duration = Duration::from_millis(1_500);
/// How late they may be, in milliseconds.
const MUST: f64 = 250.0;
/// The least time that a run takes, in seconds: a percentile needs samples.
const SECONDS_MIN: f64 = 2.0;

/// Measures how late they are.
pub(crate) fn beside_many(bench: &Bench, backend: Backend) -> BoxFuture<'_, Result<Found>> {
    async move {
        let later = bench.profile.grown;
        let place = bench
            .services
            .place(backend, &filling::for_later(later))
            .await?;
        let stopwatch = Stopwatch::new();
        let host = Host::builder("bench")
            .shared_store(place.open().await?.store)
            .state(Arc::clone(&stopwatch))
            .endpoint(ENDPOINT, |e| e.handle(arrived))
            .build()?
            .start()
            .await?;
        let bus: Bus = host.bus();
        let send = |ping: Ping| {
            let bus = bus.clone();
            async move {
                bus.send(ping).after(DELAY).await?;
                Ok(())
            }
        };
        let seconds = bench.profile.seconds.max(SECONDS_MIN);
        let messages = (f64::from(PACE) * seconds) as u64;
        let window = Window::open(&place).await?;
        let mut run = at_pace(window, &place, &stopwatch, PACE, (0, messages), send).await?;
        let later = i64::try_from(later)?;
        drained(&place, later).await?;
        host.stop(Duration::from_secs(10)).await;
        run.rows = place.counts().await?;
        let taken = stopwatch.taken();
        // SQLite counts milliseconds: what is sent late in one is due a part of it too early.
        let unit = match backend {
            Backend::Postgres => Duration::ZERO,
            Backend::Sqlite => Duration::from_millis(1),
        };
        let early = taken.iter().filter(|took| **took + unit < DELAY).count();
        run.expect("messages that came early", i64::try_from(early)?, 0);
        let handled = i64::try_from(taken.len())?;
        run.expect("handled messages", handled, i64::try_from(messages)?);
        run.expect("rows for later", run.rows["outbox"], later);
        run.expect("dead letters", run.rows["dead_letters"], 0);
        let late = taken.into_iter().map(|took| took.saturating_sub(DELAY));
        run.latency = Latency::of(late.collect());
        let mut found = Found {
            faults: run.faults.clone(),
            ..Found::default()
        };
        let promise = Promise::new("p99 ms late", run.p99(), Must::AtMost(MUST));
        found.promises.push(promise);
        found.runs.insert("ours", vec![run]);
        bench.services.remove(place).await?;
        Ok(found)
    }
    .boxed()
}
