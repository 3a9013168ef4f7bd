//! What a broker lost after it confirmed it, sent again by an operator.

use std::time::Duration;

use lapin::options::QueuePurgeOptions;
use lapin::{Connection, ConnectionProperties};
use sagabus::prelude::*;
use sagabus::store::StoreAdmin;
use sagabus::{PgStore, RunningHost};
use sagabus_core::admin::{Page, SentFilter};
use sagabus_testkit::service::block_on;
use sagabus_testkit::wait::eventually;
use serde::{Deserialize, Serialize};

use super::{ALL, DISTINCT, builder, site};
use crate::databases::say;
use crate::outage::site::Site;
use crate::rabbitmq;

#[derive(Command, Serialize, Deserialize)]
#[message("again.pack")]
struct Pack {
    n: i64,
}

async fn pack(command: Pack, mut tx: Tx<Postgres>) -> Result {
    sqlx::query("insert into applied (what, n) values ('pack', $1)")
        .bind(command.n)
        .execute(tx.conn().await?)
        .await?;
    Ok(())
}

const EACH: i64 = 1_200;

/// The service that packs: its endpoint's queue is there from its first start on.
async fn receiver(site: &Site, url: &str, namespace: &str) -> RunningHost {
    let host = builder("packing", &site.url).await;
    let host = host.transport(rabbitmq::transport(url, namespace));
    let host = host.endpoint("packing", |e| e.handle(pack)).build();
    let host = host.expect("it is put together well").start().await;
    host.expect("the broker is there")
}

/// The service that sends, and keeps what it sent.
async fn sender(site: &Site, url: &str, namespace: &str, kept: Duration) -> RunningHost {
    let host = builder("shop", &site.url).await.keep_sent(kept);
    let host = host.transport(rabbitmq::transport(url, namespace)).build();
    let host = host.expect("it is put together well").start().await;
    host.expect("the broker is there")
}

/// Removes what waits in a queue, and says how much that was.
async fn purge(url: &str, queue: &str) -> u32 {
    let connection = Connection::connect(url, ConnectionProperties::default()).await;
    let connection = connection.expect("the broker answers");
    let channel = connection.create_channel().await.expect("it answers");
    let options = QueuePurgeOptions::default();
    let purged = channel.queue_purge(queue.into(), options).await;
    purged.expect("the queue is there")
}

async fn kept(store: &PgStore) -> Vec<i64> {
    let mut page = Page::oldest(500);
    let mut all = Vec::new();
    loop {
        let found = store.sent(&SentFilter::default(), page).await;
        let found = found.expect("what is kept is listed");
        let Some(last) = found.last().map(|one| one.id) else {
            return all;
        };
        all.extend(found.iter().map(|one| one.id));
        page.after = Some(last);
    }
}

/// Waits until the broker has confirmed everything, and all of it is kept.
async fn wait_until_kept(store: &PgStore) -> Vec<i64> {
    let look = || async {
        let counts = store.counts().await.expect("rows are counted");
        let kept = kept(store).await;
        (counts.outbox == 0 && kept.len() as i64 == EACH).then_some(kept)
    };
    eventually("what was sent to be kept", look).await.0
}

async fn republish(site: &Site) -> u8 {
    let words = "sagabus outbox republish --since 1h --type again.pack --at-most 2000 --yes \
        --why purged --role operator --store";
    let words = words.split(' ').chain([site.url.as_str()]);
    sagabus_cli::run_with(words).await
}

/// A queue is purged after its broker took everything: the sender's service sends it again, with the
/// same identities, and what was handled by then has no second effect.
#[test]
fn what_a_broker_lost_is_sent_again_and_handled_once() {
    let Some(url) = rabbitmq::url() else { return };
    block_on(async {
        let (Some(shop), Some(packing)) = (site("again_shop").await, site("again").await) else {
            return;
        };
        let namespace = rabbitmq::namespace();
        let host = receiver(&packing, &url, &namespace).await;
        assert!(host.stop(Duration::from_secs(20)).await);
        let store = PgStore::connect(&shop.url).await.expect("it answers");
        assert_eq!(republish(&shop).await, 1, "nobody keeps anything yet");

        let sending = sender(&shop, &url, &namespace, Duration::from_secs(3600)).await;
        for n in 0..EACH {
            sending.bus().send(Pack { n }).await.expect("it is stored");
        }
        let first = wait_until_kept(&store).await;
        let queue = format!("{namespace}packing");
        assert_eq!(i64::from(purge(&url, &queue).await), EACH, "it was there");
        let host = receiver(&packing, &url, &namespace).await;
        assert_eq!(packing.number(ALL).await, 0, "it is lost");

        assert_eq!(republish(&shop).await, 0);
        let there = || async { (packing.number(ALL).await >= EACH).then_some(()) };
        eventually("what was lost", there).await;
        let again = wait_until_kept(&store).await;
        assert!(again[0] > first[0], "kept anew");

        assert_eq!(republish(&shop).await, 0, "once more, for nothing");
        let known = || async {
            let known = host.counters().duplicates.get() as i64;
            (known == EACH).then_some(())
        };
        eventually("messages that are recognised", known).await;
        wait_until_kept(&store).await;
        for host in [host, sending] {
            assert!(host.stop(Duration::from_secs(20)).await);
        }
        assert_eq!(packing.number(ALL).await, EACH);
        assert_eq!(packing.number(DISTINCT).await, EACH);
        say(&format!(
            "sent again rabbitmq: {EACH} purged, {EACH} handled, {EACH} sent a third time, no second \
             effect\n"
        ));
    });
}
