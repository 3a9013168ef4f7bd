//! The string map that travels beside a body, and every header that we know.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;

use serde::de::{MapAccess, Visitor};
use serde::ser::SerializeMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// How the body is encoded, for example `application/json`.
pub const CONTENT_TYPE: &str = "content-type";
/// The version of the body's shape, a decimal number; absent means 1.
pub const VERSION: &str = "sagabus-version";
/// `command`, `event` or `reply`.
pub const KIND: &str = "sagabus-kind";
/// The conversation, a UUID copied unchanged from message to message.
pub const CORRELATION_ID: &str = "sagabus-correlation-id";
/// The identity of the message whose handling sent this one.
pub const CAUSATION_ID: &str = "sagabus-causation-id";
/// Where an answer is wanted: an endpoint (`@orders`) or a transport's address.
pub const REPLY_TO: &str = "sagabus-reply-to";
/// The name of the host that sent it, for people.
pub const SOURCE: &str = "sagabus-source";
/// When it was sent by the sender's clock, in microseconds since 1970. For people: decides nothing.
pub const SENT_AT: &str = "sagabus-sent-at";
/// The key that orders the message and finds its instance.
pub const KEY: &str = "sagabus-key";
/// The name of the timer that sent it.
pub const TIMER: &str = "sagabus-timer";
/// The generation of the timer that sent it, a decimal number.
pub const TIMER_GENERATION: &str = "sagabus-timer-generation";
/// The question of an instance that a message asks or answers: kind, name and generation.
pub const REQUEST: &str = "sagabus-request";
/// The key of the instance that asked.
pub const REQUEST_KEY: &str = "sagabus-request-key";
/// How often the message was kept for a later state of its instance, a decimal number.
pub const DEFERRALS: &str = "sagabus-deferrals";
/// Why a message became a dead letter, where one is published: [`Reason::as_str`](crate::Reason::as_str).
pub const DEAD_REASON: &str = "sagabus-dead-reason";
/// The endpoint that gave a published dead letter up.
pub const DEAD_ENDPOINT: &str = "sagabus-dead-endpoint";
/// The type of a published dead letter; its identity is the causation.
pub const DEAD_TYPE: &str = "sagabus-dead-type";
/// How many tries a published dead letter remembers, a decimal number.
pub const DEAD_ATTEMPTS: &str = "sagabus-dead-attempts";
/// The latest error of a published dead letter, at most 1 KiB.
pub const DEAD_ERROR: &str = "sagabus-dead-error";
/// The id of the key with which the body is sealed; absent where it is not. Like a content encoding:
/// `content-type` is that of what was sealed.
pub const SEALED: &str = "sagabus-sealed";
/// How many bytes the body of a dead letter had that was not kept, a decimal number.
pub const DROPPED: &str = "sagabus-dropped";
/// W3C trace context: the span that sent the message.
pub const TRACEPARENT: &str = "traceparent";
/// W3C trace context: vendor state.
pub const TRACESTATE: &str = "tracestate";

/// The most headers that a message may carry.
pub const COUNT_MAX: usize = 64;
/// The most bytes that all names and values together may take.
pub const BYTES_MAX: usize = 8 * 1024;

/// A small map of strings, in the order in which they were set. Clones share it until one is changed:
/// a message is written, handed over and published with the same headers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Headers(Arc<Vec<(Cow<'static, str>, String)>>);

impl Headers {
    /// Makes an empty map.
    pub fn new() -> Self {
        Self::default()
    }

    /// Makes an empty map with room for `n` headers.
    pub fn with_capacity(n: usize) -> Self {
        Self(Arc::new(Vec::with_capacity(n)))
    }

    /// Sets a header, replacing a former value.
    pub fn set(&mut self, name: impl Into<Cow<'static, str>>, value: impl Into<String>) {
        let (name, value) = (name.into(), value.into());
        let all = Arc::make_mut(&mut self.0);
        match all.iter_mut().find(|(known, _)| *known == name) {
            Some(entry) => entry.1 = value,
            None => all.push((name, value)),
        }
    }

    /// Returns a header's value.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0
            .iter()
            .find(|(known, _)| known == name)
            .map(|(_, value)| value.as_str())
    }

    /// Removes a header and returns its value.
    pub fn remove(&mut self, name: &str) -> Option<String> {
        let at = self.0.iter().position(|(known, _)| known == name)?;
        Some(Arc::make_mut(&mut self.0).remove(at).1)
    }

    /// Iterates in the order in which headers were set.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0
            .iter()
            .map(|(name, value)| (name.as_ref(), value.as_str()))
    }

    /// Returns how many headers there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Says whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Encodes the map as a JSON object, the form in which stores keep it.
    pub fn to_json(&self) -> Vec<u8> {
        let each = |(name, value): &(Cow<'_, str>, String)| name.len() + value.len() + 6;
        let bytes: usize = self.0.iter().map(each).sum();
        let mut json = Vec::with_capacity(bytes + 2);
        json.push(b'{');
        for (at, (name, value)) in self.0.iter().enumerate() {
            if at > 0 {
                json.push(b',');
            }
            push_json(&mut json, name);
            json.push(b':');
            push_json(&mut json, value);
        }
        json.push(b'}');
        json
    }

    /// Decodes what [`to_json`](Self::to_json) made.
    ///
    /// # Errors
    /// When the bytes are not a JSON object of strings.
    pub fn from_json(bytes: &[u8]) -> Result<Self, serde_json::Error> {
        serde_json::from_slice(bytes)
    }

    /// Checks the bounds: count, size, names of visible ASCII, values without control characters.
    ///
    /// # Errors
    /// A sentence that names the header and the fact.
    pub fn check(&self) -> Result<(), String> {
        if self.0.len() > COUNT_MAX {
            return Err(format!(
                "{} headers where at most {COUNT_MAX} may be",
                self.0.len()
            ));
        }
        let bytes: usize = self
            .0
            .iter()
            .map(|(name, value)| name.len() + value.len())
            .sum();
        if bytes > BYTES_MAX {
            return Err(format!(
                "headers take {bytes} bytes where at most {BYTES_MAX} may be"
            ));
        }
        for (name, value) in self.0.iter() {
            if name.is_empty() || !is_ascii_from(b'!', name) {
                return Err(format!("header name {name:?} is not visible ASCII"));
            }
            if !is_ascii_from(b' ', value) && value.chars().any(char::is_control) {
                return Err(format!("header `{name}` contains a control character"));
            }
        }
        Ok(())
    }
}

/// Appends a text as JSON. What needs no escapes is copied as a whole; this is done for every header
/// of every row.
fn push_json(json: &mut Vec<u8>, text: &str) {
    let is_plain = |byte: u8| (byte >= b' ') & (byte != b'"') & (byte != b'\\');
    if all_bytes(text, is_plain) {
        json.push(b'"');
        json.extend_from_slice(text.as_bytes());
        json.push(b'"');
    } else {
        serde_json::to_writer(json, text).expect("a text is always JSON");
    }
}

/// Says whether every byte of a text is ASCII from `least` to `~`.
fn is_ascii_from(least: u8, text: &str) -> bool {
    all_bytes(text, |byte| (byte >= least) & (byte <= b'~'))
}

/// Says whether every byte of a text is one of these. It looks at all of them, several at once, which
/// is quicker than to stop at the first that is not.
fn all_bytes(text: &str, is_one: impl Fn(u8) -> bool) -> bool {
    text.bytes().fold(true, |all, byte| all & is_one(byte))
}

impl<N: Into<Cow<'static, str>>, V: Into<String>> FromIterator<(N, V)> for Headers {
    fn from_iter<I: IntoIterator<Item = (N, V)>>(headers: I) -> Self {
        let mut map = Self::new();
        // Names by their places, once there are more than a message may have: whoever sends very
        // many must not make us compare each with each.
        let mut places: HashMap<Cow<'static, str>, usize> = HashMap::new();
        for (name, value) in headers {
            let (name, value) = (name.into(), value.into());
            if map.0.len() < COUNT_MAX {
                map.set(name, value);
                continue;
            }
            if places.is_empty() {
                let known = map.0.iter().enumerate();
                places.extend(known.map(|(at, (name, _))| (name.clone(), at)));
            }
            match places.get(&name) {
                Some(at) => Arc::make_mut(&mut map.0)[*at].1 = value,
                None => {
                    places.insert(name.clone(), map.0.len());
                    Arc::make_mut(&mut map.0).push((name, value));
                }
            }
        }
        map
    }
}

impl Serialize for Headers {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (name, value) in self.0.iter() {
            map.serialize_entry(name, value)?;
        }
        map.end()
    }
}

impl<'de> Deserialize<'de> for Headers {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct MapVisitor;

        impl<'de> Visitor<'de> for MapVisitor {
            type Value = Headers;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a map of strings")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Headers, A::Error> {
                let mut headers = Vec::with_capacity(map.size_hint().unwrap_or(8).min(COUNT_MAX));
                while let Some((Name(name), value)) = map.next_entry::<Name, String>()? {
                    headers.push((name, value));
                }
                Ok(Headers(Arc::new(headers)))
            }
        }

        deserializer.deserialize_map(MapVisitor)
    }
}

/// A header's name as it is read: one that we know is its constant, so that reading a row allocates
/// less.
struct Name(Cow<'static, str>);

impl<'de> Deserialize<'de> for Name {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct NameVisitor;

        impl Visitor<'_> for NameVisitor {
            type Value = Name;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a header's name")
            }

            fn visit_str<E: serde::de::Error>(self, name: &str) -> Result<Name, E> {
                Ok(Name(known_name(name)))
            }
        }

        deserializer.deserialize_str(NameVisitor)
    }
}

/// Replaces a name that we know by its constant.
pub(crate) fn known_name(name: &str) -> Cow<'static, str> {
    const KNOWN: [&str; 17] = [
        CONTENT_TYPE,
        VERSION,
        KIND,
        CORRELATION_ID,
        CAUSATION_ID,
        REPLY_TO,
        SOURCE,
        SENT_AT,
        KEY,
        TIMER,
        TIMER_GENERATION,
        REQUEST,
        REQUEST_KEY,
        DEFERRALS,
        SEALED,
        TRACEPARENT,
        TRACESTATE,
    ];
    match KNOWN.iter().find(|known| **known == name) {
        Some(known) => Cow::Borrowed(known),
        None => Cow::Owned(name.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_stored_reads_back_in_order() {
        let mut headers: Headers = [("b", "1"), (CONTENT_TYPE, "application/json")]
            .into_iter()
            .collect();
        headers.set("b", "2");
        let read = Headers::from_json(&headers.to_json()).unwrap();
        assert_eq!(read, headers);
        assert_eq!(read.iter().next(), Some(("b", "2")));
    }

    #[test]
    fn each_character_is_stored_as_json() {
        let texts = ('\0'..='\u{ff}').chain(['\u{2028}', 'ж', '😀']);
        let headers: Headers = texts
            .map(|one| (format!("n{one}"), format!("{one}v")))
            .collect();
        assert_eq!(headers.to_json(), serde_json::to_vec(&headers).unwrap());
        assert_eq!(Headers::from_json(&headers.to_json()).unwrap(), headers);
        assert_eq!(Headers::new().to_json(), b"{}");
    }

    #[test]
    fn bounds_are_named_when_broken() {
        let many: Headers = (0..65).map(|n| (format!("h{n}"), "x")).collect();
        assert_eq!(
            many.check().unwrap_err(),
            "65 headers where at most 64 may be"
        );
        let control: Headers = [("note", "a\u{0}b")].into_iter().collect();
        assert_eq!(
            control.check().unwrap_err(),
            "header `note` contains a control character"
        );
        let big: Headers = [("note", "x".repeat(9000))].into_iter().collect();
        assert!(big.check().unwrap_err().contains("9004 bytes"));
        let name: Headers = [("no te", "x")].into_iter().collect();
        assert!(name.check().unwrap_err().contains("not visible ASCII"));
    }

    #[test]
    fn each_character_is_allowed_in_names_or_values_or_in_neither() {
        for character in ('\0'..='\u{ff}').chain(['\u{2028}', 'ж', '😀']) {
            let text = format!("plain{character}plain");
            let as_name: Headers = [(text.clone(), "x")].into_iter().collect();
            assert_eq!(as_name.check().is_ok(), character.is_ascii_graphic());
            let as_value: Headers = [("x", text)].into_iter().collect();
            assert_eq!(as_value.check().is_ok(), !character.is_control());
        }
    }
}
