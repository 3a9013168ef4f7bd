//! Why a host is not built, or does not run.

use std::time::Duration;

use super::boundary::{StoreError, TransportError};

/// A host was put together in a way that would lose or block messages.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BuildError {
    /// An endpoint's name has other characters than allowed.
    #[error(
        "endpoint name {name:?} is not usable; take 1 to 100 characters out of a-z, 0-9, `.`, `_` and `-` [SB0101]"
    )]
    EndpointName {
        /// The name.
        name: String,
    },
    /// Two endpoints of one host have one name.
    #[error(
        "endpoint `{name}` is registered twice; put its handlers into one `.endpoint(..)` call [SB0102]"
    )]
    EndpointTwice {
        /// The name.
        name: String,
    },
    /// A transport's name has other characters than allowed.
    #[error(
        "transport name {name:?} is not usable; take 1 to 100 characters out of a-z, 0-9, `.`, `_` \
         and `-`, and not `default` [SB0103]"
    )]
    TransportName {
        /// The name.
        name: String,
    },
    /// Two transports of one host have one name.
    #[error("host has two transports called `{name}`; give one of them another name [SB0104]")]
    TransportTwice {
        /// The name.
        name: String,
    },
    /// An endpoint reads from, or a message type goes by, a transport that the host does not have.
    #[error(
        "{what} names transport `{name}`, which the host does not have; add it with \
         `.transport_named(\"{name}\", ..)` [SB0105]"
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
         reads from `{reads}`; make both the same with `.route::<..>(..)` or `.reads_from(..)` [SB0106]"
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
    #[error(
        "endpoint `{name}` has no handler; add one with `.handle(..)` or remove the endpoint [SB0107]"
    )]
    EndpointEmpty {
        /// The name.
        name: String,
    },
    /// Two handlers of one endpoint take one message type.
    #[error(
        "endpoint `{endpoint}` has two subscribers for `{message_type}` (`{first}` and `{second}`); give one of them an endpoint of its own [SB0108]"
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
         one of its endpoints that reads from the same transport, or use `publish` [SB0109]"
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
         `Order::Unordered`, or use another transport [SB0110]"
    )]
    OrderNotKept {
        /// The endpoint.
        endpoint: String,
    },
    /// Two endpoints take one command.
    #[error(
        "command `{message_type}` has two owners, endpoints `{first}` and `{second}`; a command has one: remove one handler, or make it an event [SB0111]"
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
    #[error(
        "message type {message_type:?} is not usable; take 1 to 200 visible ASCII characters [SB0112]"
    )]
    MessageType {
        /// The name.
        message_type: String,
    },
    /// A handler needs a value that was not given.
    #[error("endpoint `{endpoint}`: `{handler}` needs {what}; {remedy} [SB0113]")]
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
    /// Something is declared of a message type where nobody takes it.
    #[error(
        "endpoint `{endpoint}` declares something of `{message_type}`, which it does not take; add \
         its handler, or remove `.{setting}::<..>(..)` [SB0119]"
    )]
    SettingUnhandled {
        /// The endpoint.
        endpoint: String,
        /// What declares it.
        setting: &'static str,
        /// The message type.
        message_type: String,
    },
    /// The host has no store.
    #[error("host `{host}` has no store; give it one with `.store(..)` [SB0114]")]
    NoStore {
        /// The host's name.
        host: String,
    },
    /// A setting makes deduplication shorter than redelivery.
    #[error(
        "inbox retention of {retention:?} is shorter than the {horizon:?} for which a message may come again; raise `.retention(..)` or shorten the retries [SB0115]"
    )]
    RetentionTooShort {
        /// What was set.
        retention: Duration,
        /// What is needed.
        horizon: Duration,
    },
    /// What was sent is kept for longer than it is recognised.
    #[error(
        "sent messages are kept for {kept:?}, and messages are recognised for {retention:?} only: \
         one that is sent again later is handled twice; shorten `.keep_sent(..)`, or raise \
         `.retention(..)` [SB0123]"
    )]
    KeptTooLong {
        /// How long they are kept.
        kept: Duration,
        /// How long a message is recognised.
        retention: Duration,
    },
    /// What recurs cannot, as it was declared.
    #[error("what recurs as `{name}` is not usable: {fact} [SB0116]")]
    Recurring {
        /// Its name.
        name: String,
        /// What is wrong with it, and what to do.
        fact: String,
    },
    /// Two messages recur under one name.
    #[error("two messages recur as `{name}`; give one of them another name [SB0117]")]
    RecurringTwice {
        /// The name.
        name: String,
    },
    /// A message type is to be sealed, and there is no key.
    #[error(
        "`{message_type}` is to be sealed, and the host has no keyring; give it one with \
         `.protects(..)` [SB0121]"
    )]
    Unsealable {
        /// The message type.
        message_type: String,
    },
    /// What is masked of a message type cannot be.
    #[error("redaction of `{message_type}` is not usable: {fact} [SB0122]")]
    Redaction {
        /// The message type.
        message_type: String,
        /// What is wrong with it.
        fact: String,
    },
    /// A definition is inconsistent. The text says what and what to do.
    #[error("{0} [SB0118]")]
    Definition(String),
}

/// A host could not start, or stopped by itself.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RunError {
    /// The store refused.
    #[error("host cannot use its store [SB0201]")]
    Store(#[from] StoreError),
    /// The transport refused.
    #[error("host cannot use its transport [SB0202]")]
    Transport(#[from] TransportError),
    /// One of several transports refused.
    #[error("host cannot use its transport `{name}` [SB0202]")]
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
    #[error("a host runs once; build another one [SB0203]")]
    RunTwice,
}
