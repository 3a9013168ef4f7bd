//! What others do with the same work, each in a process of its own, beside ours in another: messages
//! wait in PostgreSQL and go through a handler that only counts.
//!
//! What is promised differs, and so does what is written: docs/performance.md says how.

use std::ffi::{OsStr, OsString};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use futures_util::future::{BoxFuture, FutureExt};

use super::Measure;
#[cfg(feature = "brokers")]
use super::{peer_latency, peer_relays};
use crate::brokers::Broker;
use crate::child::{Child, Handled};
use crate::measure::{Count, Plan, RATE, Sameness, Subject, Window, compare};
use crate::row::{Bench, Found, Row, Run};
use crate::services::{Backend, Filling, Place};

/// Names the folder of the programs; `cargo xtask bench` sets it when it has built them.
const FOLDER: &str = "SAGABUS_BENCH_PEERS";
/// Ours is not measured over less: a run of a few milliseconds says nothing.
const OURS_MIN: u64 = 50_000;
/// The most messages that a run hands out.
const MOST: u64 = 300_000;

/// The program that a peer is part of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Program {
    Rust,
    River,
    Watermill,
}

impl Program {
    /// Says what the command that builds it calls it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Rust => "peers-rust",
            Self::River => "peers-go",
            Self::Watermill => "peers-watermill",
        }
    }

    /// Returns where it is, if it is built.
    pub(crate) fn path(self) -> Option<PathBuf> {
        let name = match self {
            Self::Rust => "sagabus-bench-peers",
            Self::River => "sagabus-bench-peers-go",
            Self::Watermill => "sagabus-bench-peers-watermill",
        };
        let path = PathBuf::from(std::env::var_os(FOLDER)?).join(name);
        path.is_file().then_some(path)
    }

    /// Returns where it is.
    pub(super) fn built(self) -> Result<PathBuf> {
        let path = self.path();
        path.with_context(|| format!("{} is not built", self.name()))
    }
}

/// Others' programs: a handler that counts, over what waits in PostgreSQL; or relays of what waits
/// there to a broker.
const PEERS: &[(&str, &str, Program, Option<Broker>, Measure)] = &[
    (
        "PEER-graphile",
        "graphile_worker with the settings of its fastest benchmark",
        Program::Rust,
        None,
        graphile,
    ),
    (
        "PEER-apalis",
        "apalis with large batches",
        Program::Rust,
        None,
        apalis,
    ),
    (
        "PEER-apalis-default",
        "apalis as it comes",
        Program::Rust,
        None,
        apalis_default,
    ),
    (
        "PEER-river",
        "River with large fetches",
        Program::River,
        None,
        river,
    ),
    (
        "PEER-river-default",
        "River as it comes",
        Program::River,
        None,
        river_default,
    ),
    #[cfg(feature = "brokers")]
    (
        "PEER-watermill",
        "Watermill's forwarder (Go) to a quorum queue, one table in order, its fastest settings",
        Program::Watermill,
        Some(Broker::RabbitMq),
        peer_relays::watermill,
    ),
    #[cfg(feature = "brokers")]
    (
        "PEER-watermill-64",
        "the same with 64 tables, without an order across them",
        Program::Watermill,
        Some(Broker::RabbitMq),
        peer_relays::watermill_64,
    ),
    #[cfg(feature = "brokers")]
    (
        "PEER-watermill-default",
        "the same as it comes, with confirms",
        Program::Watermill,
        Some(Broker::RabbitMq),
        peer_relays::watermill_default,
    ),
    #[cfg(feature = "brokers")]
    (
        "PEER-watermill-latency",
        "from send through a quorum queue at 100 messages/s, beside Watermill's shortest way",
        Program::Watermill,
        Some(Broker::RabbitMq),
        peer_latency::watermill,
    ),
    #[cfg(feature = "brokers")]
    (
        "PEER-watermill-kafka",
        "Watermill's forwarder to a topic, one table in order, its fastest settings",
        Program::Watermill,
        Some(Broker::Kafka),
        peer_relays::watermill_kafka,
    ),
    #[cfg(feature = "brokers")]
    (
        "PEER-watermill-kafka-64",
        "the same with 64 tables, without an order across them",
        Program::Watermill,
        Some(Broker::Kafka),
        peer_relays::watermill_kafka_64,
    ),
    #[cfg(feature = "brokers")]
    (
        "PEER-hexeract",
        "hexeract's outbox to a quorum queue, many workers, without an order across them",
        Program::Rust,
        Some(Broker::RabbitMq),
        peer_relays::hexeract,
    ),
    #[cfg(feature = "brokers")]
    (
        "PEER-hexeract-default",
        "the same as it comes, with one worker",
        Program::Rust,
        Some(Broker::RabbitMq),
        peer_relays::hexeract_default,
    ),
];

/// Returns the rows about others.
pub(crate) fn rows() -> Vec<Row> {
    let peers = PEERS.iter();
    let row = |&(name, about, program, broker, run): &(_, _, _, _, Measure)| Row {
        name,
        about,
        backend: Backend::Postgres,
        broker,
        peer: Some(program),
        run,
    };
    peers.map(row).collect()
}

pub(crate) fn graphile(bench: &Bench, _: Backend) -> BoxFuture<'_, Result<Found>> {
    beside(bench, Program::Rust, "graphile", 20_000).boxed()
}

pub(crate) fn apalis(bench: &Bench, _: Backend) -> BoxFuture<'_, Result<Found>> {
    beside(bench, Program::Rust, "apalis", 5_000).boxed()
}

pub(crate) fn apalis_default(bench: &Bench, _: Backend) -> BoxFuture<'_, Result<Found>> {
    beside(bench, Program::Rust, "apalis-default", 200).boxed()
}

pub(crate) fn river(bench: &Bench, _: Backend) -> BoxFuture<'_, Result<Found>> {
    beside(bench, Program::River, "river", 20_000).boxed()
}

pub(crate) fn river_default(bench: &Bench, _: Backend) -> BoxFuture<'_, Result<Found>> {
    beside(bench, Program::River, "river-default", 1_000).boxed()
}

async fn beside(bench: &Bench, program: Program, peer: &'static str, pilot: u64) -> Result<Found> {
    let path = &program.built()?;
    compare(Plan {
        profile: bench.profile,
        subjects: [
            Subject::new("ours", move |n| ours(bench, n.max(OURS_MIN)).boxed()),
            Subject::new(peer, move |n| theirs(bench, path.clone(), peer, n).boxed()),
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

async fn ours(bench: &Bench, messages: u64) -> Result<Run> {
    let program = std::env::current_exe()?.into_os_string();
    handle(bench, program, "own-rows", messages).await
}

async fn theirs(bench: &Bench, path: PathBuf, peer: &str, messages: u64) -> Result<Run> {
    handle(bench, path.into_os_string(), peer, messages).await
}

/// Lets a process handle so many messages of a database of its own.
async fn handle(bench: &Bench, program: OsString, who: &str, messages: u64) -> Result<Run> {
    let messages = messages.min(MOST);
    let services = &bench.services;
    let place = services.place(Backend::Postgres, &Filling::none()).await?;
    let Place::Postgres { url, .. } = &place else {
        bail!("this row is for PostgreSQL");
    };
    let part = Part {
        program: &program,
        arguments: &[who, url.as_str(), &messages.to_string()],
        messages,
        broker: None,
    };
    let (mut run, done) = part.take(bench, &place).await?;
    let total = i64::try_from(messages)?;
    run.expect("handled messages", done.handled, total);
    run.expect("different messages", done.distinct, total);
    run.expect("messages that are not done", done.left, 0);
    services.remove(place).await?;
    Ok(run)
}

/// What a process does of a run.
pub(super) struct Part<'a> {
    pub(super) program: &'a OsStr,
    pub(super) arguments: &'a [&'a str],
    /// Those that are measured.
    pub(super) messages: u64,
    /// The broker that works as well.
    pub(super) broker: Option<Broker>,
}

impl Part<'_> {
    /// Starts the process, lets it do its part when it is ready, and asks what it did.
    pub(super) async fn take(&self, bench: &Bench, place: &Place) -> Result<(Run, Handled)> {
        let mut child = Child::start(self.program, self.arguments).await?;
        place.settle().await?;
        let window = match self.broker {
            Some(broker) => Window::open_with(place, bench, broker).await?,
            None => Window::open(place).await?,
        };
        let before = child.cpu();
        child.tell("go").await?;
        let done: Handled = child.answer().await?;
        let took = Duration::from_secs_f64(done.seconds);
        let mut run = window.close(place, self.messages, Some(took)).await?;
        let used = child.cpu().zip(before);
        run.cpu_seconds = used.map_or(f64::NAN, |(now, before)| (now - before).as_secs_f64());
        run.most_kib = child.most_kib();
        child.end().await?;
        let bytes = run.bytes.unwrap_or_default() as f64;
        run.notes
            .insert("log bytes per message", bytes / self.messages as f64);
        Ok((run, done))
    }
}
