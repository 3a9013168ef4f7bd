//! Hosts in processes of their own over rows of one database: ours beside what others do with the
//! same work, and several of ours beside few.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use futures_util::future::{BoxFuture, FutureExt};
use sagabus_core::{Host, State};
use sagabus_saga::MachineEndpoint;

use super::h2::declare_sink;
use crate::child::{self, Child, Handled};
use crate::filling;
use crate::measure::{Count, PATIENCE, Plan, RATE, Sameness, Subject, Window, compare};
use crate::ratio::{Must, Promise};
use crate::row::{Bench, Found, Run};
use crate::services::{Backend, Place};
use crate::workload::{Charge, ENDPOINT, accounts, nth_message, nth_new_charge};

/// What many hosts reach of what two do.
const MUST: Must = Must::AtLeast(0.85);
/// How much more the busiest host may handle than the least busy one.
const FAIR: Must = Must::AtMost(1.20);
/// What the notes call it.
pub(crate) const APART: &str = "busiest / least busy host";

/// Between two looks at how far hosts are.
const LOOK: Duration = Duration::from_millis(2);
/// The same where each look asks the server.
const LOOK_THERE: Duration = Duration::from_millis(10);

/// Handled messages, by account.
type Tally = Arc<Mutex<(i64, HashSet<String>)>>;

/// The process: fills its database, and handles all when it is told to.
pub(crate) async fn run_own_rows(database: &str, messages: u64) -> Result<()> {
    let place = at(database);
    filling::own_rows(&place, ENDPOINT, messages, nth_new_charge).await?;
    let tally = Tally::default();
    let host = Host::builder("bench")
        .shared_store(place.open().await?.store)
        .state(Arc::clone(&tally))
        .endpoint(ENDPOINT, |e| e.handle(count))
        .build()?;
    println!("ready");
    child::order().await?;
    let started = Instant::now();
    let host = host.start().await?;
    let deadline = started + PATIENCE;
    let wanted = usize::try_from(messages)?;
    let mut left = i64::MAX;
    while left > 0 && Instant::now() < deadline {
        tokio::time::sleep(LOOK).await;
        // Counting rows costs the server: nobody does it before all are handled.
        if tally.lock().unwrap_or_else(PoisonError::into_inner).1.len() >= wanted {
            left = place.number("select count(*) from sagabus.outbox").await?;
        }
    }
    let seconds = started.elapsed().as_secs_f64();
    let (handled, distinct) = {
        let tally = tally.lock().unwrap_or_else(PoisonError::into_inner);
        (tally.0, i64::try_from(tally.1.len())?)
    };
    let done = Handled {
        seconds,
        handled,
        distinct,
        left,
    };
    println!("{}", serde_json::to_string(&done)?);
    child::order().await?;
    host.stop(Duration::from_secs(5)).await;
    Ok(())
}

async fn count(charge: Charge, tally: State<Tally>) {
    let mut tally = tally.lock().unwrap_or_else(PoisonError::into_inner);
    tally.0 += 1;
    tally.1.insert(charge.account);
}

/// The process: a host of many that runs between two lines, and says what it committed.
pub(crate) async fn run_serving_host(database: &str) -> Result<()> {
    let host = Host::builder("bench")
        .shared_store(at(database).open().await?.store)
        .endpoint(ENDPOINT, |e| e.machine(accounts()))
        .build()?;
    println!("ready");
    child::order().await?;
    let host = host.start().await?;
    child::order().await?;
    println!("{}", host.counters().committed.get());
    child::order().await?;
    host.stop(Duration::from_secs(5)).await;
    Ok(())
}

fn at(database: &str) -> Place {
    Place::Postgres {
        url: database.to_owned(),
        name: String::new(),
    }
}

/// Four hosts beside two, all on this machine.
pub(crate) fn four_beside_two(bench: &Bench, _: Backend) -> BoxFuture<'_, Result<Found>> {
    beside_two(bench, "4 hosts", 4).boxed()
}

/// Eight hosts beside two.
pub(crate) fn eight_beside_two(bench: &Bench, _: Backend) -> BoxFuture<'_, Result<Found>> {
    beside_two(bench, "8 hosts", 8).boxed()
}

async fn beside_two(bench: &Bench, many: &'static str, count: usize) -> Result<Found> {
    let mut found = compare(Plan {
        profile: bench.profile,
        subjects: [
            Subject::new(many, move |n| hosts(bench, count, n).boxed()),
            Subject::new("2 hosts", move |n| hosts(bench, 2, n).boxed()),
        ],
        count: Count::Pilot {
            pilot: 4_000,
            multiple: 20,
        },
        figures: RATE,
        must: Some(MUST),
        sameness: Sameness::None,
    })
    .await?;
    let runs = found.runs.get(many).map_or(&[][..], Vec::as_slice);
    let apart = crate::report::median(runs, |run| run.notes.get(APART).copied());
    let fair = apart.map(|apart| Promise::new(APART, apart, FAIR));
    let fair = fair.filter(|_| found.faults.is_empty());
    found.promises.extend(fair);
    Ok(found)
}

/// Lets so many hosts share the rows of one database.
pub(crate) async fn hosts(bench: &Bench, count: usize, messages: u64) -> Result<Run> {
    let services = &bench.services;
    let place = services
        .place(Backend::Postgres, &filling::accounts())
        .await?;
    let Place::Postgres { url, .. } = &place else {
        bail!("this row is for PostgreSQL");
    };
    declare_sink(&place).await?;
    filling::own_rows(&place, ENDPOINT, messages, nth_message).await?;
    let mut children = Vec::with_capacity(count);
    for _ in 0..count {
        children.push(Child::again(&["serving-host", url]).await?);
    }
    let window = Window::open(&place).await?;
    let cpu = |children: &[Child]| children.iter().map(Child::cpu).sum::<Option<Duration>>();
    let before = cpu(&children);
    for child in &mut children {
        child.tell("go").await?;
    }
    until_handled(&place).await?;
    let mut run = window.close(&place, messages, None).await?;
    let used = cpu(&children).zip(before);
    run.cpu_seconds = used.map_or(f64::NAN, |(now, before)| (now - before).as_secs_f64());
    run.most_kib = children.iter().map(Child::most_kib).max().flatten();
    let mut parts = Vec::with_capacity(count);
    for child in &mut children {
        child.tell("report").await?;
        parts.push(child.answer::<i64>().await?);
    }
    for child in children {
        child.end().await?;
    }
    let (least, most) = (parts.iter().min(), parts.iter().max());
    if let Some((least, most)) = least.zip(most) {
        run.notes
            .insert(APART, *most as f64 / (*least).max(1) as f64);
    }
    run.rows = place.counts().await?;
    let total = i64::try_from(messages)?;
    run.expect("messages that hosts committed", parts.iter().sum(), total);
    run.expect("history entries", run.rows["history"], total);
    run.expect("dead letters", run.rows["dead_letters"], 0);
    super::h2::check_accounts(&place, messages, &mut run).await?;
    services.remove(place).await?;
    Ok(run)
}

/// Waits until no row waits for the endpoint; what it sends is for another one.
async fn until_handled(place: &Place) -> Result<()> {
    let left =
        "select exists (select 1 from sagabus.outbox where destination = '@accounts')::int::bigint";
    let deadline = Instant::now() + PATIENCE;
    while place.number(left).await? > 0 {
        if Instant::now() > deadline {
            bail!("rows were left for {PATIENCE:?}");
        }
        tokio::time::sleep(LOOK_THERE).await;
    }
    Ok(())
}
