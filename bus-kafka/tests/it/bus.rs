//! A host over Kafka: the same handlers, the same guarantees.

use std::time::Duration;

use sagabus_core::memory::MemoryStore;
use sagabus_core::store::StoreAdmin;
use sagabus_core::transport::address;
use sagabus_core::{
    Event, HandlerError, Host, HostBuilder, Kind, Message, Result, Retry, State, StoreId, Transport,
};
use sagabus_kafka::{Kafka, KafkaConfig};
use sagabus_testkit::bus::parcels::{Pack, Packed, counted, note, quiet};
use sagabus_testkit::bus::{Log, quick_retry, start, stop};
use sagabus_testkit::service::block_on;
use sagabus_testkit::wait::{eventually, grow_older};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use crate::cluster::{brokers, kafka, own};
use crate::refused::publication;

/// Starts to build a host over a store in memory and Kafka.
pub(crate) fn builder(config: &KafkaConfig, store: &MemoryStore, log: &Log) -> HostBuilder {
    Host::builder("host")
        .store(store.clone())
        .transport(kafka(config))
        .lease(Duration::from_millis(600))
        .state(log.clone())
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
    let Some(brokers) = brokers() else { return };
    block_on(async {
        let (mut config, store, log) = (own(&brokers), MemoryStore::new(), Log::default());
        // One partition: what blocks one message would block all.
        config.topics.partitions = Some(1);
        let builder = builder(&config, &store, &log);
        let retry = Retry {
            delay: Duration::from_millis(300),
            delay_max: Duration::from_millis(600),
            ..quick_retry()
        };
        let endpoint = |e: sagabus_core::EndpointBuilder| e.handle(stumble).retry(retry);
        let host = start(builder.endpoint("packing", endpoint)).await;
        for n in 0..100 {
            host.bus().send(Pack { n }).await.unwrap();
        }
        log.wait_for(90).await;
        let dead = || async {
            (store
                .counts()
                .await
                .expect("rows can be counted")
                .dead_letters
                == 10)
                .then_some(())
        };
        eventually("ten dead letters", dead).await;
        quiet(&store).await;
        stop(host).await;
        assert_eq!(log.lines().len(), 90);
    });
}

#[test]
fn a_handler_slower_than_the_poll_interval_keeps_its_partitions() {
    async fn slow(command: Pack, log: State<Log>) {
        grow_older(Duration::from_secs(10)).await;
        log.add(format!("pack {}", command.n));
    }
    let Some(brokers) = brokers() else { return };
    block_on(async {
        let (mut config, store, log) = (own(&brokers), MemoryStore::new(), Log::default());
        config.poll_interval_max = Duration::from_secs(6);
        let builder = builder(&config, &store, &log);
        let host = start(builder.endpoint("packing", |e| e.handle(slow))).await;
        let started = Instant::now();
        host.bus().send(Pack { n: 1 }).await.unwrap();
        assert_eq!(log.wait_for(1).await, ["pack 1"]);
        assert!(
            started.elapsed() > config.poll_interval_max,
            "it was slow enough"
        );
        host.bus().send(Pack { n: 2 }).await.unwrap();
        log.wait_for(2).await;
        quiet(&store).await;
        // A member that had been thrown out would have had its delivery again.
        assert_eq!(counted(&host, "duplicates"), 0);
        assert_eq!(counted(&host, "received"), 2);
        stop(host).await;
        assert_eq!(log.lines(), ["pack 1", "pack 2"]);
    });
}

#[test]
fn types_of_one_family_share_a_topic_and_what_nobody_takes_is_passed_over() {
    async fn hear(event: Packed, log: State<Log>) {
        log.add(format!("packed {}", event.n));
    }
    let Some(brokers) = brokers() else { return };
    block_on(async {
        let (mut config, store, log) = (own(&brokers), MemoryStore::new(), Log::default());
        config.topics.families = vec![("parcels.".to_owned(), "parcels".to_owned())];
        let transport = kafka(&config);
        let host = Host::builder("host")
            .store(store.clone())
            .transport(transport.clone())
            .state(log.clone())
            .endpoint("audit", |e| e.handle(hear));
        let host = start(host).await;
        for n in 0..20 {
            host.bus().publish(Lost { n }).await.unwrap();
            host.bus().publish(Packed { n }).await.unwrap();
        }
        log.wait_for(20).await;
        quiet(&store).await;
        let look = || async { (transport.passed_over() == 20).then_some(()) };
        eventually("twenty records that were passed over", look).await;
        stop(host).await;
        assert_eq!(
            store
                .counts()
                .await
                .expect("rows can be counted")
                .dead_letters,
            0
        );
    });
}

#[derive(Serialize, Deserialize)]
struct Lost {
    n: u32,
}

impl Message for Lost {
    const TYPE: &'static str = "parcels.lost";
    const KIND: Kind = Kind::Event;
}
impl Event for Lost {}

/// What is acked is committed before the host has stopped: the next one gets nothing again.
#[test]
fn a_host_that_stops_in_order_leaves_nothing_to_do_again() {
    let Some(brokers) = brokers() else { return };
    block_on(async {
        let (config, store, log) = (own(&brokers), MemoryStore::new(), Log::default());
        let endpoint = |e: sagabus_core::EndpointBuilder| e.handle(note);
        let first = start(builder(&config, &store, &log).endpoint("audit", endpoint)).await;
        for n in 0..200 {
            first.bus().publish(Packed { n }).await.unwrap();
        }
        log.wait_for(200).await;
        quiet(&store).await;
        stop(first).await;
        let stopped = Instant::now();
        let second = start(builder(&config, &store, &log).endpoint("audit", endpoint)).await;
        second.bus().publish(Packed { n: 999 }).await.unwrap();
        let lines = log.wait_for(201).await;
        assert!(lines.contains(&"packed 999".to_owned()));
        assert!(
            stopped.elapsed() < config.session,
            "the partitions were free at once"
        );
        let (received, duplicates) = (counted(&second, "received"), counted(&second, "duplicates"));
        stop(second).await;
        assert_eq!((received, duplicates), (1, 0));
    });
}

/// A producer without an identity sends nothing for half a second, and asks for it half a second
/// after it was made: it is made when a host starts, not when there is something to send.
#[test]
fn the_first_message_of_a_host_that_runs_goes_out_at_once() {
    const SLOW: Duration = Duration::from_millis(400);
    let Some(brokers) = brokers() else { return };
    block_on(async {
        let config = own(&brokers);
        let publish = async |kafka: &Kafka| {
            let address = address(Kind::Event, "shop.placed");
            let started = Instant::now();
            let answers = kafka
                .publish(&[publication(address, Kind::Event, 10)])
                .await;
            assert!(answers.iter().all(Result::is_ok), "{answers:?}");
            started.elapsed()
        };
        // Makes the topic.
        publish(&kafka(&config)).await;
        let mut fastest = Duration::MAX;
        // A busy machine may be slow now and then; a producer made too late is slow each time.
        for _ in 0..5 {
            let kafka = kafka(&config);
            let declared = kafka.declare(StoreId::new(), &[]).await;
            declared.expect("there is nothing to declare");
            grow_older(Duration::from_secs(1)).await;
            fastest = fastest.min(publish(&kafka).await);
            if fastest < SLOW {
                return;
            }
        }
        panic!("the fastest took {fastest:?}");
    });
}
