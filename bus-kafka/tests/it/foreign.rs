//! Records that somebody else wrote, and what others read of ours.

use std::collections::HashSet;
use std::time::Duration;

use bytes::Bytes;
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::{Headers, Message as _};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use sagabus_core::memory::MemoryStore;
use sagabus_core::store::StoreAdmin;
use sagabus_core::{Ctx, State};
use sagabus_kafka::{Kept, Start};
use sagabus_testkit::bus::parcels::{Packed, counted, quiet};
use sagabus_testkit::bus::{Log, start, stop};
use sagabus_testkit::service::block_on;
use sagabus_testkit::wait::eventually;

use crate::bus::builder;
use crate::cluster::{Foreign, brokers, own, produce};

async fn note(event: Packed, cx: Ctx, log: State<Log>) {
    log.add(format!("{} {}", event.n, cx.message_id()));
}

fn body(n: u32) -> Option<Bytes> {
    Some(format!("{{\"n\":{n}}}").into())
}

#[test]
fn a_bare_record_and_a_cloud_event_are_handled() {
    let Some(brokers) = brokers() else { return };
    block_on(async {
        let (config, store, log) = (own(&brokers), MemoryStore::new(), Log::default());
        let host = builder(&config, &store, &log).endpoint("audit", |e| e.handle(note));
        let host = start(host).await;
        let bare = Foreign {
            value: body(1),
            ..Foreign::default()
        };
        let event = Foreign {
            key: Some("k"),
            value: body(2),
            headers: vec![
                ("ce_specversion", "1.0"),
                ("ce_id", "A-1"),
                ("ce_source", "/till"),
                ("ce_type", "parcels.packed"),
                ("content-type", "application/json"),
            ],
            ..Foreign::default()
        };
        let topic = format!("{}parcels.packed", config.prefix);
        produce(&brokers, &topic, vec![bare, event]);
        let mut lines = log.wait_for(2).await;
        lines.sort();
        quiet(&store).await;
        stop(host).await;
        assert!(lines[0].starts_with("1 "), "{lines:?}");
        let id = sagabus_core::MessageId::from_foreign("/till\u{1f}A-1");
        assert_eq!(lines[1], format!("2 {id}"));
    });
}

/// The identity of a record without one is its place, so that it is recognised when a group begins
/// again.
#[test]
fn a_record_without_an_identity_is_recognised_when_it_comes_again() {
    let Some(brokers) = brokers() else { return };
    block_on(async {
        let (config, store, log) = (own(&brokers), MemoryStore::new(), Log::default());
        let host = builder(&config, &store, &log).endpoint("audit", |e| e.handle(note));
        let host = start(host).await;
        let bare = || Foreign {
            value: body(1),
            ..Foreign::default()
        };
        let topic = format!("{}parcels.packed", config.prefix);
        produce(&brokers, &topic, vec![bare(), bare(), bare()]);
        let first = log.wait_for(3).await;
        quiet(&store).await;
        stop(host).await;
        let distinct: HashSet<_> = first.iter().collect();
        assert_eq!(distinct.len(), 3, "three records are three messages");

        forget_group(&brokers, &format!("{}audit", config.prefix)).await;
        let host = builder(&config, &store, &log).endpoint("audit", |e| e.handle(note));
        let host = start(host).await;
        let again = || async { (counted(&host, "duplicates") == 3).then_some(()) };
        eventually("three records that came again", again).await;
        stop(host).await;
        assert_eq!(log.lines(), first);
    });
}

async fn forget_group(brokers: &str, group: &str) {
    let mut settings = ClientConfig::new();
    settings.set("bootstrap.servers", brokers);
    let admin: AdminClient<DefaultClientContext> = settings.create().expect("a client can be made");
    let deleted = admin.delete_groups(&[group], &AdminOptions::new()).await;
    deleted
        .expect("the broker answers")
        .remove(0)
        .expect("the group is empty");
}

type Pairs = Vec<(String, String)>;

/// Reads a topic as any client of the driver would: headers, key and value of each record.
fn read_all(brokers: &str, topic: &str, partitions: i32) -> Vec<(Pairs, Option<String>, String)> {
    let mut settings = ClientConfig::new();
    settings
        .set("bootstrap.servers", brokers)
        .set("group.id", "sagabus-foreign-reader")
        .set("enable.auto.commit", "false")
        .set("enable.partition.eof", "true");
    let consumer: BaseConsumer = settings.create().expect("a client can be made");
    let mut list = TopicPartitionList::new();
    for partition in 0..partitions {
        list.add_partition_offset(topic, partition, Offset::Beginning)
            .expect("an offset");
    }
    consumer.assign(&list).expect("partitions can be read");
    let (mut ended, mut all) = (0, Vec::new());
    while ended < partitions {
        match consumer.poll(Duration::from_secs(10)) {
            None => panic!("the topic cannot be read"),
            Some(Err(rdkafka::error::KafkaError::PartitionEOF(_))) => ended += 1,
            Some(Err(error)) => panic!("{error}"),
            Some(Ok(record)) => {
                let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
                let headers = record.headers().into_iter().flat_map(Headers::iter);
                let headers = headers
                    .map(|one| (one.key.to_owned(), one.value.map(text).unwrap_or_default()));
                let value = record.payload().map(text).unwrap_or_default();
                all.push((headers.collect(), record.key().map(text), value));
            }
        }
    }
    all
}

#[test]
fn ours_is_a_cloud_event_to_others() {
    let Some(brokers) = brokers() else { return };
    block_on(async {
        let (config, store, log) = (own(&brokers), MemoryStore::new(), Log::default());
        let host = start(builder(&config, &store, &log)).await;
        let id = host.bus().publish(Packed { n: 12 }).await.unwrap();
        quiet(&store).await;
        stop(host).await;
        let topic = format!("{}parcels.packed", config.prefix);
        let all = read_all(&brokers, &topic, 4);
        let [(headers, key, value)] = &all[..] else {
            panic!("one record: {all:?}");
        };
        assert_eq!((key.as_deref(), value.as_str()), (Some("5"), "{\"n\":12}"));
        for (name, expected) in [
            ("ce_specversion", "1.0"),
            ("ce_id", &id.to_string()),
            ("ce_type", "parcels.packed"),
            ("ce_source", "host"),
            ("ce_partitionkey", "5"),
            ("content-type", "application/json"),
        ] {
            let found = headers.iter().find(|(one, _)| one == name);
            assert_eq!(
                found.map(|(_, value)| value.as_str()),
                Some(expected),
                "{name}"
            );
        }
    });
}

#[test]
fn tombstones_are_counted_and_what_cannot_be_read_is_a_dead_letter() {
    let Some(brokers) = brokers() else { return };
    block_on(async {
        let (config, store, log) = (own(&brokers), MemoryStore::new(), Log::default());
        let transport = crate::cluster::kafka(&config);
        let host = sagabus_core::Host::builder("host")
            .store(store.clone())
            .transport(transport.clone())
            .state(log.clone())
            .endpoint("audit", |e| e.handle(note));
        let host = start(host).await;
        let tombstone = Foreign {
            key: Some("k"),
            ..Foreign::default()
        };
        let nonsense = Foreign {
            value: Some(Bytes::from_static(&[0xff, 0, 0xfe])),
            ..Foreign::default()
        };
        let stranger = Foreign {
            value: body(1),
            headers: vec![("ce_type", "parcels.stranger")],
            ..Foreign::default()
        };
        let noisy = Foreign {
            value: body(1),
            headers: vec![("note", "\u{7}bell")],
            ..Foreign::default()
        };
        let topic = format!("{}parcels.packed", config.prefix);
        produce(&brokers, &topic, vec![tombstone, nonsense, stranger, noisy]);
        let last = Foreign {
            value: body(7),
            ..Foreign::default()
        };
        produce(&brokers, &topic, vec![last]);
        log.wait_for(1).await;
        let dead = || async {
            (store
                .counts()
                .await
                .expect("rows can be counted")
                .dead_letters
                == 3)
                .then_some(())
        };
        eventually("three dead letters", dead).await;
        let look = || async { (transport.passed_over() == 1).then_some(()) };
        eventually("a tombstone that was passed over", look).await;
        stop(host).await;
        let mut reasons: Vec<_> = store.dead_letters(10).await.unwrap();
        reasons.sort_by(|a, b| a.reason.cmp(&b.reason));
        let reasons: Vec<_> = reasons.iter().map(|one| one.reason.as_str()).collect();
        assert_eq!(reasons, ["no_handler", "out_of_bounds", "undecodable"]);
    });
}

/// The driver panics over such a name: what it is asked for is asked for with care.
#[test]
fn a_header_whose_name_is_no_text_makes_a_dead_letter_and_holds_up_nobody() {
    let Some(brokers) = brokers() else { return };
    block_on(async {
        let (mut config, store, log) = (own(&brokers), MemoryStore::new(), Log::default());
        config.topics.partitions = Some(1);
        let host = builder(&config, &store, &log).endpoint("audit", |e| e.handle(note));
        let host = start(host).await;
        let topic = format!("{}parcels.packed", config.prefix);
        let header: (&[u8], &[u8]) = (b"\xff\xfe", b"x");
        crate::raw::produce(&brokers, &topic, header, br#"{"n":1}"#);
        let header: (&[u8], &[u8]) = (b"tenant", b"a");
        crate::raw::produce(&brokers, &topic, header, br#"{"n":2}"#);
        let lines = log.wait_for(1).await;
        assert!(lines[0].starts_with("2 "), "{lines:?}");
        let dead = || async {
            let dead = store.dead_letters(10).await.expect("they can be read");
            (dead.len() == 1).then_some(dead)
        };
        let (dead, _) = eventually("a dead letter", dead).await;
        assert_eq!(dead[0].reason, "out_of_bounds");
        stop(host).await;
    });
}

/// Where an endpoint begins is a setting: at the oldest record, or at its first declaration.
#[test]
fn a_new_endpoint_begins_where_it_is_told() {
    let Some(brokers) = brokers() else { return };
    block_on(async {
        let mut config = own(&brokers);
        // Records that are a month old are deleted soon where the topic does not keep them.
        config.topics.retention = Kept::Forever;
        let month_ago = {
            const MONTH_MILLIS: i64 = 30 * 24 * 60 * 60 * 1000;
            sagabus_core::clock::now().as_micros() / 1000 - MONTH_MILLIS
        };
        let (ours, log) = (MemoryStore::new(), Log::default());
        let writer = start(builder(&config, &ours, &log)).await;
        writer.bus().publish(Packed { n: 1 }).await.unwrap();
        quiet(&ours).await;
        stop(writer).await;
        let topic = format!("{}parcels.packed", config.prefix);
        let old = Foreign {
            value: body(2),
            timestamp: Some(month_ago),
            ..Foreign::default()
        };
        produce(&brokers, &topic, vec![old]);

        let host = builder(&config, &ours, &log).endpoint("oldest", |e| e.handle(note));
        let host = start(host).await;
        log.wait_for(2).await;
        stop(host).await;

        config.start = Start::Declared;
        let late = Log::default();
        let host = builder(&config, &ours, &late).endpoint("latest", |e| e.handle(note));
        let host = start(host).await;
        produce(
            &brokers,
            &topic,
            vec![Foreign {
                value: body(3),
                ..Foreign::default()
            }],
        );
        let lines = late.wait_for(1).await;
        quiet(&ours).await;
        stop(host).await;
        assert!(lines.len() == 1 && lines[0].starts_with("3 "), "{lines:?}");
    });
}
