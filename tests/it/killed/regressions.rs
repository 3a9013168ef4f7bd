//! Two deaths that nobody would think of: a message that kills its host, and a process that dies
//! between the commit and the ack of every failing attempt.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use sagabus::prelude::*;
use sagabus::store::{StoreAdmin, StoredDeadLetter};
use sagabus::{Kind, MessageId, PgStore, Store};
use sagabus_testkit::fault_broker::{FaultBroker, FaultTransport};
use serde::{Deserialize, Serialize};
use sqlx::{Connection, Executor, SqliteConnection};

use crate::databases::{create_database, drop_database, server};

use super::plan::Database;
use super::process::{Child, Ended, run_child};

const FOLDER: &str = "SAGABUS_KILL_FOLDER";
const BROKER: &str = "SAGABUS_KILL_BROKER";
const SERVER: &str = "SAGABUS_KILL_SERVER";
const PATIENCE: Duration = Duration::from_secs(60);

#[derive(Debug, Serialize, Deserialize)]
struct Work {
    n: u32,
}

impl Message for Work {
    const TYPE: &'static str = "killed.work";
    const KIND: Kind = Kind::Command;
}
impl Command for Work {}

/// Notes in a file of its own, which no transaction takes back, that a handler ran.
fn note(folder: &Path, n: u32) {
    let mut notes = OpenOptions::new()
        .append(true)
        .open(folder.join("notes"))
        .expect("it was made");
    notes
        .write_all(format!("{n}\n").as_bytes())
        .expect("it can be appended to");
}

fn notes(folder: &Path) -> BTreeMap<u32, usize> {
    let text = std::fs::read_to_string(folder.join("notes")).expect("it was made");
    let mut counts = BTreeMap::new();
    for line in text.lines() {
        *counts
            .entry(line.parse().expect("only numbers are noted"))
            .or_default() += 1;
    }
    counts
}

fn folder(name: &str) -> PathBuf {
    let folder = std::env::temp_dir().join(format!("sagabus-{name}-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a temporary folder can be made");
    File::create(folder.join("notes")).expect("a file can be made");
    folder
}

fn file(folder: &Path) -> PathBuf {
    folder.join("bus.db")
}

async fn open(folder: &Path) -> SqliteStore {
    let store = SqliteStore::open(file(folder))
        .await
        .expect("the file can be opened");
    store.migrate().await.expect("it can be migrated");
    store
}

/// Opens a database: as a host uses it, and as one looks at it.
async fn open_at(database: &Database) -> (Arc<dyn Store>, Arc<dyn StoreAdmin>) {
    match database {
        Database::Sqlite(path) => {
            let store = SqliteStore::open(path).await;
            let store = store.expect("the file can be opened");
            store.migrate().await.expect("it can be migrated");
            (Arc::new(store.clone()), Arc::new(store))
        }
        Database::Postgres(url) => {
            let store = PgStore::connect(url).await.expect("the server answers");
            store.migrate().await.expect("it can be migrated");
            (Arc::new(store.clone()), Arc::new(store))
        }
    }
}

async fn dead_letters(store: &dyn StoreAdmin) -> Vec<StoredDeadLetter> {
    store
        .dead_letters(10)
        .await
        .expect("dead letters can be read")
}

async fn wait_until_empty(store: &SqliteStore) {
    let is_empty = || async {
        let counts = store.counts().await.expect("rows can be counted");
        (counts.outbox == 0).then_some(())
    };
    sagabus_testkit::wait::eventually("an empty outbox", is_empty).await;
}

/// What a child was told: its folder and its broker. `None` in the parent.
fn told() -> Option<(PathBuf, Option<SocketAddr>)> {
    let folder = PathBuf::from(std::env::var_os(FOLDER)?);
    let broker = std::env::var(BROKER)
        .ok()
        .and_then(|address| address.parse().ok());
    Some((folder, broker))
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build();
    runtime.expect("a runtime needs threads").block_on(future)
}

const KILLER: u32 = 50;

#[test]
fn runs_only_as_a_poisoned_child() {
    let Some((folder, _)) = told() else { return };
    async fn work(command: Work, folder: State<PathBuf>, mut tx: Tx<Sqlite>) -> Result {
        if command.n == KILLER {
            std::process::abort();
        }
        note(&folder, command.n);
        let effect = sqlx::query("insert into effect values (?)").bind(command.n);
        effect.execute(tx.conn().await?).await?;
        Ok(())
    }
    block_on(async {
        let store = open(&folder).await;
        let host = Host::builder("poisoned")
            .store(store.clone())
            .state(folder.clone());
        let host = host
            .lease(Duration::from_millis(500))
            .endpoint("work", |e| e.handle(work));
        let host = host
            .build()
            .expect("it can be built")
            .start()
            .await
            .expect("it starts");
        if !folder.join("sent").exists() {
            // On a busy machine the first are due while the last are sent: they are sent again then.
            for n in 0..=100_u32 {
                let id = MessageId::derived(&["poisoned", &n.to_string()]);
                let bus = host.bus();
                let sent = bus.schedule(Duration::from_millis(300), Work { n });
                sent.with_id(id).await.expect("it is stored");
            }
            File::create(folder.join("sent")).expect("a file can be made");
        }
        wait_until_empty(&store).await;
        host.stop(Duration::from_secs(10)).await;
    });
}

#[test]
fn a_message_that_kills_its_host_is_a_dead_letter_and_its_neighbours_are_handled() {
    let folder = folder("poison");
    block_on(async {
        let url = format!("sqlite://{}", file(&folder).display());
        // No constraint that could hide a duplicate.
        open(&folder).await;
        let mut ledger = SqliteConnection::connect(&url).await.expect("it opens");
        let table = ledger.execute("create table effect (n integer not null)");
        table.await.expect("a table can be made");
        let mut aborts = 0;
        let child = || {
            let child = Child::new("killed::regressions::runs_only_as_a_poisoned_child");
            child.with(FOLDER, folder.display().to_string())
        };
        while run_child(child(), PATIENCE).await == Ended::Aborted {
            aborts += 1;
            assert!(aborts < 12, "it is tried for ever");
        }
        let dead = dead_letters(&open(&folder).await).await;
        assert_eq!(dead.len(), 1, "{dead:?}");
        assert_eq!(dead[0].reason, "killed_host");
        assert_eq!(&dead[0].envelope.body[..], br#"{"n":50}"#);
        // Two starts together with others, three alone.
        assert_eq!(aborts, 5);
        let notes = notes(&folder);
        assert_eq!(notes.len(), 100, "every neighbour was handled");
        let effects = sqlx::query_scalar("select n from effect order by n");
        let effects: Vec<u32> = effects.fetch_all(&mut ledger).await.expect("it is read");
        let expected: Vec<u32> = (0..=100).filter(|n| *n != KILLER).collect();
        assert_eq!(effects, expected, "once each");
    });
    std::fs::remove_dir_all(&folder).expect("our own folder can be removed");
}

/// Where a failing child's messages are: in a folder's file, or on a server.
fn told_where(folder: &Path) -> Database {
    match std::env::var(SERVER) {
        Ok(url) => Database::Postgres(url),
        Err(_) => Database::Sqlite(file(folder)),
    }
}

#[test]
fn runs_only_as_a_failing_child() {
    let Some((folder, Some(broker))) = told() else {
        return;
    };
    async fn work(
        command: Work,
        cx: Ctx,
        folder: State<PathBuf>,
        store: State<Arc<dyn StoreAdmin>>,
    ) -> Result {
        note(&folder, command.n);
        if folder.join("healed").exists() {
            return Ok(());
        }
        if cx.attempt() == 1 {
            // The broker may be faster than the settle of the row that was sent.
            let is_settled = || async {
                let counts = store.counts().await.expect("rows can be counted");
                (counts.outbox == 0).then_some(())
            };
            sagabus_testkit::wait::eventually("the sent row's end", is_settled).await;
        }
        Err(HandlerError::new("never before it is healed"))
    }
    let retry = Retry {
        immediate: 0,
        delayed: 4,
        delay: Duration::from_millis(50),
        delay_max: Duration::from_millis(50),
        ..Retry::default()
    };
    block_on(async {
        let (store, admin) = open_at(&told_where(&folder)).await;
        let host = Host::builder("failing")
            .shared_store(store)
            .state(Arc::clone(&admin))
            .state(folder.clone());
        let host = host
            .transport(FaultTransport::new(broker))
            .lease(Duration::from_millis(400));
        let host = host.endpoint("work", |e| e.handle(work).retry(retry));
        let host = host
            .build()
            .expect("it can be built")
            .start()
            .await
            .expect("it starts");
        if !folder.join("sent").exists() {
            host.bus().send(Work { n: 1 }).await.expect("it is stored");
            File::create(folder.join("sent")).expect("a file can be made");
        }
        let is_over = || async {
            let counts = admin.counts().await.expect("rows can be counted");
            let dead = dead_letters(&*admin).await.len();
            let is_healed = folder.join("healed").exists();
            (counts.outbox == 0 && dead == usize::from(!is_healed)).then_some(())
        };
        sagabus_testkit::wait::eventually("the end of all attempts", is_over).await;
        host.stop(Duration::from_secs(10)).await;
    });
}

#[test]
fn killed_between_commit_and_ack_of_each_of_five_attempts_there_are_five_and_one_dead_letter() {
    let folder = folder("failing");
    block_on(five_attempts(&folder, &Database::Sqlite(file(&folder))));
    std::fs::remove_dir_all(&folder).expect("our own folder can be removed");
}

#[test]
fn killed_between_commit_and_ack_on_postgres_there_are_five_attempts_and_one_dead_letter() {
    let Some(server) = server() else { return };
    let folder = folder("failing-on-postgres");
    block_on(async {
        let name = format!("kill_failing_{}", std::process::id());
        let url = create_database(&server, &name).await;
        five_attempts(&folder, &Database::Postgres(url.clone())).await;
        drop_database(&server, &url).await;
    });
    std::fs::remove_dir_all(&folder).expect("our own folder can be removed");
}

async fn five_attempts(folder: &Path, database: &Database) {
    let broker = FaultBroker::start()
        .await
        .expect("a port can be listened on");
    let child = || {
        let child = Child::new("killed::regressions::runs_only_as_a_failing_child");
        let child = child.with(FOLDER, folder.display().to_string());
        let child = child.with(BROKER, broker.address().to_string());
        match database {
            Database::Sqlite(_) => child,
            Database::Postgres(url) => child.with(SERVER, url.clone()),
        }
    };
    let (store, admin) = open_at(database).await;
    let counts = || async { admin.counts().await.expect("rows can be counted") };
    for _ in 0..4 {
        let killed = run_child(child().killed_at("after_take_over", 1), PATIENCE).await;
        assert_eq!(killed, Ended::KilledAtPoint);
        let counts = counts().await;
        let live = (counts.outbox, counts.dead_letters);
        assert_eq!(live, (1, 0), "one live copy");
    }
    let killed = run_child(child().killed_at("after_dead_letter", 1), PATIENCE).await;
    assert_eq!(killed, Ended::KilledAtPoint);
    assert_eq!(run_child(child(), PATIENCE).await, Ended::Done);
    let expected = BTreeMap::from([(1, 5)]);
    assert_eq!(notes(folder), expected, "exactly five attempts");
    let dead = dead_letters(&*admin).await;
    assert_eq!((dead.len(), dead[0].attempts.len()), (1, 5));

    // The inbox forgets, an operator redrives: it is handled once more, not twice.
    let retention = sagabus::store::Retention {
        inbox: Duration::ZERO,
        ..Default::default()
    };
    store.sweep(&retention).await.expect("it can be swept");
    assert_eq!(counts().await.inbox, 0);
    File::create(folder.join("healed")).expect("a file can be made");
    assert!(admin.redrive(dead[0].id).await.expect("it can be redriven"));
    assert_eq!(run_child(child(), PATIENCE).await, Ended::Done);
    let expected = BTreeMap::from([(1, 6)]);
    assert_eq!(notes(folder), expected, "and one more for the redrive");
}
