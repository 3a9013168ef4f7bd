//! R1 beside others' relays: what waits in an outbox goes to a quorum queue, each message confirmed.
//! Theirs in a process of its own with its own table, ours as in R1.

use anyhow::{Context as _, Result, bail};
use futures_util::future::{BoxFuture, FutureExt};

use super::peers::{Program, take_part};
use super::relay;
use crate::brokers::Broker;
use crate::brokers::target::Target;
use crate::measure::{Count, Plan, RATE, Sameness, Subject, compare};
use crate::row::{Bench, Found, Run};
use crate::services::{Backend, Filling, Place};

/// What is sent, as R1 sends it.
const TYPE: &str = "bench.send-statement";

pub(crate) fn watermill(bench: &Bench, _: Backend) -> BoxFuture<'_, Result<Found>> {
    beside(bench, Program::Watermill, "watermill", 1_000).boxed()
}

pub(crate) fn watermill_64(bench: &Bench, _: Backend) -> BoxFuture<'_, Result<Found>> {
    beside(bench, Program::Watermill, "watermill-64", 10_000).boxed()
}

pub(crate) fn watermill_default(bench: &Bench, _: Backend) -> BoxFuture<'_, Result<Found>> {
    beside(bench, Program::Watermill, "watermill-default", 200).boxed()
}

async fn beside(bench: &Bench, program: Program, peer: &'static str, pilot: u64) -> Result<Found> {
    let broker = Broker::RabbitMq;
    let least = bench.profile.backlog;
    compare(Plan {
        profile: bench.profile,
        subjects: [
            Subject::new("ours", move |n| {
                let to = relay::To::Plain;
                relay::drain(bench, broker, to, n.max(least), relay::Who::Ours).boxed()
            }),
            Subject::new(peer, move |n| {
                theirs(bench, broker, program, peer, n).boxed()
            }),
        ],
        count: Count::Pilot {
            pilot,
            multiple: 100,
        },
        figures: RATE,
        must: None,
        sameness: Sameness::None,
    })
    .await
}

async fn theirs(
    bench: &Bench,
    broker: Broker,
    program: Program,
    peer: &'static str,
    messages: u64,
) -> Result<Run> {
    let path = program.path();
    let path = path.with_context(|| format!("{} is not built", program.name()))?;
    let services = &bench.services;
    let place = services.place(Backend::Postgres, &Filling::none()).await?;
    let Place::Postgres { url, .. } = &place else {
        bail!("this row is for PostgreSQL");
    };
    let mut target = Target::open(bench, broker).await?;
    let exchange = target.command(TYPE).await?;
    let count = messages.to_string();
    let arguments = [peer, url.as_str(), count.as_str(), exchange.as_str()];
    let (mut run, done) = take_part(&place, &path.into_os_string(), &arguments, messages).await?;
    run.expect("messages that are not done", done.left, 0);
    let arrived = target.take_all(messages).await?;
    arrived.check_each(&mut run, messages)?;
    target.close().await?;
    services.remove(place).await?;
    Ok(run)
}
