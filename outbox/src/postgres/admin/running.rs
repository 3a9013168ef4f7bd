//! The database, its hosts, endpoints, history and audit.

use sagabus_core::admin::{
    About, AuditEntry, AuditFilter, Counts, First, HistoryOf, Page, StoredEndpoint, StoredHistory,
    StoredHost,
};
use sagabus_core::endpoint::Order;
use sagabus_core::{StoreError, StoreId, Timestamp};
use sqlx::Row;

use super::super::error::store_error;
use super::super::migrate;
use super::super::store::PgStore;
use crate::found;

const ABOUT: &str = "select id, schema_version, sagabus.now_micros() from sagabus.store";

const COUNTS: &str = "select \
    (select count(*) from sagabus.outbox where parked is null \
        and available_at < sagabus.never_micros()), \
    (select count(*) from sagabus.outbox where parked is not null), \
    (select count(*) from sagabus.inbox), \
    (select count(*) from sagabus.instance where not completed and kind not like '@%'), \
    (select count(*) from sagabus.instance where completed and kind not like '@%'), \
    (select count(*) from sagabus.dead_letter where status = 'open'), \
    (select count(*) from sagabus.history)";

const HOSTS: &str = "select id, name, started_at, heartbeat_at, definitions, behind, stopped_at \
    from sagabus.host \
    order by heartbeat_at desc, id desc";

const ENDPOINTS: &str = "select e.name, e.per_key, s.message_type, s.kind from sagabus.endpoint e \
    left join sagabus.subscription s on s.endpoint_id = e.id order by e.name, s.message_type";

/// `$1` and `$2` whose, `$3` behind which id, `$4` how many. A text for each question: only what
/// names the message alone may use its index.
macro_rules! history {
    ($of:literal, $behind:literal, $order:literal) => {
        concat!(
            "select h.id, h.at, e.name, h.endpoint_id, h.message_id, h.message_type, ",
            "h.correlation_id, h.kind, h.key, h.version, h.detail ",
            "from sagabus.history h left join sagabus.endpoint e on e.id = h.endpoint_id where ",
            $of,
            " and ($3::bigint is null or h.id ",
            $behind,
            " $3) order by h.id ",
            $order,
            " limit $4::bigint"
        )
    };
    ($of:literal) => {
        [history!($of, "<", "desc"), history!($of, ">", "asc")]
    };
}

const OF_INSTANCE: [&str; 2] = history!("h.kind = $1 and h.key = $2");
const OF_MESSAGE: [&str; 2] = history!("h.message_id = $1 and $2::text is null");
const OF_CONVERSATION: [&str; 2] = history!("h.correlation_id = $1 and $2::text is null");
/// Few details are read as JSON: those in which the identity stands at all.
const OF_SENDER: [&str; 2] = history!(
    "$2::text is null and position(convert_to($1::uuid::text, 'UTF8') in h.detail) > 0 and exists ( \
        select from json_array_elements(convert_from(h.detail, 'UTF8')::json -> 'sent') s \
        where s.value ->> 0 = $1::uuid::text)"
);

/// `$1` id, `$2` who, `$3` action, `$4` operation, `$5` since, `$6` until; `$7` behind which id, `$8`
/// how many.
macro_rules! audit {
    ($behind:literal, $order:literal) => {
        concat!(
            "select id, at, who, action, why, detail, operation_id, outcome from sagabus.audit ",
            "where ($1::bigint is null or id = $1) and ($2::text is null or who = $2) ",
            "and ($3::text is null or action = $3) ",
            "and ($4::bigint is null or operation_id = $4) ",
            "and ($5::bigint is null or at >= $5) and ($6::bigint is null or at < $6) ",
            "and ($7::bigint is null or id ",
            $behind,
            " $7) order by id ",
            $order,
            " limit $8::bigint"
        )
    };
}

const AUDIT: [&str; 2] = [audit!("<", "desc"), audit!(">", "asc")];

/// Says which database this is, if its schema is of this release.
pub(super) async fn about(store: &PgStore) -> Result<About, StoreError> {
    let mut taken = store.take().await?;
    if let Err(error) = migrate::check(store, &mut taken).await {
        taken.give_up();
        return Err(error);
    }
    let call = sqlx::query(ABOUT).fetch_one(&mut *taken);
    let answer = store.answer(call).await;
    let row = taken.finish(answer, store_error)?;
    Ok(About {
        store: StoreId::from_uuid(row.try_get(0).map_err(store_error)?),
        engine: "postgres",
        schema_version: row.try_get(1).map_err(store_error)?,
        now: Timestamp::from_micros(row.try_get(2).map_err(store_error)?),
    })
}

/// Counts rows.
pub(super) async fn counts(store: &PgStore) -> Result<Counts, StoreError> {
    let mut taken = store.take().await?;
    let call = sqlx::query(COUNTS).fetch_one(&mut *taken);
    let answer = store.answer(call).await;
    let row = taken.finish(answer, store_error)?;
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
pub(super) async fn hosts(store: &PgStore) -> Result<Vec<StoredHost>, StoreError> {
    let mut taken = store.take().await?;
    let call = sqlx::query(HOSTS).fetch_all(&mut *taken);
    let answer = store.answer(call).await;
    let rows = taken.finish(answer, store_error)?;
    rows.iter()
        .map(|row| found::host(row).map_err(store_error))
        .collect()
}

/// Reads the endpoints with their subscriptions.
pub(super) async fn endpoints(store: &PgStore) -> Result<Vec<StoredEndpoint>, StoreError> {
    let mut taken = store.take().await?;
    let call = sqlx::query(ENDPOINTS).fetch_all(&mut *taken);
    let answer = store.answer(call).await;
    let mut endpoints: Vec<StoredEndpoint> = Vec::new();
    for row in taken.finish(answer, store_error)? {
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
    store: &PgStore,
    of: &HistoryOf,
    page: Page,
) -> Result<Vec<StoredHistory>, StoreError> {
    let order = usize::from(page.first == First::Oldest);
    let mut taken = store.take().await?;
    let call = match of {
        HistoryOf::Instance(id) => sqlx::query(OF_INSTANCE[order])
            .bind(id.kind.to_string())
            .bind(id.key.clone()),
        HistoryOf::Message(id) => sqlx::query(OF_MESSAGE[order])
            .bind(id.as_uuid())
            .bind(None::<String>),
        HistoryOf::Sender(id) => sqlx::query(OF_SENDER[order])
            .bind(id.as_uuid())
            .bind(None::<String>),
        HistoryOf::Conversation(id) => sqlx::query(OF_CONVERSATION[order])
            .bind(id.as_uuid())
            .bind(None::<String>),
    };
    let call = call
        .bind(page.after)
        .bind(i64::from(page.size()))
        .fetch_all(&mut *taken);
    let answer = match of {
        HistoryOf::Sender(_) => store.slow_answer(call).await,
        _ => store.answer(call).await,
    };
    let rows = taken.finish(answer, store_error)?;
    rows.iter()
        .map(|row| found::history(row).map_err(store_error))
        .collect()
}

/// Reads the changes of operators.
pub(super) async fn audit(
    store: &PgStore,
    filter: &AuditFilter,
    page: Page,
) -> Result<Vec<AuditEntry>, StoreError> {
    let text = AUDIT[usize::from(page.first == First::Oldest)];
    let mut taken = store.take().await?;
    let call = sqlx::query(text)
        .bind(filter.id)
        .bind(filter.who.as_deref())
        .bind(filter.action.as_deref())
        .bind(filter.operation)
        .bind(filter.since.map(Timestamp::as_micros))
        .bind(filter.until.map(Timestamp::as_micros))
        .bind(page.after)
        .bind(i64::from(page.size()))
        .fetch_all(&mut *taken);
    let answer = store.answer(call).await;
    let rows = taken.finish(answer, store_error)?;
    rows.iter()
        .map(|row| found::audit(row).map_err(store_error))
        .collect()
}
