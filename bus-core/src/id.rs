//! Identities: small types over UUIDs, so that one cannot stand where another is meant.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::chance;

/// Makes one newtype over [`Uuid`].
macro_rules! uuid_newtype {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(Uuid);

        impl $name {
            /// Makes a new identity (UUID version 7: new ones sort last).
            #[expect(clippy::new_without_default, reason = "a fresh identity is no default")]
            pub fn new() -> Self {
                Self(chance::uuid())
            }

            /// Wraps an existing UUID of any version.
            pub const fn from_uuid(uuid: Uuid) -> Self {
                Self(uuid)
            }

            /// Returns the UUID.
            pub const fn as_uuid(&self) -> Uuid {
                self.0
            }

            /// Makes an identity from text that another system chose: a UUID is taken as it is,
            /// anything else becomes a UUID of version 8 over its hash, always the same one.
            pub fn from_foreign(text: &str) -> Self {
                Self(Uuid::parse_str(text).unwrap_or_else(|_| hashed(text.as_bytes())))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }

        /// The text of [`Display`](fmt::Display), for what needs it by the thousand.
        impl From<$name> for String {
            fn from(id: $name) -> Self {
                let mut text = [0; uuid::fmt::Hyphenated::LENGTH];
                id.0.as_hyphenated().encode_lower(&mut text).to_owned()
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }

        impl FromStr for $name {
            type Err = uuid::Error;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                Uuid::parse_str(text).map(Self)
            }
        }
    };
}

uuid_newtype! {
    /// Identifies one message for ever: assigned when it is made, kept by every retry, resend and
    /// redrive. What the inbox remembers.
    MessageId
}
uuid_newtype! {
    /// Identifies a whole conversation: copied unchanged from a message to those it causes.
    CorrelationId
}
uuid_newtype! {
    /// Names one process that runs a host, for the time it lives.
    HostId
}
uuid_newtype! {
    /// Names one database, for as long as it exists.
    StoreId
}

impl MessageId {
    /// Makes the identity of something that may be sent again from the same facts, such as a timer
    /// (UUID version 5): equal facts give the equal identity.
    ///
    /// So an API maps the idempotency key of a call to the identity of its message, and a call that is
    /// made again sends once. The caller is one of the facts: keys are the callers' own.
    ///
    /// ```
    /// # use sagabus_core::{Bus, BusError, Command};
    /// use sagabus_core::MessageId;
    ///
    /// # async fn place<C: Command>(bus: Bus, order: C, tenant: &str, key: &str) -> Result<(), BusError> {
    /// let id = MessageId::derived(&["place-order", tenant, key]);
    /// bus.send(order).with_id(id).await?;
    /// # Ok(()) }
    /// ```
    pub fn derived(parts: &[&str]) -> Self {
        let mut name = String::new();
        for part in parts {
            name.push_str(part);
            // A separator that no part may contain keeps ("a", "bc") apart from ("ab", "c").
            name.push('\u{1f}');
        }
        Self(Uuid::new_v5(&Uuid::NAMESPACE_OID, name.as_bytes()))
    }
}

impl From<MessageId> for CorrelationId {
    /// A message that starts a conversation lends it its own identity.
    fn from(id: MessageId) -> Self {
        Self(id.as_uuid())
    }
}

/// Names an instance: what kind of saga, machine or flow, and which one. Cheap to clone: a message
/// that moves an instance carries its name along at every step.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct InstanceId {
    /// The saga's or machine's name, for example `order`.
    pub kind: Arc<str>,
    /// The business key as text, for example an order number.
    pub key: Arc<str>,
}

impl fmt::Display for InstanceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.kind, self.key)
    }
}

/// Hashes foreign text to a UUID of version 8 (by way of version 5's SHA-1).
fn hashed(bytes: &[u8]) -> Uuid {
    Uuid::new_v8(*Uuid::new_v5(&Uuid::NAMESPACE_URL, bytes).as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_foreign_uuid_stays_itself_and_other_text_always_maps_to_one_identity() {
        let uuid = "018f4e5a-0000-7000-8000-000000000001";
        assert_eq!(MessageId::from_foreign(uuid).to_string(), uuid);
        let first = MessageId::from_foreign("order/4711");
        assert_eq!(first, MessageId::from_foreign("order/4711"));
        assert_ne!(first, MessageId::from_foreign("order/4712"));
        assert_eq!(first.as_uuid().get_version_num(), 8);
    }

    #[test]
    fn new_identities_are_of_version_seven_and_sort_last() {
        let ids: Vec<_> = (0..1000).map(|_| MessageId::new()).collect();
        assert!(ids.iter().all(|id| id.as_uuid().get_version_num() == 7));
        assert!(
            ids.is_sorted(),
            "within a process, the later is the greater"
        );
        assert_eq!(HostId::new().as_uuid().get_version_num(), 7);
    }

    #[test]
    fn derived_identities_keep_their_parts_apart() {
        assert_ne!(
            MessageId::derived(&["a", "bc"]),
            MessageId::derived(&["ab", "c"])
        );
        assert_eq!(
            MessageId::derived(&["a", "b"]),
            MessageId::derived(&["a", "b"])
        );
    }
}
