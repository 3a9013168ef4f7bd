//! A database of its own with the workload of transfers, and ways to reach it and to judge it.

use std::net::SocketAddr;
use std::sync::Arc;

use sagabus::prelude::*;
use sagabus::store::StoreAdmin;
use sagabus::{PgStore, RunningHost};
use sqlx::postgres::PgConnectOptions;
use sqlx::types::Uuid;
use sqlx::{Connection, PgConnection};
use tokio::sync::Mutex;

use crate::databases::{block_on, create_database, drop_database, server};
use crate::killed::child::{postgres, wait_until_quiet};
use crate::killed::ledger::{judge, ledger_rows, prepare};
use crate::killed::machine::is_hopeless;
use crate::killed::plan::{Assignment, Database};
use sagabus_testkit::transfers::{StartTransfer, cannot_be_noted};

use sagabus_testkit::postgres_proxy::{Director, Places, Proxy};

/// A database on the server.
pub(crate) struct Site {
    pub(crate) url: String,
    /// The server that is told to remove it; none where another process will.
    server: Option<String>,
    /// For the test's own questions, past every proxy.
    direct: Arc<Mutex<PgConnection>>,
}

impl Site {
    /// Makes one; `None`, with a word, where there is no server.
    pub(crate) async fn open(name: &str) -> Option<Self> {
        let server = server()?;
        let name = format!("outage_{name}_{}", std::process::id());
        let url = create_database(&server, &name).await;
        prepare(&Database::Postgres(url.clone())).await;
        let direct = PgConnection::connect(&url).await;
        Some(Self {
            url,
            server: Some(server),
            direct: Arc::new(Mutex::new(direct.expect("the server answers"))),
        })
    }

    /// Joins another process's.
    pub(crate) async fn join(url: &str) -> Self {
        let direct = PgConnection::connect(url).await;
        Self {
            url: url.to_owned(),
            server: None,
            direct: Arc::new(Mutex::new(direct.expect("the server answers"))),
        }
    }

    pub(crate) fn history(&self) -> History {
        History(Arc::clone(&self.direct))
    }

    /// Starts a proxy before the server.
    pub(crate) async fn proxy(&self, director: Option<Arc<dyn Director>>) -> Proxy {
        let options: PgConnectOptions = self.url.parse().expect("it is an address");
        let place = (options.get_host(), options.get_port());
        let mut found = tokio::net::lookup_host(place)
            .await
            .expect("it can be found");
        let server: SocketAddr = found.next().expect("it is somewhere");
        let many = "select array_position(proargnames, 'h_message') - 1 from pg_proc \
            where proname = 'commit_v1' and pronamespace = 'sagabus'::regnamespace";
        let smooth = "select array_position(proargnames, 'h_message') - 1 from pg_proc \
            where proname = 'commit_smooth_v1' and pronamespace = 'sagabus'::regnamespace";
        let one = "select array_position(proargnames, 'h_message') - 1 from pg_proc \
            where proname = 'commit_one_v1' and pronamespace = 'sagabus'::regnamespace";
        let place = |found: i64| usize::try_from(found).expect("it has this argument");
        let places = Places {
            many: place(self.number(many).await),
            smooth: place(self.number(smooth).await),
            one: place(self.number(one).await),
        };
        Proxy::start(server, places, director).await
    }

    /// Returns the address of this database behind a proxy, with a password in it.
    pub(crate) fn behind(&self, proxy: &Proxy) -> String {
        let (_, name) = self.url.rsplit_once('/').expect("it names a database");
        format!("postgres://postgres:hunter2@{}/{name}", proxy.address())
    }

    /// Asks the database for a number.
    pub(crate) async fn number(&self, sql: &'static str) -> i64 {
        let mut direct = self.direct.lock().await;
        let query = sqlx::raw_sql(sql).fetch_one(&mut *direct).await;
        let row = query.expect("the server answers");
        let number: Result<i64, _> = sqlx::Row::try_get(&row, 0);
        let small = || sqlx::Row::try_get::<i32, _>(&row, 0).map(i64::from);
        number.or_else(|_| small()).expect("it is a number")
    }

    /// Starts the workload's host.
    pub(crate) async fn start(&self, store: &PgStore) -> RunningHost {
        let host = postgres::equip(Host::builder("outage"), store);
        let host = host.build().expect("the workload is put together well");
        host.start().await.expect("the host starts")
    }

    /// Waits until all transfers are over, stops the host, and compares the ledger with what must
    /// be there. Returns how many effects there are.
    pub(crate) async fn judge(&self, host: &RunningHost, transfers: i64) -> usize {
        let direct = PgStore::connect(&self.url).await.expect("it answers");
        let assignment = Assignment {
            removed: None,
            quiet_within: std::time::Duration::from_secs(60),
            database: Database::Postgres(self.url.clone()),
            broker: None,
            transfers,
        };
        wait_until_quiet(&direct, &assignment).await;
        let is_clean = host.stop(std::time::Duration::from_secs(20)).await;
        assert!(is_clean, "nothing was in hand");
        let verdict = judge(transfers, &ledger_rows(&assignment.database).await);
        let bad = (verdict.lost, verdict.duplicated, verdict.ghosts);
        assert_eq!(bad, (0, 0, 0), "lost, duplicated, ghosts");
        let twice = "select count(*) from (select from sagabus.history \
            group by endpoint_id, message_id having count(*) > 1) as twice";
        assert_eq!(self.number(twice).await, 0, "units that were written twice");
        verdict.expected
    }

    /// Reads what every dead letter says of its attempts.
    pub(crate) async fn attempts_of_the_dead(&self) -> Vec<Vec<String>> {
        let direct = PgStore::connect(&self.url).await.expect("it answers");
        let dead = direct.dead_letters(1000).await.expect("they can be read");
        let each = dead.into_iter();
        each.map(|one| one.attempts.into_iter().map(|one| one.error).collect())
            .collect()
    }
}

/// Checks that every dead letter has the attempts of its handler and no other: four, and one where
/// the first says that more are of no use.
pub(crate) fn assert_dead(attempts: &[Vec<String>], transfers: i64) {
    let dead = |is: fn(i64) -> bool| (0..transfers).filter(|id| is(*id)).count();
    let (all, hopeless) = (dead(cannot_be_noted), dead(is_hopeless));
    let with = |count: usize| attempts.iter().filter(|one| one.len() == count).count();
    assert_eq!(
        (with(4), with(1)),
        (all - hopeless, hopeless),
        "{attempts:?}"
    );
    assert_eq!(attempts.len(), all, "{attempts:?}");
}

impl Drop for Site {
    fn drop(&mut self) {
        let Some(server) = self.server.clone() else {
            return;
        };
        let url = self.url.clone();
        // A thread of its own: the test's runtime may be about to end, or in a panic.
        let dropped = std::thread::spawn(move || block_on(drop_database(&server, &url)));
        let _ = dropped.join(); // A database too many harms nobody.
    }
}

/// Tells what units the database has.
#[derive(Clone)]
pub(crate) struct History(Arc<Mutex<PgConnection>>);

impl History {
    /// Says whether any of these messages has been answered by a unit that is committed.
    pub(crate) async fn has_any(&self, handled: impl IntoIterator<Item = Uuid>) -> bool {
        let handled: Vec<Uuid> = handled.into_iter().collect();
        let mut direct = self.0.lock().await;
        sqlx::query_scalar("select exists (select from sagabus.history where message_id = any($1))")
            .bind(handled)
            .fetch_one(&mut *direct)
            .await
            .expect("the server answers")
    }
}

/// Starts transfers one after the other, so that commits come all the time.
pub(crate) async fn send(bus: &Bus, transfers: std::ops::Range<i64>) {
    for id in transfers {
        let sent = bus.send(StartTransfer { id }).await;
        sent.expect("an outage makes a sender wait, not fail");
    }
}

/// Random numbers that are the same in every run.
pub(crate) struct Dice(u64);

impl Dice {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn below(&mut self, n: u64) -> u64 {
        // SplitMix64.
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % n
    }
}

/// Lets a store on a file of its own be used, and removes the file.
pub(crate) async fn with_sqlite<U: Future<Output = ()>>(
    name: &str,
    used: impl FnOnce(SqliteStore) -> U,
) {
    let folder = std::env::temp_dir().join(format!("sagabus-{name}-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a temporary folder can be made");
    let store = SqliteStore::open(folder.join("bus.db")).await;
    let store = store.expect("the file can be made");
    store.migrate().await.expect("it can be migrated");
    used(store).await;
    std::fs::remove_dir_all(&folder).expect("our own folder can be removed");
}

/// Lets a store on a database of its own be used; not where there is no server.
pub(crate) async fn with_postgres<U: Future<Output = ()>>(
    name: &str,
    used: impl FnOnce(PgStore) -> U,
) {
    let Some(site) = Site::open(name).await else {
        return;
    };
    let store = PgStore::connect(&site.url).await;
    used(store.expect("the server answers")).await;
}

/// Runs a test on threads of its own, so that races are real.
pub(crate) fn run(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build();
    runtime.expect("a runtime needs threads").block_on(test);
}
