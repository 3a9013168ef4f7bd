//! Why the bus did not take a message.

use std::time::Duration;

use super::boundary::{CodecError, StoreError, TransportError};
use crate::id::MessageId;
use crate::request::RequestFailed;

/// A message could not be given to the bus.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BusError {
    /// The message cannot be encoded or is too large.
    #[error("message cannot be sent")]
    Codec(#[from] CodecError),
    /// The database did not take it.
    #[error("message was not stored")]
    Store(#[from] StoreError),
    /// The database's answer was lost: the messages may or may not be stored. Sending again with
    /// the same identity (`with_id`) is safe.
    #[error("commit did not answer; {} messages may or may not be stored", message_ids.len())]
    CommitUnknown {
        /// Their identities.
        message_ids: Vec<MessageId>,
    },
    /// The broker did not take an announcement. Announcing again with the same identity
    /// (`with_id`) is safe.
    #[error("event was not announced")]
    Announce(#[from] TransportError),
    /// The host did not declare that it announces this event.
    #[error(
        "`{message_type}` is not announced by this host; declare it with `.announces::<..>()`, and \
         handle it, or use `publish`"
    )]
    NotAnnounced {
        /// The event's type.
        message_type: String,
    },
    /// No endpoint of this host takes this type as an answer.
    #[error(
        "no endpoint of this host takes `{answer}` as an answer; add `.answers::<..>()` to one of \
         its endpoints"
    )]
    NoAnswers {
        /// The answer's type.
        answer: &'static str,
    },
    /// The bus was used inside a handler, where it would bypass the unit of work.
    #[error("the bus was used inside a handler; send through `Ctx`, or return the message")]
    InsideHandler,
    /// The context was used after its handler had returned.
    #[error("the context was used after its handler returned")]
    ContextClosed,
    /// A reply to a message that asked for none.
    #[error("the message that is handled has no `reply_to` address")]
    NoReplyAddress,
    /// What was sent before waits for longer than the host allows
    /// ([`overloaded_after`](crate::HostBuilder::overloaded_after)). Nothing was stored.
    #[error(
        "a message for `{destination}` has waited for {age:?}, longer than {limit:?}; nothing was \
         stored: refuse the request or try again later, and see `sagabus outbox list` for who does \
         not take them"
    )]
    Overloaded {
        /// The destination, as stored: `@orders`, or an address.
        destination: String,
        /// For how long its longest due message could have been taken, when it was last measured.
        age: Duration,
        /// How long it may wait.
        limit: Duration,
    },
    /// The host is not running yet, or no longer.
    #[error("the host is not running")]
    NotRunning,
}

/// A request brought no answer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RequestError {
    /// The command was not sent.
    #[error(transparent)]
    Bus(#[from] BusError),
    /// The command became a dead letter.
    #[error(
        "request `{}` became a dead letter ({}): {}", _0.message_type, _0.reason, _0.error
    )]
    Failed(RequestFailed),
    /// No answer came in time. The command may have been handled, or still be; asking again with
    /// the same identity (`with_id`) is safe.
    #[error("no answer to message {id} within {time:?}")]
    TimedOut {
        /// The command's identity.
        id: MessageId,
        /// How long was waited.
        time: Duration,
    },
    /// The answer cannot be decoded.
    #[error("answer cannot be decoded")]
    Answer(#[source] CodecError),
}
