//! What a host declares of the bodies of its messages: which are sealed, and what is masked where
//! people look.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::fmt;

use bytes::Bytes;
use serde_json::json;

use crate::codec;
use crate::dispatch::Undispatchable;
use crate::envelope::{Envelope, Outgoing};
use crate::error::{BuildError, CodecError, OpenError, chain};
use crate::fault_event::told_of;
use crate::headers;
use crate::host::HostBuilder;
use crate::keyring::Keyring;
use crate::message::{Message, aliases_of};
use crate::redaction::{DeadBodies, Redaction};
use crate::unit_of_work::{DeadLetter, Reason};

/// Says whether the bodies of a message type are sealed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Protection {
    /// Sent as it is. What comes sealed is opened.
    #[default]
    Plain,
    /// Sent sealed. What comes plain is taken: for the time in which senders learn to seal.
    Sealed,
    /// Sent sealed. What comes plain is a dead letter (`not_sealed`): nobody without a key makes up
    /// a message.
    Required,
}

impl Protection {
    /// Returns the word for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::Sealed => "sealed",
            Self::Required => "required",
        }
    }
}

impl HostBuilder {
    /// Gives the host keys, and says what it does with bodies where nothing is said for a type.
    ///
    /// A sealed body is encrypted and bound to its message ([`keyring::BOUND`](crate::keyring::BOUND))
    /// before it reaches the outbox or a broker, and opened just before it is decoded; so the outbox,
    /// brokers and dead letters hold what only a key opens.
    ///
    /// # Examples
    /// ```
    /// # use sagabus_core::{Event, Host, Keyring, Protection};
    /// # fn declare<Visited: Event>(keys: Keyring) {
    /// let host = Host::builder("payments")
    ///     .protects(keys, Protection::Required)
    ///     .protection::<Visited>(Protection::Plain);
    /// # let _ = host;
    /// # }
    /// ```
    pub fn protects(mut self, keys: Keyring, default: Protection) -> Self {
        self.protection.keys = Some(keys);
        self.protection.default = default;
        self
    }

    /// Says what is done with the bodies of one message type.
    pub fn protection<M: Message>(mut self, protection: Protection) -> Self {
        for name in names_of::<M>() {
            self.protection.by_type.insert(name, protection);
        }
        self
    }

    /// Masks the bodies of a message type, or some of their fields, wherever the bus shows them to
    /// people. Handlers get what was sent.
    pub fn redacts<M: Message>(mut self, redaction: Redaction) -> Self {
        for name in names_of::<M>() {
            self.protection.redactions.insert(name, redaction.clone());
        }
        self
    }
}

fn names_of<M: Message>() -> impl Iterator<Item = &'static str> {
    std::iter::once(M::TYPE).chain(aliases_of::<M>().iter().copied())
}

/// What was declared, before it is checked; then what the host does with bodies.
#[derive(Clone, Default)]
pub(crate) struct Protector {
    host: String,
    keys: Option<Keyring>,
    default: Protection,
    by_type: BTreeMap<&'static str, Protection>,
    redactions: HashMap<&'static str, Redaction>,
}

impl fmt::Debug for Protector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Protector")
            .field("keys", &self.keys)
            .field("default", &self.default)
            .finish_non_exhaustive()
    }
}

impl Protector {
    /// Checks what was declared; `None` where nothing was.
    ///
    /// # Errors
    /// [`BuildError::Unsealable`] and [`BuildError::Redaction`].
    pub(crate) fn build(mut self, host: &str) -> Result<Option<Self>, BuildError> {
        let seals = |one: &(&&str, &Protection)| *one.1 != Protection::Plain;
        if let (None, Some((name, _))) = (&self.keys, self.by_type.iter().find(seals)) {
            return Err(BuildError::Unsealable {
                message_type: (*name).to_owned(),
            });
        }
        for (name, redaction) in &self.redactions {
            redaction.check().map_err(|fact| BuildError::Redaction {
                message_type: (*name).to_owned(),
                fact,
            })?;
        }
        host.clone_into(&mut self.host);
        let is_declared = self.keys.is_some() || !self.redactions.is_empty();
        Ok(is_declared.then_some(self))
    }

    /// Describes what tools have to know: the ids of keys, and what is masked.
    pub(crate) fn describe(&self, into: &mut serde_json::Value) {
        if let Some(keys) = &self.keys {
            let types = self.by_type.iter();
            let types = types.map(|(name, one)| ((*name).to_owned(), one.as_str().into()));
            into["protection"] = json!({
                "default": self.default.as_str(),
                "types": types.collect::<serde_json::Map<_, _>>(),
                "keys": keys.key_ids().collect::<Vec<_>>(),
            });
        }
        let redactions: BTreeMap<_, _> = self.redactions.iter().collect();
        if !redactions.is_empty() {
            into["redactions"] = json!(redactions);
        }
    }

    /// Seals what is to be sent, where its type is sealed.
    pub(crate) fn seal(&self, outgoing: &mut Outgoing) -> Result<(), CodecError> {
        match self.of(&outgoing.envelope.message_type) {
            Protection::Plain => Ok(()),
            Protection::Sealed | Protection::Required => self.seal_always(outgoing),
        }
    }

    fn seal_always(&self, outgoing: &mut Outgoing) -> Result<(), CodecError> {
        let Some(keys) = &self.keys else {
            return Ok(());
        };
        let envelope = &mut outgoing.envelope;
        if envelope.headers.get(headers::SOURCE).is_none() {
            envelope.headers.set(headers::SOURCE, self.host.clone());
        }
        keys.seal(envelope)?;
        envelope.check()
    }

    fn of(&self, message_type: &str) -> Protection {
        let by_other = || self.by_type.get(told_of(message_type)?);
        let found = self.by_type.get(message_type).or_else(by_other);
        found.copied().unwrap_or(self.default)
    }

    /// Returns what is masked of a type.
    pub(crate) fn redaction(&self, message_type: &str) -> Option<&Redaction> {
        let by_other = || self.redactions.get(told_of(message_type)?);
        self.redactions.get(message_type).or_else(by_other)
    }

    /// Makes a dead letter as it is stored, and as it may be told of: with its body opened where it
    /// is sealed. What is told of a sealed message has to be [sealed](Self::seal_told), too.
    pub(crate) fn told_of(&self, dead: &mut DeadLetter) -> Option<DeadLetter> {
        let envelope = &mut dead.envelope;
        let is_sealed = envelope.headers.get(headers::SEALED).is_some();
        let redaction = self.redaction(&envelope.message_type);
        let is_dropped = redaction.is_some_and(|one| one.dead_letters == DeadBodies::Dropped);
        if is_dropped && !is_sealed && !envelope.body.is_empty() {
            let bytes = std::mem::take(&mut envelope.body).len();
            envelope.headers.set(headers::DROPPED, bytes.to_string());
        }
        let opened = self.keys.as_ref().filter(|_| is_sealed)?.open(envelope);
        let envelope = opened.ok()?;
        Some(DeadLetter {
            envelope,
            ..dead.clone()
        })
    }

    /// Seals what tells of a dead letter: always where that one was sealed and opened.
    pub(crate) fn seal_told(
        &self,
        outgoing: &mut Outgoing,
        was_opened: bool,
    ) -> Result<(), CodecError> {
        // The copy of a message that cannot be opened stays as it is: sealed, for itself.
        let is_copy = outgoing.envelope.headers.get(headers::SEALED).is_some();
        match (was_opened, is_copy) {
            (true, _) => self.seal_always(outgoing),
            (false, true) => Ok(()),
            (false, false) => self.seal(outgoing),
        }
    }
}

/// Opens what is sent on under seal, before its headers change: it is sealed anew.
pub(crate) fn reopen(protector: Option<&Protector>, outgoing: &mut Outgoing) {
    let keys = protector.and_then(|one| one.keys.as_ref());
    let is_sealed = |one: &Envelope| one.headers.get(headers::SEALED).is_some();
    if let Some(keys) = keys.filter(|_| is_sealed(&outgoing.envelope)) {
        // A header alone seals nothing: then the body is sealed as it is.
        if let Ok(opened) = keys.open(&outgoing.envelope) {
            outgoing.envelope = opened;
        }
    }
}

/// Seals what is to be sent, where the host protects it.
pub(crate) fn seal(
    protector: Option<&Protector>,
    outgoing: &mut Outgoing,
) -> Result<(), CodecError> {
    protector.map_or(Ok(()), |protector| protector.seal(outgoing))
}

/// Returns a message as it can be decoded: opened where it is sealed.
///
/// # Errors
/// Why it must not be handled: it is sealed and cannot be opened, or is not sealed and had to be, or
/// its body was not kept.
pub(crate) fn open<'e>(
    protector: Option<&Protector>,
    envelope: &'e Envelope,
) -> Result<Cow<'e, Envelope>, Undispatchable> {
    let refuse = |reason, error| Err(Undispatchable { reason, error });
    if envelope.headers.get(headers::DROPPED).is_some() {
        let error = "the body was not kept when the message became a dead letter [SB0503]";
        return refuse(Reason::BodyDropped, error.to_owned());
    }
    let keys = protector.and_then(|one| one.keys.as_ref());
    match (envelope.headers.get(headers::SEALED), keys) {
        (Some(_), Some(keys)) => match keys.open(envelope) {
            Ok(opened) => Ok(Cow::Owned(opened)),
            Err(error) => refuse(Reason::CannotOpen, chain(&error)),
        },
        (Some(key), None) => {
            let key = key.to_owned();
            refuse(Reason::CannotOpen, OpenError::NoKeyring { key }.to_string())
        }
        (None, _) => match protector.map(|one| one.of(&envelope.message_type)) {
            Some(Protection::Required) => {
                let error = format!(
                    "`{}` comes sealed or not at all, and this one is not sealed [SB0502]",
                    envelope.message_type
                );
                refuse(Reason::NotSealed, error)
            }
            _ => Ok(Cow::Borrowed(envelope)),
        },
    }
}

/// Returns what may be shown of the body of a message that this host sends.
pub(crate) fn shown(protector: Option<&Protector>, envelope: &Envelope) -> Bytes {
    if let Some(key) = envelope.headers.get(headers::SEALED) {
        return format!("sealed with key `{key}`").into();
    }
    let redaction = protector.and_then(|one| one.redaction(&envelope.message_type));
    redaction.map_or_else(|| envelope.body.clone(), |one| one.mask(&envelope.body))
}

/// Returns what may be told of why a body was not decoded: its own values are in such texts, so of
/// one that was sealed, or is masked, only the place is told.
pub(crate) fn why_undecodable(
    protector: Option<&Protector>,
    came: &Envelope,
    error: &CodecError,
) -> String {
    let is_masked = protector.is_some_and(|one| one.redaction(&came.message_type).is_some());
    let is_sealed = came.headers.get(headers::SEALED).is_some();
    match is_masked || is_sealed {
        true => codec::place_of(error),
        false => chain(error),
    }
}
