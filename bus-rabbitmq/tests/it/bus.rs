//! A host over RabbitMQ: the same handlers, the same guarantees.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use sagabus_core::error::chain;
use sagabus_core::memory::MemoryStore;
use sagabus_core::store::StoreAdmin;
use sagabus_core::{
    Command, Event, HandlerError, Health, Host, HostBuilder, Kind, Message, Order, Result,
    RunningHost, State,
};
use sagabus_rabbitmq::RabbitMqConfig;
use sagabus_testkit::bus::{Log, quick_retry, start, stop};
use sagabus_testkit::service::block_on;
use sagabus_testkit::wait::eventually;
use serde::{Deserialize, Serialize};

use crate::site::{config, rabbitmq, url};

macro_rules! message {
    ($name:ident $type:literal $kind:ident) => {
        #[derive(Clone, Debug, Serialize, Deserialize)]
        pub(crate) struct $name {
            pub(crate) n: u32,
        }

        impl Message for $name {
            const TYPE: &'static str = $type;
            const KIND: Kind = Kind::$kind;

            fn message_key(&self) -> Option<String> {
                Some((self.n % 7).to_string())
            }
        }
    };
}

message!(Pack "parcels.pack" Command);
impl Command for Pack {}
message!(Ask "parcels.ask" Command);
impl Command for Ask {}
message!(Packed "parcels.packed" Event);
impl Event for Packed {}
message!(Answered "parcels.answered" Reply);

/// Starts to build a host over a store in memory and RabbitMQ.
pub(crate) fn builder(config: &RabbitMqConfig, store: &MemoryStore, log: &Log) -> HostBuilder {
    Host::builder("host")
        .store(store.clone())
        .transport(rabbitmq(config))
        .lease(Duration::from_millis(900))
        .state(log.clone())
}

/// Waits until no row waits or is in hand.
pub(crate) async fn quiet(store: &MemoryStore) {
    let counts = || async { store.counts().await.expect("rows can be counted") };
    let look = || async { (counts().await.outbox == 0).then_some(()) };
    eventually("an empty outbox", look).await;
}

pub(crate) async fn pack(command: Pack, log: State<Log>) -> Packed {
    log.add(format!("pack {}", command.n));
    Packed { n: command.n }
}

pub(crate) async fn note(event: Packed, log: State<Log>) {
    log.add(format!("packed {}", event.n));
}

async fn send(host: &RunningHost, numbers: std::ops::Range<u32>) {
    for n in numbers {
        let sent = host.bus().send(Pack { n }).await;
        sent.expect("it is stored");
    }
}

#[test]
fn a_command_is_handled_once_and_its_event_reaches_every_endpoint() {
    let Some(url) = url() else { return };
    block_on(async {
        let (config, store, log) = (config(&url), MemoryStore::new(), Log::default());
        let builder = builder(&config, &store, &log).endpoint("packing", |e| e.handle(pack));
        let builder = builder.endpoint("audit", |e| e.handle(note));
        let host = start(builder.endpoint("mail", |e| e.handle(note))).await;
        send(&host, 0..300).await;
        let lines = log.wait_for(900).await;
        quiet(&store).await;
        assert_eq!(host.transport_health(), Some(Health::Connected));
        stop(host).await;
        let distinct: BTreeSet<_> = lines.iter().collect();
        assert_eq!((lines.len(), distinct.len()), (900, 600));
        assert_eq!(store.counts().await.unwrap().dead_letters, 0);
    });
}

#[test]
fn an_answer_comes_back_to_the_endpoint_that_asked() {
    async fn ask(command: Pack) -> Ask {
        Ask { n: command.n }
    }
    async fn answer(question: Ask) -> Answered {
        Answered { n: question.n * 2 }
    }
    async fn hear(answer: Answered, log: State<Log>) {
        log.add(format!("answer {}", answer.n));
    }
    let Some(url) = url() else { return };
    block_on(async {
        let (config, log) = (config(&url), Log::default());
        // Two databases, as two services have them.
        let (ours, theirs) = (MemoryStore::new(), MemoryStore::new());
        let asking = builder(&config, &ours, &log);
        let asking = start(asking.endpoint("asking", |e| e.handle(ask).handle(hear))).await;
        let answering = builder(&config, &theirs, &log);
        let answering = start(answering.endpoint("answering", |e| e.handle(answer))).await;
        send(&asking, 21..22).await;
        assert_eq!(log.wait_for(1).await, ["answer 42"]);
        stop(asking).await;
        stop(answering).await;
    });
}

#[test]
fn a_failing_message_holds_up_nobody_and_is_a_dead_letter_in_the_end() {
    async fn stumble(command: Pack, log: State<Log>) -> Result {
        if command.n % 10 == 3 {
            return Err(HandlerError::new(format!("no box for {}", command.n)));
        }
        log.add(format!("pack {}", command.n));
        Ok(())
    }
    let Some(url) = url() else { return };
    block_on(async {
        let (config, store, log) = (config(&url), MemoryStore::new(), Log::default());
        let builder = builder(&config, &store, &log);
        let host = builder.endpoint("packing", |e| e.handle(stumble).retry(quick_retry()));
        let host = start(host).await;
        send(&host, 0..100).await;
        let lines = log.wait_for(90).await;
        quiet(&store).await;
        stop(host).await;
        assert_eq!(lines.len(), 90);
        assert_eq!(store.counts().await.unwrap().dead_letters, 10);
    });
}

#[test]
fn messages_of_a_key_are_handled_in_order_by_hosts_that_come_and_go() {
    let Some(url) = url() else { return };
    block_on(async {
        let (config, store, log) = (config(&url), MemoryStore::new(), Log::default());
        let host = || {
            let builder = builder(&config, &store, &log);
            start(builder.endpoint("packing", |e| e.handle(pack).order(Order::PerKey)))
        };
        let (first, second) = (host().await, host().await);
        send(&first, 0..200).await;
        log.wait_for(60).await;
        // What it has in hand is finished; the rest goes to the other one.
        stop(first).await;
        send(&second, 200..400).await;
        let lines = log.wait_for(400).await;
        quiet(&store).await;
        stop(second).await;
        let mut keys: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
        for line in lines {
            let n: u32 = line.trim_start_matches("pack ").parse().unwrap();
            keys.entry(n % 7).or_default().push(n);
        }
        assert_eq!(keys.values().map(Vec::len).sum::<usize>(), 400);
        for (key, numbers) in keys {
            assert!(numbers.is_sorted(), "key {key}: {numbers:?}");
        }
    });
}

#[test]
fn a_host_of_another_store_is_refused_before_it_receives() {
    let Some(url) = url() else { return };
    block_on(async {
        let (config, log) = (config(&url), Log::default());
        let store = MemoryStore::new();
        let ours = builder(&config, &store, &log);
        let ours = start(ours.endpoint("packing", |e| e.handle(pack))).await;
        let other = builder(&config, &MemoryStore::new(), &log);
        let other = other.endpoint("packing", |e| e.handle(pack)).build();
        let refused = other.unwrap().start().await.expect_err("it is another's");
        let refused = chain(&refused);
        assert!(refused.contains("`packing` is owned by store"), "{refused}");
        send(&ours, 0..1).await;
        assert_eq!(log.wait_for(1).await, ["pack 0"]);
        stop(ours).await;
    });
}
