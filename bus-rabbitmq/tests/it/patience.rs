//! The broker closes the channel of a receiver that takes too long over one message, by a setting
//! of its own that AMQP does not show.

use std::time::Duration;

use futures_util::StreamExt;
use lapin::options::{BasicConsumeOptions, BasicPublishOptions, QueueDeclareOptions};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, Channel, Connection, ConnectionProperties};
use sagabus_core::endpoint::{EndpointName, Order};
use sagabus_core::id::{MessageId, StoreId};
use sagabus_core::message::Kind;
use sagabus_core::store::{EndpointSpec, Subscription};
use sagabus_core::transport::{Health, Publication, Transport, address};
use sagabus_core::{Envelope, Headers};
use sagabus_rabbitmq::RabbitMqConfig;
use sagabus_testkit::rabbitmq_broker::RabbitMqBroker;
use sagabus_testkit::service::block_on;
use sagabus_testkit::wait::{PATIENCE, eventually, grow_older};

use crate::site::{config, rabbitmq};

/// The broker's setting, and how often it looks; both are read when a channel is opened.
const STRICT: &str = "application:set_env(rabbit, consumer_timeout, 1000), \
    application:set_env(rabbit, channel_tick_interval, 300).";

fn spec(order: Order) -> EndpointSpec {
    let name = match order {
        Order::Unordered => "slow",
        Order::PerKey => "slow-lines",
    };
    EndpointSpec {
        name: EndpointName::new(name).expect("a usable name"),
        order,
        subscriptions: vec![Subscription {
            message_type: format!("shop.{name}").into(),
            kind: Kind::Command,
        }],
    }
}

fn message(spec: &EndpointSpec) -> Publication {
    let message_type = spec.subscriptions[0].message_type.clone();
    Publication {
        address: address(Kind::Command, &message_type),
        envelope: Envelope {
            id: MessageId::new(),
            message_type,
            headers: Headers::new(),
            body: vec![7; 200].into(),
        },
        key: Some("k".to_owned()),
    }
}

/// Holds a message of a queue as anybody would declare it, until the broker has enough.
async fn hold_plainly(channel: &Channel) {
    let kind = AMQPValue::LongString("quorum".into());
    let mut arguments = FieldTable::default();
    arguments.insert("x-queue-type".into(), kind);
    let options = QueueDeclareOptions {
        durable: true,
        ..QueueDeclareOptions::default()
    };
    let declared = channel.queue_declare("plain".into(), options, arguments);
    declared.await.expect("it is declared");
    let options = BasicConsumeOptions::default();
    let receiving =
        channel.basic_consume("plain".into(), "".into(), options, FieldTable::default());
    let mut receiving = receiving.await.expect("it can be received");
    let (options, properties) = (BasicPublishOptions::default(), BasicProperties::default());
    let sent = channel.basic_publish("".into(), "plain".into(), options, b"x", properties);
    sent.await.expect("it is sent");
    let held = receiving.next().await.expect("it comes");
    let _held = held.expect("it is readable");
    let closed = || async { (!channel.status().connected()).then_some(()) };
    eventually("a channel that is closed", closed).await;
}

#[test]
fn a_handler_may_take_longer_than_the_broker_waits_by_default() {
    let Some(broker) = RabbitMqBroker::start() else {
        return;
    };
    broker.control(&["eval", STRICT]);
    block_on(async {
        let transport = rabbitmq(&config(&broker.url()));
        let specs = [spec(Order::Unordered), spec(Order::PerKey)];
        let declared = transport.declare(StoreId::new(), &specs).await;
        declared.expect("they are declared");
        let mut held = Vec::new();
        for spec in &specs {
            let mut deliveries = transport.subscribe(spec, 10).await.expect("it is there");
            let sent = transport.publish(&[message(spec)]).await;
            assert!(sent.iter().all(Result::is_ok), "{sent:?}");
            let delivery = tokio::time::timeout(PATIENCE, deliveries.next()).await;
            let delivery = delivery.expect("it comes").expect("the stream goes on");
            held.push((deliveries, delivery));
        }
        // The broker means it: it ends whoever else holds a message for so long.
        let direct = Connection::connect(&broker.url(), ConnectionProperties::default()).await;
        let direct = direct.expect("it answers");
        let channel = direct.create_channel().await.expect("it has channels");
        hold_plainly(&channel).await;
        grow_older(Duration::from_secs(2)).await;
        assert_eq!(transport.health(), Health::Connected);
        for (mut deliveries, delivery) in held {
            assert_eq!(delivery.redeliveries, 0);
            delivery.ack().await;
            let again = tokio::time::timeout(Duration::from_secs(2), deliveries.next()).await;
            assert!(again.is_err(), "it came again: {again:?}");
        }
    });
}

/// A policy may be shorter than what we ask for, and brokers before 3.12 do not know what we ask for.
#[test]
fn a_message_whose_channel_the_broker_closed_comes_again_and_a_late_answer_changes_nothing() {
    let Some(broker) = RabbitMqBroker::start() else {
        return;
    };
    broker.control(&["eval", STRICT]);
    block_on(async {
        let transport = rabbitmq(&RabbitMqConfig::new(broker.url()));
        let spec = spec(Order::Unordered);
        let declared = transport.declare(StoreId::new(), std::slice::from_ref(&spec));
        declared.await.expect("it is declared");
        let short = r#"{"consumer-timeout":1000}"#;
        broker.control(&[
            "set_policy",
            "short",
            "^slow$",
            short,
            "--apply-to",
            "queues",
        ]);
        let mut deliveries = transport.subscribe(&spec, 10).await.expect("it is there");
        let sent = transport.publish(&[message(&spec)]).await;
        assert!(sent.iter().all(Result::is_ok), "{sent:?}");
        let mut next = async || {
            let delivery = tokio::time::timeout(PATIENCE, deliveries.next()).await;
            delivery.expect("it comes").expect("the stream goes on")
        };
        let first = next().await;
        // It is held for too long: the broker takes it back with the channel.
        let second = next().await;
        assert_eq!(first.envelope.id, second.envelope.id);
        assert!(second.redeliveries > first.redeliveries);
        first.ack().await;
        // The answer was to a delivery of a channel that is gone, so the second is still open.
        let third = next().await;
        assert_eq!(third.envelope.id, second.envelope.id);
        third.ack().await;
        drop(second);
        let well = || async { (transport.health() == Health::Connected).then_some(()) };
        eventually("a healthy endpoint", well).await;
        let again = tokio::time::timeout(Duration::from_secs(3), deliveries.next()).await;
        assert!(again.is_err(), "it came again: {again:?}");
    });
}
