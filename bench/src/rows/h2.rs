//! H2: the whole work of a state machine, in groups. Inbox, instance, history and one and a half
//! messages out per message in, against a program that groups by hand.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use futures_util::future::{BoxFuture, FutureExt};
use sagabus_core::{EndpointBuilder, History, Host, RunningHost};
use sagabus_saga::MachineEndpoint;

use super::run::{End, Program, Setup, WARM_UP, Who, drained, over_source};
use crate::bare;
use crate::filling;
use crate::measure::{Count, PATIENCE, Plan, RATE, Sameness, Subject, Window, compare};
use crate::ratio::Must;
use crate::row::{Bench, Found, Run};
use crate::services::{Backend, Filling, Place};
use crate::workload::{
    ACCOUNTS, BalanceChanged, ENDPOINT, SINK, SendStatement, accounts, nth_message,
};

/// Messages on the way: the engine's own default for an endpoint, two and a half groups.
const WINDOW: usize = 256;
/// Connections of the program that groups by hand, where that made it faster.
pub(super) const LANES: usize = 2;
/// The least part of the hand-written program's speed.
const MUST: f64 = 0.50;
/// Messages of a pilot run: a few groups.
const PILOT: u64 = 2_000;
/// One account in ten is new, and one message in two sends two.
const PATTERN: u64 = 20;

/// From a broker to a broker.
pub(crate) fn from_broker(bench: &Bench, backend: Backend) -> BoxFuture<'_, Result<Found>> {
    async move {
        let filling = filling::accounts();
        let filling = &filling;
        let kept = History::Kept;
        let run = move |who, n| broker_run(bench, backend, filling, n, who, kept).boxed();
        compare(Plan {
            profile: bench.profile,
            subjects: Who::both(run),
            must: Some(Must::AtLeast(MUST)),
            sameness: sameness(backend),
            count: Count::Pilot {
                pilot: PILOT,
                multiple: PATTERN,
            },
            figures: RATE,
        })
        .await
    }
    .boxed()
}

/// Without history, beside the same with it: what history costs.
pub(crate) fn without_history(bench: &Bench, backend: Backend) -> BoxFuture<'_, Result<Found>> {
    async move {
        let filling = filling::accounts();
        let filling = &filling;
        let run = move |history| {
            move |n| broker_run(bench, backend, filling, n, Who::Ours, history).boxed()
        };
        compare(Plan {
            profile: bench.profile,
            subjects: [
                Subject::new("without", run(History::NotKept)),
                Subject::new("with history", run(History::Kept)),
            ],
            must: None,
            sameness: Sameness::None,
            count: Count::Pilot {
                pilot: PILOT,
                multiple: PATTERN,
            },
            figures: RATE,
        })
        .await
    }
    .boxed()
}

/// SQLite writes whole pages: how many depends on the size of groups, which is what is compared.
pub(super) fn sameness(backend: Backend) -> Sameness {
    match backend {
        Backend::Postgres => Sameness::RowsAndBytes,
        Backend::Sqlite => Sameness::Rows,
    }
}

async fn broker_run(
    bench: &Bench,
    backend: Backend,
    filling: &Filling,
    messages: u64,
    who: Who,
    history: History,
) -> Result<Run> {
    let setup = Setup {
        bench,
        backend,
        filling,
        window: WINDOW,
        make: Arc::new(nth_message),
        warm_up: WARM_UP,
        messages,
        left_per_message: 0.0,
        history,
        end: End::Handled,
    };
    let start = |place: Place, source| async move {
        match (who, backend) {
            (Who::Ours, _) => {
                let endpoint = |e: EndpointBuilder| e.history(history).machine(accounts());
                Program::ours(&place, &source, endpoint).await
            }
            (Who::Bare, Backend::Postgres) => {
                Ok(Program::bare(bare::postgres::grouped(place, source, LANES)))
            }
            (Who::Bare, Backend::Sqlite) => Ok(Program::bare(bare::sqlite::grouped(place, source))),
        }
    };
    let (place, source, mut run) = over_source(setup, start).await?;
    let total = WARM_UP + messages;
    match history {
        History::Kept => check_accounts(&place, total, &mut run).await?,
        History::NotKept => check_moves(&place, total, &mut run).await?,
    }
    let published = i64::try_from(source.published())?;
    run.expect(
        "published messages",
        published,
        i64::try_from(total * 3 / 2)?,
    );
    bench.services.remove(place).await?;
    Ok(run)
}

/// Checks that every message moved its account once, as history says, too.
pub(crate) async fn check_accounts(place: &Place, total: u64, run: &mut Run) -> Result<()> {
    let distinct = match place {
        Place::Postgres { .. } => "select count(distinct message_id) from sagabus.history",
        Place::Sqlite { .. } => "select count(distinct message_id) from sagabus_history",
    };
    let told = place.number(distinct).await?;
    run.expect("messages in history", told, i64::try_from(total)?);
    check_moves(place, total, run).await
}

/// Checks that every message moved its account once.
async fn check_moves(place: &Place, total: u64, run: &mut Run) -> Result<()> {
    let versions = match place {
        Place::Postgres { .. } => "select sum(version)::bigint from sagabus.instance",
        Place::Sqlite { .. } => "select sum(version) from sagabus_instance",
    };
    let total = i64::try_from(total)?;
    let existed = i64::try_from(ACCOUNTS)?;
    let moved = place.number(versions).await? - existed;
    run.expect("moves of accounts", moved, total);
    let opened = run.rows["running"] - existed;
    run.expect("opened accounts", opened, total / 10);
    Ok(())
}

/// Over rows of this database, to the endpoint of another process.
pub(crate) fn over_own_rows(bench: &Bench, backend: Backend) -> BoxFuture<'_, Result<Found>> {
    async move {
        let filling = filling::accounts();
        let filling = &filling;
        let run = move |who, n| own_rows_run(bench, backend, filling, n, who).boxed();
        compare(Plan {
            profile: bench.profile,
            subjects: Who::both(run),
            must: Some(Must::AtLeast(MUST)),
            sameness: sameness(backend),
            count: Count::Pilot {
                pilot: PILOT,
                multiple: PATTERN,
            },
            figures: RATE,
        })
        .await
    }
    .boxed()
}

async fn own_rows_run(
    bench: &Bench,
    backend: Backend,
    filling: &Filling,
    messages: u64,
    who: Who,
) -> Result<Run> {
    let place = bench.services.place(backend, filling).await?;
    declare_sink(&place).await?;
    filling::own_rows(&place, ENDPOINT, messages, nth_message).await?;
    let window = Window::open(&place).await?;
    let (mut run, groups) = match who {
        Who::Ours => {
            let host = Host::builder("bench")
                .shared_store(place.open().await?.store)
                .endpoint(ENDPOINT, |e| e.machine(accounts()))
                .build()?
                .start()
                .await?;
            let started = Instant::now();
            let before = host.counters().committed.get();
            let counted = committed(&host, messages).await?;
            let took = started.elapsed();
            let run = window.close(&place, counted - before, Some(took)).await?;
            drained(&place, i64::try_from(messages * 3 / 2)?).await?;
            host.stop(Duration::from_secs(10)).await;
            (run, Some(host.counters().groups.get()))
        }
        Who::Bare => {
            let destination = "@accounts";
            let run = match backend {
                Backend::Postgres => {
                    let mut connection = place.postgres().await?;
                    let own_rows = bare::own::rows(&mut connection, destination);
                    let (handled, took) = own_rows.await?;
                    window.close(&place, handled, Some(took)).await?
                }
                Backend::Sqlite => {
                    let mut connection = place.sqlite().await?;
                    let own_rows = bare::own::rows(&mut connection, destination);
                    let (handled, took) = own_rows.await?;
                    window.close(&place, handled, Some(took)).await?
                }
            };
            (run, None)
        }
    };
    if let Some(groups) = groups {
        let size = messages as f64 / groups as f64;
        run.notes.insert("messages per group", size);
    }
    run.rows = place.counts().await?;
    let total = i64::try_from(messages)?;
    run.expect("rows left in the outbox", run.rows["outbox"], total * 3 / 2);
    run.expect("history entries", run.rows["history"], total);
    check_accounts(&place, messages, &mut run).await?;
    bench.services.remove(place).await?;
    Ok(run)
}

/// Waits until so many units are committed.
pub(super) async fn committed(host: &RunningHost, messages: u64) -> Result<u64> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let counted = host.counters().committed.get();
        if counted >= messages {
            return Ok(counted);
        }
        if Instant::now() > deadline {
            bail!("{counted} of {messages} messages were handled within {PATIENCE:?}");
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// Registers the endpoint of another process, which is told about accounts and does not run now.
pub(super) async fn declare_sink(place: &Place) -> Result<()> {
    let host = Host::builder("sink")
        .shared_store(place.open().await?.store)
        .endpoint(SINK, |e| {
            e.handle(|_: BalanceChanged| async {})
                .handle(|_: SendStatement| async {})
        })
        .build()?;
    host.start().await?.stop(Duration::from_secs(5)).await;
    Ok(())
}
