//! Set-ups and messages that cannot work: each error names the thing and the next action.

use std::time::Duration;

use bytes::Bytes;
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use sagabus_core::Envelope;
use sagabus_core::endpoint::{EndpointName, Order};
use sagabus_core::error::{TransportError, chain};
use sagabus_core::headers::Headers;
use sagabus_core::id::{MessageId, StoreId};
use sagabus_core::message::Kind;
use sagabus_core::store::{EndpointSpec, Subscription};
use sagabus_core::transport::{Publication, Transport, address};
use sagabus_kafka::{Creation, Kafka, KafkaConfig, Kept, Mechanism, Plaintext, Security};
use sagabus_testkit::kafka_broker::KafkaBroker;
use sagabus_testkit::service::block_on;
use sagabus_testkit::wait::eventually;
use tokio::time::Instant;

use crate::cluster::{brokers, own};

pub(crate) fn spec() -> EndpointSpec {
    EndpointSpec {
        name: EndpointName::new("orders").expect("a usable name"),
        order: Order::Unordered,
        subscriptions: vec![Subscription {
            message_type: "shop.placed".into(),
            kind: Kind::Event,
        }],
    }
}

pub(crate) fn publication(address: String, kind: Kind, bytes: usize) -> Publication {
    let headers: Headers = [("sagabus-kind", kind.as_str())].into_iter().collect();
    Publication {
        address,
        envelope: Envelope {
            id: MessageId::new(),
            message_type: "shop.placed".into(),
            headers,
            body: Bytes::from(vec![7; bytes]),
        },
        key: None,
    }
}

/// Declares an endpoint and returns the whole error, sources included.
async fn refused(config: &KafkaConfig) -> String {
    let declared = Kafka::new(config.clone())
        .declare(StoreId::new(), &[spec()])
        .await;
    chain(&declared.expect_err("this cannot work"))
}

/// Checks that an error has every one of these words.
pub(crate) fn says(error: &str, words: &[&str]) {
    for word in words {
        assert!(error.contains(word), "no `{word}` in: {error}");
    }
}

fn quick(brokers: &str) -> KafkaConfig {
    let mut config = own(brokers);
    config.request_timeout = Duration::from_secs(3);
    config
}

fn sasl(user: &str, password: &str) -> Security {
    Security::Sasl {
        mechanism: Mechanism::Plain,
        user: user.to_owned(),
        password: password.into(),
        tls: None,
    }
}

#[test]
fn an_address_that_is_none_is_named() {
    block_on(async {
        let error = refused(&quick("kafka://kafka.example")).await;
        says(
            &error,
            &[
                "`kafka://kafka.example` is no Kafka broker",
                "write `host:port`",
                "[SB0217]",
            ],
        );
    });
}

#[test]
fn a_broker_that_is_not_there_is_named_in_time() {
    block_on(async {
        let started = Instant::now();
        let error = refused(&quick("127.0.0.1:1")).await;
        says(
            &error,
            &[
                "broker cannot be reached",
                "brokers `127.0.0.1:1`",
                "Connect",
            ],
        );
        let mut beyond = quick("kafka.invalid:9092");
        says(&refused(&beyond).await, &["readable on the way", "`Tls`"]);
        beyond.plaintext = Plaintext::Everywhere;
        let error = refused(&beyond).await;
        says(
            &error,
            &["broker cannot be reached", "kafka.invalid:9092", "resolve"],
        );
        assert!(started.elapsed() < Duration::from_secs(20));
    });
}

#[cfg(not(feature = "tls"))]
#[test]
fn what_was_not_built_in_is_named_with_its_feature() {
    use sagabus_kafka::Tls;

    block_on(async {
        let mut config = quick("127.0.0.1:1");
        config.security = Security::Tls(Tls::default());
        let error = refused(&config).await;
        says(
            &error,
            &[
                "TLS is wanted by `security`",
                "add the feature `kafka-tls`",
                "[SB0221]",
            ],
        );
    });
}

#[test]
fn an_option_that_is_refused_is_named() {
    block_on(async {
        let mut config = quick("127.0.0.1:1");
        config.options = vec![("socket.timeout.ms".to_owned(), "soon".into())];
        let error = refused(&config).await;
        says(
            &error,
            &[
                "option `socket.timeout.ms` is refused",
                "correct the Kafka settings",
                "[SB0217]",
            ],
        );
        assert!(!error.contains("soon"), "{error}");
    });
}

#[test]
fn a_topic_that_is_missing_and_not_to_be_created_is_named_with_its_recipe() {
    let Some(brokers) = brokers() else { return };
    block_on(async {
        let mut config = quick(&brokers);
        config.topics.creation = Creation::Never;
        let error = refused(&config).await;
        let topic = format!("{}orders.endpoint", config.prefix);
        says(
            &error,
            &[
                &format!("topic `{topic}` is missing"),
                "kafka-topics.sh --create",
                "[SB0224]",
            ],
        );
        // What is published then has no place, and its topic is not made.
        let kafka = Kafka::new(config.clone());
        let event = publication(address(Kind::Event, "shop.placed"), Kind::Event, 1);
        let answers = kafka.publish(&[event]).await;
        let is_unroutable = matches!(&answers[0], Err(TransportError::Unroutable { .. }));
        assert!(is_unroutable, "{answers:?}");
    });
}

/// What a topic is made with.
type Settings<'a> = &'a [(&'a str, &'a str)];

/// Makes a topic as somebody else would.
async fn make(brokers: &str, name: &str, settings: Settings<'_>) {
    let mut config = ClientConfig::new();
    let admin: AdminClient<DefaultClientContext> = config
        .set("bootstrap.servers", brokers)
        .create()
        .expect("a client can be made");
    let mut topic = NewTopic::new(name, 1, TopicReplication::Fixed(1));
    for (setting, value) in settings {
        topic = topic.set(setting, value);
    }
    let options = AdminOptions::new().operation_timeout(Some(Duration::from_secs(10)));
    let made = admin
        .create_topics(&[topic], &options)
        .await
        .expect("the broker answers");
    assert!(made[0].is_ok(), "{made:?}");
}

#[test]
fn a_topic_that_would_lose_messages_is_refused() {
    let Some(brokers) = brokers() else { return };
    block_on(async {
        let large = ("max.message.bytes", "2000000");
        let cases: [(Settings<'_>, &[&str]); 3] = [
            (
                &[("cleanup.policy", "compact"), large],
                &["deletes messages of the same key", "cleanup.policy=delete"],
            ),
            (
                &[("retention.ms", "60000"), large],
                &["keeps records for 60000 ms", "retention.ms=604800000"],
            ),
            (
                &[("max.message.bytes", "1000000")],
                &[
                    "takes records of 1000000 bytes",
                    "lower `body_bytes_max`",
                    "max.message.bytes=",
                ],
            ),
        ];
        for (settings, words) in cases {
            let config = quick(&brokers);
            make(&brokers, &format!("{}shop.placed", config.prefix), settings).await;
            let error = refused(&config).await;
            says(
                &error,
                &[
                    &format!("topic `{}shop.placed`", config.prefix),
                    "kafka-configs.sh",
                    "[SB0225]",
                ],
            );
            says(&error, words);
        }
        let mut config = quick(&brokers);
        make(&brokers, &format!("{}shop.placed", config.prefix), &[large]).await;
        config.topics.retention = Kept::Forever;
        says(
            &refused(&config).await,
            &["where for ever is wanted", "retention.ms=-1"],
        );
        config.topics.retention = Kept::For(Duration::from_secs(3600));
        config.topics.replication = Some(3);
        says(
            &refused(&config).await,
            &["1 copies", "lower `topics.replication`", "[SB0225]"],
        );
        config.topics.replication = Some(1);
        let declared = Kafka::new(config).declare(StoreId::new(), &[spec()]).await;
        declared.expect("what keeps more than is wanted is fine");
    });
}

/// Deletes topics as somebody else would.
async fn delete(brokers: &str, names: &[&str]) {
    let mut config = ClientConfig::new();
    let admin: AdminClient<DefaultClientContext> = config
        .set("bootstrap.servers", brokers)
        .create()
        .expect("a client can be made");
    let options = AdminOptions::new().operation_timeout(Some(Duration::from_secs(10)));
    let deleted = admin.delete_topics(names, &options).await;
    let deleted = deleted.expect("the broker answers");
    assert!(deleted.iter().all(Result::is_ok), "{deleted:?}");
}

#[test]
fn a_topic_that_somebody_deleted_is_made_again_for_events_alone() {
    let Some(brokers) = brokers() else { return };
    block_on(async {
        let config = quick(&brokers);
        let command = format!("{}shop.placed.command", config.prefix);
        let event = format!("{}shop.placed", config.prefix);
        make(&brokers, &command, &[("max.message.bytes", "2000000")]).await;
        let kafka = Kafka::new(config);
        let window = [Kind::Command, Kind::Event]
            .map(|kind| publication(address(kind, "shop.placed"), kind, 1));
        let answers = kafka.publish(&window).await;
        assert!(answers.iter().all(Result::is_ok), "{answers:?}");

        delete(&brokers, &[&command, &event]).await;
        // What a client knows of topics is a little old.
        let noticed = || async {
            let answers = kafka.publish(&window).await;
            let is_gone = matches!(&answers[0], Err(TransportError::Unroutable { .. }));
            (is_gone && answers[1].is_ok()).then_some(())
        };
        eventually("a topic for events alone", noticed).await;
    });
}

#[test]
fn more_copies_than_brokers_are_refused_with_the_setting() {
    let Some(brokers) = brokers() else { return };
    block_on(async {
        let mut config = quick(&brokers);
        config.topics.replication = Some(9);
        let error = refused(&config).await;
        says(
            &error,
            &[
                "cannot be created",
                "set `topics.replication` to at most",
                "[SB0225]",
            ],
        );
    });
}

#[test]
fn a_record_that_its_topic_is_too_small_for_is_refused_alone() {
    let Some(brokers) = brokers() else { return };
    block_on(async {
        let config = quick(&brokers);
        let topic = format!("{}shop.placed", config.prefix);
        make(&brokers, &topic, &[("max.message.bytes", "20000")]).await;
        let kafka = Kafka::new(config);
        let sized = |bytes| publication(topic.clone(), Kind::Event, bytes);
        let answers = kafka.publish(&[sized(10), sized(500_000), sized(20)]).await;
        assert!(answers[0].is_ok() && answers[2].is_ok(), "{answers:?}");
        let error = answers[1].as_ref().unwrap_err();
        assert!(matches!(error, TransportError::Refused(_)), "{error:?}");
        says(&chain(error), &[&topic, "raise its `max.message.bytes`"]);
    });
}

#[test]
fn an_address_that_no_topic_can_have_is_refused_alone() {
    let Some(brokers) = brokers() else { return };
    block_on(async {
        let kafka = Kafka::new(quick(&brokers));
        let good = || publication(address(Kind::Event, "shop.placed"), Kind::Event, 1);
        let long = "x".repeat(300);
        for bad in ["no topic!", "a\0b", "", "..", &long, "größe"] {
            let bad = publication(bad.to_owned(), Kind::Event, 1);
            let answers = kafka.publish(&[good(), bad, good()]).await;
            let error = answers[1].as_ref().expect_err("it is no topic");
            assert!(matches!(error, TransportError::Refused(_)), "{error:?}");
            says(&chain(error), &["is no name of a topic"]);
            assert!(answers[0].is_ok() && answers[2].is_ok(), "{answers:?}");
        }
    });
}

/// One broker for all that logging in and permissions say.
#[test]
fn who_is_not_let_in_or_may_not_is_told_what_to_do() {
    let Some(broker) = KafkaBroker::start_guarded(&[("admin", "hunter1"), ("orders", "hunter2")])
    else {
        return;
    };
    block_on(async {
        let address = broker.address().to_string();
        let mut config = quick(&address);
        let started = Instant::now();
        config.security = sasl("orders", "wrong");
        let error = refused(&config).await;
        says(
            &error,
            &[
                &address,
                "do not let user `orders` in",
                "check user, password",
                "[SB0218]",
            ],
        );
        assert!(
            started.elapsed() < Duration::from_secs(3),
            "it does not wait in vain"
        );

        config.security = Security::Plain;
        let error = refused(&config).await;
        says(
            &error,
            &[
                &address,
                "close connections at once",
                "check `security`",
                "[SB0221]",
            ],
        );

        config.security = sasl("orders", "hunter2");
        let error = refused(&config).await;
        says(&error, &["orders.endpoint", "allow this user", "[SB0220]"]);

        config.security = sasl("admin", "hunter1");
        let declared = Kafka::new(config.clone())
            .declare(StoreId::new(), &[spec()])
            .await;
        declared.expect("the admin may");
    });
}
