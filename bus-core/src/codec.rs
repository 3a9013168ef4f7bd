//! Message to body and back. JSON unless a message type brings its own.

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::CodecError;

/// The `content-type` of JSON bodies.
pub const JSON: &str = "application/json";

/// The largest body that is sent or accepted, in bytes.
///
/// 1 MiB: a quarter of a commit group's 4 MiB, and under every broker's default limit.
pub const BODY_BYTES_MAX: usize = 1024 * 1024;

/// Encodes a value as JSON.
///
/// # Errors
/// [`CodecError::Encode`] when the value has no JSON form (a map with keys that are not strings).
pub fn encode_json<T: Serialize>(value: &T) -> Result<Bytes, CodecError> {
    serde_json::to_vec(value)
        .map(Bytes::from)
        .map_err(|source| CodecError::Encode(source.into()))
}

/// Decodes a value from JSON. Unknown fields are ignored unless the type says otherwise.
///
/// # Errors
/// [`CodecError::Decode`] when the bytes are not JSON of this shape.
pub fn decode_json<T: DeserializeOwned>(body: &[u8]) -> Result<T, CodecError> {
    serde_json::from_slice(body).map_err(|source| CodecError::Decode(source.into()))
}
