//! The event that tells of a dead letter, to whoever subscribed to it.

use std::collections::BTreeMap;
use std::marker::PhantomData;

use bytes::Bytes;
use serde::{Deserialize, Deserializer, Serialize};

use crate::attempt::Attempt;
use crate::codec;
use crate::endpoint::Destination;
use crate::envelope::{Envelope, Outgoing};
use crate::headers;
use crate::id::MessageId;
use crate::keyring::SEAL_BYTES;
use crate::message::{ALIASES_MAX, Event, Kind, Message};
use crate::unit_of_work::DeadLetter;

/// What a message type's name ends in that tells of dead letters of another.
const SUFFIX: &str = ".fault";

/// Tells that a message of type `M` became a dead letter. Handle it like any other event:
///
/// ```
/// use sagabus_core::fault_event::Fault;
/// # use sagabus_core::{Command, Kind, Message};
/// # #[derive(serde::Serialize, serde::Deserialize)]
/// # struct ChargeCard { order_id: u64 }
/// # impl Message for ChargeCard {
/// #     const TYPE: &'static str = "payments.charge-card";
/// #     const KIND: Kind = Kind::Command;
/// # }
/// # impl Command for ChargeCard {}
///
/// async fn tell_support(fault: Fault<ChargeCard>) {
///     let order = fault.message.map(|command| command.order_id);
///     println!("order {order:?}: {} at {}", fault.reason, fault.endpoint);
/// }
/// ```
///
/// It is published in the transaction that writes the dead letter, for the endpoints of the same
/// database that subscribed, whichever host they are in. Where none did, nothing is written. Its
/// type is that of `M` and `.fault`. A fault that becomes a dead letter itself has none.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(bound = "")]
pub struct Fault<M> {
    /// The message, where its bytes can be decoded.
    #[serde(skip)]
    pub message: Option<M>,
    /// Its identity.
    pub message_id: MessageId,
    /// Its type, as it came.
    pub message_type: String,
    /// The endpoint that gave it up.
    pub endpoint: String,
    /// Why, as [`Reason::as_str`](crate::Reason::as_str) spells it.
    pub reason: String,
    /// The latest tries, with their errors and what caused them.
    pub attempts: Vec<Attempt>,
    /// The message as it came; none where it is too large to be told of.
    pub content: Option<Content>,
}

/// A message as it came.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Content {
    /// Its headers.
    pub headers: BTreeMap<String, String>,
    /// Its bytes.
    pub body: Body,
}

/// The bytes of a message: text where they are text, so that people can read them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Body {
    /// UTF-8, as JSON is.
    Text(String),
    /// Anything else.
    Bytes(Vec<u8>),
}

impl Content {
    fn of(envelope: &Envelope) -> Self {
        let headers = envelope.headers.iter();
        let owned = |(name, value): (&str, &str)| (name.to_owned(), value.to_owned());
        Self {
            headers: headers.map(owned).collect(),
            body: match std::str::from_utf8(&envelope.body) {
                Ok(text) => Body::Text(text.to_owned()),
                Err(_) => Body::Bytes(envelope.body.to_vec()),
            },
        }
    }

    fn decode<M: Message>(&self, id: MessageId, message_type: &str) -> Option<M> {
        let mut headers = headers::Headers::new();
        for (name, value) in &self.headers {
            headers.set(name.clone(), value.clone());
        }
        let envelope = Envelope {
            id,
            message_type: message_type.to_owned().into(),
            headers,
            body: match &self.body {
                Body::Text(text) => Bytes::from(text.clone()),
                Body::Bytes(bytes) => Bytes::from(bytes.clone()),
            },
        };
        if envelope.headers.get(headers::SEALED).is_some() {
            return None;
        }
        // What a newer release wrote may mean something else.
        let is_known = envelope
            .version()
            .is_ok_and(|version| version <= M::VERSION);
        is_known.then(|| codec::decode(&envelope).ok()).flatten()
    }
}

impl<'de, M: Message> Deserialize<'de> for Fault<M> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        /// What travels of it.
        #[derive(Deserialize)]
        struct Told {
            message_id: MessageId,
            message_type: String,
            endpoint: String,
            reason: String,
            attempts: Vec<Attempt>,
            content: Option<Content>,
        }
        let told = Told::deserialize(deserializer)?;
        let content = told.content.as_ref();
        Ok(Self {
            message: content.and_then(|one| one.decode(told.message_id, &told.message_type)),
            message_id: told.message_id,
            message_type: told.message_type,
            endpoint: told.endpoint,
            reason: told.reason,
            attempts: told.attempts,
            content: told.content,
        })
    }
}

impl<M: Message> Message for Fault<M> {
    const TYPE: &'static str = Named::<M>::TYPE;
    const ALIASES: &'static [&'static str] = Named::<M>::ALIASES;
    const KIND: Kind = Kind::Event;
}
impl<M: Message> Event for Fault<M> {}

/// Makes the name of a fault when the program is compiled.
struct Named<M>(PhantomData<M>);

impl<M: Message> Named<M> {
    const LENGTH: usize = M::TYPE.len() + SUFFIX.len();
    const JOINED: [u8; NAME_BYTES_MAX] = join(M::TYPE.as_bytes(), SUFFIX.as_bytes());
    const BYTES: &'static [u8] = &Self::JOINED;
    const TYPE: &'static str = match std::str::from_utf8(Self::BYTES.split_at(Self::LENGTH).0) {
        Ok(name) => name,
        Err(_) => panic!("two texts in a row are a text"),
    };
    const ALL_ALIASES: [&'static str; ALIASES_MAX] = [
        NamedByAlias::<M, 0>::TYPE,
        NamedByAlias::<M, 1>::TYPE,
        NamedByAlias::<M, 2>::TYPE,
        NamedByAlias::<M, 3>::TYPE,
        NamedByAlias::<M, 4>::TYPE,
        NamedByAlias::<M, 5>::TYPE,
        NamedByAlias::<M, 6>::TYPE,
        NamedByAlias::<M, 7>::TYPE,
    ];
    const SLICE: &'static [&'static str] = &Self::ALL_ALIASES;
    const ALIASES: &'static [&'static str] = Self::SLICE.split_at(M::ALIASES.len()).0;
}

/// The name of a fault whose message came under an alias.
struct NamedByAlias<M, const AT: usize>(PhantomData<M>);

impl<M: Message, const AT: usize> NamedByAlias<M, AT> {
    const ALIAS: &'static str = match AT < M::ALIASES.len() {
        true => M::ALIASES[AT],
        false => "",
    };
    const LENGTH: usize = Self::ALIAS.len() + SUFFIX.len();
    const JOINED: [u8; NAME_BYTES_MAX] = join(Self::ALIAS.as_bytes(), SUFFIX.as_bytes());
    const BYTES: &'static [u8] = &Self::JOINED;
    const TYPE: &'static str = match std::str::from_utf8(Self::BYTES.split_at(Self::LENGTH).0) {
        Ok(name) => name,
        Err(_) => panic!("two texts in a row are a text"),
    };
}

/// Room for the longest name of a type, 200 characters, and the suffixes of some faults of faults.
const NAME_BYTES_MAX: usize = 256;

const fn join(first: &[u8], second: &[u8]) -> [u8; NAME_BYTES_MAX] {
    let mut joined = [0; NAME_BYTES_MAX];
    let mut at = 0;
    while at < first.len() {
        joined[at] = first[at];
        at += 1;
    }
    while at < first.len() + second.len() {
        joined[at] = second[at - first.len()];
        at += 1;
    }
    joined
}

/// Returns the type of whose dead letters a message of this type tells: it holds that one's body, so
/// it is protected as that one is.
pub(crate) fn told_of(message_type: &str) -> Option<&str> {
    message_type.strip_suffix(SUFFIX)
}

/// Makes the event that tells of a dead letter; `None` for a dead letter that is one itself, and for
/// a type that is no name.
pub(crate) fn fault_of(dead: &DeadLetter) -> Option<Outgoing> {
    let envelope = &dead.envelope;
    let name = envelope.message_type.as_ref();
    let is_usable = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_graphic());
    if told_of(name).is_some() || !is_usable || name.len() + SUFFIX.len() > 200 {
        return None;
    }
    let mut fault: Fault<()> = Fault {
        message: None,
        message_id: envelope.id,
        message_type: name.to_owned(),
        endpoint: dead.endpoint.to_string(),
        reason: dead.reason.as_str().to_owned(),
        attempts: dead.attempts.clone(),
        content: Some(Content::of(envelope)),
    };
    let mut body = codec::encode_json(&fault).ok()?;
    // Where it is sealed, it grows.
    if body.len() > codec::BODY_BYTES_MAX - SEAL_BYTES {
        fault.content = None;
        body = codec::encode_json(&fault).ok()?;
    }
    let mut headers = headers::Headers::with_capacity(6);
    headers.set(headers::CONTENT_TYPE, codec::JSON);
    headers.set(headers::KIND, Kind::Event.as_str());
    headers.set(
        headers::SENT_AT,
        crate::clock::now().as_micros().to_string(),
    );
    headers.set(headers::CORRELATION_ID, envelope.correlation_id());
    headers.set(headers::CAUSATION_ID, envelope.id);
    if let Some(key) = &dead.key {
        headers.set(headers::KEY, key.clone());
    }
    let fault = Envelope {
        id: MessageId::new(),
        message_type: format!("{name}{SUFFIX}").into(),
        headers,
        body,
    };
    // What keeps it from travelling must not keep its dead letter from being written.
    fault.check().ok()?;
    Some(Outgoing::from_envelope(fault, Destination::Watchers))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::endpoint::EndpointName;
    use crate::unit_of_work::{KeyAfterDeath, Reason};

    #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
    struct Charge {
        cents: u32,
    }

    impl Message for Charge {
        const TYPE: &'static str = "payments.charge";
        const ALIASES: &'static [&'static str] = &["shop.charge", "charge"];
        const KIND: Kind = Kind::Command;
        const VERSION: u32 = 2;
    }

    fn dead(change: impl FnOnce(&mut Envelope)) -> DeadLetter {
        let mut envelope = Envelope::new(&Charge { cents: 5 }).expect("it can be encoded");
        change(&mut envelope);
        DeadLetter {
            endpoint: EndpointName::new("payments").expect("a usable name"),
            envelope,
            reason: Reason::Terminal,
            attempts: Vec::new(),
            key: None,
            instance: None,
            key_after: KeyAfterDeath::GoesOn,
        }
    }

    fn told(change: impl FnOnce(&mut Envelope)) -> Fault<Charge> {
        let fault = fault_of(&dead(change)).expect("it can be told");
        assert_eq!(fault.envelope.message_type, Fault::<Charge>::TYPE);
        codec::decode(&fault.envelope).expect("it is what was written")
    }

    #[test]
    fn a_fault_is_named_after_its_message() {
        assert_eq!(Fault::<Charge>::TYPE, "payments.charge.fault");
        assert_eq!(Fault::<Fault<Charge>>::TYPE, "payments.charge.fault.fault");
        assert_eq!(
            Fault::<Charge>::ALIASES,
            ["shop.charge.fault", "charge.fault"]
        );
    }

    #[test]
    fn a_message_is_decoded_where_its_bytes_allow() {
        assert_eq!(told(|_| {}).message, Some(Charge { cents: 5 }));
        let bytes = told(|one| one.body = Bytes::from_static(b"\xff\x00"));
        assert_eq!(bytes.message, None);
        let body = bytes.content.map(|content| content.body);
        assert_eq!(body, Some(Body::Bytes(vec![0xff, 0])));
        let text = told(|one| one.body = Bytes::from_static(b"{"));
        let body = text.content.map(|content| content.body);
        assert_eq!((text.message, body), (None, Some(Body::Text("{".into()))));
        let newer = told(|one| one.headers.set(headers::VERSION, "3"));
        assert_eq!(newer.message, None);
        let large = told(|one| one.body = vec![0; codec::BODY_BYTES_MAX].into());
        assert_eq!((large.message, large.content), (None, None));
    }

    #[test]
    fn nothing_is_told_of_a_fault_or_of_what_has_no_name() {
        let long = "x".repeat(200);
        for name in ["payments.charge.fault", "", "a b", "a\0b", &*long] {
            let dead = dead(|one| one.message_type = name.to_owned().into());
            assert_eq!(fault_of(&dead), None, "{name:?}");
        }
    }
}
