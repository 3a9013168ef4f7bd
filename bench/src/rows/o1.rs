//! O1: what operators do with a hundred thousand dead letters: look, search, redrive at a rate,
//! pause, redrive all.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use futures_util::future::{BoxFuture, FutureExt};
use sagabus_core::admin::{Command, DeadLetterFilter, Pace, Page, Selected, StoreAdmin, Verb};
use sagabus_ops::Operator;
use sagabus_ops::operations::{self, Drive};

use crate::filling;
use crate::ratio::{Must, Promise};
use crate::row::{Bench, Found, Run};
use crate::services::{Backend, Place};

/// Dead letters.
const LETTERS: u64 = 100_000;
/// Messages a second that a redrive is told to keep to.
const RATE: u32 = 200;
/// Times that a question is asked; the median counts.
const TIMES: usize = 9;
/// The most milliseconds of a list of groups.
const GROUPS: Must = Must::AtMost(300.0);
/// The most milliseconds of a search by key.
const SEARCH: Must = Must::AtMost(100.0);
/// The most milliseconds from a pause to a standstill.
const PAUSE: Must = Must::AtMost(1_000.0);
/// The least messages a second of a redrive without a rate, on PostgreSQL.
const UNLIMITED: Must = Must::AtLeast(5_000.0);

/// Does it all on one database.
pub(crate) fn incident(bench: &Bench, backend: Backend) -> BoxFuture<'_, Result<Found>> {
    async move {
        let filling = filling::dead_letters(LETTERS);
        let place = bench.services.place(backend, &filling).await?;
        let opened = place.open().await?;
        let admin = &*opened.admin;
        let mut found = Found::default();
        look(admin, &mut found).await?;
        search(admin, &mut found).await?;
        let limited = Duration::from_secs_f64((bench.profile.seconds * 10.0).clamp(5.0, 30.0));
        at_a_rate(admin, limited, &mut found).await?;
        let run = unlimited(admin, &place).await?;
        if backend == Backend::Postgres {
            let promise = Promise::new("redriven in a second", run.rate(), UNLIMITED);
            found.promises.push(promise);
        }
        found.faults.extend(run.faults.iter().cloned());
        found.runs.entry("ours").or_default().push(run);
        drop(opened);
        bench.services.remove(place).await?;
        Ok(found)
    }
    .boxed()
}

/// Lists the groups.
async fn look(admin: &dyn StoreAdmin, found: &mut Found) -> Result<()> {
    let open = DeadLetterFilter::default();
    let mut took = Vec::new();
    for _ in 0..TIMES {
        let started = Instant::now();
        let groups = admin.dead_letter_groups(&open, 500).await?;
        took.push(started.elapsed());
        let count: u64 = groups.iter().map(|group| group.count).sum();
        ensure!(count == LETTERS, "{count} dead letters are in groups");
    }
    let promise = Promise::new("ms for a list of groups", median(took), GROUPS);
    found.promises.push(promise);
    Ok(())
}

/// Searches by key, a different one each time.
async fn search(admin: &dyn StoreAdmin, found: &mut Found) -> Result<()> {
    let mut took = Vec::new();
    for n in 1..=TIMES as u64 {
        let filter = DeadLetterFilter {
            key: Some(format!("key-{}", n * LETTERS / 10)),
            ..DeadLetterFilter::any()
        };
        let started = Instant::now();
        let letters = admin.find_dead_letters(&filter, Page::latest(50)).await?;
        took.push(started.elapsed());
        ensure!(letters.len() == 1, "{} have one key", letters.len());
    }
    let promise = Promise::new("ms for a search by key", median(took), SEARCH);
    found.promises.push(promise);
    Ok(())
}

fn operator() -> Operator {
    Operator {
        who: "bench".to_owned(),
        why: String::new(),
    }
}

async fn begin(admin: &dyn StoreAdmin, rate: Option<u32>) -> Result<i64> {
    let pace = Pace {
        rate,
        ..Pace::default()
    };
    let verb = Verb::Redrive { to: None };
    let all = Selected::DeadLetters(Box::default());
    let begun = operations::begin(admin, &operator(), verb, all, pace).await?;
    Ok(begun.context("nothing is open")?.id)
}

/// Redrives at a rate for a time, then pauses from elsewhere.
async fn at_a_rate(admin: &dyn StoreAdmin, time: Duration, found: &mut Found) -> Result<()> {
    let id = begin(admin, Some(RATE)).await?;
    let operator = operator();
    let started = Instant::now();
    let driving = async {
        let mut drive = Drive::take(admin, &operator, id).await?;
        while drive.turn().await? {}
        anyhow::Ok((drive.operation().taken, Instant::now()))
    };
    let pausing = async {
        tokio::time::sleep(time).await;
        let said = Instant::now();
        operations::tell(admin, &operator, id, Command::Pause).await?;
        anyhow::Ok(said)
    };
    let ((taken, stopped), said) = tokio::try_join!(driving, pausing)?;
    let rate = taken as f64 / (said - started).as_secs_f64();
    for must in [Must::AtLeast(0.9), Must::AtMost(1.1)] {
        let what = format!("of {RATE} a second, for {} s", time.as_secs());
        let promise = Promise::new(what, rate / f64::from(RATE), must);
        found.promises.push(promise);
    }
    let after = stopped.saturating_duration_since(said).as_secs_f64() * 1e3;
    found
        .promises
        .push(Promise::new("ms from pause to standstill", after, PAUSE));
    let paused = admin.operations(Some(id), Page::latest(1)).await?;
    ensure!(paused[0].taken == taken, "it went on after the pause");
    operations::tell(admin, &operator, id, Command::Cancel).await?;
    Ok(())
}

/// Redrives the rest as fast as the database can, and counts what is there in the end.
async fn unlimited(admin: &dyn StoreAdmin, place: &Place) -> Result<Run> {
    let operator = operator();
    let started = Instant::now();
    let id = begin(admin, None).await?;
    let mut drive = Drive::take(admin, &operator, id).await?;
    while drive.turn().await? {}
    let mut run = Run {
        messages: drive.operation().changed,
        seconds: started.elapsed().as_secs_f64(),
        ..Run::default()
    };
    let all = i64::try_from(LETTERS)?;
    let (rows, messages, open) = match place {
        Place::Postgres { .. } => (
            "select count(*) from sagabus.outbox",
            "select count(distinct message_id) from sagabus.outbox",
            "select count(*) from sagabus.dead_letter where status = 'open'",
        ),
        Place::Sqlite { .. } => (
            "select count(*) from sagabus_outbox",
            "select count(distinct message_id) from sagabus_outbox",
            "select count(*) from sagabus_dead_letter where status = 'open'",
        ),
    };
    run.expect("rows", place.number(rows).await?, all);
    run.expect("messages", place.number(messages).await?, all);
    run.expect("open dead letters", place.number(open).await?, 0);
    Ok(run)
}

fn median(mut took: Vec<Duration>) -> f64 {
    took.sort_unstable();
    took[took.len() / 2].as_secs_f64() * 1e3
}
