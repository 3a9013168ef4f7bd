//! Where a test runs: a store, a runtime, and a clock that the test moves.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use sagabus_core::Timestamp;
use sagabus_core::admin::{Page, RowFilter, RowState, StoredRow};
use sagabus_core::error::StoreError;
use sagabus_core::memory::MemoryStore;
use sagabus_core::store::{Group, Store, StoreAdmin};
use sagabus_core::unit_of_work::{RowKey, Settle, Start};
use tokio::runtime::{Builder, Runtime};
use tokio::time::Instant;

/// The lease of hosts under test: short, so that what a crash leaves behind is soon taken over.
pub(super) const LEASE: Duration = Duration::from_millis(600);
/// How often it is looked whether something is still due.
const PACE: Duration = Duration::from_millis(2);

/// A store with the runtime on which its hosts run.
pub(super) struct Place {
    pub(super) runtime: Runtime,
    pub(super) store: Arc<dyn Store>,
    pub(super) admin: Arc<dyn StoreAdmin>,
    clock: Clock,
}

/// How time passes.
enum Clock {
    /// The runtime's stands still, and so does the store's.
    Paused,
    /// The database's goes on; what is for later is brought forward.
    Ahead(Ahead),
}

/// A clock that is ahead of the database's.
#[derive(Default)]
struct Ahead {
    /// By so many microseconds.
    by: i64,
    /// Rows for later, and when they are due by this clock.
    due: BTreeMap<i64, i64>,
    /// Rows that were brought forward.
    released: BTreeSet<i64>,
}

impl Place {
    /// Makes a store in memory, whose time stands still.
    pub(super) fn memory() -> Self {
        let runtime = runtime(true);
        let store = {
            let _inside = runtime.enter();
            MemoryStore::new()
        };
        Self::new(runtime, store, Clock::Paused)
    }

    /// Opens a database.
    pub(super) fn database<S: Store + StoreAdmin + Clone>(open: impl Future<Output = S>) -> Self {
        // One thread, like the one in memory: what is to crash there, crashes here.
        let runtime = runtime(false);
        let store = runtime.block_on(open);
        Self::new(runtime, store, Clock::Ahead(Ahead::default()))
    }

    fn new<S: Store + StoreAdmin + Clone>(runtime: Runtime, store: S, clock: Clock) -> Self {
        Self {
            runtime,
            admin: Arc::new(store.clone()),
            store: Arc::new(store),
            clock,
        }
    }

    /// Returns the time by the runtime's clock.
    pub(super) fn now(&self) -> Instant {
        let _inside = self.runtime.enter();
        Instant::now()
    }

    /// Waits for a moment, or for longer where there is nothing to do but wait. `false`: nothing is
    /// due any more.
    pub(super) fn go_on(&mut self) -> bool {
        let Self {
            runtime,
            store,
            admin,
            clock,
        } = self;
        let going_on = runtime.block_on(async {
            tokio::time::sleep(PACE).await;
            let rows = Rows::read(&**admin).await?;
            match clock {
                Clock::Paused => Ok(rows.are_due(&BTreeSet::new()).next().is_some()),
                Clock::Ahead(ahead) => ahead.go_on(&**store, &rows).await,
            }
        });
        going_on.expect("the database can be used")
    }

    /// Lets time pass until something is due; at most for so long. Returns what is left of it.
    pub(super) fn pass(&mut self, time: Duration) -> Duration {
        let Self {
            runtime,
            store,
            admin,
            clock,
        } = self;
        let left = runtime.block_on(async {
            match clock {
                // Not by one jump: what falls due meanwhile happens at its own time.
                Clock::Paused => {
                    tokio::time::sleep(time).await;
                    Ok(Duration::ZERO)
                }
                Clock::Ahead(ahead) => ahead.pass(&**store, &**admin, time).await,
            }
        });
        left.expect("the database can be used")
    }
}

fn runtime(is_paused: bool) -> Runtime {
    Builder::new_current_thread()
        .enable_all()
        .start_paused(is_paused)
        .build()
        .expect("a runtime needs a timer")
}

impl Ahead {
    /// Notes what is for later, and brings forward what only waits for another try.
    async fn go_on(&mut self, store: &dyn Store, rows: &Rows) -> Result<bool, StoreError> {
        self.note(rows);
        let due: Vec<&StoredRow> = rows.are_due(&self.released).collect();
        // Longer than any lease: it is in nobody's hands, but between two tries.
        let hand = rows.now.plus(LEASE * 2);
        if !due.is_empty() && due.iter().all(|row| row.available_at > hand) {
            let next = due.iter().min_by_key(|row| row.available_at);
            if let Some(row) = next {
                release(store, row).await?;
            }
        }
        Ok(!due.is_empty())
    }

    /// Notes when rows for later are due by this clock: it stood still since they were written.
    fn note(&mut self, rows: &Rows) {
        for row in rows.are_for_later(&self.released) {
            let due = row.due_at.unwrap_or(row.available_at).as_micros() + self.by;
            self.due.entry(row.id).or_insert(due);
        }
    }

    async fn pass(
        &mut self,
        store: &dyn Store,
        admin: &dyn StoreAdmin,
        time: Duration,
    ) -> Result<Duration, StoreError> {
        let rows = Rows::read(admin).await?;
        self.note(&rows);
        let now = rows.now.as_micros() + self.by;
        let end = Timestamp::from_micros(now).plus(time).as_micros();
        let waiting = rows.are_for_later(&self.released);
        let next = waiting.min_by_key(|row| self.due[&row.id]);
        let next = next.map(|row| (self.due[&row.id], row));
        let reached = match next {
            Some((due, row)) if due <= end => {
                release(store, row).await?;
                self.released.insert(row.id);
                due.max(now)
            }
            _ => end,
        };
        self.by += reached - now;
        let left = u64::try_from(end - reached).unwrap_or_default();
        Ok(Duration::from_micros(left))
    }
}

/// Rows that move, and what the database's clock says.
struct Rows {
    now: Timestamp,
    rows: Vec<StoredRow>,
}

impl Rows {
    async fn read(admin: &dyn StoreAdmin) -> Result<Self, StoreError> {
        let moving = RowFilter {
            state: Some(RowState::Moving),
            ..RowFilter::default()
        };
        let (mut rows, mut last) = (Vec::new(), None);
        loop {
            let page = Page::oldest(u32::MAX).behind(last).without_bodies();
            let part = admin.rows(&moving, page).await?;
            let Some(end) = part.last() else { break };
            last = Some(end.id);
            rows.extend(part.into_iter().filter(|row| !row.is_stub()));
        }
        let now = admin.about().await?.now;
        Ok(Self { now, rows })
    }

    fn is_for_later(&self, row: &StoredRow, released: &BTreeSet<i64>) -> bool {
        let is_early = row.due_at.is_some_and(|due| due > self.now);
        // What comes back for another try is no timer.
        is_early && row.attempts.is_empty() && !released.contains(&row.id)
    }

    fn are_for_later(&self, released: &BTreeSet<i64>) -> impl Iterator<Item = &StoredRow> {
        let all = self.rows.iter();
        all.filter(|row| self.is_for_later(row, released))
    }

    fn are_due(&self, released: &BTreeSet<i64>) -> impl Iterator<Item = &StoredRow> {
        let all = self.rows.iter();
        all.filter(|row| !self.is_for_later(row, released))
    }
}

/// Lets hosts take a row now.
async fn release(store: &dyn Store, row: &StoredRow) -> Result<(), StoreError> {
    let settle = Settle::Release {
        row: RowKey {
            id: row.id,
            epoch: row.epoch,
        },
        after: Duration::ZERO,
        attempts: None,
        start: Start::Counted,
    };
    let group = Group {
        settles: vec![settle],
        ..Group::default()
    };
    store.commit(&group).await.map(drop)
}
