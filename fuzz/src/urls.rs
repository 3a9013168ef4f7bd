//! Where things are: databases, brokers, destinations.

use sagabus_core::reach::is_this_machine;
use sagabus_core::{Destination, EndpointName, Keyring, MessageId};
use sagabus_kafka::KafkaConfig;
use sagabus_outbox::PgConfig;
use sagabus_rabbitmq::RabbitMqConfig;

use crate::parts::text;

/// Stands where a password stands, in no other text.
const CANARY: &str = "\u{1f436}canary\u{1f426}";

/// A URL, an address or a name; and the same behind a password, which is in nothing that is said.
pub(crate) fn urls(bytes: &[u8]) {
    let text = text(bytes);
    let _ = (
        is_this_machine(&text),
        EndpointName::new(&text),
        Keyring::parse(&text),
    );
    if let Ok(id) = text.parse::<MessageId>() {
        assert_eq!(id.to_string().parse::<MessageId>().ok(), Some(id));
    }
    match Destination::parse(&text) {
        Ok(Destination::Endpoint(name)) => assert_eq!(format!("@{name}"), text),
        Ok(Destination::Address(address)) => assert_eq!(address, text),
        Ok(other) => unreachable!("nobody writes {other:?}"),
        Err(_) => {}
    }
    look(&text);
    if text.contains(CANARY) {
        return;
    }
    for scheme in ["amqp", "amqps", "postgres", "kafka", "mysql"] {
        let said = look(&format!("{scheme}://me:{CANARY}@{text}"));
        assert!(!said.contains(CANARY), "{said}");
    }
}

/// Reads it as each of ours, and returns what is said of it.
fn look(text: &str) -> String {
    let rabbitmq = RabbitMqConfig::new(text);
    let rabbitmq_said = sagabus_rabbitmq::fuzzing::url(&rabbitmq);
    let kafka = KafkaConfig::new(text);
    let postgres = PgConfig::new(text);
    let place = sagabus_cli::fuzzing::place(text);
    format!(
        "{rabbitmq:?} {} {rabbitmq_said} {kafka:?} {:?} {postgres:?} {place}",
        rabbitmq.masked_url(),
        kafka.check()
    )
}
