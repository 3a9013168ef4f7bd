//! What an outage says in the log: one line when it begins, and one when it ends.

use std::time::Duration;

use sagabus_core::id::StoreId;
use sagabus_core::transport::{Health, Transport};
use sagabus_testkit::kafka_broker::KafkaBroker;
use sagabus_testkit::saying::{heard, told};
use sagabus_testkit::service::block_on;
use sagabus_testkit::wait::{eventually, grow_older};
use tracing::Level;

use crate::cluster::{brokers, kafka, own};
use crate::refused::spec;

/// Long against the pauses between tries.
const OUTAGE: Duration = Duration::from_secs(5);

#[test]
fn runs_only_as_a_child_whose_broker_goes_away() {
    if told(Level::ERROR).is_none() {
        return;
    }
    let mut broker = KafkaBroker::start().expect("the parent found one");
    block_on(async {
        let transport = kafka(&own(&broker.address().to_string()));
        let declared = transport.declare(StoreId::new(), &[spec()]).await;
        declared.expect("it is declared");
        let subscribed = transport.subscribe(&spec(), 10).await;
        let _deliveries = subscribed.expect("it is declared");
        broker.kill();
        let lost = || async { since(&transport.health()) };
        let (began, _) = eventually("a health that tells of it", lost).await;
        grow_older(OUTAGE).await;
        assert_eq!(since(&transport.health()), Some(began), "one outage");
        broker.restart();
        let back = || async { (transport.health() == Health::Connected).then_some(()) };
        eventually("a broker that is known to be back", back).await;
    });
}

/// Says since when the broker is away, in microseconds.
fn since(health: &Health) -> Option<i64> {
    match health {
        Health::Reconnecting { since, .. } => Some(since.as_micros()),
        Health::Connected | Health::Blocked { .. } => None,
    }
}

#[test]
fn an_outage_is_one_line_and_one_when_it_ends() {
    // Where the shared broker is, there is what makes one of a test's own.
    let Some(brokers) = brokers() else { return };
    let said = heard(
        "log_lines::runs_only_as_a_child_whose_broker_goes_away",
        &brokers,
    );
    let ours = said.lines().filter(|line| line.starts_with("log sagabus"));
    let ours: Vec<_> = ours.collect();
    let count = |word: &str| ours.iter().filter(|line| line.contains(word)).count();
    assert_eq!(count("no Kafka broker can be reached"), 1, "{ours:#?}");
    assert_eq!(count("Kafka is reached again"), 1, "{ours:#?}");
}
