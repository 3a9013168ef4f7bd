//! Bad messages among a thousand good ones: exactly the bad ones fail.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::Duration;

use futures_util::future::join_all;
use sagabus::codec::BODY_BYTES_MAX;
use sagabus::prelude::*;
use sagabus::store::StoreAdmin;
use sagabus::transport::{Publication, address};
use sagabus::{
    BusError, CodecError, Destination, EndpointName, Envelope, Kind, MessageId, Outgoing, Store,
    StoreError, Transport, headers,
};
use sagabus_testkit::fault_broker::FaultBroker;
use sagabus_testkit::wait::eventually;
use serde::{Deserialize, Serialize};

use crate::databases::{block_on, say};

use super::site::{run, with_postgres, with_sqlite};

const GOOD: usize = 1000;

/// The number of the message whose handler fails with a hostile text.
const FAILS: usize = 1_000_001;
/// The number of the message whose handler sends what no store takes.
const SENDS_BADLY: usize = 1_000_002;
/// The number of the largest body that may be.
const LARGE: usize = 1_000_003;

/// The number of what it sends.
const UNWANTED: usize = 1_000_004;

#[derive(Clone, Serialize, Deserialize)]
struct Work {
    n: usize,
    filling: String,
}

impl Message for Work {
    const TYPE: &'static str = "bad-input.work";
    const KIND: Kind = Kind::Command;
}
impl Command for Work {}

impl Work {
    fn new(n: usize) -> Self {
        let filling = String::new();
        Self { n, filling }
    }

    /// Makes one whose body has exactly this size.
    fn of_size(n: usize, bytes: usize) -> Self {
        let empty = Self::new(n).encode().expect("it can be encoded").len();
        let filling = "x".repeat(bytes - empty);
        Self { n, filling }
    }
}

/// How often each message was handled to its end.
type Seen = Mutex<BTreeMap<usize, usize>>;

async fn work(work: Work, seen: State<Seen>, cx: Ctx) -> Result {
    if work.n == FAILS {
        return Err(HandlerError::new(format!(
            "bad\0text {}",
            "y".repeat(10 * 1024)
        )));
    }
    if work.n == SENDS_BADLY {
        let mut outgoing = Outgoing::new(&Work::new(UNWANTED))?;
        outgoing.key = Some("a\0key".to_owned());
        cx.push(outgoing)?;
        return Ok(());
    }
    let mut seen = seen.lock().expect("nobody panics with it");
    *seen.entry(work.n).or_default() += 1;
    Ok(())
}

/// Makes an envelope that no `Bus` would send.
fn hostile(n: usize, name: &'static str) -> Envelope {
    let mut envelope = Envelope::new(&Work::new(n)).expect("it can be encoded");
    envelope.headers.set(name, "a\0b");
    envelope
}

/// What became of the bad messages, by their identity: a reason, or a word to the sender.
type Fates = BTreeMap<MessageId, &'static str>;

/// Who sends, and how.
struct Sender<'a> {
    bus: Bus,
    broker: &'a FaultBroker,
    /// What has to become of the bad ones that were taken.
    bad: Fates,
    /// How many were refused where they were sent.
    refused: usize,
}

impl Sender<'_> {
    /// Sends bad messages with the good ones, some past every check.
    async fn send_all(&mut self) {
        for n in 0..GOOD {
            match n {
                100 => self.send_large().await,
                200 => self.send_that(FAILS, "attempts_exhausted").await,
                300 => self.send_that(SENDS_BADLY, "refused_by_store").await,
                400 => self.send_refused().await,
                500 => self.send_raw().await,
                600 => self.publish_raw().await,
                _ => {}
            }
            let sent = self.bus.send(Work::new(n)).await;
            sent.expect("a good one is stored");
        }
    }

    async fn send_large(&mut self) {
        let large = self.bus.send(Work::of_size(LARGE, BODY_BYTES_MAX)).await;
        large.expect("exactly 1 MiB is not too much");
        let larger = self
            .bus
            .send(Work::of_size(LARGE, BODY_BYTES_MAX + 1))
            .await;
        let is_told = matches!(larger, Err(BusError::Codec(CodecError::TooLarge { .. })));
        assert!(is_told, "{larger:?}");
        self.refused += 1;
    }

    async fn send_that(&mut self, n: usize, reason: &'static str) {
        let id = self.bus.send(Work::new(n)).await;
        self.bad.insert(id.expect("it is stored"), reason);
    }

    async fn send_refused(&mut self) {
        let header = self.bus.send(Work::new(0)).header("note", "a\0b").await;
        let key = self.bus.send(Work::new(0)).key("a\0b").await;
        for told in [header, key] {
            let is_told = matches!(told, Err(BusError::Codec(CodecError::Headers(_))));
            assert!(is_told, "{told:?}");
            self.refused += 1;
        }
    }

    /// Sends past the checks of the bus.
    async fn send_raw(&mut self) {
        let there = EndpointName::new("work").expect("it is a name");
        let raw = |name| {
            let there = Destination::Endpoint(there.clone());
            Outgoing::from_envelope(hostile(0, name), there)
        };
        let noted = raw("note");
        self.bad.insert(noted.envelope.id, "out_of_bounds");
        let sent = self.bus.send_all(vec![noted]).await;
        sent.expect("headers are bytes to a store");
        // A store may keep a key as text: whoever sent it is told, and nobody else suffers.
        let keyed = raw(headers::KEY);
        let id = keyed.envelope.id;
        match self.bus.send_all(vec![keyed]).await {
            Ok(()) => drop(self.bad.insert(id, "out_of_bounds")),
            Err(BusError::Store(StoreError::Refused(_))) => self.refused += 1,
            other => panic!("{other:?}"),
        }
    }

    /// Lets the broker deliver what no host sent.
    async fn publish_raw(&mut self) {
        let mut no_type = Envelope::new(&Work::new(0)).expect("it can be encoded");
        no_type.message_type = "bad-input.\0work".into();
        let bad = [
            (hostile(0, "note"), "out_of_bounds"),
            (hostile(0, headers::KEY), "out_of_bounds"),
            (no_type, "no_handler"),
        ];
        let transport = self.broker.transport();
        for (envelope, reason) in bad {
            self.bad.insert(envelope.id, reason);
            let publication = Publication {
                address: address(Kind::Command, Work::TYPE),
                key: envelope.headers.get(headers::KEY).map(str::to_owned),
                envelope,
            };
            let answers = transport.publish(&[publication]).await;
            assert!(answers.iter().all(Result::is_ok), "{answers:?}");
        }
    }
}

async fn check<S: Store + StoreAdmin + Clone>(name: &str, store: S) {
    let broker = FaultBroker::start().await;
    let broker = broker.expect("a port can be listened on");
    let host = Host::builder("bad-input")
        .store(store.clone())
        .transport(broker.transport())
        .state(Seen::default())
        .endpoint("work", |e| e.handle(work).retry(Retry::none()));
    let host = host.build().expect("it can be built");
    let seen = host.state::<Seen>().expect("it was given");
    let host = host.start().await.expect("it starts");
    let mut sender = Sender {
        bus: host.bus(),
        broker: &broker,
        bad: Fates::new(),
        refused: 0,
    };
    sender.send_all().await;
    let Sender { bad, refused, .. } = sender;

    let is_over = || async {
        let counts = store.counts().await.expect("rows can be counted");
        let handled: usize = seen.lock().expect("nobody panics with it").values().sum();
        let is_over =
            counts.outbox == 0 && counts.dead_letters >= bad.len() as u64 && handled > GOOD;
        is_over.then_some(())
    };
    eventually("the end of all messages", is_over).await;
    assert!(host.stop(Duration::from_secs(20)).await, "nothing in hand");
    let dead = store.dead_letters(100).await.expect("they can be read");
    let found: Fates = bad.keys().copied().zip(std::iter::repeat("none")).collect();
    let found = dead.iter().fold(found, |mut found, one| {
        let reason = bad.values().find(|reason| **reason == one.reason);
        found.insert(one.envelope.id, reason.copied().unwrap_or("another"));
        found
    });
    let seen = seen.lock().expect("nobody panics with it");
    say(&format!(
        "bad input on {name}: {} good ones handled, {} more than once; {} bad ones are dead letters, \
         {refused} were refused where they were sent\n",
        seen.len(),
        seen.values().filter(|times| **times > 1).count(),
        dead.len(),
    ));
    assert_eq!(found, bad);
    assert_eq!(dead.len(), bad.len());
    let failed = dead.iter().find(|one| one.reason == "attempts_exhausted");
    let error = &failed.expect("it is there").attempts[0].error;
    assert!(error.starts_with("bad\0text y"), "{error:?}");
    assert!(error.len() < 4200, "{} bytes are kept", error.len());
    let expected: BTreeMap<_, _> = (0..GOOD).chain([LARGE]).map(|n| (n, 1)).collect();
    assert_eq!(*seen, expected);
}

/// On one thread all of them wait for the committer before it runs, so that they share a call.
#[test]
fn a_message_that_the_store_refuses_is_the_only_one_of_its_call() {
    const TOGETHER: usize = 40;
    block_on(async {
        let folder = std::env::temp_dir().join(format!("sagabus-refused-{}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("a temporary folder can be made");
        let store = sagabus::SqliteStore::open(folder.join("bus.db")).await;
        let store = store.expect("the file can be made");
        store.migrate().await.expect("it can be migrated");
        let host = Host::builder("refused")
            .store(store)
            .state(Seen::default())
            .endpoint("work", |e| e.handle(work));
        let host = host.build().expect("it can be built");
        let host = host.start().await.expect("it starts");
        for bad in [0, TOGETHER / 2, TOGETHER - 1] {
            let before = host.counters().groups.get();
            let bus = host.bus();
            let sending = (0..TOGETHER).map(|n| {
                let message = Outgoing::new(&Work::new(n)).expect("it can be encoded");
                let key = (n == bad).then(|| "a\0key".to_owned());
                let bus = bus.clone();
                async move { bus.send_all(vec![Outgoing { key, ..message }]).await }
            });
            let answers = join_all(sending).await;
            for (n, answer) in answers.into_iter().enumerate() {
                match answer {
                    Ok(()) => assert_ne!(n, bad),
                    Err(BusError::Store(StoreError::Refused(_))) => assert_eq!(n, bad),
                    other => panic!("{n} of {TOGETHER}, {bad} being bad: {other:?}"),
                }
            }
            let calls = host.counters().groups.get() - before;
            assert!(calls < TOGETHER as u64, "they shared calls: {calls}");
        }
        assert!(host.stop(Duration::from_secs(10)).await);
        std::fs::remove_dir_all(&folder).expect("our own folder can be removed");
    });
}

#[test]
fn among_a_thousand_messages_on_sqlite_exactly_the_bad_ones_fail() {
    run(with_sqlite("bad-input", |store| check("sqlite", store)));
}

#[test]
fn among_a_thousand_messages_on_postgres_exactly_the_bad_ones_fail() {
    run(with_postgres("bad_input", |store| check("postgres", store)));
}
