//! The inbox: what was taken over, and what was done with it.

use sagabus_core::StoreError;
use sagabus_core::admin::{InboxFilter, Page, TakenOver};

use super::super::error::store_error;
use super::super::store::SqliteStore;
use crate::found;

/// `$1` message, `$2` endpoint, `$3` since, `$4` until, `$5` and `$6` behind which, `$7` how many.
/// Columns as those of history, then of the inbox.
macro_rules! inbox {
    ($message:literal) => {
        concat!(
            "select h.id, h.at, e.name, i.endpoint_id, i.message_id, h.message_type, ",
            "h.correlation_id, h.kind, h.key, h.version, h.detail, i.message_id, e.name, ",
            "i.accepted_at from (select i.message_id, i.endpoint_id, i.accepted_at ",
            "from sagabus_inbox i where ",
            $message,
            " and ($2 is null or i.endpoint_id = ",
            "(select e.id from sagabus_endpoint e where e.name = $2)) ",
            "and ($3 is null or i.accepted_at >= $3) ",
            "and ($4 is null or i.accepted_at < $4) ",
            "and ($5 is null or (i.message_id, i.endpoint_id) < ($5, coalesce(",
            "(select e.id from sagabus_endpoint e where e.name = $6), 0))) ",
            "order by i.message_id desc, i.endpoint_id desc limit $7) i ",
            "left join sagabus_endpoint e on e.id = i.endpoint_id ",
            "left join sagabus_history h on h.id = (select h.id from sagabus_history h ",
            "where h.message_id = i.message_id and h.endpoint_id = i.endpoint_id ",
            "order by h.id desc limit 1) ",
            "order by i.message_id desc, i.endpoint_id desc"
        )
    };
}

const ALL: &str = inbox!("$1 is null");
const ONE: &str = inbox!("i.message_id = $1");

/// Reads what was taken over.
pub(super) async fn inbox(
    store: &SqliteStore,
    filter: &InboxFilter,
    limit: u32,
) -> Result<Vec<TakenOver>, StoreError> {
    let text = if filter.message.is_some() { ONE } else { ALL };
    let after = filter.after.as_ref();
    let rows = sqlx::query(text)
        .bind(filter.message.map(|id| id.as_uuid()))
        .bind(filter.endpoint.clone())
        .bind(filter.since.map(|at| at.as_micros()))
        .bind(filter.until.map(|at| at.as_micros()))
        .bind(after.map(|(message, _)| message.as_uuid()))
        .bind(after.and_then(|(_, endpoint)| endpoint.clone()))
        .bind(Page::latest(limit).size())
        .fetch_all(store.reader())
        .await
        .map_err(store_error)?;
    rows.iter()
        .map(|row| found::taken_over(row).map_err(store_error))
        .collect()
}

#[cfg(test)]
mod tests {
    use sqlx::{AssertSqlSafe, Connection, Row, SqliteConnection};

    use super::*;

    #[tokio::test]
    async fn a_message_of_the_inbox_is_looked_up() {
        let connecting = SqliteConnection::connect("sqlite::memory:").await;
        let mut connection = connecting.expect("a database in memory opens");
        for (_, text) in super::super::super::migrate::migrations() {
            let made = sqlx::raw_sql(*text).execute(&mut connection).await;
            made.expect("the schema is made");
        }
        for text in [ONE] {
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
