//! A host beside an address that takes nothing, or not one of its rows: what that costs, and what
//! comes after it. Its pauses last for seconds, so time is stopped.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use futures_util::future::{BoxFuture, FutureExt};
use sagabus_core::admin::{
    Action, Change, Page, RowFilter, RowState, RowVerb, StoreAdmin, StoredRow,
};
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

/// What is said of a message for this address.
type Refusal = fn(String) -> TransportError;

/// A broker that does not take one of the messages, and says why.
#[derive(Clone, Debug)]
struct Picky {
    broker: MemoryTransport,
    has_no: Refusal,
    /// Numbers of messages, as often as they were sent.
    sent: Arc<Mutex<Vec<u32>>>,
    is_cured: Arc<AtomicBool>,
}

/// The number of the message that it does not take.
const BAD: u32 = 2;

impl Alteration for Picky {
    fn transport(&self) -> &dyn Transport {
        &self.broker
    }

    fn publish<'a>(
        &'a self,
        window: &'a [Publication],
    ) -> BoxFuture<'a, Vec<Result<(), TransportError>>> {
        let answer = |one: &Publication| {
            let printed = Printed::decode(&one.envelope.body).expect("nothing else is sent");
            let mut sent = self.sent.lock().expect("nobody panics while it is held");
            sent.push(printed.n);
            match printed.n == BAD && !self.is_cured.load(Ordering::SeqCst) {
                true => Err((self.has_no)(one.address.clone())),
                false => Ok(()),
            }
        };
        std::future::ready(window.iter().map(answer).collect()).boxed()
    }
}

async fn parked(store: &MemoryStore) -> Vec<StoredRow> {
    let parked = RowFilter {
        state: Some(RowState::Parked),
        ..RowFilter::default()
    };
    let rows = store.rows(&parked, Page::oldest(10)).await;
    rows.expect("rows are shown")
}

/// With all that the broker said, and the others are gone by then; an operator lets it be tried again.
#[tokio::test(start_paused = true)]
async fn a_row_that_is_refused_every_time_is_parked_and_keeps_nobody_back() {
    let refused = |_| TransportError::Refused("too long".to_owned());
    let unroutable = |address| TransportError::Unroutable { address };
    let ways: [(Refusal, _, _); 2] = [
        (refused, 5, "too long"),
        (unroutable, 12, "event/refusing.printed"),
    ];
    for (has_no, tries, word) in ways {
        let picky = Picky {
            broker: MemoryTransport::new(),
            has_no,
            sent: Arc::default(),
            is_cured: Arc::default(),
        };
        let store = MemoryStore::new();
        let host = Host::builder("picky")
            .store(store.clone())
            .transport(Altered(picky.clone()));
        let host = host.build().expect("it is put together well").start().await;
        let host = host.expect("it starts");
        for n in 0..10 {
            let sent = host.bus().publish(Printed { n }).await;
            sent.expect("it is stored");
        }
        let began = Instant::now();
        while parked(&store).await.is_empty() {
            assert!(
                began.elapsed() < Duration::from_secs(900),
                "it is tried for ever"
            );
            sleep(Duration::from_millis(100)).await;
        }
        let row = parked(&store).await.remove(0);
        assert_eq!(row.parked.as_deref(), Some("unroutable"));
        let errors: Vec<_> = row.attempts.iter().map(|one| one.error.clone()).collect();
        assert_eq!(errors.len(), tries, "{errors:?}");
        assert!(errors.iter().all(|one| one.contains(word)), "{errors:?}");
        assert_eq!(host.counters().parked.get(), 1);
        let often = |wanted: u32| {
            let sent = picky.sent.lock().expect("nobody panics while it is held");
            sent.iter().filter(|n| **n == wanted).count()
        };
        let all: Vec<_> = (0..10).map(often).collect();
        let expected: Vec<_> = (0..10).map(|n| if n == BAD { tries } else { 1 }).collect();
        assert_eq!(all, expected);

        picky.is_cured.store(true, Ordering::SeqCst);
        let release = Change {
            who: "ada".to_owned(),
            why: "the broker takes it now".to_owned(),
            action: Action::ChangeRows {
                ids: vec![row.id],
                verb: RowVerb::Release,
            },
        };
        let released = store.change(&release).await;
        assert_eq!(released.expect("the store answers"), [row.id]);
        while store.counts().await.expect("rows are counted").outbox > 0 {
            sleep(Duration::from_millis(100)).await;
        }
        assert_eq!(often(BAD), tries + 1);
        stop(host).await;
    }
}
