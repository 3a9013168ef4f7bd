//! What client and broker say to each other: one JSON value per line.

use std::collections::BTreeMap;
use std::io;

use bytes::Bytes;
use sagabus_core::endpoint::{EndpointName, Order};
use sagabus_core::envelope::Envelope;
use sagabus_core::headers::Headers;
use sagabus_core::id::{MessageId, StoreId};
use sagabus_core::message::Kind;
use sagabus_core::store::{EndpointSpec, Subscription};
use sagabus_core::transport::Publication;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};

use super::faults::Fault;
use super::log::Published;

/// What a client asks.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "ask", rename_all = "snake_case")]
pub(super) enum Request {
    Declare {
        store: StoreId,
        endpoints: Vec<DeclaredEndpoint>,
    },
    Publish {
        number: usize,
        message: WireMessage,
    },
    Subscribe {
        endpoint: EndpointName,
        prefetch: u32,
    },
    Unsubscribe,
    Ack {
        tag: u64,
    },
    Retry {
        tag: u64,
        after_ms: u64,
    },
    GiveBack {
        tag: u64,
    },
    Control {
        command: Command,
    },
}

/// What the broker answers.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "answer", rename_all = "snake_case")]
pub(super) enum Response {
    Done,
    Failed {
        text: String,
    },
    Confirm {
        number: usize,
        verdict: Verdict,
    },
    Delivery {
        tag: u64,
        redeliveries: u32,
        message: WireMessage,
    },
    Unsubscribed,
    Log {
        published: Vec<Published>,
    },
    Fired {
        counts: BTreeMap<String, u64>,
    },
    Depth {
        waiting: usize,
        in_hand: usize,
    },
}

/// The broker's word on one publication.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "is", rename_all = "snake_case")]
pub(super) enum Verdict {
    Taken,
    Nacked { text: String },
    Unroutable,
}

/// What a test asks.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "snake_case")]
pub(super) enum Command {
    Inject { fault: Fault },
    Clear,
    CutConnections,
    CutAtFrame { frame: u64 },
    RefuseFor { ms: u64 },
    Log,
    Fired,
    Depth { endpoint: EndpointName },
}

/// An endpoint as it is declared.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct DeclaredEndpoint {
    name: EndpointName,
    order: Order,
    takes: Vec<(String, String)>,
}

impl From<&EndpointSpec> for DeclaredEndpoint {
    fn from(spec: &EndpointSpec) -> Self {
        let takes = spec.subscriptions.iter();
        Self {
            name: spec.name.clone(),
            order: spec.order,
            takes: takes
                .map(|one| (one.kind.as_str().to_owned(), one.message_type.to_string()))
                .collect(),
        }
    }
}

impl From<DeclaredEndpoint> for EndpointSpec {
    fn from(declared: DeclaredEndpoint) -> Self {
        let kind = |word: &str| match word {
            "command" => Kind::Command,
            "event" => Kind::Event,
            _ => Kind::Reply,
        };
        let takes = declared.takes.into_iter();
        Self {
            name: declared.name,
            order: declared.order,
            subscriptions: takes
                .map(|(word, message_type)| Subscription {
                    kind: kind(&word),
                    message_type: message_type.into(),
                })
                .collect(),
        }
    }
}

/// A message with its address and key.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct WireMessage {
    pub(super) id: MessageId,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(super) address: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) key: Option<String>,
    message_type: String,
    headers: Headers,
    /// Two hexadecimal digits per byte.
    body: String,
}

impl WireMessage {
    pub(super) fn new(envelope: &Envelope) -> Self {
        Self {
            id: envelope.id,
            address: String::new(),
            key: None,
            message_type: envelope.message_type.to_string(),
            headers: envelope.headers.clone(),
            body: hexadecimal(&envelope.body),
        }
    }

    pub(super) fn of(publication: &Publication) -> Self {
        Self {
            address: publication.address.clone(),
            key: publication.key.clone(),
            ..Self::new(&publication.envelope)
        }
    }

    pub(super) fn into_envelope(self) -> io::Result<Envelope> {
        Ok(Envelope {
            id: self.id,
            message_type: self.message_type.into(),
            headers: self.headers,
            body: bytes(&self.body)?,
        })
    }

    pub(super) fn into_publication(self) -> io::Result<Publication> {
        Ok(Publication {
            address: self.address.clone(),
            key: self.key.clone(),
            envelope: self.into_envelope()?,
        })
    }
}

fn hexadecimal(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digit = |half: u8| char::from(DIGITS[usize::from(half)]);
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        text.push(digit(byte >> 4));
        text.push(digit(byte & 15));
    }
    text
}

fn bytes(text: &str) -> io::Result<Bytes> {
    let broken = || io::Error::new(io::ErrorKind::InvalidData, "body is not hexadecimal");
    let half = |digit: u8| char::from(digit).to_digit(16).ok_or_else(broken);
    let mut bytes = Vec::with_capacity(text.len() / 2);
    for pair in text.as_bytes().chunks(2) {
        let [high, low] = pair else {
            return Err(broken());
        };
        let byte = half(*high)? * 16 + half(*low)?;
        bytes.push(u8::try_from(byte).map_err(|_| broken())?);
    }
    Ok(bytes.into())
}

/// Reads lines, and keeps what it has of one when it is dropped in the middle.
#[derive(Debug)]
pub(super) struct FrameReader {
    stream: BufReader<OwnedReadHalf>,
    line: Vec<u8>,
}

impl FrameReader {
    pub(super) fn new(stream: OwnedReadHalf) -> Self {
        Self {
            stream: BufReader::new(stream),
            line: Vec::new(),
        }
    }

    /// Reads the next frame; `None` when the other side is gone, also in the middle of a frame.
    ///
    /// # Cancel safety
    /// Cancel safe: the next call goes on with the same line.
    pub(super) async fn next<T: DeserializeOwned>(&mut self) -> io::Result<Option<T>> {
        self.stream.read_until(b'\n', &mut self.line).await?;
        if self.line.last() != Some(&b'\n') {
            return Ok(None);
        }
        let frame = serde_json::from_slice(&self.line)?;
        self.line.clear();
        Ok(Some(frame))
    }

    /// Says whether the other side is known to be gone, while nothing is expected from it.
    pub(super) fn is_closed(&mut self) -> bool {
        use futures_util::FutureExt;
        match self.stream.fill_buf().now_or_never() {
            None => false,
            Some(Ok(unexpected)) => unexpected.is_empty(),
            Some(Err(_)) => true,
        }
    }
}

/// Writes one frame.
pub(super) async fn write<T: Serialize>(stream: &mut OwnedWriteHalf, frame: &T) -> io::Result<()> {
    stream.write_all(&encode(frame)?).await
}

/// Encodes one frame.
pub(super) fn encode<T: Serialize>(frame: &T) -> io::Result<Vec<u8>> {
    let mut line = serde_json::to_vec(frame)?;
    line.push(b'\n');
    Ok(line)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bodies_read_back() {
        let all: Vec<u8> = (0..=255).collect();
        assert_eq!(bytes(&hexadecimal(&all)).unwrap(), all);
        assert!(bytes("0").is_err());
        assert!(bytes("0g").is_err());
    }
}
