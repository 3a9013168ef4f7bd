//! What codecs, stores and transports say.

use std::error::Error;

use crate::store::Routes;

/// Any error, for keeping as a source.
pub type BoxError = Box<dyn Error + Send + Sync>;

/// A message could not become bytes, or bytes no message.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CodecError {
    /// The value has no encoded form.
    #[error("message cannot be encoded")]
    Encode(#[source] BoxError),
    /// The bytes are not a body of this type.
    #[error("body cannot be decoded")]
    Decode(#[source] BoxError),
    /// The body cannot be sealed.
    #[error("body cannot be sealed")]
    Seal(#[source] BoxError),
    /// The body is larger than 1 MiB.
    #[error("body of {bytes} bytes is larger than 1048576")]
    TooLarge {
        /// Its size.
        bytes: usize,
    },
    /// No codec reads what the body is said to be.
    #[error("content type `{content_type}` cannot be read; send `{own}`")]
    UnknownContent {
        /// What the body is said to be.
        content_type: String,
        /// What the message type is sent as.
        own: &'static str,
    },
    /// The headers break a bound.
    #[error("{0}")]
    Headers(String),
}

/// Returned by every [`Store`](crate::Store) call.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The database cannot be reached; nothing was written.
    #[error("database cannot be reached")]
    Unavailable(#[source] BoxError),
    /// The answer was lost; the call may or may not have been carried out.
    #[error("database did not answer; the outcome is unknown")]
    Unknown(#[source] BoxError),
    /// Somebody else was faster (deadlock, lock time-out, busy file); nothing was written.
    #[error("database is busy")]
    Busy(#[source] BoxError),
    /// The database refuses these values; nothing was written.
    #[error("database refuses the values")]
    Refused(#[source] BoxError),
    /// The role of who asks does not include this; nothing was read or written.
    #[error("{0}")]
    Forbidden(String),
    /// Subscriptions changed; nothing was written. Holds the current ones.
    #[error("subscriptions changed meanwhile")]
    StaleRoutes(Box<Routes>),
    /// A handler's own SQL ended the transaction that was opened for it; nothing of the unit was
    /// written.
    #[error("the handler's own SQL ended its transaction; leave COMMIT and ROLLBACK to the bus")]
    TransactionEnded,
    /// The database is not set up for this host. The text says what to do.
    #[error("{0}")]
    Setup(String),
    /// Anything else; nothing was written.
    #[error("database call failed")]
    Other(#[source] BoxError),
}

impl StoreError {
    /// Says whether the same call may succeed later without a change.
    pub fn is_transient(&self) -> bool {
        matches!(
            self,
            Self::Unavailable(_) | Self::Unknown(_) | Self::Busy(_) | Self::StaleRoutes(_)
        )
    }
}

/// Returned by [`Transport`](crate::Transport) calls.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TransportError {
    /// The broker cannot be reached.
    #[error("broker cannot be reached")]
    Unavailable(#[source] BoxError),
    /// The broker did not answer; the message may or may not have arrived.
    #[error("broker did not answer; the outcome is unknown")]
    Unknown(#[source] BoxError),
    /// The broker has no place for the message.
    #[error("no place for `{address}` on the broker")]
    Unroutable {
        /// Where it was to go.
        address: String,
    },
    /// The broker refused the message.
    #[error("broker refused the message: {0}")]
    Refused(String),
    /// The broker is not set up for this endpoint. The text says what to do.
    #[error("{0}")]
    Setup(String),
}

/// A sealed body could not be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The ring has no key of this id.
    #[error("body is sealed with key `{key}`, which this keyring does not have [SB0501]")]
    UnknownKey {
        /// The key's id, as the message says.
        key: String,
    },
    /// The host has no keyring at all.
    #[error(
        "body is sealed with key `{key}`, and this host has no keyring; give it one with \
         `.protects(..)` [SB0501]"
    )]
    NoKeyring {
        /// The key's id, as the message says.
        key: String,
    },
    /// It was not sealed with that key for this message, or it was changed since.
    #[error(
        "body was not sealed with key `{key}` for this message: body, identity, type or a header \
         is another one [SB0501]"
    )]
    Altered {
        /// The key's id, as the message says.
        key: String,
    },
}

/// Keys that are not usable. Repeats no secret.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KeyringError {
    /// An id that no header can carry.
    #[error("key id {id:?} is not usable; take 1 to 64 visible ASCII characters [SB0120]")]
    KeyId {
        /// The id.
        id: String,
    },
    /// Two keys of one id.
    #[error("keyring has two keys `{id}`; give one of them another id [SB0120]")]
    KeyTwice {
        /// The id.
        id: String,
    },
    /// A line that is no key.
    #[error(
        "line {line} of the keyring is no key; write its id, a space and 64 hexadecimal digits [SB0120]"
    )]
    Line {
        /// Its number, from 1.
        line: usize,
    },
    /// Nothing to seal with.
    #[error("keyring has no key; write a line of an id and 64 hexadecimal digits [SB0120]")]
    NoKey,
}
