//! The plans of hot statements: no table is read from end to end, and the index is the one that was
//! made for the statement; without statistics, with those of empty tables, and of full ones.
//!
//! Full are 100,000 rows of each table, or as many as [`ROWS`] says: `cargo xtask bench plans`.

use sqlx::{AssertSqlSafe, Connection, Row, SqliteConnection};

use super::admin::dead_letters::{BY_KEY, BY_MESSAGE, NARROW};
use super::claim::{CLAIM, FIND_ADDRESSES};
use super::extend::EXTEND;
use super::load::{FATE, FIND_LABELS, LOAD};
use super::measure::{COUNT, OLDEST};
use super::sections::{
    ACCEPT_ROWS, CREATE_INSTANCES, DISARM_TIMERS, DROP_STUBS, GIVE_UP, HOLD_OTHERS, HOLD_ROWS,
    KEEP_SENT, LABEL, PARK_ROWS, PROBE, RECORD, SEND_PLAIN, SEND_SPECIAL, SETTLE_DELETES,
    SETTLE_PARKS, SETTLE_RELEASES, SETTLE_SOLOS, TAKE_OVER, UNLABEL, UPDATE_INSTANCES,
};
use super::sweep::{
    FIND_INBOX, FIND_TOMBSTONES, SWEEP_AUDIT, SWEEP_DEAD_LETTERS, SWEEP_HISTORY, SWEEP_INBOX,
    SWEEP_SENT, SWEEP_TOMBSTONES,
};

/// Every statement of a commit.
const COMMIT: &[&[&str]] = &[
    SETTLE_DELETES,
    SETTLE_RELEASES,
    SETTLE_PARKS,
    SETTLE_SOLOS,
    TAKE_OVER,
    ACCEPT_ROWS,
    HOLD_ROWS,
    HOLD_OTHERS,
    DROP_STUBS,
    KEEP_SENT,
    PARK_ROWS,
    UPDATE_INSTANCES,
    CREATE_INSTANCES,
    UNLABEL,
    LABEL,
    DISARM_TIMERS,
    SEND_PLAIN,
    SEND_SPECIAL,
    RECORD,
    GIVE_UP,
    PROBE,
];

/// By the key of the table of rows.
const BY_ID: &str = "USING INTEGER PRIMARY KEY (rowid=?)";
const FOLLOWERS: &str = "INDEX sagabus_outbox_order (destination=? AND key=?";
const DUE: &str = "INDEX sagabus_outbox_due (destination=?";
const INSTANCE: &str = "(kind=? AND key=?)";

/// Other hot statements and what their plans, and those of some parts of a commit, must have.
const MEANT: &[(&str, &[&str])] = &[
    (
        CLAIM,
        &[
            "INDEX sagabus_outbox_due (destination=? AND available_at>? AND available_at<?)",
            FOLLOWERS,
            BY_ID,
        ],
    ),
    (
        FIND_ADDRESSES,
        &["INDEX sagabus_outbox_due (destination>?", DUE],
    ),
    (
        LOAD,
        &[
            "sagabus_inbox USING PRIMARY KEY (message_id=? AND endpoint_id=?)",
            "INDEX sagabus_outbox_order (destination=? AND key=?)",
            "(kind=? AND key=?)",
        ],
    ),
    (
        FIND_LABELS,
        &["l USING PRIMARY KEY (kind=? AND name=? AND value=?)"],
    ),
    (
        FATE,
        &[
            "b USING PRIMARY KEY (message_id=? AND endpoint_id=?)",
            "INDEX sagabus_outbox_due (destination=?",
            "INDEX sagabus_outbox_parked (destination=?",
            "INDEX sagabus_dead_letter_once (endpoint=? AND message_id=?)",
        ],
    ),
    (EXTEND, &[BY_ID]),
    (COUNT, &[DUE]),
    (OLDEST, &["INDEX sagabus_outbox_due (destination>?)", DUE]),
    (
        FIND_INBOX,
        &["USING PRIMARY KEY ((message_id,endpoint_id)>(?,?))"],
    ),
    (SWEEP_INBOX, &["USING PRIMARY KEY (message_id=?"]),
    (FIND_TOMBSTONES, &["((kind,key)>(?,?))"]),
    (SWEEP_TOMBSTONES, &["(kind=? AND key=?)"]),
    (SWEEP_HISTORY, &[BY_ID]),
    (SWEEP_AUDIT, &[BY_ID]),
    (
        SWEEP_SENT,
        &["INDEX sagabus_sent_old (kept_until<?)", BY_ID],
    ),
    (
        SWEEP_DEAD_LETTERS,
        &["INDEX sagabus_dead_letter_status (status=?)", BY_ID],
    ),
    (NARROW.latest, &["sagabus_dead_letter"]),
    (
        NARROW.groups,
        &["COVERING INDEX sagabus_dead_letter_group (status>? AND status<?)"],
    ),
    (
        NARROW.count,
        &["COVERING INDEX sagabus_dead_letter_group (status>? AND status<?)"],
    ),
    (BY_KEY.latest, &["INDEX sagabus_dead_letter_key (key=?"]),
    (
        BY_MESSAGE.latest,
        &["INDEX sagabus_dead_letter_message (message_id=?"],
    ),
    (ACCEPT_ROWS[0], &[FOLLOWERS, BY_ID]),
    (ACCEPT_ROWS[1], &[BY_ID]),
    (SETTLE_RELEASES[0], &[BY_ID]),
    (UPDATE_INSTANCES[0], &[INSTANCE]),
    (
        DISARM_TIMERS[1],
        &["INDEX sagabus_outbox_timer (timer_kind=? AND timer_key=? AND timer_name=?)"],
    ),
];

/// Says how many rows each table has.
const ROWS: &str = "SAGABUS_PLAN_ROWS";

/// What fills the tables; `ROWS` is how full.
const FILL: &str = "
    create temp table n (n integer primary key);
    with recursive c(n) as (select 1 union all select n + 1 from c where n < ROWS)
        insert into n select n from c;
    insert into sagabus_outbox (message_id, message_type, destination, key, per_key, headers, body,
        available_at, timer_kind, timer_key, timer_name, timer_generation, created_at)
        select randomblob(16), 'shop.order-placed', '@endpoint-' || (n % 8), 'key-' || (n % 1000),
        n % 2, x'7b7d', x'7b7d', n, iif(n % 3 = 0, 'order', null), iif(n % 3 = 0, n, null),
        iif(n % 3 = 0, 'deadline', null), iif(n % 3 = 0, 1, null), n from n;
    insert into sagabus_inbox (message_id, endpoint_id, accepted_at) select randomblob(16), 1, n from n;
    insert into sagabus_instance (kind, key, version, state, schema_version, data, timers, created_at,
        updated_at) select 'order', n, 1, 'open', 1, x'7b7d', x'7b7d', n, n from n;
    insert into sagabus_label (kind, name, value, key) select 'order', 'payment', n, n from n;
    insert into sagabus_history (at, endpoint_id, message_id, message_type, correlation_id, detail)
        select n, 1, randomblob(16), 'shop.order-placed', randomblob(16), x'7b7d' from n;
    insert into sagabus_dead_letter (at, endpoint, message_id, message_type, reason, key, headers, body,
        attempts, fingerprint, status) select n, 'orders', randomblob(16), 'shop.order-placed',
        'terminal', 'key-' || n, x'7b7d', x'7b7d', x'5b5d', 'gateway ' || (n % 40),
        iif(n % 3 = 0, 'redriven', 'open') from n;
    analyze;";

/// Returns the steps of the plans of a text.
async fn steps(connection: &mut SqliteConnection, text: &str) -> Vec<String> {
    let mut steps = Vec::new();
    for statement in statements(text) {
        let explain = format!("explain query plan {statement}");
        let rows = sqlx::query(AssertSqlSafe(explain)).fetch_all(&mut *connection);
        let rows = rows.await.unwrap();
        steps.extend(rows.iter().map(|row| row.get::<String, _>(3)));
    }
    steps
}

/// Takes a text apart that is a transaction of its own.
fn statements(text: &str) -> Vec<&str> {
    let is_many = text.starts_with("begin immediate;") || text == CLAIM;
    let parts = match is_many {
        true => text.split(';').map(str::trim).collect(),
        false => vec![text],
    };
    let is_meant = |part: &&str| !["", "begin immediate", "commit"].contains(part);
    parts.into_iter().filter(is_meant).collect()
}

/// Says whether a step reads a table of ours from end to end: not what a statement made itself, not
/// the table of one row, not an index that has all that is asked for, and not a page of a table.
fn is_scan(text: &str, step: &str) -> bool {
    let Some(what) = step.strip_prefix("SCAN ") else {
        return false;
    };
    if text.contains(&format!("from {what} order by id limit")) {
        return false;
    }
    let made = [
        "due",
        "wanted",
        "part",
        "step",
        "address",
        "sagabus_store",
        "sagabus_host",
    ];
    let is_made = made.contains(&what.split(' ').next().unwrap_or_default());
    let is_small = ["(", "CONSTANT", "VIRTUAL", "USING COVERING INDEX"];
    !is_made && !is_small.iter().any(|word| what.contains(word))
}

#[tokio::test]
async fn hot_statements_search_by_the_index_that_is_meant_and_read_no_whole_table() {
    let mut connection = SqliteConnection::connect(":memory:").await.unwrap();
    for (_, migration) in crate::SqliteStore::migrations() {
        let migration = sqlx::raw_sql(*migration);
        migration.execute(&mut connection).await.unwrap();
    }
    let rows = std::env::var(ROWS).unwrap_or_else(|_| "100000".to_owned());
    let fill = FILL.replace("ROWS", &rows);
    let mut wrong = Vec::new();
    // Statistics of an empty outbox, its usual state, must mislead nobody.
    for statistics in ["", "analyze", &fill] {
        let script = sqlx::raw_sql(AssertSqlSafe(statistics.to_owned()));
        script.execute(&mut connection).await.unwrap();
        let parts = COMMIT.concat().into_iter().map(|text| (text, &[][..]));
        for (text, meant) in parts.chain(MEANT.iter().copied()) {
            let steps = steps(&mut connection, text).await;
            let is_there = |meant: &&str| steps.iter().any(|step| step.contains(meant));
            if steps.iter().any(|step| is_scan(text, step)) || !meant.iter().all(is_there) {
                wrong.push((statistics, text, meant, steps));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    let text = "select * from sagabus_outbox";
    let whole = steps(&mut connection, text).await;
    assert!(is_scan(text, &whole[0]), "a scan is recognised: {whole:?}");
}
