//! One host over RabbitMQ and Kafka: while one is dead, the other's messages arrive.

use std::time::Duration;

use sagabus::prelude::*;
use sagabus::{Kafka, PgStore};
use sagabus_testkit::kafka_broker::KafkaBroker;
use sagabus_testkit::rabbitmq_broker::RabbitMqBroker;
use sagabus_testkit::service::block_on;
use sagabus_testkit::wait::eventually;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::{ALL, DISTINCT, builder, site};
use crate::databases::say;
use crate::{kafka, rabbitmq};

#[derive(Command, Serialize, Deserialize)]
#[message("several.pack")]
struct Pack {
    n: i64,
}

#[derive(Event, Serialize, Deserialize)]
#[message("several.packed")]
struct Packed {
    n: i64,
}

async fn pack(command: Pack, mut tx: Tx<Postgres>) -> Result<Packed> {
    sqlx::query("insert into applied (what, n) values ('pack', $1)")
        .bind(command.n)
        .execute(tx.conn().await?)
        .await?;
    Ok(Packed { n: command.n })
}

async fn note(event: Packed, mut tx: Tx<Postgres>) -> Result {
    sqlx::query("insert into applied (what, n) values ('packed', $1)")
        .bind(event.n)
        .execute(tx.conn().await?)
        .await?;
    Ok(())
}

const COMMANDS: &str = "select count(*) from applied where what = 'pack'";
const EVENTS: &str = "select count(*) from applied where what = 'packed'";
/// Messages of each kind in each round.
const EACH: i64 = 150;

#[test]
fn a_dead_broker_delays_no_row_of_the_other() {
    let (Some(amqp), Some(mut cluster)) = (RabbitMqBroker::start(), KafkaBroker::start()) else {
        return;
    };
    block_on(async {
        let Some(site) = site("several").await else {
            return;
        };
        let prefix = kafka::prefix();
        let config = kafka::config(&cluster.address().to_string(), &prefix);
        let host = builder("several", &site.url)
            .await
            .transport(rabbitmq::transport(&amqp.url(), &rabbitmq::namespace()))
            .transport_named("archive", Kafka::new(config))
            .route::<Packed>("archive")
            .endpoint("packing", |e| e.handle(pack))
            .endpoint("audit", |e| e.reads_from("archive").handle(note));
        let host = host.build().expect("it is put together well");
        let host = host.start().await.expect("both brokers are there");
        // What is on its way when a broker that was declared a moment ago is killed is another
        // test's matter.
        amqp.control(&["stop_app"]);
        amqp.control(&["start_app"]);
        let bus = host.bus();
        let at_least = async |sql, n| {
            let look = || async { (site.number(sql).await >= n).then_some(()) };
            let started = Instant::now();
            eventually(sql, look).await;
            started.elapsed()
        };
        send(&bus, 0).await;
        at_least(COMMANDS, EACH).await;
        at_least(EVENTS, 2 * EACH).await;

        amqp.kill();
        send(&bus, 1).await;
        let past_rabbitmq = at_least(EVENTS, 3 * EACH).await;
        assert_eq!(site.number(COMMANDS).await, EACH, "it is dead");
        amqp.restart();
        at_least(COMMANDS, 2 * EACH).await;
        at_least(EVENTS, 4 * EACH).await;

        cluster.kill();
        send(&bus, 2).await;
        let past_kafka = at_least(COMMANDS, 3 * EACH).await;
        assert_eq!(site.number(EVENTS).await, 4 * EACH, "it is dead");
        cluster.restart();
        at_least(EVENTS, 6 * EACH).await;

        let store = PgStore::connect(&site.url).await.expect("it answers");
        wait_until_empty(&store).await;
        assert!(host.stop(Duration::from_secs(20)).await);
        let (all, distinct) = (site.number(ALL).await, site.number(DISTINCT).await);
        assert_eq!((all, distinct), (9 * EACH, 9 * EACH));
        say(&format!(
            "several brokers: effects {all}, lost 0, duplicated 0; {EACH} events past a dead \
             RabbitMQ in {past_rabbitmq:.1?}, {EACH} commands past a dead Kafka in {past_kafka:.1?}\n"
        ));
    });
}

/// Sends commands, each of which makes an event, and other events beside them.
async fn send(bus: &Bus, round: i64) {
    for n in round * EACH..(round + 1) * EACH {
        bus.send(Pack { n }).await.expect("it is stored");
        let event = bus.publish(Packed { n: -1 - n });
        event.await.expect("it is stored");
    }
}

async fn wait_until_empty(store: &PgStore) {
    use sagabus::store::StoreAdmin;
    let look = || async {
        let counts = store.counts().await.expect("rows can be counted");
        (counts.outbox == 0).then_some(())
    };
    eventually("an empty outbox", look).await;
}
