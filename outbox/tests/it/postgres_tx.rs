//! The doors for user SQL: rows and messages commit together, or neither does.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use sagabus_core::retry::Retry;
use sagabus_core::store::StoreAdmin;
use sagabus_core::{Command, HandlerError, Kind, Message, MessageId, Outgoing};
use sagabus_core::{Host, RunningHost};
use sagabus_outbox::{BusExt, PgConfig, PgStore, Postgres, Tx};
use sagabus_testkit::wait::{eventually, grow_older};
use serde::{Deserialize, Serialize};
use sqlx::{Connection, Executor};

use crate::postgres_support::Database;
use crate::postgres_units::{Dice, cancelled_after};

#[derive(Clone, Serialize, Deserialize)]
struct Pay {
    cents: i64,
    then: Then,
}

/// What the handler does after its insert.
#[derive(Clone, Copy, PartialEq, Serialize, Deserialize)]
enum Then {
    Return,
    Fail,
    Commit,
    RollBackAndBegin,
    CommitAndChain,
    SwallowAnError,
    Nest,
    BreakADeferredRule,
    LoseADeadlockTwice,
}

impl Message for Pay {
    const TYPE: &'static str = "test.pay";
    const KIND: Kind = Kind::Command;
}
impl Command for Pay {}

/// Sent by the handler of [`Pay`], to see that it leaves with the rows only.
#[derive(Serialize, Deserialize)]
struct Receipt {
    cents: i64,
}

impl Message for Receipt {
    const TYPE: &'static str = "test.receipt";
    const KIND: Kind = Kind::Command;
}
impl Command for Receipt {}

async fn pay(pay: Pay, mut tx: Tx<Postgres>) -> Result<Receipt, HandlerError> {
    let connection = tx.conn().await?;
    let insert = "insert into payment values ($1)";
    sqlx::query(insert)
        .bind(pay.cents)
        .execute(&mut *connection)
        .await?;
    match pay.then {
        Then::Return => {}
        Then::Fail => return Err(HandlerError::new("declined").terminal()),
        Then::Commit => connection.execute("commit").await.map(|_| ())?,
        Then::RollBackAndBegin => connection.execute("rollback; begin").await.map(|_| ())?,
        Then::CommitAndChain => connection.execute("commit and chain").await.map(|_| ())?,
        Then::SwallowAnError => {
            let failed = connection.execute("select 1 / 0").await;
            assert!(failed.is_err());
        }
        Then::Nest => {
            let mut dropped = connection.begin().await?;
            sqlx::query(insert)
                .bind(-1_i64)
                .execute(&mut *dropped)
                .await?;
            dropped.rollback().await?;
            let mut kept = connection.begin().await?;
            sqlx::query(insert)
                .bind(pay.cents)
                .execute(&mut *kept)
                .await?;
            kept.commit().await?;
        }
        Then::BreakADeferredRule => connection
            .execute("insert into rule values (1), (1)")
            .await
            .map(|_| ())?,
        // What a sequence counts no rollback takes back.
        Then::LoseADeadlockTwice => connection
            .execute(
                "do $$ begin if nextval('tries') < 3 then \
                 raise exception using errcode = '40P01'; end if; end $$",
            )
            .await
            .map(|_| ())?,
    }
    Ok(Receipt { cents: pay.cents })
}

/// A running host that pays, and counts the receipts.
struct Shop {
    store: PgStore,
    host: RunningHost,
    receipts: Arc<AtomicUsize>,
    database: Database,
}

impl Shop {
    async fn open() -> Option<Self> {
        let (database, _) = Database::migrated().await?;
        let mut config = PgConfig::new(database.url()).unwrap();
        // Few, so that a spoilt connection would be met again at once.
        config.tx_connections_max = 2;
        let store = PgStore::connect_with(config).await.unwrap();
        database
            .run(
                "create table payment (cents bigint); \
                 create table rule (n int unique deferrable initially deferred); \
                 create sequence tries",
            )
            .await;
        let receipts = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&receipts);
        let count = move |_: Receipt| {
            let counted = Arc::clone(&counted);
            async move {
                counted.fetch_add(1, Ordering::SeqCst);
                Ok::<(), HandlerError>(())
            }
        };
        let host = Host::builder("shop")
            .store(store.clone())
            .endpoint("payments", |e| e.handle(pay).retry(Retry::none()))
            .endpoint("receipts", |e| e.handle(count))
            .build()
            .unwrap();
        Some(Self {
            host: host.start().await.unwrap(),
            store,
            receipts,
            database,
        })
    }

    async fn send(&self, then: Then) {
        self.host.bus().send(Pay { cents: 5, then }).await.unwrap();
    }

    async fn payments(&self) -> i64 {
        self.database.number("select count(*) from payment").await
    }

    async fn until_receipts(&self, count: usize) {
        eventually("receipts", || async {
            (self.receipts.load(Ordering::SeqCst) == count).then_some(())
        })
        .await;
    }

    async fn until_dead(&self) -> String {
        let look = || async { self.store.dead_letters(1).await.unwrap().pop() };
        let (dead, _) = eventually("a dead letter", look).await;
        let error = dead.attempts.last().map(|one| one.error.clone());
        format!("{}: {}", dead.reason, error.unwrap_or_default())
    }

    async fn stop(self) {
        assert!(self.host.stop(Duration::from_secs(10)).await);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_handlers_rows_commit_with_what_it_sends() {
    let Some(shop) = Shop::open().await else {
        return;
    };
    for then in [Then::Return, Then::Nest] {
        shop.send(then).await;
    }
    shop.until_receipts(2).await;
    assert_eq!(shop.payments().await, 3);
    let lost = "select count(*) from payment where cents < 0";
    assert_eq!(shop.database.number(lost).await, 0);
    shop.stop().await;
}

/// Nothing of a handler is kept that failed, that swallowed a failed statement, or whose rows the
/// database refuses at the commit.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_handler_that_cannot_commit_leaves_no_rows() {
    for (then, why) in [
        (Then::Fail, "declined"),
        (Then::SwallowAnError, "current transaction is aborted"),
        (Then::BreakADeferredRule, "duplicate key value"),
    ] {
        let Some(shop) = Shop::open().await else {
            return;
        };
        shop.send(then).await;
        let error = shop.until_dead().await;
        assert!(error.contains(why), "{error}");
        assert_eq!(shop.payments().await, 0);
        assert_eq!(shop.receipts.load(Ordering::SeqCst), 0);
        // The connection is sound for the next one.
        shop.send(Then::Return).await;
        shop.until_receipts(1).await;
        assert_eq!(shop.payments().await, 1);
        shop.stop().await;
    }
}

/// A statement of the user's that ends our transaction must not pass for a commit.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_handler_that_ends_the_transaction_itself_is_found_out() {
    for then in [Then::Commit, Then::RollBackAndBegin, Then::CommitAndChain] {
        let Some(shop) = Shop::open().await else {
            return;
        };
        shop.send(then).await;
        let error = shop.until_dead().await;
        assert!(error.contains("ended its transaction"), "{error}");
        assert_eq!(shop.receipts.load(Ordering::SeqCst), 0);
        shop.send(Then::Return).await;
        shop.until_receipts(1).await;
        shop.stop().await;
    }
}

/// Somebody else was faster: that is no failure, of which this handler may have none.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deadlock_in_a_handlers_sql_costs_no_attempt() {
    let Some(shop) = Shop::open().await else {
        return;
    };
    shop.send(Then::LoseADeadlockTwice).await;
    shop.until_receipts(1).await;
    let tries = "select last_value from tries";
    assert_eq!(shop.database.number(tries).await, 3);
    assert_eq!(shop.payments().await, 1);
    assert_eq!(shop.host.counters().failed_attempts.get(), 0);
    shop.stop().await;
}

/// PostgreSQL answers a `COMMIT` of a failed transaction by rolling it back, without an error.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_api_whose_transaction_failed_or_ended_is_not_told_that_it_committed() {
    let Some(shop) = Shop::open().await else {
        return;
    };
    let bus = shop.host.bus();
    for (sql, why, payments) in [
        ("select 1 / 0", "current transaction is aborted", 0),
        ("rollback; begin", "ended its transaction", 0),
        // What the user commits is the user's; no message leaves with it.
        ("commit", "ended its transaction", 1),
    ] {
        let mut tx = shop.store.begin(&bus).await.unwrap();
        let connection = tx.conn().await.unwrap();
        connection
            .execute("insert into payment values (1)")
            .await
            .unwrap();
        // An error here is what the user overlooks.
        let _ = connection.execute(sql).await;
        tx.send(Receipt { cents: 1 }).unwrap();
        let error = tx.commit().await.unwrap_err();
        let text = sagabus_core::error::chain(&error);
        assert!(text.contains(why), "{sql}: {text}");
        assert_eq!(shop.payments().await, payments, "{sql}");
    }
    let mut connection = shop.database.connection().await;
    let mut tx = connection.begin().await.unwrap();
    assert!(tx.execute("select 1 / 0").await.is_err());
    let sent = bus.outbox(&mut tx).send(Receipt { cents: 1 }).await;
    assert!(
        sent.is_err(),
        "a stranger's failed transaction takes nothing"
    );
    drop(tx);
    // A good one leaves, and nothing had left before it.
    let mut tx = shop.store.begin(&bus).await.unwrap();
    tx.send(Receipt { cents: 1 }).unwrap();
    tx.commit().await.unwrap();
    let rows = "select count(*) from sagabus.outbox";
    eventually("an empty outbox", || async {
        (shop.database.number(rows).await == 0).then_some(())
    })
    .await;
    assert_eq!(shop.receipts.load(Ordering::SeqCst), 1);
    shop.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_apis_rows_and_messages_commit_together_or_not_at_all() {
    let Some(shop) = Shop::open().await else {
        return;
    };
    let bus = shop.host.bus();
    for is_kept in [false, true] {
        let mut tx = shop.store.begin(&bus).await.unwrap();
        let connection = tx.conn().await.unwrap();
        connection
            .execute("insert into payment values (1)")
            .await
            .unwrap();
        tx.send(Receipt { cents: 1 }).unwrap();
        match is_kept {
            true => tx.commit().await.unwrap(),
            // Dropped, as a cancelled request would.
            false => drop(tx),
        }
    }
    shop.until_receipts(1).await;
    assert_eq!(shop.payments().await, 1);
    shop.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_of_a_strangers_transaction_leave_when_it_commits() {
    let Some(shop) = Shop::open().await else {
        return;
    };
    let bus = shop.host.bus();
    let mut connection = shop.database.connection().await;
    let id = MessageId::new();
    for is_kept in [false, true, true] {
        let mut tx = connection.begin().await.unwrap();
        tx.execute("insert into payment values (1)").await.unwrap();
        // The last one is sent again under its identity, and changes nothing.
        let receipt = Outgoing::new(&Receipt { cents: 1 }).unwrap().with_id(id);
        bus.outbox(&mut tx).push(receipt).await.unwrap();
        match is_kept {
            true => tx.commit().await.unwrap(),
            false => tx.rollback().await.unwrap(),
        }
    }
    bus.outbox(&mut connection)
        .send(Receipt { cents: 2 })
        .await
        .unwrap();
    shop.until_receipts(2).await;
    assert_eq!(shop.payments().await, 2);
    shop.stop().await;
}

/// Nobody looks for them any more when it commits, and nobody is told: the poll finds them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_of_a_strangers_long_transaction_leave_with_the_poll() {
    let Some(shop) = Shop::open().await else {
        return;
    };
    let mut connection = shop.database.connection().await;
    let mut tx = connection.begin().await.unwrap();
    let bus = shop.host.bus();
    bus.outbox(&mut tx)
        .send(Receipt { cents: 1 })
        .await
        .unwrap();
    grow_older(Duration::from_millis(1300)).await;
    assert_eq!(shop.receipts.load(Ordering::SeqCst), 0);
    tx.commit().await.unwrap();
    shop.until_receipts(1).await;
    shop.stop().await;
}

/// The driver's pool would hand the open transaction of a cancelled `begin` to whoever comes next,
/// whose autocommitted rows would then vanish.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cancelled_begin_swallows_nobodys_rows() {
    let Some(shop) = Shop::open().await else {
        return;
    };
    let bus = shop.host.bus();
    let mut dice = Dice::new(11);
    let (mut cancelled, mut kept) = (0, 0);
    for _ in 0..150 {
        let begun = cancelled_after(dice.below(1000), shop.store.begin(&bus)).await;
        cancelled += u32::from(begun.is_none());
        drop(begun);
        let mut tx = shop.store.begin(&bus).await.unwrap();
        let connection = tx.conn().await.unwrap();
        connection
            .execute("insert into payment values (1)")
            .await
            .unwrap();
        tx.commit().await.unwrap();
        kept += 1;
    }
    println!("{cancelled} of 150 begins were cancelled");
    assert!(cancelled > 10, "some must have been cancelled: {cancelled}");
    assert_eq!(shop.payments().await, kept);
    let open = "select count(*) from pg_stat_activity where datname = current_database() \
        and state like 'idle in transaction%'";
    eventually("end of all transactions", || async {
        (shop.database.number(open).await == 0).then_some(())
    })
    .await;
    shop.stop().await;
}

/// The last query of an idle transaction tells how it began.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_waits_for_a_connection_gets_it_with_a_transaction_begun() {
    let Some(shop) = Shop::open().await else {
        return;
    };
    let bus = shop.host.bus();
    let held = [
        shop.store.begin(&bus).await.unwrap(),
        shop.store.begin(&bus).await.unwrap(),
    ];
    let begun = "select count(*) from pg_stat_activity where datname = current_database() \
        and state = 'idle in transaction' and query like 'commit; begin%'";
    // Nobody waits any more when the first one commits: an open transaction would be left behind.
    let mut left = Box::pin(shop.store.begin(&bus));
    assert!(futures_util::poll!(&mut left).is_pending());
    drop(left);
    let [first, second] = held;
    first.commit().await.unwrap();
    assert_eq!(shop.database.number(begun).await, 0);
    let third = shop.store.begin(&bus).await.unwrap();

    let mut waiting = Box::pin(shop.store.begin(&bus));
    assert!(futures_util::poll!(&mut waiting).is_pending());
    second.commit().await.unwrap();
    let mut inherited = waiting.await.unwrap();
    assert_eq!(shop.database.number(begun).await, 1);
    let connection = inherited.conn().await.unwrap();
    connection
        .execute("insert into payment values (1)")
        .await
        .unwrap();
    assert_eq!(shop.payments().await, 0);
    inherited.commit().await.unwrap();
    assert_eq!(shop.payments().await, 1);
    third.rollback().await;
    shop.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_that_is_passed_on_mixes_nobodys_rows() {
    let Some(shop) = Shop::open().await else {
        return;
    };
    let bus = shop.host.bus();
    let tasks = (0..120).map(|n: i64| {
        let (store, bus) = (shop.store.clone(), bus.clone());
        async move {
            let begun = cancelled_after(Dice::new(n.cast_unsigned()).below(40_000), async {
                let mut tx = store.begin(&bus).await.unwrap();
                let connection = tx.conn().await.unwrap();
                let insert = sqlx::query("insert into payment values ($1)").bind(n);
                insert.execute(&mut *connection).await.unwrap();
                if n % 7 == 0 {
                    let broken = connection.execute("insert into rule values (1), (1)").await;
                    broken.unwrap();
                }
                tx
            });
            match begun.await {
                None => 0,
                Some(tx) if n % 5 == 0 => {
                    tx.rollback().await;
                    0
                }
                Some(tx) => match tx.commit().await {
                    Ok(()) => n,
                    Err(_) => {
                        assert_eq!(n % 7, 0, "only a broken rule fails");
                        0
                    }
                },
            }
        }
    });
    let sum: i64 = futures_util::future::join_all(tasks).await.iter().sum();
    let written = "select coalesce(sum(cents), 0)::bigint from payment";
    assert_eq!(shop.database.number(written).await, sum);
    assert!(sum > 0, "some were kept");
    let open = "select count(*) from pg_stat_activity where datname = current_database() \
        and state like 'idle in transaction%'";
    eventually("end of all transactions", || async {
        (shop.database.number(open).await == 0).then_some(())
    })
    .await;
    shop.stop().await;
}
