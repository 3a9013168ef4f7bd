//! What an endpoint needs on the broker, piece by piece: what is declared, and what a host says of it.

use std::collections::BTreeMap;
use std::time::Duration;

use lapin::ExchangeKind;
use lapin::types::{AMQPValue, FieldTable};
use sagabus_core::endpoint::{EndpointName, Order};
use sagabus_core::message::Kind;
use sagabus_core::store::EndpointSpec;
use sagabus_core::transport::address;
use serde_json::{Value, json};

use crate::config::{RabbitMqConfig, TopologyMode};

/// Slots of an ordered endpoint. Many against the queues, so that these share them evenly; never
/// changed, because senders and receivers of different releases must agree.
pub(crate) const SLOTS: u32 = 64;
/// How long the broker waits for the answer to a delivery. By its own setting it closes the channel
/// after 30 minutes, or what somebody has set, which AMQP does not show: a handler with a longer
/// deadline would be run again and again. What hangs is ended by its deadline, not by this.
const ANSWER_MAX: Duration = Duration::from_secs(24 * 60 * 60);

/// Returns the queues of an endpoint, without their namespace.
pub(crate) fn queues(
    endpoint: &EndpointName,
    order: Order,
    config: &RabbitMqConfig,
) -> Vec<String> {
    match order {
        Order::Unordered => vec![endpoint.to_string()],
        Order::PerKey => (0..config.ordered_queues)
            .map(|number| format!("{endpoint}/{number}"))
            .collect(),
    }
}

/// One thing to declare. Names are without their namespace, but for those within arguments.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Piece {
    /// A durable queue.
    Queue { name: String, arguments: FieldTable },
    /// A durable exchange.
    Exchange {
        name: String,
        kind: ExchangeKind,
        alternate: Option<String>,
    },
    /// Binds a queue to an exchange.
    ToQueue {
        from: String,
        to: String,
        key: String,
    },
    /// Binds an exchange to another one.
    ToExchange { from: String, to: String },
}

/// Lists what an endpoint of a store needs, in the order in which it is declared: the mark of its
/// owner first, and messages of others come to it last.
pub(crate) fn pieces(store: &str, spec: &EndpointSpec, config: &RabbitMqConfig) -> Vec<Piece> {
    let endpoint = &spec.name;
    let aside = format!("{endpoint}/set-aside");
    let mut all = vec![
        exchange(format!("{endpoint}/owner"), Some(format!("store/{store}"))),
        Piece::Queue {
            name: aside.clone(),
            arguments: quorum(config),
        },
    ];
    let queues = queues(endpoint, spec.order, config);
    all.extend(queues.iter().map(|queue| Piece::Queue {
        name: queue.clone(),
        arguments: arguments(&aside, spec.order, config),
    }));
    match spec.order {
        Order::Unordered => all.extend([
            exchange(endpoint.to_string(), None),
            to_queue(endpoint.as_str(), &queues[0], String::new()),
        ]),
        Order::PerKey => all.extend(slots(endpoint, &queues, config)),
    }
    for subscription in &spec.subscriptions {
        let from = address(subscription.kind, &subscription.message_type);
        let is_command = subscription.kind == Kind::Command;
        let taker = is_command.then(|| format!("taken-by/{endpoint}"));
        let to = endpoint.to_string();
        all.extend([
            exchange(from.clone(), taker),
            Piece::ToExchange { from, to },
        ]);
    }
    all
}

fn exchange(name: String, alternate: Option<String>) -> Piece {
    Piece::Exchange {
        name,
        kind: ExchangeKind::Fanout,
        alternate,
    }
}

fn to_queue(from: &str, to: &str, key: String) -> Piece {
    Piece::ToQueue {
        from: from.to_owned(),
        to: to.to_owned(),
        key,
    }
}

/// One direct exchange from slots to queues, and a way for what has no slot.
fn slots(endpoint: &EndpointName, queues: &[String], config: &RabbitMqConfig) -> Vec<Piece> {
    // With the number in its name, the broker refuses another number of queues.
    let rest = format!("{endpoint}/unslotted-{}", queues.len());
    let alternate = format!("{}{rest}", config.namespace);
    let mut all = vec![
        exchange(rest.clone(), None),
        to_queue(&rest, &queues[0], String::new()),
        Piece::Exchange {
            name: endpoint.to_string(),
            kind: ExchangeKind::Direct,
            alternate: Some(alternate),
        },
    ];
    all.extend((0..SLOTS).map(|slot| {
        let queue = &queues[slot as usize % queues.len()];
        to_queue(endpoint.as_str(), queue, slot.to_string())
    }));
    all
}

/// Out of reach of its delivery limit and of the broker's time for an answer; and what it gives up
/// in spite of that, by a policy that somebody set, is set aside, not deleted.
fn arguments(aside: &str, order: Order, config: &RabbitMqConfig) -> FieldTable {
    let mut arguments = quorum(config);
    let limit = AMQPValue::LongLongInt(i64::from(config.delivery_limit));
    arguments.insert("x-delivery-limit".into(), limit);
    arguments.insert("x-dead-letter-exchange".into(), text(""));
    let aside = format!("{}{aside}", config.namespace);
    arguments.insert("x-dead-letter-routing-key".into(), text(&aside));
    arguments.insert("x-dead-letter-strategy".into(), text("at-least-once"));
    arguments.insert("x-overflow".into(), text("reject-publish"));
    arguments.insert("x-consumer-timeout".into(), millis(ANSWER_MAX));
    if order == Order::PerKey {
        let single = AMQPValue::Boolean(true);
        arguments.insert("x-single-active-consumer".into(), single);
    }
    arguments
}

fn quorum(config: &RabbitMqConfig) -> FieldTable {
    let mut arguments = FieldTable::default();
    arguments.insert("x-queue-type".into(), text("quorum"));
    if let Some(expiry) = config.expires_unused {
        arguments.insert("x-expires".into(), millis(expiry));
    }
    arguments
}

fn text(value: &str) -> AMQPValue {
    AMQPValue::LongString(value.into())
}

fn millis(time: Duration) -> AMQPValue {
    AMQPValue::LongLongInt(i64::try_from(time.as_millis()).unwrap_or(i64::MAX))
}

/// Says what is declared for endpoints, or looked for, as JSON for people. Names are those on the
/// broker.
pub(crate) fn described(endpoints: &[EndpointSpec], config: &RabbitMqConfig) -> Value {
    let ours = |name: &str| format!("{}{name}", config.namespace);
    let (mut queues, mut exchanges) = (Vec::new(), Vec::new());
    let mut bindings: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let all = endpoints.iter();
    for piece in all.flat_map(|spec| pieces("(this store)", spec, config)) {
        match piece {
            Piece::Queue { name, arguments } => queues.push(json!({
                "name": ours(&name),
                "arguments": shown(&arguments),
            })),
            Piece::Exchange {
                name,
                kind,
                alternate,
            } => exchanges.push(json!({
                "name": ours(&name),
                "kind": format!("{kind:?}").to_lowercase(),
                "alternate": alternate,
            })),
            Piece::ToQueue { from, to, key } => {
                let binding = format!("{} -> {}", ours(&from), ours(&to));
                bindings.entry(binding).or_default().push(key);
            }
            Piece::ToExchange { from, to } => {
                let binding = format!("{} -> {}", ours(&from), ours(&to));
                bindings.entry(binding).or_default().push(String::new());
            }
        }
    }
    let bindings = bindings.into_iter();
    json!({
        "mode": match config.topology {
            TopologyMode::Declare => "declare",
            TopologyMode::Verify => "verify",
        },
        "exchanges": exchanges,
        "queues": queues,
        "bindings": bindings
            .map(|(name, keys)| json!({ "name": name, "keys": keys }))
            .collect::<Vec<_>>(),
    })
}

fn shown(arguments: &FieldTable) -> Value {
    let each = arguments.inner().iter().map(|(name, value)| {
        let value = match value {
            AMQPValue::LongString(text) => text.to_string().into(),
            AMQPValue::LongLongInt(number) => (*number).into(),
            AMQPValue::Boolean(is_set) => (*is_set).into(),
            other => format!("{other:?}").into(),
        };
        (name.to_string(), value)
    });
    Value::Object(each.collect())
}

#[cfg(test)]
mod tests {
    use sagabus_core::store::Subscription;

    use super::*;

    fn spec(name: &str, order: Order, kind: Kind) -> EndpointSpec {
        EndpointSpec {
            name: EndpointName::new(name).unwrap(),
            order,
            subscriptions: vec![Subscription {
                message_type: "shop.it".into(),
                kind,
            }],
        }
    }

    #[test]
    fn what_is_declared_is_described_with_its_names_on_the_broker() {
        let mut config = RabbitMqConfig::new("amqp://me:canary@localhost");
        config.namespace = "ns.".to_owned();
        let specs = [
            spec("payments", Order::Unordered, Kind::Command),
            spec("parcels", Order::PerKey, Kind::Event),
        ];
        let described = described(&specs, &config);
        let names = |kind: &str| -> Vec<String> {
            let all = described[kind].as_array().unwrap().iter();
            all.map(|one| one["name"].as_str().unwrap().to_owned())
                .collect()
        };
        assert_eq!(described["mode"], "declare");
        assert_eq!(
            names("exchanges"),
            [
                "ns.payments/owner",
                "ns.payments",
                "ns.command/shop.it",
                "ns.parcels/owner",
                "ns.parcels/unslotted-8",
                "ns.parcels",
                "ns.event/shop.it"
            ]
        );
        assert_eq!(
            names("queues")[..2],
            ["ns.payments/set-aside", "ns.payments"]
        );
        assert_eq!(names("queues").len(), 2 + 1 + 8);
        let payments = &described["queues"][1]["arguments"];
        assert_eq!(payments["x-queue-type"], "quorum");
        assert_eq!(payments["x-delivery-limit"], 1_000_000);
        assert_eq!(
            payments["x-dead-letter-routing-key"],
            "ns.payments/set-aside"
        );
        assert_eq!(payments["x-single-active-consumer"], Value::Null);
        let parcels = &described["queues"][3]["arguments"];
        assert_eq!(parcels["x-single-active-consumer"], true);
        assert!(names("bindings").contains(&"ns.command/shop.it -> ns.payments".to_owned()));
        let keys = described["bindings"].as_array().unwrap().iter();
        let keys = keys.map(|one| one["keys"].as_array().unwrap().len());
        assert_eq!(keys.sum::<usize>(), 1 + 1 + 64 + 1 + 1);
        assert!(!described.to_string().contains("canary"));
    }
}
