//! Endpoints: those that are no more, and those that are paused.

use sagabus_core::Timestamp;
use sagabus_core::admin::{Action, InstanceFilter, PAGE_MAX, StoreAdmin, StoredEndpoint};
use sagabus_core::holding::PAUSE_KIND;

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
    let action = plan_removal(admin, endpoint, message_type).await?;
    match admin.change(&operator.does(action)).await?.is_empty() {
        false => Ok(()),
        true => Err(OpsError::Refused(format!(
            "rows of the outbox or open dead letters belong to endpoint `{endpoint}`; let a host \
             handle them, or discard them first [SB0402]"
        ))),
    }
}

/// Finds what [`remove`] would do, and changes nothing. What still waits for the endpoint is seen by
/// the removal alone.
///
/// # Errors
/// As those of [`remove`], but for what waits.
pub async fn plan_removal(
    admin: &dyn StoreAdmin,
    endpoint: &str,
    message_type: Option<&str>,
) -> Result<Action, OpsError> {
    let known = find(admin, endpoint).await?;
    let about = admin.about().await?;
    let hosts = admin.hosts().await?;
    let runs = |host: &&_| has_endpoint(host, endpoint) && is_alive(host, about.now);
    if let Some(host) = hosts.iter().find(runs) {
        return Err(OpsError::Refused(format!(
            "host `{}` runs endpoint `{endpoint}`; stop it first, or take the endpoint out of it [SB0402]",
            host.name
        )));
    }
    let Some(message_type) = message_type else {
        let endpoint = endpoint.to_owned();
        return Ok(Action::RemoveEndpoint { endpoint });
    };
    let mut subscriptions = known.subscriptions.iter();
    if !subscriptions.any(|(one, _)| one == message_type) {
        return Err(OpsError::NotFound(format!(
            "endpoint `{endpoint}` has no subscription to `{message_type}` [SB0401]"
        )));
    }
    Ok(Action::RemoveSubscription {
        endpoint: endpoint.to_owned(),
        message_type: message_type.to_owned(),
    })
}

/// Reads one endpoint.
///
/// # Errors
/// [`OpsError::NotFound`] where no host ever had it.
pub async fn find(admin: &dyn StoreAdmin, endpoint: &str) -> Result<StoredEndpoint, OpsError> {
    let known = admin.endpoints().await?;
    let mut found = known.into_iter().filter(|one| one.name == endpoint);
    found.next().ok_or_else(|| {
        OpsError::NotFound(format!(
            "there is no endpoint `{endpoint}`; `sagabus endpoints list` shows those there are \
             [SB0401]"
        ))
    })
}

/// What an operator wants of an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    /// Its hosts try nothing more, and keep what they have in hand.
    Pause,
    /// They go on.
    Resume,
}

impl Verb {
    /// Refuses what is so already.
    pub(crate) fn is_done(self, what: &str) -> OpsError {
        let fact = match self {
            Self::Pause => "is paused already",
            Self::Resume => "is not paused",
        };
        OpsError::Refused(format!("{what} {fact}; nothing to change [SB0403]"))
    }

    /// Refuses what is so already, by what is paused.
    pub(crate) fn means_something(
        self,
        what: &str,
        name: &str,
        paused: &[(String, Timestamp)],
    ) -> Result<(), OpsError> {
        let is_paused = paused.iter().any(|(one, _)| one == name);
        match is_paused == (self == Self::Resume) {
            true => Ok(()),
            false => Err(self.is_done(what)),
        }
    }
}

/// Pauses an endpoint in all its hosts, or lets it go on. They notice within a second; what is being
/// handled at that moment is finished.
///
/// # Errors
/// [`OpsError::NotFound`] where it is not known; [`OpsError::Refused`] where it is so already.
pub async fn hold(
    admin: &dyn StoreAdmin,
    operator: &Operator,
    verb: Verb,
    endpoint: &str,
) -> Result<(), OpsError> {
    find(admin, endpoint).await?;
    let name = endpoint.to_owned();
    let action = match verb {
        Verb::Pause => Action::PauseEndpoint { endpoint: name },
        Verb::Resume => Action::ResumeEndpoint { endpoint: name },
    };
    match admin.change(&operator.does(action)).await?.is_empty() {
        false => Ok(()),
        true => Err(verb.is_done(&format!("endpoint `{endpoint}`"))),
    }
}

/// Says whether [`hold`] would change something, and changes nothing.
///
/// # Errors
/// As those of [`hold`].
pub async fn look(admin: &dyn StoreAdmin, verb: Verb, endpoint: &str) -> Result<(), OpsError> {
    find(admin, endpoint).await?;
    verb.means_something(
        &format!("endpoint `{endpoint}`"),
        endpoint,
        &paused(admin).await?,
    )
}

/// Reads which endpoints operators paused, and since when.
///
/// # Errors
/// [`OpsError::Store`] when the store does not answer.
pub async fn paused(admin: &dyn StoreAdmin) -> Result<Vec<(String, Timestamp)>, OpsError> {
    held(admin, PAUSE_KIND).await
}

/// Reads the rows that hold something, and since when they do.
pub(crate) async fn held(
    admin: &dyn StoreAdmin,
    kind: &str,
) -> Result<Vec<(String, Timestamp)>, OpsError> {
    let filter = InstanceFilter {
        kind: Some(kind.to_owned()),
        ..InstanceFilter::default()
    };
    let found = admin.instances(&filter, PAGE_MAX).await?;
    let paused = found
        .into_iter()
        .map(|one| (one.id.key.to_string(), one.created_at));
    Ok(paused.collect())
}
