//! Questions that an instance asks: what travels with them, so that an answer, or the news that
//! there will be none, finds its way back.

use serde::{Deserialize, Serialize};

use crate::endpoint::Destination;
use crate::envelope::{Envelope, Outgoing};
use crate::headers::{self, Headers};
use crate::id::{InstanceId, MessageId};
use crate::message::{Kind, Message};
use crate::unit_of_work::Reason;

/// Separates kind, name and generation in the header.
const SEPARATOR: char = ':';

/// Which question of which instance a message asks or answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// Who asks.
    pub instance: InstanceId,
    /// The question's name, unique within the instance.
    pub name: String,
    /// Which asking of that name this is.
    pub generation: u64,
}

impl Request {
    /// Reads what [`write`](Self::write) wrote; `None` where nothing was asked.
    pub fn read(headers: &Headers) -> Option<Self> {
        let mut parts = headers.get(headers::REQUEST)?.rsplitn(3, SEPARATOR);
        let generation = parts.next()?.parse().ok()?;
        let name = parts.next()?.to_owned();
        let instance = InstanceId {
            kind: parts.next()?.into(),
            key: headers.get(headers::REQUEST_KEY)?.into(),
        };
        Some(Self {
            instance,
            name,
            generation,
        })
    }

    /// Writes the question into the headers of the message that asks it.
    pub fn write(&self, headers: &mut Headers) {
        let (kind, name, generation) = (&self.instance.kind, &self.name, self.generation);
        let text = format!("{kind}{SEPARATOR}{name}{SEPARATOR}{generation}");
        headers.set(headers::REQUEST, text);
        headers.set(headers::REQUEST_KEY, &*self.instance.key);
    }
}

/// Copies the question from a message to its answer.
pub(crate) fn carry_over(from: &Headers, to: &mut Headers) {
    for name in [headers::REQUEST, headers::REQUEST_KEY] {
        if let Some(value) = from.get(name) {
            to.set(name, value);
        }
    }
}

/// Tells an instance that its question became a dead letter: nobody will answer it, unless an
/// operator redrives it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RequestFailed {
    /// The question's name.
    pub request: String,
    /// The message that asked.
    pub message_id: MessageId,
    /// Its type.
    pub message_type: String,
    /// Why it was given up, as [`Reason::as_str`] spells it.
    pub reason: String,
    /// The last error, for people.
    pub error: String,
}

impl Message for RequestFailed {
    const TYPE: &'static str = "sagabus.request-failed";
    const KIND: Kind = Kind::Reply;
}

impl RequestFailed {
    /// Returns the name under which the message travels to instances of a kind, so that each kind
    /// on an endpoint has its own subscriber.
    pub fn type_for(kind: &str) -> String {
        format!("{}.{kind}", Self::TYPE)
    }
}

/// Makes the news for whoever asked with `envelope`; `None` where nobody waits for an answer.
pub(crate) fn failure_of(envelope: &Envelope, reason: Reason, error: &str) -> Option<Outgoing> {
    let request = Request::read(&envelope.headers)?;
    let address = envelope.headers.get(headers::REPLY_TO)?;
    let destination = Destination::parse(address).ok()?;
    let failed = RequestFailed {
        request: request.name.clone(),
        message_id: envelope.id,
        message_type: envelope.message_type.clone().into_owned(),
        reason: reason.as_str().to_owned(),
        error: error.to_owned(),
    };
    let mut outgoing = Outgoing::new(&failed).ok()?.to(destination);
    outgoing.envelope.message_type = RequestFailed::type_for(&request.instance.kind).into();
    let to = &mut outgoing.envelope.headers;
    to.set(headers::CORRELATION_ID, envelope.correlation_id());
    to.set(headers::CAUSATION_ID, envelope.id);
    request.write(to);
    Some(outgoing)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_is_read_back_whatever_its_kind_and_key() {
        let request = Request {
            instance: InstanceId {
                kind: "a:b".into(),
                key: "Größe: 1/2".into(),
            },
            name: "payment".to_owned(),
            generation: 7,
        };
        let mut headers = Headers::new();
        assert_eq!(Request::read(&headers), None);
        request.write(&mut headers);
        assert_eq!(Request::read(&headers), Some(request));
    }

    #[test]
    fn headers_that_ask_nothing_readable_are_no_question() {
        for text in ["", ":", "a:b", "a:b:c", "a:b:-1"] {
            let headers: Headers = [(headers::REQUEST, text), (headers::REQUEST_KEY, "k")]
                .into_iter()
                .collect();
            assert_eq!(Request::read(&headers), None, "{text:?}");
        }
    }
}
