//! What can go wrong, one type per boundary.

use std::error::Error;
use std::fmt;
use std::time::Duration;

use crate::id::MessageId;
use crate::store::Routes;

/// What handlers return: nothing by default, and any error by `?`.
pub type Result<T = (), E = HandlerError> = std::result::Result<T, E>;

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

/// Why a handler did not succeed. Made from any error by `?`, which means *try again*.
///
/// It is itself no [`Error`], which is what lets it convert from every error.
pub struct HandlerError {
    class: Class,
    source: BoxError,
}

/// What an error asks the engine to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// Try again, as often as the endpoint allows.
    Retry,
    /// Try again after this time; costs no attempt.
    RetryAfter(Duration),
    /// Never try again: a dead letter now.
    Terminal,
    /// Load and run again, outside the retry budget.
    Conflict,
    /// Try again, as often as the endpoint allows; the dead letter then has this reason.
    RetryAs(crate::unit_of_work::Reason),
    /// Never try again, for a reason that the engine knows.
    Dead(crate::unit_of_work::Reason),
    /// Not yet: try again with growing pauses until this time is used up; then a dead letter with
    /// this reason. Holds back no other message of its key meanwhile.
    Defer(crate::unit_of_work::Reason, Duration),
}

impl HandlerError {
    /// Makes an error from a sentence: lowercase, no full stop.
    pub fn new(message: impl Into<String>) -> Self {
        Self {
            class: Class::Retry,
            source: message.into().into(),
        }
    }

    /// Makes an error that asks for another try after `delay` and costs no attempt: the gateway
    /// said when it will be back.
    pub fn retry_after(delay: Duration, source: impl Into<BoxError>) -> Self {
        Self {
            class: Class::RetryAfter(delay),
            source: source.into(),
        }
    }

    /// Makes an error that asks for the message to be loaded and run again, outside the retry
    /// budget: somebody else was faster.
    pub fn conflict(source: impl Into<BoxError>) -> Self {
        Self {
            class: Class::Conflict,
            source: source.into(),
        }
    }

    /// Makes an error that is tried again as often as the endpoint allows and then becomes a dead
    /// letter with a reason that tools know.
    pub fn retry_as(reason: crate::unit_of_work::Reason, source: impl Into<BoxError>) -> Self {
        Self {
            class: Class::RetryAs(reason),
            source: source.into(),
        }
    }

    /// Makes a dead letter of the message now, with a reason that tools know.
    pub fn dead(reason: crate::unit_of_work::Reason, source: impl Into<BoxError>) -> Self {
        Self {
            class: Class::Dead(reason),
            source: source.into(),
        }
    }

    /// Makes an error that means *not yet*: the message is tried again, with growing pauses, for
    /// about `budget`; then it is a dead letter with this reason.
    ///
    /// What it waits for may stand behind it, so it leaves its place in line.
    pub fn defer(
        reason: crate::unit_of_work::Reason,
        budget: Duration,
        source: impl Into<BoxError>,
    ) -> Self {
        Self {
            class: Class::Defer(reason, budget),
            source: source.into(),
        }
    }

    /// Makes a dead letter of the message now: trying again is useless.
    #[must_use]
    pub fn terminal(self) -> Self {
        Self {
            class: Class::Terminal,
            ..self
        }
    }

    /// Returns what the engine is asked to do.
    pub fn class(&self) -> Class {
        self.class
    }

    /// Returns the error and what caused it, outermost first, joined by `: ` and cut at 4 KiB.
    pub fn chain(&self) -> String {
        chain(&*self.source)
    }

    /// Says whether the message is not to blame: the store could not be reached or was busy, or
    /// `excuses` knows a cause. An error that says itself what to do has no excuse.
    pub(crate) fn is_excused(&self, excuses: impl Fn(&(dyn Error + 'static)) -> bool) -> bool {
        let is_transient = |cause: &(dyn Error + 'static)| {
            cause
                .downcast_ref::<StoreError>()
                .is_some_and(StoreError::is_transient)
        };
        let first: &(dyn Error + 'static) = &*self.source;
        self.class == Class::Retry
            && std::iter::successors(Some(first), |&cause| cause.source())
                .any(|cause| is_transient(cause) || excuses(cause))
    }
}

impl<E: Into<BoxError>> From<E> for HandlerError {
    fn from(source: E) -> Self {
        Self {
            class: Class::Retry,
            source: source.into(),
        }
    }
}

impl fmt::Debug for HandlerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.class, self.chain())
    }
}

impl fmt::Display for HandlerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.source, f)
    }
}

/// Adds [`terminal`](ResultExt::terminal) to results.
pub trait ResultExt<T> {
    /// Makes an error mean *dead letter now* instead of *try again*.
    ///
    /// # Errors
    /// The same error, as a terminal [`HandlerError`].
    fn terminal(self) -> Result<T>;
}

impl<T, E: Into<HandlerError>> ResultExt<T> for std::result::Result<T, E> {
    fn terminal(self) -> Result<T> {
        self.map_err(|error| error.into().terminal())
    }
}

/// Joins an error and its sources by `: `, cut at 4 KiB. What an error's own text ends with is not
/// said twice: many libraries put their source's words into theirs.
pub fn chain(error: &(dyn Error + 'static)) -> String {
    /// Bounds what one attempt adds to a row.
    const BYTES_MAX: usize = 4096;
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let words = cause.to_string();
        if !text.ends_with(&words) {
            text.push_str(": ");
            text.push_str(&words);
        }
        source = cause.source();
    }
    if text.len() > BYTES_MAX {
        let cut = text.floor_char_boundary(BYTES_MAX);
        text.truncate(cut);
        text.push('…');
    }
    text
}

/// A host was put together in a way that would lose or block messages.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BuildError {
    /// An endpoint's name has other characters than allowed.
    #[error(
        "endpoint name {name:?} is not usable; take 1 to 100 characters out of a-z, 0-9, `.`, `_` and `-`"
    )]
    EndpointName {
        /// The name.
        name: String,
    },
    /// Two endpoints of one host have one name.
    #[error(
        "endpoint `{name}` is registered twice; put its handlers into one `.endpoint(..)` call"
    )]
    EndpointTwice {
        /// The name.
        name: String,
    },
    /// A transport's name has other characters than allowed.
    #[error(
        "transport name {name:?} is not usable; take 1 to 100 characters out of a-z, 0-9, `.`, `_` \
         and `-`, and not `default`"
    )]
    TransportName {
        /// The name.
        name: String,
    },
    /// Two transports of one host have one name.
    #[error("host has two transports called `{name}`; give one of them another name")]
    TransportTwice {
        /// The name.
        name: String,
    },
    /// An endpoint reads from, or a message type goes by, a transport that the host does not have.
    #[error(
        "{what} names transport `{name}`, which the host does not have; add it with \
         `.transport_named(\"{name}\", ..)`"
    )]
    TransportUnknown {
        /// The endpoint or the message type.
        what: String,
        /// The name.
        name: String,
    },
    /// A command goes by one transport, and its owner reads from another.
    #[error(
        "command `{message_type}` goes by transport `{by}`, and its owner, endpoint `{endpoint}`, \
         reads from `{reads}`; make both the same with `.route::<..>(..)` or `.reads_from(..)`"
    )]
    OwnerElsewhere {
        /// The message type.
        message_type: String,
        /// By which transport it goes.
        by: String,
        /// Who takes it.
        endpoint: String,
        /// From which transport that one reads.
        reads: String,
    },
    /// An endpoint takes nothing.
    #[error("endpoint `{name}` has no handler; add one with `.handle(..)` or remove the endpoint")]
    EndpointEmpty {
        /// The name.
        name: String,
    },
    /// Two handlers of one endpoint take one message type.
    #[error(
        "endpoint `{endpoint}` has two subscribers for `{message_type}` (`{first}` and `{second}`); give one of them an endpoint of its own"
    )]
    TwoSubscribers {
        /// The endpoint.
        endpoint: String,
        /// The message type.
        message_type: String,
        /// Who came first.
        first: String,
        /// Who came second.
        second: String,
    },
    /// An event is announced that no endpoint of this host applies.
    #[error(
        "host `{host}` announces `{message_type}` and does not handle it; add a handler for it to \
         one of its endpoints that reads from the same transport, or use `publish`"
    )]
    AnnouncesUnhandled {
        /// The host.
        host: String,
        /// The event's type.
        message_type: String,
    },
    /// An endpoint promises an order that the transport does not keep.
    #[error(
        "endpoint `{endpoint}` promises order per key, which its transport does not keep; declare \
         `Order::Unordered`, or use another transport"
    )]
    OrderNotKept {
        /// The endpoint.
        endpoint: String,
    },
    /// Two endpoints take one command.
    #[error(
        "command `{message_type}` has two owners, endpoints `{first}` and `{second}`; a command has one: remove one handler, or make it an event"
    )]
    TwoOwners {
        /// The message type.
        message_type: String,
        /// One endpoint.
        first: String,
        /// The other.
        second: String,
    },
    /// A message type's name is unusable.
    #[error("message type {message_type:?} is not usable; take 1 to 200 visible ASCII characters")]
    MessageType {
        /// The name.
        message_type: String,
    },
    /// A handler needs a value that was not given.
    #[error("endpoint `{endpoint}`: `{handler}` needs {what}; {remedy}")]
    Missing {
        /// The endpoint.
        endpoint: String,
        /// The handler.
        handler: String,
        /// What it needs.
        what: String,
        /// How to give it.
        remedy: String,
    },
    /// The host has no store.
    #[error("host `{host}` has no store; give it one with `.store(..)`")]
    NoStore {
        /// The host's name.
        host: String,
    },
    /// A setting makes deduplication shorter than redelivery.
    #[error(
        "inbox retention of {retention:?} is shorter than the {horizon:?} for which a message may come again; raise `.retention(..)` or shorten the retries"
    )]
    RetentionTooShort {
        /// What was set.
        retention: Duration,
        /// What is needed.
        horizon: Duration,
    },
    /// A definition is inconsistent. The text says what and what to do.
    #[error("{0}")]
    Definition(String),
}

/// A host could not start, or stopped by itself.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RunError {
    /// The store refused.
    #[error("host cannot use its store")]
    Store(#[from] StoreError),
    /// The transport refused.
    #[error("host cannot use its transport")]
    Transport(#[from] TransportError),
    /// One of several transports refused.
    #[error("host cannot use its transport `{name}`")]
    NamedTransport {
        /// Its name.
        name: String,
        /// What it said.
        source: TransportError,
    },
    /// The set-up as the database sees it is unsafe.
    #[error("host is not safe to start")]
    Build(#[from] BuildError),
    /// The host was run before.
    #[error("a host runs once; build another one")]
    RunTwice,
}

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
    /// The bus was used inside a handler, where it would bypass the unit of work.
    #[error("the bus was used inside a handler; send through `Ctx`, or return the message")]
    InsideHandler,
    /// The context was used after its handler had returned.
    #[error("the context was used after its handler returned")]
    ContextClosed,
    /// A reply to a message that asked for none.
    #[error("the message that is handled has no `reply_to` address")]
    NoReplyAddress,
    /// The host is not running yet, or no longer.
    #[error("the host is not running")]
    NotRunning,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("query failed{}", if *.says_cause { ": no such table" } else { "" })]
    struct Outer {
        says_cause: bool,
        source: std::io::Error,
    }

    #[test]
    fn a_cause_is_said_once() {
        for says_cause in [true, false] {
            let source = std::io::Error::other("no such table");
            let outer = Outer { says_cause, source };
            assert_eq!(chain(&outer), "query failed: no such table");
        }
    }
}
