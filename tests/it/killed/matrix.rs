//! Every point, first and later hit, on every database: killed, restarted, judged.

use std::io::{BufRead, BufReader};
use std::os::unix::process::ExitStatusExt;
use std::process::Stdio;
use std::time::Duration;

use sagabus::faults::Point;

use super::ledger::{TABLES, Verdict, judge};
use super::plan::{Database, Plan};

/// Transfers per cell: enough that every kind of way is taken at least once.
const TRANSFERS: i64 = 40;

/// Points that need a broker, which these cells do not have.
const BROKER_POINTS: [Point; 3] = [Point::BeforePublish, Point::AfterPublish, Point::AfterSettle];

/// What happened in one cell.
struct Cell {
    name: String,
    /// How many processes died at the point.
    kills: u32,
    verdict: Verdict,
}

#[test]
fn a_process_killed_at_any_point_of_sqlite_loses_and_doubles_nothing() {
    let folder = std::env::temp_dir().join(format!("sagabus-killed-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a temporary folder can be made");
    let mut cells = Vec::new();
    for (point, hit) in cells_of() {
        let path = folder.join(format!("{}-{hit}.db", point.as_str()));
        let name = format!("sqlite/{}/{hit}", point.as_str());
        cells.push(block_on(run_cell(name, Database::Sqlite(path), point, hit)));
    }
    report(&cells);
    std::fs::remove_dir_all(&folder).expect("our own folder can be removed");
}

#[test]
fn a_process_killed_at_any_point_of_postgres_loses_and_doubles_nothing() {
    let Some(server) = server() else { return };
    let mut cells = Vec::new();
    for (point, hit) in cells_of() {
        let name = format!("postgres/{}/{hit}", point.as_str());
        let cell = block_on(async {
            let url = create_database(&server, &format!("kill_{}_{hit}", point.as_str())).await;
            run_cell(name, Database::Postgres(url), point, hit).await
        });
        cells.push(cell);
    }
    report(&cells);
}

/// Lists the cells: every point, its first hit and a later one.
fn cells_of() -> Vec<(Point, u64)> {
    let points = Point::ALL.iter().filter(|point| !BROKER_POINTS.contains(point));
    points.flat_map(|point| [(*point, 1), (*point, later_hit(*point))]).collect()
}

/// A hit in the middle of the run, for points that are passed rarely the second.
fn later_hit(point: Point) -> u64 {
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

async fn run_cell(name: String, database: Database, point: Point, hit: u64) -> Cell {
    prepare(&database).await;
    let patience = Duration::from_secs(90);
    let fault = Some((point.as_str(), hit));
    let plan = Plan { database: database.clone(), transfers: TRANSFERS, fault, patience };
    let kills = u32::from(run_child(&plan) == Ended::KilledAtPoint);
    let heir = Plan { fault: None, ..plan };
    assert_eq!(run_child(&heir), Ended::Done, "{name}: the restarted process finishes");
    let rows = ledger_rows(&database).await;
    Cell { name, kills, verdict: judge(TRANSFERS, &rows) }
}

/// How a child ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ended {
    /// It reported the point and was killed by SIGKILL.
    KilledAtPoint,
    /// It finished its work without reaching the point.
    Done,
}

fn run_child(plan: &Plan) -> Ended {
    let mut child = plan
        .command()
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the test binary can be started again");
    let watchdog = child.id();
    let errors = child.stderr.take().expect("it is piped");
    let reader = std::thread::spawn(move || {
        BufReader::new(errors).lines().map_while(Result::ok).collect::<Vec<_>>()
    });
    let deadline = std::time::Instant::now() + plan.patience;
    let status = loop {
        if let Some(status) = child.try_wait().expect("a child can be waited for") {
            break status;
        }
        if std::time::Instant::now() > deadline {
            child.kill().expect("our own child can be killed");
            let _ = child.wait(); // It was killed in the line above.
            let lines = reader.join().expect("the reader only reads");
            panic!("child {watchdog} took longer than {:?}: {lines:#?}", plan.patience);
        }
        std::thread::sleep(Duration::from_millis(5));
    };
    let lines = reader.join().expect("the reader only reads");
    if status.signal() == Some(9) {
        let said_so = lines.iter().any(|line| line.starts_with("fault ") && line.ends_with("kill"));
        assert!(said_so, "a killed child has said at which point: {lines:#?}");
        return Ended::KilledAtPoint;
    }
    assert!(status.success(), "child failed with {status}: {lines:#?}");
    Ended::Done
}

/// Prints the table, and fails if anything was lost, doubled or invented, or a point not reached.
fn report(cells: &[Cell]) {
    let mut total = Verdict::default();
    let mut not_reached = Vec::new();
    for cell in cells {
        let Verdict { expected, lost, duplicated, ghosts } = cell.verdict;
        println!(
            "{:40} kills {} effects {expected} lost {lost} duplicated {duplicated} ghosts {ghosts}",
            cell.name, cell.kills
        );
        total.expected += expected;
        total.lost += lost;
        total.duplicated += duplicated;
        total.ghosts += ghosts;
        if cell.kills == 0 {
            not_reached.push(cell.name.as_str());
        }
    }
    println!(
        "kill matrix: {} cells, {} points hit, effects {}, lost {}, duplicated {}, ghosts {}",
        cells.len(),
        cells.iter().filter(|cell| cell.kills > 0).count(),
        total.expected,
        total.lost,
        total.duplicated,
        total.ghosts
    );
    assert_eq!((total.lost, total.duplicated, total.ghosts), (0, 0, 0));
    assert!(not_reached.is_empty(), "points that were never reached: {not_reached:?}");
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime needs a timer").block_on(future)
}

fn server() -> Option<String> {
    match std::env::var("SAGABUS_POSTGRES_URL") {
        Ok(url) => Some(url),
        Err(_) => {
            println!("SKIPPED: SAGABUS_POSTGRES_URL is not set");
            None
        }
    }
}

/// Makes a database of its own on the server, replacing one of that name, and returns its address.
async fn create_database(server: &str, name: &str) -> String {
    use sqlx::{Connection, Executor};
    let name = format!("{name}_{}", std::process::id());
    let mut admin = sqlx::PgConnection::connect(server).await.expect("the server answers");
    let create = format!("create database {name}");
    admin.execute(sqlx::AssertSqlSafe(create)).await.expect("a database can be made");
    let (base, _) = server.rsplit_once('/').expect("an address names a database");
    format!("{base}/{name}")
}

async fn prepare(database: &Database) {
    use sqlx::{Connection, Executor};
    match database {
        Database::Sqlite(path) => {
            let store = sagabus::SqliteStore::open(path).await.expect("the file can be made");
            store.migrate().await.expect("it can be migrated");
            let url = format!("sqlite://{}", path.display());
            let mut connection = sqlx::SqliteConnection::connect(&url).await.expect("it opens");
            for table in TABLES {
                connection.execute(table).await.expect("a table can be made");
            }
        }
        Database::Postgres(url) => {
            let store = sagabus::PgStore::connect(url).await.expect("the server answers");
            store.migrate().await.expect("it can be migrated");
            let mut connection = sqlx::PgConnection::connect(url).await.expect("it answers");
            for table in TABLES {
                connection.execute(table).await.expect("a table can be made");
            }
        }
    }
}

async fn ledger_rows(database: &Database) -> Vec<(i64, String, i64)> {
    use sqlx::Connection;
    const ROWS: &str = "select transfer, leg, cents from ledger";
    match database {
        Database::Sqlite(path) => {
            let url = format!("sqlite://{}", path.display());
            let mut connection = sqlx::SqliteConnection::connect(&url).await.expect("it opens");
            sqlx::query_as(ROWS).fetch_all(&mut connection).await.expect("it can be read")
        }
        Database::Postgres(url) => {
            let mut connection = sqlx::PgConnection::connect(url).await.expect("it answers");
            sqlx::query_as(ROWS).fetch_all(&mut connection).await.expect("it can be read")
        }
    }
}
