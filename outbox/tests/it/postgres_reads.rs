//! What hot calls read while the tables are full: their own rows, by the index that was made for
//! them, as the server's own counts of index scans and of rows that were fetched say.
//!
//! The tables have 100,000 rows each. With a million it is the same, but takes a small machine
//! minutes to fill.

use std::time::Duration;

use futures_util::future::BoxFuture;
use sagabus_core::admin::{DeadLetterFilter, Page, StoreAdmin};
use sagabus_core::backlog::Measure;
use sagabus_core::store::{Claim, ClaimFrom, Extension, Question, Retention, Scan, Store};
use sagabus_core::transports::TransportName;
use sagabus_core::unit_of_work::{Label, LabelId, Settle, Source, UnitOfWork};
use sagabus_core::{EndpointName, HostId, MessageId, Outcome};
use sagabus_testkit::wait::eventually;
use sqlx::{AssertSqlSafe, Connection, Executor, Row};

use super::postgres_support::Database;
use super::postgres_units::{Site, change};

/// Rows of each table.
const ROWS: i64 = 100_000;
/// How often each call is made.
const CALLS: usize = 20;
/// Rows that one call may fetch. The largest is a sweep of a page.
const FETCHED_MAX: i64 = 500;
/// Rows that one sweep removes at most.
const PAGE: u32 = 20;

/// What fills the tables; `ROWS` stands for the count. Of the outbox every other row is a timer, and
/// all are for later but a few of three destinations. Of the dead letters few are open.
const FILL: &[&str] = &[
    "insert into sagabus.outbox (message_id, message_type, destination, headers, body, available_at, \
        timer_kind, timer_key, timer_name, timer_generation, created_at) \
        select gen_random_uuid(), 'shop.order-placed', '@others', '{}', '{}', 9000000000000000 + n, \
        case n % 2 when 1 then 'order' end, case n % 2 when 1 then n::text end, \
        case n % 2 when 1 then 'deadline' end, case n % 2 when 1 then 1 end, 0 \
        from generate_series(1, ROWS) n",
    "insert into sagabus.outbox (message_id, message_type, destination, key, per_key, headers, body, \
        available_at, created_at) select gen_random_uuid(), 'shop.order-placed', d.name, \
        case d.name when '@parcels' then 'key-' || n end, d.name = '@parcels', '{}', '{}', 0, 0 \
        from generate_series(1, 500) n, (values ('@orders'), ('@parcels'), ('event/x')) d(name)",
    // Who stands behind the first of the keys.
    "insert into sagabus.outbox (message_id, message_type, destination, key, per_key, headers, body, \
        available_at, created_at) select gen_random_uuid(), 'shop.order-placed', '@parcels', \
        'key-' || n % 100, true, '{}', '{}', 9000000000000000, 0 from generate_series(1, ROWS / 10) n",
    "insert into sagabus.inbox (message_id, endpoint_id, accepted_at) select \
        ('018f4e5a-0000-7000-8000-' || lpad(to_hex(n), 12, '0'))::uuid, 1, 9000000000000000 \
        from generate_series(1, ROWS) n",
    "insert into sagabus.instance (kind, key, version, state, schema_version, data, timers, \
        created_at, updated_at) select 'order', n::text, 1, 'open', 1, '{}', '{}', 0, 0 \
        from generate_series(1, ROWS) n",
    "insert into sagabus.label (kind, name, value, key) \
        select kind, 'payment', 'p-' || key, key from sagabus.instance",
    "insert into sagabus.history (at, endpoint_id, message_id, message_type, correlation_id, detail) \
        select 9000000000000000, 1, ('018f4e5a-0000-7000-8000-' || lpad(to_hex(n), 12, '0'))::uuid, \
        'shop.order-placed', gen_random_uuid(), '{\"attempt\":1,\"micros\":1}' \
        from generate_series(1, ROWS) n",
    "insert into sagabus.dead_letter (at, endpoint, message_id, message_type, reason, key, headers, \
        body, attempts, fingerprint, status) select 9000000000000000, 'orders', \
        ('018f4e5a-0000-7000-8000-' || lpad(to_hex(n), 12, '0'))::uuid, 'shop.order-placed', \
        'terminal', 'key-' || n, '{}', '{}', '[]', 'gateway ' || n / 250 % 40, \
        case n % 250 when 0 then 'open' else 'redriven' end from generate_series(1, ROWS) n",
    "vacuum analyze",
];

/// Scans of one index.
const SCANS: &str = "select coalesce(sum(idx_scan), 0)::bigint from pg_stat_user_indexes \
    where schemaname = 'sagabus' and indexrelname = $1";

/// Rows that were read one after the other, or fetched by an index, of the tables that are full.
const FETCHED: &str = "select sum(seq_tup_read + coalesce(idx_tup_fetch, 0))::bigint \
    from pg_stat_user_tables where schemaname = 'sagabus' and relname in \
    ('outbox', 'inbox', 'instance', 'label', 'history', 'dead_letter')";

const SERVERS: &str = "select count(*) from pg_stat_activity \
    where datname = current_database() and pid <> pg_backend_pid()";

/// The n-th call of its kind.
type Call = for<'a> fn(&'a Site, usize) -> BoxFuture<'a, ()>;

/// What is done, the index that is meant for it, and the call.
const HOT: &[(&str, &str, Call)] = &[
    (
        "rows of an endpoint are claimed",
        "outbox_due",
        |site, _| Box::pin(async { assert_eq!(site.claim("orders", 2).await.len(), 2) }),
    ),
    (
        "rows of a transport are claimed",
        "outbox_due",
        |site, _| Box::pin(claim_transport(site)),
    ),
    (
        "the oldest of each key is claimed",
        "outbox_order",
        |site, _| Box::pin(async { assert_eq!(site.claim("parcels", 2).await.len(), 2) }),
    ),
    ("followers are pulled", "outbox_order", |site, _| {
        Box::pin(settle(site, "parcels"))
    }),
    ("rows are settled", "outbox_pkey", |site, _| {
        Box::pin(settle(site, "orders"))
    }),
    ("rows are answered", "outbox_pkey", |site, _| {
        Box::pin(answer(site))
    }),
    ("leases are extended", "outbox_pkey", |site, _| {
        Box::pin(extend(site))
    }),
    ("a waiting message is looked up", "inbox_pkey", |site, n| {
        Box::pin(ask(site, known(site, n)))
    }),
    (
        "an instance is loaded by key",
        "instance_pkey",
        |site, n| Box::pin(ask(site, keyed(n))),
    ),
    ("an instance is loaded by label", "label_pkey", |site, n| {
        Box::pin(ask(site, labelled(n)))
    }),
    ("a blocked key is known", "outbox_order", |site, n| {
        Box::pin(ask(site, blocked(n)))
    }),
    ("an instance moves", "instance_pkey", |site, n| {
        Box::pin(disarm(site, n))
    }),
    ("a timer is disarmed", "outbox_timer", |site, n| {
        Box::pin(disarm(site, n + CALLS))
    }),
    ("the inbox is swept", "inbox_pkey", |site, _| {
        Box::pin(sweep(site))
    }),
    ("tombstones are swept", "instance_pkey", |site, _| {
        Box::pin(sweep(site))
    }),
    ("history is swept", "history_pkey", |site, _| {
        Box::pin(sweep(site))
    }),
    ("dead letters are swept", "dead_letter_status", |site, _| {
        Box::pin(sweep(site))
    }),
    (
        "dead letters are listed",
        "dead_letter_status",
        |site, _| Box::pin(find(site, DeadLetterFilter::default(), 10)),
    ),
    (
        "dead letters of a key are found",
        "dead_letter_key",
        |site, n| {
            let key = Some(format!("key-{}", n + 1));
            let filter = DeadLetterFilter {
                key,
                ..DeadLetterFilter::any()
            };
            Box::pin(find(site, filter, 1))
        },
    ),
    (
        "dead letters of a message are found",
        "dead_letter_message",
        |site, n| {
            let message = Some(message(n));
            let filter = DeadLetterFilter {
                message,
                ..DeadLetterFilter::any()
            };
            Box::pin(find(site, filter, 1))
        },
    ),
    (
        "dead letters are grouped",
        "dead_letter_group",
        |site, _| Box::pin(group(site)),
    ),
];

#[tokio::test]
async fn hot_calls_read_their_own_rows_by_their_own_index_while_tables_are_full() {
    let Some((database, store)) = Database::migrated().await else {
        return;
    };
    let site = Site::new(store).await;
    end(&database, site).await;
    let mut connection = database.connection().await;
    for text in FILL {
        let text = text.replace("ROWS", &ROWS.to_string());
        connection.execute(AssertSqlSafe(text)).await.unwrap();
    }
    connection.close().await.unwrap();
    let mut wrong = Vec::new();
    for (what, index, call) in HOT {
        let before = counts(&database, index).await;
        let site = Site::new(database.store().await).await;
        for n in 0..CALLS {
            call(&site, n).await;
        }
        end(&database, site).await;
        let after = counts(&database, index).await;
        let (scans, fetched) = (after.0 - before.0, after.1 - before.1);
        let most = FETCHED_MAX * i64::try_from(CALLS).unwrap();
        if scans < i64::try_from(CALLS).unwrap() || fetched > most {
            wrong.push(format!(
                "{what}: {CALLS} calls scanned `{index}` {scans} times and fetched {fetched} rows"
            ));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// Lets go of a store: servers report what they read when they end.
async fn end(database: &Database, site: Site) {
    site.stop().await;
    site.store.close();
    drop(site);
    let ended = async || (database.number(SERVERS).await == 0).then_some(());
    eventually("end of all servers", ended).await;
}

/// How often an index was scanned, and how many rows were fetched by whatever way.
async fn counts(database: &Database, index: &str) -> (i64, i64) {
    let mut connection = database.connection().await;
    let scans = sqlx::query(SCANS).bind(index).fetch_one(&mut connection);
    let scans = scans.await.unwrap().get(0);
    let fetched = sqlx::query(FETCHED).fetch_one(&mut connection).await;
    let fetched = fetched.unwrap().get(0);
    connection.close().await.unwrap();
    (scans, fetched)
}

fn message(n: usize) -> MessageId {
    let text = format!("018f4e5a-0000-7000-8000-{:012x}", n + 1);
    text.parse().unwrap()
}

async fn claim_transport(site: &Site) {
    let claim = Claim {
        from: ClaimFrom::Transport {
            name: TransportName::default(),
            limit: 2,
            per_address: 2,
            bounds: Vec::new(),
        },
        lease: Duration::from_secs(3600),
        scan: Scan::Cold,
    };
    assert_eq!(site.store.claim(&claim).await.unwrap().len(), 2);
}

async fn settle(site: &Site, name: &str) {
    let claimed = site.claim(name, 2).await;
    assert_eq!(claimed.len(), 2);
    let mut group = site.group(Vec::new());
    group.settles = claimed.iter().map(|one| Settle::Delete(one.row)).collect();
    site.store.commit(&group).await.unwrap();
}

async fn answer(site: &Site) {
    let claimed = site.claim("orders", 2).await;
    assert_eq!(claimed.len(), 2);
    let units = claimed.iter().map(|one| UnitOfWork {
        sources: vec![Source::Row(one.row)],
        ..UnitOfWork::default()
    });
    let group = site.group(units.collect());
    site.store.commit(&group).await.unwrap();
}

async fn extend(site: &Site) {
    let claimed = site.claim("orders", 2).await;
    let extension = Extension {
        is_last: false,
        host: HostId::new(),
        clock: sagabus_core::clock::now(),
        rows: claimed.iter().map(|one| one.row).collect(),
        lease: Duration::from_secs(3600),
        measure: Measure::default(),
    };
    let extended = site.store.extend(&extension).await.unwrap();
    assert_eq!(extended.rows, 2);
}

async fn ask(site: &Site, question: Question) {
    let answers = site
        .store
        .load(&[question.clone(), question])
        .await
        .unwrap();
    let answer = &answers[1];
    assert!(answer.is_taken_over || answer.is_blocked || answer.instance.is_some());
}

fn known(site: &Site, n: usize) -> Question {
    Question {
        taken_over: Some((site.target("orders").id, message(n))),
        ..Question::default()
    }
}

fn keyed(n: usize) -> Question {
    Question {
        instance: Some(change(&(n + 1).to_string(), 1).id),
        ..Question::default()
    }
}

fn labelled(n: usize) -> Question {
    let label = Label {
        name: "payment".into(),
        value: format!("p-{}", n + 1),
    };
    Question {
        label: Some(LabelId {
            kind: "order".into(),
            label,
        }),
        ..Question::default()
    }
}

fn blocked(n: usize) -> Question {
    Question {
        blocked: Some((EndpointName::new("parcels").unwrap(), format!("key-{n}"))),
        ..Question::default()
    }
}

/// Moves two instances whose timers go.
async fn disarm(site: &Site, n: usize) {
    // Every other instance has a timer.
    let keys = [4 * n + 1, 4 * n + 3];
    let units = keys.map(|key| {
        let mut change = change(&key.to_string(), 1);
        change.disarmed = vec!["deadline".to_owned()];
        UnitOfWork {
            instance: Some(change),
            ..site.unit(MessageId::new())
        }
    });
    let group = site.group(units.into());
    let report = site.store.commit(&group).await.unwrap();
    assert!(report.outcomes.iter().all(|one| *one == Outcome::Committed));
}

async fn sweep(site: &Site) {
    let retention = Retention {
        rows_max: PAGE,
        ..Retention::default()
    };
    site.store.sweep(&retention).await.unwrap();
}

async fn find(site: &Site, filter: DeadLetterFilter, count: usize) {
    let found = site
        .store
        .find_dead_letters(&filter, Page::latest(10))
        .await;
    assert_eq!(found.unwrap().len(), count);
}

async fn group(site: &Site) {
    let filter = DeadLetterFilter::default();
    let groups = site.store.dead_letter_groups(&filter, 50).await.unwrap();
    assert_eq!(groups.len(), 40);
}
