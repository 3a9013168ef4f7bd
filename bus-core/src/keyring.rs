//! Keys, and the form of a sealed body: encrypted, and bound to the message that it belongs to.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use chacha20poly1305::aead::{AeadInOut, KeyInit};
use chacha20poly1305::{Tag, XChaCha20Poly1305, XNonce};

use crate::chance;
use crate::envelope::Envelope;
use crate::error::{CodecError, KeyringError, OpenError};
use crate::headers;

/// The first byte of a sealed body: the version of this form, and with it the algorithm.
const FORM: u8 = 1;
/// What begins the data that a seal is bound to, so that no other use of a key makes the same.
const DOMAIN: &[u8] = b"sagabus sealed body 1";
/// Bytes of a nonce: enough for as many random ones as anybody sends, without counting.
const NONCE_BYTES: usize = 24;
/// Bytes of a tag.
const TAG_BYTES: usize = 16;
/// How much longer a sealed body is than what it holds.
pub const SEAL_BYTES: usize = 1 + NONCE_BYTES + TAG_BYTES;
/// The longest id of a key.
const KEY_ID_BYTES_MAX: usize = 64;

/// The headers that a seal is bound to, beside identity and type: a message in which one of them
/// was changed, added or taken away cannot be opened.
///
/// Left out is what changes on the way: where an answer goes (each broker has its own words for
/// it), timers, deferrals, trace context, the sender's clock.
pub const BOUND: [&str; 9] = [
    headers::CONTENT_TYPE,
    headers::VERSION,
    headers::KIND,
    headers::KEY,
    headers::SOURCE,
    headers::CORRELATION_ID,
    headers::CAUSATION_ID,
    headers::REQUEST,
    headers::REQUEST_KEY,
];

/// The keys of a service: one that seals what is sent, and all that open what comes.
///
/// A key is 32 random bytes and has an id, which travels in the header `sagabus-sealed`. Bodies are
/// sealed by XChaCha20-Poly1305 under a nonce of 24 random bytes each, so that nothing has to be
/// counted and two hosts may share a key. Cheap to clone; shows its ids alone.
///
/// # Examples
/// ```
/// use sagabus_core::Keyring;
///
/// // The first key seals; those below it still open what was sealed before.
/// let keys = Keyring::parse(
///     "# id      32 bytes in hex: openssl rand -hex 32\n\
///      2026-11   9f1c0d6a5b7e48302f1d6c9a8b7e5f4032211f0e9d8c7b6a5948372615f4e3d2\n\
///      2026-05   0102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f20\n",
/// )?;
/// assert_eq!(keys.sealing_key(), "2026-11");
/// assert_eq!(format!("{keys:?}"), r#"Keyring["2026-11", "2026-05"]"#);
/// # Ok::<(), sagabus_core::error::KeyringError>(())
/// ```
#[derive(Clone)]
pub struct Keyring {
    /// Never empty; the first seals.
    keys: Arc<Vec<Key>>,
}

#[derive(Clone)]
struct Key {
    id: String,
    /// Overwrites its key when it is dropped.
    cipher: XChaCha20Poly1305,
}

impl Keyring {
    /// Makes a ring of one key, which seals and opens.
    ///
    /// # Errors
    /// [`KeyringError::KeyId`] where the id is empty, longer than 64 bytes or not visible ASCII.
    pub fn new(id: &str, secret: [u8; 32]) -> Result<Self, KeyringError> {
        let keys = Arc::new(vec![Key::new(id, secret)?]);
        Ok(Self { keys })
    }

    /// Adds a key that opens what was sealed with it, and seals nothing.
    ///
    /// # Errors
    /// [`KeyringError::KeyId`], or [`KeyringError::KeyTwice`] where the ring has a key of this id.
    pub fn opens(mut self, id: &str, secret: [u8; 32]) -> Result<Self, KeyringError> {
        if self.key(id).is_some() {
            return Err(KeyringError::KeyTwice { id: id.to_owned() });
        }
        Arc::make_mut(&mut self.keys).push(Key::new(id, secret)?);
        Ok(self)
    }

    /// Reads a ring: a key per line, its id and its 32 bytes in hexadecimal digits, the sealing one
    /// first. Empty lines and lines that begin with `#` say nothing.
    ///
    /// # Errors
    /// [`KeyringError`], which names the line and repeats no secret.
    pub fn parse(text: &str) -> Result<Self, KeyringError> {
        let mut ring: Option<Self> = None;
        let lines = (1..).zip(text.lines().map(str::trim));
        for (line, text) in lines.filter(|(_, text)| !text.is_empty() && !text.starts_with('#')) {
            let mut words = text.split_whitespace();
            let (Some(id), Some(secret), None) = (words.next(), words.next(), words.next()) else {
                return Err(KeyringError::Line { line });
            };
            let secret = secret_from_hex(secret).ok_or(KeyringError::Line { line })?;
            ring = Some(match ring {
                None => Self::new(id, secret)?,
                Some(ring) => ring.opens(id, secret)?,
            });
        }
        ring.ok_or(KeyringError::NoKey)
    }

    /// Returns the id of the key that seals.
    pub fn sealing_key(&self) -> &str {
        &self.keys[0].id
    }

    /// Iterates over the ids of all keys, the sealing one first.
    pub fn key_ids(&self) -> impl Iterator<Item = &str> {
        self.keys.iter().map(|key| key.id.as_str())
    }

    /// Seals the body of a message for what the message is now: identity, type and the headers of
    /// [`BOUND`]. Whatever the header `sagabus-sealed` said before is replaced.
    ///
    /// # Errors
    /// [`CodecError::Seal`] where the system has no random bytes to give.
    pub fn seal(&self, envelope: &mut Envelope) -> Result<(), CodecError> {
        let id = self.sealing_key().to_owned();
        envelope.headers.set(headers::SEALED, id);
        self.keys[0].seal(envelope)
    }

    /// Seals a new body in place of one that was sealed, with the key that its header names.
    ///
    /// # Errors
    /// [`CodecError::Seal`] where the ring has no such key, or the system no random bytes to give.
    pub fn seal_again(&self, envelope: &mut Envelope) -> Result<(), CodecError> {
        let id = envelope.headers.get(headers::SEALED).unwrap_or_default();
        let unknown = || OpenError::UnknownKey { key: id.to_owned() };
        let key = self
            .key(id)
            .ok_or_else(|| CodecError::Seal(unknown().into()))?;
        key.seal(envelope)
    }

    /// Opens a sealed message: its body is what was sealed, and nothing says any more that it is.
    ///
    /// # Errors
    /// [`OpenError::UnknownKey`] where the ring has no key of that id; [`OpenError::Altered`] where
    /// the body was not sealed with it for this very message.
    pub fn open(&self, envelope: &Envelope) -> Result<Envelope, OpenError> {
        let id = envelope.headers.get(headers::SEALED).unwrap_or_default();
        let unknown = || OpenError::UnknownKey { key: id.to_owned() };
        let key = self.key(id).ok_or_else(unknown)?;
        let altered = || OpenError::Altered { key: id.to_owned() };
        let body = key.open(envelope).ok_or_else(altered)?;
        let mut opened = Envelope {
            body,
            ..envelope.clone()
        };
        opened.headers.remove(headers::SEALED);
        Ok(opened)
    }

    fn key(&self, id: &str) -> Option<&Key> {
        self.keys.iter().find(|key| key.id == id)
    }
}

impl fmt::Debug for Keyring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Keyring")?;
        f.debug_list().entries(self.key_ids()).finish()
    }
}

impl Key {
    fn new(id: &str, secret: [u8; 32]) -> Result<Self, KeyringError> {
        let is_usable = (1..=KEY_ID_BYTES_MAX).contains(&id.len())
            && id.bytes().all(|byte| byte.is_ascii_graphic());
        if !is_usable {
            return Err(KeyringError::KeyId { id: id.to_owned() });
        }
        Ok(Self {
            id: id.to_owned(),
            cipher: XChaCha20Poly1305::new(&secret.into()),
        })
    }

    fn seal(&self, envelope: &mut Envelope) -> Result<(), CodecError> {
        let nonce = chance::nonce().map_err(|source| CodecError::Seal(source.into()))?;
        envelope.body = self.seal_under(nonce, envelope)?;
        Ok(())
    }

    fn seal_under(
        &self,
        nonce: [u8; NONCE_BYTES],
        envelope: &Envelope,
    ) -> Result<Bytes, CodecError> {
        let mut sealed = Vec::with_capacity(envelope.body.len() + SEAL_BYTES);
        sealed.push(FORM);
        sealed.extend_from_slice(&nonce);
        let text_at = sealed.len();
        sealed.extend_from_slice(&envelope.body);
        let tag = self.cipher.encrypt_inout_detached(
            &XNonce::from(nonce),
            &bound_to(envelope, &self.id),
            (&mut sealed[text_at..]).into(),
        );
        let tag = tag.map_err(|_| CodecError::TooLarge {
            bytes: envelope.body.len(),
        })?;
        sealed.extend_from_slice(&tag);
        Ok(sealed.into())
    }

    fn open(&self, envelope: &Envelope) -> Option<Bytes> {
        let (form, rest) = envelope.body.split_first()?;
        let (nonce, rest) = rest.split_first_chunk::<NONCE_BYTES>()?;
        let (sealed, tag) = rest.split_last_chunk::<TAG_BYTES>()?;
        if *form != FORM {
            return None;
        }
        let mut text = sealed.to_vec();
        let opened = self.cipher.decrypt_inout_detached(
            &XNonce::from(*nonce),
            &bound_to(envelope, &self.id),
            text.as_mut_slice().into(),
            &Tag::from(*tag),
        );
        opened.is_ok().then(|| text.into())
    }
}

/// Writes down what a seal is bound to, so that no two messages give the same bytes: each part with
/// its length before it, and a header that is missing as no length could be.
fn bound_to(envelope: &Envelope, key: &str) -> Vec<u8> {
    const MISSING: u32 = u32::MAX;
    let mut bound = Vec::with_capacity(256);
    bound.extend_from_slice(DOMAIN);
    bound.extend_from_slice(envelope.id.as_uuid().as_bytes());
    let named = BOUND.iter().map(|name| envelope.headers.get(name));
    let parts = [Some(key), Some(envelope.message_type.as_ref())];
    for part in parts.into_iter().chain(named) {
        // Headers and types are bounded far below: a longer one is no message that can be opened.
        let length = part.map_or(MISSING, |text| u32::try_from(text.len()).unwrap_or(MISSING));
        bound.extend_from_slice(&length.to_be_bytes());
        bound.extend_from_slice(part.unwrap_or_default().as_bytes());
    }
    bound
}

fn secret_from_hex(text: &str) -> Option<[u8; 32]> {
    let mut secret = [0; 32];
    let digits = text.as_bytes();
    if digits.len() != 2 * secret.len() {
        return None;
    }
    for (byte, pair) in secret.iter_mut().zip(digits.chunks_exact(2)) {
        let digit = |at: usize| char::from(pair[at]).to_digit(16);
        *byte = u8::try_from(digit(0)? * 16 + digit(1)?).ok()?;
    }
    Some(secret)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::headers::Headers;

    fn ring() -> Keyring {
        Keyring::new("new", [7; 32]).unwrap()
    }

    fn envelope() -> Envelope {
        let headers: Headers = [
            (headers::CONTENT_TYPE, "application/json"),
            (headers::KIND, "command"),
            (headers::SOURCE, "shop"),
            (
                headers::CORRELATION_ID,
                "018f4e5a-0000-7000-8000-000000000002",
            ),
            ("note", "free"),
        ]
        .into_iter()
        .collect();
        Envelope {
            id: "018f4e5a-0000-7000-8000-000000000001".parse().unwrap(),
            message_type: "payments.charge".into(),
            headers,
            body: Bytes::from_static(br#"{"card":"4111"}"#),
        }
    }

    fn sealed() -> Envelope {
        let mut sealed = envelope();
        ring().seal(&mut sealed).unwrap();
        sealed
    }

    #[test]
    fn what_is_sealed_opens_as_it_was() {
        let (first, second) = (sealed(), sealed());
        assert_eq!(ring().open(&first).unwrap(), envelope());
        assert_eq!(first.headers.get(headers::SEALED), Some("new"));
        assert_eq!(first.body.len(), envelope().body.len() + SEAL_BYTES);
        assert_ne!(first.body, second.body, "each seal has a nonce of its own");
        let shown = String::from_utf8_lossy(&first.body).into_owned();
        assert!(!shown.contains("4111"), "{shown}");
    }

    #[test]
    fn an_empty_body_is_sealed_like_any_other() {
        let mut empty = envelope();
        empty.body = Bytes::new();
        let mut sealed = empty.clone();
        ring().seal(&mut sealed).unwrap();
        assert_eq!(ring().open(&sealed).unwrap(), empty);
    }

    /// What was stored by a release must be opened by every later one.
    #[test]
    fn the_form_is_what_it_was() {
        let body = ring().keys[0].seal_under([3; 24], &envelope()).unwrap();
        let hex: String = body.iter().map(|byte| format!("{byte:02x}")).collect();
        let golden = "01030303030303030303030303030303030303030303030303\
                      ff24287a0745e4ca552472ca76f3b3c0f0830fa3bf4629189f3187ccda4160";
        assert_eq!(hex, golden.trim());
    }

    #[test]
    fn an_altered_body_is_refused_whichever_bit_it_is() {
        let sealed = sealed();
        for bit in 0..sealed.body.len() * 8 {
            let mut bytes = sealed.body.to_vec();
            bytes[bit / 8] ^= 1 << (bit % 8);
            let altered = Envelope {
                body: bytes.into(),
                ..sealed.clone()
            };
            let refused = ring().open(&altered).unwrap_err();
            assert!(matches!(refused, OpenError::Altered { .. }), "bit {bit}");
        }
        for kept in 0..sealed.body.len() {
            let cut = Envelope {
                body: sealed.body.slice(..kept),
                ..sealed.clone()
            };
            assert!(ring().open(&cut).is_err(), "{kept} bytes");
        }
    }

    #[test]
    fn a_body_opens_in_no_other_message() {
        let opens = |change: &dyn Fn(&mut Envelope)| {
            let mut other = sealed();
            change(&mut other);
            ring().open(&other).is_ok()
        };
        assert!(opens(&|one| one.headers.set("note", "other")));
        assert!(opens(&|one| one.headers.set(headers::REPLY_TO, "@other")));
        assert!(!opens(&|one| one.id = crate::id::MessageId::new()));
        assert!(!opens(&|one| one.message_type = "payments.refund".into()));
        for name in BOUND {
            assert!(!opens(&|one| one.headers.set(name, "other")), "{name}");
            assert!(!opens(&|one| one.headers.set(name, "")), "{name}");
            let taken = opens(&|one| drop(one.headers.remove(name)));
            assert_eq!(taken, envelope().headers.get(name).is_none(), "{name}");
        }
        assert!(!opens(&|one| {
            let body = Envelope {
                id: crate::id::MessageId::new(),
                ..envelope()
            };
            let mut swapped = body;
            ring().seal(&mut swapped).unwrap();
            one.body = swapped.body;
        }));
    }

    #[test]
    fn parts_that_move_from_one_header_to_the_next_are_other_parts() {
        let of = |kind: &str, key: &str| {
            let mut one = envelope();
            one.headers.set(headers::KIND, kind);
            one.headers.set(headers::KEY, key);
            bound_to(&one, "new")
        };
        assert_ne!(of("ab", "c"), of("a", "bc"));
        assert_ne!(of("ab", ""), of("a", "b"));
    }

    #[test]
    fn keys_rotate_without_a_gap() {
        let old = sealed();
        let rotated = Keyring::new("newer", [8; 32]).unwrap();
        let refused = rotated.open(&old).unwrap_err();
        assert!(matches!(refused, OpenError::UnknownKey { ref key } if key == "new"));
        let both = rotated.opens("new", [7; 32]).unwrap();
        assert_eq!(both.open(&old).unwrap(), envelope());
        let mut next = envelope();
        both.seal(&mut next).unwrap();
        assert_eq!(next.headers.get(headers::SEALED), Some("newer"));
        // A key that has the id of another opens nothing of it.
        let false_friend = Keyring::new("new", [9; 32]).unwrap();
        let refused = false_friend.open(&old).unwrap_err();
        assert!(matches!(refused, OpenError::Altered { .. }));
        let mut renamed = old;
        renamed.headers.set(headers::SEALED, "newer");
        assert!(both.open(&renamed).is_err());
        renamed.headers.remove(headers::SEALED);
        assert!(both.open(&renamed).is_err());
    }

    #[test]
    fn a_new_body_is_sealed_with_the_key_of_the_one_before() {
        let both = Keyring::new("newer", [8; 32]).unwrap();
        let mut edited = sealed();
        edited.body = Bytes::from_static(b"{}");
        assert!(both.seal_again(&mut edited).is_err());
        let both = both.opens("new", [7; 32]).unwrap();
        both.seal_again(&mut edited).unwrap();
        assert_eq!(edited.headers.get(headers::SEALED), Some("new"));
        assert_eq!(ring().open(&edited).unwrap().body, "{}");
    }

    #[test]
    fn a_ring_that_cannot_be_read_says_where_and_repeats_nothing() {
        let secret = "ab".repeat(32);
        let cases = [
            (String::new(), "no key"),
            ("# only words\n\n".to_owned(), "no key"),
            (format!("one {secret}\ntwo"), "line 2"),
            (format!("one {secret} more"), "line 1"),
            (format!("one {}", &secret[1..]), "line 1"),
            (format!("one {}g", &secret[1..]), "line 1"),
            (format!("one +{}", &secret[1..]), "line 1"),
            (format!("one {secret}\none {secret}"), "`one`"),
            (format!("ö {secret}"), "visible ASCII"),
            (format!("{} {secret}", "x".repeat(65)), "visible ASCII"),
        ];
        for (text, expected) in cases {
            let error = Keyring::parse(&text).unwrap_err().to_string();
            assert!(error.contains(expected), "{text:?}: {error}");
            assert!(!error.contains(&secret[2..]), "{error}");
        }
        let read = Keyring::parse(&format!(" one\t{secret} \r\n# old\ntwo {secret}")).unwrap();
        assert_eq!(read.key_ids().collect::<Vec<_>>(), ["one", "two"]);
    }
}
