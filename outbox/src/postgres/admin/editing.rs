//! What operators write themselves: another body for a dead letter, other data for an instance, an
//! errand for a host.

use sagabus_core::admin::{Alteration, Edit, Errand, Transitioned};
use sagabus_core::{InstanceId, StoreError};
use serde_json::json;
use sqlx::postgres::PgArguments;

use super::dead_letters::add;
use crate::row;

/// All texts begin with `$1` who, `$2` action, `$3` why. `$4` the dead letter, `$5` the identity,
/// `$6` the body as it was and `$7` as it is to be, `$8` what the audit keeps of that.
pub(super) const EDIT: &str =
    "select id from sagabus.edit_dead_letter_v1($1, $2, $3, $4, $5, $6, $7, $8)";

/// Writes the audit entry of what is in `done`, with the detail `$4`, and returns its version.
macro_rules! noted {
    () => {
        ", noted as (insert into sagabus.audit (at, who, action, why, detail) \
         select sagabus.now_micros(), $1, $2, $3, $4 from done) select version from done"
    };
}

/// `$5` kind, `$6` key, `$7` version, `$8` state, `$9` data.
pub(super) const ALTER: &str = concat!(
    "with done as (update sagabus.instance set version = version + 1, state = $8, data = $9, ",
    "updated_at = sagabus.now_micros() ",
    "where kind = $5 and key = $6 and version = $7 and not completed returning version)",
    noted!()
);

/// `$5` kind, `$6` key, `$7` version.
pub(super) const COMPLETE: &str = concat!(
    "with done as (update sagabus.instance set version = version + 1, completed = true, ",
    "timers = '{}', updated_at = sagabus.now_micros() ",
    "where kind = $5 and key = $6 and version = $7 and not completed returning version), ",
    "gone as (delete from sagabus.outbox where timer_name is not null and timer_kind = $5 ",
    "and timer_key = $6 and exists (select 1 from done))",
    noted!()
);

/// `$4` endpoint, `$5` the errand, `$6` the audit's detail. One that nobody waits for any more makes
/// way.
pub(super) const REHEARSE: &str = "select * from sagabus.rehearse_v1($1, $2, $3, $4, $5, $6)";

/// The same for what takes an admin.
pub(super) const TRANSITION: &str = "select * from sagabus.transition_v1($1, $2, $3, $4, $5, $6)";

/// `$4` kind, `$5` key, `$6` the version that was seen, `$7` what came of it, `$8` the version since.
/// What and why stand in the entry that it completes.
pub(super) const NOTE_TRANSITION: &str = "select n.version from \
    (select $2::text as action, $3::text as why) told cross join lateral \
    sagabus.note_transition_v1($1, $4, $5, $6, $7, $8) as n(version)";

/// Adds what [`EDIT`] takes.
pub(super) fn edit(to: &mut PgArguments, edit: &Edit) -> Result<(), StoreError> {
    add(to, edit.id)?;
    add(to, edit.message.as_uuid())?;
    add(to, edit.before.to_vec())?;
    add(to, edit.after.to_vec())?;
    add(to, row::value_to_json(&edit.detail()))
}

/// Adds what [`ALTER`] takes.
pub(super) fn alter(to: &mut PgArguments, alteration: &Alteration) -> Result<(), StoreError> {
    add(to, row::value_to_json(&json!([alteration.detail()])))?;
    named(to, &alteration.instance, alteration.version)?;
    add(to, alteration.after.state.clone())?;
    add(to, alteration.after.data.to_vec())
}

/// Adds what [`COMPLETE`] takes.
pub(super) fn complete(
    to: &mut PgArguments,
    id: &InstanceId,
    version: i64,
) -> Result<(), StoreError> {
    let detail = json!([{ "kind": id.kind, "key": id.key, "version": version }]);
    add(to, row::value_to_json(&detail))?;
    named(to, id, version)
}

fn named(to: &mut PgArguments, id: &InstanceId, version: i64) -> Result<(), StoreError> {
    add(to, id.kind.to_string())?;
    add(to, id.key.clone())?;
    add(to, version)
}

/// Adds what a host made of an instance.
pub(super) fn note_transition(to: &mut PgArguments, done: &Transitioned) -> Result<(), StoreError> {
    named(to, &done.instance, done.version)?;
    add(to, row::value_to_json(&done.outcome()))?;
    add(to, done.after.version)
}

/// Adds an errand.
pub(super) fn ask_host(to: &mut PgArguments, errand: &Errand) -> Result<(), StoreError> {
    add(to, errand.endpoint.clone())?;
    add(to, errand.to_bytes().to_vec())?;
    let detail = json!([errand.detail()]);
    add(to, row::value_to_json(&detail))
}
