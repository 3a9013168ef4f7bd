//! Every point, first and later hit, on every database: killed, restarted, judged.

use std::path::PathBuf;
use std::sync::Mutex;
use std::time::Duration;

use sagabus::faults::Point;
use sagabus::store::StoreAdmin;
use sagabus::{PgStore, SqliteStore};
use sagabus_testkit::fault_broker::FaultBroker;

use crate::databases::{block_on, create_database, say, server};

use super::ledger::{Verdict, judge, ledger_rows, prepare};
use super::plan::{Broker, Database, Plan};
use super::process::{Ended, run_child};

/// Transfers per cell: enough that every kind of way is taken at least once.
pub(super) const TRANSFERS: i64 = 40;

/// Cells that run at the same time: each child waits more than it works.
pub(super) const AT_ONCE: usize = 4;

/// What happened in one cell.
struct Cell {
    name: String,
    /// How many processes died at the point with a message in flight.
    kills: u32,
    verdict: Verdict,
    /// Messages that were published again with other headers or bytes.
    changed: usize,
}

#[test]
fn a_process_killed_anywhere_on_sqlite_loses_and_doubles_nothing() {
    run_matrix("sqlite", Carrier::Database, None);
}

#[test]
fn a_process_killed_anywhere_on_sqlite_with_a_broker_loses_and_doubles_nothing() {
    run_matrix("sqlite", Carrier::FaultBroker, None);
}

#[test]
fn a_process_killed_anywhere_on_postgres_loses_and_doubles_nothing() {
    let Some(server) = server() else { return };
    run_matrix("postgres", Carrier::Database, Some(&server));
}

#[test]
fn a_process_killed_anywhere_on_postgres_with_a_broker_loses_and_doubles_nothing() {
    let Some(server) = server() else { return };
    run_matrix("postgres", Carrier::FaultBroker, Some(&server));
}

#[cfg(all(unix, feature = "kafka"))]
#[test]
fn a_process_killed_anywhere_with_kafka_loses_and_doubles_nothing() {
    let Some(brokers) = crate::kafka::brokers() else {
        return;
    };
    run_matrix("sqlite", Carrier::Kafka(brokers), None);
}

#[cfg(all(unix, feature = "rabbitmq"))]
#[test]
fn a_process_killed_anywhere_with_rabbitmq_loses_and_doubles_nothing() {
    let Some(url) = crate::rabbitmq::url() else {
        return;
    };
    run_matrix("sqlite", Carrier::RabbitMq(url), None);
}

/// What carries the messages of a matrix.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Carrier {
    Database,
    FaultBroker,
    #[cfg(all(unix, feature = "kafka"))]
    Kafka(String),
    #[cfg(all(unix, feature = "rabbitmq"))]
    RabbitMq(String),
}

impl Carrier {
    fn name(&self) -> &'static str {
        match self {
            Self::Database => "",
            Self::FaultBroker => "+broker",
            #[cfg(all(unix, feature = "kafka"))]
            Self::Kafka(_) => "+kafka",
            #[cfg(all(unix, feature = "rabbitmq"))]
            Self::RabbitMq(_) => "+rabbitmq",
        }
    }
}

/// Runs every cell of one set-up, a few at a time, and judges them together.
fn run_matrix(database: &str, carrier: Carrier, server: Option<&str>) {
    let set_up = format!("{database}{}", carrier.name());
    let folder = std::env::temp_dir();
    let folder = folder.join(format!("sagabus-killed-{set_up}-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a temporary folder can be made");
    let waiting = Mutex::new(cells_of(&carrier));
    let cells = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                while let Some((point, hit)) = next(&waiting) {
                    let name = format!("{set_up}/{}/{hit}", point.as_str());
                    let place = match server {
                        Some(server) => {
                            Place::Server(server, format!("kill_{}_{hit}", point.as_str()))
                        }
                        None => Place::File(folder.join(format!("{}-{hit}.db", point.as_str()))),
                    };
                    let cell = block_on(run_cell(name, place, &carrier, point, hit));
                    cells
                        .lock()
                        .expect("no cell panics while it reports")
                        .push(cell);
                }
            });
        }
    });
    let mut cells = cells.into_inner().expect("no cell panics while it reports");
    cells.sort_by(|a, b| a.name.cmp(&b.name));
    report(&set_up, &cells);
    std::fs::remove_dir_all(&folder).expect("our own folder can be removed");
}

fn next(waiting: &Mutex<Vec<(Point, u64)>>) -> Option<(Point, u64)> {
    waiting.lock().expect("taking a cell does not panic").pop()
}

/// Where a cell's database is.
enum Place<'a> {
    File(PathBuf),
    Server(&'a str, String),
}

/// Lists the cells: every point, with its first hit and with a later one. Points of the relay need
/// a broker.
fn cells_of(carrier: &Carrier) -> Vec<(Point, u64)> {
    let needs_broker = [
        Point::BeforePublish,
        Point::AfterPublish,
        Point::AfterSettle,
    ];
    // With a broker, rows are handed to the publisher or claimed by it; commands never are local.
    let points = Point::ALL
        .iter()
        .filter(|point| *carrier != Carrier::Database || !needs_broker.contains(point))
        // What recurs has cells of its own.
        .filter(|point| !matches!(point, Point::BeforeFiring | Point::AfterFiring));
    match carrier {
        // Joining its groups takes a process longer than all else: one hit of each point.
        #[cfg(all(unix, feature = "kafka"))]
        Carrier::Kafka(_) => points.map(|point| (*point, later_hit(*point))).collect(),
        // A broker writes to disk for every message: one hit of each point, too.
        #[cfg(all(unix, feature = "rabbitmq"))]
        Carrier::RabbitMq(_) => points.map(|point| (*point, later_hit(*point))).collect(),
        Carrier::Database | Carrier::FaultBroker => points
            .flat_map(|point| [(*point, 1), (*point, later_hit(*point))])
            .collect(),
    }
}

/// A hit in the middle of the run, for points that are passed rarely the second.
pub(super) fn later_hit(point: Point) -> u64 {
    match point {
        Point::BeforeTakeOver
        | Point::AfterTakeOver
        | Point::BeforeDeadLetter
        | Point::AfterDeadLetter
        | Point::AfterClaim
        | Point::AfterExtend
        | Point::AfterSweep => 2,
        _ => 17,
    }
}

async fn run_cell(
    name: String,
    place: Place<'_>,
    carrier: &Carrier,
    point: Point,
    hit: u64,
) -> Cell {
    let database = match place {
        Place::File(path) => Database::Sqlite(path),
        Place::Server(server, database) => {
            let has_broker = *carrier != Carrier::Database;
            let database = format!("{database}_{has_broker}_{}", std::process::id());
            Database::Postgres(create_database(server, &database).await)
        }
    };
    prepare(&database).await;
    // In this process, so that it outlives the children that are killed.
    let mut broker = None;
    let carrier = match carrier {
        Carrier::Database => None,
        Carrier::FaultBroker => {
            let started = FaultBroker::start().await;
            let started = broker.insert(started.expect("a port can be listened on"));
            Some(Broker::Fault(started.address()))
        }
        #[cfg(all(unix, feature = "kafka"))]
        Carrier::Kafka(brokers) => Some(Broker::Kafka {
            brokers: brokers.clone(),
            prefix: crate::kafka::prefix(),
        }),
        #[cfg(all(unix, feature = "rabbitmq"))]
        Carrier::RabbitMq(url) => Some(Broker::RabbitMq {
            url: url.clone(),
            namespace: crate::rabbitmq::namespace(),
        }),
    };
    let plan = Plan {
        database: database.clone(),
        broker: carrier,
        transfers: TRANSFERS,
        fault: Some((point.as_str(), hit)),
        removed: None,
        quiet_within: Duration::from_secs(60),
        patience: Duration::from_secs(90),
    };
    if is_beside_messages(point) {
        let fault = Some((Point::AfterApiCommit.as_str(), LEFT_BEHIND));
        let former = Plan {
            fault,
            ..plan.clone()
        };
        let former = run_child(former.child(), former.patience).await;
        assert_eq!(former, Ended::KilledAtPoint, "{name}: messages wait");
    }
    let killed = run_child(plan.child(), plan.patience).await;
    let was_hit = killed == Ended::KilledAtPoint && has_in_flight(&database, point).await;
    let heir = Plan {
        fault: None,
        ..plan
    };
    let heir = run_child(heir.child(), heir.patience).await;
    assert_eq!(heir, Ended::Done, "{name}: the restarted process finishes");
    let changed = match &broker {
        Some(broker) => broker.control().log().await.changed_ids().len(),
        None => 0,
    };
    let verdict = judge(TRANSFERS, &ledger_rows(&database).await);
    Cell {
        name,
        kills: u32::from(was_hit),
        verdict,
        changed,
    }
}

/// Transfers that another process has left behind where one is killed that may have nothing in hand.
const LEFT_BEHIND: u64 = 20;

/// Says whether a point is passed without a message: leases are extended and old rows are swept also
/// where there is none. At every other point one is in hand, which is how it came there.
fn is_beside_messages(point: Point) -> bool {
    matches!(point, Point::AfterExtend | Point::AfterSweep)
}

/// Says whether a message was under way when a process died.
async fn has_in_flight(database: &Database, point: Point) -> bool {
    if !is_beside_messages(point) {
        return true;
    }
    let counts = match database {
        Database::Sqlite(path) => {
            let store = SqliteStore::open(path).await.expect("the file is there");
            store.counts().await
        }
        Database::Postgres(url) => {
            let store = PgStore::connect(url).await.expect("the server answers");
            store.counts().await
        }
    };
    let counts = counts.expect("rows can be counted");
    counts.outbox + counts.running > 0
}

/// Prints the table, and fails if anything was lost, doubled or invented, or a point not reached.
fn report(set_up: &str, cells: &[Cell]) {
    let mut total = Verdict::default();
    let mut changed = 0;
    for cell in cells {
        let Verdict {
            expected,
            lost,
            duplicated,
            ghosts,
        } = cell.verdict;
        println!(
            "{:44} kills {} effects {expected} lost {lost} duplicated {duplicated} ghosts {ghosts}",
            cell.name, cell.kills
        );
        total.expected += expected;
        total.lost += lost;
        total.duplicated += duplicated;
        total.ghosts += ghosts;
        changed += cell.changed;
    }
    let Verdict {
        expected,
        lost,
        duplicated,
        ghosts,
    } = total;
    let hit = cells.iter().filter(|cell| cell.kills > 0).count();
    let n = cells.len();
    say(&format!(
        "kill matrix {set_up}: {n} cells, {hit} points hit, effects {expected}, lost {lost}, \
         duplicated {duplicated}, ghosts {ghosts}, changed {changed}\n"
    ));
    say(&format!(
        "figure: {set_up}, cells: {n}\nfigure: {set_up}, effects: {expected}\n\
         figure: {set_up}, lost: {lost}\nfigure: {set_up}, duplicated: {duplicated}\n\
         figure: {set_up}, ghosts: {ghosts}\n"
    ));
    assert_eq!((lost, duplicated, ghosts, changed), (0, 0, 0, 0));
    let not_reached = cells
        .iter()
        .filter(|cell| cell.kills == 0)
        .map(|cell| cell.name.as_str());
    let not_reached: Vec<_> = not_reached.collect();
    assert!(
        not_reached.is_empty(),
        "points that were never reached: {not_reached:?}"
    );
}
