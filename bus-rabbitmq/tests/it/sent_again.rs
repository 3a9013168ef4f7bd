//! What the broker lost after it confirmed it, sent again by an operator.

use std::time::Duration;

use lapin::options::QueuePurgeOptions;
use lapin::{Connection, ConnectionProperties};
use sagabus_core::admin::{Action, Change, PAGE_MAX, Page, SentFilter};
use sagabus_core::memory::MemoryStore;
use sagabus_core::store::StoreAdmin;
use sagabus_rabbitmq::RabbitMqConfig;
use sagabus_testkit::bus::parcels::{Pack, pack};
use sagabus_testkit::bus::{Log, start, stop};
use sagabus_testkit::service::block_on;
use sagabus_testkit::wait::eventually;

use crate::site::{builder, config, url};

/// Fewer than a page.
const COUNT: usize = 300;

/// Removes what waits in a queue, and says how much that was.
async fn purge(url: &str, queue: &str) -> u32 {
    let connection = Connection::connect(url, ConnectionProperties::default()).await;
    let connection = connection.expect("the broker answers");
    let channel = connection.create_channel().await.expect("it answers");
    let options = QueuePurgeOptions::default();
    let purged = channel.queue_purge(queue.into(), options).await;
    purged.expect("the queue is there")
}

/// Waits until the broker has confirmed everything, and all of it is kept.
async fn kept(store: &MemoryStore) -> Vec<i64> {
    let look = || async {
        let page = Page::oldest(PAGE_MAX);
        let found = store.sent(&SentFilter::default(), page).await;
        let found = found.expect("what is kept is listed");
        let counts = store.counts().await.expect("rows are counted");
        let ids: Vec<i64> = found.iter().map(|one| one.id).collect();
        (counts.outbox == 0 && ids.len() == COUNT).then_some(ids)
    };
    eventually("what was sent to be kept", look).await.0
}

async fn republish(store: &MemoryStore) {
    let ids = kept(store).await;
    let change = Change {
        who: "ada".to_owned(),
        why: "a queue was purged".to_owned(),
        action: Action::RepublishSent(ids.clone()),
    };
    let done = store.change(&change).await;
    assert_eq!(done.expect("they are sent again"), ids);
}

async fn receiver(
    config: &RabbitMqConfig,
    store: &MemoryStore,
    log: &Log,
) -> sagabus_core::RunningHost {
    let host = builder(config, store, log);
    start(host.endpoint("packing", |e| e.handle(pack))).await
}

/// A queue is purged after its broker took everything: the sender's service sends it again, with the
/// same identities, and what was handled by then has no second effect.
#[test]
fn what_a_broker_lost_is_sent_again_and_handled_once() {
    let Some(url) = url() else { return };
    block_on(async {
        let config = config(&url);
        let (shop, packing, log) = (MemoryStore::new(), MemoryStore::new(), Log::default());
        // The queue is there from the first start on.
        stop(receiver(&config, &packing, &log).await).await;
        let sending = builder(&config, &shop, &log).keep_sent(Duration::from_secs(3600));
        let sending = start(sending).await;
        for n in 0..COUNT as u32 {
            let sent = sending.bus().send(Pack { n }).await;
            sent.expect("it is stored");
        }
        let first = kept(&shop).await;
        let queue = format!("{}packing", config.namespace);
        assert_eq!(purge(&url, &queue).await as usize, COUNT, "it was there");
        let host = receiver(&config, &packing, &log).await;
        assert_eq!(log.lines().len(), 0, "it is lost");

        republish(&shop).await;
        let there = || async { (log.lines().len() >= COUNT).then_some(()) };
        eventually("what was lost", there).await;
        assert!(kept(&shop).await[0] > first[0], "it is kept anew");

        republish(&shop).await;
        let known = || async {
            let known = host.counters().duplicates.get() as usize;
            (known == COUNT).then_some(())
        };
        eventually("messages that are recognised", known).await;
        kept(&shop).await;
        stop(host).await;
        stop(sending).await;
        let mut all = log.lines();
        assert_eq!(all.len(), COUNT, "no second effect");
        all.sort();
        all.dedup();
        assert_eq!(all.len(), COUNT, "each of them");
    });
}
