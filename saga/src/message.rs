//! What the engine needs to know of a message type, and how a message finds its instance.

use std::borrow::Cow;
use std::sync::Arc;

use sagabus_core::envelope::Envelope;
use sagabus_core::error::CodecError;
use sagabus_core::handler::{Decoded, subscription_of};
use sagabus_core::message::aliases_of;
use sagabus_core::request::Request;
use sagabus_core::store::Subscription;
use sagabus_core::{InstanceId, Kind, Label, LabelId, Message, codec, headers};
use serde::{Deserialize, Serialize};

use crate::correlate::{Correlate, CorrelateByLabel};
use crate::saga::Saga;

/// Decodes a body and finds its instance, given the saga's name.
pub(crate) type Decode = fn(&Envelope, &Arc<str>) -> Result<Decoded, CodecError>;

/// What the engine needs to know of a message type.
#[derive(Clone, Debug)]
pub(crate) struct MessageFacts {
    pub(crate) subscription: Subscription,
    pub(crate) aliases: &'static [&'static str],
    pub(crate) version: u32,
    pub(crate) decode: Decode,
    pub(crate) finds: Finds,
}

/// How a message finds its instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Finds {
    /// By its key or a label, or by the question that it answers.
    ByKey,
    /// By the question that it answers.
    ByRequest,
}

impl MessageFacts {
    /// Describes a message that finds its instance by its key.
    pub(crate) fn by_key<S: Saga, M: Message + Correlate<S>>() -> Self {
        Self {
            subscription: subscription_of::<M>(),
            aliases: aliases_of::<M>(),
            version: M::VERSION,
            decode: decode_by_key::<S, M>,
            finds: Finds::ByKey,
        }
    }

    /// Describes a message that finds its instance by a label.
    pub(crate) fn by_label<S: Saga, M: Message + CorrelateByLabel<S>>() -> Self {
        Self {
            subscription: subscription_of::<M>(),
            aliases: aliases_of::<M>(),
            version: M::VERSION,
            decode: decode_by_label::<S, M>,
            finds: Finds::ByKey,
        }
    }

    /// Describes an answer, which finds its instance by the question that it answers.
    pub(crate) fn by_request<M: Message>() -> Self {
        Self {
            subscription: subscription_of::<M>(),
            aliases: aliases_of::<M>(),
            version: M::VERSION,
            decode: decode_by_request::<M>,
            finds: Finds::ByRequest,
        }
    }

    /// Describes news about questions of one kind of saga, each under a type of its own.
    pub(crate) fn news<M: Message>(message_type: String) -> Self {
        let mut facts = Self::by_request::<M>();
        facts.subscription.message_type = message_type.into();
        facts
    }

    pub(crate) fn message_type(&self) -> &Cow<'static, str> {
        &self.subscription.message_type
    }
}

fn decode_by_key<S: Saga, M: Message + Correlate<S>>(
    envelope: &Envelope,
    kind: &Arc<str>,
) -> Result<Decoded, CodecError> {
    let message = codec::decode::<M>(envelope)?;
    // An answer to a question of ours says itself whose it is.
    let instance = asked_by(envelope, kind).unwrap_or_else(|| InstanceId {
        kind: Arc::clone(kind),
        key: Correlate::<S>::key(&message).to_string().into(),
    });
    Ok(Decoded {
        message: Box::new(message),
        instance: Some(instance),
        label: None,
    })
}

/// Finds the instance by the label that the message names.
fn decode_by_label<S: Saga, M: Message + CorrelateByLabel<S>>(
    envelope: &Envelope,
    kind: &Arc<str>,
) -> Result<Decoded, CodecError> {
    let message = codec::decode::<M>(envelope)?;
    let instance = asked_by(envelope, kind);
    let label = instance.is_none().then(|| LabelId {
        kind: Arc::clone(kind),
        label: Label {
            name: M::LABEL.into(),
            value: CorrelateByLabel::<S>::label(&message),
        },
    });
    Ok(Decoded {
        message: Box::new(message),
        instance,
        label,
    })
}

fn decode_by_request<M: Message>(
    envelope: &Envelope,
    kind: &Arc<str>,
) -> Result<Decoded, CodecError> {
    let message = codec::decode::<M>(envelope)?;
    let missing = || CodecError::Headers(format!("answers no question of a {kind}"));
    let instance = asked_by(envelope, kind).ok_or_else(missing)?;
    Ok(Decoded {
        message: Box::new(message),
        instance: Some(instance),
        label: None,
    })
}

/// Returns the instance of this kind that asked for the answer which a message is.
fn asked_by(envelope: &Envelope, kind: &str) -> Option<InstanceId> {
    answered(envelope, kind).map(|request| request.instance)
}

/// Returns the question of this kind that a message answers. A command carries the question too,
/// on its way to whoever answers.
pub(crate) fn answered(envelope: &Envelope, kind: &str) -> Option<Request> {
    let request = Request::read(&envelope.headers)?;
    let is_command = envelope.headers.get(headers::KIND) == Some(Kind::Command.as_str());
    (!is_command && *request.instance.kind == *kind).then_some(request)
}

/// Tells an instance that its question was not answered in time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RequestTimedOut {
    /// The question's name.
    pub request: String,
}

impl Message for RequestTimedOut {
    const TYPE: &'static str = "sagabus.request-timed-out";
    const KIND: Kind = Kind::Reply;
}

impl RequestTimedOut {
    /// Returns the name under which the message travels to instances of a kind.
    pub(crate) fn type_for(kind: &str) -> String {
        format!("{}.{kind}", Self::TYPE)
    }
}
