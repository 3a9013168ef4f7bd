//! Transports that operators pause: nothing is sent by them, and what is for them waits.

use std::collections::BTreeSet;

use sagabus_core::Timestamp;
use sagabus_core::admin::{Action, StoreAdmin};
use sagabus_core::holding::TRANSPORT_PAUSE_KIND;

use crate::endpoints::{Verb, held};
use crate::error::OpsError;
use crate::operator::Operator;

/// Pauses the sending by a transport in all hosts, or lets it go on. They notice within a second;
/// what the broker has in hand at that moment is settled by its word.
///
/// # Errors
/// [`OpsError::NotFound`] where no known host has it; [`OpsError::Refused`] where it is so already.
pub async fn hold(
    admin: &dyn StoreAdmin,
    operator: &Operator,
    verb: Verb,
    transport: &str,
) -> Result<(), OpsError> {
    demand_known(admin, verb, transport).await?;
    let name = transport.to_owned();
    let action = match verb {
        Verb::Pause => Action::PauseTransport { transport: name },
        Verb::Resume => Action::ResumeTransport { transport: name },
    };
    match admin.change(&operator.does(action)).await?.is_empty() {
        false => Ok(()),
        true => Err(verb.is_done(&format!("transport `{transport}`"))),
    }
}

/// Says whether [`hold`] would change something, and changes nothing.
///
/// # Errors
/// As those of [`hold`].
pub async fn look(admin: &dyn StoreAdmin, verb: Verb, transport: &str) -> Result<(), OpsError> {
    demand_known(admin, verb, transport).await?;
    let paused = paused(admin).await?;
    verb.means_something(&format!("transport `{transport}`"), transport, &paused)
}

async fn demand_known(admin: &dyn StoreAdmin, verb: Verb, transport: &str) -> Result<(), OpsError> {
    let known = known(admin).await?;
    // One that no host has any more can still be let go.
    if verb == Verb::Pause && !known.contains(transport) {
        let known: Vec<_> = known.iter().map(String::as_str).collect();
        let known = match known.is_empty() {
            true => "none: the database is their bus".to_owned(),
            false => known.join(", "),
        };
        return Err(OpsError::NotFound(format!(
            "no host has a transport `{transport}`; they have {known} [SB0401]"
        )));
    }
    Ok(())
}

/// Lists the transports that hosts said they have.
async fn known(admin: &dyn StoreAdmin) -> Result<BTreeSet<String>, OpsError> {
    let hosts = admin.hosts().await?;
    let all = hosts.iter().flat_map(|host| {
        let all = host.definitions["transports"].as_array();
        all.into_iter().flatten()
    });
    let names = all.filter_map(|one| one["transport"].as_str());
    Ok(names.map(str::to_owned).collect())
}

/// Reads which transports operators paused, and since when.
///
/// # Errors
/// [`OpsError::Store`] when the store does not answer.
pub async fn paused(admin: &dyn StoreAdmin) -> Result<Vec<(String, Timestamp)>, OpsError> {
    held(admin, TRANSPORT_PAUSE_KIND).await
}
