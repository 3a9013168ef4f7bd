//! The child: a host with two account services, and an API that places transfers.

use std::time::Duration;

use sagabus::HostBuilder;
use sagabus::prelude::*;
use sagabus::store::{Counts, Retention, StoreAdmin};
use sagabus::{PgStore, Postgres, Sqlite, SqliteStore, Tx};
use sagabus_testkit::fault_broker::FaultTransport;
use sagabus_testkit::transfers::{
    Bounced, Credit, Credited, Debit, Debited, Refund, Refunded, Settled, StartTransfer, bounces,
    cannot_be_noted, cents, stumbles,
};

use super::guards::{EarlyAck, Guard};
use super::ledger::{ledger_rows, place_alone};
use super::machine::{is_hopeless, transfer_machine};
use super::plan::{Assignment, Broker, Database, Plan};

/// Runs the workload when this binary was started as a child; else there is nothing to do.
#[test]
fn runs_only_as_a_child() {
    let Some(assignment) = Plan::from_environment() else {
        return;
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime needs threads and a timer");
    runtime.block_on(async {
        match &assignment.database {
            Database::Sqlite(path) => {
                let store = SqliteStore::open(path)
                    .await
                    .expect("the file can be opened");
                sqlite::run(store, &assignment).await;
            }
            Database::Postgres(url) => {
                let store = PgStore::connect(url).await.expect("the server answers");
                postgres::run(store, &assignment).await;
            }
        }
    });
}

/// Gives a host the broker that it was told.
pub(crate) fn connected(builder: HostBuilder, broker: Option<&Broker>) -> HostBuilder {
    match broker {
        None => builder,
        Some(Broker::Fault(address)) => builder.transport(FaultTransport::new(*address)),
        #[cfg(all(unix, feature = "kafka"))]
        Some(Broker::Kafka { brokers, prefix }) => {
            builder.transport(crate::kafka::transport(brokers, prefix))
        }
        #[cfg(all(unix, feature = "rabbitmq"))]
        Some(Broker::RabbitMq { url, namespace }) => {
            builder.transport(crate::rabbitmq::transport(url, namespace))
        }
    }
}

/// Gives the child its broker, or one without a guard.
fn carried(builder: HostBuilder, assignment: &Assignment) -> HostBuilder {
    match (&assignment.broker, assignment.removed) {
        (Some(Broker::Fault(address)), Some(Guard::AckLast)) => {
            builder.transport(EarlyAck::before(FaultTransport::new(*address)))
        }
        (broker, _) => connected(builder, broker.as_ref()),
    }
}

/// Handlers and API for one engine: they differ by their `Tx` and by how parameters are written.
macro_rules! workload {
    ($module:ident, $engine:ident, $store:ident, $p1:literal, $p2:literal, $p3:literal) => {
        pub(crate) mod $module {
            use super::*;

            const LEDGER: &str = concat!(
                "insert into ledger (transfer, leg, cents) values (",
                $p1,
                ", ",
                $p2,
                ", ",
                $p3,
                ")"
            );
            const TRANSFER: &str = concat!(
                "insert into transfer (id, cents) values (",
                $p1,
                ", ",
                $p2,
                ")"
            );

            async fn note(tx: &mut Tx<$engine>, id: i64, leg: &'static str, cents: i64) -> Result {
                let connection = tx.conn().await?;
                sqlx::query(LEDGER)
                    .bind(id)
                    .bind(leg)
                    .bind(cents)
                    .execute(connection)
                    .await?;
                Ok(())
            }

            async fn debit(m: Debit, mut tx: Tx<$engine>) -> Result<Debited> {
                note(&mut tx, m.id, "debit", -cents(m.id)).await?;
                Ok(Debited { id: m.id })
            }

            async fn credit(
                m: Credit,
                mut tx: Tx<$engine>,
                cx: Ctx,
            ) -> Result<(Option<Credited>, Option<Bounced>)> {
                if bounces(m.id) {
                    return Ok((None, Some(Bounced { id: m.id })));
                }
                note(&mut tx, m.id, "credit", cents(m.id)).await?;
                if stumbles(m.id) && cx.attempt() < 3 {
                    return Err(HandlerError::new("stumbles after its first write"));
                }
                Ok((Some(Credited { id: m.id }), None))
            }

            async fn refund(m: Refund, mut tx: Tx<$engine>) -> Result<Refunded> {
                note(&mut tx, m.id, "refund", cents(m.id)).await?;
                Ok(Refunded { id: m.id })
            }

            async fn note_settled(m: Settled, mut tx: Tx<$engine>) -> Result {
                if cannot_be_noted(m.id) {
                    let error = HandlerError::new("this one cannot be noted");
                    return Err(if is_hopeless(m.id) {
                        error.terminal()
                    } else {
                        error
                    });
                }
                note(&mut tx, m.id, "settled", 0).await
            }

            /// Gives a host the endpoints of the workload.
            pub(crate) fn equip(builder: HostBuilder, store: &$store) -> HostBuilder {
                let retry = Retry {
                    immediate: 0,
                    delayed: 3,
                    delay: Duration::from_millis(20),
                    delay_max: Duration::from_millis(50),
                    ..Retry::default()
                };
                builder
                    .store(store.clone())
                    .lease(Duration::from_millis(900))
                    .retention(Retention {
                        interval: Duration::from_millis(200),
                        ..Retention::default()
                    })
                    .endpoint("transfers", |e| e.machine(transfer_machine()))
                    .endpoint("debits", |e| {
                        e.handle(debit).handle(refund).retry(retry.clone())
                    })
                    .endpoint("credits", |e| e.handle(credit).retry(retry.clone()))
                    .endpoint("audit", |e| e.handle(note_settled).retry(retry))
            }

            /// Places what is missing, then runs until nothing is left to do.
            pub(super) async fn run(store: $store, assignment: &Assignment) {
                let builder = carried(Host::builder("child"), assignment);
                let host = equip(builder, &store)
                    .build()
                    .expect("the workload is put together well");
                let bus = host.bus();
                let host = host.start().await.expect("the host starts");
                place(&store, &bus, assignment).await;
                wait_until_quiet(&store, assignment).await;
                assert!(
                    host.stop(Duration::from_secs(20)).await,
                    "nothing was in hand"
                );
                println!("child done");
            }

            async fn place(store: &$store, bus: &Bus, assignment: &Assignment) {
                let placed: Vec<i64> = {
                    let mut tx = store.begin(bus).await.expect("a transaction begins");
                    let connection = tx.conn().await.expect("it has a connection");
                    sqlx::query_scalar("select id from transfer")
                        .fetch_all(connection)
                        .await
                        .expect("placed transfers can be read")
                };
                let all = 0..assignment.transfers;
                for id in all.filter(|id| !placed.contains(id)) {
                    if let Some(url) = assignment.places_apart() {
                        place_alone(url, id).await;
                    }
                    let mut tx = store.begin(bus).await.expect("a transaction begins");
                    if assignment.places_apart().is_none() {
                        let connection = tx.conn().await.expect("it has a connection");
                        let insert = sqlx::query(TRANSFER).bind(id).bind(cents(id));
                        insert
                            .execute(connection)
                            .await
                            .expect("a transfer can be placed");
                    }
                    tx.send(StartTransfer { id }).expect("it can be encoded");
                    tx.commit().await.expect("it commits");
                }
            }
        }
    };
}

workload!(sqlite, Sqlite, SqliteStore, "?", "?", "?");
workload!(postgres, Postgres, PgStore, "$1", "$2", "$3");

/// Waits until every transfer is over, every settlement that can be noted is, and nothing waits.
pub(crate) async fn wait_until_quiet(store: &dyn StoreAdmin, assignment: &Assignment) {
    let transfers = assignment.transfers;
    let expected_dead = (0..transfers).filter(|id| cannot_be_noted(*id)).count();
    let expected_settled = usize::try_from(transfers).expect("it is positive") - expected_dead;
    let is_quiet = |counts: &Counts| {
        counts.outbox == 0
            && counts.running == 0
            && counts.completed == u64::try_from(transfers).expect("it is positive")
            && counts.dead_letters == expected_dead as u64
    };
    let started = tokio::time::Instant::now();
    loop {
        let counts = store.counts().await.expect("rows can be counted");
        if is_quiet(&counts) {
            let rows = ledger_rows(&assignment.database).await;
            let settled = rows.iter().filter(|(_, leg, _)| leg == "settled").count();
            if settled >= expected_settled {
                return;
            }
        }
        if started.elapsed() > assignment.quiet_within {
            let dead = store.dead_letters(1000).await.expect("they can be read");
            let each = dead.iter().map(|one| {
                let last = one.attempts.last().map(|one| one.error.as_str());
                (
                    &*one.envelope.message_type,
                    one.reason.as_str(),
                    last,
                    &one.key,
                )
            });
            let dead: Vec<_> = each.collect();
            panic!("never quiet: {counts:?}, dead letters: {dead:#?}");
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
