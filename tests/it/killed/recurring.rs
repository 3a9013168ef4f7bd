//! What recurs, and a process that is killed while it fires: every second is fired once, also
//! those that passed while nobody ran.

use std::path::PathBuf;
use std::time::Duration;

use sagabus::admin::{Action, Change};
use sagabus::faults::Point;
use sagabus::prelude::*;
use sagabus::schedule::{Schedule, ScheduleVerb, schedule_id};
use sagabus::store::StoreAdmin;
use sagabus::{Missed, PgStore, Postgres, Sqlite, SqliteStore, Timestamp, Tx, cron};
use sagabus_testkit::wait::eventually;
use serde::{Deserialize, Serialize};

use crate::databases::{block_on, create_database, drop_database, say, server};

use super::ledger::{ledger_rows, prepare};
use super::plan::Database;
use super::process::{Child, Ended, run_child};

const DATABASE: &str = "SAGABUS_KILL_RECURRING";
/// Seconds that a process sees fired before it ends by itself.
const TICKS: usize = 4;

#[derive(Command, Serialize, Deserialize)]
#[message("clock.tick")]
struct Tick {
    second: i64,
}

fn tick(due: Timestamp) -> Tick {
    Tick {
        second: due.as_micros() / 1_000_000,
    }
}

/// Runs the host when this binary was started as a child; else there is nothing to do.
#[test]
fn runs_only_as_a_child() {
    let Ok(database) = std::env::var(DATABASE) else {
        return;
    };
    let runtime = tokio::runtime::Runtime::new().expect("a runtime needs threads and a timer");
    runtime.block_on(async {
        if database.starts_with("postgres") {
            let store = PgStore::connect(&database).await;
            postgres::run(
                store.expect("the server answers"),
                Database::Postgres(database),
            )
            .await;
        } else {
            let store = SqliteStore::open(&database).await;
            let database = Database::Sqlite(database.into());
            sqlite::run(store.expect("the file can be opened"), database).await;
        }
    });
}

/// The host for one engine: they differ by their `Tx` and by how parameters are written.
macro_rules! workload {
    ($module:ident, $engine:ident, $store:ident, $insert:literal) => {
        mod $module {
            use super::*;

            async fn note(tick: Tick, mut tx: Tx<$engine>) -> Result {
                let connection = tx.conn().await?;
                let insert = sqlx::query($insert).bind(tick.second);
                insert.execute(connection).await?;
                Ok(())
            }

            pub(super) async fn run(store: $store, database: Database) {
                let every = cron("* * * * * *").missed(Missed::All { max: 1000 });
                let host = Host::builder("child")
                    .store(store.clone())
                    .lease(Duration::from_millis(900))
                    .endpoint("clock", |e| e.handle(note))
                    .recurring("tick", every, tick)
                    .build()
                    .expect("it is put together well");
                let host = host.start().await.expect("the host starts");
                let before = ledger_rows(&database).await.len();
                let look = || async {
                    let rows = ledger_rows(&database).await.len();
                    (rows >= before + TICKS).then_some(())
                };
                eventually("ticks", look).await;
                pause(&store).await;
                let quiet = || async {
                    let counts = store.counts().await.expect("rows can be counted");
                    (counts.outbox == 0).then_some(())
                };
                eventually("an empty outbox", quiet).await;
                assert!(host.stop(Duration::from_secs(10)).await, "nothing is left");
            }
        }
    };
}

workload!(
    sqlite,
    Sqlite,
    SqliteStore,
    "insert into ledger (transfer, leg, cents) values (?, 'tick', 0)"
);
workload!(
    postgres,
    Postgres,
    PgStore,
    "insert into ledger (transfer, leg, cents) values ($1, 'tick', 0)"
);

/// Pauses what recurs, so that what is fired and what is noted can be compared.
async fn pause(store: &dyn StoreAdmin) {
    let change = Change {
        who: "child".to_owned(),
        why: String::new(),
        action: Action::ChangeSchedule {
            name: "tick".to_owned(),
            verb: ScheduleVerb::Pause,
        },
    };
    let paused = store.change(&change).await.expect("it can be paused");
    assert_eq!(paused.len(), 1, "it was going on");
}

/// Reads how many the schedule says that it fired.
async fn fired(database: &Database) -> u64 {
    let id = schedule_id("tick");
    let found = match database {
        Database::Sqlite(path) => {
            let store = SqliteStore::open(path).await.expect("it opens");
            store.instance(&id).await
        }
        Database::Postgres(url) => {
            let store = PgStore::connect(url).await.expect("it answers");
            store.instance(&id).await
        }
    };
    let found = found.expect("it can be read").expect("it was declared");
    let schedule: Schedule = serde_json::from_slice(&found.data).expect("it is a schedule");
    schedule.fired
}

#[test]
fn a_process_killed_while_it_fires_on_sqlite_leaves_out_and_doubles_nothing() {
    let folder = std::env::temp_dir().join(format!("sagabus-recurring-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a temporary folder can be made");
    let place = |name: String| -> PathBuf { folder.join(format!("{name}.db")) };
    block_on(run_cells("sqlite", async |name| {
        Database::Sqlite(place(name))
    }));
    std::fs::remove_dir_all(&folder).expect("our own folder can be removed");
}

#[test]
fn a_process_killed_while_it_fires_on_postgres_leaves_out_and_doubles_nothing() {
    let Some(server) = server() else { return };
    let place = async |name: String| {
        let name = format!("recurring_{name}_{}", std::process::id());
        Database::Postgres(create_database(&server, &name).await)
    };
    let databases = block_on(run_cells("postgres", place));
    for database in databases {
        if let Database::Postgres(url) = database {
            block_on(drop_database(&server, &url));
        }
    }
}

/// Kills a process at each point of firing, first and later hit, lets another one go on, and
/// compares what was handled with what was fired.
async fn run_cells(set_up: &str, place: impl AsyncFn(String) -> Database) -> Vec<Database> {
    let mut cells = Vec::new();
    for point in [Point::BeforeFiring, Point::AfterFiring] {
        cells.extend([(point, 1), (point, 2)]);
    }
    // The commits of a firing and of its handling take turns.
    cells.extend([(Point::BeforeCommit, 3), (Point::AfterCommit, 3)]);
    let run = async |(point, hit): (Point, u64)| {
        let database = place(format!("{}_{hit}", point.as_str())).await;
        prepare(&database).await;
        run_cell(set_up, &database, point, hit).await;
        database
    };
    futures_util::future::join_all(cells.into_iter().map(run)).await
}

async fn run_cell(set_up: &str, database: &Database, point: Point, hit: u64) {
    let name = format!("{set_up}/{}/{hit}", point.as_str());
    let shown = match database {
        Database::Sqlite(path) => path.display().to_string(),
        Database::Postgres(url) => url.clone(),
    };
    let child = || {
        let child = Child::new("killed::recurring::runs_only_as_a_child");
        child.with(DATABASE, shown.clone())
    };
    let patience = Duration::from_secs(60);
    let killed = run_child(child().killed_at(point.as_str(), hit), patience).await;
    assert_eq!(killed, Ended::KilledAtPoint, "{name}");
    let heir = run_child(child(), patience).await;
    assert_eq!(heir, Ended::Done, "{name}: the restarted process finishes");
    let rows = ledger_rows(database).await;
    let mut seconds: Vec<_> = rows.iter().map(|(second, ..)| *second).collect();
    seconds.sort_unstable();
    let is_next = |pair: &[i64]| pair[1] == pair[0] + 1;
    assert!(seconds.windows(2).all(is_next), "{name}: {seconds:?}");
    let fired = fired(database).await;
    assert_eq!(fired, seconds.len() as u64, "{name}: {seconds:?}");
    say(&format!(
        "kill matrix {name}: killed, fired {fired}, each second once\n"
    ));
}
