//! The independent ledger: business tables without unique constraints, read with plain SQL.

use std::collections::BTreeMap;

use super::plan::Database;
use sagabus_testkit::transfers::{bounces, cannot_be_noted, cents};

/// The tables that the workload writes. No constraint that could hide a duplicate.
const TABLES: [&str; 2] = [
    "create table transfer (id bigint not null, cents bigint not null)",
    "create table ledger (transfer bigint not null, leg text not null, cents bigint not null)",
];

/// What the ledger says, in the words of the Jepsen reports.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Verdict {
    /// Effects that should be there.
    pub(crate) expected: usize,
    /// Effects that are not there.
    pub(crate) lost: usize,
    /// Effects that are there again.
    pub(crate) duplicated: usize,
    /// Effects that should not be there at all.
    pub(crate) ghosts: usize,
}

impl Verdict {
    /// Says whether nothing is lost, doubled or invented.
    pub(crate) fn is_clean(self) -> bool {
        (self.lost, self.duplicated, self.ghosts) == (0, 0, 0)
    }
}

/// Compares the ledger with what each transfer must have left.
pub(crate) fn judge(transfers: i64, rows: &[(i64, String, i64)]) -> Verdict {
    let mut found: BTreeMap<(i64, &str, i64), usize> = BTreeMap::new();
    for (id, leg, cents) in rows {
        *found.entry((*id, leg, *cents)).or_default() += 1;
    }
    let mut verdict = Verdict::default();
    for id in 0..transfers {
        for (leg, cents) in expected(id) {
            verdict.expected += 1;
            match found.remove(&(id, leg, cents)) {
                None => verdict.lost += 1,
                Some(times) => verdict.duplicated += times - 1,
            }
        }
    }
    verdict.ghosts = found.values().sum();
    verdict
}

fn expected(id: i64) -> Vec<(&'static str, i64)> {
    let mut legs = vec![("debit", -cents(id))];
    legs.push(if bounces(id) {
        ("refund", cents(id))
    } else {
        ("credit", cents(id))
    });
    if !cannot_be_noted(id) {
        legs.push(("settled", 0));
    }
    legs
}

/// Reads the ledger with a connection of its own.
pub(crate) async fn ledger_rows(database: &Database) -> Vec<(i64, String, i64)> {
    use sqlx::Connection;
    const ROWS: &str = "select transfer, leg, cents from ledger";
    match database {
        Database::Sqlite(path) => {
            let url = format!("sqlite://{}", path.display());
            let mut connection = sqlx::SqliteConnection::connect(&url)
                .await
                .expect("it opens");
            sqlx::query_as(ROWS)
                .fetch_all(&mut connection)
                .await
                .expect("it can be read")
        }
        Database::Postgres(url) => {
            let mut connection = sqlx::PgConnection::connect(url).await.expect("it answers");
            sqlx::query_as(ROWS)
                .fetch_all(&mut connection)
                .await
                .expect("it can be read")
        }
    }
}

/// Makes our schema and the workload's tables.
pub(crate) async fn prepare(database: &Database) {
    use sqlx::{Connection, Executor};
    match database {
        Database::Sqlite(path) => {
            let store = sagabus::SqliteStore::open(path)
                .await
                .expect("the file can be made");
            store.migrate().await.expect("it can be migrated");
            let url = format!("sqlite://{}", path.display());
            let mut connection = sqlx::SqliteConnection::connect(&url)
                .await
                .expect("it opens");
            for table in TABLES {
                connection
                    .execute(table)
                    .await
                    .expect("a table can be made");
            }
        }
        Database::Postgres(url) => {
            let store = sagabus::PgStore::connect(url)
                .await
                .expect("the server answers");
            store.migrate().await.expect("it can be migrated");
            let mut connection = sqlx::PgConnection::connect(url).await.expect("it answers");
            for table in TABLES {
                connection
                    .execute(table)
                    .await
                    .expect("a table can be made");
            }
        }
    }
}

/// Places a transfer in a transaction of its own, as a service does that has no bus.
pub(crate) async fn place_alone(url: &str, id: i64) {
    use sqlx::Connection;
    let mut connection = sqlx::PgConnection::connect(url).await.expect("it answers");
    sqlx::query("insert into transfer (id, cents) values ($1, $2)")
        .bind(id)
        .bind(cents(id))
        .execute(&mut connection)
        .await
        .expect("a transfer can be placed");
}

#[test]
fn the_judge_sees_what_is_lost_doubled_and_invented() {
    let whole: Vec<_> = (0..20)
        .flat_map(|id| {
            expected(id)
                .into_iter()
                .map(move |(leg, cents)| (id, leg.to_owned(), cents))
        })
        .collect();
    let clean = judge(20, &whole);
    assert_eq!((clean.lost, clean.duplicated, clean.ghosts), (0, 0, 0));
    let mut broken = whole.clone();
    broken.remove(0);
    broken.push(whole[5].clone());
    broken.push((3, "credit".to_owned(), cents(3)));
    let verdict = judge(20, &broken);
    assert_eq!(
        (verdict.lost, verdict.duplicated, verdict.ghosts),
        (1, 1, 1)
    );
}
