//! One run of one subject over the source: warmed up, measured, drained and checked.

use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use futures_util::future::BoxFuture;
use sagabus_core::EndpointBuilder;
use sagabus_core::{History, Host, RunningHost};
use tokio::task::JoinHandle;

use crate::measure::{PATIENCE, Subject, Window};
use crate::row::{Bench, Run};
use crate::services::{Backend, Filling, Place};
use crate::source::{Make, Source, Synthetic};
use crate::workload::ENDPOINT;

/// Messages before the measured ones: connections open, statements are prepared.
pub(crate) const WARM_UP: u64 = 1_000;

/// Whose program runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Who {
    Ours,
    Bare,
}

impl Who {
    /// Makes the two subjects of a comparison.
    pub(crate) fn both<'a, F>(run: F) -> [Subject<'a>; 2]
    where
        F: Fn(Self, u64) -> BoxFuture<'a, Result<Run>> + Copy + Send + Sync + 'a,
    {
        [("ours", Self::Ours), ("bare", Self::Bare)]
            .map(|(name, who)| Subject::new(name, move |n| run(who, n)))
    }
}

/// How a subject over the source is run.
pub(crate) struct Setup<'a> {
    pub(crate) bench: &'a Bench,
    pub(crate) backend: Backend,
    pub(crate) filling: &'a Filling,
    /// Messages on the way at most.
    pub(crate) window: usize,
    pub(crate) make: Make,
    pub(crate) warm_up: u64,
    pub(crate) messages: u64,
    /// Rows more in the outbox when all is done, per message.
    pub(crate) left_per_message: f64,
    pub(crate) history: History,
    pub(crate) end: End,
}

/// What becomes of every message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    Handled,
    DeadLetter,
}

/// A subject at work.
pub(crate) enum Program {
    Ours(RunningHost),
    Bare(JoinHandle<Result<()>>),
}

impl Program {
    pub(crate) fn bare(program: impl Future<Output = Result<()>> + Send + 'static) -> Self {
        Self::Bare(tokio::spawn(program))
    }

    /// Starts a host with one endpoint over the source.
    pub(crate) async fn ours(
        place: &Place,
        source: &Arc<Source>,
        endpoint: impl FnOnce(EndpointBuilder) -> EndpointBuilder,
    ) -> Result<Self> {
        let host = Host::builder("bench")
            .shared_store(place.open().await?.store)
            .transport(Synthetic(Arc::clone(source)))
            .endpoint(ENDPOINT, endpoint)
            .build()?;
        Ok(Self::Ours(host.start().await?))
    }

    fn groups(&self) -> Option<u64> {
        match self {
            Self::Ours(host) => Some(host.counters().groups.get()),
            Self::Bare(_) => None,
        }
    }
}

/// Runs a subject: `start` begins it on a new database.
pub(crate) async fn over_source<S>(
    setup: Setup<'_>,
    start: impl FnOnce(Place, Arc<Source>) -> S,
) -> Result<(Place, Arc<Source>, Run)>
where
    S: Future<Output = Result<Program>>,
{
    let services = &setup.bench.services;
    let place = services.place(setup.backend, setup.filling).await?;
    let filled = place.counts().await?;
    let Setup { make, window, .. } = &setup;
    let (make, window) = (Arc::clone(make), *window);
    let source = Source::new(window, move |n| make(n));
    let program = start(place.clone(), Arc::clone(&source)).await?;
    let fed = feed(&setup, &place, &source, &program).await;
    let total = setup.warm_up + setup.messages;
    let left = (total as f64 * setup.left_per_message).round() as i64 + filled["outbox"];
    let mut run = match (fed, program) {
        (Ok(run), Program::Ours(host)) => {
            drained(&place, left).await?;
            if !host.stop(Duration::from_secs(10)).await {
                bail!("the host did not stop within 10 s");
            }
            run
        }
        (Ok(run), Program::Bare(task)) => {
            source.close();
            task.await??;
            run
        }
        (Err(error), Program::Bare(task)) if task.is_finished() => {
            task.await??;
            return Err(error);
        }
        (Err(error), _) => return Err(error),
    };
    run.rows = place.counts().await?;
    run.expect("rows left in the outbox", run.rows["outbox"], left);
    run.expect("parked rows", run.rows["parked"], 0);
    let total = i64::try_from(total)?;
    let mut more = |what: &str, table: &str, count: i64| {
        let is = run.rows[table] - filled[table];
        run.expect(what, is, count);
    };
    more("messages in the inbox", "inbox", total);
    // A message that is given up is told by its dead letter alone.
    let (entries, given_up) = match (setup.end, setup.history) {
        (End::DeadLetter, _) => (0, total),
        (End::Handled, History::Kept) => (total, 0),
        (End::Handled, History::NotKept) => (0, 0),
    };
    more("history entries", "history", entries);
    more("dead letters", "dead_letters", given_up);
    run.expect("returned messages", i64::try_from(source.returned())?, 0);
    Ok((place, source, run))
}

async fn feed(setup: &Setup<'_>, place: &Place, source: &Source, program: &Program) -> Result<Run> {
    let late = || format!("messages were not acked within {PATIENCE:?}");
    source
        .feed(setup.warm_up, PATIENCE)
        .await
        .with_context(late)?;
    let groups = program.groups();
    let window = Window::open(place).await?;
    let took = source.feed(setup.messages, PATIENCE).await;
    let took = took.with_context(late)?;
    let groups = program.groups().zip(groups);
    let mut run = window.close(place, setup.messages, Some(took)).await?;
    if let Some((after, before)) = groups {
        let size = setup.messages as f64 / (after - before) as f64;
        run.notes.insert("messages per group", size);
    }
    Ok(run)
}

/// Waits until only so many rows are left in the outbox.
pub(crate) async fn drained(place: &Place, left: i64) -> Result<()> {
    let opened = place.open().await?;
    let deadline = Instant::now() + Duration::from_secs(10);
    while Instant::now() < deadline {
        let counts = opened.admin.counts().await?;
        if i64::try_from(counts.outbox)? <= left {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(())
}
