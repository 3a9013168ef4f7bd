//! A table of the user's own, kept in step with instances: they are found by typed columns, and one
//! message reaches as many of them as a query finds.

use sagabus_core::{Command, Event, HandlerError, Kind, Message, Result};
use sagabus_outbox::{PgStore, Postgres, Sqlite, SqliteStore, Tx};
use sagabus_saga::{Saga, SagaState};
use sagabus_testkit::saga::{Point, SagaTest};
use serde::{Deserialize, Serialize};
use sqlx::Connection;

use crate::stores::{Database, Folder, wait_for};

const CREATE: &str =
    "create table holding (id bigint primary key, stock text not null, shares bigint not null)";
const WRITE: &str = "insert into holding (id, stock, shares) values ($1, $2, $3) \
    on conflict (id) do update set shares = excluded.shares";
const REMOVE: &str = "delete from holding where id = $1";
const LARGE: &str = "select id, shares from holding where stock = $1 and shares >= $2 \
    order by shares desc";
/// A page is small, so that ten instances are several.
const PAGE: &str = "select id from holding where stock = $1 and id > $2 order by id limit 3";

messages! { Holding:
    Command Trade "holdings.trade" { stock: String, shares: i64 },
    Command Split "holdings.split" { factor: i64 },
}

/// Concerns all who hold a stock, and knows none of them.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct StockSplit {
    stock: String,
    factor: i64,
}

impl Message for StockSplit {
    const TYPE: &'static str = "exchange.split";
    const KIND: Kind = Kind::Event;
}
impl Event for StockSplit {}

/// Asks to tell those who hold it, from this one on.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct TellHolders {
    split: StockSplit,
    after: i64,
}

impl Message for TellHolders {
    const TYPE: &'static str = "exchange.tell-holders";
    const KIND: Kind = Kind::Command;
}
impl Command for TellHolders {}

#[derive(Debug, Serialize, Deserialize)]
struct Holding {
    id: u64,
    stock: String,
    shares: i64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Stage {
    Held,
}

impl SagaState for Stage {
    const ALL: &'static [Self] = &[Self::Held];

    fn name(self) -> &'static str {
        "held"
    }
}

impl Saga for Holding {
    type Key = u64;
    type State = Stage;
}

async fn begin(split: StockSplit) -> TellHolders {
    TellHolders { split, after: 0 }
}

/// Returns who holds at least so many shares of a stock, and how many.
type Large = Box<dyn Fn(&str, i64) -> Vec<(i64, i64)>>;

/// A machine on an engine, and how its table is looked at.
struct Exchange {
    test: SagaTest,
    large: Large,
}

/// Makes a module of what knows its engine.
macro_rules! on_engine {
    ($module:ident, $engine:ident, $connection:ident) => {
        mod $module {
            use sagabus_core::store::{Store, StoreAdmin};
            use sagabus_saga::StateMachine;

            use super::*;

            async fn write(holding: &Holding, tx: &mut Tx<$engine>) -> Result {
                let write = sqlx::query(WRITE)
                    .bind(i64::try_from(holding.id)?)
                    .bind(&holding.stock)
                    .bind(holding.shares);
                write.execute(tx.conn().await?).await?;
                Ok(())
            }

            async fn trade(
                mut holding: Holding,
                message: Trade,
                mut tx: Tx<$engine>,
            ) -> Result<Holding> {
                holding.shares += message.shares;
                write(&holding, &mut tx).await?;
                match holding.shares {
                    ..0 => Err(HandlerError::new("nobody holds less than nothing").terminal()),
                    _ => Ok(holding),
                }
            }

            async fn split(
                mut holding: Holding,
                message: Split,
                mut tx: Tx<$engine>,
            ) -> Result<Holding> {
                holding.shares *= message.factor;
                write(&holding, &mut tx).await?;
                Ok(holding)
            }

            async fn sell_out(holding: Holding, _: Trade, mut tx: Tx<$engine>) -> Result<Holding> {
                let remove = sqlx::query(REMOVE).bind(i64::try_from(holding.id)?);
                remove.execute(tx.conn().await?).await?;
                Ok(holding)
            }

            fn holdings() -> StateMachine<Holding> {
                let bought = Holding::when::<Trade>()
                    .init(|m| Holding {
                        id: m.id,
                        stock: m.stock.clone(),
                        shares: 0,
                    })
                    .run(trade)
                    .transition_to(Stage::Held);
                let sold_out = Holding::when_if::<Trade>(|h, m| h.shares + m.shares == 0)
                    .run(sell_out)
                    .finalize();
                StateMachine::named("holding")
                    .initially(bought)
                    .during(Stage::Held, sold_out)
                    .during(Stage::Held, Holding::when_else::<Trade>().run(trade).stay())
                    .during(Stage::Held, Holding::when::<Split>().run(split).stay())
            }

            /// Tells a page of those who hold a stock; the next page is asked for in the same
            /// commit.
            async fn tell(
                message: TellHolders,
                mut tx: Tx<$engine>,
            ) -> Result<(Vec<Split>, Option<TellHolders>)> {
                let TellHolders { split, after } = message;
                let page = sqlx::query_scalar(PAGE).bind(&split.stock).bind(after);
                let ids: Vec<i64> = page.fetch_all(tx.conn().await?).await?;
                let factor = split.factor;
                let told = ids.iter().map(|id| {
                    let id = u64::try_from(*id)?;
                    Ok(Split { id, factor })
                });
                let told = told.collect::<Result<Vec<_>>>()?;
                let next = ids.last().map(|after| TellHolders {
                    split,
                    after: *after,
                });
                Ok((told, next))
            }

            pub(super) fn exchange<S: Store + StoreAdmin + Clone>(
                url: String,
                open: impl Future<Output = S>,
            ) -> Exchange {
                let test = SagaTest::machine("holding", holdings)
                    .with(|host| host.endpoint("exchange", |e| e.handle(begin).handle(tell)));
                let test = test.on(open);
                let connect = async |url: &str| sqlx::$connection::connect(url).await.unwrap();
                wait_for(async {
                    let mut connection = connect(&url).await;
                    let create = sqlx::raw_sql(CREATE);
                    create.execute(&mut connection).await.unwrap();
                });
                let large = move |stock: &str, shares: i64| {
                    wait_for(async {
                        let mut connection = connect(&url).await;
                        let large = sqlx::query_as(LARGE).bind(stock.to_owned()).bind(shares);
                        large.fetch_all(&mut connection).await.unwrap()
                    })
                };
                Exchange {
                    test,
                    large: Box::new(large),
                }
            }
        }
    };
}

on_engine!(on_sqlite, Sqlite, SqliteConnection);
on_engine!(on_postgres, Postgres, PgConnection);

/// Runs a scenario on both engines.
fn on_databases(scenario: impl Fn(Exchange)) {
    let folder = Folder::new();
    let url = format!("sqlite://{}", folder.file().display());
    scenario(on_sqlite::exchange(url, async {
        let store = SqliteStore::open(folder.file()).await.unwrap();
        store.migrate().await.unwrap();
        store
    }));
    if let Some(database) = wait_for(Database::new()) {
        let url = database.url.clone();
        scenario(on_postgres::exchange(url, async {
            let store = PgStore::connect(&database.url).await.unwrap();
            store.migrate().await.unwrap();
            store
        }));
    }
}

fn trade(id: u64, stock: &str, shares: i64) -> Trade {
    let stock = stock.to_owned();
    Trade { id, stock, shares }
}

#[test]
fn instances_are_found_by_columns_of_a_table_that_moves_with_them() {
    on_databases(|Exchange { mut test, large }| {
        test.when(trade(1, "acme", 500));
        test.when(trade(2, "acme", 900));
        test.when(trade(3, "acme", 20));
        test.when(trade(4, "other", 700));
        assert_eq!(large("acme", 100), [(2, 900), (1, 500)]);
        test.when(trade(1, "acme", 500));
        assert_eq!(large("acme", 100), [(1, 1000), (2, 900)]);
        // Its row was written, and the unit failed after that.
        test.when(trade(2, "acme", -1000));
        assert_eq!(test.dead_letters()[0].reason, "terminal");
        assert_eq!(test.data::<Holding>(2).shares, 900);
        assert_eq!(large("acme", 100), [(1, 1000), (2, 900)]);
        test.when(trade(2, "acme", -900));
        test.then_over(2);
        assert_eq!(large("acme", 0), [(1, 1000), (3, 20)]);
    });
}

#[test]
fn one_event_reaches_every_instance_that_a_query_finds_once_though_hosts_die() {
    on_databases(|Exchange { mut test, large }| {
        let split = || StockSplit {
            stock: "acme".to_owned(),
            factor: 2,
        };
        for id in 1..=10 {
            test.when(trade(id, "acme", 10));
        }
        test.when(trade(11, "other", 10));
        // The first transaction after it is that of the first page.
        for (point, version) in [(Point::BeforeTxCommit, 2), (Point::AfterTxCommit, 3)] {
            test.crash_after(point);
            test.when(split());
            for id in 1..=10 {
                let is_at = test.instance(id).map(|one| one.version);
                assert_eq!(is_at, Some(version), "{}", test.what_happened(id));
            }
        }
        let expected: Vec<_> = large("acme", 40).into_iter().map(|(_, n)| n).collect();
        assert_eq!(expected, [40; 10]);
        assert_eq!(test.data::<Holding>(11).shares, 10);
        assert!(test.dead_letters().is_empty());
    });
}
