//! R4 and R5: how fast rows go to quorum queues while others wait, however many these are and
//! whatever is wrong beside them. A backlog is kept up for a fixed time, on both sides of a ratio: what
//! is sent is written anew, so that no side ends early and both pay the same for it.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use futures_util::future::{BoxFuture, FutureExt};
use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, Connection};

use super::relay::{LOOK, Program, To, WARM_UP};
use crate::brokers::Broker;
use crate::brokers::target::Target;
use crate::filling;
use crate::measure::{Count, Plan, RATE, Sameness, Subject, Window, compare};
use crate::ratio::Must;
use crate::row::{Bench, Found, Run};
use crate::services::{Backend, Filling, Place};
use crate::workload::NOTE;

/// Few rows that wait.
const FEW: u64 = 1_000;
/// Rows that the relay has in hand at most: they wait for the broker alone.
const IN_HAND: u64 = 1_000;
/// Rows that are written together: a window of the relay's.
const HELPING: u64 = 500;
/// Destinations that take everything, beside one that takes nothing.
const LIVE: usize = 50;
/// The part of the looks at which rows may have run short: then it is their writer that is measured.
const SHORT_MAX: f64 = 0.05;

const OLD_ROWS: &str = "select count(*) from old_transaction";
const DEAD_ROWS: &str = "select n_dead_tup from pg_stat_user_tables \
    where schemaname = 'sagabus' and relname = 'outbox'";

/// What waits, and what is wrong.
#[derive(Clone, Copy, Debug)]
struct Case {
    to: To,
    /// Rows that wait and can be sent, beside those in hand.
    waiting: u64,
    beside: Beside,
}

/// What is wrong while the relay runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Beside {
    Nothing,
    /// Somebody wrote a row and does not end the transaction, and nobody vacuums the outbox.
    OldTransaction,
    /// So many rows, older than all others, wait for a destination that refuses them.
    DeadDestination(u64),
}

/// Beside very many rows that wait, and beside few.
pub(crate) fn growth(bench: &Bench, _: Backend) -> BoxFuture<'_, Result<Found>> {
    let case = |waiting| Case {
        waiting,
        ..Case::few()
    };
    let many = ("many", case(bench.profile.long_backlog));
    ratio(bench, [many, ("1k", Case::few())], 0.70).boxed()
}

/// While an old transaction keeps deleted rows where they are.
pub(crate) fn held(bench: &Bench, _: Backend) -> BoxFuture<'_, Result<Found>> {
    let held = Case {
        beside: Beside::OldTransaction,
        ..Case::few()
    };
    ratio(bench, [("held", held), ("healthy", Case::few())], 0.85).boxed()
}

/// To fifty destinations, beside one that refuses everything.
pub(crate) fn dead(bench: &Bench, _: Backend) -> BoxFuture<'_, Result<Found>> {
    let alive = Case {
        to: To::Many(LIVE),
        waiting: bench.profile.backlog,
        beside: Beside::Nothing,
    };
    let dead = Case {
        beside: Beside::DeadDestination(bench.profile.grown_large()),
        ..alive
    };
    ratio(bench, [("one dead", dead), ("none", alive)], 0.90).boxed()
}

async fn ratio(bench: &Bench, cases: [(&'static str, Case); 2], must: f64) -> Result<Found> {
    let subject = |(name, case): (_, Case)| Subject::new(name, move |_| run(bench, case).boxed());
    compare(Plan {
        profile: bench.profile,
        subjects: cases.map(subject),
        // A time is given, not a number.
        count: Count::Fixed(0),
        figures: RATE,
        must: Some(Must::AtLeast(must)),
        sameness: Sameness::None,
    })
    .await
}

/// Measures how fast rows go at most when few wait and nothing is wrong.
pub(super) async fn peak(bench: &Bench) -> Result<Run> {
    run(bench, Case::few()).await
}

impl Case {
    fn few() -> Self {
        Self {
            to: To::Plain,
            waiting: FEW,
            beside: Beside::Nothing,
        }
    }

    /// Rows that can be sent, at the start.
    fn filled(&self) -> u64 {
        self.waiting + IN_HAND + WARM_UP
    }

    fn filling(&self, live: &[String], dead: &[String]) -> Filling {
        let refused = match self.beside {
            Beside::DeadDestination(count) => count,
            Beside::Nothing | Beside::OldTransaction => 0,
        };
        let (filled, each) = (self.filled(), live.len());
        let of = |addresses, count: u64| filling::outgoing(addresses, &count.to_string(), NOTE);
        // What refuses is the oldest.
        let parts = [(dead, refused), (live, filled)];
        let parts = parts.into_iter().filter(|(_, count)| *count > 0);
        let parts: Vec<_> = parts.map(|(to, count)| of(to, count)).collect();
        Filling {
            name: format!("backlog_{filled}_{each}_{refused}").into(),
            postgres: parts.join("; "),
            sqlite: String::new(),
        }
    }
}

async fn run(bench: &Bench, case: Case) -> Result<Run> {
    let mut target = Target::open(bench, Broker::RabbitMq).await?;
    let live = case.to.open(&mut target).await?;
    let dead = match case.beside {
        Beside::DeadDestination(_) => vec![target.refusing().await?],
        Beside::Nothing | Beside::OldTransaction => Vec::new(),
    };
    let filling = case.filling(&live, &dead);
    let place = bench.services.place(Backend::Postgres, &filling).await?;
    let filled = place.number("select count(*) from sagabus.outbox").await?;
    let held = match case.beside {
        Beside::OldTransaction => Some(old_transaction(&place).await?),
        Beside::Nothing | Beside::DeadDestination(_) => None,
    };
    let mut supply = Supply::open(&place, &live, case.waiting).await?;
    let program = Program::ours(&place, target.host("bench")).await?;
    program.until(WARM_UP).await?;

    let window = Window::open_with(&place, bench, Broker::RabbitMq).await?;
    let begun = program.published();
    supply.keep_up(&program, bench.profile.stretch()).await?;
    let sent = program.published() - begun;
    let mut run = window.close(&place, sent, None).await?;

    if let Some(mut held) = held {
        // Its row is seen by itself alone: it was open all the time.
        let own = sqlx::query_scalar(OLD_ROWS).fetch_one(&mut held).await?;
        run.expect("rows of the old transaction", own, 1);
        run.expect(
            "rows that others see of it",
            place.number(OLD_ROWS).await?,
            0,
        );
        held.close().await?;
    }
    let refused = program.stop(&mut run).await?;
    match case.beside {
        Beside::DeadDestination(_) if refused == 0 => {
            let fault = "the dead destination refused nothing";
            run.faults.push(fault.to_owned());
        }
        Beside::DeadDestination(_) => {
            run.notes.insert("refused", refused as f64);
            let taken = target.taken_when_full().await?;
            run.expect("messages that the full queue took", taken, 0);
        }
        Beside::Nothing | Beside::OldTransaction => {
            run.expect("messages that were not taken", refused, 0);
        }
    }
    let dead_rows = place.number(DEAD_ROWS).await?;
    run.notes.insert("dead rows", dead_rows as f64);
    let total = filled + i64::try_from(supply.written)?;
    supply.looks.judge(&mut run);
    check(&place, &target, total, &mut run).await?;
    target.close().await?;
    bench.services.remove(place).await?;
    Ok(run)
}

/// Checks that every row is on the broker, once, or still there.
async fn check(place: &Place, target: &Target, total: i64, run: &mut Run) -> Result<()> {
    run.rows = place.counts().await?;
    let left = run.rows["outbox"] + run.rows["parked"];
    let gone = u64::try_from(total - left)?;
    let arrived = target.take_all(gone).await?;
    arrived.check(run, gone)
}

/// Begins a transaction that writes, and leaves it open; switches the outbox's vacuum off.
async fn old_transaction(place: &Place) -> Result<PgConnection> {
    place
        .run(
            "alter table sagabus.outbox set (autovacuum_enabled = off); \
             create table old_transaction (n int)",
        )
        .await?;
    let mut connection = place.postgres().await?;
    sqlx::raw_sql("begin; insert into old_transaction values (1)")
        .execute(&mut connection)
        .await?;
    Ok(connection)
}

/// Whoever writes what the relay sends.
struct Supply {
    connection: PgConnection,
    insert: String,
    /// Rows that wait beside those in hand.
    waiting: u64,
    written: u64,
    looks: Looks,
}

impl Supply {
    async fn open(place: &Place, addresses: &[String], waiting: u64) -> Result<Self> {
        let mut connection = place.postgres().await?;
        // A slow disk must not let rows run short: it is the relay that is measured.
        sqlx::query("set synchronous_commit = off")
            .execute(&mut connection)
            .await?;
        Ok(Self {
            connection,
            insert: filling::outgoing(addresses, &HELPING.to_string(), NOTE),
            waiting,
            written: 0,
            looks: Looks::default(),
        })
    }

    /// Writes as many rows as are sent, for so long.
    async fn keep_up(&mut self, program: &Program, time: Duration) -> Result<()> {
        let started = Instant::now();
        let mut was_full = false;
        while started.elapsed() < time {
            // What was sent to warm up was there beyond what waits.
            let sent = program.published();
            let missing = sent.saturating_sub(WARM_UP + self.written);
            was_full |= missing < HELPING;
            if was_full {
                self.looks.note(missing >= self.waiting);
            }
            if missing < HELPING {
                tokio::time::sleep(LOOK).await;
                continue;
            }
            let insert = AssertSqlSafe(self.insert.clone());
            let done = sqlx::query(insert).execute(&mut self.connection).await?;
            ensure!(done.rows_affected() == HELPING, "rows were not written");
            self.written += HELPING;
        }
        Ok(())
    }
}

/// How often it was looked whether rows wait.
#[derive(Clone, Copy, Debug, Default)]
struct Looks {
    count: u64,
    /// At so many the relay may have had every row in hand.
    short: u64,
}

impl Looks {
    fn note(&mut self, is_short: bool) {
        self.count += 1;
        self.short += u64::from(is_short);
    }

    /// Says in how many of a hundred looks rows ran short, and notes a fault where these are too many:
    /// the writer was the limit, or was never ahead.
    fn judge(self, run: &mut Run) {
        let Self { count, short } = self;
        let part = short as f64 / count.max(1) as f64;
        run.notes.insert("short of rows, %", part * 100.0);
        if count == 0 || part > SHORT_MAX {
            let fault = format!("rows ran short at {short} of {count} looks");
            run.faults.push(fault);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_that_run_short_too_often_are_no_figure() {
        let judged = |count, short| {
            let mut run = Run::default();
            Looks { count, short }.judge(&mut run);
            run.faults
        };
        assert!(judged(100, 5).is_empty());
        assert_eq!(judged(100, 6), ["rows ran short at 6 of 100 looks"]);
        assert_eq!(judged(0, 0), ["rows ran short at 0 of 0 looks"]);
    }

    #[test]
    fn what_is_refused_was_written_before_what_is_sent() {
        let case = Case {
            beside: Beside::DeadDestination(7_000),
            ..Case::few()
        };
        let (live, dead) = (["live".to_owned()], ["dead".to_owned()]);
        let sql = case.filling(&live, &dead).postgres;
        let at = |text: &str| sql.find(text).unwrap();
        assert!(at("{dead}") < at("(7000)") && at("(7000)") < at("{live}"));
        assert!(at("{live}") < at("(3000)"), "{sql}");
        let alone = Case::few().filling(&live, &[]).postgres;
        assert_eq!(alone.matches("insert into").count(), 1);
    }

    #[test]
    fn two_backlogs_share_a_template_only_where_they_are_alike() {
        let name = |case: Case| case.filling(&["live".to_owned()], &[]).name;
        let held = Case {
            beside: Beside::OldTransaction,
            ..Case::few()
        };
        let longer = Case {
            waiting: FEW + 1,
            ..Case::few()
        };
        let dead = Case {
            beside: Beside::DeadDestination(1),
            ..Case::few()
        };
        assert_eq!(name(held), name(Case::few()));
        assert_ne!(name(longer), name(Case::few()));
        assert_ne!(name(dead), name(Case::few()));
    }
}
