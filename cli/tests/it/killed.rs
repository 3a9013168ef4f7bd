//! A change of many, of dead letters, of rows or of what was sent, whose process is killed in the middle
//! of it: another one goes on, while the service handles or sends what comes. Judged by a ledger that
//! its handler writes, or by what its broker noted.

use std::collections::HashSet;
use std::process::Stdio;
use std::time::Duration;

use sagabus_core::admin::{AuditFilter, Page, SentFilter, StoreAdmin};
use sagabus_core::{EndpointBuilder, Host, Outgoing, Result, RunningHost, Store};
use sagabus_outbox::{PgStore, Postgres, Sqlite, SqliteStore, Tx};
use sagabus_testkit::wait::eventually;
use sqlx::{Connection, PgConnection, SqliteConnection};
use tokio::time::Instant;

use crate::noting_broker::NotingBroker;
use crate::postgres::{Database, on_server};
use crate::scene::{self, Charge, Ran, Scene, program};

/// Says how many there are, where that is not [`COUNT`].
const TOLD: &str = "SAGABUS_DEAD_LETTERS";
/// So many are changed for two seconds, and handled in a few more.
const COUNT: u64 = 3_000;
/// How many are changed in a second: so many that their half is a while.
const RATE: &str = "1500";
/// As many as one operation is for.
const AT_MOST: &str = "1000000";
/// Messages that are sent at once.
const PART: u64 = 500;
/// The ledger has no key and no constraint: what is done twice is in it twice.
const LEDGER: &str = "create table ledger (charge bigint not null)";
const ENTER: &str = "insert into ledger (charge) values ($1)";
const ENTRIES: &str = "select count(*), count(distinct charge) from ledger";

async fn enter_on_file(charge: Charge, mut tx: Tx<Sqlite>) -> Result<()> {
    let entry = sqlx::query(ENTER).bind(i64::from(charge.order));
    entry.execute(tx.conn().await?).await?;
    Ok(())
}

async fn enter_on_server(charge: Charge, mut tx: Tx<Postgres>) -> Result<()> {
    let entry = sqlx::query(ENTER).bind(i64::from(charge.order));
    entry.execute(tx.conn().await?).await?;
    Ok(())
}

/// Where a ledger is.
enum Ledger {
    File(String),
    Server(String),
}

impl Ledger {
    fn at(&self) -> &str {
        match self {
            Self::File(at) | Self::Server(at) => at,
        }
    }

    async fn make(&self) {
        match self {
            Self::File(at) => {
                let mut file = SqliteConnection::connect(at).await.unwrap();
                sqlx::query(LEDGER).execute(&mut file).await.unwrap();
            }
            Self::Server(at) => on_server(at, LEDGER.to_owned()).await,
        }
    }

    /// Counts entries, and charges that have one.
    async fn entries(&self) -> (u64, u64) {
        let (all, distinct): (i64, i64) = match self {
            Self::File(at) => {
                let mut file = SqliteConnection::connect(at).await.unwrap();
                sqlx::query_as(ENTRIES).fetch_one(&mut file).await.unwrap()
            }
            Self::Server(at) => {
                let mut server = PgConnection::connect(at).await.unwrap();
                sqlx::query_as(ENTRIES)
                    .fetch_one(&mut server)
                    .await
                    .unwrap()
            }
        };
        (all.cast_unsigned(), distinct.cast_unsigned())
    }

    fn run(&self, arguments: &[&str]) -> Ran {
        // The service goes on beside it.
        tokio::task::block_in_place(|| scene::run(&[&["--store", self.at()], arguments].concat()))
    }
}

/// Starts the service: its handler works again, or its broker has a queue again.
async fn mended(store: impl Store, site: &Site) -> RunningHost {
    let payments = |e: EndpointBuilder| match site.ledger {
        Ledger::File(_) => e.handle(enter_on_file),
        Ledger::Server(_) => e.handle(enter_on_server),
    };
    let host = Host::builder("shop").store(store);
    let host = match site.what {
        What::Letters | What::Rows => host.endpoint("payments", payments),
        What::Sent => host.transport(site.broker.clone()),
    };
    host.build().unwrap().start().await.unwrap()
}

/// Waits until a number is there, for as long as it moves.
async fn reaches<F>(what: &str, mut look: impl FnMut() -> F, is_there: impl Fn(u64) -> bool)
where
    F: Future<Output = u64>,
{
    let mut seen = look().await;
    while !is_there(seen) {
        let before = seen;
        let moved = eventually(what, || {
            let now = look();
            async move { Some(now.await).filter(|now| *now != before) }
        });
        seen = moved.await.0;
    }
}

/// What is changed.
#[derive(Clone, Copy)]
enum What {
    /// Dead letters are retried.
    Letters,
    /// Parked rows are released.
    Rows,
    /// What a broker took is sent again.
    Sent,
}

impl What {
    /// The command, what it prints that it did, and how the audit calls it.
    fn words(self) -> (&'static [&'static str], &'static str, &'static str) {
        match self {
            Self::Letters => (
                &["dead-letters", "retry", "--all"],
                "retried",
                "redrive_dead_letters",
            ),
            Self::Rows => (&["outbox", "release", "--all"], "released", "release_rows"),
            Self::Sent => (
                &["outbox", "republish", "--since", "1d", "--at-most", AT_MOST],
                "republished",
                "republish_sent",
            ),
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Letters => "dead letters",
            Self::Rows => "rows",
            Self::Sent => "messages",
        }
    }

    /// Counts those that are still to be changed.
    async fn left(self, store: &impl StoreAdmin) -> u64 {
        let counts = store.counts().await.unwrap();
        match self {
            Self::Letters => counts.dead_letters,
            Self::Rows => counts.parked,
            // The service keeps none of what it sends by now.
            Self::Sent => {
                let kept = store.count_sent(&SentFilter::default()).await;
                kept.unwrap().count
            }
        }
    }
}

/// What is changed, and where it is judged.
struct Site {
    what: What,
    ledger: Ledger,
    broker: NotingBroker,
}

impl Site {
    /// Counts what was done, and of how many charges.
    async fn done(&self) -> (u64, u64) {
        match self.what {
            What::Letters | What::Rows => self.ledger.entries().await,
            What::Sent => self.broker.taken(),
        }
    }

    /// Leaves so many to be changed.
    async fn fill<S: Store + StoreAdmin + Clone>(&self, store: &S, count: u64) {
        let left = || self.what.left(store);
        let stop = async |host: RunningHost| assert!(host.stop(Duration::from_secs(10)).await);
        let api = || Host::builder("api").store(store.clone());
        match self.what {
            What::Letters => {
                let host = scene::host(store.clone()).await;
                send(&host, count).await;
                reaches("dead letters", left, |dead| dead == count).await;
                stop(host).await;
            }
            What::Rows => {
                // Who only sends leaves them to the endpoint's hosts, of which none runs.
                stop(scene::host(store.clone()).await).await;
                let api = api().build().unwrap().start().await.unwrap();
                send(&api, count).await;
                stop(api).await;
                let parked = self.ledger.run(&["outbox", "park", "--all", "--yes"]);
                let done = format!("parked {count} rows (operation 1)");
                assert!(parked.out.contains(&done), "{parked:?}");
            }
            What::Sent => {
                let api = api().transport(self.broker.clone());
                let api = api.keep_sent(Duration::from_secs(3600)).build().unwrap();
                let api = api.start().await.unwrap();
                send(&api, count).await;
                reaches("what is kept", left, |kept| kept == count).await;
                stop(api).await;
                assert_eq!(self.broker.taken(), (count, count));
                self.broker.forget();
            }
        }
    }
}

/// Sends so many charges.
async fn send(host: &RunningHost, count: u64) {
    let orders: Vec<u32> = (0..u32::try_from(count).unwrap()).collect();
    for part in orders.chunks(PART as usize) {
        let charge = |order: &u32| {
            let note = String::new();
            Outgoing::new(&Charge {
                order: *order,
                note,
            })
            .unwrap()
        };
        host.bus()
            .send_all(part.iter().map(charge).collect())
            .await
            .unwrap();
    }
}

/// Every id that operators changed so, by their audit.
async fn audited(store: &impl StoreAdmin, action: &str) -> Vec<i64> {
    let mut ids = Vec::new();
    let mut page = Page::oldest(100);
    loop {
        let entries = store.audit(&AuditFilter::default(), page).await.unwrap();
        let Some(last) = entries.last() else {
            return ids;
        };
        page = page.behind(Some(last.id));
        let steps = entries.iter().filter(|one| one.action == action);
        let noted = steps.flat_map(|one| one.detail.as_array().unwrap());
        ids.extend(noted.map(|one| one["id"].as_i64().unwrap()));
    }
}

async fn is_taken_over<S: Store + StoreAdmin + Clone>(store: S, site: Site) {
    let (what, ledger) = (site.what, &site.ledger);
    let told = std::env::var(TOLD).ok();
    let count = told.map_or(COUNT, |told| told.parse().unwrap());
    let (command, done, action) = what.words();
    ledger.make().await;
    site.fill(&store, count).await;
    let host = mended(store.clone(), &site).await;
    let left = || what.left(&store);

    let began = Instant::now();
    let pace = ["--rate", RATE, "--yes"];
    let mut driver = program(&[&["--store", ledger.at()], command, &pace[..]].concat())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    reaches("a half", left, |left| left <= count / 2).await;
    driver.kill().unwrap();
    driver.wait().unwrap();
    let half = left().await;
    assert!(half > 0, "it was killed in the middle");
    let latest = store.operations(None, Page::latest(1)).await.unwrap();
    let id = latest[0].id.to_string();
    let refused = ledger.run(&["operations", "resume", &id]);
    assert_eq!(refused.code, 1, "nobody knows yet: {refused:?}");
    eventually("the lease ends", || async {
        let now = store.about().await.unwrap().now;
        let found = store.operations(None, Page::latest(1)).await.unwrap();
        (!found[0].is_driven(now)).then_some(())
    })
    .await;
    assert_eq!(left().await, half, "nobody goes on meanwhile");

    let resumed = ledger.run(&["operations", "resume", &id]);
    let done = format!("{done} {count} {} (operation {id})", what.name());
    assert!(resumed.out.contains(&done), "{resumed:?}");
    let outbox = || async { store.counts().await.unwrap().outbox };
    reaches("an empty outbox", outbox, |rows| rows == 0).await;
    let took = began.elapsed();
    assert!(host.stop(Duration::from_secs(10)).await);

    let (entries, distinct) = site.done().await;
    let ids = audited(&store, action).await;
    let noted: HashSet<_> = ids.iter().collect();
    println!(
        "{count} {} on {}: killed with {half} left, done after {took:.1?}; ledger {entries} entries of \
         {distinct} charges, audit {} of {}, left {}",
        what.name(),
        match ledger {
            Ledger::File(_) => "SQLite",
            Ledger::Server(_) => "PostgreSQL",
        },
        ids.len(),
        noted.len(),
        left().await,
    );
    assert_eq!((entries, distinct), (count, count), "each once");
    assert_eq!((ids.len() as u64, noted.len() as u64), (count, count));
    assert_eq!(left().await, 0);
}

fn at(what: What, ledger: Ledger) -> Site {
    Site {
        what,
        ledger,
        broker: NotingBroker::default(),
    }
}

async fn on_sqlite(what: What) {
    let (scene, store): (Scene, SqliteStore) = Scene::new().await;
    let ledger = Ledger::File(scene.file().to_str().unwrap().to_owned());
    is_taken_over(store, at(what, ledger)).await;
}

async fn on_postgres(what: What) {
    let Some(database) = Database::new().await else {
        return;
    };
    let store = PgStore::connect(&database.url).await.unwrap();
    store.migrate().await.unwrap();
    let ledger = Ledger::Server(database.url.clone());
    is_taken_over(store.clone(), at(what, ledger)).await;
    store.close();
    database.drop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_redrive_neither_loses_nor_repeats_one_on_sqlite() {
    on_sqlite(What::Letters).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_redrive_neither_loses_nor_repeats_one_on_postgres() {
    on_postgres(What::Letters).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_change_of_rows_neither_loses_nor_repeats_one_on_sqlite() {
    on_sqlite(What::Rows).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_change_of_rows_neither_loses_nor_repeats_one_on_postgres() {
    on_postgres(What::Rows).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_republication_neither_loses_nor_repeats_one_on_sqlite() {
    on_sqlite(What::Sent).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_republication_neither_loses_nor_repeats_one_on_postgres() {
    on_postgres(What::Sent).await;
}
