//! Set-ups and messages that cannot work: each error names the thing and the next action.

use bytes::Bytes;
use lapin::options::QueueDeclareOptions;
use lapin::types::FieldTable;
use lapin::{Connection, ConnectionProperties};
use sagabus_core::endpoint::{EndpointName, Order};
use sagabus_core::error::{TransportError, chain};
use sagabus_core::id::{MessageId, StoreId};
use sagabus_core::memory::MemoryStore;
use sagabus_core::message::Kind;
use sagabus_core::store::{EndpointSpec, Subscription};
use sagabus_core::transport::{Publication, Transport};
use sagabus_core::{Envelope, Headers, Host};
use sagabus_rabbitmq::{RabbitMq, RabbitMqConfig, TopologyMode};
use sagabus_testkit::amqp_proxy::authority;
use sagabus_testkit::rabbitmq_broker::RabbitMqBroker;
use sagabus_testkit::service::block_on;

use crate::site::{config, rabbitmq, url};

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

fn publication(address: &str, bytes: usize) -> Publication {
    Publication {
        address: address.to_owned(),
        envelope: Envelope {
            id: MessageId::new(),
            message_type: "shop.placed".into(),
            headers: Headers::new(),
            body: Bytes::from(vec![7; bytes]),
        },
        key: None,
    }
}

/// Declares an endpoint and returns the whole error, sources included.
async fn refused(transport: &RabbitMq) -> String {
    let declared = transport.declare(StoreId::new(), &[spec()]).await;
    chain(&declared.expect_err("this cannot work"))
}

/// Checks that an error has every one of these words.
fn says(error: &str, words: &[&str]) {
    for word in words {
        assert!(error.contains(word), "no `{word}` in: {error}");
    }
}

#[test]
fn a_url_that_is_none_is_named() {
    block_on(async {
        for (url, shown) in [
            ("nonsense", "nonsense"),
            ("http://localhost", "http://localhost"),
            // Who knows what this was meant to be.
            ("amqp://host:notaport/", "amqp://host:***"),
        ] {
            let error = refused(&RabbitMq::connect(url)).await;
            says(
                &error,
                &[
                    "cannot be read",
                    shown,
                    "amqp://user:password@host",
                    "[SB0217]",
                ],
            );
        }
    });
}

#[test]
fn a_broker_that_is_not_there_is_named() {
    block_on(async {
        let mut config = RabbitMqConfig::new("amqp://me:canary@127.0.0.1:1/shop");
        config.connect_timeout = std::time::Duration::from_secs(3);
        let error = refused(&RabbitMq::with(config)).await;
        says(
            &error,
            &[
                "amqp://me@127.0.0.1:1/shop",
                "refused",
                "check that it runs",
                "[SB0202]",
            ],
        );
    });
}

#[test]
fn a_wrong_password_vhost_or_scheme_is_named() {
    let Some(url) = url() else { return };
    block_on(async {
        let place = authority(&url);
        let error = refused(&RabbitMq::connect(format!("amqp://guest:canary@{place}"))).await;
        says(
            &error,
            &[
                "refused the login of `guest`",
                "check the name and the password",
                "[SB0218]",
            ],
        );
        let error = refused(&RabbitMq::connect(format!("{url}/nowhere"))).await;
        says(
            &error,
            &["vhost `nowhere`", "rabbitmqctl add_vhost", "[SB0219]"],
        );
        let error = refused(&RabbitMq::connect(url.replacen("amqp:", "amqps:", 1))).await;
        says(
            &error,
            &["cannot be used", "speaks TLS", &place, "[SB0221]"],
        );
    });
}

#[test]
fn what_exists_with_other_properties_is_named() {
    let Some(url) = url() else { return };
    block_on(async {
        let config = config(&url);
        let connection = Connection::connect(&url, ConnectionProperties::default()).await;
        let connection = connection.expect("the broker answers");
        let channel = connection.create_channel().await.expect("it opens");
        let classic = QueueDeclareOptions {
            exclusive: true,
            ..QueueDeclareOptions::default()
        };
        let name = format!("{}orders", config.namespace);
        let declared = channel.queue_declare(name.into(), classic, FieldTable::default());
        declared.await.expect("a queue of another kind");
        let error = refused(&rabbitmq(&config)).await;
        says(&error, &["queue `orders`", "delete it", "[SB0222]"]);
    });
}

#[test]
fn another_delivery_limit_order_or_number_of_queues_is_refused() {
    let Some(url) = url() else { return };
    block_on(async {
        let (config, store) = (config(&url), StoreId::new());
        let mut ordered = spec();
        ordered.order = Order::PerKey;
        ordered.name = EndpointName::new("parcels").expect("a usable name");
        let first = rabbitmq(&config)
            .declare(store, &[spec(), ordered.clone()])
            .await;
        first.expect("nothing is there yet");
        let declare = |config: RabbitMqConfig, spec: EndpointSpec| async move {
            let declared = rabbitmq(&config).declare(store, &[spec]).await;
            chain(&declared.expect_err("the broker compares"))
        };
        let mut limited = config.clone();
        limited.delivery_limit = 5_000;
        says(
            &declare(limited, spec()).await,
            &["queue `orders`", "x-delivery-limit", "[SB0222]"],
        );
        let mut fewer = config.clone();
        fewer.ordered_queues = 3;
        says(
            &declare(fewer, ordered).await,
            &["exchange `parcels`", "unslotted-8"],
        );
        let mut reordered = spec();
        reordered.order = Order::PerKey;
        says(
            &declare(config, reordered).await,
            &["exchange `orders`", "other properties", "[SB0222]"],
        );
    });
}

#[test]
fn a_host_that_only_verifies_names_what_is_missing() {
    let Some(url) = url() else { return };
    block_on(async {
        let mut config = config(&url);
        let (provisioner, store) = (rabbitmq(&config), StoreId::new());
        config.topology = TopologyMode::Verify;
        let verifier = rabbitmq(&config);
        let error = refused(&verifier).await;
        says(
            &error,
            &[
                "`orders/owner` is missing",
                "TopologyMode::Declare",
                "[SB0224]",
            ],
        );
        let unheard = publication("event/shop.unheard", 1);
        let answer = verifier
            .publish(std::slice::from_ref(&unheard))
            .await
            .remove(0);
        let error = answer.expect_err("nobody provisioned it").to_string();
        says(
            &error,
            &["event/shop.unheard", "missing", "TopologyMode::Declare"],
        );

        let provisioned = provisioner.declare(store, &[spec()]).await;
        provisioned.expect("this one may");
        let published = provisioner.provision_published(&["shop.unheard"]).await;
        published.expect("this one may");
        verifier
            .declare(store, &[spec()])
            .await
            .expect("all is there");
        let answers = verifier.publish(&[unheard]).await;
        assert!(answers.iter().all(Result::is_ok), "{answers:?}");
    });
}

#[test]
fn a_header_that_amqp_cannot_carry_fails_alone() {
    let Some(url) = url() else { return };
    block_on(async {
        let transport = rabbitmq(&config(&url));
        let mut long = publication("event/shop.placed", 1);
        long.envelope.headers.set("x".repeat(256), "1");
        let mut large = publication("event/shop.placed", 1);
        large.envelope.headers.set("note", "x".repeat(100_000));
        let far = publication(&format!("event/{}", "x".repeat(300)), 1);
        let fine = publication("event/shop.placed", 1);
        let answers = transport.publish(&[long, large, far, fine]).await;
        let shown: Vec<_> = answers
            .iter()
            .map(|answer| answer.as_ref().map_err(chain_of))
            .collect();
        says(
            shown[0].as_ref().unwrap_err(),
            &["header name of 256 bytes"],
        );
        says(shown[1].as_ref().unwrap_err(), &["headers take 100"]);
        assert!(matches!(answers[2], Err(TransportError::Unroutable { .. })));
        assert_eq!(shown[3], Ok(&()));
    });
}

#[test]
fn an_answer_to_a_queue_that_is_gone_fails_alone() {
    let Some(url) = url() else { return };
    block_on(async {
        let transport = rabbitmq(&config(&url));
        let declared = transport.declare(StoreId::new(), &[spec()]).await;
        declared.expect("it is declared");
        let event = || publication("event/shop.placed", 1);
        let gone = "queue/amq.gen-of-a-client-that-is-gone";
        let window = [event(), publication(gone, 1), event()];
        let answers = transport.publish(&window).await;
        match &answers[1] {
            Err(TransportError::Unroutable { address }) => assert_eq!(address, gone),
            other => panic!("an answer to nobody was answered {other:?}"),
        }
        assert!(answers[0].is_ok() && answers[2].is_ok(), "{answers:?}");
    });
}

fn chain_of(error: &TransportError) -> String {
    chain(error)
}

/// One broker with users of few rights and a low limit, for everything that needs its own.
#[test]
fn what_the_broker_forbids_is_named_and_fails_alone() {
    let Some(broker) = RabbitMqBroker::start() else {
        return;
    };
    block_on(async {
        let owner = RabbitMq::connect(broker.url());
        let store = StoreId::new();
        owner
            .declare(store, &[spec()])
            .await
            .expect("it may everything");
        owner
            .provision_published(&["shop.secret"])
            .await
            .expect("it may everything");
        broker.control(&["add_user", "clerk", "canary"]);
        // Configures nothing, writes to one exchange, reads nothing.
        broker.control(&[
            "set_permissions",
            "clerk",
            "^$",
            "^event/shop[.]placed$",
            "^$",
        ]);
        let url = broker.url().replacen("guest:guest", "clerk:canary", 1);
        let clerk = RabbitMq::connect(url.clone());
        let error = refused(&clerk).await;
        says(
            &error,
            &["may not be declared", "TopologyMode::Verify", "[SB0220]"],
        );

        let mut verifying = RabbitMqConfig::new(url);
        verifying.topology = TopologyMode::Verify;
        let clerk = RabbitMq::with(verifying);
        let read = clerk
            .subscribe(&spec(), 10)
            .await
            .err()
            .expect("it may not read");
        says(
            &chain(&read),
            &["may not read", "`orders`", "set_permissions", "[SB0220]"],
        );
        let window: Vec<_> = ["placed", "secret", "placed"]
            .map(|name| publication(&format!("event/shop.{name}"), 1))
            .into();
        let answers = clerk.publish(&window).await;
        let error = answers[1]
            .as_ref()
            .expect_err("it may not write there")
            .to_string();
        says(&error, &["event/shop.secret", "access"]);
        assert!(answers[0].is_ok() && answers[2].is_ok(), "{answers:?}");

        // A limit of the broker's that is lower than ours; where it is kept depends on the version.
        let set = "application:set_env(rabbit, max_message_size, 1000), \
                   persistent_term:put(max_message_size, 1000).";
        broker.control(&["eval", set]);
        let limited = RabbitMq::connect(broker.url());
        let window = [10, 5_000, 10].map(|bytes| publication("event/shop.placed", bytes));
        let answers = limited.publish(&window).await;
        let error = answers[1]
            .as_ref()
            .expect_err("it is too large")
            .to_string();
        says(&error, &["larger than", "1000"]);
        assert!(answers[0].is_ok() && answers[2].is_ok(), "{answers:?}");
    });
}

/// AMQP tells no queue's limit: what is declared is compared by the broker, what is not is unknown.
#[test]
fn a_host_says_which_delivery_limit_it_knows_of() {
    let mut config = RabbitMqConfig::new("amqp://localhost");
    let described = |config: &RabbitMqConfig| {
        let host = Host::builder("host").store(MemoryStore::new());
        let host = host.transport(rabbitmq(config)).build();
        let described = host.expect("it is put together well").describe();
        described["transports"][0].clone()
    };
    let declares = described(&config);
    assert_eq!(declares["broker"], "rabbitmq", "{declares}");
    assert_eq!(declares["delivery_limit"], 1_000_000, "{declares}");
    assert_eq!(declares["topology"]["mode"], "declare", "{declares}");
    config.topology = TopologyMode::Verify;
    assert_eq!(described(&config)["delivery_limit"], "unknown");
}
