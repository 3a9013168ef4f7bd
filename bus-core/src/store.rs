//! What a database must do for us: six calls. Everything that changes durable state goes through
//! [`Store::commit`].

use std::any::Any;
use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::sync::watch;

use crate::backlog::{Extended, Measure};
use crate::clock::Timestamp;
use crate::endpoint::{EndpointId, EndpointName, MessageType, Order};
use crate::envelope::{Envelope, Timer};
use crate::error::StoreError;
use crate::id::{HostId, StoreId};
use crate::lifecycle::Lifecycle;
use crate::message::Kind;
pub use crate::question::{Answer, Fate, Instance, Question};
use crate::transports::TransportName;
use crate::unit_of_work::{Attempt, Outcome, Reason, RowKey, Settle, UnitOfWork};

pub use crate::admin::{Counts, StoreAdmin, StoredDeadLetter};

/// A database that keeps inbox, outbox, instances, history and dead letters.
///
/// Implemented by `PgStore`, `SqliteStore` and the in-memory store; the conformance suite in
/// `sagabus-testkit` says the same as these words, executable.
pub trait Store: Any + Send + Sync + fmt::Debug {
    /// Checks the schema, registers the host with its endpoints and subscriptions, and starts
    /// listening for other processes' wake-ups on `lifecycle`.
    ///
    /// `Ok` promises that the schema is whole and of this release, that the database can be
    /// written, and that the subscriptions are visible to every commit from now on.
    ///
    /// # Errors
    /// [`StoreError::Setup`] with what to do: also where a command of this host has an owner
    /// already, which is another endpoint; then nothing is registered. [`StoreError::Unavailable`].
    ///
    /// # Cancel safety
    /// Registration is one transaction: whole or not at all. Attaching again is harmless.
    fn attach<'a>(
        &'a self,
        registration: &'a Registration,
        lifecycle: &'a Lifecycle,
    ) -> BoxFuture<'a, Result<Attached, StoreError>>;

    /// Answers, for each waiting message, whether it was taken over before, what its instance is
    /// and whether its key is blocked: one query for all.
    ///
    /// `Ok` has one answer per question, in order, each true at some moment during the call.
    ///
    /// # Cancel safety
    /// Reads only.
    fn load<'a>(
        &'a self,
        questions: &'a [Question],
    ) -> BoxFuture<'a, Result<Vec<Answer>, StoreError>>;

    /// Writes a group of units and settles in one transaction, with an outcome per unit.
    ///
    /// `Ok` promises that every unit with [`Outcome::Committed`] is durable and whole, and that of
    /// every other unit nothing is written. One that names a source twice is a Conflict. The order of steps is fixed: settles; sources in the
    /// order of their keys; instances; losers' sources taken back; outgoing, history and dead
    /// letters of winners. Duplicate is decided before Conflict. Units share no source or instance.
    ///
    /// # Errors
    /// [`StoreError::Unknown`] when the outcome is not known (call again with the same group: its
    /// own units come back as Duplicate); for every other error nothing was written.
    ///
    /// # Cancel safety
    /// Dropping the future leaves the group wholly written or not at all.
    fn commit<'a>(&'a self, group: &'a Group) -> BoxFuture<'a, Result<CommitReport, StoreError>>;

    /// Claims rows whose time has come: raises their epoch and starts, and moves their
    /// `available_at` to the end of the lease.
    ///
    /// `Ok` promises that no other claim returns these rows until the lease ends. Of an ordered
    /// destination, only the oldest row of a key is returned.
    ///
    /// # Cancel safety
    /// Rows claimed by a dropped call come back when their lease ends.
    fn claim<'a>(&'a self, claim: &'a Claim) -> BoxFuture<'a, Result<Vec<ClaimedRow>, StoreError>>;

    /// Extends the leases of all that this host has in hand, and its heartbeat, in one statement;
    /// and measures what waits, where that is asked.
    ///
    /// `Ok` promises that no claim returns those of the rows that were still ours before the lease is
    /// over, counted from the call; it has their number, and what the database's clock says.
    ///
    /// # Cancel safety
    /// Extending again is harmless.
    fn extend<'a>(
        &'a self,
        extension: &'a Extension,
    ) -> BoxFuture<'a, Result<Extended, StoreError>>;

    /// Removes a bounded number of rows that are older than their retention.
    ///
    /// `Ok` has what was removed, for good; where [`Swept::is_full`], there is more to do. What is not
    /// finished, or not old by the database's clock, stays.
    ///
    /// # Cancel safety
    /// Sweeping again is harmless.
    fn sweep<'a>(&'a self, retention: &'a Retention) -> BoxFuture<'a, Result<Swept, StoreError>>;
}

/// Fails to compile if `Store` cannot be used as `dyn Store`.
fn _obj_safe(_: &dyn Store) {}

/// Ends a transaction that a handler's own SQL opened, by the same commit call with a group of one.
pub trait OpenTransaction: Any + Send + Sync {
    /// Writes the group inside the open transaction and commits it. Any outcome but
    /// [`Outcome::Committed`] rolls everything back, the handler's own statements included.
    ///
    /// # Errors
    /// [`StoreError::Unknown`] when the answer to the commit was lost;
    /// [`StoreError::TransactionEnded`] when the handler's SQL ended the transaction by itself.
    ///
    /// # Cancel safety
    /// Not cancel safe: the engine runs it to its end.
    fn commit<'a>(
        self: Box<Self>,
        group: &'a Group,
    ) -> BoxFuture<'a, Result<CommitReport, StoreError>>;

    /// Rolls back, so that nothing of the handler's SQL is left.
    fn rollback(self: Box<Self>) -> BoxFuture<'static, ()>;

    /// Says whether an error of the handler's SQL (lost connection, deadlock) costs no attempt.
    fn excuses(&self, _error: &(dyn std::error::Error + 'static)) -> bool {
        false
    }
}

/// A host as it introduces itself to its store.
#[derive(Clone, Debug)]
pub struct Registration {
    /// The running process.
    pub host: HostId,
    /// The name that its user gave it.
    pub host_name: String,
    /// Its endpoints.
    pub endpoints: Vec<EndpointSpec>,
    /// Routes, machines and versions as JSON, for tools that cannot see user code.
    pub definitions: serde_json::Value,
}

/// One endpoint of a host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndpointSpec {
    /// Its name.
    pub name: EndpointName,
    /// The order that it promises.
    pub order: Order,
    /// What it takes.
    pub subscriptions: Vec<Subscription>,
}

impl EndpointSpec {
    /// Says whether it takes a message type.
    pub fn takes(&self, message_type: &str) -> bool {
        let mut types = self.subscriptions.iter().map(|one| &one.message_type);
        types.any(|taken| taken == message_type)
    }
}

/// One message type that an endpoint takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subscription {
    /// The type.
    pub message_type: MessageType,
    /// What kind of message it is.
    pub kind: Kind,
}

/// What a store tells a host that attached.
#[derive(Debug)]
pub struct Attached {
    /// Which database this is.
    pub store: StoreId,
    /// The small integers of the host's endpoints.
    pub endpoints: HashMap<EndpointName, EndpointId>,
    /// Who takes what.
    pub routes: Routes,
    /// Changes whenever rows may have become available through another process or another
    /// connection. A hint: polling is the truth.
    pub wakeups: watch::Receiver<u64>,
    /// What the database's clock said during the call.
    pub now: Timestamp,
}

/// Who takes which message type, in this database.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Routes {
    /// Grows with every change of a subscription.
    pub version: i64,
    /// Message type to the endpoints that subscribed, in the order of their names.
    pub subscribers: BTreeMap<String, Arc<[Target]>>,
    /// Every endpoint that this database knows.
    pub endpoints: HashMap<EndpointName, Target>,
}

/// An endpoint as a route names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// Its small integer.
    pub id: EndpointId,
    /// Its name.
    pub name: EndpointName,
    /// The order that it promises.
    pub order: Order,
}

/// What one commit call writes.
#[derive(Clone, Debug, Default)]
pub struct Group {
    /// At most one per source and per instance, and none that sends beside another whose dead letter
    /// holds its key.
    pub units: Vec<UnitOfWork>,
    /// Where each outgoing message goes: one row each.
    pub placements: Vec<Placement>,
    /// Rows to settle, whatever becomes of the units.
    pub settles: Vec<Settle>,
    /// The routes by which the placements were made; other routes in the database mean
    /// [`StoreError::StaleRoutes`].
    pub routes_version: i64,
    /// How long rows that are born leased belong to this host.
    pub lease: Duration,
}

/// One row that an outgoing message becomes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placement {
    /// Index into [`Group::units`].
    pub unit: usize,
    /// Index into that unit's `outgoing`.
    pub outgoing: usize,
    /// Where it goes.
    pub place: Place,
    /// In what condition it is written.
    pub birth: Birth,
}

/// A destination that has been looked up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// An endpoint of this database; stored as `@name`.
    Endpoint(Target),
    /// An address of a transport.
    Address {
        /// As it is stored: with the transport's name where that is not the default one.
        address: String,
        /// The order that it promises.
        order: Order,
    },
    /// Nobody takes it: stored as `?` and the message type, parked.
    Nowhere,
}

impl Place {
    /// Returns the text that a row's `destination` holds.
    pub fn as_stored(&self, message_type: &str) -> String {
        match self {
            Self::Endpoint(target) => ["@", target.name.as_str()].concat(),
            Self::Address { address, .. } => address.clone(),
            Self::Nowhere => format!("?{message_type}"),
        }
    }

    /// Returns the order that the destination promises.
    pub fn order(&self) -> Order {
        match self {
            Self::Endpoint(target) => target.order,
            Self::Address { order, .. } => *order,
            Self::Nowhere => Order::Unordered,
        }
    }
}

/// In what condition a row is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Birth {
    /// Claimed by this host, which goes on with it from memory: epoch 1, and one start more than
    /// the failures that the message brings along.
    ///
    /// Falls back to `Available` where the message is not due, or an ordered row of its key goes
    /// first.
    Leased,
    /// For whoever comes first, when it is due: epoch 0, and as many starts as the message brings
    /// failures along.
    Available,
    /// For an operator.
    Parked(Reason),
}

/// What became of a group.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CommitReport {
    /// One per unit, in order.
    pub outcomes: Vec<Outcome>,
    /// One per placement, in order: the key of a row that was born leased, else `None`.
    pub leased: Vec<Option<RowKey>>,
}

/// Which rows a host wants.
#[derive(Clone, Debug)]
pub struct Claim {
    /// From where.
    pub from: ClaimFrom,
    /// How long they are ours.
    pub lease: Duration,
    /// How far back to look.
    pub scan: Scan,
}

/// The destinations of a claim.
#[derive(Clone, Debug)]
pub enum ClaimFrom {
    /// These endpoints of this database, each with the number of rows wanted.
    Endpoints(Vec<(EndpointName, u32)>),
    /// Every address of one transport.
    Transport {
        /// Which one.
        name: TransportName,
        /// How many rows in all.
        limit: u32,
        /// How many rows for one address at most.
        per_address: u32,
        /// Addresses that get fewer, as they are stored, with how many: none behind an open breaker.
        bounds: Vec<(String, u32)>,
    },
}

/// How far back a claim looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scan {
    /// Rows whose time came within the last minute: cheap whatever lies dead before them.
    Hot,
    /// All of them. Run at a fixed duty cycle: finds late committers.
    Cold,
}

/// A row in this host's hands until its lease ends.
#[derive(Clone, Debug, PartialEq)]
pub struct ClaimedRow {
    /// By which it is settled.
    pub row: RowKey,
    /// As stored: `@orders`, or a transport's address with its name where it has one.
    pub destination: String,
    /// The message.
    pub envelope: Envelope,
    /// Its key.
    pub key: Option<String>,
    /// How often it was claimed, this time included.
    pub starts: i32,
    /// How often an error was recorded.
    pub failures: i32,
    /// How often it was started alone.
    pub solo_starts: i32,
    /// The recorded errors.
    pub attempts: Vec<Attempt>,
    /// The timer that it is.
    pub timer: Option<Timer>,
    /// Its time is over.
    pub is_expired: bool,
}

/// What a host still has in hand.
#[derive(Clone, Debug)]
pub struct Extension {
    /// The host, whose heartbeat this is.
    pub host: HostId,
    /// What its own clock says.
    pub clock: Timestamp,
    /// The rows.
    pub rows: Vec<RowKey>,
    /// From now.
    pub lease: Duration,
    /// What the host wants to know about what waits.
    pub measure: Measure,
    /// The host has stopped: this is the last that is heard of it.
    pub is_last: bool,
}

/// How long things are kept, and how much one sweep removes.
#[derive(Clone, Debug)]
pub struct Retention {
    /// Inbox rows, from acceptance. Default 7 days.
    pub inbox: Duration,
    /// History. Default 7 days.
    pub history: Duration,
    /// Tombstones of finished instances, from their last change. Never shorter than the inbox, so that
    /// what comes again finds them. Default 30 days.
    pub tombstones: Duration,
    /// Dead letters that were redriven or discarded, from when they were given up; those that are open
    /// are kept for ever. Never shorter than the inbox, which knows their messages. Default 30 days.
    pub dead_letters: Duration,
    /// The audit of what operators changed. Default 400 days, so that last year's is there.
    pub audit: Duration,
    /// Rows that one sweep removes per table at most.
    pub rows_max: u32,
    /// The pause between two sweeps when there is nothing more to remove. Default 60 s.
    pub interval: Duration,
}

impl Default for Retention {
    fn default() -> Self {
        const DAY: Duration = Duration::from_secs(24 * 60 * 60);
        // 5,000 rows take about 15 ms on a small machine, well under any lock time-out.
        Self {
            inbox: DAY * 7,
            history: DAY * 7,
            tombstones: DAY * 30,
            dead_letters: DAY * 30,
            audit: DAY * 400,
            rows_max: 5_000,
            interval: Duration::from_secs(60),
        }
    }
}

impl Retention {
    /// Returns how long dead letters are kept that somebody dealt with: as long as their messages
    /// are recognised, at least.
    pub fn dealt_with(&self) -> Duration {
        self.dead_letters.max(self.inbox)
    }

    /// Returns how long tombstones are kept: as long as messages that come again, at least.
    pub fn finished(&self) -> Duration {
        self.tombstones.max(self.inbox)
    }
}

impl Swept {
    /// Returns how many rows it removed in all.
    pub fn rows(&self) -> u64 {
        let kept = self.inbox + self.history + self.tombstones;
        kept + self.dead_letters + self.audit + self.sent
    }
}

/// What a sweep removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Swept {
    /// Inbox rows.
    pub inbox: u64,
    /// History rows.
    pub history: u64,
    /// Tombstones.
    pub tombstones: u64,
    /// Dead letters that somebody dealt with.
    pub dead_letters: u64,
    /// Audit entries.
    pub audit: u64,
    /// Messages that brokers took, kept for as long as their hosts declared.
    pub sent: u64,
    /// A table had at least as many rows as one sweep may remove.
    pub is_full: bool,
}
