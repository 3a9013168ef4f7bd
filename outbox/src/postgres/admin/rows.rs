//! Rows of the outbox that operators set aside, hurry on, or send elsewhere.

use sagabus_core::StoreError;
use sagabus_core::admin::RowVerb;
use sqlx::postgres::PgArguments;

use super::change::noted;
use super::dead_letters::add;

/// All texts begin with `$1` who, `$2` action, `$3` why; `$4` ids.
const PARK: &str = "select * from sagabus.park_rows_v1($1, $2, $3, $4)";

/// What has more starts than failures is in hand, or was when its host died.
const EXPEDITE: &str = concat!(
    "with done as (update sagabus.outbox o set available_at = t.now, ",
    "due_at = case when o.due_at > t.now then t.now else o.due_at end ",
    "from (select sagabus.now_micros() as now offset 0) t ",
    "where o.id = any($4) and o.parked is null and o.timer_name is null ",
    "and o.starts <= o.failures and o.available_at > t.now ",
    "and o.available_at < sagabus.never_micros() ",
    "returning o.id, o.destination as place, o.message_id, o.message_type)",
    noted!("destination")
);

/// `$5` to where.
const READDRESS: &str = concat!(
    "with found as (select o.id, o.destination as place, e.per_key ",
    "from sagabus.outbox o left join sagabus.endpoint e on '@' || e.name = $5 ",
    "where o.parked is not null and o.id = any($4) ",
    "and ($5 not like '@%' or e.name is not null) for update of o), ",
    "done as (update sagabus.outbox o set parked = null, starts = 0, failures = 0, ",
    "solo_starts = 0, attempts = null, destination = $5, ",
    "available_at = greatest(sagabus.now_micros(), o.due_at), ",
    "per_key = case when f.per_key is null then o.per_key else f.per_key ",
    "and o.key is not null and coalesce(o.due_at, 0) <= sagabus.now_micros() end ",
    "from found f where o.id = f.id and o.parked is not null ",
    "returning o.id, f.place, o.message_id, o.message_type)",
    noted!("destination", "'to', $5::text")
);

/// Finds the statement of a verb.
pub(super) const fn text(verb: &RowVerb) -> &'static str {
    match verb {
        RowVerb::Park => PARK,
        RowVerb::Expedite => EXPEDITE,
        RowVerb::Readdress { .. } => READDRESS,
    }
}

/// Adds what the statement of a verb takes.
pub(super) fn change(to: &mut PgArguments, ids: &[i64], verb: &RowVerb) -> Result<(), StoreError> {
    add(to, ids.to_vec())?;
    match verb {
        RowVerb::Park | RowVerb::Expedite => Ok(()),
        RowVerb::Readdress { to: place } => add(to, place.clone()),
    }
}
