//! Plans that are made while a table is empty, and kept while it grows.

use sagabus_core::MessageId;
use sagabus_core::admin::{InstanceFilter, StoreAdmin};
use sagabus_core::store::Store;
use sagabus_core::unit_of_work::{Label, Source, UnitOfWork};
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
