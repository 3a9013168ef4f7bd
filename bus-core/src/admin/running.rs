//! Hosts, endpoints, instances and history as they are stored.

use crate::clock::Timestamp;
use crate::endpoint::Order;
use crate::id::{CorrelationId, HostId, InstanceId, MessageId};
use crate::unit_of_work::{HistoryEntry, InstanceStatus, Label};

/// A process that runs or ran.
#[derive(Clone, Debug, PartialEq)]
pub struct StoredHost {
    /// The process.
    pub id: HostId,
    /// The name that its user gave it.
    pub name: String,
    /// When it came.
    pub started_at: Timestamp,
    /// When it was last heard of.
    pub heartbeat_at: Timestamp,
    /// When it said that it has stopped. None: it runs, or it was killed.
    pub stopped_at: Option<Timestamp>,
    /// How far its clock was behind the database's at its last heartbeat, in microseconds; below zero
    /// where it was ahead. None: it has not said.
    pub behind: Option<i64>,
    /// Routes, machines and versions, as it described itself.
    pub definitions: serde_json::Value,
}

/// An endpoint that this database knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredEndpoint {
    /// Its name.
    pub name: String,
    /// The order that it promises.
    pub order: Order,
    /// What it takes: message type and kind, in the order of the types.
    pub subscriptions: Vec<(String, String)>,
}

/// Which instances are meant. What is `None` lets everything through.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct InstanceFilter {
    /// Only this kind; else every kind but those of the bus itself, which begin with `@`.
    pub kind: Option<String>,
    /// Only this key, whatever the kind.
    pub key: Option<String>,
    /// Only those that have this label.
    pub label: Option<Label>,
    /// Only this state of a machine.
    pub state: Option<String>,
    /// Only those that go on, or only those that are over.
    pub status: Option<InstanceStatus>,
    /// Only those that began before this time.
    pub created_before: Option<Timestamp>,
    /// Only those that did not move since this time.
    pub idle_since: Option<Timestamp>,
    /// Only those whose data is of an older version than this.
    pub schema_before: Option<i32>,
    /// Only those behind this one.
    pub after: Option<InstanceId>,
}

/// An instance without its data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InstanceOverview {
    /// Which one.
    pub id: InstanceId,
    /// Moves by one with every message that the instance handles.
    pub version: i64,
    /// Running, or a tombstone.
    pub status: InstanceStatus,
    /// The named state of a machine.
    pub state: Option<String>,
    /// When it began.
    pub created_at: Timestamp,
    /// When it last moved.
    pub updated_at: Timestamp,
}

/// Whose history is wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HistoryOf {
    /// What moved an instance.
    Instance(InstanceId),
    /// What was done with a message.
    Message(MessageId),
    /// What sent a message: the unit that noted it among what it sent. Reads through history.
    Sender(MessageId),
    /// What belongs to a conversation.
    Conversation(CorrelationId),
}

/// A history entry as it is stored.
#[derive(Clone, Debug, PartialEq)]
pub struct StoredHistory {
    /// Its id in this database.
    pub id: i64,
    /// When, by the database's clock.
    pub at: Timestamp,
    /// The name of the endpoint; none where it was removed.
    pub endpoint: Option<String>,
    /// What was done.
    pub entry: HistoryEntry,
}

/// Which messages of the inbox are meant. What is `None` lets everything through.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct InboxFilter {
    /// Only this message: looked up, whatever else there is.
    pub message: Option<MessageId>,
    /// Only what this endpoint took over.
    pub endpoint: Option<String>,
    /// Only what was taken over at this time or later.
    pub since: Option<Timestamp>,
    /// Only what was taken over before this time.
    pub until: Option<Timestamp>,
    /// Only those behind this message, at this endpoint; without an endpoint, behind all of its rows.
    pub after: Option<(MessageId, Option<String>)>,
}

/// That a message was taken over at an endpoint, and what was done with it there.
#[derive(Clone, Debug, PartialEq)]
pub struct TakenOver {
    /// The message.
    pub message: MessageId,
    /// The name of the endpoint; none where it was removed.
    pub endpoint: Option<String>,
    /// When, by the database's clock.
    pub at: Timestamp,
    /// The last that a unit did with it there; none while it waits, where it is a dead letter, and
    /// where no history is kept.
    pub handled: Option<StoredHistory>,
}
