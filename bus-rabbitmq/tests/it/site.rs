//! The broker that tests share.

use std::time::Duration;

use sagabus_core::id::MessageId;
use sagabus_core::memory::MemoryStore;
use sagabus_core::{Host, HostBuilder};
use sagabus_rabbitmq::{RabbitMq, RabbitMqConfig};
use sagabus_testkit::bus::Log;
use sagabus_testkit::service;

/// How long what a test leaves on the shared broker stays there.
const EXPIRY: Duration = Duration::from_secs(90);

/// Returns the URL of the shared broker, or says that there is none.
pub(crate) fn url() -> Option<String> {
    let url = std::env::var("SAGABUS_RABBITMQ_URL").ok();
    if url.is_none() {
        service::skip("SAGABUS_RABBITMQ_URL is not set; `cargo xtask test` sets it");
    }
    url
}

/// Makes a configuration with names that no other test uses.
pub(crate) fn config(url: &str) -> RabbitMqConfig {
    let id = MessageId::new().as_uuid().simple().to_string();
    let mut config = RabbitMqConfig::new(url);
    config.namespace = format!("t{}.", &id[20..]);
    config.expires_unused = Some(EXPIRY);
    // An outage of a test is over sooner than one of the world.
    config.confirm_timeout = Duration::from_secs(5);
    config
}

/// Connects as it is configured.
pub(crate) fn rabbitmq(config: &RabbitMqConfig) -> RabbitMq {
    RabbitMq::with(config.clone())
}

/// Starts to build a host over a store in memory and RabbitMQ.
pub(crate) fn builder(config: &RabbitMqConfig, store: &MemoryStore, log: &Log) -> HostBuilder {
    Host::builder("host")
        .store(store.clone())
        .transport(rabbitmq(config))
        .lease(Duration::from_millis(900))
        .state(log.clone())
}
