//! The matrix, with a guard removed: every cell must fail then, or it protects nothing.

use std::sync::Mutex;
use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::stream::{BoxStream, StreamExt};
use sagabus::error::TransportError;
use sagabus::faults::Point;
use sagabus::store::EndpointSpec;
use sagabus::transport::{Delivery, Settler, Transport, Verdict as Answer};
use sagabus_testkit::fault_broker::{FaultBroker, FaultTransport};
use sagabus_testkit::transport::{Alteration, Altered};
use sqlx::{Connection, Executor};

use crate::databases::{block_on, create_database, say, server};

use super::ledger::{Verdict, judge, ledger_rows, prepare};
use super::matrix::{AT_ONCE, TRANSFERS, later_hit};
use super::plan::{Broker, Database, Plan};
use super::process::{Ended, run_child, run_child_that_may_fail};

/// How often a cell may come out clean by luck: what was in flight decides.
const TRIES: u32 = 3;
/// How long the heir of a killed process may take; whole runs take less than two seconds.
const QUIET_WITHIN: Duration = Duration::from_secs(8);
/// How long a child may take at all.
const PATIENCE: Duration = Duration::from_secs(60);

/// After so long the sender's row of a message is settled and the ack is with the broker: nobody
/// has the message but the process that is about to die.
const ALONE: Duration = Duration::from_millis(100);
/// Deliveries of one endpoint that are on this way at once.
const AT_ONCE_MAX: usize = 64;

/// What keeps messages from being lost or doubled where a process dies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Guard {
    /// A delivery is acked after the commit.
    AckLast,
    /// The inbox knows what was taken over.
    Inbox,
    /// A lease ends, and its row is claimed by another process.
    LeaseEnds,
    /// A row and its message share a transaction.
    OneTransaction,
}

impl Guard {
    const ALL: [Self; 4] = [
        Self::AckLast,
        Self::Inbox,
        Self::LeaseEnds,
        Self::OneTransaction,
    ];

    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::AckLast => "ack_last",
            Self::Inbox => "inbox",
            Self::LeaseEnds => "lease_ends",
            Self::OneTransaction => "one_transaction",
        }
    }

    pub(crate) fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|one| one.as_str() == name)
    }

    /// Returns the guard that keeps a message safe where a process dies at this point; none where
    /// another workload than this one passes it.
    fn of(point: Point) -> Option<Self> {
        Some(match point {
            Point::Received
            | Point::Decoded
            | Point::Loaded
            | Point::Handled
            | Point::BeforeCommit
            | Point::BeforeTakeOver
            | Point::BeforeDeadLetter
            | Point::BeforeTxCommit
            | Point::AfterSettle
            | Point::AfterSweep => Self::AckLast,
            Point::AfterCommit
            | Point::BeforeAck
            | Point::AfterTakeOver
            | Point::AfterDeadLetter
            | Point::AfterTxCommit
            | Point::AfterPublish => Self::Inbox,
            Point::AfterAck
            | Point::AfterClaim
            | Point::AfterExtend
            | Point::BeforeHandOver
            | Point::BeforePublish
            | Point::AfterApiCommit => Self::LeaseEnds,
            Point::BeforeApiCommit => Self::OneTransaction,
            Point::BeforeFiring | Point::AfterFiring => return None,
        })
    }

    /// Returns what removes the guard from a database; the others are removed from the child.
    fn removal(self) -> Option<&'static str> {
        match self {
            Self::AckLast | Self::OneTransaction => None,
            // What was taken over, or is a dead letter, is never found again.
            Self::Inbox => Some(
                "create function forget() returns trigger language plpgsql as $$ begin \
                    new.message_id := gen_random_uuid(); return new; end $$; \
                 create trigger forget before insert on sagabus.inbox \
                    for each row execute function forget(); \
                 create trigger forget before insert on sagabus.dead_letter \
                    for each row execute function forget()",
            ),
            // A claim, a birth under a lease and an extension hold for ever.
            Self::LeaseEnds => Some(
                "create function keep() returns trigger language plpgsql as $$ begin \
                    if new.epoch > 0 and (tg_op = 'INSERT' or new.epoch > old.epoch \
                        or (new.starts, new.failures, new.solo_starts, new.due_at, new.parked) \
                            is not distinct from (old.starts, old.failures, old.solo_starts, \
                                old.due_at, old.parked)) then \
                        new.available_at := 9000000000000000; \
                    end if; return new; end $$; \
                 create trigger keep before insert or update on sagabus.outbox \
                    for each row execute function keep()",
            ),
        }
    }
}

/// A broker's transport that acks what it delivers before anybody has seen it.
#[derive(Debug)]
pub(crate) struct EarlyAck(FaultTransport);

impl EarlyAck {
    pub(crate) fn before(transport: FaultTransport) -> Altered<Self> {
        Altered(Self(transport))
    }
}

impl Alteration for EarlyAck {
    fn transport(&self) -> &dyn Transport {
        &self.0
    }

    fn subscribe<'a>(
        &'a self,
        endpoint: &'a EndpointSpec,
        prefetch: u32,
    ) -> BoxFuture<'a, Result<BoxStream<'static, Delivery>, TransportError>> {
        Box::pin(async move {
            let deliveries = self.0.subscribe(endpoint, prefetch).await?;
            let early = deliveries.map(|delivery| async move {
                let (endpoint, envelope) = (delivery.endpoint.clone(), delivery.envelope.clone());
                let redeliveries = delivery.redeliveries;
                delivery.ack().await;
                tokio::time::sleep(ALONE).await;
                Delivery::new(endpoint, envelope, redeliveries, Box::new(Settled))
            });
            Ok(early.buffered(AT_ONCE_MAX).boxed())
        })
    }
}

/// The answer was given.
struct Settled;

impl Settler for Settled {
    fn settle(self: Box<Self>, _: Answer) -> BoxFuture<'static, ()> {
        Box::pin(std::future::ready(()))
    }
}

#[test]
fn without_its_guard_every_cell_of_the_kill_matrix_fails() {
    let Some(server) = server() else { return };
    let points = Point::ALL.iter();
    let guarded = points.filter_map(|point| Some((*point, Guard::of(*point)?)));
    let waiting = Mutex::new(guarded.collect::<Vec<_>>());
    let reports = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                while let Some((point, guard)) = next(&waiting) {
                    let report = block_on(run_point(&server, point, guard));
                    reports.lock().expect("nobody panics here").push(report);
                }
            });
        }
    });
    let mut reports = reports.into_inner().expect("nobody panics here");
    reports.sort_by_key(|report| report.point as usize);
    for report in &reports {
        println!("{report:?}");
    }
    let clean = reports.iter().filter(|report| report.harm.is_none());
    let clean: Vec<_> = clean.map(|report| report.point.as_str()).collect();
    let failed = reports.len() - clean.len();
    say(&format!(
        "kill matrix, each cell without its guard: {failed} of {0} fail, as they must\n\
         figure: cells that fail without their guard: {failed} of {0}\n",
        reports.len()
    ));
    assert!(clean.is_empty(), "cells that protect nothing: {clean:?}");
}

#[test]
fn without_a_guard_a_process_that_lives_does_all_its_work() {
    let Some(server) = server() else { return };
    for guard in Guard::ALL {
        let mut failed = Vec::new();
        // A machine that stands still for longer than a lease is like a death to its host.
        let does = (0..TRIES).any(|try_number| {
            let name = format!("{}_alive_{try_number}", guard.as_str());
            let (ended, lines, verdict) = block_on(async {
                let scene = Scene::open(&server, guard, &name).await;
                let child = scene.plan(None).child();
                let (ended, lines) = run_child_that_may_fail(child, PATIENCE).await;
                (ended, lines, scene.verdict().await)
            });
            let harm = (verdict.lost, verdict.duplicated, verdict.ghosts);
            let is_well = ended == Ended::Done && harm == (0, 0, 0);
            if !is_well {
                failed.push((ended, harm, lines));
            }
            is_well
        });
        assert!(does, "{guard:?}: {failed:#?}");
    }
}

fn next(waiting: &Mutex<Vec<(Point, Guard)>>) -> Option<(Point, Guard)> {
    waiting.lock().expect("nobody panics here").pop()
}

/// What happened at a point without its guard.
#[derive(Debug)]
struct Report {
    point: Point,
    #[expect(dead_code, reason = "shown with the others")]
    guard: Guard,
    /// What was lost or doubled, and how the heir ended. `None`: nothing, in any try.
    harm: Option<(Verdict, Ended)>,
}

/// Kills at a point without its guard, until something is lost or doubled.
async fn run_point(server: &str, point: Point, guard: Guard) -> Report {
    for try_number in 0..TRIES {
        let name = format!("{}_{try_number}", point.as_str());
        let scene = Scene::open(server, guard, &name).await;
        let fault = Some((point.as_str(), hit(point)));
        let killed = run_child(scene.plan(fault).child(), PATIENCE).await;
        assert_eq!(killed, Ended::KilledAtPoint, "{name} was reached");
        let heir = scene.plan(None);
        let (ended, _) = run_child_that_may_fail(heir.child(), PATIENCE).await;
        let verdict = scene.verdict().await;
        // Dead letters are in no ledger: where one is missing or there twice, the heir waits for
        // what never comes.
        if ended == Ended::Failed || !verdict.is_clean() {
            let harm = Some((verdict, ended));
            return Report { point, guard, harm };
        }
    }
    Report {
        point,
        guard,
        harm: None,
    }
}

/// The first time for what befalls few messages while they are a broker's: later they are rows.
fn hit(point: Point) -> u64 {
    match point {
        Point::BeforeTakeOver
        | Point::AfterTakeOver
        | Point::BeforeDeadLetter
        | Point::AfterDeadLetter => 1,
        _ => later_hit(point),
    }
}

/// A database and a broker without one guard.
struct Scene {
    guard: Guard,
    url: String,
    broker: FaultBroker,
}

impl Scene {
    async fn open(server: &str, guard: Guard, name: &str) -> Self {
        let name = format!("guard_{name}_{}", std::process::id());
        let url = create_database(server, &name).await;
        prepare(&Database::Postgres(url.clone())).await;
        if let Some(removal) = guard.removal() {
            let mut connection = sqlx::PgConnection::connect(&url).await.expect("it answers");
            let removed = connection.execute(removal).await;
            removed.expect("a guard can be removed");
        }
        let broker = FaultBroker::start().await;
        Self {
            guard,
            url,
            broker: broker.expect("a port can be listened on"),
        }
    }

    fn plan(&self, fault: Option<(&'static str, u64)>) -> Plan {
        Plan {
            database: Database::Postgres(self.url.clone()),
            broker: Some(Broker::Fault(self.broker.address())),
            transfers: TRANSFERS,
            fault,
            removed: Some(self.guard),
            quiet_within: QUIET_WITHIN,
            patience: PATIENCE,
        }
    }

    async fn verdict(&self) -> Verdict {
        judge(
            TRANSFERS,
            &ledger_rows(&Database::Postgres(self.url.clone())).await,
        )
    }
}
