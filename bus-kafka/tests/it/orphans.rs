//! A partition that a group left to nobody.

use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::client::ClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext, Rebalance};
use sagabus_core::memory::MemoryStore;
use sagabus_core::{RunningHost, State};
use sagabus_kafka::KafkaConfig;
use sagabus_testkit::bus::parcels::Pack;
use sagabus_testkit::bus::{Log, start, stop};
use sagabus_testkit::service::block_on;

use crate::bus::builder;
use crate::cluster::{brokers, own};

/// How long a group may take to be divided.
const DIVIDED_WITHIN: Duration = Duration::from_secs(60);

/// A replica that hears that it is to let partitions go, and is never heard of again.
struct Vanishing {
    has_all: Receiver<()>,
    lets_go: Receiver<()>,
    is_over: Option<SyncSender<()>>,
    thread: Option<JoinHandle<()>>,
}

struct Hears {
    has_all: SyncSender<()>,
    lets_go: SyncSender<()>,
    is_over: Receiver<()>,
}

// A receiver is used by the thread that polls alone.
struct Alone(std::sync::Mutex<Hears>);

impl ClientContext for Alone {}

impl ConsumerContext for Alone {
    fn pre_rebalance(&self, _: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        let hears = self.0.lock().expect("nobody panics in here");
        match rebalance {
            Rebalance::Assign(list) if list.count() > 0 => {
                hears.has_all.send(()).expect("the test waits for it");
            }
            Rebalance::Revoke(_) => {
                hears.lets_go.send(()).expect("the test waits for it");
                // Until the test drops its end.
                let _ = hears.is_over.recv();
            }
            Rebalance::Assign(_) | Rebalance::Error(_) => {}
        }
    }
}

impl Vanishing {
    fn join(config: &KafkaConfig, instance: &str, topics: &[String], group: &str) -> Self {
        let ((all, has_all), (go, lets_go)) = (sync_channel(8), sync_channel(8));
        let (over, is_over) = sync_channel(1);
        let hears = Hears {
            has_all: all,
            lets_go: go,
            is_over,
        };
        let mut settings = ClientConfig::new();
        settings
            .set("bootstrap.servers", &config.brokers)
            .set("group.id", group)
            .set("group.instance.id", instance)
            .set("partition.assignment.strategy", "cooperative-sticky")
            .set("enable.auto.commit", "false")
            .set("auto.offset.reset", "earliest")
            .set("session.timeout.ms", "3000")
            .set("heartbeat.interval.ms", "300");
        let context = Alone(std::sync::Mutex::new(hears));
        let client: BaseConsumer<Alone> = settings
            .create_with_context(context)
            .expect("a client can be made");
        let topics: Vec<&str> = topics.iter().map(String::as_str).collect();
        client.subscribe(&topics).expect("topics can be subscribed");
        let thread = std::thread::spawn(move || {
            // Whoever takes its name ends it.
            while !matches!(client.poll(Duration::from_millis(50)), Some(Err(_))) {}
        });
        Self {
            has_all,
            lets_go,
            is_over: Some(over),
            thread: Some(thread),
        }
    }
}

impl Drop for Vanishing {
    fn drop(&mut self) {
        drop(self.is_over.take());
        if let Some(thread) = self.thread.take() {
            let ended = thread.join();
            assert!(
                ended.is_ok() || std::thread::panicking(),
                "it does not panic"
            );
        }
    }
}

async fn pack(command: Pack, log: State<Log>) {
    log.add(format!("pack {}", command.n));
}

async fn host(config: &KafkaConfig, store: &MemoryStore, log: &Log, name: &str) -> RunningHost {
    let config = KafkaConfig {
        instance: (!name.is_empty()).then(|| name.to_owned()),
        ..config.clone()
    };
    start(builder(&config, store, log).endpoint("packing", |e| e.handle(pack))).await
}

#[test]
fn a_partition_that_was_on_its_way_when_its_replica_died_is_handled_again() {
    let Some(brokers) = brokers() else { return };
    block_on(async {
        let (store, log) = (MemoryStore::new(), Log::default());
        let mut config = own(&brokers);
        config.hand_over = Duration::from_millis(500);
        config.session = Duration::from_secs(3);
        // Makes the topics, and leaves the group.
        stop(host(&config, &store, &log, "").await).await;
        let names = ["parcels.pack.command", "packing.endpoint"];
        let topics = names.map(|name| format!("{}{name}", config.prefix));
        let group = format!("{}packing", config.prefix);

        let vanishing = Vanishing::join(&config, "one", &topics, &group);
        let has_all = vanishing.has_all.recv_timeout(DIVIDED_WITHIN);
        has_all.expect("it is alone in the group");
        let two = host(&config, &store, &log, "two").await;
        let lets_go = vanishing.lets_go.recv_timeout(DIVIDED_WITHIN);
        lets_go.expect("two replicas share the partitions");
        // It comes back under its name, with what it had left, and knows of nothing else.
        let one = host(&config, &store, &log, "one").await;
        for n in 0..100 {
            one.bus().send(Pack { n }).await.expect("it is stored");
        }
        let mut lines = log.wait_for(100).await;
        lines.sort();
        lines.dedup();
        assert_eq!(lines.len(), 100);
        stop(one).await;
        stop(two).await;
        drop(vanishing);
    });
}
