//! The in-memory store: the contract's semantics without a database.

use std::fmt;
use std::sync::Arc;

use futures_util::future::{self, BoxFuture, FutureExt};
use tokio::sync::watch;
use tokio::time::Instant;

use super::database::Database;
use crate::backlog::Extended;
use crate::clock::{self, Timestamp};
use crate::error::StoreError;
use crate::lifecycle::Lifecycle;
use crate::store::{
    Answer, Attached, Claim, ClaimedRow, CommitReport, Extension, Group, Question, Registration,
    Retention, Store, Swept,
};
use crate::sync::{Mutex, MutexGuard};
use crate::unit_of_work::HistoryEntry;

/// A database in this process's memory.
///
/// Clones share one database, so that several hosts can compete over it in one test. Its clock
/// stands still with `tokio::time::pause` and moves with `tokio::time::advance`.
///
/// As strict as the strictest database: text columns refuse a NUL character.
#[derive(Clone)]
pub struct MemoryStore {
    shared: Arc<Shared>,
}

/// What all clones share. Every call holds the mutex from its first read to its last write, and
/// never across an await: that is what makes it atomic.
struct Shared {
    database: Mutex<Database>,
    wakeups: watch::Sender<u64>,
    created: Instant,
    created_at: Timestamp,
}

impl MemoryStore {
    /// Makes an empty database.
    pub fn new() -> Self {
        Self {
            shared: Arc::new(Shared {
                database: Mutex::new(Database::new()),
                wakeups: watch::Sender::new(0),
                created: Instant::now(),
                created_at: clock::now(),
            }),
        }
    }

    /// Returns the history, the earliest entry first.
    pub fn history(&self) -> Vec<HistoryEntry> {
        self.lock().history()
    }

    /// Counts the rows whose time has come: waiting, in a host's hands, or between two tries. None
    /// means that everything has been handled but what is for later.
    pub fn due_count(&self) -> usize {
        self.with(|database, now| database.outbox.due_count(now))
    }

    /// Runs `work` on the locked database, and wakes other hosts if rows became available.
    pub(super) fn with<T>(&self, work: impl FnOnce(&mut Database, Timestamp) -> T) -> T {
        let mut database = self.lock();
        let now = self.shared.created_at.plus(self.shared.created.elapsed());
        let result = work(&mut database, now);
        let has_news = database.outbox.take_news();
        drop(database);
        if has_news {
            self.shared.wakeups.send_modify(|count| *count += 1);
        }
        result
    }

    /// Locks the database. A panic elsewhere cannot have left it half written: what may refuse
    /// does so before the first write.
    fn lock(&self) -> MutexGuard<'_, Database> {
        self.shared
            .database
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl Default for MemoryStore {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for MemoryStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryStore").finish_non_exhaustive()
    }
}

/// Wraps an answer that is there already.
pub(super) fn ready<'a, T: Send + 'a>(answer: T) -> BoxFuture<'a, T> {
    future::ready(answer).boxed()
}

impl Store for MemoryStore {
    fn attach<'a>(
        &'a self,
        registration: &'a Registration,
        _lifecycle: &'a Lifecycle,
    ) -> BoxFuture<'a, Result<Attached, StoreError>> {
        let wakeups = self.shared.wakeups.subscribe();
        ready(self.with(|database, now| database.attach(registration, wakeups, now)))
    }

    fn load<'a>(
        &'a self,
        questions: &'a [Question],
    ) -> BoxFuture<'a, Result<Vec<Answer>, StoreError>> {
        ready(Ok(self.with(|database, _| {
            questions.iter().map(|one| database.answer(one)).collect()
        })))
    }

    fn commit<'a>(&'a self, group: &'a Group) -> BoxFuture<'a, Result<CommitReport, StoreError>> {
        ready(self.with(|database, now| database.commit(group, now)))
    }

    fn claim<'a>(&'a self, claim: &'a Claim) -> BoxFuture<'a, Result<Vec<ClaimedRow>, StoreError>> {
        ready(Ok(
            self.with(|database, now| database.outbox.claim(claim, now))
        ))
    }

    fn extend<'a>(
        &'a self,
        extension: &'a Extension,
    ) -> BoxFuture<'a, Result<Extended, StoreError>> {
        ready(Ok(self.with(|database, now| {
            database.beat(extension, now);
            let lease_end = now.plus(extension.lease);
            Extended {
                rows: database.outbox.extend(&extension.rows, lease_end),
                backlog: database.outbox.measure(&extension.measure, now),
                now,
            }
        })))
    }

    fn sweep<'a>(&'a self, retention: &'a Retention) -> BoxFuture<'a, Result<Swept, StoreError>> {
        ready(Ok(self.with(|database, now| database.sweep(retention, now))))
    }
}
