//! The in-memory broker: the contract's semantics without a network.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use futures_util::future::{self, BoxFuture, FutureExt};
use futures_util::stream::{self, BoxStream, StreamExt};
use tokio::time::Instant;

use super::queue::{Next, Queue};
use crate::codec::BODY_BYTES_MAX;
use crate::endpoint::{EndpointName, Order};
use crate::error::TransportError;
use crate::id::StoreId;
use crate::message::Kind;
use crate::store::EndpointSpec;
use crate::sync::atomic::{AtomicU32, Ordering};
use crate::sync::{Mutex, MutexGuard, Notify, time};
use crate::transport::{
    Capabilities, Deliveries, Delivery, Health, Publication, Settler, Transport, Verdict, address,
};

/// A broker in this process's memory. Clones share it, so that several replicas compete.
///
/// Addresses are `command/<type>`, `event/<type>`, `reply/<type>`, and `endpoint/<name>` for one
/// endpoint directly.
#[derive(Clone)]
pub struct MemoryTransport {
    shared: Arc<Shared>,
}

struct Shared {
    /// Held for short steps and never across an await.
    exchange: Mutex<Exchange>,
    /// Tells subscriptions that they may take something, in the order in which they wait.
    changed: Notify,
}

/// Who gets what.
#[derive(Default)]
struct Exchange {
    bindings: BTreeMap<String, Vec<EndpointName>>,
    owners: BTreeMap<EndpointName, StoreId>,
    queues: BTreeMap<EndpointName, Queue>,
}

impl MemoryTransport {
    /// Makes a broker without endpoints.
    pub fn new() -> Self {
        Self {
            shared: Arc::new(Shared {
                exchange: Mutex::default(),
                changed: Notify::new(),
            }),
        }
    }

    /// Returns how many messages of an endpoint wait, and how many are delivered and not acked.
    pub fn depth(&self, endpoint: &EndpointName) -> (usize, usize) {
        let exchange = self.shared.lock();
        exchange.queues.get(endpoint).map_or((0, 0), Queue::depth)
    }
}

impl Default for MemoryTransport {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for MemoryTransport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryTransport").finish_non_exhaustive()
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Exchange> {
        self.exchange.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn has_changed(&self) {
        self.changed.notify_waiters();
    }

    /// Changes an endpoint's queue and wakes who may take from it now.
    fn change(&self, endpoint: &EndpointName, change: impl FnOnce(&mut Queue)) {
        if let Some(queue) = self.lock().queues.get_mut(endpoint) {
            change(queue);
        }
        self.has_changed();
    }
}

impl Exchange {
    fn declare(&mut self, store: StoreId, spec: &EndpointSpec) -> Result<(), TransportError> {
        let owner = self.owners.get(&spec.name);
        if let Some(owner) = owner.filter(|owner| **owner != store) {
            return Err(owned_by_another(&spec.name, *owner, store));
        }
        for subscription in &spec.subscriptions {
            let address = address(subscription.kind, &subscription.message_type);
            let bound = self.bindings.entry(address).or_default();
            let other = bound.iter().find(|endpoint| **endpoint != spec.name);
            if let (Kind::Command, Some(other)) = (subscription.kind, other) {
                return Err(TransportError::Setup(format!(
                    "command `{}` is taken by endpoint `{other}`; remove the handler there or at `{}`",
                    subscription.message_type, spec.name
                )));
            }
            if !bound.contains(&spec.name) {
                bound.push(spec.name.clone());
            }
        }
        self.owners.insert(spec.name.clone(), store);
        let queue = self.queues.entry(spec.name.clone()).or_default();
        // Never loosened: another replica may rely on the order.
        if spec.order == Order::PerKey {
            queue.order = Order::PerKey;
        }
        Ok(())
    }

    fn publish(&mut self, publication: &Publication) -> Result<(), TransportError> {
        let bytes = publication.envelope.body.len();
        if bytes > BODY_BYTES_MAX {
            return Err(TransportError::Refused(format!(
                "body of {bytes} bytes is larger than {BODY_BYTES_MAX}"
            )));
        }
        let address = publication.address.as_str();
        let direct = address
            .strip_prefix("endpoint/")
            .and_then(|name| EndpointName::new(name).ok())
            .filter(|name| self.queues.contains_key(name));
        let bound = self.bindings.get(address).cloned().unwrap_or_default();
        let receivers: Vec<_> = direct.into_iter().chain(bound).collect();
        if receivers.is_empty() && !address.starts_with("event/") {
            let address = address.to_owned();
            return Err(TransportError::Unroutable { address });
        }
        let is_full = |name: &&EndpointName| self.queues.get(*name).is_some_and(Queue::is_full);
        if let Some(full) = receivers.iter().find(is_full) {
            return Err(TransportError::Refused(format!(
                "endpoint `{full}` has no room for another message"
            )));
        }
        for receiver in receivers {
            let queue = self.queues.entry(receiver).or_default();
            queue.push(&publication.envelope, publication.key.as_deref());
        }
        Ok(())
    }
}

fn owned_by_another(endpoint: &EndpointName, owner: StoreId, store: StoreId) -> TransportError {
    TransportError::Setup(format!(
        "endpoint `{endpoint}` is owned by store {owner}, and this host's store is {store}; give \
         the endpoint another name, or connect the host to the store that owns it"
    ))
}

impl Transport for MemoryTransport {
    fn capabilities(&self) -> Capabilities {
        Capabilities {
            broker: "memory",
            reports_unroutable: true,
            ordered_publish: true,
            counts_redeliveries: true,
            deliveries: Deliveries::Unlimited,
            acks_each: true,
            order: Order::PerKey,
            body_bytes_max: BODY_BYTES_MAX,
        }
    }

    fn declare<'a>(
        &'a self,
        store: StoreId,
        endpoints: &'a [EndpointSpec],
    ) -> BoxFuture<'a, Result<(), TransportError>> {
        let mut exchange = self.shared.lock();
        let mut each = endpoints.iter();
        let declared = each.try_for_each(|spec| exchange.declare(store, spec));
        future::ready(declared).boxed()
    }

    fn publish<'a>(
        &'a self,
        window: &'a [Publication],
    ) -> BoxFuture<'a, Vec<Result<(), TransportError>>> {
        let mut exchange = self.shared.lock();
        let answers = window.iter().map(|one| exchange.publish(one)).collect();
        drop(exchange);
        self.shared.has_changed();
        future::ready(answers).boxed()
    }

    fn subscribe<'a>(
        &'a self,
        endpoint: &'a EndpointSpec,
        prefetch: u32,
    ) -> BoxFuture<'a, Result<BoxStream<'static, Delivery>, TransportError>> {
        let name = &endpoint.name;
        if !self.shared.lock().queues.contains_key(name) {
            let fact = format!("endpoint `{name}` is not declared; declare it before subscribing");
            return future::ready(Err(TransportError::Setup(fact))).boxed();
        }
        let subscription = Subscription {
            shared: Arc::clone(&self.shared),
            endpoint: name.clone(),
            in_hand: Arc::default(),
            prefetch: prefetch.max(1),
        };
        let deliveries = stream::unfold(subscription, |mut subscription| async move {
            let delivery = subscription.next().await?;
            Some((delivery, subscription))
        });
        future::ready(Ok(deliveries.boxed())).boxed()
    }

    fn health(&self) -> Health {
        Health::Connected
    }
}

/// One replica receiving for an endpoint.
struct Subscription {
    shared: Arc<Shared>,
    endpoint: EndpointName,
    in_hand: Arc<AtomicU32>,
    prefetch: u32,
}

impl Subscription {
    /// Waits for a message and takes it, unless as many as may be are in hand already.
    async fn next(&mut self) -> Option<Delivery> {
        /// Nothing to wait for but a change.
        const LONG: Duration = Duration::from_secs(3600);
        let shared = Arc::clone(&self.shared);
        loop {
            // Made before the look: a change after it is not missed.
            let changed = shared.changed.notified();
            let wake_at = match self.take() {
                Next::Message(number, held) => {
                    let settler = MemorySettler {
                        shared: Arc::clone(&self.shared),
                        endpoint: self.endpoint.clone(),
                        number,
                        in_hand: Arc::clone(&self.in_hand),
                        is_settled: false,
                    };
                    self.in_hand.fetch_add(1, Ordering::Relaxed);
                    return Some(Delivery::new(
                        self.endpoint.clone(),
                        held.envelope,
                        held.redeliveries,
                        Box::new(settler),
                    ));
                }
                Next::At(at) => at,
                Next::Nothing => Instant::now() + LONG,
            };
            tokio::select! {
                biased;
                () = changed => {}
                () = time::sleep_until(wake_at) => {}
            }
        }
    }

    fn take(&self) -> Next {
        if self.in_hand.load(Ordering::Relaxed) >= self.prefetch {
            return Next::Nothing;
        }
        let mut exchange = self.shared.lock();
        match exchange.queues.get_mut(&self.endpoint) {
            Some(queue) => queue.take(Instant::now()),
            None => Next::Nothing,
        }
    }
}

/// Answers one delivery; dropped unused, it gives the message back.
struct MemorySettler {
    shared: Arc<Shared>,
    endpoint: EndpointName,
    number: u64,
    in_hand: Arc<AtomicU32>,
    is_settled: bool,
}

impl MemorySettler {
    fn finish(&mut self, settle: impl FnOnce(&mut Queue, u64)) {
        self.is_settled = true;
        self.in_hand.fetch_sub(1, Ordering::Relaxed);
        let number = self.number;
        self.shared
            .change(&self.endpoint, |queue| settle(queue, number));
    }
}

impl Settler for MemorySettler {
    fn settle(mut self: Box<Self>, verdict: Verdict) -> BoxFuture<'static, ()> {
        match verdict {
            Verdict::Ack => self.finish(Queue::ack),
            Verdict::RetryAfter(delay) => {
                let ready_at = Instant::now() + delay;
                self.finish(|queue, number| queue.give_back(number, Some(ready_at)));
            }
        }
        future::ready(()).boxed()
    }
}

impl Drop for MemorySettler {
    fn drop(&mut self) {
        if !self.is_settled {
            self.finish(|queue, number| queue.give_back(number, None));
        }
    }
}
