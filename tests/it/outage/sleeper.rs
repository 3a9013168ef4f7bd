//! A handler that sleeps in its transaction on a message, of which another host has a copy: nobody
//! else waits for it, and there is one effect.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use sagabus::prelude::*;
use sagabus::transport::{Publication, Transport, address};
use sagabus::{Envelope, Kind, PgStore, Postgres, RunningHost};
use sagabus_testkit::fault_broker::FaultBroker;
use sagabus_testkit::wait::eventually;
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;

use crate::databases::say;

use super::site::{Site, run};

/// Messages of everybody else, at each of the two hosts.
const OTHERS: i64 = 150;

#[derive(Serialize, Deserialize)]
struct Pay {
    n: i64,
}

impl Message for Pay {
    const TYPE: &'static str = "sleeper.pay";
    const KIND: Kind = Kind::Command;
}
impl Command for Pay {}

/// The number of the message that is slept on.
const SLEPT_ON: i64 = -1;

/// Where the handler of one host sleeps until the test wakes it.
#[derive(Default)]
struct Bed {
    is_free: AtomicBool,
    sleeps: Notify,
    wakes: Notify,
}

async fn pay(pay: Pay, bed: State<Bed>, mut tx: Tx<Postgres>) -> Result {
    let insert = sqlx::query("insert into transfer values ($1, 1)").bind(pay.n);
    insert.execute(tx.conn().await?).await?;
    if pay.n == SLEPT_ON && bed.is_free.swap(false, Ordering::SeqCst) {
        bed.sleeps.notify_one();
        bed.wakes.notified().await;
    }
    Ok(())
}

/// A host with a broker of its own, so that both get a copy, on connections of its own.
struct Till {
    broker: FaultBroker,
    bed: Arc<Bed>,
    host: RunningHost,
}

impl Till {
    async fn open(site: &Site, sleeps: bool) -> Self {
        let broker = FaultBroker::start().await;
        let broker = broker.expect("a port can be listened on");
        let store = PgStore::connect(&site.url).await;
        let bed = Bed::default();
        bed.is_free.store(sleeps, Ordering::SeqCst);
        let host = Host::builder("till")
            .store(store.expect("it answers"))
            .transport(broker.transport())
            .state(bed)
            .endpoint("payments", |e| e.handle(pay));
        let host = host.build().expect("it can be built");
        let bed = host.state().expect("it was given");
        let host = host.start().await.expect("it starts");
        Self { broker, bed, host }
    }

    async fn deliver(&self, envelopes: impl IntoIterator<Item = Envelope>) {
        let publication = |envelope| Publication {
            address: address(Kind::Command, Pay::TYPE),
            key: None,
            envelope,
        };
        let window: Vec<_> = envelopes.into_iter().map(publication).collect();
        for answer in self.broker.transport().publish(&window).await {
            answer.expect("the broker takes it");
        }
    }
}

fn message(n: i64) -> Envelope {
    Envelope::new(&Pay { n }).expect("it can be encoded")
}

#[test]
fn nobody_waits_for_a_handler_that_sleeps_on_a_message_of_which_another_host_has_a_copy() {
    run(async {
        let Some(site) = Site::open("sleeper").await else {
            return;
        };
        let sleepy = Till::open(&site, true).await;
        let other = Till::open(&site, false).await;
        let slept_on = message(SLEPT_ON);
        sleepy.deliver([slept_on.clone()]).await;
        let asleep = tokio::time::timeout(Duration::from_secs(20), sleepy.bed.sleeps.notified());
        asleep.await.expect("its handler has written its row");

        other.deliver([slept_on]).await;
        sleepy.deliver((0..OTHERS).map(message)).await;
        other.deliver((OTHERS..2 * OTHERS).map(message)).await;
        let all = 2 * OTHERS + 1;
        let all_but_it = || async {
            let rows = site.number("select count(*) from transfer").await;
            (rows == all).then_some(())
        };
        let ((), took) = eventually("everybody else's rows and the copy's", all_but_it).await;
        let open = "select count(*) from pg_stat_activity where datname = current_database() \
            and state = 'idle in transaction'";
        let is_asleep = || async { (site.number(open).await == 1).then_some(()) };
        eventually("one transaction that is open", is_asleep).await;

        sleepy.bed.wakes.notify_one();
        let counters = sleepy.host.counters();
        let is_told = || async { (counters.duplicates.get() == 1).then_some(()) };
        eventually("the sleeper's end", is_told).await;
        for till in [sleepy, other] {
            assert!(
                till.host.stop(Duration::from_secs(20)).await,
                "nothing in hand"
            );
        }
        let effects = site
            .number("select count(*) from transfer where id = -1")
            .await;
        say(&format!(
            "a handler slept in its transaction: {} others were handled meanwhile in {took:.1?}, \
             effects of its message {effects}\n",
            2 * OTHERS
        ));
        assert_eq!(effects, 1);
        assert_eq!(site.number("select count(*) from transfer").await, all);
        assert!(site.attempts_of_the_dead().await.is_empty());
    });
}
