//! A service that changes its broker: what it wrote for the one is sent by the other.

use std::time::Duration;

use sagabus::{HostBuilder, RunningHost};

use super::absent::{EACH, Pack, Packed, pack, packed, wait_for};
use super::{ALL, Broker, DISTINCT, Way, builder, site};
use crate::databases::{block_on, say};

async fn start(builder: HostBuilder) -> RunningHost {
    let host = builder
        .endpoint("packing", |e| e.handle(pack))
        .endpoint("audit", |e| e.handle(packed));
    let host = host.build().expect("it is put together well");
    host.start()
        .await
        .expect("a host starts without its broker")
}

async fn check(one: Broker, other: Broker) {
    let Some(site) = site(&format!("changed_{}", one.name)).await else {
        return;
    };
    (one.cut)(true);
    let host = start((one.reach)(builder("shop", &site.url).await, Way::Cuttable)).await;
    let bus = host.bus();
    for n in 0..EACH {
        bus.send(Pack { n }).await.expect("it is stored");
        bus.publish(Packed { n }).await.expect("it is stored");
    }
    assert!(host.stop(Duration::from_secs(20)).await);
    assert_eq!(site.number(ALL).await, 0);

    let host = start((other.reach)(builder("shop", &site.url).await, Way::Direct)).await;
    let took = wait_for(&site, 2 * EACH).await;
    assert!(host.stop(Duration::from_secs(20)).await);
    assert_eq!(site.number(ALL).await, 2 * EACH);
    assert_eq!(site.number(DISTINCT).await, 2 * EACH);
    let (from, to) = (one.name, other.name);
    say(&format!(
        "changed from {from} to {to}: {} messages that waited for the one handled {took:.1?} after \
         the start over the other\n",
        2 * EACH
    ));
}

#[test]
fn what_was_written_for_rabbitmq_is_sent_by_kafka() {
    block_on(async {
        if let (Some(one), Some(other)) = (Broker::rabbitmq().await, Broker::kafka().await) {
            check(one, other).await;
        }
    });
}

#[test]
fn what_was_written_for_kafka_is_sent_by_rabbitmq() {
    block_on(async {
        if let (Some(one), Some(other)) = (Broker::kafka().await, Broker::rabbitmq().await) {
            check(one, other).await;
        }
    });
}
