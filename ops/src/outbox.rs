//! The outbox: rows are set aside, hurried on, sent elsewhere, released, discarded, after a preview.

use sagabus_core::admin::{
    Action, PAGE_MAX, Page, RowFilter, RowState, RowVerb, StoreAdmin, StoredRow,
};

use crate::endpoints;
use crate::error::OpsError;
use crate::operator::{Operator, demand_at_most_counted};
use crate::pages::Pages;

/// The most rows that a purge looks through before it says that there are more.
pub const PURGE_MAX: u64 = 100_000;

/// What is done with rows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verb {
    /// Hosts try parked ones again.
    Release,
    /// Hosts try parked ones elsewhere: at `@endpoint`, or at a transport's address.
    Readdress(String),
    /// Parked ones are removed; their audit entry is what is left.
    Discard,
    /// Those that wait, or are in hand, are set aside for an operator.
    Park,
    /// Those that wait for their time are due now.
    Expedite,
}

impl Verb {
    /// Says whose rows it changes.
    fn state(&self) -> RowState {
        match self {
            Self::Release | Self::Readdress(_) | Self::Discard => RowState::Parked,
            Self::Park | Self::Expedite => RowState::Moving,
        }
    }
}

/// Some of the rows that a change would touch: as many as one change takes.
#[derive(Clone, Debug, PartialEq)]
pub struct Found {
    /// The rows, the oldest first, without bodies.
    pub rows: Vec<StoredRow>,
    /// Behind which row there may be more.
    pub next: Option<i64>,
}

/// Reads rows that a change would touch, those behind `after`. Timers and stubs of dead letters, which
/// no change touches, are read past: however many there are, they keep nobody from what is behind them.
///
/// # Errors
/// [`OpsError::Store`] when the store does not answer.
pub async fn select(
    admin: &dyn StoreAdmin,
    verb: &Verb,
    filter: &RowFilter,
    after: Option<i64>,
) -> Result<Found, OpsError> {
    let filter = RowFilter {
        state: Some(verb.state()),
        ..filter.clone()
    };
    let mut page = Page::oldest(PAGE_MAX).without_bodies().behind(after);
    let mut rows = Vec::new();
    loop {
        let part = admin.rows(&filter, page).await?;
        let is_last = part.len() < PAGE_MAX as usize;
        page.after = part.last().map(|row| row.id);
        for row in part.into_iter().filter(is_meant) {
            let id = row.id;
            rows.push(row);
            if rows.len() == PAGE_MAX as usize {
                let next = Some(id);
                return Ok(Found { rows, next });
            }
        }
        if is_last {
            return Ok(Found { rows, next: None });
        }
    }
}

/// Says whether a row is one that operators change as a row.
fn is_meant(row: &StoredRow) -> bool {
    row.timer.is_none() && !row.is_stub()
}

/// Refuses a place that there is not.
///
/// # Errors
/// [`OpsError::NotFound`] where rows are to go to an endpoint that no host ever had.
pub async fn demand_place(admin: &dyn StoreAdmin, verb: &Verb) -> Result<(), OpsError> {
    let endpoint = match verb {
        Verb::Readdress(to) => to.strip_prefix('@'),
        _ => None,
    };
    match endpoint {
        Some(name) => endpoints::find(admin, name).await.map(|_| ()),
        None => Ok(()),
    }
}

/// Changes rows and returns the ids of those that were changed. A command that still nobody takes is
/// not released.
///
/// # Errors
/// [`OpsError::Store`]: then nothing was changed, unless its outcome is unknown.
pub async fn change(
    admin: &dyn StoreAdmin,
    operator: &Operator,
    verb: &Verb,
    rows: &[StoredRow],
) -> Result<Vec<i64>, OpsError> {
    let ids = rows.iter().map(|row| row.id).collect();
    let action = match verb {
        Verb::Release => Action::ReleaseRows(ids),
        Verb::Discard => Action::DiscardRows(ids),
        Verb::Park => of(ids, RowVerb::Park),
        Verb::Expedite => of(ids, RowVerb::Expedite),
        Verb::Readdress(to) => of(ids, RowVerb::Readdress { to: to.clone() }),
    };
    Ok(admin.change(&operator.does(action)).await?)
}

fn of(ids: Vec<i64>, verb: RowVerb) -> Action {
    Action::ChangeRows { ids, verb }
}

/// How many rows people look at before they purge.
const SAMPLE: usize = 5;

/// What a purge would remove, or why there is none.
#[derive(Clone, Debug, PartialEq)]
pub struct Purge {
    /// The rows: what waits, is in hand or is parked; neither timers nor stubs of dead letters.
    ids: Vec<i64>,
    /// The first of them, without bodies.
    pub sample: Vec<StoredRow>,
}

impl Purge {
    /// Returns how many rows are meant.
    pub fn count(&self) -> usize {
        self.ids.len()
    }
}

/// Finds what a purge would remove: all rows that a filter lets through at this moment.
///
/// # Errors
/// [`OpsError::Refused`] with their number where there are more than `at_most`.
pub async fn plan_purge(
    admin: &dyn StoreAdmin,
    filter: &RowFilter,
    at_most: u64,
) -> Result<Purge, OpsError> {
    let (mut ids, mut sample) = (Vec::new(), Vec::new());
    let mut pages = Pages::new(usize::MAX);
    while let Some(page) = pages.next().filter(|_| ids.len() as u64 <= PURGE_MAX) {
        let found = admin.rows(filter, page).await?;
        pages.had(found.iter().map(|one| one.id));
        let meant: Vec<_> = found.into_iter().filter(is_meant).collect();
        ids.extend(meant.iter().map(|one| one.id));
        let room = SAMPLE - sample.len();
        sample.extend(meant.into_iter().take(room));
    }
    demand_at_most_counted((ids.len() as u64, "rows"), PURGE_MAX, at_most)?;
    Ok(Purge { ids, sample })
}

/// Removes rows: each page is set aside first, so that no host has them in hand, then discarded, and
/// `told` hears how many are. Returns how many were removed. Who is killed between the two leaves rows
/// that are parked.
///
/// # Errors
/// [`OpsError::Store`]: what was removed so far is.
pub async fn purge(
    admin: &dyn StoreAdmin,
    operator: &Operator,
    purge: &Purge,
    mut told: impl FnMut(u64),
) -> Result<u64, OpsError> {
    let mut removed = 0;
    for ids in purge.ids.chunks(PAGE_MAX as usize) {
        let aside = of(ids.to_vec(), RowVerb::Park);
        admin.change(&operator.does(aside)).await?;
        let gone = Action::DiscardRows(ids.to_vec());
        removed += admin.change(&operator.does(gone)).await?.len() as u64;
        told(removed);
    }
    Ok(removed)
}

/// Reads one row, with its body.
///
/// # Errors
/// [`OpsError::NotFound`] when there is none of this id: it was sent, or never was.
pub async fn show(admin: &dyn StoreAdmin, id: i64) -> Result<StoredRow, OpsError> {
    let filter = RowFilter {
        id: Some(id),
        ..RowFilter::default()
    };
    let found = admin.rows(&filter, Page::latest(1)).await?;
    found.into_iter().next().ok_or_else(|| {
        OpsError::NotFound(format!(
            "the outbox has no row {id}: it was sent, or discarded, or never was [SB0401]"
        ))
    })
}
