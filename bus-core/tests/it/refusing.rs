//! A host beside an address that takes nothing: what that costs, and what comes after it. Its pauses
//! last for seconds, so time is stopped.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use futures_util::future::{BoxFuture, FutureExt};
use sagabus_core::memory::{MemoryStore, MemoryTransport};
use sagabus_core::transport::{Publication, Transport};
use sagabus_core::{Event, Host, Kind, Message, MessageId, Outgoing, RunningHost, TransportError};
use sagabus_testkit::transport::{Alteration, Altered};
use tokio::time::{Instant, sleep};

/// Messages that wait for the address that refuses them: more than a relay has in hand.
const WAITING: u32 = 3_000;

/// By then the relay has found out that the address refuses everything.
const NOTICED: Duration = Duration::from_secs(1);

#[derive(serde::Serialize, serde::Deserialize)]
struct Printed {
    n: u32,
}

impl Message for Printed {
    const TYPE: &'static str = "refusing.printed";
    const KIND: Kind = Kind::Event;
}
impl Event for Printed {}

#[derive(serde::Serialize, serde::Deserialize)]
struct Mailed {
    n: u32,
}

impl Message for Mailed {
    const TYPE: &'static str = "refusing.mailed";
    const KIND: Kind = Kind::Event;
}
impl Event for Mailed {}

/// A broker one of whose addresses is full.
#[derive(Clone, Debug, Default)]
struct Full {
    broker: MemoryTransport,
    has_room: Arc<AtomicBool>,
    seen: Arc<Mutex<Seen>>,
}

#[derive(Debug, Default)]
struct Seen {
    /// Rows for the full address, window by window.
    tries: Vec<usize>,
    taken: HashMap<MessageId, Instant>,
}

impl Full {
    /// Forgets the tries so far, and returns them.
    fn tries(&self) -> Vec<usize> {
        std::mem::take(&mut self.lock().tries)
    }

    fn taken(&self) -> usize {
        self.lock().taken.len()
    }

    fn taken_at(&self, id: MessageId) -> Option<Instant> {
        self.lock().taken.get(&id).copied()
    }

    fn lock(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().expect("nobody panics while it is held")
    }
}

impl Alteration for Full {
    fn transport(&self) -> &dyn Transport {
        &self.broker
    }

    fn publish<'a>(
        &'a self,
        window: &'a [Publication],
    ) -> BoxFuture<'a, Vec<Result<(), TransportError>>> {
        let mut seen = self.lock();
        let is_for_full = |one: &&Publication| &*one.envelope.message_type == Printed::TYPE;
        let tries = window.iter().filter(is_for_full).count();
        seen.tries.extend((tries > 0).then_some(tries));
        let has_room = self.has_room.load(Ordering::SeqCst);
        let answer = |one: &Publication| {
            if is_for_full(&one) && !has_room {
                return Err(TransportError::Refused("the queue is full".to_owned()));
            }
            let before = seen.taken.insert(one.envelope.id, Instant::now());
            assert!(before.is_none(), "{} was sent twice", one.envelope.id);
            Ok(())
        };
        let answers = window.iter().map(answer).collect();
        std::future::ready(answers).boxed()
    }
}

/// Starts a host that has much to send to the address that refuses.
async fn host_beside(full: &Full) -> RunningHost {
    let host = Host::builder("refusing")
        .store(MemoryStore::new())
        .transport(Altered(full.clone()));
    let host = host.build().expect("it is put together well").start().await;
    let host = host.expect("it starts");
    let waiting = (0..WAITING).map(|n| Outgoing::new(&Printed { n }).expect("it is encoded"));
    let waiting = host.bus().send_all(waiting.collect()).await;
    waiting.expect("it is stored");
    host
}

async fn stop(host: RunningHost) {
    assert!(host.stop(Duration::from_secs(10)).await, "it stops");
}

#[tokio::test(start_paused = true)]
async fn an_address_that_refuses_is_tried_with_one_row_and_others_are_served() {
    let full = Full::default();
    let host = host_beside(&full).await;
    sleep(NOTICED).await;
    assert!(full.tries().iter().sum::<usize>() <= 1_000, "two windows");
    let counters = host.counters();
    let (claimed, failures) = (counters.claimed.get(), counters.publish_failures.get());
    let mut sent = Vec::new();
    for n in 0..600 {
        let id = host.bus().publish(Mailed { n }).await;
        sent.push((id.expect("it is stored"), Instant::now()));
        sleep(Duration::from_millis(100)).await;
    }
    for (id, at) in sent {
        let taken = full.taken_at(id).expect("it was sent");
        assert!(taken - at < Duration::from_millis(300), "{:?}", taken - at);
    }
    let tries = full.tries();
    // A pause is five seconds, shortened by up to a half; the look behind it is every 200 ms.
    assert!((11..=24).contains(&tries.len()), "{tries:?}");
    assert!(tries.iter().all(|rows| *rows == 1), "{tries:?}");
    let probes = tries.len() as u64;
    assert_eq!(counters.publish_failures.get() - failures, probes);
    assert!(counters.claimed.get() - claimed <= probes, "nothing else");
    stop(host).await;
}

#[tokio::test(start_paused = true)]
async fn an_address_that_takes_its_probe_gets_more_each_time_until_it_has_all() {
    let full = Full::default();
    let host = host_beside(&full).await;
    sleep(NOTICED).await;
    assert!(full.tries().iter().sum::<usize>() <= 1_000, "two windows");
    full.has_room.store(true, Ordering::SeqCst);
    let began = Instant::now();
    while full.taken() < WAITING as usize {
        assert!(began.elapsed() < Duration::from_secs(7), "{}", full.taken());
        sleep(Duration::from_millis(10)).await;
    }
    let tries = full.tries();
    assert_eq!(tries[..3], [1, 8, 64]);
    assert!(tries[3..].contains(&500), "{tries:?}");
    stop(host).await;
}
