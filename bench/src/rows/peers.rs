//! What others do with the same work, each in a process of its own, beside ours in another: messages
//! wait in PostgreSQL and go through a handler that only counts.
//!
//! What is promised differs, and so does what is written: docs/performance.md says how.

use std::ffi::{OsStr, OsString};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use futures_util::future::{BoxFuture, FutureExt};

use crate::child::{Child, Handled};
use crate::measure::{Count, Plan, RATE, Sameness, Subject, Window, compare};
use crate::row::{Bench, Found, Run};
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
    let path = program.path();
    let path = path.with_context(|| format!("{} is not built", program.name()))?;
    let path = &path;
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
    let arguments = [who, url.as_str(), &messages.to_string()];
    let (mut run, done) = take_part(&place, &program, &arguments, messages).await?;
    let total = i64::try_from(messages)?;
    run.expect("handled messages", done.handled, total);
    run.expect("different messages", done.distinct, total);
    run.expect("messages that are not done", done.left, 0);
    services.remove(place).await?;
    Ok(run)
}

/// Starts a process, lets it do its part of a run when it is ready, and asks what it did.
pub(super) async fn take_part(
    place: &Place,
    program: &OsStr,
    arguments: &[&str],
    messages: u64,
) -> Result<(Run, Handled)> {
    let mut child = Child::start(program, arguments).await?;
    place.settle().await?;
    let window = Window::open(place).await?;
    let before = child.cpu();
    child.tell("go").await?;
    let done: Handled = child.answer().await?;
    let took = Duration::from_secs_f64(done.seconds);
    let mut run = window.close(place, messages, Some(took)).await?;
    let used = child.cpu().zip(before);
    run.cpu_seconds = used.map_or(f64::NAN, |(now, before)| (now - before).as_secs_f64());
    run.most_kib = child.most_kib();
    child.end().await?;
    let bytes = run.bytes.unwrap_or_default() as f64;
    run.notes
        .insert("log bytes per message", bytes / messages as f64);
    Ok((run, done))
}
