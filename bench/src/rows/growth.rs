//! Growth: the rate over one thing of which there is more and more. Each row is a curve; its ratio is
//! the last point divided by the first.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use bytes::Bytes;
use futures_util::future::{BoxFuture, FutureExt};
use sagabus_core::{EndpointBuilder, HandlerError, History, Host};
use sagabus_saga::MachineEndpoint;

#[cfg(feature = "brokers")]
use super::relay;
use super::run::{End, Program, Setup, WARM_UP, drained, over_source};
use super::{Measure, h2, h4, h5, serving};
use crate::brokers::Broker;
use crate::filling;
use crate::measure::{Subject, Window, grow};
use crate::row::{Bench, Found, Row, Run};
use crate::services::{Backend, Filling, Place};
use crate::source::Raw;
use crate::workload::{Charge, ENDPOINT, SendStatement, labelled, nth_new_charge, of_size};

/// Rows on the way: the engine's own default for an endpoint.
const WINDOW: usize = 256;
/// Steps of what rows grow by, up to what the profile allows.
const ROWS: [(&str, u64); 4] = [
    ("1k", 1_000),
    ("100k", 100_000),
    ("1M", 1_000_000),
    ("10M", 10_000_000),
];
/// Instances where it is their size that grows.
const ACCOUNTS: u64 = 1_000;
/// Bytes of a body, or of an instance's data.
const BODIES: [(&str, usize); 3] = [("256 B", 256), ("4 KiB", 4 << 10), ("64 KiB", 64 << 10)];

/// Curves: on which databases, over which broker.
const CURVES: &[(&str, &str, Curve, Measure)] = &[
    (
        "G-inbox",
        "messages that the inbox knows",
        Curve::Both,
        inbox,
    ),
    (
        "G-instances",
        "instances of 256 bytes",
        Curve::Both,
        instances,
    ),
    (
        "G-outbox",
        "rows of the outbox that are for later",
        Curve::Both,
        outbox,
    ),
    ("G-history", "entries of history", Curve::Both, history),
    (
        "G-letters",
        "dead letters, where every message becomes one",
        Curve::Both,
        dead_letters,
    ),
    (
        "G-labels",
        "labels, where every message makes one",
        Curve::Both,
        labels,
    ),
    ("G-body", "bytes of a body", Curve::Both, bodies),
    ("G-state", "bytes of an instance", Curve::Both, state),
    #[cfg(feature = "brokers")]
    (
        "G-destinations",
        "exchanges that share eight queues",
        Curve::RabbitMq,
        destinations,
    ),
    (
        "G-hosts",
        "processes on the rows of one database",
        Curve::Postgres,
        hosts,
    ),
];

/// Where a curve is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Curve {
    Both,
    Postgres,
    RabbitMq,
}

/// A run over a filling of so many rows, of so many messages.
type OverRows = for<'a> fn(&'a Bench, Backend, &'a Filling, u64, u64) -> BoxFuture<'a, Result<Run>>;

/// Returns the curves.
pub(crate) fn curves() -> Vec<Row> {
    let mut rows = Vec::new();
    for backend in [Backend::Postgres, Backend::Sqlite] {
        let meant = CURVES
            .iter()
            .filter(|(_, _, curve, _)| *curve == Curve::Both || backend == Backend::Postgres);
        rows.extend(meant.map(|&(name, about, curve, run)| Row {
            name,
            about,
            backend,
            broker: (curve == Curve::RabbitMq).then_some(Broker::RabbitMq),
            peer: None,
            run,
        }));
    }
    rows
}

/// Measures over more and more rows: one filling for each step that the profile allows.
async fn over_rows(
    bench: &Bench,
    backend: Backend,
    name: &str,
    fill: fn(u64) -> Filling,
    run: OverRows,
) -> Result<Found> {
    let allowed = ROWS
        .into_iter()
        .filter(|(_, count)| *count <= bench.profile.grown);
    let filled = allowed.map(|(label, count)| {
        let filling = Filling {
            name: format!("{name}_{count}").into(),
            ..fill(count)
        };
        (label, count, filling)
    });
    let filled: Vec<_> = filled.collect();
    let subjects = filled.iter().map(|(label, count, filling)| {
        Subject::new(label, move |n| run(bench, backend, filling, *count, n))
    });
    grow(bench.profile, 2_000, subjects.collect()).await
}

/// Over an inbox that knows more and more.
pub(crate) fn inbox(bench: &Bench, backend: Backend) -> BoxFuture<'_, Result<Found>> {
    let run: OverRows = |bench, backend, filling, _, n| h4::run(bench, backend, filling, n).boxed();
    over_rows(bench, backend, "inbox", filling::inbox, run).boxed()
}

/// On more and more instances of 256 bytes.
pub(crate) fn instances(bench: &Bench, backend: Backend) -> BoxFuture<'_, Result<Found>> {
    let fill = |count| filling::so_many_accounts("", count, filling::More::Nothing);
    let run: OverRows =
        |bench, backend, filling, count, n| h5::run(bench, backend, filling, count, n).boxed();
    over_rows(bench, backend, "instances", fill, run).boxed()
}

/// On instances with larger and larger data.
pub(crate) fn state(bench: &Bench, backend: Backend) -> BoxFuture<'_, Result<Found>> {
    async move {
        let of =
            |(label, _), (name, more)| (label, filling::so_many_accounts(name, ACCOUNTS, more));
        let sizes = [
            ("state_256", filling::More::Nothing),
            ("state_4k", filling::More::Lines(37)),
            ("state_64k", filling::More::Lines(620)),
        ];
        let filled: Vec<_> = BODIES
            .into_iter()
            .zip(sizes)
            .map(|(a, b)| of(a, b))
            .collect();
        let subjects = filled.iter().map(|(label, filling)| {
            Subject::new(label, move |n| {
                h5::run(bench, backend, filling, ACCOUNTS, n).boxed()
            })
        });
        grow(bench.profile, 1_000, subjects.collect()).await
    }
    .boxed()
}

/// Beside more and more history.
pub(crate) fn history(bench: &Bench, backend: Backend) -> BoxFuture<'_, Result<Found>> {
    let run: OverRows = |bench, backend, filling, _, n| {
        let endpoint = |e: EndpointBuilder| e.handle(|_: Charge| async {});
        plain(bench, backend, filling, n, End::Handled, endpoint).boxed()
    };
    over_rows(bench, backend, "history", filling::history, run).boxed()
}

/// Messages that become dead letters, beside more and more of them.
pub(crate) fn dead_letters(bench: &Bench, backend: Backend) -> BoxFuture<'_, Result<Found>> {
    let run: OverRows = |bench, backend, filling, _, n| {
        let endpoint = |e: EndpointBuilder| e.handle(refuse);
        plain(bench, backend, filling, n, End::DeadLetter, endpoint).boxed()
    };
    over_rows(bench, backend, "letters", filling::dead_letters, run).boxed()
}

async fn refuse(_: Charge) -> Result<(), HandlerError> {
    Err(HandlerError::new("the account is closed").terminal())
}

/// Messages for new instances that get a label each, beside more and more that have one.
pub(crate) fn labels(bench: &Bench, backend: Backend) -> BoxFuture<'_, Result<Found>> {
    let run: OverRows = |bench, backend, filling, _, n| {
        let endpoint = |e: EndpointBuilder| e.machine(labelled());
        plain(bench, backend, filling, n, End::Handled, endpoint).boxed()
    };
    over_rows(bench, backend, "labels", filling::labels, run).boxed()
}

/// A run whose messages come from a broker and send nothing.
async fn plain(
    bench: &Bench,
    backend: Backend,
    filling: &Filling,
    messages: u64,
    end: End,
    endpoint: fn(EndpointBuilder) -> EndpointBuilder,
) -> Result<Run> {
    let setup = Setup {
        bench,
        backend,
        filling,
        window: WINDOW,
        make: Arc::new(nth_new_charge),
        warm_up: WARM_UP,
        messages,
        left_per_message: 0.0,
        history: History::Kept,
        end,
    };
    let start =
        |place: Place, source| async move { Program::ours(&place, &source, endpoint).await };
    let (place, _, run) = over_source(setup, start).await?;
    bench.services.remove(place).await?;
    Ok(run)
}

/// Rows of this database, beside more and more that are for later.
pub(crate) fn outbox(bench: &Bench, backend: Backend) -> BoxFuture<'_, Result<Found>> {
    let run: OverRows =
        |bench, backend, filling, later, n| own_rows(bench, backend, filling, later, n).boxed();
    over_rows(bench, backend, "later", filling::for_later, run).boxed()
}

/// To more and more exchanges that share eight queues.
#[cfg(feature = "brokers")]
pub(crate) fn destinations(bench: &Bench, _: Backend) -> BoxFuture<'_, Result<Found>> {
    async move {
        let broker = Broker::RabbitMq;
        let backlog = relay::backlog(bench, broker);
        let to = |label, to| {
            Subject::new(label, move |_| {
                relay::drain(bench, broker, to, backlog, relay::By::Ours).boxed()
            })
        };
        let subjects = vec![
            to("1", relay::To::Spread),
            to("50", relay::To::Many(50)),
            to("1000", relay::To::Many(1_000)),
        ];
        grow(bench.profile, 0, subjects).await
    }
    .boxed()
}

/// In more and more processes that share the rows of one database.
pub(crate) fn hosts(bench: &Bench, _: Backend) -> BoxFuture<'_, Result<Found>> {
    async move {
        let with =
            |label, count| Subject::new(label, move |n| serving::hosts(bench, count, n).boxed());
        let subjects = vec![with("1", 1), with("2", 2), with("4", 4), with("8", 8)];
        grow(bench.profile, 4_000, subjects).await
    }
    .boxed()
}

/// With larger and larger bodies: a message in, one of the same size out.
pub(crate) fn bodies(bench: &Bench, backend: Backend) -> BoxFuture<'_, Result<Found>> {
    async move {
        let of = |(label, bytes)| {
            let body = of_size(bytes);
            Subject::new(label, move |n| {
                handled(bench, backend, body.clone(), n).boxed()
            })
        };
        grow(bench.profile, 1_000, BODIES.into_iter().map(of).collect()).await
    }
    .boxed()
}

async fn handled(bench: &Bench, backend: Backend, body: Bytes, messages: u64) -> Result<Run> {
    let bytes = body.len() as f64;
    let setup = Setup {
        bench,
        backend,
        filling: &Filling::none(),
        window: WINDOW,
        make: Arc::new(move |n| Raw {
            body: body.clone(),
            ..nth_new_charge(n)
        }),
        warm_up: WARM_UP,
        messages,
        left_per_message: 0.0,
        history: History::Kept,
        end: End::Handled,
    };
    let endpoint = |e: EndpointBuilder| e.handle(tell);
    let start =
        |place: Place, source| async move { Program::ours(&place, &source, endpoint).await };
    let (place, source, mut run) = over_source(setup, start).await?;
    let published = i64::try_from(source.published())?;
    let total = i64::try_from(WARM_UP + messages)?;
    run.expect("published messages", published, total);
    run.notes
        .insert("MB/s of bodies in", run.rate() * bytes / 1e6);
    bench.services.remove(place).await?;
    Ok(run)
}

async fn tell(charge: Charge) -> SendStatement {
    SendStatement {
        account: charge.account,
        cents: charge.cents,
        note: charge.note,
    }
}

async fn own_rows(
    bench: &Bench,
    backend: Backend,
    filling: &Filling,
    later: u64,
    messages: u64,
) -> Result<Run> {
    let place = bench.services.place(backend, filling).await?;
    filling::own_rows(&place, ENDPOINT, messages, nth_new_charge).await?;
    let window = Window::open(&place).await?;
    let host = Host::builder("bench")
        .shared_store(place.open().await?.store)
        .endpoint(ENDPOINT, |e| {
            e.history(History::NotKept).handle(|_: Charge| async {})
        })
        .build()?
        .start()
        .await?;
    let started = Instant::now();
    let before = host.counters().committed.get();
    let counted = h2::committed(&host, messages).await?;
    let took = started.elapsed();
    let mut run = window.close(&place, counted - before, Some(took)).await?;
    let later = i64::try_from(later)?;
    drained(&place, later).await?;
    if !host.stop(Duration::from_secs(10)).await {
        bail!("the host did not stop within 10 s");
    }
    run.rows = place.counts().await?;
    run.expect("rows for later", run.rows["outbox"], later);
    run.expect("dead letters", run.rows["dead_letters"], 0);
    bench.services.remove(place).await?;
    Ok(run)
}
