//! How values become columns and columns values again, the same in every engine.
//!
//! Reading never fails: a row whose stored JSON is broken must still reach the engine, which makes
//! a dead letter of it. Broken headers read as none, broken attempts as none, a broken identity as
//! the hash of its bytes.

use std::collections::BTreeMap;

use sagabus_core::endpoint::{EndpointName, Order};
use sagabus_core::envelope::Outgoing;
use sagabus_core::headers::Headers;
use sagabus_core::store::Place;
use sagabus_core::unit_of_work::{Attempt, Origin, Reason, UnitOfWork};

/// Says an endpoint of this database, as the outbox stores it: `@orders`.
pub(crate) fn endpoint_text(name: &EndpointName) -> String {
    format!("@{name}")
}

/// Says whether a row stands in the line of its key, where only the oldest moves.
pub(crate) fn is_in_line(unit: &UnitOfWork, outgoing: &Outgoing, place: &Place) -> bool {
    unit.order_of(outgoing, place.order()) == Order::PerKey
}

/// Encodes failed tries; none are stored as null.
pub(crate) fn attempts_to_json(attempts: &[Attempt]) -> Option<Vec<u8>> {
    if attempts.is_empty() {
        return None;
    }
    Some(serde_json::to_vec(attempts).expect("strings and numbers are always JSON"))
}

/// Decodes failed tries; none where they cannot be read.
pub(crate) fn attempts_from_json(bytes: Option<&[u8]>) -> Vec<Attempt> {
    let read = bytes.map(serde_json::from_slice);
    read.and_then(Result::ok).unwrap_or_default()
}

/// Decodes headers; none where they cannot be read.
pub(crate) fn headers_from_json(bytes: &[u8]) -> Headers {
    Headers::from_json(bytes).unwrap_or_default()
}

/// Encodes the armed timers of an instance.
pub(crate) fn timers_to_json(timers: &BTreeMap<String, u64>) -> Vec<u8> {
    serde_json::to_vec(timers).expect("strings and numbers are always JSON")
}

/// Decodes the armed timers of an instance; none where they cannot be read.
pub(crate) fn timers_from_json(bytes: &[u8]) -> BTreeMap<String, u64> {
    serde_json::from_slice(bytes).unwrap_or_default()
}

/// Encodes the request that started an instance.
pub(crate) fn origin_to_json(origin: &Origin) -> Vec<u8> {
    serde_json::to_vec(origin).expect("strings and identities are always JSON")
}

/// Decodes the request that started an instance; none where it cannot be read.
pub(crate) fn origin_from_json(bytes: Option<&[u8]>) -> Option<Origin> {
    serde_json::from_slice(bytes?).ok()
}

/// Reads an identity; bytes that are none become the hash of themselves.
#[cfg(any(feature = "sqlite", test))]
pub(crate) fn uuid_from_bytes(bytes: &[u8]) -> uuid::Uuid {
    use uuid::Uuid;
    Uuid::from_slice(bytes).unwrap_or_else(|_| Uuid::new_v5(&Uuid::NAMESPACE_OID, bytes))
}

/// Names the kind of a failure: equal for errors that differ in numbers and identities only.
pub(crate) fn fingerprint(reason: Reason, attempts: &[Attempt]) -> String {
    /// Long enough to tell errors apart, short enough for a table of groups.
    const CHARS_MAX: usize = 160;
    let mut text = reason.as_str().to_owned();
    let Some(last) = attempts.last() else {
        return text;
    };
    text.push_str(": ");
    let is_part = |c: char| c.is_alphanumeric() || c == '-' || c == '_';
    let mut rest = last.error.as_str();
    while let Some(first) = rest.chars().next().filter(|_| text.len() < CHARS_MAX) {
        let end = match is_part(first) {
            true => rest.find(|c| !is_part(c)).unwrap_or(rest.len()),
            false => first.len_utf8(),
        };
        let (word, after) = rest.split_at(end);
        // A word with a digit in it is a number, an identity or an address.
        match word.contains(|c: char| c.is_ascii_digit()) {
            true => text.push('#'),
            false => text.push_str(&word.replace('\0', "#")),
        }
        rest = after;
    }
    let cut = text.floor_char_boundary(CHARS_MAX);
    text.truncate(cut);
    text
}

#[cfg(test)]
mod tests {
    use sagabus_core::clock::Timestamp;

    use super::*;

    fn failed_with(error: &str) -> Vec<Attempt> {
        vec![Attempt {
            at: Timestamp::from_micros(1),
            host: "host".into(),
            error: error.into(),
        }]
    }

    #[test]
    fn errors_that_differ_in_numbers_and_identities_have_one_fingerprint() {
        let one = failed_with("order 4711 of 018f4e5a-0000-7000-8000-000000000001: declined");
        let two = failed_with("order 9 of 118f4e5a-0000-7000-8000-00000000000a: declined");
        let name = fingerprint(Reason::Terminal, &one);
        assert_eq!(name, "terminal: order # of #: declined");
        assert_eq!(name, fingerprint(Reason::Terminal, &two));
        assert_ne!(name, fingerprint(Reason::AttemptsExhausted, &one));
        assert_ne!(
            name,
            fingerprint(Reason::Terminal, &failed_with("out of money"))
        );
    }

    #[test]
    fn a_fingerprint_is_short_and_cut_between_characters() {
        let name = fingerprint(Reason::Terminal, &failed_with(&"ä ".repeat(5000)));
        assert!(name.len() <= 160);
        assert_eq!(
            fingerprint(Reason::Terminal, &failed_with("a\0b")),
            "terminal: a#b"
        );
    }

    #[test]
    fn broken_json_reads_as_nothing() {
        assert!(headers_from_json(b"{").is_empty());
        assert!(attempts_from_json(Some(b"{")).is_empty());
        assert!(timers_from_json(b"\xff").is_empty());
        assert_eq!(origin_from_json(Some(b"[]")), None);
        assert_eq!(uuid_from_bytes(b"short"), uuid_from_bytes(b"short"));
    }
}
