//! The loader's question: one call for all waiting messages.

use bytes::Bytes;
use sagabus_core::StoreError;
use sagabus_core::store::{Answer, Fate, Instance, Question};
use sagabus_core::unit_of_work::InstanceStatus;
use sqlx::Row;
use sqlx::postgres::{PgConnection, PgRow};
use sqlx::types::Uuid;

use super::error::store_error;
use super::label;
use super::store::PgStore;
use crate::row;

const LOAD: &str = "select known, version, completed, state, schema_version, data, timers, \
    origin, blocked from sagabus.load_v1($1, $2, $3, $4, $5, $6)";

/// The same for questions that ask nothing but whether a message was taken over.
const KNOWN: &str = "select sagabus.known_v1($1, $2)";

/// All in one statement, so that what it sees is of one moment. Rows that are parked, and those that
/// are not, have an index each.
const FATE: &str = "select \
    exists (select from sagabus.inbox b where b.message_id = $1 and b.endpoint_id = e.id), \
    exists (select from sagabus.outbox o where o.destination = '@' || e.name \
        and o.message_id = $1 and o.parked is null) \
    or exists (select from sagabus.outbox o where o.destination = '@' || e.name \
        and o.message_id = $1 and o.parked is not null), \
    exists (select from sagabus.dead_letter d where d.endpoint = e.name \
        and d.message_id = $1 and d.status = 'open') \
    from sagabus.endpoint e where e.id = $2";

/// Asks all questions in one call.
pub(super) async fn load(
    store: &PgStore,
    questions: &[Question],
) -> Result<Vec<Answer>, StoreError> {
    if questions.is_empty() {
        return Ok(Vec::new());
    }
    let mut taken = store.take().await?;
    let answer = store.answer(ask(&mut taken, questions)).await;
    taken.finish(answer, store_error)
}

async fn ask(
    connection: &mut PgConnection,
    questions: &[Question],
) -> Result<Vec<Answer>, sqlx::Error> {
    let plain: Option<Vec<(i32, Uuid)>> = questions.iter().map(plain).collect();
    if let Some(plain) = plain {
        return ask_plain(connection, plain).await;
    }
    let questions = &*label::resolve(connection, questions).await?;
    let mut endpoints = Vec::with_capacity(questions.len());
    let mut messages = Vec::with_capacity(questions.len());
    let mut kinds = Vec::with_capacity(questions.len());
    let mut keys = Vec::with_capacity(questions.len());
    let mut destinations = Vec::with_capacity(questions.len());
    let mut lines = Vec::with_capacity(questions.len());
    for question in questions {
        endpoints.push(question.taken_over.map(|(endpoint, _)| endpoint.0));
        messages.push(question.taken_over.map(|(_, message)| message.as_uuid()));
        // No instance has a name that no column can hold.
        let instance = question
            .instance
            .as_ref()
            .filter(|id| !id.kind.contains('\0') && !id.key.contains('\0'));
        kinds.push(instance.map(|id| id.kind.as_ref()));
        keys.push(instance.map(|id| &*id.key));
        let line = question
            .blocked
            .as_ref()
            .filter(|(_, key)| !key.contains('\0'));
        destinations.push(line.map(|(name, _)| row::endpoint_text(name)));
        lines.push(line.map(|(_, key)| key.as_str()));
    }
    let rows = sqlx::query(LOAD)
        .bind(endpoints)
        .bind(messages)
        .bind(kinds)
        .bind(keys)
        .bind(destinations)
        .bind(lines)
        .fetch_all(&mut *connection)
        .await?;
    let read: Result<Vec<Answer>, _> = questions.iter().zip(&rows).map(read).collect();
    let mut answers = read?;
    for (question, answer) in questions.iter().zip(&mut answers) {
        if let Some((endpoint, message)) = question.fate {
            let asking = sqlx::query(FATE).bind(message.as_uuid()).bind(endpoint.0);
            let found = asking.fetch_optional(&mut *connection).await?;
            answer.fate = found.map(|row| fate(&row)).transpose()?;
        }
    }
    Ok(answers)
}

/// Returns endpoint and message of a question that asks for no more than whether it is known.
fn plain(question: &Question) -> Option<(i32, Uuid)> {
    let Question {
        taken_over: Some((endpoint, message)),
        instance: None,
        label: None,
        blocked: None,
        fate: None,
    } = question
    else {
        return None;
    };
    Some((endpoint.0, message.as_uuid()))
}

async fn ask_plain(
    connection: &mut PgConnection,
    questions: Vec<(i32, Uuid)>,
) -> Result<Vec<Answer>, sqlx::Error> {
    let (endpoints, messages): (Vec<i32>, Vec<Uuid>) = questions.into_iter().unzip();
    let query = sqlx::query_scalar(KNOWN).bind(endpoints).bind(messages);
    let known: Vec<bool> = query.fetch_one(connection).await?;
    let answer = |is_taken_over| Answer {
        is_taken_over,
        ..Answer::default()
    };
    Ok(known.into_iter().map(answer).collect())
}

fn fate(row: &PgRow) -> Result<Fate, sqlx::Error> {
    Ok(Fate::of(row.try_get(0)?, row.try_get(1)?, row.try_get(2)?))
}

fn read((question, found): (&Question, &PgRow)) -> Result<Answer, sqlx::Error> {
    let version: Option<i64> = found.try_get(1)?;
    let instance = match (&question.instance, version) {
        (Some(id), Some(version)) => {
            let status = if found.try_get(2)? {
                InstanceStatus::Completed
            } else {
                InstanceStatus::Running
            };
            Some(Instance {
                id: id.clone(),
                version,
                status,
                state: found.try_get(3)?,
                schema_version: found.try_get(4)?,
                data: Bytes::from(found.try_get::<Vec<u8>, _>(5)?),
                timers: row::timers_from_json(found.try_get(6)?),
                origin: row::origin_from_json(found.try_get(7)?),
            })
        }
        _ => None,
    };
    Ok(Answer {
        is_taken_over: found.try_get(0)?,
        instance,
        is_blocked: found.try_get(8)?,
        fate: None,
    })
}
