//! H5: what many instances cost. The work of H2 on accounts drawn evenly, of which there are a
//! million or a thousand, with data of 256 bytes or 4 KiB, and 4 KiB that nothing compresses well.
//! Ours is divided by ours; what the program by hand makes of the same rows stands beside it.

use std::sync::Arc;

use anyhow::Result;
use futures_util::future::{BoxFuture, FutureExt};
use sagabus_core::History;
use sagabus_saga::MachineEndpoint;

use super::h2::LANES;
use super::h3::versions;
use super::run::{End, Program, Setup, WARM_UP, Who, over_source};
use crate::bare;
use crate::filling::{self, More};
use crate::measure::{Count, Figure, Plan, RATE, Sameness, Subject, compare};
use crate::ratio::Must;
use crate::row::{Bench, Found, Run};
use crate::services::{Backend, Filling, Place};
use crate::workload::{accounts, message_for, scatter};

/// The engine's own default for an endpoint.
const WINDOW: usize = 256;
/// Few instances.
const FEW: u64 = 1_000;
/// The least part of the speed that few instances have.
const MUST: Option<Must> = Some(Must::AtLeast(0.80));
/// What the program by hand makes of the same rows: a database that pays for many shows it there.
const BY_HAND: &[Figure] = &[("by hand", Run::rate)];

/// Data of about 256 bytes.
pub(crate) fn small(bench: &Bench, backend: Backend) -> BoxFuture<'_, Result<Found>> {
    let many = bench.profile.grown;
    row(
        bench,
        backend,
        many,
        ["accounts_256", "few_256"],
        More::Nothing,
        MUST,
    )
    .boxed()
}

/// Data of about 4 KiB, which a database may compress.
pub(crate) fn large(bench: &Bench, backend: Backend) -> BoxFuture<'_, Result<Found>> {
    let many = bench.profile.grown_large();
    row(
        bench,
        backend,
        many,
        ["accounts_4k", "few_4k"],
        More::Lines(37),
        MUST,
    )
    .boxed()
}

/// Data of about 4 KiB of digits by chance.
pub(crate) fn dense(bench: &Bench, backend: Backend) -> BoxFuture<'_, Result<Found>> {
    let many = bench.profile.grown_large();
    let names = ["accounts_4k_dense", "few_4k_dense"];
    row(bench, backend, many, names, More::Digits(120), None).boxed()
}

async fn row(
    bench: &Bench,
    backend: Backend,
    many: u64,
    [grown, few]: [&'static str; 2],
    more: More,
    must: Option<Must>,
) -> Result<Found> {
    let grown = with_setup(filling::so_many_accounts(grown, many, more));
    let few = with_setup(filling::so_many_accounts(few, FEW, more));
    let (grown, few) = (&grown, &few);
    let count = Count::Pilot {
        pilot: 2_000,
        multiple: 2,
    };
    let mut found = compare(Plan {
        profile: bench.profile,
        subjects: [
            Subject::new("many", move |n| run(bench, backend, grown, many, n).boxed()),
            Subject::new("1k", move |n| run(bench, backend, few, FEW, n).boxed()),
        ],
        count,
        figures: RATE,
        must,
        sameness: Sameness::None,
    })
    .await?;
    if bench.profile.alone.is_some() {
        return Ok(found);
    }
    let by_hand = compare(Plan {
        profile: bench.profile,
        subjects: [
            Subject::new("bare many", move |n| {
                run_by(Who::Bare, bench, backend, grown, many, n).boxed()
            }),
            Subject::new("bare 1k", move |n| {
                run_by(Who::Bare, bench, backend, few, FEW, n).boxed()
            }),
        ],
        count,
        figures: BY_HAND,
        must: None,
        sameness: Sameness::None,
    })
    .await?;
    found.runs.extend(by_hand.runs);
    found.ratios.extend(by_hand.ratios);
    found.faults.extend(by_hand.faults);
    Ok(found)
}

/// Adds what the program by hand needs.
fn with_setup(filling: Filling) -> Filling {
    let postgres = filling.postgres + bare::postgres::SETUP;
    Filling {
        postgres,
        ..filling
    }
}

pub(super) async fn run(
    bench: &Bench,
    backend: Backend,
    filling: &Filling,
    existing: u64,
    messages: u64,
) -> Result<Run> {
    run_by(Who::Ours, bench, backend, filling, existing, messages).await
}

async fn run_by(
    who: Who,
    bench: &Bench,
    backend: Backend,
    filling: &Filling,
    existing: u64,
    messages: u64,
) -> Result<Run> {
    let setup = Setup {
        bench,
        backend,
        filling,
        window: WINDOW,
        make: Arc::new(move |n| message_for(n, scatter(n) % existing)),
        warm_up: WARM_UP,
        messages,
        left_per_message: 0.0,
        history: History::Kept,
        end: End::Handled,
    };
    let start = |place: Place, source| async move {
        match (who, backend) {
            (Who::Ours, _) => Program::ours(&place, &source, |e| e.machine(accounts())).await,
            (Who::Bare, Backend::Postgres) => {
                Ok(Program::bare(bare::postgres::grouped(place, source, LANES)))
            }
            (Who::Bare, Backend::Sqlite) => Ok(Program::bare(bare::sqlite::grouped(place, source))),
        }
    };
    let (place, source, mut run) = over_source(setup, start).await?;
    let total = i64::try_from(WARM_UP + messages)?;
    let existed = i64::try_from(existing)?;
    let moves = place.number(versions(&place)).await? - existed;
    run.expect("moves of accounts", moves, total);
    run.expect("accounts", run.rows["running"], existed);
    let published = i64::try_from(source.published())?;
    run.expect("published messages", published, total * 3 / 2);
    run.notes.insert("instances", existing as f64);
    bench.services.remove(place).await?;
    Ok(run)
}
