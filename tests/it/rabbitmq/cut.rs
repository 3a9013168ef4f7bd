//! The link to the broker is cut, loses acks and confirms, or goes dead while messages flow.

use std::time::Duration;

use sagabus_testkit::amqp_proxy::{AmqpProxy, Mode};
use sagabus_testkit::service::block_on;
use sagabus_testkit::transport::Breakable;
use sagabus_testkit::wait::{eventually, eventually_within, grow_older};
use tokio::time::Instant;

use crate::outage::site::{Site, send};

use super::{namespace, report, rounds, start, transport, url};

/// How long it may take until a dead link is noticed, left and made up for on a busy machine.
const BACK_WITHIN: Duration = Duration::from_secs(60);
const SETTLED: &str = "select count(*) from sagabus.instance where completed";

/// What is done to the link.
#[derive(Clone, Copy, Debug)]
enum Fault {
    Cut,
    /// The broker has closed its side, and nothing tells ours.
    HalfOpen,
    LoseAck,
    LoseConfirm,
    Refuse,
    Swallow,
}

#[test]
fn a_link_that_is_cut_or_dead_loses_and_doubles_nothing() {
    let Some(url) = url() else { return };
    block_on(async {
        let Some(site) = Site::open("rabbitmq_cut").await else {
            return;
        };
        let proxy = AmqpProxy::before(&url).await;
        let host = start(&site, transport(&proxy.url(&url), &namespace())).await;
        let bus = host.bus();
        let (mut sent, mut faults, mut worst) = (0, 0, Duration::ZERO);
        let all = [
            Fault::Cut,
            Fault::HalfOpen,
            Fault::LoseAck,
            Fault::LoseConfirm,
            Fault::Refuse,
            Fault::Swallow,
        ];
        for round in 0..rounds(2) {
            for fault in all {
                send(&bus, sent..sent + 25).await;
                sent += 25;
                grow_older(Duration::from_millis(u64::from(round) * 7 + 20)).await;
                let fired = proxy.fired();
                match fault {
                    Fault::Cut => proxy.cut(),
                    Fault::HalfOpen => proxy.leave_half_open(),
                    Fault::LoseAck => proxy.lose_acks(1),
                    Fault::LoseConfirm => {
                        proxy.cut_before_confirm("command/account.credit").await;
                    }
                    Fault::Refuse => proxy.set(Mode::Refuse),
                    Fault::Swallow => proxy.set(Mode::Swallow),
                }
                send(&bus, sent..sent + 25).await;
                sent += 25;
                match fault {
                    Fault::Cut | Fault::HalfOpen => {}
                    Fault::LoseAck | Fault::LoseConfirm => {
                        let has_fired = || async { (proxy.fired() > fired).then_some(()) };
                        eventually("a lost answer", has_fired).await;
                    }
                    // Beyond the heartbeats, where nothing tells that the link is dead.
                    Fault::Refuse | Fault::Swallow => {
                        grow_older(Duration::from_secs(5)).await;
                        proxy.set(Mode::Pass);
                        proxy.cut();
                    }
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
