//! The doors for user SQL: rows and messages commit together, or neither does.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use sagabus_core::retry::Retry;
use sagabus_core::store::StoreAdmin;
use sagabus_core::{
    BusError, Command, HandlerError, Kind, Message, MessageId, Outgoing, StoreError,
};
use sagabus_core::{Host, RunningHost};
use sagabus_outbox::{BusExt, Sqlite, SqliteConfig, SqliteStore, Tx};
use sagabus_testkit::wait::eventually;
use serde::{Deserialize, Serialize};
use sqlx::{ConnectOptions, Connection, Executor};

use crate::sqlite_support::Folder;

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
    Nest,
    Hang,
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

async fn pay(pay: Pay, mut tx: Tx<Sqlite>) -> Result<Receipt, HandlerError> {
    let connection = tx.conn().await?;
    let insert = "insert into payment values ($1)";
    sqlx::query(insert)
        .bind(pay.cents)
        .execute(&mut *connection)
        .await?;
    match pay.then {
        Then::Return => {}
        Then::Hang => std::future::pending().await,
        Then::Fail => return Err(HandlerError::new("declined").terminal()),
        Then::Commit => connection.execute("commit").await.map(|_| ())?,
        Then::RollBackAndBegin => {
            connection.execute("rollback; begin immediate").await?;
        }
        Then::Nest => {
            let mut dropped = connection.begin().await?;
            sqlx::query(insert).bind(-1).execute(&mut *dropped).await?;
            dropped.rollback().await?;
            let mut kept = connection.begin().await?;
            sqlx::query(insert)
                .bind(pay.cents)
                .execute(&mut *kept)
                .await?;
            kept.commit().await?;
        }
    }
    Ok(Receipt { cents: pay.cents })
}

/// A running host that pays, and counts the receipts.
struct Shop {
    store: SqliteStore,
    host: RunningHost,
    receipts: Arc<AtomicUsize>,
    folder: Folder,
}

impl Shop {
    async fn open() -> Self {
        let folder = Folder::new();
        let config = SqliteConfig {
            busy_timeout: Duration::from_millis(300),
            tx_limit: Duration::from_millis(100),
            ..SqliteConfig::new(folder.file())
        };
        let store = SqliteStore::open_with(config).await.unwrap();
        store.migrate().await.unwrap();
        crate::sqlite_support::change(&folder.file(), "create table payment (cents integer)")
            .await
            .unwrap();
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
            .endpoint("payments", |e| e.handle(pay).retry(Retry::default()))
            .endpoint("receipts", |e| e.handle(count))
            .build()
            .unwrap();
        Self {
            host: host.start().await.unwrap(),
            store,
            receipts,
            folder,
        }
    }

    async fn payments(&self) -> i64 {
        sqlx::query_scalar("select count(*) from payment")
            .fetch_one(self.store.reader())
            .await
            .unwrap()
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
        dead.attempts.last().unwrap().error.clone()
    }

    async fn stop(self) {
        assert!(self.host.stop(Duration::from_secs(10)).await);
    }
}

#[tokio::test]
async fn a_handlers_rows_commit_with_what_it_sends() {
    let shop = Shop::open().await;
    for then in [Then::Return, Then::Nest] {
        shop.host.bus().send(Pay { cents: 5, then }).await.unwrap();
    }
    shop.until_receipts(2).await;
    assert_eq!(shop.payments().await, 3);
    let lost = "select count(*) from payment where cents < 0";
    let lost: i64 = sqlx::query_scalar(lost)
        .fetch_one(shop.store.reader())
        .await
        .unwrap();
    assert_eq!(lost, 0);
    shop.stop().await;
}

#[tokio::test]
async fn a_handler_that_fails_leaves_no_rows() {
    let shop = Shop::open().await;
    let failing = Pay {
        cents: 5,
        then: Then::Fail,
    };
    shop.host.bus().send(failing).await.unwrap();
    assert!(shop.until_dead().await.contains("declined"));
    assert_eq!(shop.payments().await, 0);
    assert_eq!(shop.receipts.load(Ordering::SeqCst), 0);
    shop.stop().await;
}

/// There is one writer: whoever holds it for ever would hold up everybody.
#[tokio::test]
async fn a_handler_that_holds_the_writer_too_long_has_failed_and_lets_go() {
    let shop = Shop::open().await;
    let (hang, fine) = (Then::Hang, Then::Return);
    let cents = 5;
    shop.host
        .bus()
        .send(Pay { cents, then: hang })
        .await
        .unwrap();
    shop.host
        .bus()
        .send(Pay { cents, then: fine })
        .await
        .unwrap();
    shop.until_receipts(1).await;
    assert_eq!(shop.payments().await, 1);
    assert!(shop.host.counters().failed_attempts.get() >= 1);
    assert!(shop.host.stop(Duration::from_secs(10)).await);
}

/// A statement of the user's that ends our transaction must not pass for a commit.
#[tokio::test]
async fn a_handler_that_ends_the_transaction_itself_is_found_out() {
    for then in [Then::Commit, Then::RollBackAndBegin] {
        let shop = Shop::open().await;
        shop.host.bus().send(Pay { cents: 5, then }).await.unwrap();
        let error = shop.until_dead().await;
        assert!(error.contains("ended its transaction"), "{error}");
        assert_eq!(shop.receipts.load(Ordering::SeqCst), 0);
        let fine = Pay {
            cents: 1,
            then: Then::Return,
        };
        shop.host.bus().send(fine).await.unwrap();
        shop.until_receipts(1).await;
        shop.stop().await;
    }
}

#[tokio::test]
async fn an_apis_rows_and_messages_commit_together_or_not_at_all() {
    let shop = Shop::open().await;
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

/// A statement that rolls its transaction back leaves nothing to commit.
#[tokio::test]
async fn an_api_whose_transaction_ended_is_not_told_that_it_committed() {
    let shop = Shop::open().await;
    let bus = shop.host.bus();
    for (sql, payments) in [
        ("insert or rollback into payment values (1)", 0),
        ("rollback; begin immediate", 0),
        // What the user commits is the user's; no message leaves with it.
        ("commit", 1),
    ] {
        let mut tx = shop.store.begin(&bus).await.unwrap();
        let connection = tx.conn().await.unwrap();
        connection
            .execute("create unique index if not exists one on payment (cents)")
            .await
            .unwrap();
        connection
            .execute("insert into payment values (1)")
            .await
            .unwrap();
        // An error here is what the user overlooks.
        let _ = connection.execute(sql).await;
        tx.send(Receipt { cents: 1 }).unwrap();
        let committed = tx.commit().await;
        assert!(committed.is_err(), "{sql}: {committed:?}");
        assert_eq!(shop.payments().await, payments, "{sql}");
    }
    // A good one leaves, and nothing had left before it.
    let mut tx = shop.store.begin(&bus).await.unwrap();
    tx.send(Receipt { cents: 1 }).unwrap();
    tx.commit().await.unwrap();
    eventually("an empty outbox", || async {
        (shop.store.counts().await.unwrap().outbox == 0).then_some(())
    })
    .await;
    assert_eq!(shop.receipts.load(Ordering::SeqCst), 1);
    shop.stop().await;
}

/// The writer is one: whoever comes after a `begin` that was dropped must not inherit its
/// transaction.
#[tokio::test]
async fn a_cancelled_begin_swallows_nobodys_rows() {
    let shop = Shop::open().await;
    let bus = shop.host.bus();
    let (mut cancelled, mut kept) = (0, 0);
    for _ in 0..150 {
        {
            let begin = shop.store.begin(&bus);
            let begun = crate::sqlite_cancel::poll_for(kept % 6, begin).await;
            cancelled += u32::from(begun.is_none());
        }
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
    assert!(cancelled > 20, "some must have been cancelled: {cancelled}");
    assert_eq!(shop.payments().await, i64::try_from(kept).unwrap());
    shop.stop().await;
}

#[tokio::test]
async fn whoever_waits_for_the_writer_too_long_is_told() {
    let shop = Shop::open().await;
    let bus = shop.host.bus();
    let held = shop.store.begin(&bus).await.unwrap();
    let refused = shop.store.begin(&bus).await;
    assert!(
        matches!(refused, Err(BusError::Store(StoreError::Busy(_)))),
        "{refused:?}"
    );
    held.rollback().await;
    shop.store.begin(&bus).await.unwrap().rollback().await;
    shop.stop().await;
}

#[tokio::test]
async fn messages_of_a_strangers_transaction_leave_when_it_commits() {
    let shop = Shop::open().await;
    let bus = shop.host.bus();
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(shop.folder.file());
    let mut connection = options.connect().await.unwrap();
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
    // Outside of a transaction SQLite may refuse what reads first and then writes, while the host
    // writes, too: nothing was written, and the same identity may be sent again.
    let id = MessageId::new();
    let mut refusals = 0;
    loop {
        let receipt = Outgoing::new(&Receipt { cents: 2 }).unwrap().with_id(id);
        match bus.outbox(&mut connection).push(receipt).await {
            Ok(_) => break,
            Err(BusError::Store(StoreError::Busy(_))) if refusals < 1000 => refusals += 1,
            Err(error) => panic!("{error:?}"),
        }
        tokio::task::yield_now().await;
    }
    shop.until_receipts(2).await;
    assert_eq!(shop.payments().await, 2);
    connection.close().await.unwrap();
    shop.stop().await;
}
