//! What is on the broker: exchange per message type, bound to an exchange per endpoint, bound to
//! its queues.
//!
//! ```text
//! event/orders.order-placed ──▶ payments ──▶ queue payments                 (unordered)
//! (fanout)                      (fanout)
//!
//! event/orders.order-placed ──▶ parcels ──▶ queues parcels/0 .. parcels/7   (order per key)
//! (fanout)                      (direct, by slot)      one receiver each
//!                                  └─ else ▶ parcels/unslotted-8 ──▶ queue parcels/0
//! ```
//!
//! A message of ours is published with a slot, 0 to 63, as its routing key: by its key, else by its
//! identity. A foreign message without a slot goes to the first queue, by the alternate exchange.
//! What a broker should compare for us is written where it does compare: the alternate exchange of
//! an exchange. So `parcels/owner` names the store that owns the endpoint, and `command/..` the
//! endpoint that takes the command, and another one is refused.

use lapin::options::{
    ExchangeBindOptions, ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions,
};
use lapin::types::{AMQPValue, FieldTable, ShortString};
use lapin::{Channel, ExchangeKind};
use sagabus_core::error::TransportError;
use sagabus_core::id::StoreId;
use sagabus_core::store::EndpointSpec;
use sagabus_core::transport::Publication;

use crate::config::{RabbitMqConfig, TopologyMode};
use crate::error::{Refusal, refusal, unavailable};
use crate::pieces::{Piece, SLOTS, pieces};

/// The longest name that AMQP can carry.
const NAME_BYTES_MAX: usize = 255;

/// How an address is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Route {
    pub(crate) exchange: ShortString,
    pub(crate) routing_key: ShortString,
    /// Somebody must get it, else it is returned.
    pub(crate) is_mandatory: bool,
    /// We may declare the exchange, because it belongs to the message type.
    pub(crate) is_declared_by_us: bool,
}

impl Route {
    /// Finds the exchange of a publication; `None` for a name that AMQP cannot carry.
    ///
    /// `event/<type>` is the one kind that nobody need receive. `endpoint/<name>` is an endpoint's
    /// own exchange, `queue/<name>` a queue, such as a foreign client's for replies, and anything
    /// else an exchange by its name.
    pub(crate) fn of(publication: &Publication, namespace: &str) -> Option<Self> {
        let address = publication.address.as_str();
        let ours = || format!("{namespace}{address}");
        let slot = slot(publication).to_string();
        let is_event = address.starts_with("event/");
        let (exchange, routing_key) = match address.split_once('/') {
            Some(("queue", queue)) => (String::new(), queue.to_owned()),
            Some(("endpoint", endpoint)) => (format!("{namespace}{endpoint}"), slot),
            Some(("event" | "command" | "reply", _)) => (ours(), slot),
            _ => (address.to_owned(), slot),
        };
        Some(Self {
            exchange: name(&exchange)?,
            routing_key: name(&routing_key)?,
            is_mandatory: !is_event,
            is_declared_by_us: is_event,
        })
    }
}

/// Returns the slot of a message: equal keys have the equal slot, in every release.
fn slot(publication: &Publication) -> u32 {
    match &publication.key {
        Some(key) => hash(key.as_bytes()) % SLOTS,
        None => hash(publication.envelope.id.as_uuid().as_bytes()) % SLOTS,
    }
}

/// FNV-1a: short, good enough for slots, and the same everywhere for ever.
pub(crate) fn hash(bytes: &[u8]) -> u32 {
    let step = |hash: u32, byte: &u8| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193);
    bytes.iter().fold(0x811c_9dc5, step)
}

/// Wraps a name, if AMQP can carry it.
fn name(text: &str) -> Option<ShortString> {
    (text.len() <= NAME_BYTES_MAX)
        .then(|| ShortString::try_new(text).ok())
        .flatten()
}

/// Declares, or verifies, on one channel. A refusal closes the channel: it cannot be used again.
pub(crate) struct Declarer<'a> {
    pub(crate) channel: &'a Channel,
    pub(crate) config: &'a RabbitMqConfig,
}

impl Declarer<'_> {
    /// Declares everything that an endpoint of a store needs.
    pub(crate) async fn endpoint(
        &self,
        store: StoreId,
        spec: &EndpointSpec,
    ) -> Result<(), TransportError> {
        for piece in pieces(&store.to_string(), spec, self.config) {
            match piece {
                Piece::Queue { name, arguments } => self.queue(&name, arguments).await?,
                Piece::Exchange {
                    name,
                    kind,
                    alternate,
                } => self.exchange(&name, kind, alternate.as_deref()).await?,
                Piece::ToQueue { from, to, key } => self.bind_queue(&to, &from, &key).await?,
                Piece::ToExchange { from, to } => self.bind_exchange(&to, &from).await?,
            }
        }
        Ok(())
    }

    /// Declares, or finds, the exchange of an event that is to be published.
    pub(crate) async fn published(&self, exchange: &str) -> Result<(), TransportError> {
        self.exchange(exchange, ExchangeKind::Fanout, None).await
    }

    async fn queue(&self, queue: &str, arguments: FieldTable) -> Result<(), TransportError> {
        let options = QueueDeclareOptions {
            passive: self.config.topology == TopologyMode::Verify,
            durable: true,
            ..QueueDeclareOptions::default()
        };
        let declared = self
            .channel
            .queue_declare(self.name(queue)?, options, arguments);
        let queue_or_error = declared.await;
        queue_or_error
            .map(drop)
            .map_err(|error| self.explain("queue", queue, &error))
    }

    async fn exchange(
        &self,
        exchange: &str,
        kind: ExchangeKind,
        alternate: Option<&str>,
    ) -> Result<(), TransportError> {
        let mut arguments = FieldTable::default();
        if let Some(alternate) = alternate {
            let alternate = AMQPValue::LongString(alternate.into());
            arguments.insert("alternate-exchange".into(), alternate);
        }
        let options = ExchangeDeclareOptions {
            passive: self.config.topology == TopologyMode::Verify,
            durable: true,
            ..ExchangeDeclareOptions::default()
        };
        let name = self.name(exchange)?;
        let declared = self
            .channel
            .exchange_declare(name, kind, options, arguments);
        let declared = declared.await;
        declared.map_err(|error| self.explain("exchange", exchange, &error))
    }

    async fn bind_queue(
        &self,
        queue: &str,
        exchange: &str,
        key: &str,
    ) -> Result<(), TransportError> {
        if self.config.topology == TopologyMode::Verify {
            return Ok(());
        }
        let (to, from) = (self.name(queue)?, self.name(exchange)?);
        let key = ShortString::from(key);
        let (options, none) = (QueueBindOptions::default(), FieldTable::default());
        let bound = self.channel.queue_bind(to, from, key, options, none).await;
        bound.map_err(|error| self.explain("binding of queue", queue, &error))
    }

    async fn bind_exchange(&self, to: &str, from: &str) -> Result<(), TransportError> {
        if self.config.topology == TopologyMode::Verify {
            return Ok(());
        }
        let (destination, source) = (self.name(to)?, self.name(from)?);
        let (options, none) = (ExchangeBindOptions::default(), FieldTable::default());
        let bound = self
            .channel
            .exchange_bind(destination, source, "".into(), options, none);
        let bound = bound.await;
        bound.map_err(|error| self.explain("binding of exchange", from, &error))
    }

    /// A name in our namespace.
    fn name(&self, text: &str) -> Result<ShortString, TransportError> {
        name(&format!("{}{text}", self.config.namespace)).ok_or_else(|| {
            TransportError::Setup(format!(
                "the name `{text}` has more than {NAME_BYTES_MAX} bytes; choose a shorter one [SB0217]"
            ))
        })
    }

    /// Turns the broker's refusal into what to do about it.
    fn explain(&self, what: &str, name: &str, error: &lapin::Error) -> TransportError {
        let (refusal, said) = refusal(error);
        TransportError::Setup(match refusal {
            Refusal::Other => return unavailable(error),
            Refusal::Missing => format!(
                "{what} `{name}` is missing on the broker, and this host only verifies; start it \
                 once with `TopologyMode::Declare` and a user that may configure [SB0224]"
            ),
            Refusal::Forbidden => format!(
                "{what} `{name}` may not be declared by this user ({said}); give it the permission \
                 to configure, or provision with another user and use `TopologyMode::Verify` [SB0220]"
            ),
            Refusal::Different => different(what, name, &said),
        })
    }
}

/// Says whose an endpoint, command or queue is that exists with other properties.
fn different(what: &str, name: &str, said: &str) -> String {
    let current = said.split("current is '").nth(1);
    let current = current
        .and_then(|rest| rest.split('\'').next())
        .unwrap_or_default();
    if let (Some(endpoint), Some(owner)) =
        (name.strip_suffix("/owner"), current.strip_prefix("store/"))
    {
        return format!(
            "endpoint `{endpoint}` is owned by store {owner}, and this host's store is another; give \
             the endpoint another name, or connect the host to the store that owns it (to hand the \
             endpoint over, delete the exchange `{name}`) [SB0223]"
        );
    }
    if let (Some(command), Some(taker)) = (
        name.strip_prefix("command/"),
        current.strip_prefix("taken-by/"),
    ) {
        return format!(
            "command `{command}` is taken by endpoint `{taker}`; remove the handler there or here \
             (to move the command, delete the exchange `{name}`) [SB0223]"
        );
    }
    format!(
        "{what} `{name}` exists with other properties ({said}); use the properties that it has, or \
         delete it when it is empty [SB0222]"
    )
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use sagabus_core::Envelope;

    use super::*;

    fn publication(address: &str, key: Option<&str>) -> Publication {
        Publication {
            address: address.to_owned(),
            envelope: Envelope {
                id: "018f4e5a-0000-7000-8000-000000000001".parse().unwrap(),
                message_type: "t".into(),
                headers: sagabus_core::Headers::new(),
                body: Bytes::new(),
            },
            key: key.map(str::to_owned),
        }
    }

    #[test]
    fn only_events_may_be_heard_by_nobody() {
        let route = |address| Route::of(&publication(address, Some("k")), "ns.").unwrap();
        let event = route("event/shop.placed");
        assert_eq!(event.exchange.as_str(), "ns.event/shop.placed");
        assert!(!event.is_mandatory && event.is_declared_by_us);
        for (address, exchange) in [
            ("command/shop.charge", "ns.command/shop.charge"),
            ("endpoint/parcels", "ns.parcels"),
            ("somebody's exchange", "somebody's exchange"),
        ] {
            let other = route(address);
            assert_eq!(other.exchange.as_str(), exchange);
            assert!(other.is_mandatory && !other.is_declared_by_us);
        }
        let queue = route("queue/amq.gen-1");
        assert_eq!(
            (queue.exchange.as_str(), queue.routing_key.as_str()),
            ("", "amq.gen-1")
        );
        assert_eq!(Route::of(&publication(&"x".repeat(256), None), ""), None);
    }

    #[test]
    fn slots_never_change() {
        let slots = |key| slot(&publication("event/x", key));
        assert_eq!(
            [slots(Some("4711")), slots(Some("größe/7")), slots(None)],
            [50, 8, 42]
        );
    }

    #[test]
    fn a_foreign_owner_is_named() {
        let said = "PRECONDITION_FAILED - inequivalent arg 'alternate-exchange' for exchange \
                    'orders/owner' in vhost '/': received 'store/2' but current is 'store/1'";
        let shown = different("exchange", "orders/owner", said);
        assert!(
            shown.starts_with("endpoint `orders` is owned by store 1,"),
            "{shown}"
        );
        let said = said.replace("'store/", "'taken-by/");
        let shown = different("exchange", "command/charge", &said);
        assert!(
            shown.starts_with("command `charge` is taken by endpoint `1`"),
            "{shown}"
        );
    }
}
