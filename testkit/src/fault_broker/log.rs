//! What the broker remembers of every publication that reached it, taken or not.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash, Hasher};

use sagabus_core::id::MessageId;
use sagabus_core::transport::Publication;
use serde::{Deserialize, Serialize};

use super::faults::Effect;

/// One publication that reached the broker.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Published {
    /// The message's identity.
    pub id: MessageId,
    /// Where it was to go.
    pub address: String,
    /// A hash over type, headers and body.
    pub hash: u64,
    /// Whether the broker took it.
    pub is_taken: bool,
    /// What went wrong, on purpose.
    pub effect: Option<Effect>,
}

impl Published {
    pub(super) fn new(publication: &Publication, is_taken: bool, effect: Option<Effect>) -> Self {
        let envelope = &publication.envelope;
        let mut hasher = DefaultHasher::new();
        envelope.message_type.hash(&mut hasher);
        envelope.headers.to_json().hash(&mut hasher);
        envelope.body.hash(&mut hasher);
        Self {
            id: envelope.id,
            address: publication.address.clone(),
            hash: hasher.finish(),
            is_taken,
            effect,
        }
    }
}

/// Every publication that reached the broker, in the order of arrival.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PublishLog {
    /// The publications.
    pub published: Vec<Published>,
}

impl PublishLog {
    /// Lists the identities that the broker took at least once.
    pub fn taken_ids(&self) -> BTreeSet<MessageId> {
        let taken = self.published.iter().filter(|one| one.is_taken);
        taken.map(|one| one.id).collect()
    }

    /// Counts how often each identity reached the broker.
    pub fn counts(&self) -> BTreeMap<MessageId, usize> {
        let mut counts = BTreeMap::new();
        for one in &self.published {
            *counts.entry(one.id).or_default() += 1;
        }
        counts
    }

    /// Lists the identities that came with differing headers or bytes. There must be none.
    pub fn changed_ids(&self) -> BTreeSet<MessageId> {
        let mut hashes = BTreeMap::new();
        let mut changed = BTreeSet::new();
        for one in &self.published {
            if *hashes.entry(one.id).or_insert(one.hash) != one.hash {
                changed.insert(one.id);
            }
        }
        changed
    }
}
