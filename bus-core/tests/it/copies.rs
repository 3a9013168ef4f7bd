//! Copies of one message that are handled at the same time: what becomes of it is counted once.

use std::sync::Arc;
use std::time::Duration;

use sagabus_core::admin::{DeadLetterFilter, Page};
use sagabus_core::envelope::Envelope;
use sagabus_core::memory::{MemoryStore, MemoryTransport};
use sagabus_core::store::StoreAdmin;
use sagabus_core::transport::{Publication, Transport};
use sagabus_core::{Command, HandlerError, Host, Kind, Message, Result, State};
use serde::{Deserialize, Serialize};
use tokio::sync::Barrier;
use tokio::time::sleep;

#[derive(Serialize, Deserialize)]
struct Print {
    page: u32,
}

impl Message for Print {
    const TYPE: &'static str = "copies.print";
    const KIND: Kind = Kind::Command;
}
impl Command for Print {}

async fn refuse_together(_: Print, both: State<Arc<Barrier>>) -> Result {
    both.wait().await;
    Err(HandlerError::new("no paper").terminal())
}

#[tokio::test(start_paused = true)]
async fn two_copies_that_fail_at_once_are_one_dead_letter_and_counted_as_one() {
    let (store, broker) = (MemoryStore::new(), MemoryTransport::new());
    let host = Host::builder("printer")
        .store(store.clone())
        .transport(broker.clone())
        .state(Arc::new(Barrier::new(2)))
        .endpoint("work", |e| e.handle(refuse_together));
    let host = host.build().expect("it is put together well").start().await;
    let host = host.expect("it starts");
    let copy = Publication {
        address: "command/copies.print".to_owned(),
        envelope: Envelope::new(&Print { page: 1 }).expect("it is encoded"),
        key: None,
    };
    for sent in broker.publish(&[copy.clone(), copy]).await {
        sent.expect("the broker takes it");
    }
    let counters = host.counters();
    while counters.dead_lettered.get() + counters.duplicates.get() < 2 {
        sleep(Duration::from_millis(10)).await;
    }
    let counted = (counters.dead_lettered.get(), counters.duplicates.get());
    assert_eq!(counted, (1, 1));
    let all = DeadLetterFilter::default();
    let found = store.find_dead_letters(&all, Page::latest(10));
    assert_eq!(found.await.expect("it is read").len(), 1);
    assert!(host.stop(Duration::from_secs(10)).await, "it stops");
}
