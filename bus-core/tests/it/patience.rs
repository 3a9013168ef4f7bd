//! What does not wait for ever. It would for minutes, so time is stopped.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use sagabus_core::endpoint::EndpointName;
use sagabus_core::envelope::Envelope;
use sagabus_core::memory::{MemoryStore, MemoryTransport};
use sagabus_core::store::StoreAdmin;
use sagabus_core::transport::{Publication, Transport};
use sagabus_core::{Command, Host, Kind, Message, RunningHost, State};
use serde::{Deserialize, Serialize};
use tokio::time::{Instant, sleep};

const MINUTE: Duration = Duration::from_secs(60);

#[derive(Serialize, Deserialize)]
struct Print {
    page: u32,
}

impl Message for Print {
    const TYPE: &'static str = "patience.print";
    const KIND: Kind = Kind::Command;
}
impl Command for Print {}

async fn print(_: Print) {}

/// A broker forgets who has had its message in hand for long: RabbitMQ after half an hour.
#[tokio::test(start_paused = true)]
async fn a_brokers_message_that_waits_for_its_turn_is_written_down_after_ten_minutes() {
    let (store, broker) = (MemoryStore::new(), MemoryTransport::new());
    let host = Host::builder("printer")
        .store(store.clone())
        .transport(broker.clone())
        .endpoint("work", |e| e.handle(print).rate(1, MINUTE * 60));
    let host = host.build().expect("it is put together well").start().await;
    let host = host.expect("it starts");
    let page = |page| Publication {
        address: "command/patience.print".to_owned(),
        envelope: Envelope::new(&Print { page }).expect("it is encoded"),
        key: None,
    };
    for sent in broker.publish(&[page(1), page(2)]).await {
        sent.expect("the broker takes it");
    }
    let work = EndpointName::new("work").expect("it is a name");
    let seen = async || {
        let counts = store.counts().await.expect("rows are counted");
        (
            broker.depth(&work),
            counts.outbox,
            host.counters().committed.get(),
        )
    };
    sleep(MINUTE * 9).await;
    assert_eq!(seen().await, ((0, 1), 0, 1), "one waits in hand");
    sleep(MINUTE * 2).await;
    // That it was written down is a commit, too.
    assert_eq!(seen().await, ((0, 0), 1, 2), "it waits as a row");
    sleep(MINUTE * 120).await;
    assert_eq!(seen().await, ((0, 0), 0, 3), "it had its turn");
    assert!(host.stop(MINUTE).await, "it stops");
}

#[tokio::test(start_paused = true)]
async fn a_handler_that_stops_its_own_host_is_let_go_when_the_stop_is_over() {
    type Own = Arc<OnceLock<RunningHost>>;
    async fn quit(_: Print, host: State<Own>) {
        host.get().expect("it runs").stop(MINUTE).await;
        unreachable!("a stop waits for this handler");
    }
    let (own, store) = (Own::default(), MemoryStore::new());
    let host = Host::builder("printer")
        .store(store.clone())
        .state(Arc::clone(&own))
        .endpoint("work", |e| e.handle(quit));
    let host = host.build().expect("it is put together well").start().await;
    own.set(host.expect("it starts")).expect("it is the first");
    let host = own.get().expect("it runs");
    let sent = host.bus().send(Print { page: 1 }).await;
    sent.expect("it is stored");
    sleep(Duration::from_secs(1)).await;
    let began = Instant::now();
    host.stop(MINUTE * 10).await;
    assert!(began.elapsed() <= MINUTE, "{:?}", began.elapsed());
    let counts = store.counts().await.expect("rows are counted");
    assert_eq!(counts.outbox, 1, "it comes again");
}
