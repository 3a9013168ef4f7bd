//! The doors for user SQL: [`Tx`] in a handler; [`store.begin(&bus)`](BusTransaction) and
//! [`bus.outbox(&mut your_transaction)`](BusExt::outbox) in an API.
//!
//! All three end in the same commit call with a group of one.

use std::any::{Any, type_name};
use std::fmt;
use std::future::Future;
use std::time::Duration;

use sagabus_core::bus::Bus;
use sagabus_core::committer::CommitterHandle;
use sagabus_core::faults::{self, Point};
use sagabus_core::handler::{Extract, Need};
use sagabus_core::store::{Group, OpenTransaction, Routes, Store};
use sagabus_core::unit_of_work::{Outcome, UnitOfWork};
use sagabus_core::{
    BusError, Command, Ctx, Due, Event, HandlerError, Message, MessageId, Outgoing, StoreError,
};
use tokio::sync::OwnedMutexGuard;

use crate::nudge::Nudger;

/// A database engine whose transactions a handler may use: `Postgres` or `Sqlite`.
pub trait Engine: sealed::Engine {}

impl<Db: sealed::Engine> Engine for Db {}

pub(crate) mod sealed {
    use super::{Duration, Future, Group, Nudger, OpenTransaction, Routes, Store, StoreError};

    /// What this crate needs of an engine.
    pub trait Engine: sqlx::Database {
        /// Its store.
        type Store: Store + Clone;
        /// A transaction on a connection of the store's.
        type Open: OpenTransaction;

        /// The store's name, for the error that says how to give it.
        const STORE: &'static str;

        /// Begins a transaction.
        fn begin(
            store: &Self::Store,
        ) -> impl Future<Output = Result<Self::Open, StoreError>> + Send;

        /// Returns the connection on which a transaction is open.
        fn connection(
            open: &mut Self::Open,
        ) -> impl Future<Output = Result<&mut Self::Connection, StoreError>> + Send;

        /// Writes a group inside a stranger's transaction. `Some`: the routes are other ones, and
        /// nothing was written.
        fn write(
            connection: &mut Self::Connection,
            group: &Group,
        ) -> impl Future<Output = Result<Option<Routes>, StoreError>> + Send;

        /// Returns how long a handler may hold a transaction from its first use on, where others
        /// wait for it.
        fn limit(store: &Self::Store) -> Option<Duration>;

        /// Returns what wakes the hosts of a store after a stranger's commit.
        fn nudger(store: &Self::Store) -> &Nudger;
    }

    /// A transaction that a user opened.
    pub trait UserTransaction {
        /// Its engine.
        type Db: super::Engine;

        /// Returns its connection.
        fn connection(&mut self) -> &mut <Self::Db as sqlx::Database>::Connection;
    }
}

/// A transaction for the handler's own SQL, which commits together with everything else that the
/// handler wants, or not at all.
///
/// `BEGIN` is sent at first use, on a connection beside the engine's own. The handler neither
/// commits nor rolls back; SQL that does is detected, and the message fails for good.
///
/// On SQLite there is one writer: whoever holds it holds up all others. Keep it short, and await
/// nothing else in between: a handler that holds it for longer than `SqliteConfig::tx_limit`, 1 s
/// unless configured, has failed and is rolled back.
///
/// # Examples
/// ```
/// # #[cfg(feature = "postgres")]
/// # mod example {
/// # use sagabus_core::{Event, HandlerError, Kind, Message};
/// # use sagabus_outbox::{Postgres, Tx};
/// # #[derive(serde::Serialize, serde::Deserialize)]
/// # struct CardCharged { cents: i64 }
/// # impl Message for CardCharged {
/// #     const TYPE: &'static str = "payments.card-charged";
/// #     const KIND: Kind = Kind::Event;
/// # }
/// # impl Event for CardCharged {}
/// async fn record_payment(event: CardCharged, mut tx: Tx<Postgres>) -> Result<(), HandlerError> {
///     sqlx::query("insert into payments (cents) values ($1)")
///         .bind(event.cents)
///         .execute(tx.conn().await?)
///         .await?;
///     Ok(())
/// }
/// # }
/// ```
pub struct Tx<Db: Engine> {
    store: Db::Store,
    slot: OwnedMutexGuard<Option<Box<dyn OpenTransaction>>>,
    cx: Ctx,
}

impl<Db: Engine> Tx<Db> {
    /// Returns the connection; begins the transaction at first use.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] when the database cannot be reached, [`StoreError::Busy`] when
    /// all connections, or SQLite's writer, stayed in use for too long.
    ///
    /// # Cancel safety
    /// A cancelled first use leaves no transaction behind.
    pub async fn conn(&mut self) -> Result<&mut Db::Connection, StoreError> {
        if self.slot.is_none() {
            let open = Db::begin(&self.store).await?;
            *self.slot = Some(Box::new(open));
            if let Some(limit) = Db::limit(&self.store) {
                // Refused only after the handler has returned, when nobody waits for it any more.
                let _ = self.cx.limit(limit);
            }
        }
        let open = self.slot.as_mut().map(|open| &mut **open as &mut dyn Any);
        match open.and_then(|open| open.downcast_mut::<Db::Open>()) {
            Some(open) => Db::connection(open).await,
            None => Err(StoreError::Setup(
                "the handler uses transactions of two stores; one message is one transaction"
                    .to_owned(),
            )),
        }
    }
}

impl<Db: Engine> fmt::Debug for Tx<Db> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tx")
            .field("is_open", &self.slot.is_some())
            .finish_non_exhaustive()
    }
}

impl<Db: Engine> Extract for Tx<Db> {
    fn needs() -> Vec<Need> {
        vec![Need {
            what: format!("a transaction of `{}`", short_name::<Db>()),
            remedy: format!("give the host a `{}` with `.store(..)`", Db::STORE),
            is_met: |given| (given.store as &dyn Any).is::<Db::Store>(),
        }]
    }

    fn extract(cx: &Ctx) -> Result<Self, HandlerError> {
        let store = (&**cx.store() as &dyn Any).downcast_ref::<Db::Store>();
        let missing = || HandlerError::new(format!("the host's store is no `{}`", Db::STORE));
        let store = store.ok_or_else(|| missing().terminal())?.clone();
        let slot = cx.transaction().clone().try_lock_owned().map_err(|_| {
            HandlerError::new("a handler has one transaction; take one `Tx`").terminal()
        })?;
        Ok(Self {
            store,
            slot,
            cx: cx.clone(),
        })
    }
}

/// Adds [`tx`](CtxExt::tx) to the context of sagas.
pub trait CtxExt {
    /// Returns the transaction for SQL of one's own, as a handler's argument `Tx<Db>` does.
    ///
    /// # Errors
    /// When the host's store is of another engine, or a `Tx` of this message is still held.
    fn tx<Db: Engine>(&self) -> Result<Tx<Db>, HandlerError>;
}

impl CtxExt for Ctx {
    fn tx<Db: Engine>(&self) -> Result<Tx<Db>, HandlerError> {
        Tx::extract(self)
    }
}

/// A transaction of an API: its rows and the messages that it sends commit together, and the
/// messages leave at once.
///
/// Made by `store.begin(&bus)`. Dropped, it rolls back.
#[must_use = "dropped, it rolls back"]
pub struct BusTransaction<Db: Engine> {
    bus: Bus,
    engine: CommitterHandle,
    open: Db::Open,
    outgoing: Vec<Outgoing>,
}

impl<Db: Engine> BusTransaction<Db> {
    pub(crate) async fn begin(store: &Db::Store, bus: &Bus) -> Result<Self, BusError> {
        let engine = bus.engine()?;
        Ok(Self {
            bus: bus.clone(),
            engine,
            open: Db::begin(store).await?,
            outgoing: Vec::new(),
        })
    }

    /// Returns the connection for SQL of one's own.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] when the connection is lost.
    pub async fn conn(&mut self) -> Result<&mut Db::Connection, StoreError> {
        Db::connection(&mut self.open).await
    }

    /// Sends a command to its owner, when this transaction commits.
    ///
    /// # Errors
    /// [`BusError::Codec`] when it cannot be encoded, [`BusError::NotRunning`].
    pub fn send<C: Command>(&mut self, command: C) -> Result<MessageId, BusError> {
        self.push(Outgoing::new(&command)?)
    }

    /// Publishes an event to everyone who subscribed, when this transaction commits.
    ///
    /// # Errors
    /// As [`send`](Self::send).
    pub fn publish<E: Event>(&mut self, event: E) -> Result<MessageId, BusError> {
        self.push(Outgoing::new(&event)?)
    }

    /// Sends or publishes a message, by its kind, when `after` has passed since the commit.
    ///
    /// # Errors
    /// As [`send`](Self::send).
    pub fn schedule<M: Message>(
        &mut self,
        after: Duration,
        message: M,
    ) -> Result<MessageId, BusError> {
        self.push(Outgoing {
            due: Due::After(after),
            ..Outgoing::new(&message)?
        })
    }

    /// Sends a prepared message, for example one with an identity of the caller's
    /// ([`Outgoing::with_id`]).
    ///
    /// # Errors
    /// As [`send`](Self::send).
    pub fn push(&mut self, outgoing: Outgoing) -> Result<MessageId, BusError> {
        let outgoing = self.bus.prepare(outgoing)?;
        let id = outgoing.envelope.id;
        self.outgoing.push(outgoing);
        Ok(id)
    }

    /// Commits rows and messages.
    ///
    /// # Errors
    /// [`BusError::CommitUnknown`] when the answer was lost; [`BusError::Store`] when nothing was
    /// written.
    ///
    /// # Cancel safety
    /// A dropped call may or may not have committed.
    pub async fn commit(self) -> Result<(), BusError> {
        let message_ids = self.outgoing.iter().map(|one| one.envelope.id).collect();
        let unit = UnitOfWork {
            outgoing: self.outgoing,
            ..UnitOfWork::default()
        };
        faults::at(Point::BeforeApiCommit);
        let outcome = self.engine.commit_through(Box::new(self.open), unit).await;
        faults::at(Point::AfterApiCommit);
        match outcome {
            Ok(Outcome::Committed) => Ok(()),
            // A unit without sources and instance loses for one reason only.
            Ok(_) => Err(StoreError::Busy("subscriptions changed meanwhile".into()).into()),
            Err(StoreError::Unknown(_)) => Err(BusError::CommitUnknown { message_ids }),
            Err(error) => Err(error.into()),
        }
    }

    /// Rolls rows and messages back.
    pub async fn rollback(self) {
        Box::new(self.open).rollback().await;
    }
}

impl<Db: Engine> fmt::Debug for BusTransaction<Db> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BusTransaction")
            .field("outgoing", &self.outgoing.len())
            .finish_non_exhaustive()
    }
}

/// A transaction that you opened yourself: sqlx's `Transaction`, or a connection on which one is
/// open.
pub trait UserTransaction: sealed::UserTransaction {}

impl<T: sealed::UserTransaction> UserTransaction for T {}

impl<Db: Engine> sealed::UserTransaction for sqlx::Transaction<'_, Db> {
    type Db = Db;

    fn connection(&mut self) -> &mut Db::Connection {
        self
    }
}

/// Adds [`outbox`](BusExt::outbox) to the bus.
pub trait BusExt {
    /// Sends messages in a transaction of your own: they leave when it commits, and never if it
    /// does not.
    ///
    /// The bus does not see your commit. It looks for the messages again and again for a second;
    /// where the commit comes later, they leave with the next poll.
    ///
    /// # Examples
    /// ```
    /// # #[cfg(feature = "postgres")]
    /// # mod example {
    /// # use sagabus_core::{Bus, Event};
    /// # use sagabus_outbox::BusExt;
    /// # type Result = std::result::Result<(), Box<dyn std::error::Error>>;
    /// async fn place(pool: sqlx::PgPool, bus: Bus, placed: impl Event) -> Result {
    ///     let mut tx = pool.begin().await?;
    ///     sqlx::query("insert into orders default values")
    ///         .execute(&mut *tx)
    ///         .await?;
    ///     bus.outbox(&mut tx).publish(placed).await?;
    ///     tx.commit().await?;
    ///     Ok(())
    /// }
    /// # }
    /// ```
    fn outbox<'a, T: UserTransaction>(&self, transaction: &'a mut T) -> Outbox<'a, T>;
}

impl BusExt for Bus {
    fn outbox<'a, T: UserTransaction>(&self, transaction: &'a mut T) -> Outbox<'a, T> {
        Outbox {
            bus: self.clone(),
            transaction,
        }
    }
}

/// Sends messages in a user's own transaction. Made by [`BusExt::outbox`].
pub struct Outbox<'a, T> {
    bus: Bus,
    transaction: &'a mut T,
}

impl<T: UserTransaction> Outbox<'_, T> {
    /// Sends a command to its owner.
    ///
    /// # Errors
    /// [`BusError::Codec`] when it cannot be encoded, [`BusError::NotRunning`],
    /// [`BusError::Overloaded`], [`BusError::InsideHandler`], or [`BusError::Store`]: then the
    /// transaction has failed.
    pub async fn send<C: Command>(&mut self, command: C) -> Result<MessageId, BusError> {
        self.push(Outgoing::new(&command)?).await
    }

    /// Publishes an event to everyone who subscribed.
    ///
    /// # Errors
    /// As [`send`](Self::send).
    pub async fn publish<E: Event>(&mut self, event: E) -> Result<MessageId, BusError> {
        self.push(Outgoing::new(&event)?).await
    }

    /// Sends or publishes a message, by its kind, when `after` has passed.
    ///
    /// # Errors
    /// As [`send`](Self::send).
    pub async fn schedule<M: Message>(
        &mut self,
        after: Duration,
        message: M,
    ) -> Result<MessageId, BusError> {
        let outgoing = Outgoing {
            due: Due::After(after),
            ..Outgoing::new(&message)?
        };
        self.push(outgoing).await
    }

    /// Sends a prepared message, for example one with an identity of the caller's
    /// ([`Outgoing::with_id`]).
    ///
    /// # Errors
    /// As [`send`](Self::send).
    pub async fn push(&mut self, outgoing: Outgoing) -> Result<MessageId, BusError> {
        /// Subscriptions change when a service starts; twice during one call is much.
        const TRIES_MAX: usize = 3;
        let outgoing = self.bus.prepare(outgoing)?;
        let id = outgoing.envelope.id;
        let engine = self.bus.engine()?;
        let unit = UnitOfWork {
            outgoing: vec![outgoing],
            ..UnitOfWork::default()
        };
        for _ in 0..TRIES_MAX {
            let group = engine.place(unit.clone());
            let connection = self.transaction.connection();
            let Some(routes) = <T::Db as sealed::Engine>::write(connection, &group).await? else {
                nudge_later::<T::Db>(&engine);
                return Ok(id);
            };
            engine.router().learn(routes);
        }
        Err(StoreError::Busy("subscriptions keep changing".into()).into())
    }
}

impl<T> fmt::Debug for Outbox<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Outbox").finish_non_exhaustive()
    }
}

/// Looks for the messages for a while, because nobody will say when the transaction commits.
fn nudge_later<Db: Engine>(engine: &CommitterHandle) {
    let store = (&**engine.store() as &dyn Any).downcast_ref::<Db::Store>();
    // A user's transaction on another store than the host's has been refused by then: it knows no
    // such schema. Polling would find the message in any case.
    if let Some(store) = store {
        Db::nudger(store).start(engine.lifecycle());
    }
}

/// Returns the last part of a type's path.
fn short_name<T>() -> &'static str {
    let name = type_name::<T>();
    name.rsplit("::").next().unwrap_or(name)
}
