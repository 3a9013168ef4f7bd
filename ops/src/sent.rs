//! What brokers took: a window of it to be sent again, where hosts declare that it is kept.

use std::time::Duration;

use sagabus_core::admin::{Page, SentFilter, StoreAdmin, StoredSent};

use crate::error::OpsError;
use crate::selection::{SAMPLE, Selection};

/// Counts and freezes what is kept at this moment and a filter lets through. Changes nothing.
///
/// # Errors
/// [`OpsError::Refused`] where nothing is kept and no host declares that it is.
pub async fn select(
    admin: &dyn StoreAdmin,
    filter: SentFilter,
) -> Result<Selection<SentFilter, StoredSent>, OpsError> {
    let tally = admin.count_sent(&filter).await?;
    let Some(last_at) = tally.last_at else {
        demand_kept(admin).await?;
        return Ok(Selection {
            filter,
            tally,
            sample: Vec::new(),
        });
    };
    // An id tells when a row was written, and not when it was sent.
    let end = last_at.plus(Duration::from_micros(1));
    let filter = SentFilter {
        until: Some(filter.until.map_or(end, |until| until.min(end))),
        ..filter
    };
    let sample = admin.sent(&filter, Page::oldest(SAMPLE)).await?;
    Ok(Selection {
        filter,
        tally,
        sample,
    })
}

/// Refuses where nobody keeps what it sends.
async fn demand_kept(admin: &dyn StoreAdmin) -> Result<(), OpsError> {
    let kept = admin.sent(&SentFilter::default(), Page::latest(1)).await?;
    let hosts = admin.hosts().await?;
    let mut declared = hosts
        .iter()
        .map(|one| &one.definitions["keep_sent_seconds"]);
    if !kept.is_empty() || declared.any(|seconds| seconds.is_number()) {
        return Ok(());
    }
    Err(OpsError::Refused(
        "no host keeps what it has sent: a row is gone once its broker has confirmed it; declare \
         `Host::builder(..).keep_sent(..)` where it is sent, for what is sent from then on [SB0405]"
            .to_owned(),
    ))
}
