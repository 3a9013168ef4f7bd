//! The database, its hosts, endpoints, history and audit.

use sagabus_core::admin::{
    About, AuditEntry, AuditFilter, Counts, First, HistoryOf, Page, StoredEndpoint, StoredHistory,
    StoredHost,
};
use sagabus_core::endpoint::Order;
use sagabus_core::{StoreError, StoreId, Timestamp};
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

const HOSTS: &str = "select id, name, started_at, heartbeat_at, definitions, behind, stopped_at \
    from sagabus_host \
    order by heartbeat_at desc, id desc";

const ENDPOINTS: &str = "select e.name, e.per_key, s.message_type, s.kind from sagabus_endpoint e \
    left join sagabus_subscription s on s.endpoint_id = e.id order by e.name, s.message_type";

/// `$1` and `$2` whose, `$3` behind which id, `$4` how many. A text for each question: only what
/// names the message alone may use its index.
macro_rules! history {
    ($of:literal, $behind:literal, $order:literal) => {
        concat!(
            "select h.id, h.at, e.name, h.endpoint_id, h.message_id, h.message_type, ",
            "h.correlation_id, h.kind, h.key, h.version, h.detail ",
            "from sagabus_history h left join sagabus_endpoint e on e.id = h.endpoint_id where ",
            $of,
            " and ($3 is null or h.id ",
            $behind,
            " $3) order by h.id ",
            $order,
            " limit $4"
        )
    };
    ($of:literal) => {
        [history!($of, "<", "desc"), history!($of, ">", "asc")]
    };
}

const OF_INSTANCE: [&str; 2] = history!("h.kind = $1 and h.key = $2");
const OF_MESSAGE: [&str; 2] = history!("h.message_id = $1 and $2 is null");
const OF_CONVERSATION: [&str; 2] = history!("h.correlation_id = $1 and $2 is null");
/// Few details are read as JSON: those in which the identity stands at all.
const OF_SENDER: [&str; 2] = history!(
    "$1 is null and instr(h.detail, cast($2 as blob)) > 0 and exists ( \
        select 1 from json_each(cast(h.detail as text), '$.sent') s where s.value ->> 0 = $2)"
);

/// `$1` id, `$2` who, `$3` action, `$4` operation, `$5` since, `$6` until; `$7` behind which id, `$8`
/// how many.
macro_rules! audit {
    ($behind:literal, $order:literal) => {
        concat!(
            "select id, at, who, action, why, detail, operation_id, outcome from sagabus_audit ",
            "where ($1 is null or id = $1) and ($2 is null or who = $2) ",
            "and ($3 is null or action = $3) ",
            "and ($4 is null or operation_id = $4) ",
            "and ($5 is null or at >= $5) and ($6 is null or at < $6) ",
            "and ($7 is null or id ",
            $behind,
            " $7) order by id ",
            $order,
            " limit $8"
        )
    };
}

const AUDIT: [&str; 2] = [audit!("<", "desc"), audit!(">", "asc")];

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
    let order = usize::from(page.first == First::Oldest);
    let call = match of {
        HistoryOf::Instance(id) => sqlx::query(OF_INSTANCE[order])
            .bind(id.kind.to_string())
            .bind(id.key.clone()),
        HistoryOf::Message(id) => sqlx::query(OF_MESSAGE[order])
            .bind(id.as_uuid())
            .bind(None::<String>),
        HistoryOf::Sender(id) => sqlx::query(OF_SENDER[order])
            .bind(None::<String>)
            .bind(id.to_string()),
        HistoryOf::Conversation(id) => sqlx::query(OF_CONVERSATION[order])
            .bind(id.as_uuid())
            .bind(None::<String>),
    };
    let rows = call
        .bind(page.after)
        .bind(page.size())
        .fetch_all(store.reader())
        .await
        .map_err(store_error)?;
    rows.iter()
        .map(|row| found::history(row).map_err(store_error))
        .collect()
}

/// Reads the changes of operators.
pub(super) async fn audit(
    store: &SqliteStore,
    filter: &AuditFilter,
    page: Page,
) -> Result<Vec<AuditEntry>, StoreError> {
    let text = AUDIT[usize::from(page.first == First::Oldest)];
    let rows = sqlx::query(text)
        .bind(filter.id)
        .bind(filter.who.as_deref())
        .bind(filter.action.as_deref())
        .bind(filter.operation)
        .bind(filter.since.map(Timestamp::as_micros))
        .bind(filter.until.map(Timestamp::as_micros))
        .bind(page.after)
        .bind(page.size())
        .fetch_all(store.reader())
        .await
        .map_err(store_error)?;
    rows.iter()
        .map(|row| found::audit(row).map_err(store_error))
        .collect()
}

#[cfg(test)]
mod tests {
    use sqlx::{AssertSqlSafe, Connection, Row, SqliteConnection};

    use super::*;

    #[tokio::test]
    async fn the_life_of_a_message_is_looked_up() {
        let connecting = SqliteConnection::connect("sqlite::memory:").await;
        let mut connection = connecting.expect("a database in memory opens");
        for (_, text) in migrate::migrations() {
            let made = sqlx::raw_sql(*text).execute(&mut connection).await;
            made.expect("the schema is made");
        }
        for text in OF_MESSAGE {
            let explain = AssertSqlSafe(format!("explain query plan {text}"));
            let plan = sqlx::query(explain).fetch_all(&mut connection).await;
            let plan = plan.expect("the text is a statement").into_iter();
            let steps: Vec<String> = plan.map(|row| row.get(3)).collect();
            let is_scan = |step: &String| step.starts_with("SCAN") && step != "SCAN i";
            assert!(!steps.iter().any(is_scan), "{steps:?}");
            let is_looked_up = |step: &String| {
                step.contains("sagabus_history_message") && step.starts_with("SEARCH h")
            };
            assert!(steps.iter().any(is_looked_up), "{steps:?}");
        }
    }
}
