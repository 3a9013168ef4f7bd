//! A few connections that are given back only when they are known to be sound.
//!
//! A call that was cancelled or lost its server never gives its connection back: it is closed. So
//! no later call inherits an answer, or a transaction, that belongs to somebody else.

use std::collections::VecDeque;
use std::fmt;
use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use sagabus_core::StoreError;
use sqlx::Connection;
use sqlx::postgres::{PgConnectOptions, PgConnection};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use tokio::time::{Instant, timeout};

use super::error::{connect_error, is_harmless};
use super::store::Place;

/// After so long a rest a connection is tried out before it is used: something on the way may have
/// dropped it without a word. Below the shortest idle time-outs that proxies are given.
const REST_MAX: Duration = Duration::from_secs(30);

/// How long trying out may take.
const PING_MAX: Duration = Duration::from_secs(2);

/// A bounded number of connections to one database.
pub(crate) struct Connections {
    options: PgConnectOptions,
    permits: Arc<Semaphore>,
    /// The last one given back is taken first, so that a host with little to do rests the others.
    free: Mutex<Vec<Resting>>,
    /// Who waits for a connection on which a transaction is open, the longest first.
    heirs: Mutex<VecDeque<oneshot::Sender<Taken>>>,
    connect_timeout: Duration,
    wait_timeout: Duration,
}

struct Resting {
    connection: PgConnection,
    since: Instant,
}

impl Connections {
    pub(super) fn new(
        options: PgConnectOptions,
        count_max: usize,
        connect_timeout: Duration,
        wait_timeout: Duration,
    ) -> Arc<Self> {
        Arc::new(Self {
            options,
            permits: Arc::new(Semaphore::new(count_max.max(1))),
            free: Mutex::default(),
            heirs: Mutex::default(),
            connect_timeout,
            wait_timeout,
        })
    }

    /// Takes a connection, waiting for one where all are in use.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub(crate) async fn take(self: &Arc<Self>) -> Result<Taken, StoreError> {
        let permit = timeout(self.wait_timeout, Arc::clone(&self.permits).acquire_owned())
            .await
            .map_err(|_| {
                StoreError::Busy(
                    format!("all connections were in use for {:?}", self.wait_timeout).into(),
                )
            })?
            .map_err(|closed| StoreError::Unavailable(closed.into()))?;
        let connection = match self.rested().await {
            Some(connection) => connection,
            None => self.connect().await?,
        };
        Ok(Taken {
            connection,
            home: Arc::clone(self),
            _permit: permit,
        })
    }

    /// Takes a connection as [`take`](Self::take) does, or one from a predecessor who had to
    /// commit and began a transaction for us in the same round trip.
    ///
    /// # Cancel safety
    /// Cancel safe: what was handed over meanwhile is closed.
    pub(crate) async fn take_or_inherit(self: &Arc<Self>) -> Result<Inheritance, StoreError> {
        // Whoever finds a free one does not queue up: it would be in the way of those who wait.
        if self.permits.available_permits() > 0 {
            return self.take().await.map(Inheritance::Rested);
        }
        let (heir, mut inherited) = oneshot::channel();
        {
            let mut heirs = lock(&self.heirs);
            // Those who gave up leave the line here where nobody commits for long.
            while heirs.front().is_some_and(oneshot::Sender::is_closed) {
                heirs.pop_front();
            }
            heirs.push_back(heir);
        }
        let mut rested = std::pin::pin!(self.take());
        tokio::select! {
            biased;
            Ok(taken) = &mut inherited => Ok(Inheritance::Begun(taken)),
            taken = &mut rested => taken.map(Inheritance::Rested),
        }
    }

    /// Closes what is not in use and refuses all further calls.
    pub(super) fn close(&self) {
        self.permits.close();
        self.lock().clear();
    }

    async fn rested(&self) -> Option<PgConnection> {
        loop {
            let mut resting = self.lock().pop()?;
            if resting.since.elapsed() < REST_MAX {
                return Some(resting.connection);
            }
            let ping = timeout(PING_MAX, resting.connection.ping()).await;
            if matches!(ping, Ok(Ok(()))) {
                return Some(resting.connection);
            }
        }
    }

    async fn connect(&self) -> Result<PgConnection, StoreError> {
        // A database or role may have another default; nothing is sent where it has not, so that
        // a pooler between us and the server sees no session state.
        const PIN: &str = "select set_config('default_transaction_isolation', 'read committed', \
            false) where current_setting('default_transaction_isolation') <> 'read committed'";
        let connecting = async {
            let mut connection = PgConnection::connect_with(&self.options).await?;
            sqlx::raw_sql(PIN).execute(&mut connection).await?;
            Ok(connection)
        };
        match timeout(self.connect_timeout, connecting).await {
            Ok(connected) => connected.map_err(|error| connect_error(error, Place(&self.options))),
            Err(_) => {
                let (place, limit) = (Place(&self.options), self.connect_timeout);
                let late = format!("{place}: no connection within {limit:?}");
                Err(StoreError::Unavailable(late.into()))
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Resting>> {
        lock(&self.free)
    }
}

/// A list is whole after every push and pop, also where a thread panicked between them.
fn lock<T>(list: &Mutex<T>) -> MutexGuard<'_, T> {
    list.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A connection for a transaction.
pub(crate) enum Inheritance {
    /// It waits for a command, in no transaction.
    Rested(Taken),
    /// A transaction has been begun on it, and nothing was done there yet.
    Begun(Taken),
}

/// Somebody who waits for a connection, and will take it with a transaction open.
pub(crate) struct Heir(oneshot::Sender<Taken>);

impl Heir {
    /// Hands a connection over; returns it where nobody waits any more.
    pub(crate) fn inherit(self, taken: Taken) -> Result<(), Taken> {
        self.0.send(taken)
    }
}

impl fmt::Debug for Connections {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connections")
            .field("free", &self.lock().len())
            .field("permits", &self.permits.available_permits())
            .finish_non_exhaustive()
    }
}

/// A connection in use. Dropped, it is closed; [`give_back`](Self::give_back) keeps it.
pub(crate) struct Taken {
    connection: PgConnection,
    home: Arc<Connections>,
    _permit: OwnedSemaphorePermit,
}

impl Taken {
    /// Keeps the connection for the next call. Only where it waits for a command, in no
    /// transaction.
    pub(crate) fn give_back(self) {
        let since = Instant::now();
        let connection = self.connection;
        if !self.home.permits.is_closed() {
            self.home.lock().push(Resting { connection, since });
        }
    }

    /// Returns who has waited longest for a connection of this kind.
    pub(crate) fn heir(&self) -> Option<Heir> {
        let mut heirs = lock(&self.home.heirs);
        std::iter::from_fn(|| heirs.pop_front())
            .find(|heir| !heir.is_closed())
            .map(Heir)
    }

    /// Closes the connection because its server was lost, and those that rest: what cut this one
    /// probably cut the others, too.
    pub(super) fn give_up(self) {
        self.home.lock().clear();
    }

    /// Ends a call: keeps the connection where it is sound, and sorts the error.
    ///
    /// `answer` is `None` where the server did not answer in time.
    pub(super) fn finish<T>(
        self,
        answer: Option<Result<T, sqlx::Error>>,
        sort: fn(sqlx::Error) -> StoreError,
    ) -> Result<T, StoreError> {
        match answer {
            Some(Ok(value)) => {
                self.give_back();
                Ok(value)
            }
            Some(Err(error)) => {
                if is_harmless(&error) {
                    self.give_back();
                } else {
                    self.give_up();
                }
                Err(sort(error))
            }
            None => {
                self.give_up();
                let late = std::io::Error::from(std::io::ErrorKind::TimedOut);
                Err(sort(late.into()))
            }
        }
    }
}

impl Deref for Taken {
    type Target = PgConnection;

    fn deref(&self) -> &PgConnection {
        &self.connection
    }
}

impl DerefMut for Taken {
    fn deref_mut(&mut self) -> &mut PgConnection {
        &mut self.connection
    }
}

impl fmt::Debug for Taken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Taken").finish_non_exhaustive()
    }
}
