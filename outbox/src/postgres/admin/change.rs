//! What operators change: each change and its audit entry in one statement, so one transaction.

use sagabus_core::admin::{Action, Change, DeadLetterStatus, Task, Verb};
use sagabus_core::schedule::ScheduleVerb;
use sagabus_core::{StoreError, Timestamp, headers};
use sqlx::postgres::PgArguments;

use super::super::error::commit_error;
use super::super::store::PgStore;
use super::dead_letters::add;
use super::editing;

/// The end of every text: writes the audit entry (`$1` who, `$2` action, `$3` why) of the rows in
/// `done`, and returns their ids in order.
macro_rules! noted {
    ($place:literal) => {
        concat!(
            ", noted as (insert into sagabus.audit (at, who, action, why, detail) ",
            "select sagabus.now_micros(), $1, $2, $3, convert_to(jsonb_agg(jsonb_build_object(",
            "'id', d.id, 'message_id', d.message_id, 'message_type', d.message_type, '",
            $place,
            "', d.place) order by d.id)::text, 'UTF8') from done d having count(*) > 0) ",
            "select id from done order by id"
        )
    };
}

/// `$5` what becomes of them.
const CLOSE: &str = "select id from sagabus.close_dead_letters_v1(\
    $1, $2, $3, $4, $5, null, null) order by id";

const RESTORE: &str =
    "select id from sagabus.restore_dead_letters_v1($1, $2, $3, $4, null) order by id";

/// `$5` to where.
const CHANGE_ROWS: &str = "select * from sagabus.change_rows_v1($1, $2, $3, $4, $5, null)";

const REPUBLISH: &str = "select * from sagabus.republish_v1($1, $2, $3, $4, null)";

/// `$4` endpoint, `$5` and so on the message. A row without a line is held up by none.
const SEND: &str = concat!(
    "with done as (insert into sagabus.outbox (message_id, message_type, destination, key, ",
    "headers, body, available_at, created_at) ",
    "select $5, $6, '@' || e.name, $7, $8, $9, t.now, t.now from sagabus.endpoint e, ",
    "(select sagabus.now_micros() as now offset 0) t where e.name = $4 ",
    "returning id, destination as place, message_id, message_type)",
    noted!("destination")
);

/// `$4` endpoint, `$5` type.
const REMOVE_SUBSCRIPTION: &str = "with done as (delete from sagabus.subscription s \
    using sagabus.endpoint e where e.id = s.endpoint_id and e.name = $4 and s.message_type = $5 \
    returning e.id::bigint as id), \
    raised as (update sagabus.store set routes_version = routes_version + 1 \
        where exists (select 1 from done)), \
    noted as (insert into sagabus.audit (at, who, action, why, detail) \
        select sagabus.now_micros(), $1, $2, $3, convert_to(jsonb_build_array(jsonb_build_object( \
            'endpoint', $4::text, 'message_type', $5::text))::text, 'UTF8') from done) \
    select id from done";

/// Removes an endpoint that nothing waits for, and what it takes before it.
const REMOVE_ENDPOINT: &str = "select id from sagabus.remove_endpoint_v1($1, $2, $3, $4)";

/// `$5` when. What is not due yet is in nobody's hands.
const MOVE_TIMERS: &str = concat!(
    "with done as (update sagabus.outbox o set due_at = t.due, available_at = t.due ",
    "from (select greatest(coalesce($5::bigint, 0), sagabus.now_micros()) as due offset 0) t ",
    "where o.id = any($4) and o.timer_name is not null and o.parked is null ",
    "and o.due_at > sagabus.now_micros() ",
    "returning o.id, o.timer_name as place, o.message_id, o.message_type)",
    noted!("timer")
);

const CANCEL_TIMERS: &str = "select * from sagabus.cancel_timers_v1($1, $2, $3, $4)";

/// `$4` what is meant, `$5` its name, `$6` whether it is held from now on.
const HOLD: &str = "select * from sagabus.hold_v1($1, $2, $3, $4, $5, $6)";

/// `$4` schedule; `$5` and `$6`: from which state to which, null to remove it.
const CHANGE_SCHEDULE: &str =
    "select * from sagabus.change_schedule_v1($1, $2, $3, $4, $5::text[], $6::text[])";

const REDRIVEN: &str = DeadLetterStatus::Redriven.as_str();
const DISCARDED: &str = DeadLetterStatus::Discarded.as_str();

/// Carries a change out.
pub(super) async fn change(store: &PgStore, change: &Change) -> Result<Vec<i64>, StoreError> {
    change.check()?;
    let (text, arguments) = statement(change)?;
    let call = sqlx::query_scalar_with(text, arguments);
    let mut taken = store.take().await?;
    let answer = store.answer(call.fetch_all(&mut *taken)).await;
    let ids: Vec<i64> = taken.finish(answer, commit_error)?;
    if !ids.is_empty() {
        store.nudge();
    }
    Ok(ids)
}

/// Finds the statement of a change, and what it takes.
fn statement(change: &Change) -> Result<(&'static str, PgArguments), StoreError> {
    let mut arguments = PgArguments::default();
    add(&mut arguments, change.who.clone())?;
    add(&mut arguments, change.action.as_str())?;
    add(&mut arguments, change.why.clone())?;
    add_subject(&mut arguments, &change.action)?;
    Ok((text(&change.action), arguments))
}

fn text(action: &Action) -> &'static str {
    match action {
        Action::RedriveDeadLetters(_) | Action::DiscardDeadLetters(_) => CLOSE,
        Action::RestoreDeadLetters(_) => RESTORE,
        Action::EditDeadLetter(_) => editing::EDIT,
        Action::AlterInstance(_) => editing::ALTER,
        Action::CompleteInstance { .. } => editing::COMPLETE,
        Action::RepublishSent(_) => REPUBLISH,
        Action::ChangeRows { .. } => CHANGE_ROWS,
        Action::SendMessage { .. } => SEND,
        Action::RemoveSubscription { .. } => REMOVE_SUBSCRIPTION,
        Action::RemoveEndpoint { .. } => REMOVE_ENDPOINT,
        Action::PauseEndpoint { .. }
        | Action::ResumeEndpoint { .. }
        | Action::PauseTransport { .. }
        | Action::ResumeTransport { .. } => HOLD,
        Action::MoveTimers { .. } => MOVE_TIMERS,
        Action::CancelTimers(_) => CANCEL_TIMERS,
        Action::ChangeSchedule { .. } => CHANGE_SCHEDULE,
        Action::AskHost(errand) => match errand.task {
            Task::Rehearse(_) => editing::REHEARSE,
            Task::Transition(_) | Task::Migrate(_) | Task::Read(_) => editing::TRANSITION,
        },
        Action::NoteTransition(_) => editing::NOTE_TRANSITION,
    }
}

/// Adds what a change is about, in the order of its statement.
fn add_subject(to: &mut PgArguments, action: &Action) -> Result<(), StoreError> {
    match action {
        Action::RedriveDeadLetters(ids) => {
            add(to, ids.clone())?;
            add(to, REDRIVEN)
        }
        Action::DiscardDeadLetters(ids) => {
            add(to, ids.clone())?;
            add(to, DISCARDED)
        }
        Action::RestoreDeadLetters(ids)
        | Action::RepublishSent(ids)
        | Action::CancelTimers(ids) => add(to, ids.clone()),
        Action::ChangeRows { ids, verb } => {
            add(to, ids.clone())?;
            add(to, Verb::Rows(verb.clone()).to().map(str::to_owned))
        }
        Action::EditDeadLetter(edit) => editing::edit(to, edit),
        Action::AlterInstance(alteration) => editing::alter(to, alteration),
        Action::CompleteInstance { instance, version } => editing::complete(to, instance, *version),
        Action::SendMessage { endpoint, envelope } => {
            add(to, endpoint.clone())?;
            add(to, envelope.id.as_uuid())?;
            add(to, envelope.message_type.clone().into_owned())?;
            add(to, envelope.headers.get(headers::KEY).map(str::to_owned))?;
            add(to, envelope.headers.to_json())?;
            add(to, envelope.body.to_vec())
        }
        Action::RemoveSubscription {
            endpoint,
            message_type,
        } => {
            add(to, endpoint.clone())?;
            add(to, message_type.clone())
        }
        Action::RemoveEndpoint { endpoint } => add(to, endpoint.clone()),
        Action::PauseEndpoint { endpoint } => hold(to, "endpoint", endpoint, true),
        Action::ResumeEndpoint { endpoint } => hold(to, "endpoint", endpoint, false),
        Action::PauseTransport { transport } => hold(to, "transport", transport, true),
        Action::ResumeTransport { transport } => hold(to, "transport", transport, false),
        Action::MoveTimers { ids, due } => {
            add(to, ids.clone())?;
            add(to, due.map(Timestamp::as_micros))
        }
        Action::AskHost(errand) => editing::ask_host(to, errand),
        Action::NoteTransition(done) => editing::note_transition(to, done),
        Action::ChangeSchedule { name, verb } => {
            add(to, name.clone())?;
            if *verb == ScheduleVerb::Remove {
                add(to, None::<Vec<String>>)?;
                return add(to, None::<Vec<String>>);
            }
            let (from, came): (Vec<_>, Vec<_>) = verb.moves().into_iter().unzip();
            add(to, from)?;
            add(to, came)
        }
    }
}

fn hold(to: &mut PgArguments, what: &str, name: &str, is_held: bool) -> Result<(), StoreError> {
    add(to, what.to_owned())?;
    add(to, name.to_owned())?;
    add(to, is_held)
}
