//! H1 and H1': messages that share no transaction. With a statement of the user's own, as most
//! handlers have; and without, one message in hand or eight.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use futures_util::future::{BoxFuture, FutureExt};
use sagabus_core::{Ctx, EndpointBuilder, HandlerError, History};
use sagabus_outbox::{Postgres, Sqlite, Tx};

use super::run::{End, Program, Setup, over_source};
use crate::bare::{postgres_single, sqlite_single};
use crate::filling;
use crate::measure::{Count, Plan, RATE, Sameness, Subject, compare};
use crate::ratio::Must;
use crate::row::{Bench, Found, Run};
use crate::services::{Backend, Place};
use crate::source::Source;
use crate::workload::{Charge, NOTE, SendStatement, nth_charge};

/// Messages in hand; transactions at once where the handler has one of its own.
const MANY: usize = 8;
/// Messages that the source hands out at once where each handler has its own transaction: what a
/// broker prefetches for an endpoint with the capacity of the defaults.
const PREFETCHED: usize = 256;
/// Messages before the measured ones.
const WARM_UP: u64 = 200;
/// When the message that each one sends is due: after the run.
const LATER: Duration = Duration::from_secs(3600);

/// A handler with one statement of its own, in eight transactions at once.
pub(crate) fn with_user_sql(bench: &Bench, backend: Backend) -> BoxFuture<'_, Result<Found>> {
    let must = (backend == Backend::Postgres).then_some(Must::AtLeast(1.0));
    row(bench, backend, Work::UserSql, MANY, must).boxed()
}

/// A handler without SQL, one message after the other: each commit is a group of one.
pub(crate) fn one_in_hand(bench: &Bench, backend: Backend) -> BoxFuture<'_, Result<Found>> {
    row(bench, backend, Work::NoSql, 1, None).boxed()
}

/// A handler without SQL, eight messages at once: commits are as large as they come.
pub(crate) fn eight_in_hand(bench: &Bench, backend: Backend) -> BoxFuture<'_, Result<Found>> {
    row(bench, backend, Work::NoSql, MANY, None).boxed()
}

/// The same handler without history, beside with it: what history costs.
pub(crate) fn without_history(bench: &Bench, backend: Backend) -> BoxFuture<'_, Result<Found>> {
    let run = move |history| move |n| ours(bench, backend, Work::UserSql, MANY, n, history).boxed();
    let subjects = [
        Subject::new("without", run(History::NotKept)),
        Subject::new("with history", run(History::Kept)),
    ];
    beside(bench, subjects, None, Sameness::None).boxed()
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Work {
    UserSql,
    NoSql,
}

async fn row(
    bench: &Bench,
    backend: Backend,
    work: Work,
    in_hand: usize,
    must: Option<Must>,
) -> Result<Found> {
    let ours = move |n| ours(bench, backend, work, in_hand, n, History::Kept).boxed();
    let bare = move |n| bare(bench, backend, work, in_hand, n).boxed();
    let sameness = match backend {
        Backend::Postgres => Sameness::RowsAndBytes,
        Backend::Sqlite => Sameness::Rows,
    };
    let subjects = [Subject::new("ours", ours), Subject::new("bare", bare)];
    beside(bench, subjects, must, sameness).await
}

async fn beside(
    bench: &Bench,
    subjects: [Subject<'_>; 2],
    must: Option<Must>,
    sameness: Sameness,
) -> Result<Found> {
    compare(Plan {
        profile: bench.profile,
        subjects,
        must,
        sameness,
        count: Count::Pilot {
            pilot: 200,
            multiple: 10,
        },
        figures: RATE,
    })
    .await
}

async fn ours(
    bench: &Bench,
    backend: Backend,
    work: Work,
    in_hand: usize,
    messages: u64,
    history: History,
) -> Result<Run> {
    let endpoint = move |e: EndpointBuilder| match (work, backend) {
        (Work::NoSql, _) => e.history(history).capacity(in_hand).handle(note),
        (Work::UserSql, Backend::Postgres) => e.history(history).handle(pay_postgres),
        (Work::UserSql, Backend::Sqlite) => e.history(history).handle(pay_sqlite),
    };
    let start =
        |place: Place, source| async move { Program::ours(&place, &source, endpoint).await };
    let hand = (in_hand, history);
    one(bench, backend, work, hand, messages, start).await
}

async fn bare(
    bench: &Bench,
    backend: Backend,
    work: Work,
    in_hand: usize,
    messages: u64,
) -> Result<Run> {
    let start = |place: Place, source: Arc<Source>| async move {
        Ok(match (work, backend) {
            (Work::UserSql, Backend::Postgres) => {
                Program::bare(postgres_single::one_by_one(place, source, in_hand))
            }
            (Work::UserSql, Backend::Sqlite) => {
                Program::bare(sqlite_single::one_by_one(place, source, in_hand))
            }
            (Work::NoSql, Backend::Postgres) => {
                Program::bare(postgres_single::two_calls(place, source, in_hand))
            }
            (Work::NoSql, Backend::Sqlite) => {
                Program::bare(sqlite_single::two_calls(place, source, in_hand))
            }
        })
    };
    let hand = (in_hand, History::Kept);
    one(bench, backend, work, hand, messages, start).await
}

async fn one<S>(
    bench: &Bench,
    backend: Backend,
    work: Work,
    (in_hand, history): (usize, History),
    messages: u64,
    start: impl FnOnce(Place, Arc<Source>) -> S,
) -> Result<Run>
where
    S: Future<Output = Result<Program>>,
{
    let filling = filling::payments();
    let setup = Setup {
        bench,
        backend,
        filling: &filling,
        window: match work {
            Work::UserSql => PREFETCHED,
            Work::NoSql => in_hand,
        },
        make: Arc::new(nth_charge),
        warm_up: WARM_UP,
        messages,
        left_per_message: 1.0,
        history,
        end: End::Handled,
    };
    let (place, _, mut run) = over_source(setup, start).await?;
    let written = place.number("select count(*) from payment").await?;
    let wanted = match work {
        Work::UserSql => i64::try_from(WARM_UP + messages)?,
        Work::NoSql => 0,
    };
    run.expect("rows of the user's own", written, wanted);
    bench.services.remove(place).await?;
    Ok(run)
}

async fn note(message: Charge, cx: Ctx) -> Result<(), HandlerError> {
    cx.schedule(LATER, statement(&message)).map(drop)
}

async fn pay_postgres(message: Charge, cx: Ctx, mut tx: Tx<Postgres>) -> Result<(), HandlerError> {
    sqlx::query("insert into payment (message_id, account, cents) values ($1, $2, $3)")
        .bind(cx.message_id().as_uuid())
        .bind(&message.account)
        .bind(message.cents)
        .execute(tx.conn().await?)
        .await?;
    cx.schedule(LATER, statement(&message)).map(drop)
}

async fn pay_sqlite(message: Charge, cx: Ctx, mut tx: Tx<Sqlite>) -> Result<(), HandlerError> {
    sqlx::query("insert into payment (message_id, account, cents) values (?, ?, ?)")
        .bind(cx.message_id().as_uuid())
        .bind(&message.account)
        .bind(message.cents)
        .execute(tx.conn().await?)
        .await?;
    cx.schedule(LATER, statement(&message)).map(drop)
}

fn statement(message: &Charge) -> SendStatement {
    SendStatement {
        account: message.account.clone(),
        cents: message.cents,
        note: NOTE.into(),
    }
}
