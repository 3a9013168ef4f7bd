//! The password is never printed: not in an error, not in a log of ours or of the driver's.

use std::time::Duration;

use sagabus_core::error::chain;
use sagabus_core::id::StoreId;
use sagabus_core::transport::Transport;
use sagabus_kafka::{Kafka, KafkaConfig, Mechanism, Security};
use sagabus_testkit::kafka_broker::KafkaBroker;
use sagabus_testkit::saying::{heard, told};
use sagabus_testkit::service::block_on;
use tracing::Level;

use crate::refused::spec;

/// Stands where a password stands, and nowhere else.
const CANARY: &str = "canary-4711";

/// Runs with everything logged, when it is started as a child; else there is nothing to do.
#[test]
fn runs_only_as_a_child_that_logs_everything() {
    let Some(address) = told(Level::TRACE) else {
        return;
    };
    let with = |brokers: &str, mechanism| {
        let mut config = KafkaConfig::new(brokers);
        config.request_timeout = Duration::from_secs(2);
        config.security = Security::Sasl {
            mechanism,
            user: "orders".to_owned(),
            password: CANARY.into(),
            tls: None,
        };
        config
    };
    let mut optional = with(&address, Mechanism::Plain);
    let option = |name: &str| (name.to_owned(), CANARY.into());
    optional.options = vec![
        option("sasl.oauthbearer.config"),
        option("socket.timeout.ms"),
    ];
    // The driver says what it does with a log-in.
    let mut loud = with(&address, Mechanism::Plain);
    loud.options = vec![("debug".to_owned(), "security,broker,conf".into())];
    let configs = [
        with(&address, Mechanism::Plain),
        loud,
        with(&address, Mechanism::ScramSha256),
        with("127.0.0.1:1", Mechanism::Plain),
        with(
            &format!("kafka://orders:{CANARY}@{address}"),
            Mechanism::Plain,
        ),
        optional,
    ];
    block_on(async {
        for config in configs {
            let transport = Kafka::new(config.clone());
            let error = transport.declare(StoreId::new(), &[spec()]).await;
            let error = error.expect_err("this cannot work");
            let health = transport.health();
            // An address is no place for a password, but what somebody put there is not shown.
            println!("said {transport:?} {health:?} {error:?} {}", chain(&error));
        }
    });
}

#[test]
fn the_password_is_in_no_error_and_in_no_log() {
    let Some(broker) = KafkaBroker::start_guarded(&[("admin", "hunter1")]) else {
        return;
    };
    let child = "secret::runs_only_as_a_child_that_logs_everything";
    let said = heard(child, &broker.address().to_string());
    assert!(said.contains("log librdkafka"), "the driver's log is seen");
    assert_eq!(said.matches("said Kafka").count(), 6, "{said}");
    let lines: Vec<_> = said.lines().filter(|line| line.contains(CANARY)).collect();
    assert!(lines.is_empty(), "{lines:#?}");
}
