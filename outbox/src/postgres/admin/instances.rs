//! Instances, by what is known of them.

use sagabus_core::admin::{InstanceFilter, InstanceOverview, Page};
use sagabus_core::store::{Instance, Question};
use sagabus_core::unit_of_work::{InstanceStatus, Label};
use sagabus_core::{InstanceId, StoreError, Timestamp};
use sqlx::postgres::PgArguments;

use super::super::error::store_error;
use super::super::load;
use super::super::store::PgStore;
use super::dead_letters::add;
use crate::found;

const LABELS: &str = "select name, value from sagabus.label where kind = $1 and key = $2 \
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
            " where (i.kind, i.key) > (coalesce($5::text, ''), coalesce($6::text, '')) ",
            "and (i.kind = $1 or $1::text is null and i.kind not like '@%') and ($2::text is null or i.state = $2) ",
            "and ($3::boolean is null or i.completed = $3) ",
            "and ($4::bigint is null or i.updated_at < $4) ",
            "and ($12::int is null or i.schema_version < $12) ",
            "and ($7::bigint is null or i.created_at < $7) and ($8::text is null or i.key = $8) ",
            "and ($9::text is null or 1 = (select count(*) from sagabus.label o ",
            "where o.kind = i.kind and o.name = $9 and o.value = $10::text and o.key = i.key)) ",
            "order by i.kind, i.key limit $11::bigint"
        )
    };
}

/// Jumps from kind to kind through the primary key: there are few kinds and many instances.
macro_rules! kinds {
    () => {
        concat!(
            "with recursive known (kind) as (select min(kind) from sagabus.instance union all ",
            "select (select min(i.kind) from sagabus.instance i where i.kind > known.kind) ",
            "from known where known.kind is not null) "
        )
    };
}

const INSTANCES: &str = instances!("", "sagabus.instance i");

/// The lateral questions are asked once for each kind, through the primary key, whatever the planner
/// thinks how many kinds there are.
const INSTANCES_BY_KEY: &str = instances!(
    kinds!(),
    "known cross join lateral (select * from sagabus.instance o \
     where o.kind = known.kind and o.key = $8 offset 0) i"
);

const INSTANCES_BY_LABEL: &str = instances!(
    kinds!(),
    "known cross join lateral (select * from sagabus.label o where o.kind = known.kind \
     and o.name = $9 and o.value = $10 offset 0) l \
     cross join lateral (select * from sagabus.instance o \
     where o.kind = l.kind and o.key = l.key offset 0) i"
);

/// Reads one instance, tombstones included.
pub(super) async fn instance(
    store: &PgStore,
    id: &InstanceId,
) -> Result<Option<Instance>, StoreError> {
    let question = Question {
        instance: Some(id.clone()),
        ..Question::default()
    };
    let answers = load::load(store, &[question]).await?;
    Ok(answers.into_iter().next().and_then(|one| one.instance))
}

/// Reads the labels of an instance.
pub(super) async fn labels(store: &PgStore, id: &InstanceId) -> Result<Vec<Label>, StoreError> {
    let mut taken = store.take().await?;
    let call = sqlx::query(LABELS)
        .bind(id.kind.to_string())
        .bind(id.key.clone())
        .fetch_all(&mut *taken);
    let answer = store.answer(call).await;
    let rows = taken.finish(answer, store_error)?;
    rows.iter()
        .map(|row| found::label(row).map_err(store_error))
        .collect()
}

/// Reads instances without their data.
pub(super) async fn instances(
    store: &PgStore,
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
    let mut arguments = PgArguments::default();
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
    add(to, i64::from(Page::oldest(limit).size()))?;
    add(to, filter.schema_before)?;
    let mut taken = store.take().await?;
    let call = sqlx::query_with(text, arguments).fetch_all(&mut *taken);
    let answer = store.answer(call).await;
    let rows = taken.finish(answer, store_error)?;
    rows.iter()
        .map(|row| found::overview(row).map_err(store_error))
        .collect()
}
