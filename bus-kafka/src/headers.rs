//! Records to envelopes and back: CloudEvents in Kafka's binding, as `sagabus_core::wire` says.

use std::panic::{AssertUnwindSafe, catch_unwind};

use bytes::Bytes;
use rdkafka::message::{Header, Headers, Message, OwnedHeaders, Timestamp};
use sagabus_core::clock;
use sagabus_core::envelope::Envelope;
use sagabus_core::id::MessageId;
use sagabus_core::transport::Publication;
use sagabus_core::wire::{self, KAFKA, Native, Received};

/// Stands for a header's name that is no text.
const NAMELESS: &str = "\u{fffd}";

/// Makes the headers of a record.
pub(crate) fn of(publication: &Publication) -> OwnedHeaders {
    let all = wire::write(KAFKA, publication);
    let record = OwnedHeaders::new_with_capacity(all.len());
    all.into_iter().fold(record, |record, (key, value)| {
        record.insert(Header {
            key,
            value: Some(value.as_bytes()),
        })
    })
}

/// A record, understood.
pub(crate) struct Understood {
    /// The message.
    pub(crate) envelope: Envelope,
    /// The bytes by which Kafka keeps order.
    pub(crate) key: Option<Bytes>,
}

/// Reads a record. `None` for one without a value that is no message: a tombstone, by which
/// compacted topics forget a key.
///
/// `implied_type` is the type of a record that does not say its own, on a topic of one type.
/// Values that are no text are read as far as they are: nothing may keep a record from becoming a
/// dead letter.
pub(crate) fn read(
    record: &impl Message,
    cluster: &str,
    implied_type: Option<&str>,
) -> Option<Understood> {
    let headers = record.headers().map(pairs).unwrap_or_default();
    let is_message = |(name, _): &(String, String)| name == "ce_type" || name == "ce_id";
    if record.payload().is_none() && !headers.iter().any(is_message) {
        return None;
    }
    let key = record.key().map(Bytes::copy_from_slice);
    let received = Received {
        headers,
        body: record
            .payload()
            .map(Bytes::copy_from_slice)
            .unwrap_or_default(),
        native: Native {
            message_type: implied_type.map(str::to_owned),
            key: key
                .as_deref()
                .map(|key| String::from_utf8_lossy(key).into_owned()),
            sent_at: sent_at(record.timestamp()),
            ..Native::default()
        },
    };
    let nameless = || {
        let (partition, offset) = (record.partition().to_string(), record.offset().to_string());
        MessageId::derived(&["kafka", cluster, record.topic(), &partition, &offset])
    };
    let envelope = wire::read(KAFKA, received, nameless);
    Some(Understood { envelope, key })
}

/// Reads all headers. The driver panics over a name that is no text; such a header has a name that
/// no message may have, so that its record is a dead letter.
fn pairs(headers: &impl Headers) -> Vec<(String, String)> {
    let read = |at| {
        // It only reads: there is nothing that a panic could leave half done.
        let header = catch_unwind(AssertUnwindSafe(|| headers.get(at)));
        let Ok(header) = header else {
            return (NAMELESS.to_owned(), String::new());
        };
        let value = header.value.unwrap_or_default();
        (
            header.key.to_owned(),
            String::from_utf8_lossy(value).into_owned(),
        )
    };
    (0..headers.count()).map(read).collect()
}

fn sent_at(timestamp: Timestamp) -> Option<clock::Timestamp> {
    let micros = timestamp.to_millis()?.checked_mul(1000)?;
    Some(clock::Timestamp::from_micros(micros))
}
