//! What operators change: each change and its audit entry in one transaction.

use sagabus_core::admin::{Action, Change, Verb};
use sagabus_core::envelope::Envelope;
use sagabus_core::schedule::ScheduleVerb;
use sagabus_core::unit_of_work::RowKey;
use sagabus_core::{MessageId, StoreError, Timestamp, headers};
use serde_json::{Value, json};
use sqlx::Row;
use sqlx::sqlite::{SqliteArguments, SqliteRow};

use super::super::clock::{never, now};
use super::super::error::store_error;
use super::super::rows::Rows;
use super::super::sections::DROP_STUBS;
use super::super::store::SqliteStore;
use super::super::writer::Write;
use super::dead_letters::add;
use super::{editing, holding, rows, sent};
use crate::row;

/// `$1` ids as JSON, in all of these texts.
macro_rules! ids {
    () => {
        "(select value from json_each($1))"
    };
}

const REDRIVE: &str = concat!(
    "update sagabus_dead_letter set status = 'redriven' where status = 'open' and id in ",
    ids!(),
    " returning id, message_id, message_type, endpoint"
);

/// Finds the stub of a dead letter `d`.
macro_rules! stub {
    () => {
        concat!(
            "(select min(s.id) from sagabus_outbox s where s.destination = '@' || d.endpoint ",
            "and s.key = d.key and s.per_key = 1 and s.parked is null and s.available_at = ",
            never!(),
            " and s.message_id = d.message_id)"
        )
    };
}

/// Writes the rows of what was redriven and has no stub, in the order of the dead letters, for the
/// endpoint `$2` or each for its own; one that was edited, with the identity `$3` and the body `$4`.
/// Their place in line is the last.
const SEND_AGAIN: &str = concat!(
    "insert into sagabus_outbox (message_id, message_type, destination, key, per_key, headers, ",
    "body, available_at, created_at) select coalesce($3, d.message_id), d.message_type, ",
    "'@' || coalesce($2, d.endpoint), ",
    "d.key, coalesce(e.per_key, 0) = 1 and d.key is not null, d.headers, coalesce($4, d.body), ",
    now!(),
    ", ",
    now!(),
    " from sagabus_dead_letter d left join sagabus_endpoint e ",
    "on e.name = coalesce($2, d.endpoint) where d.id in ",
    ids!(),
    " and ",
    stub!(),
    " is null order by d.id"
);

/// Puts what was redriven in the place that its stub held; one that was edited, with the identity
/// `$2` and the body `$3`.
const FILL_STUBS: &str = concat!(
    "update sagabus_outbox as o set message_id = coalesce($2, o.message_id), ",
    "message_type = f.message_type, headers = f.headers, body = coalesce($3, f.body), ",
    "available_at = ",
    now!(),
    ", created_at = ",
    now!(),
    " from (select d.message_type, d.headers, d.body, ",
    stub!(),
    " as stub from sagabus_dead_letter d where d.id in ",
    ids!(),
    ") f where o.id = f.stub"
);

/// Finds the stubs of what was discarded, or goes to another endpoint, which is `$2`.
const FIND_STUBS: &str = concat!(
    "select o.id, o.epoch from sagabus_dead_letter d join sagabus_outbox o on o.id = ",
    stub!(),
    " where ($2 is null or d.endpoint <> $2) and d.id in ",
    ids!()
);

const DISCARD: &str = concat!(
    "update sagabus_dead_letter set status = 'discarded' where status = 'open' and id in ",
    ids!(),
    " returning id, message_id, message_type, endpoint"
);

/// Of two that ask for one place, the later stays as it is.
const RESTORE: &str = concat!(
    "update sagabus_dead_letter as d set status = 'open' where status = 'discarded' and id in ",
    ids!(),
    " and not exists (select 1 from sagabus_dead_letter o where o.endpoint = d.endpoint ",
    "and o.message_id = d.message_id and (o.status = 'open' or o.id < d.id ",
    "and o.status = 'discarded' and o.id in ",
    ids!(),
    ")) returning id, message_id, message_type, endpoint"
);

const REMOVE_SUBSCRIPTION: &str = "delete from sagabus_subscription where message_type = $2 \
    and endpoint_id = (select id from sagabus_endpoint where name = $1) returning endpoint_id";

const REMOVE_SUBSCRIPTIONS: &str = "delete from sagabus_subscription \
    where endpoint_id = (select id from sagabus_endpoint where name = $1)";

/// Asks for an endpoint that nothing waits for.
const FIND_IDLE_ENDPOINT: &str = "select id from sagabus_endpoint where name = $1 \
    and not exists (select 1 from sagabus_outbox where destination = '@' || $1) \
    and not exists (select 1 from sagabus_dead_letter where status = 'open' and endpoint = $1)";

const REMOVE_ENDPOINT: &str = "delete from sagabus_endpoint where name = $1";

/// `$2` when. What is not due yet is in nobody's hands.
const MOVE_TIMERS: &str = concat!(
    "update sagabus_outbox set due_at = max(coalesce($2, 0), ",
    now!(),
    "), available_at = max(coalesce($2, 0), ",
    now!(),
    ") where timer_name is not null and parked is null and due_at > ",
    now!(),
    " and id in ",
    ids!(),
    " returning id, message_id, message_type, timer_name"
);

/// Before the rows go: the instances do not wait for them any more.
const DISARM: &str = concat!(
    "update sagabus_instance as i set version = version + 1, updated_at = ",
    now!(),
    ", timers = cast((select json_group_object(t.key, t.value) from json_each(cast(i.timers as ",
    "text)) t where not exists (select 1 from sagabus_outbox o where o.timer_kind = i.kind and ",
    "o.timer_key = i.key and o.timer_name = t.key and o.id in ",
    ids!(),
    ")) as blob) where (i.kind, i.key) in (select o.timer_kind, o.timer_key from sagabus_outbox o ",
    "where o.id in ",
    ids!(),
    ")"
);

const REMOVE_TIMERS: &str = concat!("delete from sagabus_outbox where id in ", ids!());

/// Those of the ids that are timers and not due yet.
const FIND_TIMERS: &str = concat!(
    "select id, message_id, message_type, timer_name from sagabus_outbox ",
    "where timer_name is not null and parked is null and due_at > ",
    now!(),
    " and id in ",
    ids!()
);

const FIND_SCHEDULE: &str =
    "select state from sagabus_instance where kind = '@schedule' and key = $1";

const MOVE_SCHEDULE: &str = concat!(
    "update sagabus_instance set state = $2, version = version + 1, updated_at = ",
    now!(),
    " where kind = '@schedule' and key = $1 returning version"
);

const REMOVE_SCHEDULE: &str =
    "delete from sagabus_instance where kind = '@schedule' and key = $1 returning version";

/// `$1` endpoint, `$2` and so on the message. A row without a line is held up by none.
const SEND: &str = concat!(
    "insert into sagabus_outbox (message_id, message_type, destination, key, headers, body, ",
    "available_at, created_at) select $2, $3, '@' || e.name, $4, $5, $6, ",
    now!(),
    ", ",
    now!(),
    " from sagabus_endpoint e where e.name = $1 ",
    "returning id, message_id, message_type, destination"
);

const RAISE_ROUTES: &str = "update sagabus_store set routes_version = routes_version + 1";

const PUT_AUDIT: &str = concat!(
    "insert into sagabus_audit (at, who, action, why, operation_id, detail) ",
    "values (",
    now!(),
    ", $1, $2, $3, $4, $5)"
);

/// What was done: the ids that changed, and an object for the audit per row.
pub(super) type Done = (Vec<i64>, Vec<Value>);

/// Carries a change out.
pub(super) async fn change(store: &SqliteStore, change: &Change) -> Result<Vec<i64>, StoreError> {
    change.check()?;
    let mut write = store.write().await?;
    write
        .step("begin immediate", SqliteArguments::default())
        .await?;
    let (ids, detail) = carry_out(&mut write, change).await?;
    if ids.is_empty() && detail.is_empty() {
        write.rollback().await;
        return Ok(ids);
    }
    if !detail.is_empty() {
        let note = Note {
            who: &change.who,
            action: change.action.as_str(),
            why: &change.why,
            operation: None,
            detail,
        };
        note.put(&mut write).await?;
    }
    write.commit().await?;
    drop(write);
    store.nudge();
    Ok(ids)
}

/// An audit entry.
pub(super) struct Note<'a> {
    pub(super) who: &'a str,
    pub(super) action: &'a str,
    pub(super) why: &'a str,
    pub(super) operation: Option<i64>,
    pub(super) detail: Vec<Value>,
}

impl Note<'_> {
    /// Writes it inside the open transaction.
    pub(super) async fn put(self, write: &mut Write) -> Result<(), StoreError> {
        let mut arguments = text_argument(self.who)?;
        add(&mut arguments, self.action.to_owned())?;
        add(&mut arguments, self.why.to_owned())?;
        add(&mut arguments, self.operation)?;
        add(
            &mut arguments,
            row::value_to_json(&Value::Array(self.detail)),
        )?;
        write.step(PUT_AUDIT, arguments).await?;
        Ok(())
    }
}

/// Does what a verb says with what it is for, inside the open transaction.
pub(super) async fn deal(write: &mut Write, verb: &Verb, ids: &[i64]) -> Result<Done, StoreError> {
    match verb {
        Verb::Redrive { to } => {
            let done = dead_letters(write, REDRIVE, ids).await?;
            if to.is_some() {
                drop_stubs(write, &done.0, to.as_deref()).await?;
            }
            send_again(write, &done.0, to.as_deref(), None).await?;
            Ok(done)
        }
        Verb::Discard => {
            let done = dead_letters(write, DISCARD, ids).await?;
            drop_stubs(write, &done.0, None).await?;
            Ok(done)
        }
        Verb::Restore => dead_letters(write, RESTORE, ids).await,
        Verb::Rows(verb) => rows::change(write, ids, verb).await,
        Verb::Republish => sent::republish(write, ids).await,
    }
}

/// Writes the rows of redriven dead letters, inside the open transaction.
pub(super) async fn send_again(
    write: &mut Write,
    ids: &[i64],
    to: Option<&str>,
    edited: Option<(MessageId, &[u8])>,
) -> Result<(), StoreError> {
    let message = edited.map(|(id, _)| id.as_uuid().into_bytes().to_vec());
    let body = edited.map(|(_, body)| body.to_vec());
    let mut arguments = id_argument(ids)?;
    add(&mut arguments, to.map(str::to_owned))?;
    add(&mut arguments, message.clone())?;
    add(&mut arguments, body.clone())?;
    write.step(SEND_AGAIN, arguments).await?;
    let mut arguments = id_argument(ids)?;
    add(&mut arguments, message)?;
    add(&mut arguments, body)?;
    write.step(FILL_STUBS, arguments).await?;
    Ok(())
}

/// Runs the statements of an action inside the open transaction.
async fn carry_out(write: &mut Write, change: &Change) -> Result<Done, StoreError> {
    let done = match &change.action {
        Action::RedriveDeadLetters(ids) => deal(write, &Verb::Redrive { to: None }, ids).await?,
        Action::DiscardDeadLetters(ids) => deal(write, &Verb::Discard, ids).await?,
        Action::RestoreDeadLetters(ids) => deal(write, &Verb::Restore, ids).await?,
        Action::RepublishSent(ids) => sent::republish(write, ids).await?,
        Action::ChangeRows { ids, verb } => rows::change(write, ids, verb).await?,
        Action::SendMessage { endpoint, envelope } => send(write, endpoint, envelope).await?,
        Action::EditDeadLetter(edit) => editing::edit(write, edit).await?,
        Action::AlterInstance(alteration) => editing::alter(write, alteration).await?,
        Action::CompleteInstance { instance, version } => {
            editing::complete(write, instance, *version).await?
        }
        Action::RemoveSubscription {
            endpoint,
            message_type,
        } => remove_subscription(write, endpoint, message_type).await?,
        Action::RemoveEndpoint { endpoint } => remove_endpoint(write, endpoint).await?,
        Action::MoveTimers { ids, due } => {
            let mut arguments = id_argument(ids)?;
            add(&mut arguments, due.map(Timestamp::as_micros))?;
            summed_by(write, MOVE_TIMERS, arguments, "timer").await?
        }
        Action::CancelTimers(ids) => {
            // The clock goes on between two statements; what the first one found is what is meant.
            let done = summed(write, FIND_TIMERS, ids, "timer").await?;
            for text in [DISARM, REMOVE_TIMERS] {
                write.step(text, id_argument(&done.0)?).await?;
            }
            done
        }
        Action::PauseEndpoint { endpoint } => holding::pause_endpoint(write, endpoint).await?,
        Action::ResumeEndpoint { endpoint } => holding::resume_endpoint(write, endpoint).await?,
        Action::PauseTransport { transport } => holding::pause_transport(write, transport).await?,
        Action::ResumeTransport { transport } => {
            holding::resume_transport(write, transport).await?
        }
        Action::ChangeSchedule { name, verb } => change_schedule(write, name, *verb).await?,
        Action::AskHost(errand) => editing::ask_host(write, errand).await?,
        // What is written is in the entry of who asked: no other one is made.
        Action::NoteTransition(done) => editing::note_transition(write, &change.who, done).await?,
    };
    Ok(done)
}

async fn dead_letters(
    write: &mut Write,
    text: &'static str,
    ids: &[i64],
) -> Result<Done, StoreError> {
    summed(write, text, ids, "endpoint").await
}

/// Removes the stubs of dead letters, but of those of the endpoint to which they go, so that
/// whoever stood behind them comes next.
async fn drop_stubs(write: &mut Write, ids: &[i64], to: Option<&str>) -> Result<(), StoreError> {
    let mut arguments = id_argument(ids)?;
    add(&mut arguments, to.map(str::to_owned))?;
    let replies = write.step(FIND_STUBS, arguments).await?;
    let mut stubs = Rows::default();
    for row in replies.iter().flat_map(|reply| &reply.rows) {
        let id = row.try_get(0).map_err(store_error)?;
        let epoch = row.try_get(1).map_err(store_error)?;
        stubs.row_key(RowKey { id, epoch }).end();
    }
    if stubs.count == 0 {
        return Ok(());
    }
    let stubs = stubs.json();
    for text in DROP_STUBS {
        write.step(*text, text_argument(&stubs)?).await?;
    }
    Ok(())
}

async fn send(write: &mut Write, endpoint: &str, envelope: &Envelope) -> Result<Done, StoreError> {
    let mut arguments = text_argument(endpoint)?;
    let to = &mut arguments;
    add(to, envelope.id.as_uuid().as_bytes().to_vec())?;
    add(to, envelope.message_type.to_string())?;
    add(to, envelope.headers.get(headers::KEY).map(str::to_owned))?;
    add(to, envelope.headers.to_json())?;
    add(to, envelope.body.to_vec())?;
    summed_by(write, SEND, arguments, "destination").await
}

/// Runs a text over ids that returns id, message id, type and place of each row that it changed.
pub(super) async fn summed(
    write: &mut Write,
    text: &'static str,
    ids: &[i64],
    place: &str,
) -> Result<Done, StoreError> {
    summed_by(write, text, id_argument(ids)?, place).await
}

pub(super) async fn summed_by(
    write: &mut Write,
    text: &'static str,
    arguments: SqliteArguments,
    place: &str,
) -> Result<Done, StoreError> {
    let replies = write.step(text, arguments).await?;
    let rows = replies.iter().flat_map(|reply| &reply.rows);
    let mut done = rows
        .map(|row| sum(row, place).map_err(store_error))
        .collect::<Result<Vec<_>, _>>()?;
    // `RETURNING` promises no order.
    done.sort_by_key(|(id, _)| *id);
    Ok(done.into_iter().unzip())
}

pub(super) fn sum(row: &SqliteRow, place: &str) -> Result<(i64, Value), sqlx::Error> {
    let id: i64 = row.try_get(0)?;
    let detail = json!({
        "id": id,
        "message_id": row::uuid_from_bytes(row.try_get(1)?).to_string(),
        "message_type": row.try_get::<String, _>(2)?,
        place: row.try_get::<String, _>(3)?,
    });
    Ok((id, detail))
}

async fn remove_subscription(
    write: &mut Write,
    endpoint: &str,
    message_type: &str,
) -> Result<Done, StoreError> {
    let mut arguments = text_argument(endpoint)?;
    add(&mut arguments, message_type.to_owned())?;
    let Some(id) = one_id(write, REMOVE_SUBSCRIPTION, arguments).await? else {
        return Ok(Done::default());
    };
    write.step(RAISE_ROUTES, SqliteArguments::default()).await?;
    let detail = json!({ "endpoint": endpoint, "message_type": message_type });
    Ok((vec![id], vec![detail]))
}

async fn remove_endpoint(write: &mut Write, endpoint: &str) -> Result<Done, StoreError> {
    let found = one_id(write, FIND_IDLE_ENDPOINT, text_argument(endpoint)?).await?;
    let Some(id) = found else {
        return Ok(Done::default());
    };
    for text in [REMOVE_SUBSCRIPTIONS, REMOVE_ENDPOINT] {
        write.step(text, text_argument(endpoint)?).await?;
    }
    write.step(RAISE_ROUTES, SqliteArguments::default()).await?;
    Ok((vec![id], vec![json!({ "endpoint": endpoint })]))
}

async fn change_schedule(
    write: &mut Write,
    name: &str,
    verb: ScheduleVerb,
) -> Result<Done, StoreError> {
    let replies = write.step(FIND_SCHEDULE, text_argument(name)?).await?;
    let Some(row) = replies.first().and_then(|reply| reply.rows.first()) else {
        return Ok(Done::default());
    };
    let from: Option<String> = row.try_get(0).map_err(store_error)?;
    let from = from.unwrap_or_default();
    let mut detail = json!({ "schedule": name, "from": from });
    let mut arguments = text_argument(name)?;
    let text = match verb {
        ScheduleVerb::Remove => REMOVE_SCHEDULE,
        _ => {
            let Some((_, to)) = verb.moves().into_iter().find(|(one, _)| *one == from) else {
                return Ok(Done::default());
            };
            detail["to"] = to.into();
            add(&mut arguments, to.to_owned())?;
            MOVE_SCHEDULE
        }
    };
    let version = one_id(write, text, arguments).await?;
    Ok((version.into_iter().collect(), vec![detail]))
}

pub(super) async fn one_id(
    write: &mut Write,
    text: &'static str,
    arguments: SqliteArguments,
) -> Result<Option<i64>, StoreError> {
    let replies = write.step(text, arguments).await?;
    let row = replies.first().and_then(|reply| reply.rows.first());
    row.map(|row| row.try_get(0).map_err(store_error))
        .transpose()
}

pub(super) fn id_argument(ids: &[i64]) -> Result<SqliteArguments, StoreError> {
    text_argument(&json!(ids).to_string())
}

pub(super) fn text_argument(text: &str) -> Result<SqliteArguments, StoreError> {
    let mut arguments = SqliteArguments::default();
    add(&mut arguments, text.to_owned())?;
    Ok(arguments)
}
