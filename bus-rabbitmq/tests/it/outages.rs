//! What holds when the broker, its connections or a receiver are lost in the middle of work.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use lapin::options::{ExchangeDeleteOptions, QueueDeleteOptions};
use lapin::{Connection, ConnectionProperties};
use sagabus_core::endpoint::{EndpointName, Order};
use sagabus_core::error::TransportError;
use sagabus_core::id::{MessageId, StoreId};
use sagabus_core::memory::MemoryStore;
use sagabus_core::message::Kind;
use sagabus_core::store::{EndpointSpec, Subscription};
use sagabus_core::transport::{Delivery, Health, Publication, Transport, address};
use sagabus_core::{Envelope, Headers};
use sagabus_rabbitmq::{RabbitMq, RabbitMqConfig};
use sagabus_testkit::amqp_proxy::{AmqpProxy, Mode};
use sagabus_testkit::bus::parcels::{Pack, note, pack, quiet};
use sagabus_testkit::bus::{Log, start, stop};
use sagabus_testkit::rabbitmq_broker::RabbitMqBroker;
use sagabus_testkit::service::{block_on, say};
use sagabus_testkit::wait::{PATIENCE, eventually, grow_older};
use tokio::time::Instant;

use crate::site::{builder, config, rabbitmq, url};

/// Says how often a broker is killed; more is for a longer run by hand.
const KILLS: &str = "SAGABUS_BROKER_KILLS";
/// Tells the child that holds deliveries where to get them.
const HOLDER: &str = "SAGABUS_HOLDER_URL";
/// What a receiver that is killed holds.
const HELD: usize = 100;

fn spec(kind: Kind) -> EndpointSpec {
    EndpointSpec {
        name: EndpointName::new("orders").expect("a usable name"),
        order: Order::Unordered,
        subscriptions: vec![Subscription {
            message_type: "shop.placed".into(),
            kind,
        }],
    }
}

fn messages(kind: Kind, count: usize) -> Vec<Publication> {
    let message = |_| Publication {
        address: address(kind, "shop.placed"),
        envelope: Envelope {
            id: MessageId::new(),
            message_type: "shop.placed".into(),
            headers: Headers::new(),
            body: vec![7; 200].into(),
        },
        key: None,
    };
    (0..count).map(message).collect()
}

fn ids(messages: &[Publication]) -> BTreeSet<MessageId> {
    messages.iter().map(|one| one.envelope.id).collect()
}

async fn declare(transport: &RabbitMq, store: StoreId, kind: Kind) {
    let declared = transport.declare(store, &[spec(kind)]).await;
    declared.expect("it is declared");
}

async fn receive(transport: &RabbitMq, kind: Kind) -> BoxStream<'static, Delivery> {
    let deliveries = transport.subscribe(&spec(kind), 100).await;
    deliveries.expect("it is declared")
}

/// Publishes until everything was taken, as the relay does it; returns how often it was tried.
async fn publish_all(transport: &RabbitMq, messages: &[Publication]) -> u32 {
    let mut left = messages.to_vec();
    let mut tries = 0;
    let started = Instant::now();
    while !left.is_empty() {
        assert!(
            started.elapsed() < PATIENCE * 3,
            "{} are never taken",
            left.len()
        );
        tries += 1;
        let mut answers = transport.publish(&left).await.into_iter();
        left.retain(|_| answers.next().is_none_or(|answer| answer.is_err()));
        grow_older(Duration::from_millis(20)).await;
    }
    tries
}

/// Receives and acks until all of these have come; returns how many came again.
async fn take_all(
    deliveries: &mut BoxStream<'static, Delivery>,
    wanted: BTreeSet<MessageId>,
) -> usize {
    let (mut missing, mut again) = (wanted.clone(), 0);
    while !missing.is_empty() {
        let next = tokio::time::timeout(PATIENCE * 2, deliveries.next()).await;
        let next = next.unwrap_or_else(|_| panic!("{} are lost", missing.len()));
        let delivery = next.expect("the stream goes on");
        assert!(wanted.contains(&delivery.envelope.id), "nobody sent this");
        again += usize::from(!missing.remove(&delivery.envelope.id));
        delivery.ack().await;
    }
    again
}

async fn healthy(transport: &RabbitMq) {
    let look = || async { (transport.health() == Health::Connected).then_some(()) };
    eventually("a healthy broker", look).await;
}

#[test]
fn a_broker_killed_under_load_loses_nothing_that_it_confirmed() {
    let kills: u32 = std::env::var(KILLS).map_or(2, |text| text.parse().expect("a number"));
    let Some(broker) = RabbitMqBroker::start() else {
        return;
    };
    block_on(async {
        let transport = RabbitMq::connect(broker.url());
        declare(&transport, StoreId::new(), Kind::Command).await;
        // RabbitMQ writes its list of quorum queues with a delay of seconds: one that was declared a
        // moment before a power cut starts anew, whatever it had confirmed. Stopping writes it.
        broker.control(&["stop_app"]);
        broker.control(&["start_app"]);
        healthy(&transport).await;
        let mut deliveries = receive(&transport, Kind::Command).await;
        let (mut sent, mut again, mut worst) = (0, 0, Duration::ZERO);
        for round in 1..=kills {
            let window = messages(Kind::Command, 2_000);
            sent += window.len();
            let (transport, window) = (&transport, &window[..]);
            let publishing = async {
                let mut tries = 0;
                for part in window.chunks(200) {
                    tries += publish_all(transport, part).await;
                }
                tries
            };
            let killing = async {
                // In the middle of the load, which takes longer than this.
                grow_older(Duration::from_millis(60)).await;
                broker.kill();
                let lost = || async {
                    matches!(transport.health(), Health::Reconnecting { .. }).then_some(())
                };
                eventually("a health that tells of it", lost).await;
                let killed = Instant::now();
                let start = tokio::task::block_in_place(|| broker.restart());
                (killed, start)
            };
            let taking = take_all(&mut deliveries, ids(window));
            let (tries, (killed, start), more) = tokio::join!(publishing, killing, taking);
            healthy(transport).await;
            again += more;
            assert!(tries > 10, "the kill hit windows under way");
            worst = worst.max(killed.elapsed());
            println!("broker killed {round}: up after {start:.1?}");
        }
        say(&format!(
            "rabbitmq broker killed, no database: sent {sent}, lost 0, delivered again {again}, \
             {kills} kills, all taken at most {worst:.1?} after a kill"
        ));
    });
}

#[test]
fn an_alarm_of_the_broker_stops_publishing_and_not_receiving() {
    let Some(broker) = RabbitMqBroker::start() else {
        return;
    };
    block_on(async {
        let mut config = RabbitMqConfig::new(broker.url());
        config.confirm_timeout = Duration::from_secs(2);
        let transport = RabbitMq::with(config);
        declare(&transport, StoreId::new(), Kind::Event).await;
        let waiting = messages(Kind::Event, 300);
        publish_all(&transport, &waiting).await;
        broker.control(&["set_vm_memory_high_watermark", "absolute", "1MB"]);
        let blocked = messages(Kind::Event, 1);
        let look = || async {
            let answer = transport.publish(&blocked).await.remove(0);
            let is_blocked = matches!(transport.health(), Health::Blocked { .. });
            (answer.is_err() && is_blocked).then_some(())
        };
        eventually("a blocked connection", look).await;
        let started = Instant::now();
        let answer = transport.publish(&blocked).await.remove(0);
        assert!(
            matches!(answer, Err(TransportError::Unavailable(_))),
            "{answer:?}"
        );
        assert!(
            started.elapsed() < Duration::from_secs(1),
            "nothing is tried meanwhile"
        );

        // Acks count: with a hundred in hand at most, three hundred come only if these arrive.
        let mut deliveries = receive(&transport, Kind::Event).await;
        take_all(&mut deliveries, ids(&waiting)).await;
        assert!(matches!(transport.health(), Health::Blocked { .. }));

        broker.control(&["set_vm_memory_high_watermark", "0.6"]);
        let over = Instant::now();
        healthy(&transport).await;
        publish_all(&transport, &blocked).await;
        take_all(&mut deliveries, ids(&blocked)).await;
        say(&format!(
            "rabbitmq memory alarm: {} taken meanwhile, lost 0; publishing again {:.1?} after it",
            waiting.len(),
            over.elapsed()
        ));
    });
}

#[test]
fn a_full_queue_refuses_its_own_messages_only() {
    let Some(broker) = RabbitMqBroker::start() else {
        return;
    };
    block_on(async {
        let transport = RabbitMq::connect(broker.url());
        declare(&transport, StoreId::new(), Kind::Command).await;
        let limit = r#"{"max-length":3}"#;
        broker.control(&[
            "set_policy",
            "few",
            "^orders$",
            limit,
            "--apply-to",
            "queues",
        ]);
        let (mut waiting, one) = (BTreeSet::new(), messages(Kind::Command, 1));
        let is_full = async || {
            let one = messages(Kind::Command, 1);
            let answer = transport.publish(&one).await.remove(0);
            waiting.extend(answer.is_ok().then_some(one[0].envelope.id));
            matches!(answer, Err(TransportError::Refused(_)))
        };
        filled(is_full).await;
        assert!(waiting.len() >= 3, "{}", waiting.len());

        // Commands that have no room, between events that go elsewhere.
        let events = messages(Kind::Event, 2);
        let window = [&events[..1], &one[..], &events[1..]].concat();
        let answers = transport.publish(&window).await;
        let refused = answers[1].as_ref().expect_err("there is no room");
        assert!(matches!(refused, TransportError::Refused(_)), "{refused:?}");
        assert!(answers[0].is_ok() && answers[2].is_ok(), "{answers:?}");

        let mut deliveries = receive(&transport, Kind::Command).await;
        take_all(&mut deliveries, waiting).await;
        publish_all(&transport, &one).await;
        take_all(&mut deliveries, ids(&one)).await;
    });
}

/// Tries until the broker says no: a policy holds a moment after it was set.
async fn filled(mut is_full: impl AsyncFnMut() -> bool) {
    let filling = async {
        while !is_full().await {
            grow_older(Duration::from_millis(5)).await;
        }
    };
    let filled = tokio::time::timeout(PATIENCE, filling).await;
    filled.expect("a queue of three is full in the end");
}

/// Takes what it can hold, says so, and waits for its end.
#[test]
fn runs_only_as_a_child_that_holds_deliveries() {
    let Ok(told) = std::env::var(HOLDER) else {
        return;
    };
    let (url, namespace) = told.split_once(' ').expect("two words");
    block_on(async {
        let mut config = config(url);
        namespace.clone_into(&mut config.namespace);
        let mut deliveries = receive(&rabbitmq(&config), Kind::Event).await;
        let mut held = Vec::new();
        while held.len() < HELD {
            held.push(deliveries.next().await.expect("the stream goes on"));
        }
        println!("holding");
        std::future::pending::<()>().await;
    });
}

#[test]
fn a_receiver_killed_twenty_five_times_with_a_hundred_in_hand_loses_nothing() {
    let Some(url) = url() else { return };
    block_on(async {
        let config = config(&url);
        let transport = rabbitmq(&config);
        declare(&transport, StoreId::new(), Kind::Event).await;
        let window = messages(Kind::Event, HELD);
        publish_all(&transport, &window).await;
        for _ in 0..25 {
            let program = std::env::current_exe().expect("this test is a program");
            let mut holder = Command::new(program);
            holder.args([
                "--exact",
                "outages::runs_only_as_a_child_that_holds_deliveries",
            ]);
            holder
                .arg("--nocapture")
                .env(HOLDER, format!("{url} {}", config.namespace));
            let mut holder = holder.stdout(Stdio::piped()).spawn().expect("it runs");
            let output = holder.stdout.take().expect("it is piped");
            let lines = BufReader::new(output).lines().map_while(Result::ok);
            let is_holding = lines.into_iter().any(|line| line.contains("holding"));
            assert!(is_holding, "the child got all of them");
            holder.kill().expect("our own child can be killed");
            holder.wait().expect("it ends");
        }
        let gone = Instant::now();
        let mut deliveries = receive(&transport, Kind::Event).await;
        let first = deliveries.next().await.expect("the stream goes on");
        assert_eq!(first.redeliveries, 25);
        let mut left = ids(&window);
        left.remove(&first.envelope.id);
        first.ack().await;
        assert_eq!(take_all(&mut deliveries, left).await, 0);
        say(&format!(
            "rabbitmq receiver killed 25 times with {HELD} in hand: lost 0, duplicated 0, all taken \
             {:.1?} after the last kill",
            gone.elapsed()
        ));
    });
}

#[test]
fn acks_that_are_lost_with_their_connection_double_nothing() {
    let Some(url) = url() else { return };
    block_on(async {
        let proxy = AmqpProxy::before(&url).await;
        let config = config(&proxy.url(&url));
        let (store, log) = (MemoryStore::new(), Log::default());
        let builder = builder(&config, &store, &log).endpoint("packing", |e| e.handle(pack));
        let host = start(builder.endpoint("audit", |e| e.handle(note))).await;
        for part in 0..6 {
            proxy.lose_acks(1);
            for n in part * 50..part * 50 + 50 {
                host.bus().send(Pack { n }).await.expect("it is stored");
            }
            let fired = || async { (proxy.fired() > u64::from(part)).then_some(()) };
            eventually("a lost ack", fired).await;
        }
        let all = || async {
            let lines = log.lines();
            let audited = lines
                .iter()
                .filter(|line| line.starts_with("packed"))
                .count();
            (audited >= 300).then_some(())
        };
        eventually("everything audited", all).await;
        quiet(&store).await;
        let counters = host.counters().snapshot();
        stop(host).await;
        let published = counters.iter().find(|(name, _)| *name == "published");
        // The commands themselves, and one event for each: what came again wrote nothing more.
        assert_eq!(published.map(|(_, n)| *n), Some(600), "{counters:?}");
    });
}

#[test]
fn a_broker_that_falls_silent_is_left_and_found_again() {
    let Some(url) = url() else { return };
    block_on(async {
        let proxy = AmqpProxy::before(&url).await;
        let mut config = config(&proxy.url(&url));
        config.heartbeat = Duration::from_secs(1);
        config.confirm_timeout = Duration::from_secs(1);
        let transport = rabbitmq(&config);
        declare(&transport, StoreId::new(), Kind::Event).await;
        let mut deliveries = receive(&transport, Kind::Event).await;
        let window = messages(Kind::Event, 10);
        publish_all(&transport, &window).await;
        take_all(&mut deliveries, ids(&window)).await;
        proxy.set(Mode::Swallow);
        let answers = transport.publish(&window).await;
        let is_unknown = |answer| matches!(answer, Err(TransportError::Unknown(_)));
        assert!(answers.into_iter().all(is_unknown), "who knows");
        let started = Instant::now();
        let lost =
            || async { matches!(transport.health(), Health::Reconnecting { .. }).then_some(()) };
        eventually("a health that tells of it", lost).await;
        println!("silence noticed after {:.1?}", started.elapsed());
        proxy.cut();
        proxy.set(Mode::Pass);
        healthy(&transport).await;
        publish_all(&transport, &window).await;
        take_all(&mut deliveries, ids(&window)).await;
    });
}

#[test]
fn a_queue_that_somebody_deletes_is_there_again() {
    let Some(url) = url() else { return };
    block_on(async {
        let config = config(&url);
        let transport = rabbitmq(&config);
        declare(&transport, StoreId::new(), Kind::Event).await;
        let mut deliveries = receive(&transport, Kind::Event).await;
        let connection = Connection::connect(&url, ConnectionProperties::default()).await;
        let connection = connection.expect("the broker answers");
        let channel = connection.create_channel().await.expect("it opens");
        let queue = format!("{}orders", config.namespace);
        let deleted = channel.queue_delete(queue.into(), QueueDeleteOptions::default());
        deleted.await.expect("it is there");
        let window = messages(Kind::Event, 5);
        // What is published before it is there again is an event that nobody hears.
        let arrived = async {
            loop {
                publish_all(&transport, &window).await;
                let next = tokio::time::timeout(Duration::from_millis(200), deliveries.next());
                if let Ok(Some(delivery)) = next.await {
                    return delivery;
                }
            }
        };
        let arrived = tokio::time::timeout(PATIENCE, arrived).await;
        arrived.expect("it is received for again").ack().await;
        healthy(&transport).await;
    });
}

#[test]
fn an_exchange_that_somebody_deletes_hurts_its_own_messages_only() {
    let Some(url) = url() else { return };
    block_on(async {
        let config = config(&url);
        let transport = rabbitmq(&config);
        declare(&transport, StoreId::new(), Kind::Command).await;
        let mut window = messages(Kind::Command, 1);
        publish_all(&transport, &window).await;
        window.extend(messages(Kind::Event, 3));
        let connection = Connection::connect(&url, ConnectionProperties::default()).await;
        let connection = connection.expect("the broker answers");
        let channel = connection.create_channel().await.expect("it opens");
        let exchange = format!("{}command/shop.placed", config.namespace);
        let deleted = channel.exchange_delete(exchange.into(), ExchangeDeleteOptions::default());
        deleted.await.expect("it is there");
        let answers = transport.publish(&window).await;
        assert!(answers[0].is_err(), "nobody can have it");
        assert!(answers[1..].iter().all(Result::is_ok), "{answers:?}");
        let answer = transport.publish(&window[..1]).await.remove(0);
        assert!(
            matches!(answer, Err(TransportError::Unroutable { .. })),
            "{answer:?}"
        );
    });
}
