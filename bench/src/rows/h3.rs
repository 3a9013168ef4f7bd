//! H3: the work of H2 on few instances. One that gets every message, ten, and one in which the first
//! of many get most (the n-th a part of 1/n). The program by hand takes an account once per
//! transaction, as most do; ours merges what waits for one.

use std::sync::Arc;

use anyhow::Result;
use futures_util::future::{BoxFuture, FutureExt};
use sagabus_core::History;
use sagabus_saga::MachineEndpoint;

use super::h2::LANES;
use super::run::{End, Program, Setup, WARM_UP, over_source};
use crate::bare;
use crate::filling;
use crate::measure::{Count, Plan, RATE, Sameness, Subject, compare};
use crate::row::{Bench, Found, Run};
use crate::services::{Backend, Place};
use crate::source::Raw;
use crate::workload::{ACCOUNTS, accounts, message_for, scatter};

/// The engine's own default for an endpoint.
const WINDOW: usize = 256;
/// Messages of a pilot run of a program that commits each by itself.
const PILOT: u64 = 500;
/// Half of the messages send two.
const PATTERN: u64 = 2;

/// All messages for one account.
pub(crate) fn one(bench: &Bench, backend: Backend) -> BoxFuture<'_, Result<Found>> {
    row(bench, backend, |n| message_for(n, 0)).boxed()
}

/// All messages for ten accounts.
pub(crate) fn ten(bench: &Bench, backend: Backend) -> BoxFuture<'_, Result<Found>> {
    row(bench, backend, |n| message_for(n, scatter(n) % 10)).boxed()
}

/// The n-th account gets a part of 1/n.
pub(crate) fn zipf(bench: &Bench, backend: Backend) -> BoxFuture<'_, Result<Found>> {
    row(bench, backend, |n| message_for(n, zipfian(n))).boxed()
}

/// Draws an account: as many of the first ten as of the next hundred, and so on.
fn zipfian(n: u64) -> u64 {
    let part = (scatter(n) >> 11) as f64 / (1u64 << 53) as f64;
    let drawn = (ACCOUNTS as f64).powf(part) as u64;
    drawn.clamp(1, ACCOUNTS) - 1
}

async fn row(bench: &Bench, backend: Backend, make: fn(u64) -> Raw) -> Result<Found> {
    compare(Plan {
        profile: bench.profile,
        subjects: [
            Subject::new("ours", move |n| run(bench, backend, make, n, true).boxed()),
            Subject::new("bare", move |n| run(bench, backend, make, n, false).boxed()),
        ],
        count: Count::Pilot {
            pilot: PILOT,
            multiple: PATTERN,
        },
        figures: RATE,
        must: None,
        sameness: Sameness::Rows,
    })
    .await
}

async fn run(
    bench: &Bench,
    backend: Backend,
    make: fn(u64) -> Raw,
    messages: u64,
    is_ours: bool,
) -> Result<Run> {
    let setup = Setup {
        bench,
        backend,
        filling: &filling::accounts(),
        window: WINDOW,
        make: Arc::new(make),
        warm_up: WARM_UP,
        messages,
        left_per_message: 0.0,
        history: History::Kept,
        end: End::Handled,
    };
    let start = |place: Place, source| async move {
        match (is_ours, backend) {
            (true, _) => Program::ours(&place, &source, |e| e.machine(accounts())).await,
            (false, Backend::Postgres) => {
                Ok(Program::bare(bare::postgres::grouped(place, source, LANES)))
            }
            (false, Backend::Sqlite) => Ok(Program::bare(bare::sqlite::grouped(place, source))),
        }
    };
    let (place, source, mut run) = over_source(setup, start).await?;
    let total = i64::try_from(WARM_UP + messages)?;
    let existed = i64::try_from(ACCOUNTS)?;
    let moves = place.number(versions(&place)).await? - existed;
    run.expect("moves of accounts", moves, total);
    run.expect("accounts", run.rows["running"], existed);
    let published = i64::try_from(source.published())?;
    run.expect("published messages", published, total * 3 / 2);
    bench.services.remove(place).await?;
    Ok(run)
}

/// Sums the versions of all instances.
pub(super) fn versions(place: &Place) -> &'static str {
    match place {
        Place::Postgres { .. } => "select sum(version)::bigint from sagabus.instance",
        Place::Sqlite { .. } => "select sum(version) from sagabus_instance",
    }
}
