//! How values become columns and columns values again, the same in every engine.
//!
//! Reading never fails: a row whose stored JSON is broken must still reach the engine, which makes
//! a dead letter of it. Broken headers read as none, broken attempts as none, a broken identity as
//! the hash of its bytes.

use std::collections::BTreeMap;

use sagabus_core::admin::{RowFilter, RowState};
use sagabus_core::clock::micros;
use sagabus_core::endpoint::{EndpointName, Order};
use sagabus_core::envelope::{Due, Outgoing};
use sagabus_core::headers::Headers;
use sagabus_core::store::{Birth, Place, Placement};
use sagabus_core::unit_of_work::{Attempt, HistoryDetail, Origin, Reason, UnitOfWork};

/// Says an endpoint of this database, as the outbox stores it: `@orders`.
pub(crate) fn endpoint_text(name: &EndpointName) -> String {
    ["@", name.as_str()].concat()
}

/// Picks the text for what a filter of rows looks at, out of one for each state, one for ids and one
/// for an owner.
pub(crate) fn text_of<T: Copy>(texts: &[T; 6], filter: &RowFilter) -> T {
    match (&filter.owner, &filter.ids, filter.state) {
        (None, None, None) => texts[0],
        (None, None, Some(RowState::Parked)) => texts[1],
        (None, None, Some(RowState::Moving)) => texts[2],
        (None, None, Some(RowState::Timer)) => texts[3],
        (None, Some(_), _) => texts[4],
        (Some(_), _, _) => texts[5],
    }
}

/// Says whether a row stands in the line of its key, where only the oldest moves.
pub(crate) fn is_in_line(unit: &UnitOfWork, outgoing: &Outgoing, place: &Place) -> bool {
    unit.order_of(outgoing, place.order()) == Order::PerKey
}

/// Says why a row is parked from the beginning, if it is: what has no place is nobody's.
pub(crate) fn parked(placement: &Placement) -> Option<Reason> {
    match (placement.birth, &placement.place) {
        (Birth::Parked(reason), _) => Some(reason),
        (_, Place::Nowhere) => Some(Reason::NoOwner),
        _ => None,
    }
}

/// Says how many microseconds from now a row is due, if it is for later.
pub(crate) fn due_after(outgoing: &Outgoing) -> Option<i64> {
    match outgoing.due {
        Due::After(delay) => Some(micros(delay)).filter(|delay| *delay > 0),
        Due::Now | Due::At(_) => None,
    }
}

/// Says at which microsecond since 1970 a row is due, if it has a time.
pub(crate) fn due_at(outgoing: &Outgoing) -> Option<i64> {
    match outgoing.due {
        Due::At(time) => Some(time.as_micros()),
        Due::Now | Due::After(_) => None,
    }
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

/// Decodes the rest of a history entry; nothing where it cannot be read.
pub(crate) fn detail_from_json(bytes: &[u8]) -> HistoryDetail {
    serde_json::from_slice(bytes).unwrap_or_default()
}

/// Encodes any JSON.
pub(crate) fn value_to_json(value: &serde_json::Value) -> Vec<u8> {
    serde_json::to_vec(value).expect("a JSON value is always JSON")
}

/// Decodes any JSON; null where it cannot be read.
pub(crate) fn value_from_json(bytes: &[u8]) -> serde_json::Value {
    serde_json::from_slice(bytes).unwrap_or_default()
}

/// Reads an identity; bytes that are none become the hash of themselves.
#[cfg(any(feature = "sqlite", test))]
pub(crate) fn uuid_from_bytes(bytes: &[u8]) -> uuid::Uuid {
    use uuid::Uuid;
    Uuid::from_slice(bytes).unwrap_or_else(|_| Uuid::new_v5(&Uuid::NAMESPACE_OID, bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn broken_json_reads_as_nothing() {
        assert!(headers_from_json(b"{").is_empty());
        assert!(attempts_from_json(Some(b"{")).is_empty());
        assert!(timers_from_json(b"\xff").is_empty());
        assert_eq!(origin_from_json(Some(b"[]")), None);
        assert_eq!(uuid_from_bytes(b"short"), uuid_from_bytes(b"short"));
    }
}
