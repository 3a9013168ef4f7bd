//! The bus over Kafka while brokers are killed, replicas come and go, and links are cut: nothing is
//! lost, nothing happens twice, nothing is invented.

pub(crate) mod link;
mod broker_killed;
mod replicas;
mod cut;
mod fatal;

use std::time::Duration;

use sagabus::kafka::{Kafka, KafkaConfig};
use sagabus::{Host, MessageId, PgStore, RunningHost};

use crate::databases::say;
use crate::killed::child::postgres;
use crate::outage::site::Site;

/// How often a fault happens; more by this variable.
const ROUNDS: &str = "SAGABUS_KAFKA_ROUNDS";

/// The shared cluster; `None`, with a word, where there is none.
pub(crate) fn brokers() -> Option<String> {
    let brokers = std::env::var("SAGABUS_KAFKA_BROKERS").ok();
    if brokers.is_none() {
        sagabus_testkit::service::skip("SAGABUS_KAFKA_BROKERS is not set");
    }
    brokers
}

/// Names topics and groups of one test.
pub(crate) fn prefix() -> String {
    let id = MessageId::new().as_uuid().simple().to_string();
    format!("t{}.", &id[20..])
}

/// Few partitions, and losses that are noticed within seconds.
pub(crate) fn config(brokers: &str, prefix: &str) -> KafkaConfig {
    let mut config = KafkaConfig::new(brokers);
    config.prefix = prefix.to_owned();
    config.topics.partitions = Some(2);
    config.session = Duration::from_secs(3);
    config.heartbeat = Duration::from_millis(300);
    config.poll_interval_max = Duration::from_secs(4);
    config
}

/// What a child process that is killed and restarted uses: its partitions wait for it.
pub(crate) fn transport(brokers: &str, prefix: &str) -> Kafka {
    let mut config = config(brokers, prefix);
    config.instance = Some("child".to_owned());
    Kafka::new(config)
}

/// Starts the workload's host on a database and a cluster.
async fn start(site: &Site, kafka: Kafka) -> RunningHost {
    let store = PgStore::connect(&site.url).await.expect("it answers");
    let name = format!("host-{}", std::process::id());
    let builder = postgres::equip(Host::builder(&name).transport(kafka), &store);
    let host = builder.build().expect("the workload is put together well");
    host.start().await.expect("the host starts")
}

fn rounds(default: u32) -> u32 {
    let told = std::env::var(ROUNDS).ok();
    told.and_then(|told| told.parse().ok()).unwrap_or(default)
}

/// Prints what a test saw, and by how much the ledger was right.
fn report(what: &str, effects: usize, more: &str) {
    say(&format!(
        "kafka {what}: effects {effects}, lost 0, duplicated 0, ghosts 0{more}\n"
    ));
}
