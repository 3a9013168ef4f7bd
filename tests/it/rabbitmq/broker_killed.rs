//! The broker is killed under load and comes back.

use std::time::Duration;

use sagabus::transport::Health;
use sagabus_testkit::rabbitmq_broker::RabbitMqBroker;
use sagabus_testkit::service::block_on;
use sagabus_testkit::wait::eventually;
use tokio::time::Instant;

use crate::outage::site::{Site, send};

use super::{namespace, report, rounds, start, transport};

/// Transfers that are sent around each kill.
const PER_ROUND: i64 = 60;

#[test]
fn a_broker_killed_under_load_loses_and_doubles_nothing() {
    let Some(broker) = RabbitMqBroker::start() else {
        return;
    };
    block_on(async {
        let Some(site) = Site::open("rabbitmq_killed").await else {
            return;
        };
        let host = start(&site, transport(&broker.url(), &namespace())).await;
        // RabbitMQ writes its list of quorum queues with a delay of seconds: one that was declared
        // a moment before a power cut starts anew. Stopping writes it.
        broker.control(&["stop_app"]);
        broker.control(&["start_app"]);
        let is_well =
            || async { (host.transport_health() == Some(Health::Connected)).then_some(()) };
        eventually("a broker that is known to be back", is_well).await;
        let bus = host.bus();
        let (mut sent, mut recovered, mut in_flight) = (0, Vec::new(), 0);
        for _ in 0..rounds(3) {
            send(&bus, sent..sent + PER_ROUND).await;
            sent += PER_ROUND;
            // In the middle of it: some of the round is done, and some is not.
            let begun = || async { (site.number(STARTED).await > sent - PER_ROUND).then_some(()) };
            eventually("transfers under way", begun).await;
            let (started, settled) = (site.number(STARTED).await, site.number(SETTLED).await);
            broker.kill();
            in_flight += i64::from(settled < started);
            // An API goes on: its messages are in the database.
            send(&bus, sent..sent + PER_ROUND).await;
            sent += PER_ROUND;
            let lost = || async {
                let health = host.transport_health();
                matches!(health, Some(Health::Reconnecting { .. })).then_some(())
            };
            eventually("a broker that is known to be away", lost).await;
            let before = site.number(SETTLED).await;
            broker.restart();
            let back = Instant::now();
            let goes_on = || async { (site.number(SETTLED).await > before).then_some(()) };
            eventually("transfers that go on", goes_on).await;
            recovered.push(back.elapsed());
            eventually("a broker that is known to be back", is_well).await;
        }
        assert!(in_flight > 0, "no kill met a transfer under way");
        let effects = site.judge(&host, sent).await;
        let worst = recovered.iter().max().copied().unwrap_or(Duration::ZERO);
        let kills = recovered.len();
        let more = format!(", {kills} kills, going on again after at most {worst:.1?}");
        report("broker killed under load", effects, &more);
    });
}

const STARTED: &str = "select count(*) from ledger where leg = 'debit'";
const SETTLED: &str = "select count(*) from sagabus.instance where completed";
