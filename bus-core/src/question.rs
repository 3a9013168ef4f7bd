//! What is asked of a store about messages that wait, and what it answers.

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::endpoint::{EndpointId, EndpointName};
use crate::id::{InstanceId, MessageId};
use crate::unit_of_work::{InstanceStatus, LabelId, Origin};

/// What the loader asks about one waiting message.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Question {
    /// Was this message taken over here before? Asked for broker deliveries only.
    pub taken_over: Option<(EndpointId, MessageId)>,
    /// What is this instance?
    pub instance: Option<InstanceId>,
    /// Or: what is the instance that has this label?
    pub label: Option<LabelId>,
    /// Is there an `@endpoint` row of this endpoint and key that must go first?
    pub blocked: Option<(EndpointName, String)>,
    /// What became of this message at this endpoint? Costs a query of its own.
    pub fate: Option<(EndpointId, MessageId)>,
}

/// What the store knows about one waiting message.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Answer {
    /// The message was taken over before.
    pub is_taken_over: bool,
    /// The instance, tombstones included.
    pub instance: Option<Instance>,
    /// An older row of its key goes first.
    pub is_blocked: bool,
    /// What became of the message, where that was asked.
    pub fate: Option<Fate>,
}

/// An instance as it is stored.
#[derive(Clone, Debug, PartialEq)]
pub struct Instance {
    /// Which one.
    pub id: InstanceId,
    /// Moves by one with every message that the instance handles.
    pub version: i64,
    /// Running, or a tombstone.
    pub status: InstanceStatus,
    /// The named state of a machine.
    pub state: Option<String>,
    /// The version of the shape of `data`.
    pub schema_version: i32,
    /// The encoded state.
    pub data: Bytes,
    /// The timers that are armed: name to generation.
    pub timers: BTreeMap<String, u64>,
    /// The request that started it.
    pub origin: Option<Origin>,
}

/// What became of a message at an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Fate {
    /// Its handler has succeeded, and what it did is committed.
    Applied,
    /// It has not arrived yet, or is handled, or waits for another try.
    Pending,
    /// It is a dead letter: an operator decides.
    DeadLettered,
}

impl Fate {
    /// Tells the fate from what is stored: whether the message was taken over, whether a row of it
    /// still waits at the endpoint, whether it is an open dead letter there.
    pub fn of(is_taken_over: bool, has_row: bool, is_dead: bool) -> Self {
        match (is_dead, is_taken_over, has_row) {
            (true, ..) => Self::DeadLettered,
            (false, true, false) => Self::Applied,
            _ => Self::Pending,
        }
    }
}
