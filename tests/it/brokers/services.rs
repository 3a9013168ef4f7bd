//! Services with databases of their own, that know each other by a broker alone.

use std::collections::BTreeMap;
use std::time::Duration;

use sagabus::{Host, HostBuilder, Order, RunningHost, State};
use sagabus_core::error::chain;
use sagabus_core::memory::MemoryStore;
use sagabus_testkit::bus::parcels::{Answered, Ask, Pack, pack, quiet};
use sagabus_testkit::bus::{Log, start, stop};
use sagabus_testkit::service::block_on;

use super::{Broker, Way};

/// Runs it over each broker that is there.
fn over_both(check: impl AsyncFn(Broker)) {
    block_on(async {
        if let Some(broker) = Broker::rabbitmq().await {
            check(broker).await;
        }
        if let Some(broker) = Broker::kafka().await {
            check(broker).await;
        }
    });
}

fn builder(broker: &Broker, store: &MemoryStore, log: &Log) -> HostBuilder {
    let builder = Host::builder("host")
        .store(store.clone())
        .lease(Duration::from_millis(900))
        .state(log.clone());
    (broker.reach)(builder, Way::Direct)
}

async fn send(host: &RunningHost, numbers: std::ops::Range<u32>) {
    for n in numbers {
        let sent = host.bus().send(Pack { n }).await;
        sent.expect("it is stored");
    }
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
    over_both(async |broker| {
        let log = Log::default();
        let (ours, theirs) = (MemoryStore::new(), MemoryStore::new());
        let asking = builder(&broker, &ours, &log);
        let asking = start(asking.endpoint("asking", |e| e.handle(ask).handle(hear))).await;
        let answering = builder(&broker, &theirs, &log);
        let answering = start(answering.endpoint("answering", |e| e.handle(answer))).await;
        send(&asking, 21..22).await;
        assert_eq!(log.wait_for(1).await, ["answer 42"], "{}", broker.name);
        stop(asking).await;
        stop(answering).await;
    });
}

#[test]
fn messages_of_a_key_are_handled_in_order_by_hosts_that_come_and_go() {
    over_both(async |broker| {
        let (store, log) = (MemoryStore::new(), Log::default());
        let host = || {
            let builder = builder(&broker, &store, &log);
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
            let name = broker.name;
            assert!(numbers.is_sorted(), "{name}, key {key}: {numbers:?}");
        }
    });
}

#[test]
fn a_host_of_another_store_is_refused_before_it_receives() {
    over_both(async |broker| {
        let (store, log) = (MemoryStore::new(), Log::default());
        let ours = builder(&broker, &store, &log);
        let ours = start(ours.endpoint("packing", |e| e.handle(pack))).await;
        let other = builder(&broker, &MemoryStore::new(), &log);
        let other = other.endpoint("packing", |e| e.handle(pack)).build();
        let refused = other.unwrap().start().await.expect_err("it is another's");
        let refused = chain(&refused);
        assert!(refused.contains("`packing` is owned by store"), "{refused}");
        send(&ours, 0..1).await;
        assert_eq!(log.wait_for(1).await, ["pack 0"]);
        stop(ours).await;
    });
}
