//! The way into an endpoint or the publisher: a bounded number of places, each taken by one
//! message from its claim (or its birth) until it is settled.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, TryAcquireError, mpsc};

use crate::endpoint::EndpointName;
use crate::store::{ClaimedRow, Place};
use crate::sync::atomic::{AtomicBool, Ordering};
use crate::sync::{Mutex, MutexGuard, Notify, time};
use crate::transport::Delivery;
use crate::transports::TransportName;
use crate::unit_of_work::RowKey;

/// Between two looks for what still comes in when nothing more is let in.
const LAST_PACE: Duration = Duration::from_millis(5);

/// A message that came in, with the place that it takes until it is settled.
#[derive(Debug)]
pub(crate) struct Work {
    /// The message.
    pub(crate) arrival: Arrival,
    /// Given back when this is dropped.
    pub(crate) place: OwnedSemaphorePermit,
}

/// How a message came in.
#[derive(Debug)]
pub(crate) enum Arrival {
    /// As a row of this database.
    Row(Box<ClaimedRow>),
    /// From a broker.
    Delivery(Delivery),
}

/// The entrance of one endpoint, or of the publisher.
#[derive(Clone, Debug)]
pub(crate) struct Intake {
    places: Arc<Semaphore>,
    capacity: usize,
    // Unbounded, because every message in it holds one of `capacity` places.
    queue: mpsc::UnboundedSender<Work>,
}

impl Intake {
    /// Makes an entrance with this many places.
    pub(crate) fn new(capacity: usize) -> (Self, mpsc::UnboundedReceiver<Work>) {
        let (queue, works) = mpsc::unbounded_channel();
        (
            Self {
                places: Arc::new(Semaphore::new(capacity)),
                capacity,
                queue,
            },
            works,
        )
    }

    /// Takes a place for a message that is still to come; `None` when all are taken.
    pub(crate) fn reserve(&self) -> Option<Slot> {
        let place = Arc::clone(&self.places).try_acquire_owned().ok()?;
        Some(Slot {
            place,
            queue: self.queue.clone(),
        })
    }

    /// Takes `n` places at once, or as many as are free.
    pub(crate) fn reserve_up_to(&self, n: usize) -> Room {
        let mut n = n;
        let places = loop {
            n = n.min(self.free());
            let wanted = u32::try_from(n).unwrap_or(u32::MAX);
            match Arc::clone(&self.places).try_acquire_many_owned(wanted) {
                Ok(places) => break Some(places),
                // Somebody was faster: there are fewer now.
                Err(TryAcquireError::NoPermits) => {}
                Err(TryAcquireError::Closed) => break None,
            }
        };
        Room {
            left: if places.is_some() { n } else { 0 },
            places,
            queue: self.queue.clone(),
        }
    }

    /// Waits for a place; `None` once the entrance is closed.
    pub(crate) async fn reserve_one(&self) -> Option<Slot> {
        let place = Arc::clone(&self.places).acquire_owned().await.ok()?;
        Some(Slot {
            place,
            queue: self.queue.clone(),
        })
    }

    /// Returns how many places are free.
    pub(crate) fn free(&self) -> usize {
        self.places.available_permits()
    }

    /// Returns how many places there are.
    pub(crate) fn capacity(&self) -> usize {
        self.capacity
    }

    /// Lets nobody in any more.
    pub(crate) fn close(&self) {
        self.places.close();
    }

    /// Returns the next of those who had a place when the entrance was closed; `None` once every
    /// place was given back.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub(crate) async fn last(&self, works: &mut mpsc::UnboundedReceiver<Work>) -> Option<Work> {
        loop {
            // Looked at first: what a place was taken for comes before it is given back.
            let are_free = self.free() >= self.capacity;
            match works.try_recv() {
                Ok(work) => return Some(work),
                Err(_) if are_free => return None,
                Err(_) => time::sleep(LAST_PACE).await,
            }
        }
    }
}

/// Places that wait for their messages; those that are left are given back when this is dropped.
#[derive(Debug)]
pub(crate) struct Room {
    places: Option<OwnedSemaphorePermit>,
    left: usize,
    queue: mpsc::UnboundedSender<Work>,
}

impl Room {
    /// Returns how many places are left.
    pub(crate) fn len(&self) -> usize {
        self.left
    }

    /// Says whether no place is left.
    pub(crate) fn is_empty(&self) -> bool {
        self.left == 0
    }

    /// Takes one of the places; `None` when none is left.
    pub(crate) fn take(&mut self) -> Option<Slot> {
        let place = self.places.as_mut()?.split(1)?;
        self.left -= 1;
        Some(Slot {
            place,
            queue: self.queue.clone(),
        })
    }
}

/// A place that waits for its message.
#[derive(Debug)]
pub(crate) struct Slot {
    place: OwnedSemaphorePermit,
    queue: mpsc::UnboundedSender<Work>,
}

impl Slot {
    /// Lets a row in, and holds it. After the endpoint has stopped the row is dropped: it comes
    /// back when its lease ends.
    pub(crate) fn fill(self, row: ClaimedRow, in_hand: &InHand) {
        let key = row.row;
        in_hand.hold(key);
        let work = Work {
            arrival: Arrival::Row(Box::new(row)),
            place: self.place,
        };
        if self.queue.send(work).is_err() {
            in_hand.let_go(key);
        }
    }

    /// Lets a delivery in. After the endpoint has stopped it is dropped, which is a redelivery.
    pub(crate) fn fill_delivery(self, delivery: Delivery) {
        let work = Work {
            arrival: Arrival::Delivery(delivery),
            place: self.place,
        };
        let _ = self.queue.send(work); // Said above.
    }
}

/// All entrances of a host. Filled once, when the host has attached to its store.
#[derive(Debug, Default)]
pub(crate) struct Intakes {
    endpoints: OnceLock<HashMap<EndpointName, Intake>>,
    publishers: OnceLock<Vec<Publisher>>,
}

/// The entrance of one transport's publisher.
#[derive(Clone, Debug)]
pub(crate) struct Publisher {
    pub(crate) name: TransportName,
    pub(crate) intake: Intake,
    is_down: Arc<AtomicBool>,
}

impl Publisher {
    /// Makes the entrance of a transport's publisher.
    pub(crate) fn new(name: TransportName, intake: Intake) -> Self {
        Self {
            name,
            intake,
            is_down: Arc::default(),
        }
    }

    /// Notes whether the broker takes messages: rows for it are born leased only while it does.
    pub(crate) fn set_health(&self, is_healthy: bool) {
        self.is_down.store(!is_healthy, Ordering::Relaxed);
    }

    fn reserve(&self) -> Option<Slot> {
        if self.is_down.load(Ordering::Relaxed) {
            return None;
        }
        self.intake.reserve()
    }
}

impl Intakes {
    /// Opens the endpoints' entrances.
    pub(crate) fn open(&self, endpoints: HashMap<EndpointName, Intake>) {
        let _ = self.endpoints.set(endpoints); // A host starts once.
    }

    /// Opens the publishers' entrances.
    pub(crate) fn open_publishers(&self, publishers: Vec<Publisher>) {
        let _ = self.publishers.set(publishers); // A host starts once.
    }

    /// Takes a place where a new row would go on in this process; `None` when it is not for us, or
    /// there is no room.
    pub(crate) fn reserve(&self, place: &Place) -> Option<Slot> {
        match place {
            Place::Endpoint(target) => self.endpoints.get()?.get(&target.name)?.reserve(),
            Place::Address { address, .. } => {
                let mut publishers = self.publishers.get()?.iter();
                publishers.find(|one| one.name.carries(address))?.reserve()
            }
            Place::Nowhere => None,
        }
    }
}

/// The rows that this host holds, so that their leases can be extended.
#[derive(Debug, Default)]
pub(crate) struct InHand {
    rows: Mutex<HashMap<i64, i32>>,
    /// Tells the claimer that places became free.
    pub(crate) freed: Notify,
}

impl InHand {
    /// Notes that a row is ours.
    pub(crate) fn hold(&self, row: RowKey) {
        self.lock().insert(row.id, row.epoch);
    }

    /// Notes that a row is no longer ours.
    pub(crate) fn let_go(&self, row: RowKey) {
        let mut rows = self.lock();
        // A later claim of the same row by this host keeps its own entry.
        if rows.get(&row.id) == Some(&row.epoch) {
            rows.remove(&row.id);
        }
    }

    /// Lists what is held.
    pub(crate) fn rows(&self) -> Vec<RowKey> {
        self.lock()
            .iter()
            .map(|(&id, &epoch)| RowKey { id, epoch })
            .collect()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<i64, i32>> {
        self.rows.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
