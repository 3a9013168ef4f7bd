//! What people write: typed values with a stable name.

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::codec;
use crate::error::CodecError;

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
    const VERSION: u32 = 1;

    /// Command, event or reply. A plain message is a reply.
    const KIND: Kind = Kind::Reply;

    /// The `content-type` header of the body.
    const CONTENT_TYPE: &'static str = codec::JSON;

    /// Returns the key that orders and finds this message, if its type has one
    /// (`#[message(key = order_id)]`).
    fn message_key(&self) -> Option<String> {
        None
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
