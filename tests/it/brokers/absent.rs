//! Hosts that start while a broker is not there.

use std::time::Duration;

use sagabus::prelude::*;
use sagabus::transport::Health;
use sagabus::{HostBuilder, Kafka, RunningHost};
use sagabus_testkit::amqp_proxy::{AmqpProxy, Mode as AmqpMode};
use sagabus_testkit::kafka_broker::KafkaBroker;
use sagabus_testkit::wait::eventually;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::{ALL, Broker, DISTINCT, Way, builder, site};
use crate::databases::{block_on, say};
use crate::outage::site::Site;
use crate::{kafka, rabbitmq};

#[derive(Command, Serialize, Deserialize)]
#[message("absent.pack")]
pub(super) struct Pack {
    pub(super) n: i64,
}

#[derive(Event, Serialize, Deserialize)]
#[message("absent.packed")]
pub(super) struct Packed {
    pub(super) n: i64,
}

pub(super) async fn pack(command: Pack, mut tx: Tx<Postgres>) -> Result {
    note("pack", command.n, &mut tx).await
}

pub(super) async fn packed(event: Packed, mut tx: Tx<Postgres>) -> Result {
    note("packed", event.n, &mut tx).await
}

async fn note(what: &str, n: i64, tx: &mut Tx<Postgres>) -> Result {
    sqlx::query("insert into applied (what, n) values ($1, $2)")
        .bind(what)
        .bind(n)
        .execute(tx.conn().await?)
        .await?;
    Ok(())
}

/// Messages of each kind in each round.
pub(super) const EACH: i64 = 50;

/// Says since when each transport is away.
fn away(host: &RunningHost) -> Vec<String> {
    let all = host.transports_health().into_iter();
    let away = all.filter(|(_, health)| matches!(health, Health::Reconnecting { .. }));
    away.map(|(name, _)| name.to_string()).collect()
}

/// Waits until handlers have had so many effects, and says how long that took.
pub(super) async fn wait_for(site: &Site, n: i64) -> Duration {
    let there = || async { (site.number(ALL).await >= n).then_some(()) };
    eventually("effects", there).await.1
}

/// A host with one broker, which is not there: it runs, is not ready, keeps what is sent, and uses
/// the broker when it comes. The endpoint is new: nothing may go past it.
async fn check_alone(broker: Broker) {
    let Some(site) = site(&format!("absent_{}", broker.name)).await else {
        return;
    };
    (broker.cut)(true);
    let builder = builder("absent", &site.url).await;
    let builder = (broker.reach)(builder, Way::Cuttable);
    let builder = builder.endpoint("audit", |e| e.handle(packed));
    let host = builder.build().expect("it is put together well");
    let started = Instant::now();
    let host = host
        .start()
        .await
        .expect("a host starts without its broker");
    let within = started.elapsed();
    assert!(within < Duration::from_secs(8), "{within:?}");
    for n in 0..EACH {
        host.bus()
            .publish(Packed { n })
            .await
            .expect("it is stored");
    }
    assert_eq!(away(&host), ["default"]);
    let health = host.health();
    let ready = health.readiness();
    assert_eq!(ready.reasons, ["transport `default` is not connected"]);
    assert!(health.liveness().is_well);
    assert_eq!(site.number(ALL).await, 0);

    (broker.cut)(false);
    let back = Instant::now();
    wait_for(&site, EACH).await;
    let joined = back.elapsed();
    let is_ready = || async { health.readiness().is_well.then_some(()) };
    eventually("a host that is ready", is_ready).await;
    assert!(host.stop(Duration::from_secs(20)).await);
    assert_eq!(site.number(DISTINCT).await, EACH);
    assert_eq!(site.number(ALL).await, EACH);
    say(&format!(
        "absent {}: started without it in {within:.1?}, {EACH} events handled {joined:.1?} after it \
         came\n",
        broker.name
    ));
}

#[test]
fn a_host_starts_without_rabbitmq_and_uses_it_when_it_comes() {
    block_on(async {
        if let Some(broker) = Broker::rabbitmq().await {
            check_alone(broker).await;
        }
    });
}

#[test]
fn a_host_starts_without_kafka_and_uses_it_when_it_comes() {
    block_on(async {
        if let Some(broker) = Broker::kafka().await {
            check_alone(broker).await;
        }
    });
}

/// A host whose transport `archive` is away, and goes to the broker of this name.
async fn check_beside(name: &str, site: &Site, host: HostBuilder, come: impl AsyncFnOnce()) {
    let host = host
        .route::<Packed>("archive")
        .endpoint("packing", |e| e.handle(pack))
        .endpoint("audit", |e| e.reads_from("archive").handle(packed));
    let host = host.build().expect("it is put together well");
    let host = host.start().await.expect("one of its brokers is there");
    let bus = host.bus();
    for n in 0..EACH {
        bus.send(Pack { n }).await.expect("it is stored");
        bus.publish(Packed { n }).await.expect("it is stored");
    }
    let sent = Instant::now();
    wait_for(site, EACH).await;
    let past = sent.elapsed();
    assert_eq!(away(&host), ["archive"]);
    assert_eq!(site.number(ALL).await, EACH, "the other is not there");
    come().await;
    wait_for(site, 2 * EACH).await;
    let none = || async { away(&host).is_empty().then_some(()) };
    eventually("both brokers", none).await;
    assert!(host.stop(Duration::from_secs(20)).await);
    assert_eq!(site.number(DISTINCT).await, 2 * EACH);
    assert_eq!(site.number(ALL).await, 2 * EACH);
    say(&format!(
        "absent {name} beside another: {EACH} messages of the other in {past:.1?}\n"
    ));
}

#[test]
fn a_host_starts_with_rabbitmq_while_kafka_is_not_there() {
    let (Some(url), Some(mut cluster)) = (rabbitmq::url(), KafkaBroker::start()) else {
        return;
    };
    block_on(async {
        let Some(site) = site("absent_one").await else {
            return;
        };
        cluster.kill();
        let config = kafka::config(&cluster.address().to_string(), &kafka::prefix());
        let host = builder("absent", &site.url).await;
        let host = host.transport(rabbitmq::transport(&url, &rabbitmq::namespace()));
        let host = host.transport_named("archive", Kafka::new(config));
        check_beside("kafka", &site, host, async || cluster.restart()).await;
    });
}

#[test]
fn a_host_starts_with_kafka_while_rabbitmq_is_not_there() {
    let (Some(url), Some(brokers)) = (rabbitmq::url(), kafka::brokers()) else {
        return;
    };
    block_on(async {
        let Some(site) = site("absent_other").await else {
            return;
        };
        let proxy = AmqpProxy::before(&url).await;
        proxy.set(AmqpMode::Refuse);
        let config = kafka::config(&brokers, &kafka::prefix());
        let host = builder("absent", &site.url).await;
        let host = host.transport(Kafka::new(config));
        let away = rabbitmq::transport(&proxy.url(&url), &rabbitmq::namespace());
        let host = host.transport_named("archive", away);
        let come = async || proxy.set(AmqpMode::Pass);
        check_beside("rabbitmq", &site, host, come).await;
    });
}

/// Wrong is not away: a log-in that is refused ends the start.
#[test]
fn a_host_does_not_start_where_a_broker_refuses_its_password() {
    let Some(url) = rabbitmq::url() else { return };
    block_on(async {
        let Some(site) = site("absent_refused").await else {
            return;
        };
        let wrong = url.replacen("guest:guest", "guest:hunter2", 1);
        assert_ne!(wrong, url);
        let host = builder("refused", &site.url).await;
        let host = host.transport(rabbitmq::transport(&wrong, &rabbitmq::namespace()));
        let host = host.endpoint("audit", |e| e.handle(packed)).build();
        let refused = host.expect("it is put together well").start().await;
        let error = sagabus::error::chain(&refused.expect_err("the password is wrong"));
        assert!(error.contains("refused the login of `guest`"), "{error}");
        assert!(!error.contains("hunter2"), "{error}");
    });
}
