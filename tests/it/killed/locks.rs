//! A process killed while sagas hold a lock and wait for it: one at a time, each once, none for ever.

use std::time::Duration;

use sagabus::faults::Point;
use sagabus::prelude::*;
use sagabus::store::StoreAdmin;
use sagabus::{
    HostBuilder, Kind, NotReserved, Outgoing, PgStore, Postgres, Reserve, Reserved, Sqlite,
    SqliteStore, Tx,
};
use sagabus_testkit::fault_broker::FaultBroker;
use serde::{Deserialize, Serialize};

use crate::databases::{block_on, create_database, drop_database, say, server};

use super::child::connected;
use super::plan::{Broker, Database, Plan};
use super::process::{Ended, run_child};

/// Guests of the one room.
const GUESTS: i64 = 20;
/// How long a guest has the room, at least, and stays in the house after it.
const REST: Duration = Duration::from_millis(10);
/// How long a child may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// Where it dies, and at which hit: while they come, and while the line is worked off.
const CELLS: [(Point, u64); 10] = [
    (Point::Decoded, 50),
    (Point::Loaded, 20),
    (Point::Handled, 15),
    (Point::Handled, 70),
    (Point::BeforeCommit, 4),
    (Point::BeforeCommit, 25),
    (Point::AfterCommit, 4),
    (Point::AfterCommit, 25),
    (Point::BeforeTxCommit, 9),
    (Point::AfterTxCommit, 10),
];

/// Where it dies when a broker carries the questions and answers.
const BROKER_CELLS: [(Point, u64); 4] = [
    (Point::BeforeAck, 15),
    (Point::AfterAck, 30),
    (Point::BeforePublish, 9),
    (Point::AfterPublish, 9),
];

macro_rules! message {
    ($kind:ident $name:ident $type:literal) => {
        #[derive(Clone, Debug, Serialize, Deserialize)]
        struct $name {
            guest: i64,
        }

        impl Message for $name {
            const TYPE: &'static str = $type;
            const KIND: Kind = Kind::$kind;
        }
        impl $kind for $name {}

        impl Correlate<Guest> for $name {
            fn key(&self) -> i64 {
                self.guest
            }
        }
    };
}

message!(Command Come "guests.come");
message!(Event Rested "guests.rested");
message!(Event Homesick "guests.homesick");

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Place {
    Outside,
    Inside,
    Lobby,
}

impl SagaState for Place {
    const ALL: &'static [Self] = &[Self::Outside, Self::Inside, Self::Lobby];

    fn name(self) -> &'static str {
        match self {
            Self::Outside => "outside",
            Self::Inside => "inside",
            Self::Lobby => "lobby",
        }
    }
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Guest {
    guest: i64,
    fence: u64,
}

impl Saga for Guest {
    type Key = i64;
    type State = Place;
}

/// Machine and child for one engine: they differ by their `Tx` and by how parameters are written.
macro_rules! guests {
    ($module:ident, $engine:ident, $store:ident, $insert:literal) => {
        mod $module {
            use super::*;

            async fn note(tx: &mut Tx<$engine>, guest: &Guest, what: &'static str) -> Result {
                let fence = i64::try_from(guest.fence).expect("fences are small");
                let row = sqlx::query($insert)
                    .bind(guest.guest)
                    .bind(what)
                    .bind(fence);
                row.execute(tx.conn().await?).await?;
                Ok(())
            }

            async fn enter(
                mut guest: Guest,
                answer: Reserved,
                mut tx: Tx<$engine>,
            ) -> Result<Guest> {
                guest.fence = answer.fence;
                note(&mut tx, &guest, "in").await?;
                Ok(guest)
            }

            async fn leave(guest: Guest, _: Rested, mut tx: Tx<$engine>) -> Result<Guest> {
                note(&mut tx, &guest, "out").await?;
                Ok(guest)
            }

            async fn turned_away(
                guest: Guest,
                _: NotReserved,
                mut tx: Tx<$engine>,
            ) -> Result<Guest> {
                note(&mut tx, &guest, "turned away").await?;
                Ok(guest)
            }

            /// Every second guest has the room until its end, the others give it back before.
            fn guests() -> StateMachine<Guest> {
                let room = |_: &Guest, _: &Come| Reserve::key("room", 1).wait_for(PATIENCE * 10);
                StateMachine::named("guest")
                    .initially(
                        Guest::when::<Come>()
                            .init(|m| Guest {
                                guest: m.guest,
                                fence: 0,
                            })
                            .reserve("room", room)
                            .transition_to(Place::Outside),
                    )
                    .during(
                        Place::Outside,
                        Guest::when_answered::<Reserved>("room")
                            .run(enter)
                            .schedule("rest", REST, |g, _| Rested { guest: g.guest })
                            .transition_to(Place::Inside),
                    )
                    .during(
                        Place::Outside,
                        Guest::when_answered::<NotReserved>("room")
                            .run(turned_away)
                            .finalize(),
                    )
                    .during(
                        Place::Inside,
                        Guest::when_if::<Rested>(|g, _| g.guest % 2 == 0)
                            .run(leave)
                            .finalize(),
                    )
                    .during(
                        Place::Inside,
                        Guest::when_else::<Rested>()
                            .run(leave)
                            .release("room")
                            .schedule("home", REST, |g, _| Homesick { guest: g.guest })
                            .transition_to(Place::Lobby),
                    )
                    .during(Place::Lobby, Guest::when::<Homesick>().finalize())
            }

            pub(super) fn equip(builder: HostBuilder, store: $store) -> HostBuilder {
                builder
                    .store(store)
                    .lease(Duration::from_millis(900))
                    .endpoint("guests", |e| e.machine(guests()))
                    .endpoint("locks", |e| e.locks())
            }

            pub(super) async fn run(store: $store, broker: Option<&Broker>) {
                let builder = connected(Host::builder("child"), broker);
                let host = equip(builder, store.clone()).build();
                let host = host.expect("it is put together well");
                let host = host.start().await.expect("the host starts");
                let is_over = || async { is_over(&store).await.then_some(()) };
                sagabus_testkit::wait::eventually("every guest has gone", is_over).await;
                assert!(
                    host.stop(Duration::from_secs(20)).await,
                    "nothing was in hand"
                );
            }

            /// Declares the endpoints, and lets the guests wait for a process that handles them.
            pub(super) async fn place(store: $store, broker: Option<&Broker>) {
                store.migrate().await.expect("it can be migrated");
                let declares = connected(Host::builder("declares"), broker);
                let declares = equip(declares, store.clone()).build();
                let declares = declares.expect("it is put together well");
                let declares = declares.start().await.expect("the host starts");
                declares.stop(PATIENCE).await;
                let sends = connected(Host::builder("sends"), broker)
                    .store(store)
                    .build();
                let sends = sends.expect("a host may only send");
                let sends = sends.start().await.expect("the host starts");
                let come = |guest| Outgoing::new(&Come { guest }).expect("it can be encoded");
                let sent = sends.bus().send_all((0..GUESTS).map(come).collect()).await;
                sent.expect("they are stored");
                assert!(sends.stop(PATIENCE).await, "what was sent has left");
            }
        }
    };
}

guests!(
    sqlite,
    Sqlite,
    SqliteStore,
    "insert into visit (guest, what, fence) values (?, ?, ?)"
);
guests!(
    postgres,
    Postgres,
    PgStore,
    "insert into visit (guest, what, fence) values ($1, $2, $3)"
);

/// Says whether every guest has been and gone, and nobody has the room.
async fn is_over(admin: &impl StoreAdmin) -> bool {
    let counts = admin.counts().await.expect("rows can be counted");
    assert_eq!(counts.dead_letters, 0, "nothing fails here");
    let guests = u64::try_from(GUESTS).expect("it is positive");
    (counts.outbox, counts.running) == (0, 0) && counts.completed > guests
}

/// Runs the child: until nothing is left to do, or to its death.
#[test]
fn runs_only_as_a_child_with_a_lock() {
    let Some(assignment) = Plan::from_environment() else {
        return;
    };
    let broker = assignment.broker.as_ref();
    block_on(async {
        match &assignment.database {
            Database::Sqlite(path) => {
                let store = SqliteStore::open(path)
                    .await
                    .expect("the file can be opened");
                sqlite::run(store, broker).await;
            }
            Database::Postgres(url) => {
                let store = PgStore::connect(url).await.expect("the server answers");
                postgres::run(store, broker).await;
            }
        }
    });
}

#[test]
fn a_process_killed_while_a_lock_is_held_on_sqlite_lets_one_in_at_a_time() {
    block_on(run_cells("sqlite", None, false));
}

#[test]
fn a_process_killed_while_a_lock_is_held_with_a_broker_lets_one_in_at_a_time() {
    block_on(run_cells("sqlite+broker", None, true));
}

#[test]
fn a_process_killed_while_a_lock_is_held_on_postgres_lets_one_in_at_a_time() {
    let Some(server) = server() else { return };
    block_on(run_cells("postgres", Some(&server), false));
}

async fn run_cells(set_up: &str, server: Option<&str>, has_broker: bool) {
    let folder = std::env::temp_dir();
    let folder = folder.join(format!("sagabus-locks-{set_up}-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a temporary folder can be made");
    let more = if has_broker { &BROKER_CELLS[..] } else { &[] };
    let (mut cells, mut held) = (0, 0);
    for (point, hit) in CELLS.iter().chain(more) {
        let name = format!("{}_{hit}", point.as_str());
        let database = match server {
            None => Database::Sqlite(folder.join(format!("{name}.db"))),
            Some(server) => {
                let name = format!("locks_{name}_{}", std::process::id());
                Database::Postgres(create_database(server, &name).await)
            }
        };
        let broker = match has_broker {
            true => Some(FaultBroker::start().await.expect("a port can be had")),
            false => None,
        };
        let plan = Plan {
            broker: broker.as_ref().map(|one| Broker::Fault(one.address())),
            database,
            transfers: GUESTS,
            fault: Some((point.as_str(), *hit)),
            removed: None,
            quiet_within: PATIENCE,
            patience: PATIENCE,
        };
        held += u32::from(run_cell(&format!("{set_up}/{name}"), &plan).await);
        cells += 1;
        if let (Some(server), Database::Postgres(url)) = (server, &plan.database) {
            drop_database(server, url).await;
        }
    }
    say(&format!(
        "killed with a lock {set_up}: {cells} cells, {held} while somebody was inside, {GUESTS} \
         guests each, never two at a time, none twice, none left out\n"
    ));
    assert!(held > 0, "nobody had the lock at any death");
    std::fs::remove_dir_all(&folder).expect("our own folder can be removed");
}

/// Kills one child and lets another finish. Says whether somebody was inside at the death.
async fn run_cell(name: &str, plan: &Plan) -> bool {
    place(plan).await;
    let child = |plan: &Plan| plan.child_of("killed::locks::runs_only_as_a_child_with_a_lock");
    let ended = run_child(child(plan), PATIENCE).await;
    assert_eq!(ended, Ended::KilledAtPoint, "{name}");
    let was_inside = visits(&plan.database).await.len() % 2 == 1;
    let heir = Plan {
        fault: None,
        ..plan.clone()
    };
    let ended = run_child(child(&heir), PATIENCE).await;
    assert_eq!(ended, Ended::Done, "{name}: the restarted process finishes");
    judge(name, &visits(&plan.database).await);
    was_inside
}

/// Each guest was inside once, alone, and each fence was higher than the one before.
fn judge(name: &str, visits: &[(i64, String, i64)]) {
    let mut last = 0;
    for visit in visits.chunks(2) {
        let [(guest, what, fence), out] = visit else {
            panic!("{name}: somebody is still inside: {visits:?}");
        };
        assert_eq!(what, "in", "{name}: {visits:?}");
        let gone = (*guest, "out".to_owned(), *fence);
        assert_eq!(*out, gone, "{name}: two at a time: {visits:?}");
        assert!(*fence > last, "{name}: fence {fence} after {last}");
        last = *fence;
    }
    let mut guests: Vec<_> = visits.iter().step_by(2).map(|(guest, ..)| *guest).collect();
    guests.sort_unstable();
    assert!(guests.into_iter().eq(0..GUESTS), "{name}: {visits:?}");
}

/// Makes the database, its table and the guests.
async fn place(plan: &Plan) {
    use sqlx::{Connection, Executor};
    const TABLE: &str = "guest bigint not null, what text not null, fence bigint not null)";
    let broker = plan.broker.as_ref();
    match &plan.database {
        Database::Sqlite(path) => {
            let store = SqliteStore::open(path).await.expect("the file can be made");
            sqlite::place(store, broker).await;
            let url = format!("sqlite://{}", path.display());
            let mut own = sqlx::SqliteConnection::connect(&url)
                .await
                .expect("it opens");
            let table = format!("create table visit (n integer primary key autoincrement, {TABLE}");
            let made = own.execute(sqlx::AssertSqlSafe(table)).await;
            made.expect("a table can be made");
        }
        Database::Postgres(url) => {
            let store = PgStore::connect(url).await.expect("the server answers");
            postgres::place(store, broker).await;
            let mut own = sqlx::PgConnection::connect(url).await.expect("it answers");
            let table = format!("create table visit (n bigserial primary key, {TABLE}");
            let made = own.execute(sqlx::AssertSqlSafe(table)).await;
            made.expect("a table can be made");
        }
    }
}

/// Reads who went in and out, in order, with a connection of its own.
async fn visits(database: &Database) -> Vec<(i64, String, i64)> {
    use sqlx::Connection;
    const ROWS: &str = "select guest, what, fence from visit order by n";
    let rows = match database {
        Database::Sqlite(path) => {
            let url = format!("sqlite://{}", path.display());
            let mut own = sqlx::SqliteConnection::connect(&url)
                .await
                .expect("it opens");
            sqlx::query_as(ROWS).fetch_all(&mut own).await
        }
        Database::Postgres(url) => {
            let mut own = sqlx::PgConnection::connect(url).await.expect("it answers");
            sqlx::query_as(ROWS).fetch_all(&mut own).await
        }
    };
    rows.expect("it can be read")
}
