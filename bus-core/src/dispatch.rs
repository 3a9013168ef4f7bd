//! Message name to its one subscriber on an endpoint, and bytes to a typed message.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use crate::codec;
use crate::envelope::Envelope;
use crate::error::{BuildError, chain};
use crate::handler::{Decoded, Subscriber};
use crate::protection::{self, Protector};
use crate::store::Subscription;
use crate::unit_of_work::Reason;

/// The longest key of an instance: databases refuse longer entries of an index.
pub const KEY_BYTES_MAX: usize = 2048;

/// The subscribers of one endpoint.
#[derive(Default)]
pub struct Dispatch {
    by_type: HashMap<String, Arc<dyn Subscriber>>,
    /// What bodies may be said to be; `None`: anything that a codec reads.
    content_types: Option<Vec<String>>,
    /// What opens bodies, and says which must have been sealed.
    protector: Option<Arc<Protector>>,
}

/// Why a message cannot be dispatched: it becomes a dead letter with this reason.
#[derive(Debug)]
pub struct Undispatchable {
    /// For programs.
    pub reason: Reason,
    /// For people.
    pub error: String,
}

impl Dispatch {
    /// Adds a subscriber.
    ///
    /// # Errors
    /// [`BuildError::TwoSubscribers`] when its type has one, [`BuildError::MessageType`] when its
    /// type's name is unusable.
    pub fn add(
        &mut self,
        endpoint: &str,
        subscriber: Arc<dyn Subscriber>,
    ) -> Result<(), BuildError> {
        for subscription in taken_by(&*subscriber) {
            let message_type = subscription.message_type.into_owned();
            let is_usable = (1..=200).contains(&message_type.len())
                && message_type.bytes().all(|byte| byte.is_ascii_graphic());
            if !is_usable {
                return Err(BuildError::MessageType { message_type });
            }
            if let Some(first) = self.by_type.get(&message_type) {
                return Err(BuildError::TwoSubscribers {
                    endpoint: endpoint.to_owned(),
                    message_type,
                    first: first.name().to_owned(),
                    second: subscriber.name().to_owned(),
                });
            }
            self.by_type.insert(message_type, Arc::clone(&subscriber));
        }
        Ok(())
    }

    /// Returns every subscriber, in the order of their message types.
    pub fn subscribers(&self) -> Vec<&Arc<dyn Subscriber>> {
        let by_type = self.by_type.iter();
        let mut all: Vec<_> = by_type
            .filter(|(name, one)| one.subscription().message_type == name.as_str())
            .collect();
        all.sort_by_key(|(message_type, _)| message_type.as_str());
        all.into_iter().map(|(_, subscriber)| subscriber).collect()
    }

    /// Takes only bodies that are said to be one of these.
    pub fn accept(&mut self, content_types: Vec<String>) {
        self.content_types = Some(content_types);
    }

    /// Opens what is sealed, and refuses what should be.
    pub(crate) fn protect(&mut self, protector: Option<Arc<Protector>>) {
        self.protector = protector;
    }

    fn refused_content(&self, envelope: &Envelope) -> Option<String> {
        let accepted = self.content_types.as_ref()?;
        let said = codec::media_type(envelope);
        let is_accepted = |said: &String| accepted.iter().any(|one| one == said);
        if said.as_ref().is_some_and(is_accepted) {
            return None;
        }
        let said = said.as_deref().unwrap_or("none");
        let accepted = accepted.join("`, `");
        Some(format!(
            "content type `{said}` is not accepted here; send `{accepted}`"
        ))
    }

    /// Finds the subscriber of a message and decodes it.
    ///
    /// # Errors
    /// Why that is impossible, now and at any later try.
    pub fn decode(
        &self,
        envelope: &Envelope,
    ) -> Result<(&Arc<dyn Subscriber>, Decoded), Undispatchable> {
        let refuse = |reason, error| Err(Undispatchable { reason, error });
        if let Err(error) = envelope.check() {
            return refuse(Reason::OutOfBounds, chain(&error));
        }
        if let Some(error) = self.refused_content(envelope) {
            return refuse(Reason::ContentNotAccepted, error);
        }
        let protector = self.protector.as_deref();
        let came = envelope;
        let message_type = envelope.message_type.as_ref();
        let Some(subscriber) = self.by_type.get(message_type) else {
            let error = format!("no handler takes `{message_type}` here");
            return refuse(Reason::NoHandler, error);
        };
        let opened = protection::open(protector, came)?;
        let envelope = opened.as_ref();
        let known = subscriber.version();
        let version = match envelope.version() {
            Ok(version) => version,
            Err(error) => return refuse(Reason::Undecodable, chain(&error)),
        };
        if version > known {
            let error = format!("message has version {version}, the handler knows {known}");
            return refuse(Reason::NewerVersion, error);
        }
        // A codec that panics on hostile bytes is a defect, but must not take the host with it.
        let decoded =
            std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| subscriber.decode(envelope)));
        match decoded {
            Ok(Ok(decoded)) => match key_fault(&decoded) {
                Some(fault) => refuse(Reason::UnusableKey, fault),
                None => Ok((subscriber, decoded)),
            },
            Ok(Err(error)) => {
                let why = protection::why_undecodable(protector, came, &error);
                refuse(Reason::Undecodable, why)
            }
            Err(_) => refuse(Reason::Undecodable, "decoding panicked".to_owned()),
        }
    }
}

/// Lists what a subscriber takes: its type under its name, and under each other name that it has.
pub(crate) fn taken_by(subscriber: &dyn Subscriber) -> Vec<Subscription> {
    let own = subscriber.subscription();
    let aliases = subscriber.aliases().iter().map(|alias| Subscription {
        message_type: (*alias).into(),
        kind: own.kind,
    });
    let aliases: Vec<_> = aliases.collect();
    std::iter::once(own).chain(aliases).collect()
}

/// Says what is wrong with the key or label that finds the instance of a message.
fn key_fault(decoded: &Decoded) -> Option<String> {
    let key = decoded.instance.as_ref().map(|id| &*id.key);
    let key = key.or_else(|| {
        decoded
            .label
            .as_ref()
            .map(|label| label.label.value.as_str())
    })?;
    match key.len() {
        0 => Some("key of the instance is empty".to_owned()),
        bytes if bytes > KEY_BYTES_MAX => Some(format!(
            "key of the instance has {bytes} bytes, at most {KEY_BYTES_MAX} may be"
        )),
        _ => None,
    }
}

impl fmt::Debug for Dispatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.by_type.keys()).finish()
    }
}
