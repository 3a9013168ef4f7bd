//! The doors for an API's own SQL are shut while the outbox is too old, as the bus is.

use std::sync::Arc;
use std::time::Duration;

use sagabus_core::{BusError, Command, Host, Kind, Message, Store};
use sagabus_outbox::{BusExt, PgStore, SqliteStore};
use sagabus_testkit::bus::stop;
use sagabus_testkit::wait::eventually;
use serde::{Deserialize, Serialize};
use sqlx::{Connection, SqliteConnection};

use crate::postgres_support::Database;
use crate::sqlite_support::Folder;

#[derive(Serialize, Deserialize)]
struct Print;

impl Message for Print {
    const TYPE: &'static str = "overloaded.print";
    const KIND: Kind = Kind::Command;
}
impl Command for Print {}

/// Leaves an endpoint without a host, and returns an API that may not wait for it for long.
async fn api(store: Arc<dyn Store>) -> sagabus_core::RunningHost {
    let printer = Host::builder("printer")
        .shared_store(Arc::clone(&store))
        .endpoint("work", |e| e.handle(async |_: Print| {}));
    stop(printer.build().unwrap().start().await.unwrap()).await;
    let api = Host::builder("api")
        .shared_store(store)
        .lease(Duration::from_millis(300))
        .overloaded_after(Duration::from_millis(200));
    api.build().unwrap().start().await.unwrap()
}

fn is_overloaded<T>(answer: &Result<T, BusError>) -> bool {
    matches!(answer, Err(BusError::Overloaded { .. }))
}

/// Makes the test of an engine: its store, and a transaction of the caller's own.
macro_rules! both_doors_are_shut {
    ($store:expr, $own:expr) => {{
        let (store, mut own) = ($store, $own);
        let api = api(Arc::new(store.clone())).await;
        let bus = api.bus();
        bus.send(Print).await.expect("the outbox is empty");
        let look = || async { is_overloaded(&store.begin(&bus).await).then_some(()) };
        eventually("a door that is shut", look).await;
        let mut transaction = own.begin().await.unwrap();
        let sent = bus.outbox(&mut transaction).send(Print).await;
        assert!(is_overloaded(&sent), "{sent:?}");
        transaction.rollback().await.unwrap();
        stop(api).await;
        let left = sagabus_core::store::StoreAdmin::counts(&store).await;
        assert_eq!(left.unwrap().outbox, 1, "nothing came through");
    }};
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outbox_that_is_too_old_shuts_both_doors_of_a_file() {
    let folder = Folder::new();
    let store = SqliteStore::open(folder.file()).await.unwrap();
    store.migrate().await.unwrap();
    let url = format!("sqlite://{}", folder.file().display());
    both_doors_are_shut!(store, SqliteConnection::connect(&url).await.unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outbox_that_is_too_old_shuts_both_doors_of_a_server() {
    let Some((database, store)) = Database::migrated().await else {
        return;
    };
    let store: PgStore = store;
    both_doors_are_shut!(store, database.connection().await);
}
