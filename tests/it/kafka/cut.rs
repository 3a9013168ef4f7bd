//! The link to the broker is cut, loses answers, or goes dead while messages flow.

use std::time::Duration;

use sagabus::Kafka;
use sagabus_testkit::kafka_broker::KafkaBroker;
use sagabus_testkit::service::block_on;
use sagabus_testkit::wait::{eventually_within, grow_older};
use tokio::time::Instant;

use crate::outage::site::{Site, send};

use super::link::{Link, Mode};
use super::{config, prefix, report, rounds, start};

/// How long it may take until a dead link is noticed, left and made up for on a busy machine.
const BACK_WITHIN: Duration = Duration::from_secs(60);
const SETTLED: &str = "select count(*) from sagabus.instance where completed";

/// What is done to the link.
#[derive(Clone, Copy)]
enum Fault {
    Cut,
    /// The broker has closed its side, and nothing tells ours.
    HalfOpen,
    /// For 4 s.
    For4s(Mode),
}

#[test]
fn a_link_that_is_cut_or_dead_loses_and_doubles_nothing() {
    block_on(async {
        let (link, broker_at) = Link::listen().await;
        let Some(broker) = KafkaBroker::start_behind(link.address.port()) else {
            return;
        };
        broker_at.send_replace(Some(broker.address()));
        let Some(site) = Site::open("kafka_cut").await else {
            return;
        };
        let mut config = config(&link.address.to_string(), &prefix());
        // What goes dead without a word is noticed by this.
        config
            .options
            .push(("socket.timeout.ms".to_owned(), "3000".into()));
        config.delivery_timeout = Duration::from_secs(5);
        let host = start(&site, Kafka::new(config)).await;
        let bus = host.bus();
        let (mut sent, mut faults, mut worst) = (0, 0, Duration::ZERO);
        let faults_of_a_round = [
            Fault::Cut,
            Fault::HalfOpen,
            Fault::For4s(Mode::LoseAnswers),
            Fault::For4s(Mode::Refuse),
            Fault::For4s(Mode::Swallow),
        ];
        for round in 0..rounds(2) {
            for fault in faults_of_a_round {
                send(&bus, sent..sent + 25).await;
                sent += 25;
                grow_older(Duration::from_millis(u64::from(round) * 7 + 20)).await;
                match fault {
                    Fault::Cut => link.cut(),
                    Fault::HalfOpen => link.leave_half_open(),
                    Fault::For4s(mode) => link.set(mode),
                }
                send(&bus, sent..sent + 25).await;
                sent += 25;
                if let Fault::For4s(_) = fault {
                    // Beyond the time-outs, where nothing tells that the link is dead.
                    grow_older(Duration::from_secs(4)).await;
                    link.set(Mode::Pass);
                }
                faults += 1;
                let back = Instant::now();
                let all = || async { (site.number(SETTLED).await >= sent).then_some(()) };
                eventually_within(BACK_WITHIN, "transfers that go on", all).await;
                worst = worst.max(back.elapsed());
            }
        }
        let effects = site.judge(&host, sent).await;
        let more = format!(", {faults} links cut or dead, all done at most {worst:.1?} later");
        report("link", effects, &more);
    });
}
