//! The password is never printed: not in an error, not in a log of ours or of the driver's.

use sagabus_core::transport::Transport;
use sagabus_core::{StoreId, error::chain};
use sagabus_rabbitmq::{RabbitMq, RabbitMqConfig};
use sagabus_testkit::amqp_proxy::authority;
use sagabus_testkit::saying::{heard, told};
use sagabus_testkit::service::block_on;
use tracing::Level;

use crate::refused::spec;
use crate::site::url;

/// Stands where a password stands, and nowhere else.
const CANARY: &str = "canary-4711";

/// Runs with everything logged, when it is started as a child; else there is nothing to do.
#[test]
fn runs_only_as_a_child_that_logs_everything() {
    // The driver's `trace` shows the frames themselves, the log-in among them.
    let Some(url) = told(Level::DEBUG) else {
        return;
    };
    let place = authority(&url);
    let urls = [
        format!("amqp://guest:{CANARY}@{place}"),
        format!("amqp://guest:{CANARY}@{place}/nowhere"),
        format!("amqps://guest:{CANARY}@{place}"),
        format!("amqp://guest:{CANARY}@127.0.0.1:1"),
        format!("amqp://guest:{CANARY}@host:port"),
        format!("guest:{CANARY}"),
    ];
    block_on(async {
        for url in urls {
            let mut config = RabbitMqConfig::new(url);
            config.connect_timeout = std::time::Duration::from_secs(3);
            let transport = RabbitMq::with(config.clone());
            let error = transport.declare(StoreId::new(), &[spec()]).await;
            let error = error.expect_err("this cannot work");
            let health = transport.health();
            println!(
                "said {config:?} {transport:?} {health:?} {error:?} {}",
                chain(&error)
            );
        }
    });
}

#[test]
fn the_password_is_in_no_error_and_in_no_log() {
    let Some(url) = url() else { return };
    let said = heard("secret::runs_only_as_a_child_that_logs_everything", &url);
    assert!(said.contains("log lapin"), "the driver's log is seen");
    assert_eq!(said.matches("said RabbitMqConfig").count(), 6, "{said}");
    let lines = said.lines().filter(|line| {
        let bytes: Vec<String> = CANARY.bytes().map(|byte| byte.to_string()).collect();
        line.contains(CANARY) || line.contains(&bytes.join(", "))
    });
    let lines: Vec<_> = lines.collect();
    assert!(lines.is_empty(), "{lines:?}");
}
