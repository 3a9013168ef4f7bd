//! What people write: typed values with a stable name.

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::codec;
use crate::error::{CodecError, HandlerError};

/// The most other names that a message type has ([`Message::ALIASES`]): each is a subscription, and
/// with a broker a binding, of every endpoint that takes it.
pub const ALIASES_MAX: usize = 8;

/// Says how a message travels, and to whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Asks one owner to do something: `PlaceOrder`. Routed to the one endpoint that subscribed.
    Command,
    /// Tells everyone that something happened: `OrderPlaced`. Copied to every subscribed endpoint.
    Event,
    /// An answer: goes to the `reply_to` address of the message that is being handled.
    Reply,
}

impl Kind {
    /// Returns the word that is stored and shown: `command`, `event` or `reply`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Command => "command",
            Self::Event => "event",
            Self::Reply => "reply",
        }
    }
}

/// A typed value with a stable name, which is all that travels.
///
/// Derive [`Command`], [`Event`] or `Message` (a reply), or write the few lines by hand:
///
/// ```
/// use sagabus_core::{Event, Kind, Message};
///
/// #[derive(serde::Serialize, serde::Deserialize)]
/// struct OrderPlaced { order_id: u64 }
///
/// impl Message for OrderPlaced {
///     const TYPE: &'static str = "orders.order-placed";
///     const KIND: Kind = Kind::Event;
/// }
/// impl Event for OrderPlaced {}
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a message",
    label = "not a message",
    note = "derive one of `Command`, `Event` or `Message`, together with `Serialize` and \
            `Deserialize`, and name it: `#[message(\"orders.order-placed\")]`"
)]
pub trait Message: Serialize + DeserializeOwned + Send + Sync + 'static {
    /// The name that is stored and sent, for example `orders.order-placed`.
    ///
    /// Chosen by you, never derived from the Rust type, so that renaming a type changes nothing.
    /// 1 to 200 visible ASCII characters.
    const TYPE: &'static str;

    /// The version of the body's shape. A message with a higher version than the handler knows is
    /// a dead letter with the reason `newer_version`, so that it waits for the newer release.
    ///
    /// Counts up by one. What comes in an older version goes through [`upcast`](Self::upcast).
    const VERSION: u32 = 1;

    /// Other names that it answers to: those it had before it was renamed, so that what was sent
    /// under them still finds its handler. At most [`ALIASES_MAX`].
    ///
    /// It is sent under [`TYPE`](Self::TYPE) alone. Hosts of an older release that are to take the
    /// new name have it as an alias before anybody sends under it.
    const ALIASES: &'static [&'static str] = &[];

    /// Command, event or reply. A plain message is a reply.
    const KIND: Kind = Kind::Reply;

    /// The `content-type` header of the body.
    const CONTENT_TYPE: &'static str = codec::JSON;

    /// Returns the key that orders and finds this message, if its type has one
    /// (`#[message(key = order_id)]`).
    fn message_key(&self) -> Option<String> {
        None
    }

    /// Brings a body of version `from` to the shape of the version after it. Called for each version
    /// from that of the message up to the one before [`VERSION`](Self::VERSION); for bodies that are
    /// JSON or MessagePack. A codec of your own reads its older versions itself.
    ///
    /// ```
    /// use sagabus_core::{Event, Kind, Message, Result};
    /// use serde_json::{Value, json};
    ///
    /// #[derive(serde::Serialize, serde::Deserialize)]
    /// struct Paid { cents: i64 }
    ///
    /// impl Message for Paid {
    ///     const TYPE: &'static str = "payments.paid";
    ///     const ALIASES: &'static [&'static str] = &["shop.paid"];
    ///     const KIND: Kind = Kind::Event;
    ///     const VERSION: u32 = 2;
    ///
    ///     fn upcast(_from: u32, body: Value) -> Result<Value> {
    ///         let euros = body["euros"].as_i64().unwrap_or_default();
    ///         Ok(json!({ "cents": euros * 100 }))
    ///     }
    /// }
    /// impl Event for Paid {}
    /// ```
    ///
    /// # Errors
    /// When the body is of no known shape: the message becomes a dead letter with the reason
    /// `undecodable`.
    fn upcast(from: u32, body: serde_json::Value) -> Result<serde_json::Value, HandlerError> {
        let _ = from; // Without changes of its own, only fields with defaults were added.
        Ok(body)
    }

    /// Encodes the body. JSON unless overridden together with [`CONTENT_TYPE`](Self::CONTENT_TYPE).
    ///
    /// # Errors
    /// [`CodecError::Encode`] when a value cannot be represented.
    fn encode(&self) -> Result<Bytes, CodecError> {
        codec::encode_json(self)
    }

    /// Decodes a body.
    ///
    /// # Errors
    /// [`CodecError::Decode`] when the bytes are not a body of this type.
    fn decode(body: &[u8]) -> Result<Self, CodecError> {
        codec::decode_json(body)
    }
}

/// Returns the other names of a message type; more than there may be do not compile.
pub fn aliases_of<M: Message>() -> &'static [&'static str] {
    const {
        assert!(
            M::ALIASES.len() <= ALIASES_MAX,
            "a message has at most 8 aliases"
        );
    }
    M::ALIASES
}

/// A message that asks its one owner to do something. Named in the imperative: `PlaceOrder`.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a command",
    label = "only a command can be sent to an owner",
    note = "derive `Command` for it, or `publish` it if it is an event"
)]
pub trait Command: Message {}

/// A message that tells everyone what happened. Named in the past tense: `OrderPlaced`.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not an event",
    label = "only an event can be published",
    note = "derive `Event` for it, or `send` it if it is a command"
)]
pub trait Event: Message {}
