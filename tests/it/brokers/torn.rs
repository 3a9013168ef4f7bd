//! A key torn across two hosts: one has its first message and loses its link to the broker; the
//! other one gets the second message, which waits.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use sagabus::prelude::*;
use sagabus::{Retry, RunningHost};
use sagabus_testkit::wait::{eventually, grow_older};
use serde::{Deserialize, Serialize};
use tokio::sync::Semaphore;

use super::{ALL, Broker, DISTINCT, Way, builder, site};
use crate::databases::{block_on, say};
use crate::outage::site::Site;

#[derive(Command, Serialize, Deserialize)]
#[message("torn.move")]
struct Move {
    key: String,
    n: i64,
}

/// So many that each of two hosts has some of them, also where they share partitions.
const KEYS: [&str; 8] = ["a", "b", "c", "d", "e", "f", "g", "h"];
const SECONDS: &str = "select count(*) from applied where n = 2";
const REVERSED: &str = "select count(*) from applied first join applied second \
    on second.what = first.what where first.n = 1 and second.n = 2 and first.id > second.id";

/// What happens to the first message of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum First {
    /// It is with its handler when the link is cut.
    InHand,
    /// It has failed and waits in the database for its next try.
    Failed,
}

/// What hosts know of the test.
#[derive(Clone)]
struct Story {
    host: &'static str,
    first: First,
    /// Which host had the first message of each key first.
    seen: Arc<Mutex<BTreeMap<String, &'static str>>>,
    /// Lets go on what the host that was cut off has in hand.
    gate: Arc<Semaphore>,
}

impl Story {
    /// Says whether nobody had it before. The host that is cut off still reaches the database, and
    /// may be given a message again that was taken over there.
    fn note(&self, key: &str) -> bool {
        let mut seen = self.seen.lock().expect("no handler panics with it");
        let is_first = !seen.contains_key(key);
        seen.entry(key.to_owned()).or_insert(self.host);
        is_first
    }
}

async fn apply(command: Move, cx: Ctx, story: State<Story>, mut tx: Tx<Postgres>) -> Result {
    if command.n == 1 {
        let is_first = story.note(&command.key);
        if story.first == First::Failed && cx.attempt() == 1 {
            return Err(HandlerError::new("not at the first try"));
        }
        if story.first == First::InHand && story.host == "cut" && is_first {
            let turn = story.gate.acquire().await;
            turn.expect("it is never closed").forget();
        }
    }
    sqlx::query("insert into applied (what, n) values ($1, $2)")
        .bind(&command.key)
        .bind(command.n)
        .execute(tx.conn().await?)
        .await?;
    Ok(())
}

#[test]
fn over_rabbitmq_the_second_waits_for_the_first_that_is_in_hand() {
    block_on(async {
        if let Some(broker) = Broker::rabbitmq().await {
            check(broker, First::InHand).await;
        }
    });
}

#[test]
fn over_rabbitmq_the_second_waits_for_the_first_that_failed() {
    block_on(async {
        if let Some(broker) = Broker::rabbitmq().await {
            check(broker, First::Failed).await;
        }
    });
}

#[test]
fn over_kafka_the_second_waits_for_the_first_that_is_in_hand() {
    block_on(async {
        if let Some(broker) = Broker::kafka().await {
            check(broker, First::InHand).await;
        }
    });
}

#[test]
fn over_kafka_the_second_waits_for_the_first_that_failed() {
    block_on(async {
        if let Some(broker) = Broker::kafka().await {
            check(broker, First::Failed).await;
        }
    });
}

async fn check(broker: Broker, first: First) {
    let name = format!("torn_{}_{first:?}", broker.name).to_lowercase();
    let Some(site) = site(&name).await else {
        return;
    };
    let story = Story {
        host: "cut",
        first,
        seen: Arc::default(),
        gate: Arc::new(Semaphore::new(0)),
    };
    let cut = start(&site, &broker, Way::Cuttable, &story).await;
    let whole = Story {
        host: "whole",
        ..story.clone()
    };
    let whole = start(&site, &broker, Way::Direct, &whole).await;
    // Until both have their share of partitions.
    grow_older(Duration::from_secs(2)).await;

    send(&whole, 1).await;
    let seen = || async {
        let seen = story
            .seen
            .lock()
            .expect("no handler panics with it")
            .clone();
        (seen.len() == KEYS.len()).then_some(seen)
    };
    let (seen, _) = eventually("the first messages of all keys", seen).await;
    let torn = seen.values().filter(|host| **host == "cut").count();
    assert!(torn > 0, "the host that is cut off has none: {seen:?}");
    let few = |count: usize| i64::try_from(count).expect("they are few");
    let (each, torn) = (few(KEYS.len()), few(torn));
    send(&whole, 2).await;
    if first == First::InHand {
        grow_older(Duration::from_millis(500)).await;
        assert!(site.number(SECONDS).await <= each - torn, "they wait");
    }
    (broker.cut)(true);
    if first == First::Failed {
        // Well before the first ones are tried again.
        grow_older(PAUSE / 5).await;
        assert_eq!(site.number(SECONDS).await, 0, "the second ones wait");
    }
    let all = || async { (site.number(ALL).await == 2 * each).then_some(()) };
    let ((), waited) = eventually("all messages applied", all).await;
    // What the host that was cut off still had in hand comes to nothing.
    story.gate.add_permits(KEYS.len());
    (broker.cut)(false);
    grow_older(Duration::from_secs(1)).await;
    for host in [cut, whole] {
        assert!(host.stop(Duration::from_secs(20)).await);
    }
    let (all, distinct) = (site.number(ALL).await, site.number(DISTINCT).await);
    assert_eq!((all, distinct), (2 * each, 2 * each), "nothing twice");
    assert_eq!(site.number(REVERSED).await, 0, "keys out of order");
    say(&format!(
        "{}: {torn} of {each} keys torn, first {first:?}: in order, all applied {waited:.1?} after \
         the cut\n",
        broker.name
    ));
}

/// How long a message that failed waits.
const PAUSE: Duration = Duration::from_secs(8);

async fn start(site: &Site, broker: &Broker, way: Way, story: &Story) -> RunningHost {
    let retry = Retry {
        immediate: 0,
        delayed: 3,
        delay: PAUSE,
        delay_max: PAUSE,
        ..Retry::default()
    };
    let builder = builder(story.host, &site.url).await.state(story.clone());
    let builder = (broker.reach)(builder, way);
    let builder = builder.endpoint("moves", |e| {
        e.handle(apply).order(Order::PerKey).retry(retry)
    });
    let host = builder.build().expect("it is put together well");
    host.start().await.expect("the host starts")
}

async fn send(host: &RunningHost, n: i64) {
    let bus = host.bus();
    for key in KEYS {
        let sent = bus.send(Move {
            key: key.to_owned(),
            n,
        });
        sent.key(key).await.expect("it is stored");
    }
}
