//! Takes the rows of this host's own endpoints whose time has come: one statement for all of them.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use crate::backoff::{Backoff, jittered};
use crate::counters::Counters;
use crate::endpoint::EndpointName;
use crate::error::StoreError;
use crate::faults::{self, Point};
use crate::intake::{InHand, Intake, Room};
use crate::lifecycle::Lifecycle;
use crate::store::{Claim, ClaimFrom, ClaimedRow, Scan, Store};
use crate::sync::time;

/// Rows that one claim takes for one endpoint: a commit group's worth.
const ROWS_MAX: usize = 100;
/// How often an idle host looks at least. Wake-ups make it look sooner; this is what remains without
/// them. Shortened by chance: the look of one host wakes the others, so that with equal pauses the
/// same one would be the first for ever, also to a message that it leaves to another.
const POLL: Duration = Duration::from_millis(200);
/// The shortest time between two scans of everything.
const COLD_MIN: Duration = Duration::from_secs(10);
/// A scan of everything may take a twentieth of the time.
const COLD_DUTY: u32 = 20;

/// What the claimer works with.
pub(crate) struct Claimer {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) intakes: HashMap<EndpointName, Intake>,
    pub(crate) in_hand: Arc<InHand>,
    pub(crate) counters: Arc<Counters>,
    pub(crate) lease: Duration,
    pub(crate) wakeups: watch::Receiver<u64>,
    pub(crate) lifecycle: Lifecycle,
}

impl Claimer {
    /// Claims until it is told to drain.
    pub(crate) async fn run(mut self) {
        let mut backoff = Backoff::new("claim");
        // The first look is at everything: what a former process left behind.
        let mut cold_at = Instant::now();
        while !self.lifecycle.is_draining() {
            let scan = if Instant::now() >= cold_at {
                Scan::Cold
            } else {
                Scan::Hot
            };
            let started = Instant::now();
            let claimed = match self.claim(scan).await {
                Ok(claimed) => claimed,
                Err(error) => {
                    backoff.failed(&error).await;
                    continue;
                }
            };
            backoff.ended();
            match claimed {
                Claimed::Full => {}
                Claimed::Some(without_room) => {
                    if scan == Scan::Cold {
                        cold_at = Instant::now() + (started.elapsed() * COLD_DUTY).max(COLD_MIN);
                    }
                    self.wait(&without_room).await;
                }
                Claimed::NoRoom => self.wait_for_room().await,
            }
        }
    }

    /// Waits for a wake-up, for room at an endpoint that had none, or for the next poll.
    async fn wait(&mut self, without_room: &[EndpointName]) {
        let poll = Instant::now() + jittered(POLL);
        loop {
            tokio::select! {
                biased;
                () = self.lifecycle.draining() => return,
                changed = self.wakeups.changed() => {
                    if changed.is_err() {
                        // The store no longer tells: polling is the truth.
                        time::sleep(POLL).await;
                    }
                    return;
                }
                () = self.in_hand.freed.notified(), if !without_room.is_empty() => {
                    let intakes = without_room.iter().filter_map(|name| self.intakes.get(name));
                    if intakes.into_iter().any(has_room) {
                        return;
                    }
                }
                () = time::sleep_until(poll) => return,
            }
        }
    }

    async fn wait_for_room(&self) {
        tokio::select! {
            biased;
            () = self.lifecycle.draining() => {}
            () = self.in_hand.freed.notified() => {}
        }
    }

    async fn claim(&self, scan: Scan) -> Result<Claimed, StoreError> {
        let mut slots = self.reserve();
        if slots.is_empty() {
            return Ok(Claimed::NoRoom);
        }
        let wanted = slots.iter().map(|(name, room)| (name.clone(), room.len()));
        let wanted: Vec<_> = wanted
            .map(|(name, n)| (name, u32::try_from(n).unwrap_or(u32::MAX)))
            .collect();
        let claim = Claim {
            from: ClaimFrom::Endpoints(wanted),
            lease: self.lease,
            scan,
        };
        for row in take(&*self.store, &self.counters, &claim).await? {
            self.let_in(row, &mut slots);
        }
        let is_full = slots.values().any(Room::is_empty);
        Ok(if is_full {
            Claimed::Full
        } else {
            let others = self
                .intakes
                .keys()
                .filter(|name| !slots.contains_key(*name));
            Claimed::Some(others.cloned().collect())
        })
    }

    /// Takes places wherever at least a quarter of an endpoint is free, so that a busy endpoint is
    /// filled by few large claims instead of many small ones.
    fn reserve(&self) -> BTreeMap<EndpointName, Room> {
        let open = self.intakes.iter().filter(|(_, intake)| has_room(intake));
        open.map(|(name, intake)| (name.clone(), intake.reserve_up_to(ROWS_MAX)))
            .filter(|(_, room)| !room.is_empty())
            .collect()
    }

    fn let_in(&self, row: ClaimedRow, slots: &mut BTreeMap<EndpointName, Room>) {
        let name = row
            .destination
            .strip_prefix('@')
            .and_then(|name| EndpointName::new(name).ok());
        let slot = name
            .and_then(|name| slots.get_mut(&name))
            .and_then(Room::take);
        match slot {
            Some(slot) => slot.fill(row, &self.in_hand),
            None => {
                let (id, destination) = (row.row.id, &row.destination);
                tracing::error!(
                    id,
                    destination,
                    "store claimed a row that was not asked for"
                );
            }
        }
    }
}

/// Claims rows, and counts them: for own endpoints here, for a transport in its relay.
pub(crate) async fn take(
    store: &dyn Store,
    counters: &Counters,
    claim: &Claim,
) -> Result<Vec<ClaimedRow>, StoreError> {
    let rows = store.claim(claim).await?;
    if !rows.is_empty() {
        faults::at(Point::AfterClaim);
    }
    counters.claims.increment();
    counters.claimed.add(rows.len() as u64);
    Ok(rows)
}

fn has_room(intake: &Intake) -> bool {
    intake.free() * 4 >= intake.capacity()
}

/// How a claim went.
enum Claimed {
    /// An endpoint got all it wanted: there may be more.
    Full,
    /// There was no more, and these had no room.
    Some(Vec<EndpointName>),
    /// No endpoint has room.
    NoRoom,
}
