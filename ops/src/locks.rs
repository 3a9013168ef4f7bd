//! Locks on business keys: who has them, who waits, and taking one away.

use sagabus_core::admin::{Action, InstanceFilter, PAGE_MAX, StoreAdmin};
use sagabus_core::envelope::Envelope;
use sagabus_core::unit_of_work::InstanceStatus;
use sagabus_core::{Headers, InstanceId, MessageId, Timestamp, codec, headers};
use serde_json::{Value, json};

use crate::error::OpsError;
use crate::operator::Operator;

/// The kind of the instances that locks are, as `sagabus_saga::lock` stores them.
const KIND: &str = "sagabus.lock";
/// What their keeper takes to break one.
const BREAK: &str = "sagabus.lock.break";

/// A lock that somebody has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeldLock {
    /// Its name: space, slash, key.
    pub resource: String,
    /// Who has it: kind and key of the instance; `None` where its data says nothing of the sort.
    pub holder: Option<(String, String)>,
    /// Who waits for it, the next one first.
    pub waiting: Vec<(String, String)>,
    /// When anything last happened to it: it was given, or somebody asked or went.
    pub changed_at: Timestamp,
}

/// Some of the locks that are held.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LockPage {
    /// The locks, in the order of their names.
    pub locks: Vec<HeldLock>,
    /// Behind which name there may be more.
    pub next: Option<String>,
}

/// Lists locks that somebody has, in the order of their names, behind `after`.
///
/// # Errors
/// When the store does not answer.
pub async fn list(
    admin: &dyn StoreAdmin,
    after: Option<&str>,
    limit: u32,
) -> Result<LockPage, OpsError> {
    let filter = InstanceFilter {
        kind: Some(KIND.to_owned()),
        status: Some(InstanceStatus::Running),
        after: after.map(id),
        ..InstanceFilter::default()
    };
    let found = admin.instances(&filter, limit).await?;
    let is_full = found.len() == limit.min(PAGE_MAX) as usize;
    let last = found.last().filter(|_| is_full);
    let next = last.map(|one| one.id.key.to_string());
    let mut locks = Vec::new();
    for one in found {
        // It may have been given back since.
        let Some(instance) = admin.instance(&one.id).await? else {
            continue;
        };
        let data = serde_json::from_slice(&instance.data).unwrap_or_default();
        locks.push(read(one.id.key.to_string(), &data, one.updated_at));
    }
    Ok(LockPage { locks, next })
}

/// Takes a lock from whoever has it: the holder is told, and the next one who waits gets it. Done by
/// the host that keeps the locks; the message to it and the audit are written together.
///
/// # Errors
/// [`OpsError::NotFound`] where nobody has the lock; [`OpsError::Refused`] where no endpoint keeps
/// locks.
pub async fn break_lock(
    admin: &dyn StoreAdmin,
    operator: &Operator,
    resource: &str,
) -> Result<HeldLock, OpsError> {
    let lock = find(admin, resource).await?;
    let endpoints = admin.endpoints().await?;
    let keeper = endpoints.iter().find(|endpoint| {
        let mut taken = endpoint.subscriptions.iter();
        taken.any(|(message_type, _)| message_type == BREAK)
    });
    let Some(keeper) = keeper else {
        let fact = "no endpoint keeps locks here; a host that has one says `.locks()` [SB0404]";
        return Err(OpsError::Refused(fact.to_owned()));
    };
    let action = Action::SendMessage {
        endpoint: keeper.name.clone(),
        envelope: Box::new(breaking(resource)?),
    };
    match admin.change(&operator.does(action)).await?.is_empty() {
        false => Ok(lock),
        true => Err(OpsError::Refused(format!(
            "endpoint `{}` was removed meanwhile [SB0406]",
            keeper.name
        ))),
    }
}

/// Finds a lock that somebody has.
///
/// # Errors
/// [`OpsError::NotFound`] where nobody has it.
pub async fn find(admin: &dyn StoreAdmin, resource: &str) -> Result<HeldLock, OpsError> {
    let filter = InstanceFilter {
        kind: Some(KIND.to_owned()),
        key: Some(resource.to_owned()),
        status: Some(InstanceStatus::Running),
        ..InstanceFilter::default()
    };
    let nobody = || {
        OpsError::NotFound(format!(
            "nobody has lock `{resource}`; `sagabus locks list` shows those that are held [SB0401]"
        ))
    };
    let found = admin.instances(&filter, 1).await?;
    let one = found.into_iter().next().ok_or_else(nobody)?;
    let instance = admin.instance(&one.id).await?.ok_or_else(nobody)?;
    let data = serde_json::from_slice(&instance.data).unwrap_or_default();
    Ok(read(one.id.key.to_string(), &data, one.updated_at))
}

fn id(resource: &str) -> InstanceId {
    InstanceId {
        kind: KIND.into(),
        key: resource.into(),
    }
}

/// Makes the message that breaks a lock.
fn breaking(resource: &str) -> Result<Envelope, OpsError> {
    let body = codec::encode_json(&json!({ "resource": resource }));
    let body = body.map_err(|error| OpsError::Refused(error.to_string()))?;
    let headers: Headers = [
        (headers::CONTENT_TYPE, codec::JSON),
        (headers::KIND, "command"),
        (headers::KEY, resource),
    ]
    .into_iter()
    .collect();
    Ok(Envelope {
        id: MessageId::new(),
        message_type: BREAK.into(),
        headers,
        body,
    })
}

fn read(resource: String, data: &Value, changed_at: Timestamp) -> HeldLock {
    let waiting = data["waiting"].as_array().into_iter().flatten();
    HeldLock {
        resource,
        holder: who(&data["holder"]),
        waiting: waiting.filter_map(who).collect(),
        changed_at,
    }
}

fn who(claimant: &Value) -> Option<(String, String)> {
    let text = |name: &str| claimant[name].as_str().map(str::to_owned);
    text("kind").zip(text("key"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_lock_has_no_holder() {
        let at = Timestamp::from_micros(0);
        for odd in [
            json!(null),
            json!([1]),
            json!({ "holder": 7, "waiting": "x" }),
            json!({ "holder": { "kind": "order" } }),
        ] {
            let lock = read("seat/1".to_owned(), &odd, at);
            assert_eq!((lock.holder, lock.waiting), (None, Vec::new()), "{odd}");
        }
    }
}
