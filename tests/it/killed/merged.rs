//! A process killed while many messages of one instance are one unit: all of them or none.

use std::time::Duration;

use sagabus::faults::Point;
use sagabus::prelude::*;
use sagabus::store::{Store, StoreAdmin};
use sagabus::{HostBuilder, InstanceId, Kind, Outgoing};
use sagabus_testkit::fault_broker::FaultBroker;
use serde::{Deserialize, Serialize};

use crate::databases::{block_on, create_database, drop_database, say, server};

use super::child::connected;
use super::plan::{Broker, Database, Plan};
use super::process::{Ended, run_child};

/// Messages for one instance: several full units.
const MESSAGES: i64 = 300;
/// How long a child may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// Where it dies, and at which hit: the first message goes alone, those behind it together.
const CELLS: [(Point, u64); 10] = [
    (Point::Received, 100),
    (Point::Decoded, 100),
    (Point::Loaded, 2),
    (Point::Loaded, 4),
    (Point::Handled, 30),
    (Point::Handled, 150),
    (Point::BeforeCommit, 2),
    (Point::BeforeCommit, 4),
    (Point::AfterCommit, 2),
    (Point::AfterCommit, 4),
];

/// Where it dies when a broker brings the messages.
const BROKER_CELLS: [(Point, u64); 2] = [(Point::BeforeAck, 30), (Point::AfterAck, 30)];

macro_rules! message {
    ($kind:ident $name:ident $type:literal $saga:ident) => {
        #[derive(Clone, Debug, Serialize, Deserialize)]
        struct $name {
            n: i64,
        }

        impl Message for $name {
            const TYPE: &'static str = $type;
            const KIND: Kind = Kind::$kind;
        }
        impl $kind for $name {}

        impl Correlate<$saga> for $name {
            fn key(&self) -> String {
                KEY.to_owned()
            }
        }
    };
}

/// The one key.
const KEY: &str = "all";

message!(Command Add "merged.add" Hot);
message!(Event Added "merged.added" Book);

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Stage {
    Adding,
}

impl SagaState for Stage {
    const ALL: &'static [Self] = &[Self::Adding];

    fn name(self) -> &'static str {
        "adding"
    }
}

#[derive(Debug, Default, Serialize, Deserialize)]
struct Hot {
    seen: Vec<i64>,
}

impl Saga for Hot {
    type Key = String;
    type State = Stage;
}

fn hot() -> StateMachine<Hot> {
    StateMachine::named("hot")
        .endless()
        .initially(
            Hot::when::<Add>()
                .init(|m| Hot { seen: vec![m.n] })
                .publish(|_, m| Added { n: m.n })
                .transition_to(Stage::Adding),
        )
        .during(
            Stage::Adding,
            Hot::when::<Add>()
                .then(|hot, m| hot.seen.push(m.n))
                .publish(|_, m| Added { n: m.n })
                .stay(),
        )
}

/// What the messages sent, which is one hot instance, too.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Book {
    seen: Vec<i64>,
}

impl Saga for Book {
    type Key = String;
    type State = ();
}

impl sagabus::NamedSaga for Book {
    const NAME: &'static str = "book";
}

impl Starts<Added> for Book {
    fn start(_: &Added) -> Self {
        Self::default()
    }
}

impl Handles<Added> for Book {
    async fn handle(&mut self, message: Added, _: &mut SagaCtx) -> Result {
        self.seen.push(message.n);
        Ok(())
    }
}

fn equip(builder: HostBuilder, store: impl Store) -> HostBuilder {
    let books = saga::<Book>().starts_with::<Added>().merges();
    builder
        .store(store)
        .lease(Duration::from_millis(900))
        .endpoint("hot", |e| e.machine(hot()))
        .endpoint("books", |e| e.saga(books))
}

/// Runs the child: until nothing is left to do, or to its death.
#[test]
fn runs_only_as_a_child_with_a_hot_instance() {
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
                run(store.clone(), &store, broker).await;
            }
            Database::Postgres(url) => {
                let store = PgStore::connect(url).await.expect("the server answers");
                run(store.clone(), &store, broker).await;
            }
        }
    });
}

async fn run(store: impl Store, admin: &dyn StoreAdmin, broker: Option<&Broker>) {
    let builder = connected(Host::builder("child"), broker);
    let host = equip(builder, store)
        .build()
        .expect("it is put together well");
    let host = host.start().await.expect("the host starts");
    let is_over = || async { (seen(admin).await == [MESSAGES, MESSAGES]).then_some(()) };
    sagabus_testkit::wait::eventually("every message", is_over).await;
    assert!(
        host.stop(Duration::from_secs(20)).await,
        "nothing was in hand"
    );
}

/// Returns the versions of both instances.
async fn seen(admin: &dyn StoreAdmin) -> [i64; 2] {
    let mut versions = [0, 0];
    for (at, kind) in ["hot", "book"].into_iter().enumerate() {
        let found = admin.instance(&id(kind)).await;
        let found = found.expect("instances can be read");
        versions[at] = found.map_or(0, |one| one.version);
    }
    versions
}

fn id(kind: &'static str) -> InstanceId {
    InstanceId {
        kind: kind.into(),
        key: KEY.into(),
    }
}

#[test]
fn a_process_killed_within_a_merged_unit_on_sqlite_loses_and_doubles_nothing() {
    block_on(run_cells("sqlite", None, false));
}

#[test]
fn a_process_killed_within_a_merged_unit_with_a_broker_loses_and_doubles_nothing() {
    block_on(run_cells("sqlite+broker", None, true));
}

#[test]
fn a_process_killed_within_a_merged_unit_on_postgres_loses_and_doubles_nothing() {
    let Some(server) = server() else { return };
    block_on(run_cells("postgres", Some(&server), false));
}

async fn run_cells(set_up: &str, server: Option<&str>, has_broker: bool) {
    let folder = std::env::temp_dir();
    let folder = folder.join(format!("sagabus-merged-{set_up}-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a temporary folder can be made");
    let more = if has_broker { &BROKER_CELLS[..] } else { &[] };
    let (mut cells, mut together) = (0, 0);
    for (point, hit) in CELLS.iter().chain(more) {
        let name = format!("{}_{hit}", point.as_str());
        let database = match server {
            None => Database::Sqlite(folder.join(format!("{name}.db"))),
            Some(server) => {
                let name = format!("merged_{name}_{}", std::process::id());
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
            transfers: MESSAGES,
            fault: Some((point.as_str(), *hit)),
            removed: None,
            quiet_within: PATIENCE,
            patience: PATIENCE,
        };
        let applied = run_cell(&format!("{set_up}/{name}"), &plan).await;
        cells += 1;
        together += u32::from(*point == Point::AfterCommit && applied > *hit);
        if let (Some(server), Database::Postgres(url)) = (server, &plan.database) {
            drop_database(server, url).await;
        }
    }
    say(&format!(
        "killed within merged units {set_up}: {cells} cells, {MESSAGES} messages each, lost 0, \
         duplicated 0\n"
    ));
    assert!(
        together > 0,
        "no commit before a death had several messages"
    );
    std::fs::remove_dir_all(&folder).expect("our own folder can be removed");
}

/// Kills one child and lets another finish. Returns how many messages the first had handled.
async fn run_cell(name: &str, plan: &Plan) -> u64 {
    let (applied, lists) = match &plan.database {
        Database::Sqlite(path) => {
            let store = SqliteStore::open(path).await.expect("the file can be made");
            store.migrate().await.expect("it can be migrated");
            cell(name, plan, store.clone(), &store).await
        }
        Database::Postgres(url) => {
            let store = PgStore::connect(url).await.expect("the server answers");
            store.migrate().await.expect("it can be migrated");
            cell(name, plan, store.clone(), &store).await
        }
    };
    let expected: Vec<i64> = (0..MESSAGES).collect();
    for mut list in lists {
        list.sort_unstable();
        assert_eq!(list, expected, "{name}");
    }
    applied
}

async fn cell<S: Store + Clone>(
    name: &str,
    plan: &Plan,
    store: S,
    admin: &dyn StoreAdmin,
) -> (u64, [Vec<i64>; 2]) {
    place(plan, store).await;
    let child =
        |plan: &Plan| plan.child_of("killed::merged::runs_only_as_a_child_with_a_hot_instance");
    let ended = run_child(child(plan), PATIENCE).await;
    assert_eq!(ended, Ended::KilledAtPoint, "{name}");
    let applied: i64 = seen(admin).await.iter().sum();
    let heir = Plan {
        fault: None,
        ..plan.clone()
    };
    let ended = run_child(child(&heir), PATIENCE).await;
    assert_eq!(ended, Ended::Done, "{name}: the restarted process finishes");
    assert_eq!(seen(admin).await, [MESSAGES, MESSAGES], "{name}");
    let mut lists = [Vec::new(), Vec::new()];
    for (list, kind) in lists.iter_mut().zip(["hot", "book"]) {
        let found = admin.instance(&id(kind)).await;
        let found = found.expect("instances can be read").expect("it is there");
        let data: Hot = serde_json::from_slice(&found.data).expect("both have one shape");
        *list = data.seen;
    }
    (u64::try_from(applied).expect("versions grow"), lists)
}

/// Declares the endpoints, and lets the messages wait for a process that handles them.
async fn place<S: Store + Clone>(plan: &Plan, store: S) {
    let broker = plan.broker.as_ref();
    let declares = equip(connected(Host::builder("declares"), broker), store.clone());
    let declares = declares.build().expect("it is put together well");
    let declares = declares.start().await.expect("the host starts");
    declares.stop(PATIENCE).await;
    let sends = connected(Host::builder("sends"), broker).store(store);
    let sends = sends.build().expect("a host may only send");
    let sends = sends.start().await.expect("the host starts");
    let add = |n| Outgoing::new(&Add { n }).expect("a number can be encoded");
    let sent = sends.bus().send_all((0..MESSAGES).map(add).collect()).await;
    sent.expect("they are stored");
    assert!(sends.stop(PATIENCE).await, "what was sent has left");
}
