//! Message to body and back. JSON unless a message type brings its own; what comes is decoded by
//! what its `content-type` header says.

use std::cell::Cell;

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::envelope::Envelope;
use crate::error::{CodecError, HandlerError};
use crate::headers;
use crate::message::Message;

/// The `content-type` of JSON bodies.
pub const JSON: &str = "application/json";
/// The `content-type` of MessagePack bodies.
pub const MSGPACK: &str = "application/msgpack";
/// What says nothing about a body but that it is bytes.
const BYTES: &str = "application/octet-stream";

/// The largest body that is sent or accepted, in bytes.
///
/// 1 MiB: a quarter of a commit group's 4 MiB, and under every broker's default limit.
pub const BODY_BYTES_MAX: usize = 1024 * 1024;

/// The most bytes that a thread keeps for its next encoding.
const SCRATCH_BYTES_MAX: usize = 64 * 1024;

thread_local! {
    /// Where JSON is written before its length is known, so that a body is one allocation of its
    /// own size.
    static SCRATCH: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// Encodes a value as JSON.
///
/// # Errors
/// [`CodecError::Encode`] when the value has no JSON form (a map with keys that are not strings).
pub fn encode_json<T: Serialize>(value: &T) -> Result<Bytes, CodecError> {
    // Taken, not borrowed: a value's own `Serialize` may encode another one.
    let mut scratch = SCRATCH.take();
    scratch.clear();
    let written = serde_json::to_writer(&mut scratch, value);
    let encoded = written.map(|()| Bytes::copy_from_slice(&scratch));
    if scratch.capacity() <= SCRATCH_BYTES_MAX {
        SCRATCH.set(scratch);
    }
    encoded.map_err(|source| CodecError::Encode(source.into()))
}

/// Decodes a value from JSON. Unknown fields are ignored unless the type says otherwise.
///
/// # Errors
/// [`CodecError::Decode`] when the bytes are not JSON of this shape.
pub fn decode_json<T: DeserializeOwned>(body: &[u8]) -> Result<T, CodecError> {
    serde_json::from_slice(body).map_err(|source| CodecError::Decode(source.into()))
}

/// Encodes a value as MessagePack, structs as maps of their fields' names, so that fields can be
/// added later.
///
/// # Errors
/// [`CodecError::Encode`] when the value has no such form.
///
/// # Examples
/// A message type that travels as MessagePack; it is decoded from JSON as well, where a sender of
/// another release still writes that:
/// ```
/// use bytes::Bytes;
/// use sagabus_core::{CodecError, Event, Kind, Message, codec};
///
/// #[derive(serde::Serialize, serde::Deserialize)]
/// struct Measured { celsius: f32 }
///
/// impl Message for Measured {
///     const TYPE: &'static str = "weather.measured";
///     const KIND: Kind = Kind::Event;
///     const CONTENT_TYPE: &'static str = codec::MSGPACK;
///
///     fn encode(&self) -> Result<Bytes, CodecError> { codec::encode_msgpack(self) }
///     fn decode(body: &[u8]) -> Result<Self, CodecError> { codec::decode_msgpack(body) }
/// }
/// impl Event for Measured {}
/// ```
#[cfg(feature = "msgpack")]
pub fn encode_msgpack<T: Serialize>(value: &T) -> Result<Bytes, CodecError> {
    rmp_serde::to_vec_named(value)
        .map(Bytes::from)
        .map_err(|source| CodecError::Encode(source.into()))
}

/// Decodes a value from MessagePack.
///
/// # Errors
/// [`CodecError::Decode`] when the bytes are not MessagePack of this shape.
#[cfg(feature = "msgpack")]
pub fn decode_msgpack<T: DeserializeOwned>(body: &[u8]) -> Result<T, CodecError> {
    rmp_serde::from_slice(body).map_err(|source| CodecError::Decode(source.into()))
}

/// Decodes a message by its `content-type`: the type's own codec, else JSON, else MessagePack where
/// that is compiled in. Where the header is missing, or says only that these are bytes, it is the
/// type's own.
///
/// # Errors
/// [`CodecError::Decode`], or [`CodecError::UnknownContent`] for a content type without a codec.
pub fn decode<M: Message>(envelope: &Envelope) -> Result<M, CodecError> {
    let media_type = media_type(envelope);
    let upcast = upcast_body::<M>(envelope, media_type.as_deref())?;
    let body = upcast.as_ref().unwrap_or(&envelope.body);
    match media_type.as_deref() {
        None => M::decode(body),
        Some(own) if own == M::CONTENT_TYPE => M::decode(body),
        Some(json) if is_json(json) => decode_json(body),
        #[cfg(feature = "msgpack")]
        Some(msgpack) if is_msgpack(msgpack) => decode_msgpack(body),
        Some(unknown) => Err(CodecError::UnknownContent {
            content_type: unknown.to_owned(),
            own: M::CONTENT_TYPE,
        }),
    }
}

/// Brings the body of an older version to the shape of today; `None` where it is to be read as it
/// came: it is of today, or its upcaster has nothing to change, or a codec of the user's reads it.
fn upcast_body<M: Message>(
    envelope: &Envelope,
    media_type: Option<&str>,
) -> Result<Option<Bytes>, CodecError> {
    let version = envelope.version()?;
    if version >= M::VERSION {
        return Ok(None);
    }
    let media_type = media_type.unwrap_or(M::CONTENT_TYPE);
    let came: Value = match media_type {
        json if is_json(json) => decode_json(&envelope.body)?,
        #[cfg(feature = "msgpack")]
        msgpack if is_msgpack(msgpack) => decode_msgpack(&envelope.body)?,
        _ => return Ok(None),
    };
    let upcast = step_by_step(version, M::VERSION, came.clone(), M::upcast)
        .map_err(|error| CodecError::Decode(error.chain().into()))?;
    if upcast == came {
        return Ok(None);
    }
    #[cfg(feature = "msgpack")]
    if is_msgpack(media_type) {
        return encode_msgpack(&upcast).map(Some);
    }
    encode_json(&upcast).map(Some)
}

/// Calls an upcaster for each version from `from` up to the one before `to`.
///
/// # Errors
/// The upcaster's; or, where the two are more than 1,000 versions apart, that this is no count.
pub fn step_by_step(
    from: u32,
    to: u32,
    value: Value,
    upcast: impl Fn(u32, Value) -> Result<Value, HandlerError>,
) -> Result<Value, HandlerError> {
    /// A version a day for three years. What is said to be older says nonsense, or versions are
    /// dates and the steps would not end.
    const STEPS_MAX: u32 = 1_000;
    if to.saturating_sub(from) > STEPS_MAX {
        let error = format!("version {from} is more than {STEPS_MAX} before version {to}");
        return Err(HandlerError::new(error));
    }
    (from..to).try_fold(value, |value, version| upcast(version, value))
}

/// Says why a body was not decoded, without the values that it has: those are in the texts of what
/// decodes.
pub(crate) fn place_of(error: &CodecError) -> String {
    let CodecError::Decode(source) = error else {
        return error.to_string();
    };
    let place = source
        .downcast_ref::<serde_json::Error>()
        .map_or_else(String::new, |one| {
            format!(", line {} column {}", one.line(), one.column())
        });
    format!("{error}{place} (the rest of the error is left out: it may hold values of the body)")
}

/// Returns what the body of a message is said to be: in lower case, without parameters such as a
/// character set; `None` where nothing is said.
pub fn media_type(envelope: &Envelope) -> Option<String> {
    let text = envelope.headers.get(headers::CONTENT_TYPE)?;
    let media_type = text.split(';').next().unwrap_or_default();
    let media_type = media_type.trim().to_ascii_lowercase();
    (!media_type.is_empty() && media_type != BYTES).then_some(media_type)
}

/// A whole event in one JSON document is another thing than JSON with the event's attributes beside
/// it.
fn is_json(media_type: &str) -> bool {
    let is_json = media_type.ends_with("/json") || media_type.ends_with("+json");
    is_json && !media_type.starts_with("application/cloudevents")
}

#[cfg(feature = "msgpack")]
fn is_msgpack(media_type: &str) -> bool {
    matches!(
        media_type,
        MSGPACK | "application/x-msgpack" | "application/vnd.msgpack"
    )
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;
    use crate::message::{Event, Kind};

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Measured {
        celsius: u8,
    }

    impl Message for Measured {
        const TYPE: &'static str = "weather.measured";
        const KIND: Kind = Kind::Event;
    }
    impl Event for Measured {}

    fn envelope(content_type: Option<&str>, body: &'static [u8]) -> Envelope {
        let mut envelope = Envelope::new(&Measured { celsius: 1 }).unwrap();
        envelope.headers.remove(headers::CONTENT_TYPE);
        if let Some(content_type) = content_type {
            envelope.headers.set(headers::CONTENT_TYPE, content_type);
        }
        envelope.body = Bytes::from_static(body);
        envelope
    }

    #[test]
    fn a_body_is_decoded_by_what_it_is_said_to_be() {
        let ours = [
            None,
            Some(""),
            Some("application/octet-stream"),
            Some("application/json"),
            Some("Application/JSON; charset=utf-8"),
            Some("text/json"),
            Some("application/vnd.weather+json"),
        ];
        for content_type in ours {
            let envelope = envelope(content_type, br#"{"celsius":21}"#);
            let decoded: Measured = decode(&envelope).unwrap();
            assert_eq!(decoded, Measured { celsius: 21 }, "{content_type:?}");
        }
    }

    #[cfg(feature = "msgpack")]
    #[test]
    fn messagepack_is_read_and_written_with_names() {
        let bytes = encode_msgpack(&Measured { celsius: 21 }).unwrap();
        assert_eq!(&bytes[..], b"\x81\xa7celsius\x15");
        let envelope = envelope(Some("application/x-msgpack"), b"\x81\xa7celsius\x15");
        let decoded: Measured = decode(&envelope).unwrap();
        assert_eq!(decoded, Measured { celsius: 21 });
        assert!(decode_msgpack::<Measured>(b"\xc1").is_err());
    }

    #[test]
    fn a_content_type_without_codec_is_named() {
        for unknown in ["application/xml", "application/cloudevents+json"] {
            let refused = decode::<Measured>(&envelope(Some(unknown), b"{}"));
            let error = refused.unwrap_err().to_string();
            assert!(error.contains(unknown) && error.contains(JSON), "{error}");
        }
    }

    /// The third version: cents were euros before the second, the currency came with the third.
    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Paid {
        cents: i64,
        currency: String,
    }

    impl Message for Paid {
        const TYPE: &'static str = "payments.paid";
        const KIND: Kind = Kind::Event;
        const VERSION: u32 = 3;

        fn upcast(from: u32, mut body: Value) -> Result<Value, HandlerError> {
            if from == 1 {
                let euros = body["euros"].as_i64();
                let euros = euros.ok_or_else(|| HandlerError::new("no euros"))?;
                return Ok(serde_json::json!({ "cents": euros * 100 }));
            }
            body["currency"] = "EUR".into();
            Ok(body)
        }
    }

    fn paid(version: Option<&str>, body: &'static [u8]) -> Result<Paid, CodecError> {
        let mut envelope = envelope(Some(JSON), body);
        if let Some(version) = version {
            envelope.headers.set(headers::VERSION, version);
        }
        decode(&envelope)
    }

    #[test]
    fn an_older_body_goes_through_every_step_after_its_version() {
        let expected = Paid {
            cents: 300,
            currency: "EUR".to_owned(),
        };
        let (first, second) = (br#"{"euros":3}"#, br#"{"cents":300}"#);
        assert_eq!(paid(None, first).unwrap(), expected);
        assert_eq!(paid(Some("1"), first).unwrap(), expected);
        assert_eq!(paid(Some("2"), second).unwrap(), expected);
        let third = br#"{"cents":300,"currency":"USD"}"#;
        assert_eq!(paid(Some("3"), third).unwrap().currency, "USD");
    }

    #[test]
    fn an_older_body_that_cannot_be_brought_to_today_says_why() {
        let cases: [(&str, &'static [u8], &str); 6] = [
            ("1", br#"{"cents":300}"#, "no euros"),
            ("1", b"nonsense", "expected"),
            ("2", b"{}", "missing field `cents`"),
            ("0", br#"{"euros":3}"#, "is \"0\", no version"),
            ("-1", br#"{"euros":3}"#, "is \"-1\", no version"),
            ("99999999999", br#"{"euros":3}"#, "no version"),
        ];
        for (version, body, fact) in cases {
            let error = crate::error::chain(&paid(Some(version), body).unwrap_err());
            assert!(error.contains(fact), "{version}: {error}");
        }
    }

    #[test]
    fn an_upcaster_that_changes_nothing_costs_no_precision() {
        #[derive(Serialize, Deserialize)]
        struct Huge {
            n: u128,
        }
        impl Message for Huge {
            const TYPE: &'static str = "test.huge";
            const VERSION: u32 = 2;
        }
        let envelope = envelope(None, b"{\"n\":340282366920938463463374607431768211455}");
        assert_eq!(decode::<Huge>(&envelope).unwrap().n, u128::MAX);
    }

    #[cfg(feature = "msgpack")]
    #[test]
    fn an_older_body_of_messagepack_is_upcast_too() {
        let body = encode_msgpack(&serde_json::json!({ "euros": 3 })).unwrap();
        let mut envelope = envelope(Some(MSGPACK), b"");
        envelope.body = body;
        assert_eq!(decode::<Paid>(&envelope).unwrap().cents, 300);
    }

    #[test]
    fn versions_that_are_no_count_are_refused() {
        let result = step_by_step(1, 20_261_121, Value::Null, |_, value| Ok(value));
        let error = result.unwrap_err().chain();
        assert!(error.contains("more than 1000 before"), "{error}");
    }
}
