//! Endpoints that are no more.

use sagabus_core::admin::{Action, StoreAdmin};

use crate::error::OpsError;
use crate::operator::Operator;
use crate::status::{has_endpoint, is_alive};

/// Removes an endpoint, or one of its subscriptions. Refuses while a host runs it, which would
/// make it anew or miss its messages.
///
/// # Errors
/// [`OpsError::Refused`] where a host runs it, or something still waits for it;
/// [`OpsError::NotFound`] where it is not known.
pub async fn remove(
    admin: &dyn StoreAdmin,
    operator: &Operator,
    endpoint: &str,
    message_type: Option<&str>,
) -> Result<(), OpsError> {
    let known = admin.endpoints().await?;
    let Some(known) = known.iter().find(|one| one.name == endpoint) else {
        return Err(OpsError::NotFound(format!(
            "there is no endpoint `{endpoint}`; `sagabus endpoints list` shows those there are"
        )));
    };
    let about = admin.about().await?;
    let hosts = admin.hosts().await?;
    let runs = |host: &&_| has_endpoint(host, endpoint) && is_alive(host, about.now);
    if let Some(host) = hosts.iter().find(runs) {
        return Err(OpsError::Refused(format!(
            "host `{}` runs endpoint `{endpoint}`; stop it first, or take the endpoint out of it",
            host.name
        )));
    }
    let action = match message_type {
        Some(message_type) => {
            if !known
                .subscriptions
                .iter()
                .any(|(one, _)| one == message_type)
            {
                return Err(OpsError::NotFound(format!(
                    "endpoint `{endpoint}` has no subscription to `{message_type}`"
                )));
            }
            Action::RemoveSubscription {
                endpoint: endpoint.to_owned(),
                message_type: message_type.to_owned(),
            }
        }
        None => Action::RemoveEndpoint {
            endpoint: endpoint.to_owned(),
        },
    };
    match admin.change(&operator.does(action)).await?.is_empty() {
        false => Ok(()),
        true => Err(OpsError::Refused(format!(
            "rows of the outbox or open dead letters belong to endpoint `{endpoint}`; let a host \
             handle them, or discard them first"
        ))),
    }
}
