//! Who receives, and where a message goes.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::error::BuildError;
use crate::transports::TransportName;

/// The small integer by which a store knows an endpoint. Stable for the life of the database.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EndpointId(pub i32);

/// The name of an endpoint: chosen by the user, never derived from code, because deduplication
/// depends on it.
///
/// 1 to 100 characters out of `a-z`, `0-9`, `.`, `_` and `-`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct EndpointName(Arc<str>);

impl EndpointName {
    /// Checks and wraps a name.
    ///
    /// # Errors
    /// [`BuildError::EndpointName`] when the name is empty, too long or has other characters.
    pub fn new(name: &str) -> Result<Self, BuildError> {
        let fits =
            |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"._-".contains(&byte);
        if name.is_empty() || name.len() > 100 || !name.bytes().all(fits) {
            return Err(BuildError::EndpointName {
                name: name.to_owned(),
            });
        }
        Ok(Self(name.into()))
    }

    /// Returns the name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for EndpointName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The stable name of a message type, as [`Message::TYPE`](crate::Message::TYPE) gives it.
pub type MessageType = Cow<'static, str>;

/// Where a message goes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Destination {
    /// The one endpoint that subscribed to this command. Looked up when the unit commits.
    Owner,
    /// Every endpoint that subscribed to this event. Looked up when the unit commits.
    Subscribers,
    /// As [`Subscribers`](Self::Subscribers), but only where an endpoint of this database is one: for
    /// what most programs never ask for.
    Watchers,
    /// An endpoint of this database: stored as `@orders`.
    Endpoint(EndpointName),
    /// An address that a transport understands, as it is stored: with the transport's name where it
    /// is not the default one.
    Address(String),
}

impl Destination {
    /// Reads what a header or a row says: `@orders` is an endpoint, all else an address.
    ///
    /// # Errors
    /// [`BuildError::EndpointName`] when the text after `@` is no endpoint's name,
    /// [`BuildError::TransportName`] when it begins like a transport's name and has none.
    pub fn parse(text: &str) -> Result<Self, BuildError> {
        if let Some(name) = text.strip_prefix('@') {
            return EndpointName::new(name).map(Self::Endpoint);
        }
        if let Some(rest) = text.strip_prefix(':') {
            TransportName::new(rest.split_once(':').map_or("", |(name, _)| name))?;
        }
        Ok(Self::Address(text.to_owned()))
    }
}

/// What order a destination promises between messages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Order {
    /// None: the fastest, and right for independent messages.
    #[default]
    Unordered,
    /// Messages of one key are handled in the order in which their rows were written; a failing
    /// message holds back its own key and no other.
    PerKey,
}
