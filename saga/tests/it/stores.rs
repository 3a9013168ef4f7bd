//! A fresh store of each kind for each test.

use std::future::Future;
use std::path::{Path, PathBuf};

use sagabus_core::memory::MemoryStore;
use sagabus_core::{Keyring, Protection};
use sagabus_outbox::{PgStore, SqliteStore};
use sagabus_testkit::bus::BusUnderTest;
use sagabus_testkit::saga::SagaTest;
use sagabus_testkit::store::StoreUnderTest;
use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{AssertSqlSafe, Connection};
use uuid::Uuid;

/// Makes a test of each behaviour, an `async fn(Scene)` of this module, on every store.
macro_rules! on_every_store {
    ($($name:ident,)*) => {
        on_every_store! { @store memory: $($name,)* }
        on_every_store! { @store sqlite: $($name,)* }
        on_every_store! { @store postgres: $($name,)* }
        on_every_store! { @store sealed: $($name,)* }
    };
    (@store $store:ident: $($name:ident,)*) => {
        mod $store {
            $(
                #[test]
                fn $name() {
                    sagabus_testkit::bus::run(
                        stringify!($name),
                        crate::stores::$store(),
                        super::$name,
                    );
                }
            )*
        }
    };
}

pub(crate) async fn memory() -> Option<StoreUnderTest> {
    Some(StoreUnderTest::new(MemoryStore::new()))
}

/// Nothing that hosts send is plain; what tests hand to a broker themselves is.
pub(crate) async fn sealed() -> Option<BusUnderTest> {
    let keys = Keyring::new("suite", [5; 32]).unwrap();
    let bus = BusUnderTest::from(memory().await?);
    Some(bus.declaring(move |host| host.protects(keys.clone(), Protection::Sealed)))
}

/// A fresh file, and a second store on it: another process, as far as SQLite can tell.
pub(crate) async fn sqlite() -> Option<StoreUnderTest> {
    let folder = Folder::new();
    let file = folder.file();
    let store = SqliteStore::open(&file).await.unwrap();
    store.migrate().await.unwrap();
    let peer = SqliteStore::open(&file).await.unwrap();
    Some(StoreUnderTest::new(store).with_peer(peer).keeping(folder))
}

/// A fresh database, and a second store on it with connections of its own.
pub(crate) async fn postgres() -> Option<StoreUnderTest> {
    let database = Database::new().await?;
    let store = PgStore::connect(&database.url).await.unwrap();
    store.migrate().await.unwrap();
    let peer = PgStore::connect(&database.url).await.unwrap();
    Some(StoreUnderTest::new(store).with_peer(peer).keeping(database))
}

/// Runs one scenario in memory, on a file and on a server.
pub(crate) fn everywhere(test: impl Fn() -> SagaTest, scenario: impl Fn(SagaTest)) {
    scenario(test());
    let folder = Folder::new();
    scenario(test().on(async {
        let store = SqliteStore::open(folder.file()).await.unwrap();
        store.migrate().await.unwrap();
        store
    }));
    if let Some(database) = wait_for(Database::new()) {
        scenario(test().on(async {
            let store = PgStore::connect(&database.url).await.unwrap();
            store.migrate().await.unwrap();
            store
        }));
    }
}

/// Waits on this thread.
pub(crate) fn wait_for<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    runtime.unwrap().block_on(future)
}

/// A directory that goes with its test.
pub(crate) struct Folder(PathBuf);

impl Folder {
    pub(crate) fn file(&self) -> PathBuf {
        self.0.join("test.db")
    }

    pub(crate) fn new() -> Self {
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("saga-{}", Uuid::now_v7()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0); // What stays is found by the next clean build.
    }
}

/// A database that is dropped with this value.
pub(crate) struct Database {
    server: PgConnectOptions,
    name: String,
    pub(crate) url: String,
}

impl Database {
    /// Makes an empty database; `None`, with a word, where there is no server.
    pub(crate) async fn new() -> Option<Self> {
        let Ok(url) = std::env::var("SAGABUS_POSTGRES_URL") else {
            assert!(
                std::env::var_os("SAGABUS_SERVICES_REQUIRED").is_none(),
                "services are required, but SAGABUS_POSTGRES_URL is not set"
            );
            println!("SKIPPED: SAGABUS_POSTGRES_URL is not set");
            return None;
        };
        let server: PgConnectOptions = url.parse().unwrap();
        let name = format!("sagabus_saga_{}", Uuid::now_v7().simple());
        run(&server, format!("create database {name}")).await;
        let at = url.find('?').unwrap_or(url.len());
        let (place, settings) = url.split_at(at);
        let slash = place.rfind('/').unwrap();
        let url = format!("{}/{name}{settings}", &place[..slash]);
        Some(Self { server, name, url })
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        let (server, name) = (self.server.clone(), self.name.clone());
        // A thread of its own: the test's runtime may be about to end, or in a panic.
        let dropped = std::thread::spawn(move || {
            let drop = format!("drop database if exists {name} with (force)");
            wait_for(run(&server, drop));
        });
        let _ = dropped.join(); // A database too many harms nobody.
    }
}

async fn run(server: &PgConnectOptions, sql: String) {
    let mut connection = PgConnection::connect_with(server).await.unwrap();
    sqlx::raw_sql(AssertSqlSafe(sql))
        .execute(&mut connection)
        .await
        .unwrap();
}

/// Says a result also where the test harness keeps the output of passing tests to itself.
pub(crate) fn say(line: &str) {
    use std::io::Write;
    std::io::stdout().write_all(line.as_bytes()).unwrap();
}
