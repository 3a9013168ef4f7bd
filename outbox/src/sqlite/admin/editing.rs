//! What operators write themselves: another body for a dead letter, other data for an instance, an
//! errand for a host.

use sagabus_core::admin::{Alteration, Edit, Errand, Transitioned};
use sagabus_core::{InstanceId, StoreError};
use serde_json::{Value, json};

use super::super::clock::now;
use super::super::error::store_error;
use super::super::writer::Write;
use super::change::{Done, one_id, send_again, sum, text_argument};
use super::dead_letters::add;
use crate::row;

/// Redrives the dead letter `$1` where its body is still `$2`.
const CLOSE: &str = "update sagabus_dead_letter set status = 'redriven' \
    where id = cast($1 as integer) and status = 'open' and body = $2 \
    returning id, message_id, message_type, endpoint";

/// `$1` kind, `$2` key, `$3` version, `$4` state, `$5` data.
const ALTER: &str = concat!(
    "update sagabus_instance set version = version + 1, state = $4, data = $5, updated_at = ",
    now!(),
    " where kind = $1 and key = $2 and version = $3 and completed = 0 returning version"
);

/// `$1` kind, `$2` key, `$3` version.
const COMPLETE: &str = concat!(
    "update sagabus_instance set version = version + 1, completed = 1, ",
    "timers = cast('{}' as blob), updated_at = ",
    now!(),
    " where kind = $1 and key = $2 and version = $3 and completed = 0 returning version"
);

/// `$1` kind, `$2` key.
const DISARM_ALL: &str = "delete from sagabus_outbox where timer_kind = $1 and timer_key = $2";

/// `$1` endpoint, `$2` the errand. One that nobody waits for any more makes way.
const ASK_HOST: &str = concat!(
    "insert into sagabus_instance (kind, key, version, completed, state, schema_version, data, ",
    "timers, created_at, updated_at) select '@errand', e.name, 1, 0, 'asked', 1, $2, x'7b7d', ",
    now!(),
    ", ",
    now!(),
    " from sagabus_endpoint e where e.name = $1 ",
    "on conflict (kind, key) do update set version = version + 1, completed = 0, ",
    "state = excluded.state, data = excluded.data, updated_at = excluded.updated_at ",
    "where completed = 1 or updated_at < excluded.updated_at - 60000000 returning version"
);

/// `$1` who, `$2` kind, `$3` key, `$4` the version that was seen, `$5` what came of it.
const NOTE_TRANSITION: &str = "update sagabus_audit set outcome = $5 where id = (\
    select id from sagabus_audit where action in ('transition_instance', 'cancel_instance') \
    and who = $1 and outcome is null and cast(detail as text) ->> '$[0].kind' = $2 \
    and cast(detail as text) ->> '$[0].key' = $3 and cast(detail as text) ->> '$[0].version' = $4 \
    order by id desc limit 1) returning id";

/// Redrives one dead letter with another body. The dead letter keeps what it was.
pub(super) async fn edit(write: &mut Write, edit: &Edit) -> Result<Done, StoreError> {
    let mut arguments = text_argument(&edit.id.to_string())?;
    add(&mut arguments, edit.before.to_vec())?;
    let replies = write.step(CLOSE, arguments).await?;
    let Some(row) = replies.first().and_then(|reply| reply.rows.first()) else {
        return Ok(Done::default());
    };
    let (id, mut detail) = sum(row, "endpoint").map_err(store_error)?;
    if let (Value::Object(names), Value::Object(more)) = (&mut detail, edit.detail()) {
        names.extend(more);
    }
    send_again(write, &[id], None, Some((edit.message, &edit.after))).await?;
    Ok((vec![id], vec![detail]))
}

/// Replaces state and data of an instance.
pub(super) async fn alter(write: &mut Write, alteration: &Alteration) -> Result<Done, StoreError> {
    let id = &alteration.instance;
    let mut arguments = text_argument(&id.kind)?;
    add(&mut arguments, id.key.clone())?;
    add(&mut arguments, alteration.version)?;
    add(&mut arguments, alteration.after.state.clone())?;
    add(&mut arguments, alteration.after.data.to_vec())?;
    let replies = write.step(ALTER, arguments).await?;
    match replies.first().is_some_and(|reply| !reply.rows.is_empty()) {
        true => Ok((vec![alteration.version + 1], vec![alteration.detail()])),
        false => Ok(Done::default()),
    }
}

/// Ends an instance and removes its timers.
pub(super) async fn complete(
    write: &mut Write,
    id: &InstanceId,
    version: i64,
) -> Result<Done, StoreError> {
    let mut arguments = text_argument(&id.kind)?;
    add(&mut arguments, id.key.clone())?;
    let mut with_version = arguments.clone();
    add(&mut with_version, version)?;
    let replies = write.step(COMPLETE, with_version).await?;
    if replies.first().is_none_or(|reply| reply.rows.is_empty()) {
        return Ok(Done::default());
    }
    write.step(DISARM_ALL, arguments).await?;
    let detail = json!({ "kind": id.kind, "key": id.key, "version": version });
    Ok((vec![version + 1], vec![detail]))
}

/// Asks a host of an endpoint to do something, where it is about nothing else.
pub(super) async fn ask_host(write: &mut Write, errand: &Errand) -> Result<Done, StoreError> {
    let mut arguments = text_argument(&errand.endpoint)?;
    add(&mut arguments, errand.to_bytes().to_vec())?;
    let version = one_id(write, ASK_HOST, arguments).await?;
    let detail = version.map(|_| errand.detail());
    Ok((version.into_iter().collect(), detail.into_iter().collect()))
}

/// Completes the audit entry by which a host was asked to move an instance, inside the open
/// transaction.
pub(super) async fn note_transition(
    write: &mut Write,
    who: &str,
    done: &Transitioned,
) -> Result<Done, StoreError> {
    let mut arguments = text_argument(who)?;
    add(&mut arguments, done.instance.kind.to_string())?;
    add(&mut arguments, done.instance.key.to_string())?;
    add(&mut arguments, done.version)?;
    add(&mut arguments, row::value_to_json(&done.outcome()))?;
    let noted = one_id(write, NOTE_TRANSITION, arguments).await?;
    let versions = noted.map(|_| done.after.version);
    Ok((versions.into_iter().collect(), Vec::new()))
}
