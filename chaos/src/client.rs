//! The client: places transfers through two doors, and remembers what it was told.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Result;
use sagabus::prelude::Host;
use sagabus::{Bus, BusError, HostBuilder, MessageId, PgStore, RunningHost, SqliteStore};
use sagabus_testkit::transfers::{StartTransfer, cents};
use tokio::sync::watch;

use crate::carrier::Carrier;
use crate::dice::Dice;

/// Between two transfers.
const PACE: Duration = Duration::from_millis(20);
/// After one that was refused: while a disk is full, the next one is refused as well.
const PATIENCE: Duration = Duration::from_millis(300);
/// One in so many messages is sent again under its identity, up to this often.
const FLOODED: u64 = 5;
const COPIES_MAX: u64 = 3;

/// Places a transfer through the transaction of a store: the stores share no type.
macro_rules! with_own_row {
    ($store:expr, $bus:expr, $id:expr, $p1:literal, $p2:literal) => {{
        let place = async {
            let insert = concat!(
                "insert into transfer (id, cents) values (",
                $p1,
                ", ",
                $p2,
                ")"
            );
            let mut tx = $store.begin($bus).await?;
            let query = sqlx::query(insert).bind($id).bind(cents($id));
            let inserted = query.execute(tx.conn().await?).await;
            inserted.map_err(|error| sagabus::StoreError::Unavailable(error.into()))?;
            let message = tx.send(StartTransfer { id: $id })?;
            tx.commit().await?;
            Ok::<_, BusError>(message)
        };
        place.await
    }};
}

/// What became of the attempts.
#[derive(Clone, Debug, Default)]
pub(crate) struct Placed {
    pub(crate) attempts: i64,
    pub(crate) acknowledged: Vec<i64>,
    /// The answer was lost.
    pub(crate) unknown: Vec<i64>,
    /// Refused: nothing of it may be there.
    pub(crate) failed: Vec<i64>,
    /// Identities of what was sent.
    pub(crate) messages: Vec<MessageId>,
    /// Copies under an identity that was sent before.
    pub(crate) copies: u64,
}

/// A store of either kind.
#[derive(Clone)]
enum Store {
    Sqlite(SqliteStore),
    Postgres(PgStore),
}

/// An API without endpoints of its own.
pub(crate) struct Client {
    host: RunningHost,
    bus: Bus,
    store: Store,
}

impl Client {
    pub(crate) async fn start(database: &str, carrier: Option<&Carrier>) -> Result<Self> {
        let builder = Host::builder("api");
        let builder = match carrier {
            Some(carrier) => carrier.connect(builder, "api"),
            None => builder,
        };
        let (builder, store): (HostBuilder, Store) = if database.starts_with("postgres:") {
            let store = PgStore::connect(database).await?;
            (builder.store(store.clone()), Store::Postgres(store))
        } else {
            let store = SqliteStore::open(PathBuf::from(database)).await?;
            (builder.store(store.clone()), Store::Sqlite(store))
        };
        let host = builder.build()?.start().await?;
        let bus = host.bus();
        Ok(Self { host, bus, store })
    }

    /// Places transfers until it is told to stop.
    pub(crate) async fn run(self, seed: u64, mut is_over: watch::Receiver<bool>) -> (Self, Placed) {
        let mut placed = Placed::default();
        let mut dice = Dice::new(seed ^ 0xc11e);
        let mut pause = PACE;
        loop {
            tokio::select! {
                _ = is_over.wait_for(|is_over| *is_over) => return (self, placed),
                () = tokio::time::sleep(pause) => {}
            }
            let refused = placed.failed.len();
            let id = placed.attempts;
            placed.attempts += 1;
            if id % 2 == 0 {
                self.place_with_own_row(id, &mut placed).await;
            } else {
                self.place_by_message(id, &mut placed, &mut dice).await;
            }
            let is_refused = placed.failed.len() > refused;
            pause = if is_refused { PATIENCE } else { PACE };
        }
    }

    pub(crate) fn bus(&self) -> Bus {
        self.bus.clone()
    }

    pub(crate) async fn stop(self) {
        self.host.stop(Duration::from_secs(10)).await;
    }

    /// The row of the transfer and the message commit together, or not.
    async fn place_with_own_row(&self, id: i64, placed: &mut Placed) {
        let result = match &self.store {
            Store::Sqlite(store) => with_own_row!(store, &self.bus, id, "?", "?"),
            Store::Postgres(store) => with_own_row!(store, &self.bus, id, "$1", "$2"),
        };
        match result {
            Ok(message) => {
                placed.acknowledged.push(id);
                placed.messages.push(message);
            }
            Err(BusError::CommitUnknown { message_ids }) => {
                placed.unknown.push(id);
                placed.messages.extend(message_ids);
            }
            Err(_) => placed.failed.push(id),
        }
    }

    /// The message alone, under an identity that makes it safe to send again.
    async fn place_by_message(&self, id: i64, placed: &mut Placed, dice: &mut Dice) {
        let message = MessageId::new();
        let send = || self.bus.send(StartTransfer { id }).with_id(message);
        placed.messages.push(message);
        match send().await {
            Ok(_) => placed.acknowledged.push(id),
            Err(BusError::CommitUnknown { .. }) => placed.unknown.push(id),
            Err(_) => placed.failed.push(id),
        }
        if dice.below(FLOODED) == 0 {
            for _ in 0..=dice.below(COPIES_MAX) {
                // Whatever becomes of it, the one before it is there or is not.
                placed.copies += u64::from(send().await.is_ok());
            }
        }
    }
}
