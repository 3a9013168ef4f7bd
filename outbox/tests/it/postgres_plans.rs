//! Plans that are made while a table is empty, and kept while it grows.

use sagabus_core::admin::{
    HistoryOf, InboxFilter, InstanceFilter, Page, RowFilter, RowState, StoreAdmin,
};
use sagabus_core::store::Store;
use sagabus_core::unit_of_work::{Label, Source, UnitOfWork};
use sagabus_core::{InstanceId, MessageId};
use sagabus_testkit::wait::eventually;

use super::postgres_support::Database;
use super::postgres_units::Site;

const GROWN: &str = "insert into sagabus.outbox (message_id, message_type, destination, headers, \
    body, available_at, created_at) select gen_random_uuid(), 'shop.order-placed', \
    case n % 2 when 0 then '@orders' else '@others' end, '{}', '{}', 9000000000000000, 0 \
    from generate_series(1, 5000) n";

/// Entries that were ever read from the index of due rows. Servers report when they end.
const READ: &str = "select coalesce(sum(idx_tup_read), 0)::bigint from pg_stat_user_indexes \
    where schemaname = 'sagabus' and indexrelname = 'outbox_due'";

const SERVERS: &str = "select count(*) from pg_stat_activity \
    where datname = current_database() and pid <> pg_backend_pid()";

const INSTANCES: &str = "insert into sagabus.instance (kind, key, version, state, schema_version, \
    data, timers, created_at, updated_at) select 'kind-' || n % 5, n::text, 1, 'waiting', 1, '', \
    '{}', 0, 0 from generate_series(1, 5000) n";

const LABELS: &str = "insert into sagabus.label (kind, name, value, key) \
    select kind, 'payment', 'p-' || key, key from sagabus.instance";

/// Entries that were ever read of instances and their labels, row by row or through an index.
const READ_OF_INSTANCES: &str = "select sum(seq_tup_read + coalesce(idx_tup_fetch, 0))::bigint \
    from pg_stat_user_tables where schemaname = 'sagabus' and relname in ('instance', 'label')";

/// Of each message two entries, and an inbox row.
const HISTORY: [&str; 2] = [
    "insert into sagabus.history (at, endpoint_id, message_id, message_type, correlation_id, detail) \
        select n, 1, ('018f4e5a-0000-7000-8000-' || lpad(to_hex(n / 2), 12, '0'))::uuid, \
        'shop.order-placed', gen_random_uuid(), '{\"attempt\":1,\"micros\":1}' \
        from generate_series(0, 4999) n",
    "insert into sagabus.inbox (message_id, endpoint_id, accepted_at) \
        select distinct message_id, endpoint_id, 0 from sagabus.history",
];

const READ_OF_HISTORY: &str = "select sum(seq_tup_read + coalesce(idx_tup_fetch, 0))::bigint \
    from pg_stat_user_tables where schemaname = 'sagabus' and relname in ('history', 'inbox')";

const TIMERS: &str = "insert into sagabus.outbox (message_id, message_type, destination, headers, \
    body, available_at, created_at, timer_kind, timer_key, timer_name, timer_generation) \
    select gen_random_uuid(), 'shop.remind', '@orders', '{}', '{}', 9000000000000000, 0, 'order', \
    n::text, 'patience', 1 from generate_series(1, 5000) n";

const READ_OF_OUTBOX: &str = "select sum(seq_tup_read + coalesce(idx_tup_fetch, 0))::bigint \
    from pg_stat_user_tables where schemaname = 'sagabus' and relname = 'outbox'";

/// Rows that nobody asks for.
const OTHERS: i64 = 5000;
/// Calls of one unit each, one after the other: on one connection.
const CALLS: u32 = 20;

#[tokio::test]
async fn a_commit_call_that_was_planned_while_nothing_waited_reads_its_own_row_alone() {
    let Some((database, store)) = Database::migrated().await else {
        return;
    };
    let site = Site::new(store).await;
    database.run("vacuum analyze sagabus.outbox").await;
    let first = site.group(vec![site.unit(MessageId::new())]);
    site.store.commit(&first).await.unwrap();
    let many = (0..CALLS).map(|_| site.unit(MessageId::new())).collect();
    site.store.commit(&site.group(many)).await.unwrap();
    let claimed = site.claim("orders", CALLS).await;
    database.run(GROWN).await;
    for row in &claimed {
        let unit = UnitOfWork {
            sources: vec![Source::Row(row.row)],
            ..UnitOfWork::default()
        };
        site.store.commit(&site.group(vec![unit])).await.unwrap();
    }
    site.stop().await;
    drop(site);
    let ended = async || (database.number(SERVERS).await == 0).then_some(());
    eventually("end of all servers", ended).await;
    let read = database.number(READ).await;
    assert!(
        read < 2 * OTHERS,
        "{read} entries were read by {CALLS} calls"
    );
}

#[tokio::test]
async fn instances_are_looked_up_by_key_and_by_label() {
    let Some((database, store)) = Database::migrated().await else {
        return;
    };
    database.run(INSTANCES).await;
    database.run(LABELS).await;
    database
        .run("vacuum analyze sagabus.instance, sagabus.label")
        .await;
    let ended = async || (database.number(SERVERS).await == 0).then_some(());
    let before = database.number(READ_OF_INSTANCES).await;
    let label = Label {
        name: "payment".into(),
        value: "p-4711".to_owned(),
    };
    for (key, label) in [(Some("4711".to_owned()), None), (None, Some(label))] {
        let filter = InstanceFilter {
            key,
            label,
            ..InstanceFilter::default()
        };
        for _ in 0..CALLS {
            let found = store.instances(&filter, 10).await.unwrap();
            assert_eq!(found.len(), 1);
            assert_eq!(&*found[0].id.key, "4711");
        }
    }
    store.close();
    drop(store);
    eventually("end of all servers", ended).await;
    let read = database.number(READ_OF_INSTANCES).await - before;
    assert!(read < OTHERS, "{read} entries were read");
}

#[tokio::test]
async fn timers_of_an_instance_are_looked_up() {
    let Some((database, store)) = Database::migrated().await else {
        return;
    };
    database.run(TIMERS).await;
    database.run("vacuum analyze sagabus.outbox").await;
    let before = database.number(READ_OF_OUTBOX).await;
    let filter = RowFilter {
        owner: Some(InstanceId {
            kind: "order".into(),
            key: "4711".into(),
        }),
        ..RowFilter::default()
    };
    for _ in 0..CALLS {
        for page in [Page::oldest(10), Page::latest(10)] {
            let found = store.rows(&filter, page).await.unwrap();
            assert_eq!(found.len(), 1);
        }
    }
    store.close();
    drop(store);
    let ended = async || (database.number(SERVERS).await == 0).then_some(());
    eventually("end of all servers", ended).await;
    let read = database.number(READ_OF_OUTBOX).await - before;
    assert!(read < OTHERS, "{read} rows were read");
}

/// By a statement that was prepared while there were none.
#[tokio::test]
async fn rows_that_are_named_or_parked_are_looked_up() {
    let Some((database, store)) = Database::migrated().await else {
        return;
    };
    let filters = async |store: &sagabus_outbox::PgStore, id: i64| {
        let named = RowFilter {
            ids: Some(vec![id, id + 1]),
            ..RowFilter::default()
        };
        let failed = RowFilter {
            state: Some(RowState::Parked),
            error: Some("no such place".to_owned()),
            ..RowFilter::default()
        };
        for filter in [named, failed] {
            store.rows(&filter, Page::oldest(10)).await.unwrap();
            store.rows(&filter, Page::latest(10)).await.unwrap();
            store.count_rows(&filter).await.unwrap();
        }
    };
    filters(&store, 1).await;
    database.run(GROWN).await;
    database.run("vacuum analyze sagabus.outbox").await;
    let before = database.number(READ_OF_OUTBOX).await;
    for round in 0..CALLS {
        filters(&store, 100 + i64::from(round)).await;
    }
    store.close();
    drop(store);
    let ended = async || (database.number(SERVERS).await == 0).then_some(());
    eventually("end of all servers", ended).await;
    let read = database.number(READ_OF_OUTBOX).await - before;
    assert!(read < OTHERS, "{read} rows were read");
}

#[tokio::test]
async fn the_life_of_a_message_is_looked_up_however_much_history_there_is() {
    let Some((database, store)) = Database::migrated().await else {
        return;
    };
    for text in HISTORY {
        database.run(text).await;
    }
    database
        .run("vacuum analyze sagabus.history, sagabus.inbox")
        .await;
    let before = database.number(READ_OF_HISTORY).await;
    let message: MessageId = "018f4e5a-0000-7000-8000-0000000003e7".parse().unwrap();
    let inbox = InboxFilter {
        message: Some(message),
        ..InboxFilter::default()
    };
    for _ in 0..CALLS {
        let of = HistoryOf::Message(message);
        for page in [Page::oldest(10), Page::latest(10)] {
            let told = store.history(&of, page).await.unwrap();
            assert_eq!(told.len(), 2);
        }
        let taken = store.inbox(&inbox, 10).await.unwrap();
        assert_eq!(taken.len(), 1);
        assert_eq!(taken[0].handled.as_ref().map(|one| one.id), Some(2000));
    }
    store.close();
    drop(store);
    let ended = async || (database.number(SERVERS).await == 0).then_some(());
    eventually("end of all servers", ended).await;
    let read = database.number(READ_OF_HISTORY).await - before;
    assert!(read < OTHERS, "{read} entries were read");
}
