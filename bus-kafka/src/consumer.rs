//! Deliveries of one endpoint: the stream that the host takes them from, and how each is settled.
//! The polling is on a thread of its own (`member.rs`), so a slow handler never leaves the group.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::future::{self, BoxFuture};
use futures_util::stream::{self, BoxStream, StreamExt};
use sagabus_core::endpoint::EndpointName;
use sagabus_core::error::TransportError;
use sagabus_core::store::EndpointSpec;
use sagabus_core::transport::{Delivery, Settler, Verdict};
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use crate::connection::{Connection, Leaving};
use crate::member::{self, Membership};
use crate::queue::{Next, Queue};
use crate::topology::{self, Reads};

/// How long a subscription waits for its first partitions. A replica that joins others gets them
/// after two heartbeats of theirs; one more than there are partitions gets none, and is a spare.
const JOIN_WAIT: Duration = Duration::from_secs(5);

/// What the stream, the settlers and the thread share.
pub(crate) struct Shared {
    pub(crate) endpoint: EndpointName,
    queue: Mutex<Queue>,
    /// Wakes the stream.
    arrived: Notify,
    pub(crate) bell: Bell,
}

impl Shared {
    pub(crate) fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells the stream that there may be something to take.
    pub(crate) fn arrived(&self) {
        self.arrived.notify_one();
    }

    /// Tells stream and thread that something in hand is settled.
    fn settled(&self) {
        self.arrived.notify_one();
        if !self.make_room() {
            self.bell.ring_if_awaited();
        }
    }

    /// Asks for more when there is room again.
    fn make_room(&self) -> bool {
        let has_room = self.queue().has_room_again();
        if has_room {
            self.bell.ring();
        }
        has_room
    }
}

/// Wakes the thread.
#[derive(Default)]
pub(crate) struct Bell {
    state: Mutex<BellState>,
    rung: Condvar,
}

#[derive(Default)]
struct BellState {
    has_rung: bool,
    /// The thread waits for deliveries in hand, so every settle is worth a ring.
    is_awaiting: bool,
    has_stopped: bool,
    leaving: Option<Leaving>,
}

impl Bell {
    fn lock(&self) -> MutexGuard<'_, BellState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn ring(&self) {
        self.lock().has_rung = true;
        self.rung.notify_one();
    }

    fn ring_if_awaited(&self) {
        let mut state = self.lock();
        if state.is_awaiting {
            state.has_rung = true;
            self.rung.notify_one();
        }
    }

    /// Waits for a ring, at most so long. Blocks.
    pub(crate) fn wait(&self, patience: Duration) {
        let state = self.lock();
        let is_quiet = |state: &mut BellState| !state.has_rung;
        let waited = self.rung.wait_timeout_while(state, patience, is_quiet);
        let (mut state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        state.has_rung = false;
    }

    pub(crate) fn await_settles(&self, is_awaiting: bool) {
        self.lock().is_awaiting = is_awaiting;
    }

    /// Tells the thread to finish; it keeps `leaving` until it has.
    fn stop(&self, leaving: Leaving) {
        let mut state = self.lock();
        state.has_stopped = true;
        state.leaving = Some(leaving);
        drop(state);
        self.ring();
    }

    /// Says that the thread has finished.
    pub(crate) fn finished(&self) {
        self.lock().leaving = None;
    }

    pub(crate) fn has_stopped(&self) -> bool {
        self.lock().has_stopped
    }
}

/// Starts to receive for an endpoint.
pub(crate) async fn subscribe(
    connection: &Connection,
    spec: &EndpointSpec,
    prefetch: u32,
) -> Result<BoxStream<'static, Delivery>, TransportError> {
    let config = connection.config();
    let reads = Reads::of(config, spec);
    let topics: Vec<String> = reads.topics.keys().cloned().collect();
    let name = spec.name.clone();
    let cluster = connection
        .blocking(move |connection| {
            let cluster = connection.cluster()?;
            for topic in topics {
                if topology::look_up(connection, &topic)?.is_none() {
                    return Err(TransportError::Setup(format!(
                        "endpoint `{name}` cannot receive: its topic `{topic}` is missing; declare \
                         the endpoint first, or create the topic [SB0224]"
                    )));
                }
            }
            Ok(cluster)
        })
        .await?;
    let shared = Arc::new(Shared {
        endpoint: spec.name.clone(),
        queue: Mutex::new(Queue::new(spec.order, prefetch)),
        arrived: Notify::new(),
        bell: Bell::default(),
    });
    // From here on the thread ends when this is dropped.
    let subscription = Subscription {
        shared: Arc::clone(&shared),
        connection: connection.clone(),
    };
    let (membership, joined) = watch::channel(Membership::Joining);
    let group = topology::group(config, &spec.name);
    member::start(connection, shared, reads, group, cluster, membership)?;
    wait_until_joined(joined).await?;
    let deliveries = stream::unfold(subscription, |subscription| async move {
        let delivery = subscription.next().await;
        Some((delivery, subscription))
    });
    Ok(deliveries.boxed())
}

async fn wait_until_joined(mut joined: watch::Receiver<Membership>) -> Result<(), TransportError> {
    let settled = joined.wait_for(|membership| !matches!(membership, Membership::Joining));
    match tokio::time::timeout(JOIN_WAIT, settled).await {
        Ok(Ok(membership)) => match &*membership {
            Membership::Refused(text) => Err(TransportError::Setup(text.clone())),
            Membership::Joining | Membership::Joined => Ok(()),
        },
        // A spare, or a group that takes its time.
        Ok(Err(_)) | Err(_) => Ok(()),
    }
}

/// The host's end of a subscription.
struct Subscription {
    shared: Arc<Shared>,
    connection: Connection,
}

impl Subscription {
    /// Waits for a message and takes it.
    async fn next(&self) -> Delivery {
        /// Nothing to wait for but an arrival.
        const LONG: Duration = Duration::from_secs(3600);
        loop {
            let next = self.shared.queue().take(Instant::now());
            let wake_at = match next {
                Next::Message(number, envelope, redeliveries) => {
                    self.shared.make_room();
                    let settler = KafkaSettler {
                        shared: Arc::clone(&self.shared),
                        number: Some(number),
                    };
                    let endpoint = self.shared.endpoint.clone();
                    return Delivery::new(endpoint, envelope, redeliveries, Box::new(settler));
                }
                Next::At(at) => at,
                Next::Nothing => Instant::now() + LONG,
            };
            tokio::select! {
                () = self.shared.arrived.notified() => {}
                () = tokio::time::sleep_until(wake_at) => {}
            }
        }
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.shared.bell.stop(self.connection.leaving());
    }
}

/// Answers one delivery; dropped unused, it gives the message back.
struct KafkaSettler {
    shared: Arc<Shared>,
    /// `None` once it has answered.
    number: Option<u64>,
}

impl KafkaSettler {
    fn settle(&mut self, verdict: Option<Verdict>) {
        let Some(number) = self.number.take() else {
            return;
        };
        let mut queue = self.shared.queue();
        match verdict {
            Some(Verdict::Ack) => queue.ack(number),
            Some(Verdict::RetryAfter(delay)) => {
                queue.give_back(number, Some(Instant::now() + delay));
            }
            None => queue.give_back(number, None),
        }
        drop(queue);
        self.shared.settled();
    }
}

impl Settler for KafkaSettler {
    fn settle(mut self: Box<Self>, verdict: Verdict) -> BoxFuture<'static, ()> {
        Self::settle(&mut self, Some(verdict));
        Box::pin(future::ready(()))
    }
}

impl Drop for KafkaSettler {
    fn drop(&mut self) {
        Self::settle(self, None);
    }
}
