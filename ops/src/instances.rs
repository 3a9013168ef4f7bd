//! Instances: looked at, altered, ended.

use bytes::Bytes;
use sagabus_core::InstanceId;
use sagabus_core::admin::{Action, Alteration, Held, StoreAdmin};
use sagabus_core::store::Instance;
use sagabus_core::unit_of_work::InstanceStatus;
use serde_json::Value;

use crate::error::OpsError;
use crate::machines;
use crate::operator::Operator;

/// Reads one instance, tombstones included.
///
/// # Errors
/// [`OpsError::NotFound`] when there is none.
pub async fn show(admin: &dyn StoreAdmin, id: &InstanceId) -> Result<Instance, OpsError> {
    admin.instance(id).await?.ok_or_else(|| {
        OpsError::NotFound(format!(
            "there is no instance `{}` of kind `{}`; `sagabus sagas list --completed` shows those \
             there are [SB0401]",
            id.key, id.kind
        ))
    })
}

/// Says what an instance would become: checks other data, and another state where that is wanted.
/// Changes nothing.
///
/// The code of the saga is not here to be asked:
/// [`check_alteration`](crate::errands::check_alteration) has a live host read it. Data that it cannot
/// read makes dead letters of the messages for this instance, and can be altered again.
///
/// # Errors
/// [`OpsError::Refused`] where the instance is over, the data is no JSON or of another shape (an
/// object stays an object), or no host described such a state.
pub async fn plan(
    admin: &dyn StoreAdmin,
    id: &InstanceId,
    data: Bytes,
    state: Option<String>,
) -> Result<Alteration, OpsError> {
    let instance = running(admin, id).await?;
    let data = checked(&instance.data, data)?;
    if let Some(state) = &state {
        known_state(admin, &instance, state).await?;
    }
    Ok(Alteration {
        instance: id.clone(),
        version: instance.version,
        after: Held {
            state: state.or_else(|| instance.state.clone()),
            data,
        },
        before: Held {
            state: instance.state,
            data: instance.data,
        },
    })
}

/// Makes an alteration and returns the new version.
///
/// # Errors
/// [`OpsError::Refused`] where the instance moved since it was planned.
pub async fn alter(
    admin: &dyn StoreAdmin,
    operator: &Operator,
    alteration: Alteration,
) -> Result<i64, OpsError> {
    let id = alteration.instance.clone();
    moved(admin, operator, Action::AlterInstance(alteration), &id).await
}

/// Ends an instance, removes its timers, and returns the new version.
///
/// # Errors
/// [`OpsError::Refused`] where it is over, has set messages aside that would be lost, or moved
/// meanwhile.
pub async fn complete(
    admin: &dyn StoreAdmin,
    operator: &Operator,
    id: &InstanceId,
    version: i64,
) -> Result<i64, OpsError> {
    let instance = running(admin, id).await?;
    let data = serde_json::from_slice::<Value>(&instance.data).unwrap_or_default();
    let deferred = data["$saga"]["deferred"].as_array().map_or(0, Vec::len);
    if deferred > 0 {
        return Err(OpsError::Refused(format!(
            "{deferred} messages wait in {id} for another state and would be lost; \
             `sagabus sagas show` has them under `$saga` [SB0402]"
        )));
    }
    let action = Action::CompleteInstance {
        instance: id.clone(),
        version,
    };
    moved(admin, operator, action, id).await
}

async fn moved(
    admin: &dyn StoreAdmin,
    operator: &Operator,
    action: Action,
    id: &InstanceId,
) -> Result<i64, OpsError> {
    let version = admin.change(&operator.does(action)).await?;
    version.first().copied().ok_or_else(|| {
        OpsError::Refused(format!("{id} moved meanwhile; look at it again [SB0406]"))
    })
}

pub(crate) async fn running(admin: &dyn StoreAdmin, id: &InstanceId) -> Result<Instance, OpsError> {
    let instance = show(admin, id).await?;
    match instance.status {
        InstanceStatus::Running => Ok(instance),
        InstanceStatus::Completed => Err(OpsError::Refused(format!("{id} is over [SB0403]"))),
    }
}

/// Checks that data is JSON of the shape that it had.
fn checked(before: &Bytes, after: Bytes) -> Result<Bytes, OpsError> {
    let refused = |fact: String| Err(OpsError::Refused(fact));
    let value: Value = match serde_json::from_slice(&after) {
        Ok(value) => value,
        Err(error) => return refused(format!("the data is no JSON: {error} [SB0407]")),
    };
    let Ok(known) = serde_json::from_slice::<Value>(before) else {
        return Ok(after);
    };
    if shape(&known) != shape(&value) {
        let (had, has) = (shape(&known), shape(&value));
        return refused(format!("the data was {had} and would be {has} [SB0407]"));
    }
    let books = |value: &Value| value.get("$saga").is_some();
    if books(&known) != books(&value) {
        return refused(
            "the part `$saga` is what the machine remembers beside its data; keep it [SB0407]"
                .to_owned(),
        );
    }
    // The saga tells data with a book by its first bytes.
    match books(&value) {
        true => Ok(Bytes::from(value.to_string())),
        false => Ok(after),
    }
}

fn shape(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

/// Refuses a state that no host described, where hosts described the machine.
async fn known_state(
    admin: &dyn StoreAdmin,
    instance: &Instance,
    state: &str,
) -> Result<(), OpsError> {
    let kind = instance.id.kind.as_ref();
    if instance.state.is_none() {
        let fact = format!("{} has no states [SB0407]", instance.id);
        return Err(OpsError::Refused(fact));
    }
    let described = machines::find(admin, kind).await?;
    let mut states = described
        .iter()
        .flat_map(|one| one.description["states"].as_array().into_iter().flatten());
    match states.any(|one| one == state) {
        true => Ok(()),
        false => Err(OpsError::Refused(format!(
            "machine `{kind}` has no state `{state}`; `sagabus machines show {kind}` draws them [SB0407]"
        ))),
    }
}
