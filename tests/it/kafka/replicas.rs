//! Replicas are killed, added and frozen while messages flow: partitions move, and no message is
//! handled twice.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use sagabus::Kafka;
use sagabus_testkit::service::block_on;
use sagabus_testkit::wait::grow_older;
use tokio::time::Instant;

use crate::outage::site::{Site, send};

use super::{brokers, config, prefix, report, rounds, start};

const DATABASE: &str = "SAGABUS_REPLICA_DATABASE";
const CLUSTER: &str = "SAGABUS_REPLICA_CLUSTER";

/// Runs a replica until it is killed, when this binary was started as one; else nothing.
#[test]
fn runs_only_as_a_replica() {
    let told = (std::env::var(DATABASE), std::env::var(CLUSTER));
    let (Ok(url), Ok(cluster)) = told else { return };
    let (brokers, prefix) = cluster.split_once(' ').expect("brokers and prefix");
    block_on(async {
        let site = Site::join(&url).await;
        let host = start(&site, Kafka::new(config(brokers, prefix))).await;
        loop {
            println!("{HANDLED}{}", host.counters().committed.get());
            grow_older(Duration::from_millis(20)).await;
        }
    });
}

/// What a replica says before the number of messages that it has handled.
const HANDLED: &str = "handled ";

/// A process of the workload.
struct Replica {
    process: Child,
    handled: Arc<AtomicU64>,
}

impl Replica {
    fn start(url: &str, brokers: &str, prefix: &str) -> Self {
        let this = std::env::current_exe().expect("a test binary knows its own path");
        let mut command = Command::new(this);
        command.args([
            "--exact",
            "kafka::replicas::runs_only_as_a_replica",
            "--nocapture",
        ]);
        command
            .env(DATABASE, url)
            .env(CLUSTER, format!("{brokers} {prefix}"));
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        let mut process = command
            .spawn()
            .expect("the test binary can be started again");
        let said = process.stdout.take().expect("it is piped");
        let handled = Arc::<AtomicU64>::default();
        let heard = Arc::clone(&handled);
        std::thread::spawn(move || {
            for line in BufReader::new(said).lines().map_while(Result::ok) {
                let number = line
                    .strip_prefix(HANDLED)
                    .and_then(|rest| rest.parse().ok());
                number
                    .into_iter()
                    .for_each(|number| heard.store(number, Ordering::Relaxed));
            }
        });
        Self { process, handled }
    }

    /// Says whether it has handled something.
    fn is_busy(&self) -> bool {
        self.handled.load(Ordering::Relaxed) > 0
    }

    fn signal(&self, signal: Signal) {
        let id = i32::try_from(self.process.id()).expect("an id is small");
        let process = Pid::from_raw(id).expect("a process has an id");
        kill_process(process, signal).expect("our own child can be told");
    }

    fn kill(mut self) {
        self.end();
    }

    fn end(&mut self) {
        // Of one that has ended there is nothing to kill.
        let _ = self.process.kill();
        self.process.wait().expect("it ends");
    }
}

impl Drop for Replica {
    fn drop(&mut self) {
        self.end();
    }
}

#[test]
fn replicas_that_are_killed_added_and_frozen_lose_and_double_nothing() {
    let Some(brokers) = brokers() else { return };
    block_on(async {
        let Some(site) = Site::open("kafka_replicas").await else {
            return;
        };
        let prefix = prefix();
        let host = start(&site, Kafka::new(config(&brokers, &prefix))).await;
        let bus = host.bus();
        let another = || Replica::start(&site.url, &brokers, &prefix);
        let mut sent = 0;
        let (mut killed, mut frozen) = (0, 0);
        for _ in 0..rounds(2) {
            let (first, second) = (another(), another());
            // Who joins late is busy only if messages still flow.
            let before = sent;
            while sent < before + 40 || !(first.is_busy() && second.is_busy()) {
                assert!(sent < before + 1_200, "both replicas handle something");
                send(&bus, sent..sent + 1).await;
                sent += 1;
                grow_older(Duration::from_millis(50)).await;
            }
            // What a replica has in hand when it goes is what this is about.
            send(&bus, sent..sent + 60).await;
            sent += 60;
            first.kill();
            killed += 1;
            send(&bus, sent..sent + 30).await;
            sent += 30;
            let third = another();
            send(&bus, sent..sent + 60).await;
            sent += 60;
            second.signal(Signal::STOP);
            frozen += 1;
            send(&bus, sent..sent + 60).await;
            sent += 60;
            // Beyond its session and its poll interval: its partitions are somebody else's.
            grow_older(Duration::from_secs(6)).await;
            second.signal(Signal::CONT);
            send(&bus, sent..sent + 30).await;
            sent += 30;
            grow_older(Duration::from_secs(1)).await;
            second.kill();
            third.kill();
            killed += 2;
        }
        let gone = Instant::now();
        let effects = site.judge(&host, sent).await;
        let more = format!(
            ", {killed} replicas killed, {frozen} frozen beyond their session, all done and stopped \
             {:.1?} after the last was gone",
            gone.elapsed()
        );
        report("replicas", effects, &more);
    });
}
