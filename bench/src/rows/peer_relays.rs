//! R1 and R2 beside others' relays: what waits in an outbox goes to a quorum queue or to a topic, each
//! message confirmed, and is read back from there. Theirs in a process of its own with its own table,
//! ours as in R1 and R2.

use anyhow::{Result, bail};
use futures_util::future::{BoxFuture, FutureExt};

use super::peers::{Part, Program};
use super::relay;
use crate::brokers::Broker;
use crate::brokers::target::Target;
use crate::measure::{Count, Plan, RATE, Sameness, Subject, compare};
use crate::ratio::Must;
use crate::row::{Bench, Found, Run};
use crate::services::{Backend, Filling, Place};

/// What is sent, as ours sends it.
const TYPE: &str = "bench.send-statement";

/// A relay of others.
#[derive(Clone, Copy, Debug)]
struct Peer {
    /// As its program calls it.
    name: &'static str,
    program: Program,
    broker: Broker,
    /// Messages of the run that says how many there have to be.
    pilot: u64,
    /// What ours reaches of its rate.
    must: Option<Must>,
}

const WATERMILL: Peer = Peer {
    name: "watermill",
    program: Program::Watermill,
    broker: Broker::RabbitMq,
    pilot: 1_000,
    must: Some(Must::AtLeast(12.0)),
};

const HEXERACT: Peer = Peer {
    name: "hexeract",
    program: Program::Rust,
    broker: Broker::RabbitMq,
    pilot: 2_000,
    must: Some(Must::AtLeast(6.0)),
};

pub(crate) fn watermill(bench: &Bench, _: Backend) -> BoxFuture<'_, Result<Found>> {
    beside(bench, WATERMILL).boxed()
}

pub(crate) fn watermill_64(bench: &Bench, _: Backend) -> BoxFuture<'_, Result<Found>> {
    let peer = Peer {
        name: "watermill-64",
        pilot: 10_000,
        must: Some(Must::AtLeast(2.0)),
        ..WATERMILL
    };
    beside(bench, peer).boxed()
}

pub(crate) fn watermill_default(bench: &Bench, _: Backend) -> BoxFuture<'_, Result<Found>> {
    let peer = Peer {
        name: "watermill-default",
        pilot: 200,
        must: None,
        ..WATERMILL
    };
    beside(bench, peer).boxed()
}

pub(crate) fn watermill_kafka(bench: &Bench, _: Backend) -> BoxFuture<'_, Result<Found>> {
    let peer = Peer {
        name: "watermill-kafka",
        broker: Broker::Kafka,
        must: Some(Must::AtLeast(40.0)),
        ..WATERMILL
    };
    beside(bench, peer).boxed()
}

pub(crate) fn watermill_kafka_64(bench: &Bench, _: Backend) -> BoxFuture<'_, Result<Found>> {
    let peer = Peer {
        name: "watermill-kafka-64",
        broker: Broker::Kafka,
        pilot: 20_000,
        must: Some(Must::AtLeast(4.0)),
        ..WATERMILL
    };
    beside(bench, peer).boxed()
}

pub(crate) fn hexeract(bench: &Bench, _: Backend) -> BoxFuture<'_, Result<Found>> {
    beside(bench, HEXERACT).boxed()
}

pub(crate) fn hexeract_default(bench: &Bench, _: Backend) -> BoxFuture<'_, Result<Found>> {
    let peer = Peer {
        name: "hexeract-default",
        pilot: 200,
        must: None,
        ..HEXERACT
    };
    beside(bench, peer).boxed()
}

async fn beside(bench: &Bench, peer: Peer) -> Result<Found> {
    let broker = peer.broker;
    let least = relay::backlog(bench, broker);
    compare(Plan {
        profile: bench.profile,
        subjects: [
            Subject::new("ours", move |n| {
                let to = relay::To::Plain;
                relay::drain(bench, broker, to, n.max(least), relay::By::Ours).boxed()
            }),
            Subject::new(peer.name, move |n| theirs(bench, peer, n).boxed()),
        ],
        count: Count::Pilot {
            pilot: peer.pilot,
            multiple: 100,
        },
        figures: RATE,
        must: peer.must,
        sameness: Sameness::None,
    })
    .await
}

async fn theirs(bench: &Bench, peer: Peer, messages: u64) -> Result<Run> {
    let program = peer.program.built()?;
    let services = &bench.services;
    let place = services.place(Backend::Postgres, &Filling::none()).await?;
    let Place::Postgres { url, .. } = &place else {
        bail!("this row is for PostgreSQL");
    };
    let mut target = Target::open(bench, peer.broker).await?;
    let address = target.command(TYPE).await?;
    let (count, warm_up) = (messages.to_string(), relay::WARM_UP.to_string());
    let part = Part {
        program: program.as_os_str(),
        arguments: &[peer.name, url, &count, &address, &warm_up],
        messages,
        broker: Some(peer.broker),
    };
    let (mut run, done) = part.take(bench, &place).await?;
    run.expect("messages that are not done", done.left, 0);
    let total = relay::WARM_UP + messages;
    let arrived = target.take_all(total).await?;
    arrived.check_each(&mut run, total)?;
    target.close().await?;
    services.remove(place).await?;
    Ok(run)
}
