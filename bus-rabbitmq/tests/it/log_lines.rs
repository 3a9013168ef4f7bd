//! What an outage says in the log: one line for each connection when it begins, and one when it ends.

use std::time::Duration;

use sagabus_core::id::StoreId;
use sagabus_core::transport::{Health, Transport};
use sagabus_testkit::amqp_proxy::{AmqpProxy, Mode};
use sagabus_testkit::saying::{heard, told};
use sagabus_testkit::service::block_on;
use sagabus_testkit::wait::{eventually, grow_older};
use tracing::Level;

use crate::refused::spec;
use crate::site::{config, rabbitmq, url};

const OUTAGES: usize = 2;
/// Long against the pauses between tries, of which there are more than ten.
const OUTAGE: Duration = Duration::from_secs(5);

#[test]
fn runs_only_as_a_child_whose_broker_goes_away() {
    let Some(url) = told(Level::ERROR) else {
        return;
    };
    block_on(async {
        let proxy = AmqpProxy::before(&url).await;
        let transport = rabbitmq(&config(&proxy.url(&url)));
        let declared = transport.declare(StoreId::new(), &[spec()]).await;
        declared.expect("it is declared");
        let subscribed = transport.subscribe(&spec(), 10).await;
        let _deliveries = subscribed.expect("it is declared");
        for _ in 0..OUTAGES {
            proxy.set(Mode::Refuse);
            let lost = || async { since(&transport.health()) };
            let (began, _) = eventually("a health that tells of it", lost).await;
            grow_older(OUTAGE).await;
            let told = since(&transport.health()).expect("it is away");
            // Of whichever connection, and not of the latest try.
            assert!(told < began + 2_000_000, "one outage: {began} {told}");
            proxy.set(Mode::Pass);
            let back = || async { (transport.health() == Health::Connected).then_some(()) };
            eventually("a broker that is known to be back", back).await;
        }
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
fn an_outage_is_one_line_for_each_connection_and_one_when_it_ends() {
    let Some(url) = url() else { return };
    let said = heard(
        "log_lines::runs_only_as_a_child_whose_broker_goes_away",
        &url,
    );
    let ours = said.lines().filter(|line| line.starts_with("log sagabus"));
    let ours: Vec<_> = ours.collect();
    let count = |what: &str, word: &str| {
        let lines = ours.iter();
        lines
            .filter(|line| line.contains(what) && line.contains(word))
            .count()
    };
    for what in ["receiving from RabbitMQ", "publishing to RabbitMQ"] {
        assert_eq!(count(what, "failed; trying again"), OUTAGES, "{ours:#?}");
        assert_eq!(count(what, "works again"), OUTAGES, "{ours:#?}");
    }
    // The endpoint itself may have something to say when its connection is back.
    assert!(ours.len() <= 6 * OUTAGES, "little else: {ours:#?}");
}
