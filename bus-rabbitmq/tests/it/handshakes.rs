//! A connection that is cut while it is made is made again soon.

use std::time::Duration;

use sagabus_core::id::StoreId;
use sagabus_core::transport::{Health, Transport};
use sagabus_testkit::amqp_proxy::AmqpProxy;
use sagabus_testkit::service::block_on;
use sagabus_testkit::wait::eventually;
use tokio::time::Instant;

use crate::refused::spec;
use crate::site::{config, rabbitmq, url};

/// Frames of the broker until a connection is open: start, tune, open-ok.
const FRAMES: u32 = 3;
/// Below `connect_timeout`, which is for a broker that says nothing.
const SOON: Duration = Duration::from_secs(6);

#[test]
fn a_connection_that_is_cut_while_it_is_made_is_made_again_soon() {
    let Some(url) = url() else { return };
    block_on(async {
        let proxy = AmqpProxy::before(&url).await;
        let transport = rabbitmq(&config(&proxy.url(&url)));
        let declared = transport.declare(StoreId::new(), &[spec()]).await;
        declared.expect("it is declared");
        let subscribed = transport.subscribe(&spec(), 10).await;
        let _deliveries = subscribed.expect("it is declared");
        let mut slowest = Duration::ZERO;
        for round in 0..4 * FRAMES {
            let fired = proxy.fired();
            proxy.cut_next_after(round % FRAMES);
            proxy.cut();
            let cut = Instant::now();
            let is_back = || async {
                let is_well = transport.health() == Health::Connected;
                (is_well && proxy.fired() > fired).then_some(())
            };
            eventually("a broker that is known to be back", is_back).await;
            slowest = slowest.max(cut.elapsed());
        }
        assert!(slowest < SOON, "back after {slowest:?}");
    });
}
