//! The only two forms in which a message travels: an [`Envelope`] that is here, and an
//! [`Outgoing`] that is to go somewhere.

use std::time::Duration;

use bytes::Bytes;

use crate::clock::{self, Timestamp};
use crate::codec::BODY_BYTES_MAX;
use crate::endpoint::{Destination, MessageType};
use crate::error::CodecError;
use crate::headers::{self, Headers};
use crate::id::{CorrelationId, InstanceId, MessageId};
use crate::message::{Kind, Message};
use crate::unit_of_work::Attempt;

/// A message as transports and stores see it: identity, type, headers and bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Envelope {
    /// Who it is: kept by every retry, resend and redrive.
    pub id: MessageId,
    /// Its stable type name, for example `orders.order-placed`.
    pub message_type: MessageType,
    /// The string map beside the body.
    pub headers: Headers,
    /// The encoded message.
    pub body: Bytes,
}

impl Envelope {
    /// Encodes a message under a new identity, with the headers that describe it.
    ///
    /// # Errors
    /// [`CodecError::Encode`] when the body cannot be encoded, [`CodecError::TooLarge`] when it is
    /// larger than 1 MiB.
    pub fn new<M: Message>(message: &M) -> Result<Self, CodecError> {
        let body = message.encode()?;
        if body.len() > BODY_BYTES_MAX {
            return Err(CodecError::TooLarge { bytes: body.len() });
        }
        // Room for these four, correlation, causation, source and trace context.
        let mut headers = Headers::with_capacity(9);
        headers.set(headers::CONTENT_TYPE, M::CONTENT_TYPE);
        headers.set(headers::KIND, M::KIND.as_str());
        headers.set(headers::SENT_AT, clock::now().as_micros().to_string());
        if M::VERSION != 1 {
            headers.set(headers::VERSION, M::VERSION.to_string());
        }
        if let Some(key) = message.message_key() {
            headers.set(headers::KEY, key);
        }
        Ok(Self {
            id: MessageId::new(),
            message_type: M::TYPE.into(),
            headers,
            body,
        })
    }

    /// Returns the version of the body's shape; 1 where none is said.
    ///
    /// # Errors
    /// [`CodecError::Headers`] when what is said is no number from 1 on.
    pub fn version(&self) -> Result<u32, CodecError> {
        let Some(text) = self.headers.get(headers::VERSION) else {
            return Ok(1);
        };
        let version = text.parse().ok().filter(|version| *version >= 1);
        let name = headers::VERSION;
        version
            .ok_or_else(|| CodecError::Headers(format!("header `{name}` is {text:?}, no version")))
    }

    /// Returns the conversation: the header's, else the message's own identity.
    pub fn correlation_id(&self) -> CorrelationId {
        self.headers
            .get(headers::CORRELATION_ID)
            .map_or_else(|| self.id.into(), CorrelationId::from_foreign)
    }

    /// Checks the bounds on body and headers.
    ///
    /// # Errors
    /// [`CodecError::TooLarge`] or [`CodecError::Headers`].
    pub fn check(&self) -> Result<(), CodecError> {
        if self.body.len() > BODY_BYTES_MAX {
            return Err(CodecError::TooLarge {
                bytes: self.body.len(),
            });
        }
        self.headers.check().map_err(CodecError::Headers)
    }
}

/// A message that a unit of work wants sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outgoing {
    /// What is sent; identity, headers and bytes never change again.
    pub envelope: Envelope,
    /// Where it goes.
    pub destination: Destination,
    /// The key that keeps order where the destination promises it, and finds the lane.
    pub key: Option<String>,
    /// When it may be received.
    pub due: Due,
    /// How long after `due` it is still wanted; later it is counted and removed, never delivered.
    pub expires_after: Option<Duration>,
    /// The timer that this message is, if it is one.
    pub timer: Option<Timer>,
    /// Failed attempts that came before, for a message that goes back to its own endpoint.
    pub attempts: Vec<Attempt>,
    /// Whether the identity was given by the caller, who may therefore resend it.
    pub identity: Identity,
}

impl Outgoing {
    /// Encodes a message for the destination that its kind asks for: a command goes to its owner,
    /// an event to its subscribers. A reply needs [`Outgoing::to`].
    ///
    /// # Errors
    /// As [`Envelope::new`].
    pub fn new<M: Message>(message: &M) -> Result<Self, CodecError> {
        let destination = match M::KIND {
            Kind::Command | Kind::Reply => Destination::Owner,
            Kind::Event => Destination::Subscribers,
        };
        Ok(Self::from_envelope(Envelope::new(message)?, destination))
    }

    /// Wraps an envelope for a destination, to be received at once.
    pub fn from_envelope(envelope: Envelope, destination: Destination) -> Self {
        let key = envelope.headers.get(headers::KEY).map(str::to_owned);
        Self {
            envelope,
            destination,
            key,
            due: Due::Now,
            expires_after: None,
            timer: None,
            attempts: Vec::new(),
            identity: Identity::Fresh,
        }
    }

    /// Notes that a host sends it, and that a conversation begins with it.
    ///
    /// # Errors
    /// As [`Envelope::check`].
    pub(crate) fn begun_by(mut self, host: &str) -> Result<Self, CodecError> {
        let headers = &mut self.envelope.headers;
        headers.set(headers::SOURCE, host.to_owned());
        headers.set(headers::CORRELATION_ID, self.envelope.id);
        self.envelope.check()?;
        Ok(self)
    }

    /// Sends it to a named destination instead.
    #[must_use]
    pub fn to(mut self, destination: Destination) -> Self {
        self.destination = destination;
        self
    }
}

/// When a message may be received, by the database's clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Due {
    /// At once.
    Now,
    /// This long after the commit.
    After(Duration),
    /// At this time.
    At(Timestamp),
}

/// Says whether a message's identity is new or was given by a caller who may send it again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Identity {
    /// Made for this message: nothing else can have it.
    Fresh,
    /// Given by the caller (`with_id`): a second message with it is recognised where it would be
    /// written and changes nothing.
    Given,
}

/// Ties a message to the timer of an instance that sent it.
///
/// The instance holds name and generation; a timer that fires with another generation than the
/// instance holds is a recorded no-op.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Timer {
    /// The instance that armed it.
    pub owner: InstanceId,
    /// Its name, unique within the instance.
    pub name: String,
    /// Which arming of that name this is.
    pub generation: u64,
}
