//! Which database, how many rows, and which part of a list.

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::change::TEXT_BYTES_MAX;
use crate::clock::Timestamp;
use crate::error::StoreError;
use crate::id::StoreId;

/// The most entries that one answer has, and the most that one change touches: what is written
/// stays one short transaction, and its audit entry a few kilobytes.
pub const PAGE_MAX: u32 = 500;

/// Which database this is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct About {
    /// Its identity, for ever.
    pub store: StoreId,
    /// `postgres`, `sqlite` or `memory`.
    pub engine: &'static str,
    /// The last migration that is wholly in place.
    pub schema_version: i32,
    /// What its clock says now.
    pub now: Timestamp,
}

/// How many rows there are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Rows that wait for their time or their turn, or are in a host's hands; stubs of dead letters
    /// left out.
    pub outbox: u64,
    /// Rows that wait for an operator.
    pub parked: u64,
    /// Messages that are remembered.
    pub inbox: u64,
    /// Instances that go on; those of the bus itself, such as schedules, left out.
    pub running: u64,
    /// Tombstones.
    pub completed: u64,
    /// Dead letters that nobody has dealt with.
    pub dead_letters: u64,
    /// History entries.
    pub history: u64,
}

/// Which part of a list is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Page {
    /// What comes first.
    pub first: First,
    /// The id behind which the part begins; `None` begins at the first.
    pub after: Option<i64>,
    /// How many entries at most; never more than [`PAGE_MAX`].
    pub limit: u32,
    /// How much of each body is read.
    pub body_bytes_max: u32,
    /// In which form.
    pub bodies: Bodies,
}

/// The form in which bodies are wanted. A store knows one; tools may stand before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bodies {
    /// For people: opened where there is a key, and masked.
    Shown,
    /// For what is done with them.
    AsStored,
}

/// The order of a list: ids grow with time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum First {
    /// For people.
    Latest,
    /// For working a list off.
    Oldest,
}

impl Page {
    /// Asks for the latest entries with whole bodies.
    pub const fn latest(limit: u32) -> Self {
        Self {
            first: First::Latest,
            after: None,
            limit,
            body_bytes_max: i32::MAX.cast_unsigned(),
            bodies: Bodies::Shown,
        }
    }

    /// Asks for the oldest entries with whole bodies.
    pub const fn oldest(limit: u32) -> Self {
        Self {
            first: First::Oldest,
            ..Self::latest(limit)
        }
    }

    /// Goes on behind an id.
    #[must_use]
    pub const fn behind(self, id: Option<i64>) -> Self {
        Self { after: id, ..self }
    }

    /// Reads no bodies.
    #[must_use]
    pub const fn without_bodies(self) -> Self {
        Self {
            body_bytes_max: 0,
            ..self
        }
    }

    /// Reads bodies as they are stored.
    #[must_use]
    pub const fn as_stored(self) -> Self {
        Self {
            bodies: Bodies::AsStored,
            ..self
        }
    }

    /// Returns how many entries are read: [`PAGE_MAX`] at most.
    pub fn size(&self) -> u32 {
        self.limit.min(PAGE_MAX)
    }
}

/// Refuses more names than one answer has entries.
pub(super) fn check_named(ids: &[i64]) -> Result<(), StoreError> {
    if ids.len() <= PAGE_MAX as usize {
        return Ok(());
    }
    let fact = format!("{} ids are named, of {PAGE_MAX} at most", ids.len());
    Err(StoreError::Refused(fact.into()))
}

/// Refuses a text that no column takes, so that none has it in it.
pub(super) fn check_searched(text: Option<&str>) -> Result<(), StoreError> {
    let text = text.unwrap_or_default();
    let fact = if text.contains('\0') {
        "a text that is searched for takes no NUL character".to_owned()
    } else if text.len() > TEXT_BYTES_MAX {
        format!("a text that is searched for takes {TEXT_BYTES_MAX} bytes at most")
    } else {
        return Ok(());
    };
    Err(StoreError::Refused(fact.into()))
}

/// The parts of a filter that are set, for people.
pub(super) fn set_parts<const N: usize>(parts: [(&str, Value); N]) -> Value {
    let set = parts.into_iter().filter(|(_, value)| !value.is_null());
    Value::Object(set.map(|(name, value)| (name.to_owned(), value)).collect())
}

/// The body of a page of rows, cut to what was asked for.
pub(crate) fn cut(body: &Bytes, body_bytes_max: u32) -> Bytes {
    body.slice(..body.len().min(body_bytes_max as usize))
}
