//! A broker whose windows are torn, whose confirms and acks are lost, and which delivers twice, late
//! and in another order. Without faults it is the in-memory broker.

use std::hash::{Hash, Hasher};
use std::sync::Arc;

use futures_util::future::BoxFuture;
use futures_util::stream::{self, BoxStream, StreamExt};
use sagabus_core::endpoint::Order;
use sagabus_core::id::StoreId;
use sagabus_core::memory::MemoryTransport;
use sagabus_core::store::EndpointSpec;
use sagabus_core::transport::{Publication, Settler, Verdict};
use sagabus_core::{Capabilities, Delivery, Health, Message, MessageId, Transport, TransportError};
use sagabus_model::{Held, Published};
use tokio::time::sleep;

use crate::fault::Fault;
use crate::guard::Guard;
use crate::link::Link;
use crate::messages::StartTransfer;
use crate::seen::{Answer, Seen};

type Confirm = Result<(), TransportError>;

/// One host's way to the broker.
#[derive(Clone, Debug)]
pub(crate) struct SimBroker {
    memory: MemoryTransport,
    link: Arc<Link>,
}

impl SimBroker {
    pub(crate) fn new(memory: &MemoryTransport, link: &Arc<Link>) -> Self {
        Self {
            memory: memory.clone(),
            link: Arc::clone(link),
        }
    }

    /// Brings one message to the broker.
    async fn bring(&self, one: &Publication) -> Confirm {
        let world = &self.link.world;
        if world.happens(Fault::Nacked, 5) {
            return Err(TransportError::Refused("simulated".to_owned()));
        }
        let mut one = one.clone();
        if world.is_off(Guard::Identity) {
            one.envelope.id = MessageId::new();
        }
        self.note_published(&one);
        let taken = self.memory.publish(std::slice::from_ref(&one)).await;
        if world.happens(Fault::Duplicated, 20) {
            self.memory.publish(std::slice::from_ref(&one)).await;
        }
        taken.into_iter().next().unwrap_or(Ok(()))
    }

    fn see(&self, one: &Publication, is_taken: bool, is_lost: bool) {
        let how = match (is_taken, is_lost) {
            (true, false) => Published::Confirmed,
            (true, true) => Published::Unheard,
            (false, _) => Published::Refused,
        };
        self.link.world.see(Seen::Published {
            process: self.link.name.clone(),
            id: one.envelope.id,
            how,
        });
    }

    /// Every publication of a message has its identity, headers and bytes.
    fn note_published(&self, one: &Publication) {
        // Its keys are fixed: the same in every run.
        #[expect(deprecated, reason = "the newer one is seeded by chance")]
        let mut hasher = std::hash::SipHasher::new();
        one.envelope.body.hash(&mut hasher);
        // What the client sends again is another row, with an hour of its own.
        if one.envelope.message_type != StartTransfer::TYPE {
            format!("{:?}", one.envelope.headers).hash(&mut hasher);
        }
        let (id, sum) = (one.envelope.id, hasher.finish());
        let mut inner = self.link.world.lock();
        let known = *inner.published.entry(id).or_insert(sum);
        if known != sum {
            let wrong = format!("message {id} was published with other bytes");
            inner.wrongs.push(wrong);
        }
        drop(inner);
        let (name, address) = (&self.link.name, &one.address);
        self.link
            .world
            .note(format_args!("{name} publishes {id} to {address}"));
    }

    async fn publish_window(&self, window: &[Publication]) -> Vec<Confirm> {
        let world = &self.link.world;
        self.link.pass().await;
        if world.below(2) == 0 {
            sleep(world.millis(1, 5)).await;
            self.link.pass().await;
        }
        let lost = || Err(TransportError::Unknown("simulated".into()));
        if world.happens(Fault::BrokerAway, 20) {
            let away = |_: &Publication| match world.is_off(Guard::Confirm) {
                true => Ok(()),
                false => Err(TransportError::Unavailable("simulated".into())),
            };
            window.iter().for_each(|one| self.see(one, false, true));
            return window.iter().map(away).collect();
        }
        let is_torn = world.happens(Fault::WindowTorn, 20);
        let taken = match is_torn {
            true => usize::try_from(world.below(window.len() as u64 + 1)).unwrap_or_default(),
            false => window.len(),
        };
        let are_lost = !is_torn && world.happens(Fault::ConfirmsLost, 20);
        let stalls = world.happens(Fault::WindowStalled, 20);
        let mut confirms = Vec::with_capacity(window.len());
        for (at, one) in window.iter().enumerate() {
            if stalls && at == window.len() / 2 {
                sleep(world.millis(1000, 2300)).await;
                self.link.pass().await;
            }
            let confirm = match at < taken {
                true => self.bring(one).await,
                false => lost(),
            };
            self.see(one, at < taken && confirm.is_ok(), are_lost);
            confirms.push(if are_lost { lost() } else { confirm });
        }
        if world.below(2) == 0 {
            sleep(world.millis(1, 5)).await;
        }
        self.link.pass().await;
        confirms
    }
}

impl Transport for SimBroker {
    fn capabilities(&self) -> Capabilities {
        self.memory.capabilities()
    }

    fn declare<'a>(
        &'a self,
        store: StoreId,
        endpoints: &'a [EndpointSpec],
    ) -> BoxFuture<'a, Result<(), TransportError>> {
        Box::pin(async move {
            self.link.pass().await;
            self.memory.declare(store, endpoints).await
        })
    }

    fn publish<'a>(&'a self, window: &'a [Publication]) -> BoxFuture<'a, Vec<Confirm>> {
        Box::pin(self.publish_window(window))
    }

    fn subscribe<'a>(
        &'a self,
        endpoint: &'a EndpointSpec,
        prefetch: u32,
    ) -> BoxFuture<'a, Result<BoxStream<'static, Delivery>, TransportError>> {
        Box::pin(async move {
            self.link.pass().await;
            let deliveries = self.memory.subscribe(endpoint, prefetch).await?;
            let subscription = Subscription {
                link: Arc::clone(&self.link),
                deliveries,
                order: endpoint.order,
            };
            let stream = stream::unfold(subscription, |mut subscription| async move {
                let delivery = subscription.next().await?;
                Some((delivery, subscription))
            });
            Ok(stream.boxed())
        })
    }

    fn health(&self) -> Health {
        self.memory.health()
    }
}

struct Subscription {
    link: Arc<Link>,
    deliveries: BoxStream<'static, Delivery>,
    order: Order,
}

impl Subscription {
    async fn next(&mut self) -> Option<Delivery> {
        let world = Arc::clone(&self.link.world);
        loop {
            self.link.pass().await;
            let delivery = self.deliveries.next().await?;
            if self.link.is_dead() {
                drop(delivery);
                continue;
            }
            let is_free = self.order == Order::Unordered;
            if is_free && world.happens(Fault::Reordered, 30) {
                delivery.retry_after(world.millis(1, 60)).await;
                continue;
            }
            return Some(wrap(&self.link, delivery).await);
        }
    }
}

/// Hands a delivery to a host, in one of the ways in which that goes wrong.
async fn wrap(link: &Arc<Link>, delivery: Delivery) -> Delivery {
    let world = &link.world;
    let (endpoint, envelope) = (delivery.endpoint.clone(), delivery.envelope.clone());
    let redeliveries = delivery.redeliveries;
    let (name, id) = (&link.name, envelope.id);
    world.note(format_args!("{name} gets {id} at {endpoint}"));
    let held = world.number();
    world.see(Seen::Got {
        process: name.clone(),
        held,
        endpoint: endpoint.clone(),
        id,
    });
    let number = if world.is_off(Guard::AckLast) {
        delivery.ack().await;
        world.see(answered(link, held, Answer::Acked));
        0
    } else if world.happens(Fault::Redelivered, 20) {
        drop(delivery);
        0
    } else {
        link.hold(delivery)
    };
    let link = Arc::clone(link);
    let settler = SimSettler {
        link,
        number,
        held: Some(held),
    };
    Delivery::new(endpoint, envelope, redeliveries, Box::new(settler))
}

/// Answers one delivery. Where the connection was lost since, the answer reaches nobody.
struct SimSettler {
    link: Arc<Link>,
    number: u64,
    /// Until it is answered for.
    held: Option<Held>,
}

fn answered(link: &Link, held: Held, how: Answer) -> Seen {
    let process = link.name.clone();
    Seen::Answered { process, held, how }
}

impl SimSettler {
    fn see(&mut self, how: Answer) {
        if let Some(held) = self.held.take() {
            self.link.world.see(answered(&self.link, held, how));
        }
    }
}

impl Settler for SimSettler {
    fn settle(mut self: Box<Self>, verdict: Verdict) -> BoxFuture<'static, ()> {
        Box::pin(async move {
            self.link.pass().await;
            let delivery = self.link.take(self.number);
            let is_lost = delivery.is_some() && self.link.world.happens(Fault::AckLost, 15);
            let delivery = delivery.filter(|_| !is_lost);
            self.see(match (verdict, &delivery) {
                (Verdict::Ack, Some(_)) => Answer::Acked,
                (Verdict::Ack, None) => Answer::AckedUnheard,
                (Verdict::RetryAfter(_), _) => Answer::GivenBack,
            });
            let Some(delivery) = delivery else {
                return;
            };
            match verdict {
                Verdict::Ack => delivery.ack().await,
                Verdict::RetryAfter(delay) => delivery.retry_after(delay).await,
            }
        })
    }
}

impl Drop for SimSettler {
    /// Unused, it gives its message back.
    fn drop(&mut self) {
        self.see(Answer::GivenBack);
        drop(self.link.take(self.number));
    }
}
