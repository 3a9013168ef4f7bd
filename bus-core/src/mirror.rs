//! A dead letter that is published as well, for whoever watches the broker and not our database.

use std::sync::Arc;

use crate::endpoint::{Destination, EndpointName};
use crate::envelope::{Envelope, Outgoing};
use crate::headers::{self, Headers};
use crate::id::MessageId;
use crate::message::Kind;
use crate::transport::address;
use crate::transports::{TransportName, Transports};
use crate::unit_of_work::DeadLetter;

/// What the type ends in under which an endpoint's dead letters are published.
const SUFFIX: &str = "-dlt";
/// How much of an error is told, in bytes: it shares 8 KiB with the message's own headers.
const ERROR_BYTES_MAX: usize = 1024;
/// What only means something to whoever the message was for.
const NOT_COPIED: [&str; 6] = [
    headers::REPLY_TO,
    headers::REQUEST,
    headers::REQUEST_KEY,
    headers::TIMER,
    headers::TIMER_GENERATION,
    headers::DEFERRALS,
];

/// Where the dead letters of an endpoint are published.
#[derive(Debug)]
pub(crate) struct Mirror {
    message_type: Arc<str>,
    destination: Destination,
}

impl Mirror {
    /// Publishes by the transport from which the endpoint reads; without one, to the endpoints of
    /// this database that subscribed.
    pub(crate) fn of(endpoint: &EndpointName, reads: &TransportName, all: &Transports) -> Self {
        let message_type = mirrored_type(endpoint);
        let destination = match all.get(reads) {
            Some(_) => {
                let address = address(Kind::Event, &message_type);
                Destination::Address(reads.stored(&address))
            }
            None => Destination::Subscribers,
        };
        Self {
            message_type: message_type.into(),
            destination,
        }
    }

    /// Makes the event. `None` for one that became a dead letter itself, which would go round for
    /// ever, and for what no broker may carry.
    pub(crate) fn event_of(&self, dead: &DeadLetter, host: &str) -> Option<Outgoing> {
        let original = &dead.envelope;
        if *original.message_type == *self.message_type {
            return None;
        }
        let copied = original.headers.iter();
        let copied = copied.filter(|(name, _)| !NOT_COPIED.contains(name));
        let mut event = Envelope {
            id: MessageId::new(),
            message_type: self.message_type.to_string().into(),
            headers: told(dead, host, copied),
            body: original.body.clone(),
        };
        if event.check().is_err() {
            // Headers that may not travel are in the database; the body does.
            let kept = [headers::CONTENT_TYPE, headers::VERSION, headers::KEY];
            let kept = kept.map(|name| (name, original.headers.get(name).unwrap_or_default()));
            let kept = kept.into_iter().filter(|(_, value)| is_plain(value));
            event.headers = told(dead, host, kept);
        }
        event.check().ok()?;
        Some(Outgoing::from_envelope(event, self.destination.clone()))
    }
}

/// Returns the type under which an endpoint's dead letters are published: `payments-dlt`.
pub(crate) fn mirrored_type(endpoint: &EndpointName) -> String {
    format!("{endpoint}{SUFFIX}")
}

/// Adds to headers what is known of a dead letter.
fn told<'h>(
    dead: &DeadLetter,
    host: &str,
    copied: impl Iterator<Item = (&'h str, &'h str)>,
) -> Headers {
    let original = &dead.envelope;
    let mut all = Headers::new();
    for (name, value) in copied {
        all.set(name.to_owned(), value);
    }
    all.set(headers::KIND, Kind::Event.as_str());
    all.set(headers::SOURCE, host);
    all.set(
        headers::SENT_AT,
        crate::clock::now().as_micros().to_string(),
    );
    all.set(headers::CORRELATION_ID, original.correlation_id());
    all.set(headers::CAUSATION_ID, original.id);
    all.set(headers::DEAD_REASON, dead.reason.as_str());
    all.set(headers::DEAD_ENDPOINT, dead.endpoint.as_str());
    all.set(headers::DEAD_TYPE, plain(&original.message_type, 200));
    all.set(headers::DEAD_ATTEMPTS, dead.attempts.len().to_string());
    if let Some(last) = dead.attempts.last() {
        all.set(headers::DEAD_ERROR, plain(&last.error, ERROR_BYTES_MAX));
    }
    all
}

/// Cuts a text, and makes it one that a header may be.
fn plain(text: &str, bytes_max: usize) -> String {
    let cut = text.floor_char_boundary(bytes_max);
    text[..cut].replace(char::is_control, " ")
}

/// Says whether a header's value is there, short, and fit to travel.
fn is_plain(value: &str) -> bool {
    !value.is_empty() && value.len() <= 255 && !value.contains(char::is_control)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attempt::Attempt;
    use crate::unit_of_work::{KeyAfterDeath, Reason};

    fn dead(message_type: &'static str, error: &str) -> DeadLetter {
        let mut all = Headers::new();
        all.set("note", "a");
        all.set(headers::KEY, "k");
        all.set(headers::REPLY_TO, "endpoint/shop");
        DeadLetter {
            endpoint: EndpointName::new("work").unwrap(),
            envelope: Envelope {
                id: MessageId::new(),
                message_type: message_type.into(),
                headers: all,
                body: vec![0xff, 0].into(),
            },
            reason: Reason::AttemptsExhausted,
            attempts: vec![Attempt {
                at: crate::clock::now(),
                host: "host".to_owned(),
                error: error.to_owned(),
                excused: 0,
            }],
            key: None,
            instance: None,
            key_after: KeyAfterDeath::GoesOn,
        }
    }

    fn mirror() -> Mirror {
        let work = EndpointName::new("work").unwrap();
        Mirror::of(&work, &TransportName::default(), &Transports::default())
    }

    #[test]
    fn a_dead_letter_is_told_with_its_body_and_its_reason() {
        let dead = dead("test.do", "bad\n\"text\"");
        let event = mirror().event_of(&dead, "host").unwrap();
        assert_eq!(event.destination, Destination::Subscribers);
        assert_eq!(event.key.as_deref(), Some("k"));
        let Envelope {
            message_type,
            headers: told,
            body,
            ..
        } = event.envelope;
        assert_eq!((&*message_type, &body[..]), ("work-dlt", &[0xff, 0][..]));
        let of = |name| told.get(name).unwrap_or_default();
        assert_eq!(of("note"), "a");
        assert_eq!(of(headers::DEAD_REASON), "attempts_exhausted");
        assert_eq!(of(headers::DEAD_TYPE), "test.do");
        assert_eq!(of(headers::DEAD_ERROR), "bad \"text\"");
        assert_eq!(of(headers::DEAD_ATTEMPTS), "1");
        assert_eq!(of(headers::CAUSATION_ID), dead.envelope.id.to_string());
        assert_eq!(told.get(headers::REPLY_TO), None);
    }

    #[test]
    fn what_may_not_travel_does_not_keep_the_rest_from_being_told() {
        let mut many = dead("test.do", &"ü".repeat(2000));
        many.envelope.headers.set("hostile", "a\0b");
        many.envelope.headers.set("long", "x".repeat(8000));
        many.envelope.message_type = "t\u{7}".repeat(300).into();
        let event = mirror().event_of(&many, "host").unwrap();
        event.envelope.check().unwrap();
        assert_eq!(event.envelope.headers.get("hostile"), None);
        assert_eq!(event.key.as_deref(), Some("k"));
        let error = event.envelope.headers.get(headers::DEAD_ERROR).unwrap();
        assert_eq!(error.len(), ERROR_BYTES_MAX);
    }

    #[test]
    fn a_dead_letter_that_tells_of_one_is_not_told_again() {
        let of_itself = dead("work-dlt", "no");
        assert!(mirror().event_of(&of_itself, "host").is_none());
        let of_another = dead("other-dlt", "no");
        assert!(mirror().event_of(&of_another, "host").is_some());
    }
}
