//! A source of deliveries that is never the limit: in this process, as fast as acks allow. The
//! bare programs take from it directly, ours through the contract of a broker.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::future::{self, BoxFuture, FutureExt};
use futures_util::stream::{self, BoxStream, StreamExt};
use sagabus_core::store::EndpointSpec;
use sagabus_core::transport::{Deliveries, Publication, Settler, Verdict};
use sagabus_core::{
    Capabilities, Delivery, Envelope, Health, MessageId, Order, StoreId, Transport, TransportError,
};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use uuid::Uuid;

/// A message as a broker's driver hands it out.
#[derive(Clone, Debug)]
pub(crate) struct Raw {
    pub(crate) id: Uuid,
    pub(crate) message_type: &'static str,
    pub(crate) headers: Vec<(&'static str, String)>,
    pub(crate) body: Bytes,
}

/// Makes the n-th message.
pub(crate) type Make = Arc<dyn Fn(u64) -> Raw + Send + Sync>;

/// Delivers numbered messages, at most so many at once, and counts what becomes of them.
pub(crate) struct Source {
    make: Make,
    window: Arc<Semaphore>,
    fed: Mutex<Fed>,
    is_timed: bool,
    has_more: Notify,
    counts: Counts,
}

#[derive(Debug, Default)]
struct Fed {
    next: u64,
    end: u64,
    is_closed: bool,
}

/// What became of the messages.
#[derive(Debug, Default)]
struct Counts {
    acked: AtomicU64,
    returned: AtomicU64,
    published: AtomicU64,
    awaited: AtomicU64,
    /// From delivery to ack, in the order of the acks.
    took: Mutex<Vec<Duration>>,
    is_reached: Notify,
}

impl Source {
    /// Makes a source with `window` messages on the way at most.
    pub(crate) fn new(
        window: usize,
        make: impl Fn(u64) -> Raw + Send + Sync + 'static,
    ) -> Arc<Self> {
        Arc::new(Self::made(window, Arc::new(make), true))
    }

    /// Makes one that does not keep how long each message took: it never grows.
    pub(crate) fn forgetting(
        window: usize,
        make: impl Fn(u64) -> Raw + Send + Sync + 'static,
    ) -> Arc<Self> {
        Arc::new(Self::made(window, Arc::new(make), false))
    }

    fn made(window: usize, make: Make, is_timed: bool) -> Self {
        Self {
            make,
            window: Arc::new(Semaphore::new(window)),
            fed: Mutex::default(),
            is_timed,
            has_more: Notify::new(),
            counts: Counts::default(),
        }
    }

    /// Delivers `n` more messages and waits until all are acked. Returns how long that took;
    /// `None` when it takes longer than `patience`.
    pub(crate) async fn feed(&self, n: u64, patience: Duration) -> Option<Duration> {
        let started = Instant::now();
        self.offer(n);
        let all = async {
            while self.acked() < self.counts.awaited.load(Ordering::SeqCst) {
                self.counts.is_reached.notified().await;
            }
        };
        tokio::time::timeout(patience, all).await.ok()?;
        Some(started.elapsed())
    }

    /// Delivers `n` more messages and waits for nothing.
    pub(crate) fn offer(&self, n: u64) {
        {
            let mut fed = self.lock();
            fed.end += n;
            self.counts.awaited.store(fed.end, Ordering::SeqCst);
        }
        self.has_more.notify_waiters();
    }

    /// Ends the deliveries: whoever waits for the next gets none.
    pub(crate) fn close(&self) {
        self.lock().is_closed = true;
        self.has_more.notify_waiters();
    }

    /// Takes the next message.
    pub(crate) async fn next(self: &Arc<Self>) -> Option<(Raw, Ticket)> {
        let permit = Arc::clone(&self.window).acquire_owned().await.ok()?;
        let n = loop {
            let more = self.has_more.notified();
            match self.take() {
                Taken::Message(n) => break n,
                Taken::Closed => return None,
                Taken::Nothing => more.await,
            }
        };
        let ticket = Ticket {
            source: Arc::clone(self),
            is_acked: false,
            started: Instant::now(),
            _permit: permit,
        };
        Some(((self.make)(n), ticket))
    }

    /// Takes messages for a broker that is told about them: the window of a publisher.
    pub(crate) fn publish(&self, n: usize) {
        let n = u64::try_from(n).unwrap_or_default();
        self.counts.published.fetch_add(n, Ordering::Relaxed);
    }

    pub(crate) fn acked(&self) -> u64 {
        self.counts.acked.load(Ordering::SeqCst)
    }

    /// How many came back without an ack: none, in a run that counts.
    pub(crate) fn returned(&self) -> u64 {
        self.counts.returned.load(Ordering::SeqCst)
    }

    pub(crate) fn published(&self) -> u64 {
        self.counts.published.load(Ordering::SeqCst)
    }

    /// How long each acked message took.
    pub(crate) fn took(&self) -> Vec<Duration> {
        lock(&self.counts.took).clone()
    }

    fn take(&self) -> Taken {
        let mut fed = self.lock();
        if fed.next < fed.end {
            fed.next += 1;
            return Taken::Message(fed.next - 1);
        }
        if fed.is_closed {
            Taken::Closed
        } else {
            Taken::Nothing
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Fed> {
        lock(&self.fed)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    // Held for single steps: what it guards is whole.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

enum Taken {
    Message(u64),
    Nothing,
    Closed,
}

/// The duty to ack one message.
pub(crate) struct Ticket {
    source: Arc<Source>,
    is_acked: bool,
    started: Instant,
    _permit: OwnedSemaphorePermit,
}

impl Ticket {
    /// Tells the source that the message is done.
    pub(crate) fn ack(mut self) {
        self.is_acked = true;
        let counts = &self.source.counts;
        if self.source.is_timed {
            lock(&counts.took).push(self.started.elapsed());
        }
        let acked = counts.acked.fetch_add(1, Ordering::SeqCst) + 1;
        if acked >= counts.awaited.load(Ordering::SeqCst) {
            counts.is_reached.notify_one();
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if !self.is_acked {
            self.source.counts.returned.fetch_add(1, Ordering::SeqCst);
        }
    }
}

impl Settler for Ticket {
    fn settle(self: Box<Self>, verdict: Verdict) -> BoxFuture<'static, ()> {
        match verdict {
            Verdict::Ack => self.ack(),
            Verdict::RetryAfter(_) => drop(self),
        }
        future::ready(()).boxed()
    }
}

/// The source as a broker: it delivers, and takes whatever is published.
#[derive(Clone)]
pub(crate) struct Synthetic(pub(crate) Arc<Source>);

impl fmt::Debug for Synthetic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Synthetic").finish_non_exhaustive()
    }
}

impl Transport for Synthetic {
    fn capabilities(&self) -> Capabilities {
        Capabilities {
            broker: "synthetic",
            reports_unroutable: true,
            ordered_publish: true,
            counts_redeliveries: true,
            deliveries: Deliveries::Unlimited,
            acks_each: true,
            order: Order::Unordered,
            body_bytes_max: 1024 * 1024,
        }
    }

    fn declare<'a>(
        &'a self,
        _: StoreId,
        _: &'a [EndpointSpec],
    ) -> BoxFuture<'a, Result<(), TransportError>> {
        future::ready(Ok(())).boxed()
    }

    fn publish<'a>(
        &'a self,
        window: &'a [Publication],
    ) -> BoxFuture<'a, Vec<Result<(), TransportError>>> {
        self.0.publish(window.len());
        future::ready(window.iter().map(|_| Ok(())).collect()).boxed()
    }

    fn subscribe<'a>(
        &'a self,
        endpoint: &'a EndpointSpec,
        _prefetch: u32,
    ) -> BoxFuture<'a, Result<BoxStream<'static, Delivery>, TransportError>> {
        let start = (Arc::clone(&self.0), endpoint.name.clone());
        let deliveries = stream::unfold(start, |(source, name)| async move {
            let (raw, ticket) = source.next().await?;
            let delivery = Delivery::new(name.clone(), envelope(raw), 0, Box::new(ticket));
            Some((delivery, (source, name)))
        });
        future::ready(Ok(deliveries.boxed())).boxed()
    }

    fn health(&self) -> Health {
        Health::Connected
    }
}

/// Makes what a transport makes of a driver's message.
pub(crate) fn envelope(raw: Raw) -> Envelope {
    Envelope {
        id: MessageId::from_uuid(raw.id),
        message_type: raw.message_type.into(),
        headers: raw.headers.into_iter().collect(),
        body: raw.body,
    }
}
