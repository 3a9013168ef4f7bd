//! SQL of a user's own inside the unit of work of a machine and of a saga.

use std::sync::Arc;

use sagabus_core::store::{Store, StoreAdmin};
use sagabus_core::{HandlerError, Host, InstanceId, Result};
use sagabus_outbox::{CtxExt, PgStore, Postgres, Sqlite, SqliteStore, Tx};
use sagabus_saga::{
    Handles, MachineEndpoint, NamedSaga, Saga, SagaCtx, SagaEndpoint, SagaState, Starts,
    StateMachine, saga,
};
use sagabus_testkit::bus::stop;
use sagabus_testkit::wait::eventually;
use serde::{Deserialize, Serialize};
use sqlx::Connection;

use crate::stores::{Database, Folder};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Stage {
    Open,
}

impl SagaState for Stage {
    const ALL: &'static [Self] = &[Self::Open];

    fn name(self) -> &'static str {
        "open"
    }
}

#[derive(Debug, Serialize, Deserialize)]
struct Book {
    lines: u32,
}

impl Saga for Book {
    type Key = u64;
    type State = Stage;
}

messages! { Book:
    Command Write "books.write",
}

/// Declares a saga that writes in the transaction of an engine.
macro_rules! diary {
    ($name:ident, $engine:ident, $insert:literal) => {
        #[derive(Debug, Serialize, Deserialize)]
        struct $name {
            lines: u32,
        }

        impl Saga for $name {
            type Key = u64;
            type State = ();
        }

        impl NamedSaga for $name {
            const NAME: &'static str = "diary";
        }

        impl sagabus_saga::Correlate<$name> for Write {
            fn key(&self) -> u64 {
                self.id
            }
        }

        impl Starts<Write> for $name {
            fn start(_: &Write) -> Self {
                Self { lines: 0 }
            }
        }

        impl Handles<Write> for $name {
            async fn handle(&mut self, message: Write, cx: &mut SagaCtx) -> Result {
                let mut tx = cx.tx::<$engine>()?;
                let insert = sqlx::query($insert).bind(i64::try_from(message.id)?);
                insert.execute(tx.conn().await?).await?;
                self.lines += 1;
                fail_at_13(message.id)
            }
        }
    };
}

diary!(DiaryOnSqlite, Sqlite, "insert into lines (id) values (?1)");
diary!(
    DiaryOnPostgres,
    Postgres,
    "insert into lines (id) values ($1)"
);

fn fail_at_13(id: u64) -> Result {
    match id {
        13 => Err(HandlerError::new("fails after its statement").terminal()),
        _ => Ok(()),
    }
}

/// Declares the machine and the test for an engine.
macro_rules! own_sql {
    ($engine:ident, $write:ident, $books:ident, $insert:literal) => {
        async fn $write(mut book: Book, message: Write, mut tx: Tx<$engine>) -> Result<Book> {
            let insert = sqlx::query($insert).bind(i64::try_from(message.id)?);
            insert.execute(tx.conn().await?).await?;
            book.lines += 1;
            fail_at_13(message.id)?;
            Ok(book)
        }

        fn $books() -> StateMachine<Book> {
            StateMachine::named("book")
                .initially(
                    Book::when::<Write>()
                        .init(|_| Book { lines: 0 })
                        .run($write)
                        // The second function goes on in the transaction of the first.
                        .run($write)
                        .transition_to(Stage::Open),
                )
                .during(Stage::Open, Book::when::<Write>().run($write).finalize())
        }
    };
}

own_sql!(
    Sqlite,
    write_on_sqlite,
    books_on_sqlite,
    "insert into lines (id) values (?1)"
);
own_sql!(
    Postgres,
    write_on_postgres,
    books_on_postgres,
    "insert into lines (id) values ($1)"
);

const CREATE: &str = "create table lines (id bigint not null)";
const COUNT: &str = "select cast(sum(case when id = 7 then 1 else 100 end) as bigint) from lines";

/// Sends a message that succeeds and one that fails, and waits until both have ended.
async fn run(host: Host, store: Arc<dyn StoreAdmin>, kind: &'static str) {
    let host = host.start().await.unwrap();
    host.bus().send(Write { id: 7 }).await.unwrap();
    host.bus().send(Write { id: 13 }).await.unwrap();
    let look = || async {
        let counts = store.counts().await.unwrap();
        (counts.running == 1 && counts.dead_letters == 1).then_some(())
    };
    eventually("one instance and one dead letter", look).await;
    stop(host).await;
    let id = |key: &str| InstanceId {
        kind: kind.into(),
        key: key.into(),
    };
    assert_eq!(store.instance(&id("7")).await.unwrap().unwrap().version, 1);
    assert_eq!(store.instance(&id("13")).await.unwrap(), None);
    let dead = store.dead_letters(10).await.unwrap();
    assert_eq!(dead[0].reason, "terminal");
}

fn host(store: impl Store) -> sagabus_core::HostBuilder {
    Host::builder("library").store(store)
}

async fn sqlite() -> (Folder, SqliteStore, sqlx::SqliteConnection) {
    let folder = Folder::new();
    let store = SqliteStore::open(folder.file()).await.unwrap();
    store.migrate().await.unwrap();
    let url = format!("sqlite://{}", folder.file().display());
    let mut connection = sqlx::SqliteConnection::connect(&url).await.unwrap();
    sqlx::raw_sql(CREATE)
        .execute(&mut connection)
        .await
        .unwrap();
    (folder, store, connection)
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_of_a_machine_commit_with_its_state_or_not_at_all_on_sqlite() {
    let (_folder, store, mut connection) = sqlite().await;
    let builder = host(store.clone()).endpoint("books", |e| e.machine(books_on_sqlite()));
    run(builder.build().unwrap(), Arc::new(store), "book").await;
    let count: i64 = sqlx::query_scalar(COUNT)
        .fetch_one(&mut connection)
        .await
        .unwrap();
    assert_eq!(count, 2, "two of 7 and none of 13");
}

async fn postgres(database: &Database) -> (PgStore, sqlx::PgConnection) {
    let store = PgStore::connect(&database.url).await.unwrap();
    store.migrate().await.unwrap();
    let mut connection = sqlx::PgConnection::connect(&database.url).await.unwrap();
    sqlx::raw_sql(CREATE)
        .execute(&mut connection)
        .await
        .unwrap();
    (store, connection)
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_of_a_saga_commit_with_its_data_or_not_at_all_on_postgres() {
    let Some(database) = Database::new().await else {
        return;
    };
    let (store, mut connection) = postgres(&database).await;
    let diaries = saga::<DiaryOnPostgres>()
        .starts_with::<Write>()
        .uses::<Tx<Postgres>>();
    let builder = host(store.clone()).endpoint("diaries", |e| e.saga(diaries));
    run(builder.build().unwrap(), Arc::new(store), "diary").await;
    let count: i64 = sqlx::query_scalar(COUNT)
        .fetch_one(&mut connection)
        .await
        .unwrap();
    assert_eq!(count, 1, "one of 7 and none of 13");
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_of_a_saga_commit_with_its_data_or_not_at_all() {
    let (_folder, store, mut connection) = sqlite().await;
    let diaries = saga::<DiaryOnSqlite>()
        .starts_with::<Write>()
        .uses::<Tx<Sqlite>>();
    let builder = host(store.clone()).endpoint("diaries", |e| e.saga(diaries));
    run(builder.build().unwrap(), Arc::new(store), "diary").await;
    let count: i64 = sqlx::query_scalar(COUNT)
        .fetch_one(&mut connection)
        .await
        .unwrap();
    assert_eq!(count, 1, "one of 7 and none of 13");
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_of_a_machine_commit_with_its_state_or_not_at_all_on_postgres() {
    let Some(database) = Database::new().await else {
        return;
    };
    let (store, mut connection) = postgres(&database).await;
    let builder = host(store.clone()).endpoint("books", |e| e.machine(books_on_postgres()));
    run(builder.build().unwrap(), Arc::new(store), "book").await;
    let count: i64 = sqlx::query_scalar(COUNT)
        .fetch_one(&mut connection)
        .await
        .unwrap();
    assert_eq!(count, 2, "two of 7 and none of 13");
}

#[test]
fn a_function_whose_engine_the_host_has_not_is_refused() {
    let store = sagabus_core::memory::MemoryStore::new();
    let builder = host(store).endpoint("books", |e| e.machine(books_on_postgres()));
    let error = builder
        .build()
        .expect_err("memory is no PostgreSQL")
        .to_string();
    assert!(
        error.contains("PgStore") && error.contains("book"),
        "{error}"
    );
}
