//! An event is announced while PostgreSQL is out of reach: the API answers, and it is applied later.

use std::time::Duration;

use sagabus::prelude::*;
use sagabus::{Fate, MessageId};
use sagabus_testkit::wait::eventually;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::{ALL, Broker, DISTINCT, Way, builder, site};
use crate::databases::say;
use sagabus_testkit::postgres_proxy::Mode;

#[derive(Event, Serialize, Deserialize)]
#[message("announced.shipped")]
struct Shipped {
    n: i64,
}

#[derive(Event, Serialize, Deserialize)]
#[message("announced.lost")]
struct Lost {}

async fn apply(event: Shipped, mut tx: Tx<Postgres>) -> Result {
    sqlx::query("insert into applied (what, n) values ('shipped', $1)")
        .bind(event.n)
        .execute(tx.conn().await?)
        .await?;
    Ok(())
}

async fn refuse(_: Lost) -> Result {
    Err(HandlerError::new("this cannot be").terminal())
}

/// Long enough for anything that is going to happen.
const LONG: Duration = Duration::from_secs(30);
/// How long the API waits for what cannot come.
const SHORT: Duration = Duration::from_millis(300);
/// Announced while the database is away.
const MEANWHILE: i64 = 20;

#[test]
fn over_rabbitmq_an_announcement_needs_no_database() {
    crate::databases::block_on(async {
        if let Some(broker) = Broker::rabbitmq().await {
            check(broker).await;
        }
    });
}

#[test]
fn over_kafka_an_announcement_needs_no_database() {
    crate::databases::block_on(async {
        if let Some(broker) = Broker::kafka().await {
            check(broker).await;
        }
    });
}

async fn check(broker: Broker) {
    let Some(site) = site(&format!("announced_{}", broker.name)).await else {
        return;
    };
    let proxy = site.proxy(None).await;
    let builder = builder("shop", &site.behind(&proxy)).await;
    let builder = (broker.reach)(builder, Way::Direct);
    let builder = builder.announces::<Shipped>().announces::<Lost>();
    let host = builder.endpoint("shipping", |e| e.handle(apply).handle(refuse));
    let host = host.build().expect("it is put together well");
    let host = host.start().await.expect("both are there");
    let bus = host.bus();
    let first = bus.announce(Shipped { n: 0 }).applied_within(LONG).await;
    assert_eq!(first.expect("the broker takes it"), Fate::Applied);
    let lost = bus.announce(Lost {}).applied_within(LONG).await;
    assert_eq!(lost.expect("the broker takes it"), Fate::DeadLettered);

    proxy.set(Mode::Refuse).await;
    let (id, mut slowest) = (MessageId::new(), Duration::ZERO);
    let asked = bus.announce(Shipped { n: 1 }).with_id(id);
    let pending = asked.applied_within(SHORT).await;
    assert_eq!(pending.expect("the broker takes it"), Fate::Pending);
    for n in 2..=MEANWHILE {
        let started = Instant::now();
        let announced = bus.announce(Shipped { n }).await;
        announced.expect("the broker takes it");
        slowest = slowest.max(started.elapsed());
    }
    assert_eq!(site.number(ALL).await, 1, "the database is out of reach");

    proxy.set(Mode::Pass).await;
    let back = Instant::now();
    let all = || async { (site.number(ALL).await == 1 + MEANWHILE).then_some(()) };
    eventually("all that was announced applied", all).await;
    let caught_up = back.elapsed();
    // Whoever was told `Pending` asks again, under the same identity.
    let again = bus.announce(Shipped { n: 1 }).with_id(id);
    let again = again.applied_within(LONG).await;
    assert_eq!(again.expect("the broker takes it"), Fate::Applied);
    assert!(host.stop(Duration::from_secs(20)).await);
    assert_eq!(site.number(DISTINCT).await, 1 + MEANWHILE);
    assert_eq!(site.number(ALL).await, 1 + MEANWHILE, "nothing twice");
    say(&format!(
        "{}: {MEANWHILE} events announced without the database, the slowest in {slowest:.1?}, \
         applied {caught_up:.1?} after it was back\n",
        broker.name
    ));
}
