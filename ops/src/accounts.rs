//! Whether everything that came to an endpoint is accounted for.

use std::collections::BTreeSet;

use sagabus_core::admin::{Accounts, StoreAdmin};

use crate::error::OpsError;

/// The accounts, and whose are not kept.
#[derive(Clone, Debug, PartialEq)]
pub struct Balance {
    /// The accounts.
    pub accounts: Accounts,
    /// Endpoints whose units leave no history: nothing says what they handled.
    pub without_history: Vec<String>,
}

impl Balance {
    /// Says whether something is left of every message.
    pub fn is_balanced(&self) -> bool {
        self.accounts.missing_count() == 0
    }
}

/// Balances what came to each endpoint against what became of it. Reads through inbox, history,
/// outbox and dead letters: seconds where they have millions of rows.
///
/// # Errors
/// [`OpsError::Store`] when the store does not answer.
pub async fn balance(admin: &dyn StoreAdmin) -> Result<Balance, OpsError> {
    let hosts = admin.hosts().await?;
    let described = hosts.iter().flat_map(|host| {
        let all = host.definitions["endpoints"].as_array();
        all.into_iter().flatten()
    });
    // One host that keeps none is enough: nobody knows which messages it had.
    let keeps_none = described.filter(|one| one["keeps_history"] == false);
    let names: BTreeSet<_> = keeps_none
        .filter_map(|one| one["endpoint"].as_str())
        .collect();
    let without_history: Vec<_> = names.into_iter().map(str::to_owned).collect();
    Ok(Balance {
        accounts: admin.accounts(&without_history).await?,
        without_history,
    })
}
