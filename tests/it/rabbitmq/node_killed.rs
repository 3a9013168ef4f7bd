//! One node of three is killed under load: the one that leads the queues, with our connection on it
//! or on another.

use std::time::Duration;

use sagabus::transport::Health;
use sagabus_testkit::amqp_proxy::AmqpProxy;
use sagabus_testkit::rabbitmq_broker::RabbitMqBroker;
use sagabus_testkit::service::block_on;
use sagabus_testkit::wait::{eventually, eventually_within};
use tokio::time::Instant;

use crate::outage::site::{Site, send};

use super::{namespace, report, rounds, start, transport};

/// Transfers that are sent around each kill.
const PER_ROUND: i64 = 60;
/// How long a node that was killed may take until it follows its queues again.
const BACK_WITHIN: Duration = Duration::from_secs(90);
const STARTED: &str = "select count(*) from ledger where leg = 'debit'";
const SETTLED: &str = "select count(*) from sagabus.instance where completed";

#[test]
fn a_leader_killed_under_load_loses_and_doubles_nothing() {
    let Some(nodes) = RabbitMqBroker::start_three() else {
        return;
    };
    block_on(async {
        let Some(site) = Site::open("rabbitmq_node").await else {
            return;
        };
        let namespace = namespace();
        let proxy = AmqpProxy::start(nodes[0].address()).await;
        let url = proxy.url(&nodes[0].url());
        let host = start(&site, transport(&url, &namespace)).await;
        let bus = host.bus();
        let is_well =
            || async { (host.transport_health() == Some(Health::Connected)).then_some(()) };
        let (mut sent, mut recovered, mut beside) = (0, Vec::new(), 0);
        for round in 0..rounds(3) {
            let leader = all_online(&nodes, &namespace).await;
            // A node that goes with the leader, or one that stays.
            let away = usize::from(round % 3 != 2);
            let ours = (leader + away) % nodes.len();
            beside += away;
            proxy.lead_to(nodes[ours].address());
            eventually("a broker that is known to be back", is_well).await;
            send(&bus, sent..sent + PER_ROUND).await;
            sent += PER_ROUND;
            let begun = || async { (site.number(STARTED).await > sent - PER_ROUND).then_some(()) };
            eventually("transfers under way", begun).await;
            nodes[leader].kill();
            let killed = Instant::now();
            if ours == leader {
                // What stands before a cluster does so.
                proxy.lead_to(nodes[(leader + 1) % nodes.len()].address());
            }
            let before = site.number(SETTLED).await;
            send(&bus, sent..sent + PER_ROUND).await;
            sent += PER_ROUND;
            let goes_on = || async { (site.number(SETTLED).await > before).then_some(()) };
            eventually("transfers that go on without the node", goes_on).await;
            recovered.push(killed.elapsed());
            let all = || async { (site.number(SETTLED).await >= sent).then_some(()) };
            eventually("all transfers without the node", all).await;
            nodes[leader].restart();
        }
        let effects = site.judge(&host, sent).await;
        let worst = recovered.iter().max().copied().unwrap_or(Duration::ZERO);
        let kills = recovered.len();
        let more = format!(
            ", {kills} leaders of three nodes killed, {beside} of them beside our connection, going \
             on again after at most {worst:.1?}"
        );
        report("leader killed under load", effects, &more);
    });
}

/// Waits until every queue has all its members; returns the node that leads most of them.
async fn all_online(nodes: &[RabbitMqBroker], namespace: &str) -> usize {
    let look = || async {
        let asked = [
            "list_queues",
            "--no-table-headers",
            "name",
            "leader",
            "online",
        ];
        let listed = nodes[0].control(&asked);
        let ours: Vec<Vec<&str>> = listed
            .lines()
            .filter(|line| line.starts_with(namespace))
            .map(|line| line.split('\t').collect())
            .collect();
        let is_whole = |queue: &Vec<&str>| {
            let online = queue.get(2).copied().unwrap_or_default();
            nodes.iter().all(|node| online.contains(&node.node()))
        };
        if ours.is_empty() || !ours.iter().all(is_whole) {
            return None;
        }
        let led = |node: &RabbitMqBroker| ours.iter().filter(|one| one[1] == node.node()).count();
        (0..nodes.len()).max_by_key(|number| led(&nodes[*number]))
    };
    let what = "queues with all their members";
    eventually_within(BACK_WITHIN, what, look).await.0
}
