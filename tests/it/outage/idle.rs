//! A host with next to nothing to do: every message leaves once, and nothing is left behind.

use std::collections::BTreeSet;
use std::time::Duration;

use sagabus::prelude::*;
use sagabus::store::StoreAdmin;
use sagabus::{Kind, Store};
use sagabus_testkit::fault_broker::FaultBroker;
use sagabus_testkit::wait::{eventually, grow_older};
use serde::{Deserialize, Serialize};

use crate::databases::say;

use super::site::{run, with_postgres, with_sqlite};

const MESSAGES: usize = 10;
const PAUSE: Duration = Duration::from_millis(300);

#[derive(Serialize, Deserialize)]
struct Ticked {
    n: usize,
}

impl Message for Ticked {
    const TYPE: &'static str = "idle.ticked";
    const KIND: Kind = Kind::Event;
}
impl Event for Ticked {}

async fn listen(_: Ticked) {}

/// Publishes one message after the other, with time enough between them for whatever would publish
/// one again: a claim, an extended lease, a sweep.
async fn check<S: Store + StoreAdmin + Clone>(name: &str, store: S) {
    let broker = FaultBroker::start()
        .await
        .expect("a port can be listened on");
    let host = Host::builder("idle")
        .store(store.clone())
        .transport(broker.transport())
        // Shorter than the test, so that a row that was not settled would come again, and longer
        // than any pause of a busy machine.
        .lease(Duration::from_secs(2))
        .endpoint("listening", |e| e.handle(listen));
    let host = host.build().expect("it can be built");
    let host = host.start().await.expect("it starts");
    let is_empty = || async {
        let counts = store.counts().await.expect("rows can be counted");
        (counts.outbox == 0).then_some(())
    };
    let mut sent = BTreeSet::new();
    for n in 0..MESSAGES {
        let id = host.bus().publish(Ticked { n }).await;
        sent.insert(id.expect("it is stored"));
        eventually("an empty outbox", is_empty).await;
        grow_older(PAUSE).await;
        is_empty().await.expect("an outbox that stays empty");
    }
    let received = || async {
        let done = host.counters().committed.get();
        // The unit that sent a message, and the one that answers it.
        (done >= 2 * MESSAGES as u64).then_some(())
    };
    eventually("the last message", received).await;
    assert!(host.stop(Duration::from_secs(10)).await);
    let log = broker.control().log().await;
    let often = log.published.len();
    say(&format!(
        "idle host on {name}: {} messages sent, {often} times published\n",
        sent.len()
    ));
    assert_eq!(log.taken_ids(), sent);
    assert_eq!(
        often,
        MESSAGES,
        "each was published once: {:?}",
        log.counts()
    );
}

#[test]
fn an_idle_host_on_sqlite_publishes_each_message_once() {
    run(with_sqlite("idle", |store| check("sqlite", store)));
}

#[test]
fn an_idle_host_on_postgres_publishes_each_message_once() {
    run(with_postgres("idle", |store| check("postgres", store)));
}
