//! Instances, by what is known of them.

use sagabus_core::admin::{InstanceFilter, InstanceOverview, Page};
use sagabus_core::store::Instance;
use sagabus_core::unit_of_work::{InstanceStatus, Label};
use sagabus_core::{InstanceId, StoreError, Timestamp};
use sqlx::sqlite::SqliteArguments;

use super::super::error::store_error;
use super::super::load::read_instance;
use super::super::store::SqliteStore;
use super::dead_letters::add;
use crate::found;

const FIND_INSTANCE: &str = "select version, completed, state, schema_version, data, timers, \
    origin from sagabus_instance where kind = $1 and key = $2";

const LABELS: &str = "select name, value from sagabus_label where kind = $1 and key = $2 \
    order by name, value";

/// `$5` and `$6`: kind and key behind which the list begins. `$7`: began before; `$8`: key; `$9`
/// and `$10`: label; `$12`: schema version. Where it reads decides how fast it is; what it finds, the conditions.
macro_rules! instances {
    ($kinds:expr, $source:literal) => {
        concat!(
            $kinds,
            "select i.kind, i.key, i.version, i.completed, i.state, i.created_at, i.updated_at ",
            "from ",
            $source,
            " where (i.kind, i.key) > (coalesce($5, ''), coalesce($6, '')) ",
            "and (i.kind = $1 or $1 is null and i.kind not like '@%') and ($2 is null or i.state = $2) ",
            "and ($3 is null or i.completed = $3) ",
            "and ($4 is null or i.updated_at < $4) ",
            "and ($12 is null or i.schema_version < $12) ",
            "and ($7 is null or i.created_at < $7) and ($8 is null or i.key = $8) ",
            "and ($9 is null or exists (select 1 from sagabus_label o where o.kind = i.kind ",
            "and o.name = $9 and o.value = $10 and o.key = i.key)) ",
            "order by i.kind, i.key limit $11"
        )
    };
}

/// Jumps from kind to kind through the primary key: there are few kinds and many instances.
macro_rules! kinds {
    () => {
        concat!(
            "with recursive known (kind) as (select min(kind) from sagabus_instance union all ",
            "select (select min(i.kind) from sagabus_instance i where i.kind > known.kind) ",
            "from known where known.kind is not null) "
        )
    };
}

const INSTANCES: &str = instances!("", "sagabus_instance i");

const INSTANCES_BY_KEY: &str = instances!(
    kinds!(),
    "known cross join sagabus_instance i on i.kind = known.kind and i.key = $8"
);

const INSTANCES_BY_LABEL: &str = instances!(
    kinds!(),
    "known cross join sagabus_label l on l.kind = known.kind and l.name = $9 and l.value = $10 \
     cross join sagabus_instance i on i.kind = l.kind and i.key = l.key"
);

/// Reads one instance.
pub(super) async fn instance(
    store: &SqliteStore,
    id: &InstanceId,
) -> Result<Option<Instance>, StoreError> {
    let row = sqlx::query(FIND_INSTANCE)
        .bind(id.kind.as_ref())
        .bind(&id.key)
        .fetch_optional(store.reader())
        .await
        .map_err(store_error)?;
    match row {
        Some(row) => read_instance(&row, id, 0),
        None => Ok(None),
    }
}

/// Reads the labels of an instance.
pub(super) async fn labels(store: &SqliteStore, id: &InstanceId) -> Result<Vec<Label>, StoreError> {
    let rows = sqlx::query(LABELS)
        .bind(id.kind.as_ref())
        .bind(&id.key)
        .fetch_all(store.reader())
        .await
        .map_err(store_error)?;
    rows.iter()
        .map(|row| found::label(row).map_err(store_error))
        .collect()
}

/// Reads instances without their data.
pub(super) async fn instances(
    store: &SqliteStore,
    filter: &InstanceFilter,
    limit: u32,
) -> Result<Vec<InstanceOverview>, StoreError> {
    let after = filter.after.as_ref();
    let label = filter.label.as_ref();
    let text = match (&filter.key, label) {
        (Some(_), _) => INSTANCES_BY_KEY,
        (None, Some(_)) => INSTANCES_BY_LABEL,
        (None, None) => INSTANCES,
    };
    let mut arguments = SqliteArguments::default();
    let to = &mut arguments;
    add(to, filter.kind.clone())?;
    add(to, filter.state.clone())?;
    add(
        to,
        filter.status.map(|one| one == InstanceStatus::Completed),
    )?;
    add(to, filter.idle_since.map(Timestamp::as_micros))?;
    add(to, after.map(|id| id.kind.to_string()))?;
    add(to, after.map(|id| id.key.clone()))?;
    add(to, filter.created_before.map(Timestamp::as_micros))?;
    add(to, filter.key.clone())?;
    add(to, label.map(|label| label.name.to_string()))?;
    add(to, label.map(|label| label.value.clone()))?;
    add(to, Page::oldest(limit).size())?;
    add(to, filter.schema_before)?;
    let rows = sqlx::query_with(text, arguments)
        .fetch_all(store.reader())
        .await
        .map_err(store_error)?;
    rows.iter()
        .map(|row| found::overview(row).map_err(store_error))
        .collect()
}

#[cfg(test)]
mod tests {
    use sqlx::{AssertSqlSafe, Connection, Row, SqliteConnection};

    use super::*;

    #[tokio::test]
    async fn keys_and_labels_are_looked_up() {
        let mut connection = SqliteConnection::connect("sqlite::memory:").await.unwrap();
        for (_, text) in super::super::super::migrate::migrations() {
            sqlx::raw_sql(*text).execute(&mut connection).await.unwrap();
        }
        for (text, read) in [
            (INSTANCES_BY_KEY, "SEARCH i "),
            (INSTANCES_BY_LABEL, "SEARCH l "),
        ] {
            let explain = AssertSqlSafe(format!("explain query plan {text}"));
            let plan = sqlx::query(explain).fetch_all(&mut connection).await;
            let plan: Vec<String> = plan.unwrap().iter().map(|row| row.get(3)).collect();
            let scans = |line: &&String| line.starts_with("SCAN i") || line.starts_with("SCAN l");
            assert!(plan.iter().find(scans).is_none(), "{plan:#?}");
            assert!(plan.iter().any(|line| line.starts_with(read)), "{plan:#?}");
        }
    }
}
