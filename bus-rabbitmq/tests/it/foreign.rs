//! Clients that know nothing of us: plain AMQP, and other producers of CloudEvents.

use bytes::Bytes;
use futures_util::StreamExt;
use lapin::options::{
    BasicAckOptions, BasicConsumeOptions, BasicPublishOptions, QueueBindOptions,
    QueueDeclareOptions,
};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, Channel, Connection, ConnectionProperties};
use sagabus_core::endpoint::{EndpointName, Order};
use sagabus_core::id::{MessageId, StoreId};
use sagabus_core::memory::MemoryStore;
use sagabus_core::message::Kind;
use sagabus_core::store::{EndpointSpec, Subscription};
use sagabus_core::transport::{Delivery, Transport};
use sagabus_core::{Ctx, Headers, State};
use sagabus_rabbitmq::RabbitMqConfig;
use sagabus_testkit::bus::parcels::{Answered, Ask, Pack, Packed, note, quiet};
use sagabus_testkit::bus::{Log, start, stop};
use sagabus_testkit::service::block_on;

use crate::site::{builder, config, rabbitmq, url};

/// Opens a channel as any client does.
async fn channel(url: &str) -> (Connection, Channel) {
    let connection = Connection::connect(url, ConnectionProperties::default()).await;
    let connection = connection.expect("the broker answers");
    let channel = connection.create_channel().await.expect("it opens");
    (connection, channel)
}

async fn publish(channel: &Channel, exchange: &str, properties: BasicProperties, body: &[u8]) {
    let options = BasicPublishOptions::default();
    let publishing = channel.basic_publish(exchange.into(), "".into(), options, body, properties);
    publishing.await.expect("it is sent");
}

fn spec(order: Order) -> EndpointSpec {
    EndpointSpec {
        name: EndpointName::new("orders").expect("a usable name"),
        order,
        subscriptions: vec![Subscription {
            message_type: "shop.placed".into(),
            kind: Kind::Event,
        }],
    }
}

/// Declares an endpoint, lets a foreign client publish, and returns what arrives.
async fn received(
    url: &str,
    order: Order,
    messages: Vec<(BasicProperties, &'static [u8])>,
) -> Vec<Delivery> {
    let config = config(url);
    let (transport, spec) = (rabbitmq(&config), spec(order));
    let declared = transport.declare(StoreId::new(), std::slice::from_ref(&spec));
    declared.await.expect("it is declared");
    let (_connection, channel) = channel(url).await;
    let exchange = format!("{}event/shop.placed", config.namespace);
    let count = messages.len();
    for (properties, body) in messages {
        publish(&channel, &exchange, properties, body).await;
    }
    let deliveries = transport.subscribe(&spec, 50).await;
    deliveries
        .expect("it is declared")
        .take(count)
        .collect()
        .await
}

fn table(pairs: &[(&str, AMQPValue)]) -> FieldTable {
    let mut table = FieldTable::default();
    for (name, value) in pairs {
        table.insert((*name).into(), value.clone());
    }
    table
}

fn text(value: &str) -> AMQPValue {
    AMQPValue::LongString(value.into())
}

#[test]
fn messages_of_plain_clients_become_envelopes() {
    let Some(url) = url() else { return };
    block_on(async {
        let named = BasicProperties::default()
            .with_message_id("order/4711".into())
            .with_type("shop.placed".into())
            .with_content_type("application/json".into())
            .with_reply_to("amq.gen-1".into())
            .with_timestamp(1_795_264_800)
            .with_headers(table(&[
                ("tenant", text("a")),
                ("priority", AMQPValue::LongInt(7)),
                ("is-test", AMQPValue::Boolean(true)),
            ]));
        let messages = vec![(named, &b"{}"[..]), (BasicProperties::default(), b"hello")];
        let got = received(&url, Order::Unordered, messages).await;
        let (named, bare) = (&got[0].envelope, &got[1].envelope);
        assert_eq!(named.id, MessageId::from_foreign("order/4711"));
        assert_eq!(named.message_type, "shop.placed");
        let of = |name| named.headers.get(name);
        assert_eq!(of("content-type"), Some("application/json"));
        assert_eq!(of("sagabus-reply-to"), Some("queue/amq.gen-1"));
        assert_eq!(of("sagabus-sent-at"), Some("1795264800000000"));
        assert_eq!(
            (of("tenant"), of("priority"), of("is-test")),
            (Some("a"), Some("7"), Some("true"))
        );
        assert_eq!(
            (bare.message_type.as_ref(), &bare.body[..]),
            ("", &b"hello"[..])
        );
        assert_eq!(bare.headers, Headers::new());
    });
}

#[test]
fn cloud_events_of_any_producer_become_envelopes() {
    let Some(url) = url() else { return };
    block_on(async {
        let event = |prefix: &str| {
            let name = |attribute| format!("{prefix}{attribute}");
            let mut headers = FieldTable::default();
            for (attribute, value) in [
                ("specversion", "1.0"),
                ("id", "1"),
                ("source", "/till"),
                ("type", "shop.placed"),
                ("time", "2026-11-21T12:40:00Z"),
                ("partitionkey", "k"),
            ] {
                headers.insert(name(attribute).into(), text(value));
            }
            (BasicProperties::default().with_headers(headers), &b"{}"[..])
        };
        let messages = vec![event("cloudEvents:"), event("cloudEvents_")];
        for delivery in received(&url, Order::Unordered, messages).await {
            let envelope = &delivery.envelope;
            assert_eq!(envelope.id, MessageId::from_foreign("/till\u{1f}1"));
            assert_eq!(envelope.message_type, "shop.placed");
            assert_eq!(envelope.headers.get("sagabus-key"), Some("k"));
        }
    });
}

#[test]
fn a_message_without_a_slot_reaches_an_ordered_endpoint() {
    let Some(url) = url() else { return };
    block_on(async {
        let messages = vec![
            (
                BasicProperties::default().with_message_id("1".into()),
                &b"a"[..],
            ),
            (
                BasicProperties::default().with_message_id("2".into()),
                &b"b"[..],
            ),
        ];
        let got = received(&url, Order::PerKey, messages).await;
        let bodies: Vec<&Bytes> = got.iter().map(|delivery| &delivery.envelope.body).collect();
        assert_eq!(bodies, ["a", "b"]);
    });
}

#[test]
fn a_foreign_command_is_handled_and_answered() {
    async fn answer(question: Ask) -> Answered {
        Answered { n: question.n + 1 }
    }
    let Some(url) = url() else { return };
    block_on(async {
        let (config, store, log) = (config(&url), MemoryStore::new(), Log::default());
        let builder = builder(&config, &store, &log);
        let host = start(builder.endpoint("answering", |e| e.handle(answer))).await;
        let (_connection, channel) = channel(&url).await;
        let queue = exclusive(&channel).await;
        let properties = BasicProperties::default()
            .with_type("parcels.ask".into())
            .with_message_id("q-1".into())
            .with_reply_to(queue.as_str().into());
        let exchange = format!("{}command/parcels.ask", config.namespace);
        publish(&channel, &exchange, properties, br#"{"n":41}"#).await;
        let answer = next(&channel, &queue).await;
        assert_eq!(answer.data, br#"{"n":42}"#);
        let kind = answer.properties.kind().as_ref().map(|kind| kind.as_str());
        assert_eq!(kind, Some("parcels.answered"));
        quiet(&store).await;
        stop(host).await;
    });
}

#[test]
fn what_we_publish_is_a_cloud_event_for_everybody() {
    async fn pack(command: Pack, _: Ctx) -> Packed {
        Packed { n: command.n }
    }
    async fn hear(event: Packed, log: State<Log>) {
        note(event, log).await;
    }
    let Some(url) = url() else { return };
    block_on(async {
        let (config, store, log) = (config(&url), MemoryStore::new(), Log::default());
        let builder = builder(&config, &store, &log).endpoint("packing", |e| e.handle(pack));
        let host = start(builder.endpoint("audit", |e| e.handle(hear))).await;
        let (_connection, channel) = channel(&url).await;
        let queue = exclusive(&channel).await;
        let exchange = format!("{}event/parcels.packed", config.namespace);
        let (options, none) = (QueueBindOptions::default(), FieldTable::default());
        let bound = channel.queue_bind(
            queue.as_str().into(),
            exchange.into(),
            "".into(),
            options,
            none,
        );
        bound.await.expect("the exchange is there");
        host.bus().send(Pack { n: 5 }).await.expect("it is stored");

        let event = next(&channel, &queue).await;
        let properties = &event.properties;
        let headers = properties.headers().clone().expect("it has headers");
        let header = |name: &str| match headers.inner().get(name) {
            Some(AMQPValue::LongString(value)) => value.to_string(),
            other => panic!("{name} is {other:?}"),
        };
        assert_eq!(header("cloudEvents:specversion"), "1.0");
        assert_eq!(header("cloudEvents:type"), "parcels.packed");
        assert_eq!(header("cloudEvents:source"), "sagabus");
        assert_eq!(header("cloudEvents:partitionkey"), "5");
        let id = properties.message_id().as_ref().map(ToString::to_string);
        assert_eq!(id, Some(header("cloudEvents:id")));
        let content_type = properties.content_type().as_ref().map(|one| one.as_str());
        assert_eq!(content_type, Some("application/json"));
        assert_eq!(properties.delivery_mode(), &Some(2));
        assert_eq!(event.data, br#"{"n":5}"#);
        log.wait_for(1).await;
        stop(host).await;
    });
}

/// Declares a queue that goes with its client.
async fn exclusive(channel: &Channel) -> String {
    let options = QueueDeclareOptions {
        exclusive: true,
        ..QueueDeclareOptions::default()
    };
    let declared = channel.queue_declare("".into(), options, FieldTable::default());
    declared.await.expect("it is declared").name().to_string()
}

async fn next(channel: &Channel, queue: &str) -> lapin::message::Delivery {
    let options = BasicConsumeOptions::default();
    let consuming = channel.basic_consume(queue.into(), "".into(), options, FieldTable::default());
    let mut consumer = consuming.await.expect("the queue is there");
    let waiting = tokio::time::timeout(sagabus_testkit::wait::PATIENCE, consumer.next());
    let delivery = waiting
        .await
        .expect("it comes")
        .expect("the stream goes on");
    let delivery = delivery.expect("the channel is open");
    delivery
        .ack(BasicAckOptions::default())
        .await
        .expect("it is acked");
    delivery
}

/// A namespace of our own is all that tells these from the names that users see.
#[test]
fn names_on_the_broker_are_what_the_documentation_says() {
    let Some(url) = url() else { return };
    block_on(async {
        let config: RabbitMqConfig = config(&url);
        let transport = rabbitmq(&config);
        let spec = spec(Order::Unordered);
        let declared = transport.declare(StoreId::new(), std::slice::from_ref(&spec));
        declared.await.expect("it is declared");
        let (_connection, channel) = channel(&url).await;
        for queue in ["orders", "orders/set-aside"] {
            let name = format!("{}{queue}", config.namespace);
            let passive = QueueDeclareOptions {
                passive: true,
                ..QueueDeclareOptions::default()
            };
            let found = channel.queue_declare(name.into(), passive, FieldTable::default());
            assert_eq!(found.await.expect("it is there").message_count(), 0);
        }
    });
}
