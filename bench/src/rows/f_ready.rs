//! F-ready: what stands for a step of a durable flow as long as there are none. A row of this database
//! for an instance is handled; in one commit the row goes, the instance and its history are written,
//! and the row that brings the instance its next message. Ten such steps each, of many instances.

use std::time::{Duration, Instant};

use anyhow::Result;
use futures_util::future::{BoxFuture, FutureExt};
use sagabus_core::Host;
use sagabus_saga::MachineEndpoint;

use super::h2::{committed, sameness};
use super::h3::versions;
use super::run::{Who, drained};
use crate::bare;
use crate::filling;
use crate::measure::{Count, Plan, RATE, Window, compare};
use crate::row::{Bench, Found, Run};
use crate::services::{Backend, Filling, Place};
use crate::workload::{ENDPOINT, STEPS, nth_new_charge, step_by_step};

/// Compares ours with the same work by hand.
pub(crate) fn steps(bench: &Bench, backend: Backend) -> BoxFuture<'_, Result<Found>> {
    async move {
        compare(Plan {
            profile: bench.profile,
            subjects: Who::both(move |who, n| run(bench, backend, n, who).boxed()),
            count: Count::Pilot {
                pilot: 2_000,
                multiple: STEPS.unsigned_abs(),
            },
            figures: RATE,
            must: None,
            sameness: sameness(backend),
        })
        .await
    }
    .boxed()
}

async fn run(bench: &Bench, backend: Backend, messages: u64, who: Who) -> Result<Run> {
    let filling = Filling {
        name: "steps".into(),
        postgres: bare::postgres::SETUP.to_owned(),
        sqlite: String::new(),
    };
    let place = bench.services.place(backend, &filling).await?;
    let instances = messages / STEPS.unsigned_abs();
    filling::own_rows(&place, ENDPOINT, instances, nth_new_charge).await?;
    let mut run = match who {
        Who::Ours => by_host(&place, messages).await?,
        Who::Bare => by_hand(&place).await?,
    };
    run.rows = place.counts().await?;
    let (total, instances) = (i64::try_from(messages)?, i64::try_from(instances)?);
    run.expect("handled messages", i64::try_from(run.messages)?, total);
    run.expect("rows left in the outbox", run.rows["outbox"], 0);
    run.expect("history entries", run.rows["history"], total);
    run.expect("dead letters", run.rows["dead_letters"], 0);
    run.expect("instances", run.rows["running"], instances);
    let moves = place.number(versions(&place)).await?;
    run.expect("steps of instances", moves, total);
    bench.services.remove(place).await?;
    Ok(run)
}

async fn by_host(place: &Place, messages: u64) -> Result<Run> {
    let host = Host::builder("bench")
        .shared_store(place.open().await?.store)
        .endpoint(ENDPOINT, |e| e.machine(step_by_step()))
        .build()?;
    let window = Window::open(place).await?;
    let host = host.start().await?;
    let started = Instant::now();
    let counted = committed(&host, messages).await?;
    let took = started.elapsed();
    let mut run = window.close(place, counted, Some(took)).await?;
    drained(place, 0).await?;
    host.stop(Duration::from_secs(10)).await;
    let counters = host.counters();
    let mut note = |what, count: f64| run.notes.insert(what, count);
    note(
        "messages per group",
        messages as f64 / counters.groups.get() as f64,
    );
    note(
        "claimed of all",
        counters.claimed.get() as f64 / messages as f64,
    );
    Ok(run)
}

async fn by_hand(place: &Place) -> Result<Run> {
    let destination = "@accounts";
    match place {
        Place::Postgres { .. } => {
            let mut connection = place.postgres().await?;
            let window = Window::open(place).await?;
            let steps = bare::own::steps(&mut connection, destination);
            let (handled, took) = steps.await?;
            window.close(place, handled, Some(took)).await
        }
        Place::Sqlite { .. } => {
            let mut connection = place.sqlite().await?;
            let window = Window::open(place).await?;
            let steps = bare::own::steps(&mut connection, destination);
            let (handled, took) = steps.await?;
            window.close(place, handled, Some(took)).await
        }
    }
}
