//! A door to what reads strangers' input, for the fuzzer and nobody else.

use lapin::BasicProperties;
use lapin::message::Delivery;
use lapin::protocol::basic::parse_properties;

use crate::config::RabbitMqConfig;
use crate::headers;

/// Reads a delivery: its properties as they are on the wire, and behind them its body.
pub fn delivery(bytes: &[u8]) {
    let Ok((body, properties)) = parse_properties(bytes) else {
        return;
    };
    deliver(properties, body.to_vec());
}

fn deliver(properties: BasicProperties, body: Vec<u8>) {
    let mut delivery = Delivery::mock(1, "".into(), "".into(), true, body);
    delivery.properties = properties;
    let read = headers::read(delivery);
    let _ = read.envelope.check();
}

/// Takes the URL of a configuration apart; returns what is said where it cannot be.
pub fn url(config: &RabbitMqConfig) -> String {
    let refused = config.parse().err();
    refused.map_or_else(String::new, |error| format!("{error:?}"))
}
