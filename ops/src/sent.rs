//! What brokers took: a window of it sent again, where hosts declare that it is kept.

use sagabus_core::admin::{Action, PAGE_MAX, Page, SentFilter, StoreAdmin, StoredSent};

use crate::error::OpsError;
use crate::operator::{Operator, demand_at_most_counted};
use crate::pages::Pages;

/// The most messages that are looked through before it is said that there are more.
pub const REPUBLISH_MAX: u64 = 100_000;
/// How many of them a preview shows.
const SAMPLE_MAX: usize = 5;

/// What would be sent again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Republication {
    ids: Vec<i64>,
    /// The first of them.
    pub sample: Vec<StoredSent>,
}

impl Republication {
    /// Returns how many messages are meant.
    pub fn count(&self) -> usize {
        self.ids.len()
    }
}

/// Finds what would be sent again: what is kept at this moment and a filter lets through.
///
/// # Errors
/// [`OpsError::Refused`] where nothing is kept and no host declares that it is; with their number
/// where more than `at_most` are meant.
pub async fn plan(
    admin: &dyn StoreAdmin,
    filter: &SentFilter,
    at_most: u64,
) -> Result<Republication, OpsError> {
    let mut planned = Republication {
        ids: Vec::new(),
        sample: Vec::new(),
    };
    let mut pages = Pages::new(usize::MAX);
    while let Some(page) = pages
        .next()
        .filter(|_| planned.ids.len() as u64 <= REPUBLISH_MAX)
    {
        let found = admin.sent(filter, page).await?;
        pages.had(found.iter().map(|one| one.id));
        planned.ids.extend(found.iter().map(|one| one.id));
        let room = SAMPLE_MAX - planned.sample.len();
        planned.sample.extend(found.into_iter().take(room));
    }
    let count = planned.ids.len() as u64;
    if count == 0 {
        demand_kept(admin).await?;
    }
    demand_at_most_counted((count, "messages"), REPUBLISH_MAX, at_most)?;
    Ok(planned)
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

/// Puts messages into the outbox again, with their identities and bytes, in the order in which they
/// were written, and tells `told` how many are. Returns how many: those that somebody else sent again
/// meanwhile are left out. Who is killed in between leaves the rest, which the same call takes.
///
/// # Errors
/// [`OpsError::Store`]: what was put into the outbox so far is there.
pub async fn republish(
    admin: &dyn StoreAdmin,
    operator: &Operator,
    planned: &Republication,
    mut told: impl FnMut(u64),
) -> Result<u64, OpsError> {
    let mut count = 0;
    for ids in planned.ids.chunks(PAGE_MAX as usize) {
        let again = operator.does(Action::RepublishSent(ids.to_vec()));
        count += admin.change(&again).await?.len() as u64;
        told(count);
    }
    Ok(count)
}
