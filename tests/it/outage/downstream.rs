//! What every handler of an endpoint needs is away for a minute: nothing dies, the broker keeps its
//! messages, and they go on within seconds.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use sagabus::prelude::*;
use sagabus::store::StoreAdmin;
use sagabus::{Flow, Kind, RunningHost, Store};
use sagabus_testkit::fault_broker::FaultBroker;
use sagabus_testkit::wait::{eventually, grow_older};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use crate::databases::say;

use super::site::{run, with_postgres, with_sqlite};

const OUTAGE: Duration = Duration::from_secs(60);
/// How soon messages have to go on when it is over.
const RESUME_MAX: Duration = Duration::from_secs(5);
/// One message in this time: about 600 in the outage, more than twice what the endpoint has places
/// for.
const PACE: Duration = Duration::from_millis(100);

#[derive(Serialize, Deserialize)]
struct Charge {
    n: u64,
}

impl Message for Charge {
    const TYPE: &'static str = "downstream.charge";
    const KIND: Kind = Kind::Command;
}
impl Command for Charge {}

async fn charge(_: Charge, is_up: State<AtomicBool>) -> Result {
    match is_up.load(Ordering::SeqCst) {
        true => Ok(()),
        false => Err(HandlerError::new("the bank's database is away")),
    }
}

fn is_open(host: &RunningHost) -> bool {
    host.endpoints().iter().all(|one| one.flow == Flow::Open)
}

/// With the settings that everybody has who sets none.
async fn check<S: Store + StoreAdmin + Clone>(name: &str, store: S) {
    let broker = FaultBroker::start()
        .await
        .expect("a port can be listened on");
    let builder = Host::builder("charging")
        .store(store.clone())
        .transport(broker.transport())
        .state(AtomicBool::new(false))
        .endpoint("charging", |e| e.handle(charge));
    let host = builder.build().expect("it can be built");
    let is_up: Arc<AtomicBool> = host.state().expect("it was given");
    let host = host.start().await.expect("it starts");
    let began = Instant::now();
    let (mut sent, mut rows_max) = (0, 0);
    while began.elapsed() < OUTAGE {
        let charge = Charge { n: sent };
        host.bus().send(charge).await.expect("it is stored");
        sent += 1;
        let counts = store.counts().await.expect("rows can be counted");
        assert_eq!(counts.dead_letters, 0, "after {:?}", began.elapsed());
        rows_max = rows_max.max(counts.outbox);
        grow_older(PACE).await;
    }
    assert!(!is_open(&host), "it noticed the outage");
    let over = Instant::now();
    is_up.store(true, Ordering::SeqCst);
    let is_resumed = || async { is_open(&host).then_some(()) };
    eventually("an endpoint that goes on", is_resumed).await;
    let resumed = over.elapsed();
    let is_done = || async {
        let counts = store.counts().await.expect("rows can be counted");
        // The unit that sent a message, and the one that answers it.
        (counts.outbox == 0 && host.counters().committed.get() >= 2 * sent).then_some(())
    };
    let (_, _) = eventually("the last charge", is_done).await;
    let done = over.elapsed();
    say(&format!(
        "a minute without the bank on {name}: {sent} messages, {rows_max} rows at most, resumed \
         after {resumed:?}, all done after {done:?}\n"
    ));
    assert!(resumed < RESUME_MAX, "{resumed:?}");
    // Those by whose failures it was noticed, and what is on its way to the broker.
    assert!(rows_max < 40, "{rows_max} rows");
    let counts = store.counts().await.expect("rows can be counted");
    assert_eq!((counts.dead_letters, counts.parked), (0, 0));
    assert!(host.stop(Duration::from_secs(10)).await);
}

#[test]
fn a_minute_without_what_handlers_need_on_sqlite() {
    run(with_sqlite("minute", |store| check("sqlite", store)));
}

#[test]
fn a_minute_without_what_handlers_need_on_postgres() {
    run(with_postgres("minute", |store| check("postgres", store)));
}
