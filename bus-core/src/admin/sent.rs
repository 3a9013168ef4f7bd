//! Messages that brokers took and that are kept by their host's policy.

use serde_json::{Value, json};

use super::page::set_parts;
use crate::clock::Timestamp;
use crate::id::MessageId;

/// Which kept messages are meant. What is `None` lets everything through.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SentFilter {
    /// Only what was sent then or later.
    pub since: Option<Timestamp>,
    /// Only what was sent before.
    pub until: Option<Timestamp>,
    /// Only for this destination, as it was stored: a transport's address.
    pub destination: Option<String>,
    /// Only this message type.
    pub message_type: Option<String>,
    /// Only the message of this identity.
    pub message: Option<MessageId>,
}

impl SentFilter {
    /// Says for people which parts of it are set.
    pub(super) fn describe(&self) -> Value {
        let at = |time: Option<Timestamp>| time.map(|time| time.to_string());
        set_parts([
            ("since", json!(at(self.since))),
            ("until", json!(at(self.until))),
            ("destination", json!(self.destination)),
            ("message_type", json!(self.message_type)),
            ("message", json!(self.message)),
        ])
    }

    /// Says whether it lets a message through.
    pub(crate) fn lets(&self, one: &StoredSent) -> bool {
        let is = |wanted: &Option<String>, text: &str| {
            wanted.as_deref().is_none_or(|wanted| wanted == text)
        };
        self.since.is_none_or(|since| one.sent_at >= since)
            && self.until.is_none_or(|until| one.sent_at < until)
            && is(&self.destination, &one.destination)
            && is(&self.message_type, &one.message_type)
            && self.message.is_none_or(|message| message == one.message)
    }
}

/// A message that a broker took, as far as it is listed: its body stays where it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredSent {
    /// The id that its row had in the outbox.
    pub id: i64,
    /// The message.
    pub message: MessageId,
    /// Its type.
    pub message_type: String,
    /// Where it went, as its row had it.
    pub destination: String,
    /// Its key, where it has one.
    pub key: Option<String>,
    /// When the broker's confirm was written down.
    pub sent_at: Timestamp,
    /// Until when it is kept.
    pub kept_until: Timestamp,
}
