//! The database, its hosts, endpoints, history and audit.

use sagabus_core::admin::{
    About, AuditEntry, Counts, First, HistoryOf, Page, StoredEndpoint, StoredHistory, StoredHost,
    TakenOver,
};
use sagabus_core::endpoint::Order;
use sagabus_core::{MessageId, StoreError, StoreId, Timestamp};
use sqlx::Row;

use super::super::clock::{never, now};
use super::super::error::store_error;
use super::super::migrate;
use super::super::store::SqliteStore;
use crate::{found, row};

const ABOUT: &str = concat!("select id, schema_version, ", now!(), " from sagabus_store");

const COUNTS: &str = concat!(
    "select (select count(*) from sagabus_outbox where parked is null and available_at < ",
    never!(),
    "), \
    (select count(*) from sagabus_outbox where parked is not null), \
    (select count(*) from sagabus_inbox), \
    (select count(*) from sagabus_instance where completed = 0 and kind not like '@%'), \
    (select count(*) from sagabus_instance where completed = 1 and kind not like '@%'), \
    (select count(*) from sagabus_dead_letter where status = 'open'), \
    (select count(*) from sagabus_history)"
);

const HOSTS: &str = "select id, name, started_at, heartbeat_at, definitions, behind from sagabus_host \
    order by heartbeat_at desc, id desc";

const ENDPOINTS: &str = "select e.name, e.per_key, s.message_type, s.kind from sagabus_endpoint e \
    left join sagabus_subscription s on s.endpoint_id = e.id order by e.name, s.message_type";

macro_rules! history {
    ($behind:literal, $order:literal) => {
        concat!(
            "select h.id, h.at, e.name, h.endpoint_id, h.message_id, h.message_type, ",
            "h.correlation_id, h.kind, h.key, h.version, h.detail ",
            "from sagabus_history h left join sagabus_endpoint e on e.id = h.endpoint_id ",
            "where ($1 is null or h.kind = $1 and h.key = $2) ",
            "and ($3 is null or h.message_id = $3) and ($4 is null or h.correlation_id = $4) ",
            "and ($5 is null or h.id ",
            $behind,
            " $5) order by h.id ",
            $order,
            " limit $6"
        )
    };
}

const TAKEN_OVER: &str = "select e.name, i.accepted_at from sagabus_inbox i \
    left join sagabus_endpoint e on e.id = i.endpoint_id where i.message_id = $1 order by e.name";

const AUDIT_LATEST: &str = "select id, at, who, action, why, detail, operation_id from sagabus_audit \
    where $1 is null or id < $1 order by id desc limit $2";

const AUDIT_OLDEST: &str = "select id, at, who, action, why, detail, operation_id from sagabus_audit \
    where $1 is null or id > $1 order by id limit $2";

/// Says which database this is, if its schema is of this release.
pub(super) async fn about(store: &SqliteStore) -> Result<About, StoreError> {
    let mut write = store.write().await?;
    let is_ours = migrate::check(store, &mut write).await;
    write.rollback().await;
    drop(write);
    is_ours?;
    let row = sqlx::query(ABOUT)
        .fetch_one(store.reader())
        .await
        .map_err(store_error)?;
    let id: Vec<u8> = row.try_get(0).map_err(store_error)?;
    Ok(About {
        store: StoreId::from_uuid(row::uuid_from_bytes(&id)),
        engine: "sqlite",
        schema_version: row.try_get(1).map_err(store_error)?,
        now: Timestamp::from_micros(row.try_get(2).map_err(store_error)?),
    })
}

/// Counts rows.
pub(super) async fn counts(store: &SqliteStore) -> Result<Counts, StoreError> {
    let row = sqlx::query(COUNTS)
        .fetch_one(store.reader())
        .await
        .map_err(store_error)?;
    let count = |at: usize| -> Result<u64, StoreError> {
        let count: i64 = row.try_get(at).map_err(store_error)?;
        Ok(count.cast_unsigned())
    };
    Ok(Counts {
        outbox: count(0)?,
        parked: count(1)?,
        inbox: count(2)?,
        running: count(3)?,
        completed: count(4)?,
        dead_letters: count(5)?,
        history: count(6)?,
    })
}

/// Reads the hosts that are known.
pub(super) async fn hosts(store: &SqliteStore) -> Result<Vec<StoredHost>, StoreError> {
    let rows = sqlx::query(HOSTS).fetch_all(store.reader()).await;
    let rows = rows.map_err(store_error)?;
    rows.iter()
        .map(|row| found::host(row).map_err(store_error))
        .collect()
}

/// Reads the endpoints with their subscriptions.
pub(super) async fn endpoints(store: &SqliteStore) -> Result<Vec<StoredEndpoint>, StoreError> {
    let rows = sqlx::query(ENDPOINTS).fetch_all(store.reader()).await;
    let mut endpoints: Vec<StoredEndpoint> = Vec::new();
    for row in rows.map_err(store_error)? {
        let name: String = row.try_get(0).map_err(store_error)?;
        if endpoints.last().is_none_or(|last| last.name != name) {
            endpoints.push(StoredEndpoint {
                name,
                order: match row.try_get(1).map_err(store_error)? {
                    true => Order::PerKey,
                    false => Order::Unordered,
                },
                subscriptions: Vec::new(),
            });
        }
        let message_type: Option<String> = row.try_get(2).map_err(store_error)?;
        let kind: Option<String> = row.try_get(3).map_err(store_error)?;
        if let Some(last) = endpoints.last_mut() {
            last.subscriptions.extend(message_type.zip(kind));
        }
    }
    Ok(endpoints)
}

/// Reads what units did.
pub(super) async fn history(
    store: &SqliteStore,
    of: &HistoryOf,
    page: Page,
) -> Result<Vec<StoredHistory>, StoreError> {
    let text = match page.first {
        First::Latest => history!("<", "desc"),
        First::Oldest => history!(">", "asc"),
    };
    let (mut instance, mut message, mut conversation) = (None, None, None);
    match of {
        HistoryOf::Instance(id) => instance = Some(id),
        HistoryOf::Message(id) => message = Some(id.as_uuid()),
        HistoryOf::Conversation(id) => conversation = Some(id.as_uuid()),
    }
    let rows = sqlx::query(text)
        .bind(instance.map(|id| id.kind.to_string()))
        .bind(instance.map(|id| id.key.clone()))
        .bind(message)
        .bind(conversation)
        .bind(page.after)
        .bind(page.size())
        .fetch_all(store.reader())
        .await
        .map_err(store_error)?;
    rows.iter()
        .map(|row| found::history(row).map_err(store_error))
        .collect()
}

/// Says where a message was taken over.
pub(super) async fn taken_over(
    store: &SqliteStore,
    message: MessageId,
) -> Result<Vec<TakenOver>, StoreError> {
    let rows = sqlx::query(TAKEN_OVER)
        .bind(message.as_uuid())
        .fetch_all(store.reader())
        .await
        .map_err(store_error)?;
    rows.iter()
        .map(|row| found::taken_over(row).map_err(store_error))
        .collect()
}

/// Reads the changes of operators.
pub(super) async fn audit(store: &SqliteStore, page: Page) -> Result<Vec<AuditEntry>, StoreError> {
    let text = match page.first {
        First::Latest => AUDIT_LATEST,
        First::Oldest => AUDIT_OLDEST,
    };
    let rows = sqlx::query(text)
        .bind(page.after)
        .bind(page.size())
        .fetch_all(store.reader())
        .await
        .map_err(store_error)?;
    rows.iter()
        .map(|row| found::audit(row).map_err(store_error))
        .collect()
}
