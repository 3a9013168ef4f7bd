//! STEADY: the work of H2 at four fifths of what the host can do, for minutes, with autovacuum on as
//! the server has it: whether it slows down, whether the process grows, whether tables do that only
//! have rows written and removed, or updated.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use futures_util::future::{BoxFuture, FutureExt};
use sagabus_saga::MachineEndpoint;
use sqlx::Row as _;

use super::h3::versions;
use super::run::{Program, drained};
use crate::filling;
use crate::machine;
use crate::measure::{PATIENCE, Window};
use crate::ratio::{Must, Promise};
use crate::row::{Bench, Found, Run};
use crate::services::{Backend, Place};
use crate::source::Source;
use crate::workload::{ACCOUNTS, accounts, message_for, scatter};

/// The engine's own default for an endpoint.
const WINDOW: usize = 256;
/// The part of the peak that is asked for.
const PART: f64 = 0.8;
/// How long the peak is looked for.
const PEAK_TIME: Duration = Duration::from_secs(5);
/// Messages that wait at most while it is.
const AHEAD: u64 = 2_000;
/// Between two helpings of messages.
const HELPING: Duration = Duration::from_millis(10);
/// Samples of a run.
const SAMPLES: u32 = 60;
/// The first of them are warm-up: autovacuum comes once a minute.
const WARM: usize = 12;
/// How much the rate may change from the first sample to the last.
const RATE_MUST: Must = Must::AtMost(0.05);
/// MiB that the process may grow in an hour.
const MEMORY_MUST: Must = Must::AtMost(1.0);
/// How often as large as after the warm-up a table or its indexes may become.
const SIZE_MUST: Must = Must::AtMost(2.0);

/// What grows where rows that are gone are not used again.
const SIZES: &str = "select pg_relation_size('sagabus.outbox'), pg_indexes_size('sagabus.outbox'), \
    pg_relation_size('sagabus.instance'), pg_indexes_size('sagabus.instance')";
const SIZED: [&str; 4] = ["outbox", "its indexes", "instances", "their indexes"];
const VACUUMS: &str = "select coalesce(sum(autovacuum_count), 0)::bigint from pg_stat_user_tables \
    where relname in ('outbox', 'instance')";

/// How far a run was at one moment.
#[derive(Clone, Debug)]
struct Sample {
    seconds: f64,
    acked: u64,
    resident_kib: u64,
    bytes: [i64; SIZED.len()],
}

/// Measures it.
pub(crate) fn at_four_fifths(bench: &Bench, backend: Backend) -> BoxFuture<'_, Result<Found>> {
    async move {
        let place = bench.services.place(backend, &filling::accounts()).await?;
        let nth = |n| message_for(n, scatter(n) % ACCOUNTS);
        let source = Source::forgetting(WINDOW, nth);
        let endpoint = |e: sagabus_core::EndpointBuilder| e.machine(accounts());
        let Program::Ours(host) = Program::ours(&place, &source, endpoint).await? else {
            bail!("a host is ours");
        };
        let peak = peak(&source).await?;
        let time = Duration::from_secs_f64(bench.profile.minutes * 60.0);
        let window = Window::open(&place).await?;
        let before = source.acked();
        let samples = watched(&place, &source, peak * PART, time).await?;
        let done = source.acked() - before;
        let mut run = window.close(&place, done, None).await?;
        source
            .feed(0, PATIENCE)
            .await
            .context("messages are left")?;
        drained(&place, 0).await?;
        host.stop(Duration::from_secs(10)).await;
        check(&place, &source, &mut run).await?;
        run.notes.insert("peak", peak);
        run.notes.insert("minutes", bench.profile.minutes);
        let vacuums = place.number(VACUUMS).await?;
        run.notes.insert("autovacuums", vacuums as f64);
        bench.services.remove(place).await?;
        let mut found = Found {
            faults: run.faults.clone(),
            promises: promises(&samples),
            ..Found::default()
        };
        found.runs.insert("ours", vec![run]);
        Ok(found)
    }
    .boxed()
}

/// Finds how many messages a second are handled while some always wait.
async fn peak(source: &Source) -> Result<f64> {
    let started = Instant::now();
    let mut offered = 0;
    while started.elapsed() < PEAK_TIME {
        let more = (source.acked() + AHEAD).saturating_sub(offered);
        source.offer(more);
        offered += more;
        tokio::time::sleep(HELPING).await;
    }
    let acked = source.acked();
    let rate = acked as f64 / started.elapsed().as_secs_f64();
    source
        .feed(0, PATIENCE)
        .await
        .context("messages are left")?;
    Ok(rate)
}

/// Offers messages at a pace, and looks now and then how far all is.
async fn watched(place: &Place, source: &Source, pace: f64, time: Duration) -> Result<Vec<Sample>> {
    let (started, before) = (Instant::now(), source.acked());
    let mut samples = Vec::with_capacity(SAMPLES as usize + 1);
    let mut offered = 0;
    while started.elapsed() < time {
        let due = (started.elapsed().as_secs_f64() * pace) as u64;
        source.offer(due - offered);
        offered = due;
        let wanted = time / SAMPLES * u32::try_from(samples.len())?;
        if started.elapsed() >= wanted {
            let acked = source.acked() - before;
            samples.push(sample(place, started, acked).await?);
        }
        tokio::time::sleep(HELPING).await;
    }
    samples.push(sample(place, started, source.acked() - before).await?);
    Ok(samples)
}

async fn sample(place: &Place, started: Instant, acked: u64) -> Result<Sample> {
    let seconds = started.elapsed().as_secs_f64();
    let memory = machine::memory_kib(std::process::id());
    let (resident_kib, _) = memory.context("this system does not say what a process uses")?;
    let mut connection = place.postgres().await?;
    let row = sqlx::query(SIZES).fetch_one(&mut connection).await?;
    let mut bytes = [0; SIZED.len()];
    for (n, bytes) in bytes.iter_mut().enumerate() {
        *bytes = row.try_get(n)?;
    }
    Ok(Sample {
        seconds,
        acked,
        resident_kib,
        bytes,
    })
}

async fn check(place: &Place, source: &Source, run: &mut Run) -> Result<()> {
    run.rows = place.counts().await?;
    let total = i64::try_from(source.acked())?;
    run.expect("messages in the inbox", run.rows["inbox"], total);
    run.expect("history entries", run.rows["history"], total);
    run.expect("rows left in the outbox", run.rows["outbox"], 0);
    run.expect("dead letters", run.rows["dead_letters"], 0);
    let existed = i64::try_from(ACCOUNTS)?;
    let moves = place.number(versions(place)).await? - existed;
    run.expect("moves of accounts", moves, total);
    run.expect("returned messages", i64::try_from(source.returned())?, 0);
    Ok(())
}

/// What became of rate, memory and sizes behind the warm-up.
fn promises(samples: &[Sample]) -> Vec<Promise> {
    let warm = samples.get(WARM..).unwrap_or_default();
    let (Some(first), Some(last)) = (warm.first(), warm.last()) else {
        return Vec::new();
    };
    let rates = warm.windows(2).map(|two| {
        let seconds = two[1].seconds - two[0].seconds;
        let acked = two[1].acked - two[0].acked;
        (two[1].seconds, acked as f64 / seconds)
    });
    let rates: Vec<_> = rates.collect();
    let mean = rates.iter().map(|rate| rate.1).sum::<f64>() / rates.len() as f64;
    let change = slope(&rates) * (last.seconds - first.seconds) / mean;
    let memory = warm.iter();
    let memory: Vec<_> = memory
        .map(|one| (one.seconds / 3600.0, one.resident_kib as f64 / 1024.0))
        .collect();
    let mut found = vec![
        Promise::new("rate, change over the run", change.abs(), RATE_MUST),
        Promise::new("MiB more an hour", slope(&memory), MEMORY_MUST),
    ];
    for (n, name) in SIZED.into_iter().enumerate() {
        let most = warm
            .iter()
            .map(|one| one.bytes[n])
            .max()
            .unwrap_or_default();
        let times = most as f64 / first.bytes[n].max(1) as f64;
        found.push(Promise::new(
            format!("{name}, largest / warm"),
            times,
            SIZE_MUST,
        ));
    }
    found
}

/// Returns by how much the second grows where the first grows by one: least squares.
fn slope(points: &[(f64, f64)]) -> f64 {
    let count = points.len() as f64;
    let mean = |of: fn(&(f64, f64)) -> f64| points.iter().map(of).sum::<f64>() / count;
    let (x, y) = (mean(|point| point.0), mean(|point| point.1));
    let both = points.iter().map(|point| (point.0 - x) * (point.1 - y));
    let own = points.iter().map(|point| (point.0 - x).powi(2));
    both.sum::<f64>() / own.sum::<f64>()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Samples of an hour, a minute apart.
    fn hour(of: impl Fn(usize) -> (u64, u64, i64)) -> Vec<Sample> {
        let sample = |n: usize| {
            let (acked, resident_kib, bytes) = of(n);
            Sample {
                seconds: 60.0 * n as f64,
                acked,
                resident_kib,
                bytes: [bytes; SIZED.len()],
            }
        };
        (0..=60).map(sample).collect()
    }

    #[test]
    fn what_stays_as_it_is_keeps_every_promise() {
        let samples = hour(|n| (1_000 * n as u64, 30_000, 1 << 20));
        let found = promises(&samples);
        assert_eq!(found.len(), 2 + SIZED.len());
        assert!(found.iter().all(Promise::is_kept), "{found:?}");
    }

    #[test]
    fn a_falling_rate_a_growing_process_and_a_growing_table_are_missed() {
        let falling = hour(|n| (1_000 * n as u64 - (n * n) as u64, 30_000, 1 << 20));
        let missed = |samples: &[Sample]| {
            let found = promises(samples).into_iter().filter(|one| !one.is_kept());
            found.map(|one| one.what).collect::<Vec<_>>()
        };
        assert_eq!(missed(&falling), ["rate, change over the run"]);
        let growing = hour(|n| (1_000 * n as u64, 30_000 + 20 * n as u64, 1 << 20));
        assert_eq!(missed(&growing), ["MiB more an hour"]);
        let bloating = hour(|n| (1_000 * n as u64, 30_000, 1 << (14 + n / 20)));
        assert_eq!(missed(&bloating).len(), SIZED.len());
    }
}
