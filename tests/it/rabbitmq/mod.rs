//! The bus over RabbitMQ while brokers are killed and links are cut: nothing is lost, nothing
//! happens twice, nothing is invented.

mod broker_killed;
mod node_killed;
mod cut;

use std::time::Duration;

use sagabus::rabbitmq::{RabbitMq, RabbitMqConfig};
use sagabus::{Host, MessageId, PgStore, RunningHost};

use crate::databases::say;
use crate::killed::child::postgres;
use crate::outage::site::Site;

/// How often a broker is killed, and each kind of link fault happens; more by this variable.
const KILLS: &str = "SAGABUS_BROKER_KILLS";

/// The shared broker; `None`, with a word, where there is none.
pub(crate) fn url() -> Option<String> {
    let url = std::env::var("SAGABUS_RABBITMQ_URL").ok();
    if url.is_none() {
        sagabus_testkit::service::skip("SAGABUS_RABBITMQ_URL is not set");
    }
    url
}

/// Names exchanges and queues of one test.
pub(crate) fn namespace() -> String {
    let id = MessageId::new().as_uuid().simple().to_string();
    format!("t{}.", &id[20..])
}

/// What a test leaves on the broker goes by itself, and losses are noticed within seconds.
fn config(url: &str, namespace: &str) -> RabbitMqConfig {
    let mut config = RabbitMqConfig::new(url);
    config.namespace = namespace.to_owned();
    config.expires_unused = Some(Duration::from_secs(90));
    config.heartbeat = Duration::from_secs(2);
    config.confirm_timeout = Duration::from_secs(3);
    config
}

/// What a child process that is killed and restarted uses.
pub(crate) fn transport(url: &str, namespace: &str) -> RabbitMq {
    RabbitMq::with(config(url, namespace))
}

/// Starts the workload's host on a database and a broker.
async fn start(site: &Site, broker: RabbitMq) -> RunningHost {
    let store = PgStore::connect(&site.url).await.expect("it answers");
    let name = format!("host-{}", std::process::id());
    let builder = postgres::equip(Host::builder(&name).transport(broker), &store);
    let host = builder.build().expect("the workload is put together well");
    host.start().await.expect("the host starts")
}

fn rounds(default: u32) -> u32 {
    let told = std::env::var(KILLS).ok();
    told.and_then(|told| told.parse().ok()).unwrap_or(default)
}

/// Prints what a test saw, and by how much the ledger was right.
fn report(what: &str, effects: usize, more: &str) {
    say(&format!(
        "rabbitmq {what}: effects {effects}, lost 0, duplicated 0, ghosts 0{more}\n"
    ));
}
