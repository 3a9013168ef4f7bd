//! Replicas that keep their names over restarts.

use std::time::Duration;

use sagabus_core::memory::MemoryStore;
use sagabus_core::{RunningHost, State};
use sagabus_kafka::KafkaConfig;
use sagabus_testkit::bus::parcels::{Pack, quiet};
use sagabus_testkit::bus::{Log, start, stop};
use sagabus_testkit::service::block_on;
use sagabus_testkit::wait::{PATIENCE, grow_older};
use tokio::time::Instant;

use crate::bus::builder;
use crate::cluster::{brokers, own};

/// Which replica a handler runs in.
struct At(&'static str);

async fn pack(command: Pack, at: State<At>, log: State<Log>) {
    log.add(format!("{} {}", at.0.0, command.n));
}

async fn replica(
    config: &KafkaConfig,
    store: &MemoryStore,
    log: &Log,
    name: &'static str,
) -> RunningHost {
    let config = KafkaConfig {
        instance: Some(name.to_owned()),
        ..config.clone()
    };
    let builder = builder(&config, store, log).state(At(name));
    start(builder.endpoint("packing", |e| e.handle(pack))).await
}

fn handled_by(log: &Log, name: &str) -> usize {
    let lines = log.lines();
    lines.iter().filter(|line| line.starts_with(name)).count()
}

#[test]
fn a_replica_with_a_name_has_its_partitions_back_and_nobody_has_them_meanwhile() {
    let Some(brokers) = brokers() else { return };
    block_on(async {
        let (mut config, store, log) = (own(&brokers), MemoryStore::new(), Log::default());
        config.session = Duration::from_secs(40);
        let one = replica(&config, &store, &log, "one").await;
        let two = replica(&config, &store, &log, "two").await;
        let (mut sent, started) = (0, Instant::now());
        while handled_by(&log, "one") == 0 || handled_by(&log, "two") == 0 {
            assert!(started.elapsed() < PATIENCE * 4, "each has its share");
            for n in sent..sent + 7 {
                two.bus().send(Pack { n }).await.expect("it is stored");
            }
            sent += 7;
            grow_older(Duration::from_millis(200)).await;
        }
        quiet(&store).await;
        log.wait_for(sent as usize).await;
        stop(one).await;
        let (stopped, before) = (Instant::now(), log.lines().len());
        for n in sent..sent + 70 {
            two.bus().send(Pack { n }).await.expect("it is stored");
        }
        quiet(&store).await;
        // Longer than a group without names takes to divide all anew.
        grow_older(Duration::from_secs(5)).await;
        let by_two = log.lines().len() - before;
        assert!(by_two > 0 && by_two < 70, "{by_two} of 70 are of its own");

        let one = replica(&config, &store, &log, "one").await;
        log.wait_for(before + 70).await;
        assert!(
            stopped.elapsed() < config.session,
            "{:?}",
            stopped.elapsed()
        );
        stop(one).await;
        stop(two).await;
        let lines = log.lines().into_iter();
        let number = |line: String| line[4..].parse::<u32>().expect("it ends with a number");
        let mut numbers: Vec<_> = lines.map(number).collect();
        numbers.sort_unstable();
        // While a group divides anew one may be handled again, with one effect: see the suites.
        numbers.dedup();
        assert_eq!(numbers, (0..sent + 70).collect::<Vec<_>>(), "each of them");
    });
}
