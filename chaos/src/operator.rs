//! What an operator does when a storm is over: messages in whose hands hosts died too often are dead
//! letters, as those that kill their hosts are. Here the killer is known to be another, so they are
//! redriven, as a person would do.

use anyhow::Result;
use sagabus::{PgStore, SqliteStore};
use sagabus_core::admin::{DeadLetterFilter, Page};
use sagabus_core::store::StoreAdmin;
use sagabus_core::unit_of_work::Reason;

use crate::records::Records;
use crate::site::{Engine, Site};

/// Redriven at once.
const PAGE: u32 = 100;

/// Redrives what was given up because hosts were killed; returns how much that was.
pub(crate) async fn redrive(site: &Site, records: &Records) -> Result<u64> {
    let why = Reason::KilledHost.as_str();
    if !records.dead.iter().any(|(_, reason, _)| reason == why) {
        return Ok(0);
    }
    match &site.engine {
        Engine::Sqlite(path) => redrive_in(&SqliteStore::open(path).await?).await,
        Engine::Postgres { server, .. } => {
            redrive_in(&PgStore::connect(&server.url()).await?).await
        }
    }
}

async fn redrive_in(store: &impl StoreAdmin) -> Result<u64> {
    let suspects = DeadLetterFilter {
        reason: Some(Reason::KilledHost.as_str().to_owned()),
        ..DeadLetterFilter::default()
    };
    let found = store
        .find_dead_letters(&suspects, Page::latest(PAGE))
        .await?;
    let mut count = 0;
    for one in found {
        count += u64::from(store.redrive(one.id).await?);
    }
    Ok(count)
}
