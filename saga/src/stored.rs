//! How an instance's data is stored: as its own JSON, or, where the machine has to remember
//! something beside it, as `{"$saga":{..},"data":{..}}`.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::{Deref, DerefMut};

use bytes::Bytes;
use sagabus_core::codec::{encode_json, step_by_step};
use sagabus_core::envelope::Envelope;
use sagabus_core::error::HandlerError;
use sagabus_core::store::Instance;
use sagabus_core::{Headers, MessageId, Reason};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::lock::Held;
use crate::saga::Saga;

/// How stored data begins that has a book beside it.
const BOOK_FIRST: &[u8] = b"{\"$saga\":";

/// What a machine remembers beside the data. Mostly empty, and then neither stored nor more than a
/// pointer: it is moved often.
#[derive(Debug, Default)]
pub(crate) struct Book(Option<Box<Entries>>);

static NO_ENTRIES: Entries = Entries {
    seen: BTreeMap::new(),
    deferred: Vec::new(),
    locks: BTreeMap::new(),
};

impl Deref for Book {
    type Target = Entries;

    fn deref(&self) -> &Entries {
        self.0.as_deref().unwrap_or(&NO_ENTRIES)
    }
}

impl DerefMut for Book {
    fn deref_mut(&mut self) -> &mut Entries {
        self.0.get_or_insert_default()
    }
}

impl PartialEq for Book {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

#[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Entries {
    /// The parts of composite events that have come: composite to message types.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) seen: BTreeMap<String, BTreeSet<String>>,
    /// Messages that wait for a state that takes them, the earliest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) deferred: Vec<Deferred>,
    /// Locks that were asked for and not given back, by the name of the question.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) locks: BTreeMap<String, Held>,
}

impl Book {
    /// Returns the entries where there are some to change: to change none makes none.
    pub(crate) fn entries(&mut self) -> Option<&mut Entries> {
        self.0.as_deref_mut()
    }
}

impl Entries {
    fn is_empty(&self) -> bool {
        self.seen.is_empty() && self.deferred.is_empty() && self.locks.is_empty()
    }
}

/// A message that waits for a state that takes it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Deferred {
    id: MessageId,
    #[serde(rename = "type")]
    message_type: String,
    headers: Headers,
    body: Body,
}

/// Bytes, as text where they are text.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Body {
    Text(String),
    Bytes(Vec<u8>),
}

impl Deferred {
    pub(crate) fn new(envelope: &Envelope) -> Self {
        let text = std::str::from_utf8(&envelope.body);
        Self {
            id: envelope.id,
            message_type: envelope.message_type.clone().into_owned(),
            headers: envelope.headers.clone(),
            body: match text {
                Ok(text) => Body::Text(text.to_owned()),
                Err(_) => Body::Bytes(envelope.body.to_vec()),
            },
        }
    }

    pub(crate) fn into_envelope(self) -> Envelope {
        Envelope {
            id: self.id,
            message_type: self.message_type.into(),
            headers: self.headers,
            body: match self.body {
                Body::Text(text) => text.into(),
                Body::Bytes(bytes) => bytes.into(),
            },
        }
    }

    /// Returns roughly how many bytes it adds to its instance.
    pub(crate) fn size(&self) -> usize {
        match &self.body {
            Body::Text(text) => text.len(),
            // As JSON, a list of numbers.
            Body::Bytes(bytes) => bytes.len() * 4,
        }
    }
}

#[derive(Serialize)]
struct WithBook<'a, S> {
    #[serde(rename = "$saga")]
    book: &'a Entries,
    data: &'a S,
}

#[derive(Deserialize)]
struct BookAndData<T> {
    #[serde(rename = "$saga")]
    book: Entries,
    data: T,
}

/// Encodes data, and the book where it has entries.
pub(crate) fn write<S: Saga>(data: &S, book: &Book) -> Result<Bytes, HandlerError> {
    let bytes = if book.is_empty() {
        encode_json(data)
    } else {
        encode_json(&WithBook { book, data })
    };
    // What has no encoded form will have none the next time either.
    bytes.map_err(|error| HandlerError::from(error).terminal())
}

/// Decodes what an instance holds, through the upcaster where it is older than this release. What
/// cannot be read is left as it is, and its message becomes a dead letter.
pub(crate) fn read<S: Saga>(instance: &Instance) -> Result<(S, Book), HandlerError> {
    let (stored, known) = (instance.schema_version, S::SCHEMA_VERSION);
    if stored > known {
        let error = format!(
            "{} was stored with schema version {stored}, this release knows {known}",
            instance.id
        );
        return Err(HandlerError::dead(Reason::StateUndecodable, error));
    }
    let unreadable = |error: String| {
        let error = format!("{} cannot be read: {error}", instance.id);
        HandlerError::dead(Reason::StateUndecodable, error)
    };
    let parsed = if stored == known {
        parse::<S>(&instance.data)
    } else {
        let (value, book) =
            parse::<Value>(&instance.data).map_err(|e| unreadable(e.to_string()))?;
        let value = upcast::<S>(stored, value).map_err(|error| unreadable(error.chain()))?;
        serde_json::from_value(value).map(|data| (data, book))
    };
    parsed.map_err(|error| unreadable(error.to_string()))
}

/// Calls the upcaster for each version from the stored one to that of today.
fn upcast<S: Saga>(stored: i32, value: Value) -> Result<Value, HandlerError> {
    let known = u32::try_from(S::SCHEMA_VERSION).unwrap_or_default();
    let from = u32::try_from(stored).ok().filter(|from| *from >= 1);
    let from = from.ok_or_else(|| HandlerError::new(format!("{stored} is no schema version")))?;
    step_by_step(from, known, value, |from, value| {
        // Not beyond `known`, which was a number of this type.
        S::upcast(i32::try_from(from).unwrap_or(S::SCHEMA_VERSION), value)
    })
}

fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<(T, Book), serde_json::Error> {
    if bytes.starts_with(BOOK_FIRST) {
        let BookAndData { book, data } = serde_json::from_slice(bytes)?;
        return Ok((data, Book(Some(Box::new(book)))));
    }
    serde_json::from_slice(bytes).map(|data| (data, Book::default()))
}

#[cfg(test)]
mod tests {
    use sagabus_core::InstanceId;
    use sagabus_core::unit_of_work::InstanceStatus;

    use super::*;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Order {
        cents: i64,
    }

    impl Saga for Order {
        type Key = u64;
        type State = ();
        const SCHEMA_VERSION: i32 = 2;

        fn upcast(
            from: i32,
            mut data: serde_json::Value,
        ) -> Result<serde_json::Value, HandlerError> {
            assert_eq!(from, 1);
            let euros = data["euros"].take().as_i64();
            let euros = euros.ok_or_else(|| HandlerError::new("no euros"))?;
            Ok(serde_json::json!({ "cents": euros * 100 }))
        }
    }

    fn stored(schema_version: i32, data: &str) -> Instance {
        Instance {
            id: InstanceId {
                kind: "order".into(),
                key: "1".into(),
            },
            version: 1,
            status: InstanceStatus::Running,
            state: None,
            schema_version,
            data: data.to_owned().into(),
            timers: BTreeMap::new(),
            origin: None,
        }
    }

    #[test]
    fn data_alone_is_stored_as_its_own_json() {
        let bytes = write(&Order { cents: 7 }, &Book::default()).unwrap();
        assert_eq!(bytes, r#"{"cents":7}"#);
        let (data, book) = read::<Order>(&stored(2, r#"{"cents":7}"#)).unwrap();
        assert_eq!((data, book), (Order { cents: 7 }, Book::default()));
    }

    /// The golden bytes of this release: a later one has to read them.
    #[test]
    fn a_book_is_stored_beside_the_data() {
        let golden = concat!(
            r#"{"$saga":{"seen":{"ready":["orders.paid"]},"deferred":[{"#,
            r#""id":"018f4e5a-0000-7000-8000-000000000001","type":"orders.shipped","#,
            r#""headers":{"sagabus-kind":"event"},"body":{"text":"{}"}}]},"data":{"cents":7}}"#
        );
        let (data, book) = read::<Order>(&stored(2, golden)).unwrap();
        assert_eq!(book.deferred[0].clone().into_envelope().body, "{}");
        assert_eq!(write(&data, &book).unwrap(), golden);
    }

    #[test]
    fn a_body_that_is_no_text_is_kept_byte_by_byte() {
        let envelope = Envelope {
            id: MessageId::new(),
            message_type: "a".into(),
            headers: Headers::new(),
            body: Bytes::from_static(&[0, 255, 7]),
        };
        let deferred = Deferred::new(&envelope);
        let json = serde_json::to_string(&deferred).unwrap();
        let read: Deferred = serde_json::from_str(&json).unwrap();
        assert_eq!(read.into_envelope(), envelope);
    }

    #[test]
    fn older_data_goes_through_the_upcaster() {
        let (data, _) = read::<Order>(&stored(1, r#"{"euros":3}"#)).unwrap();
        assert_eq!(data, Order { cents: 300 });
    }

    #[test]
    fn what_cannot_be_read_says_so() {
        let cases = [
            (2, "nonsense", "expected"),
            (2, r#"{"$saga":7,"data":{}}"#, "invalid type"),
            (1, r#"{"cents":7}"#, "no euros"),
            (0, r#"{"euros":3}"#, "0 is no schema version"),
            (-7, r#"{"euros":3}"#, "-7 is no schema version"),
            (
                3,
                r#"{"cents":7}"#,
                "schema version 3, this release knows 2",
            ),
        ];
        for (version, data, fact) in cases {
            let error = read::<Order>(&stored(version, data)).unwrap_err();
            assert!(error.chain().contains(fact), "{data}: {}", error.chain());
            assert!(error.chain().contains("order/1"));
        }
    }
}
