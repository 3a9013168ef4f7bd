//! The loader's question: what is known about the messages that wait.

use std::borrow::Cow;

use sagabus_core::StoreError;
use sagabus_core::store::{Answer, Fate, Instance, Question};
use sagabus_core::unit_of_work::InstanceStatus;
use sagabus_core::{EndpointName, InstanceId};
use sqlx::Row;
use sqlx::sqlite::SqliteRow;

use super::error::store_error;
use super::rows::Rows;
use super::store::SqliteStore;
use crate::row;

/// Rows: message id (hexadecimal) and endpoint id, or nulls; kind and key of the instance, or
/// nulls; destination and key of the line, or nulls. Returns a row for each question that has
/// something to say, so that new messages of new instances cost none.
pub(super) const LOAD: &str = "select e.key, \
    exists (select 1 from sagabus_inbox where message_id = unhex(e.value ->> 0) \
        and endpoint_id = e.value ->> 1) as is_taken_over, \
    exists (select 1 from sagabus_outbox o where o.destination = e.value ->> 4 \
        and o.key = e.value ->> 5 and o.per_key = 1 and o.parked is null) as is_blocked, \
    i.version, i.completed, i.state, i.schema_version, i.data, i.timers, i.origin \
    from json_each($1) e left join sagabus_instance i \
        on i.kind = e.value ->> 2 and i.key = e.value ->> 3 \
    where i.version is not null or is_taken_over or is_blocked";

/// All in one statement, so that what it sees is of one moment. Rows that are parked, and those that
/// are not, have an index each.
pub(super) const FATE: &str = "select \
    exists (select 1 from sagabus_inbox b where b.message_id = $1 and b.endpoint_id = e.id), \
    exists (select 1 from sagabus_outbox o where o.destination = '@' || e.name \
        and o.message_id = $1 and o.parked is null) \
    or exists (select 1 from sagabus_outbox o where o.destination = '@' || e.name \
        and o.message_id = $1 and o.parked is not null), \
    exists (select 1 from sagabus_dead_letter d where d.endpoint = e.name \
        and d.message_id = $1 and d.status = 'open') \
    from sagabus_endpoint e where e.id = $2";

/// Answers all questions by one query, on a connection that only reads.
pub(super) async fn load(
    store: &SqliteStore,
    questions: &[Question],
) -> Result<Vec<Answer>, StoreError> {
    let mut answers = vec![Answer::default(); questions.len()];
    if questions.is_empty() {
        return Ok(answers);
    }
    let questions = &*resolve(store, questions).await?;
    let mut asked = Rows::default();
    for question in questions {
        ask(&mut asked, question);
    }
    let rows = sqlx::query(LOAD)
        .bind(asked.json())
        .fetch_all(store.reader())
        .await
        .map_err(store_error)?;
    for row in rows {
        let at: i64 = row.try_get(0).map_err(store_error)?;
        let at = usize::try_from(at).unwrap_or(usize::MAX);
        let (Some(answer), Some(question)) = (answers.get_mut(at), questions.get(at)) else {
            continue;
        };
        answer.is_taken_over = row.try_get(1).map_err(store_error)?;
        answer.is_blocked = row.try_get(2).map_err(store_error)?;
        if let Some(id) = &question.instance {
            answer.instance = read_instance(&row, id, 3)?;
        }
    }
    for (question, answer) in questions.iter().zip(&mut answers) {
        if let Some((endpoint, message)) = question.fate {
            let asking = sqlx::query(FATE).bind(message.as_uuid()).bind(endpoint.0);
            let found = asking.fetch_optional(store.reader()).await;
            let found = found.map_err(store_error)?;
            answer.fate = found.map(|row| fate(&row)).transpose()?;
        }
    }
    Ok(answers)
}

/// Rows: kind, name, value of a label. Returns the key of the instance that has it.
pub(super) const FIND_LABELS: &str = "select e.key, l.key from json_each($1) e \
    cross join sagabus_label l not indexed \
    on l.kind = e.value ->> 0 and l.name = e.value ->> 1 and l.value = e.value ->> 2";

/// Asks for the instances that questions name by a label, and puts their names in place.
async fn resolve<'a>(
    store: &SqliteStore,
    questions: &'a [Question],
) -> Result<Cow<'a, [Question]>, StoreError> {
    let mut asked = Rows::default();
    let mut places = Vec::new();
    for (place, question) in questions.iter().enumerate() {
        if let (Some(one), None) = (&question.label, &question.instance) {
            let row = asked.begin().text(&one.kind);
            row.text(&one.label.name).text(&one.label.value).end();
            places.push((place, &one.kind));
        }
    }
    if places.is_empty() {
        return Ok(Cow::Borrowed(questions));
    }
    let query = sqlx::query(FIND_LABELS).bind(asked.json());
    let rows = query.fetch_all(store.reader()).await.map_err(store_error)?;
    let mut resolved = questions.to_vec();
    for row in rows {
        let at: i64 = row.try_get(0).map_err(store_error)?;
        let Some((place, kind)) = usize::try_from(at).ok().and_then(|at| places.get(at)) else {
            continue;
        };
        resolved[*place].instance = Some(InstanceId {
            kind: (*kind).clone(),
            key: row.try_get(1).map_err(store_error)?,
        });
    }
    Ok(Cow::Owned(resolved))
}

fn fate(row: &SqliteRow) -> Result<Fate, StoreError> {
    let is = |index| row.try_get(index).map_err(store_error);
    Ok(Fate::of(is(0)?, is(1)?, is(2)?))
}

/// Reads an instance from the columns that begin at `at`; none where they are null.
pub(super) fn read_instance(
    row: &SqliteRow,
    id: &InstanceId,
    at: usize,
) -> Result<Option<Instance>, StoreError> {
    let version: Option<i64> = row.try_get(at).map_err(store_error)?;
    let Some(version) = version else {
        return Ok(None);
    };
    let is_completed: bool = row.try_get(at + 1).map_err(store_error)?;
    let data: Vec<u8> = row.try_get(at + 4).map_err(store_error)?;
    let timers: Vec<u8> = row.try_get(at + 5).map_err(store_error)?;
    let origin: Option<Vec<u8>> = row.try_get(at + 6).map_err(store_error)?;
    Ok(Some(Instance {
        id: id.clone(),
        version,
        status: match is_completed {
            true => InstanceStatus::Completed,
            false => InstanceStatus::Running,
        },
        state: row.try_get(at + 2).map_err(store_error)?,
        schema_version: row.try_get(at + 3).map_err(store_error)?,
        data: data.into(),
        timers: row::timers_from_json(&timers),
        origin: row::origin_from_json(origin.as_deref()),
    }))
}

fn ask(asked: &mut Rows, question: &Question) {
    let taken_over = question.taken_over.as_ref();
    let id = taken_over.map(|(_, id)| id.as_uuid().simple().to_string());
    let blocked = question.blocked.as_ref();
    let destination = blocked.map(|(name, _): &(EndpointName, _)| row::endpoint_text(name));
    let instance = question.instance.as_ref();
    asked
        .begin()
        .maybe_text(id.as_deref())
        .maybe_int(taken_over.map(|(endpoint, _)| i64::from(endpoint.0)))
        .maybe_text(instance.map(|id| id.kind.as_ref()))
        .maybe_text(instance.map(|id| &*id.key))
        .maybe_text(destination.as_deref())
        .maybe_text(blocked.map(|(_, key)| key.as_str()))
        .end();
}
