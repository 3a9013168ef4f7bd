//! What handling a message wants to happen, as one value that commits whole or not at all.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::endpoint::{EndpointId, EndpointName, MessageType, Order};
use crate::envelope::{Due, Envelope, Outgoing};
use crate::id::{CorrelationId, InstanceId, MessageId};

pub use crate::attempt::Attempt;

/// Everything that one handler run produced. Nothing of it exists until the committer has written
/// it, in one transaction.
#[derive(Clone, Debug, Default)]
pub struct UnitOfWork {
    /// The deliveries that this unit answers; none for what an API sends by itself.
    pub sources: Vec<Source>,
    /// The instance that moves, if one does.
    pub instance: Option<InstanceChange>,
    /// What is sent.
    pub outgoing: Vec<Outgoing>,
    /// What happened, for people: one entry per message.
    pub history: Vec<HistoryEntry>,
    /// Or: the message that we stop trying.
    pub failed: Option<Box<DeadLetter>>,
}

impl UnitOfWork {
    /// Returns the order in which the store keeps a row of this unit, given what its destination
    /// promises.
    ///
    /// A message for later (a timer, a reminder) takes no place in line: it would hold back its
    /// key until it is due. One that comes back for another try keeps its key waiting, which is
    /// the promise.
    pub fn order_of(&self, outgoing: &Outgoing, promised: Order) -> Order {
        let is_itself = |source: &Source| matches!(source, Source::Broker { message_id, .. } if *message_id == outgoing.envelope.id);
        let comes_back = || !outgoing.attempts.is_empty() || self.sources.iter().any(is_itself);
        let is_in_line = outgoing.key.is_some() && (outgoing.due == Due::Now || comes_back());
        if is_in_line {
            promised
        } else {
            Order::Unordered
        }
    }

    /// Says whether it answers one delivery twice. Its effects would be there twice, so every store
    /// says Conflict to it.
    pub fn names_a_source_twice(&self) -> bool {
        let mut known = HashSet::new();
        self.sources.len() > 1 && !self.sources.iter().all(|source| known.insert(source))
    }

    /// Returns roughly how many bytes this unit writes, which bounds a group.
    pub fn size(&self) -> usize {
        /// Columns, ids and index entries of one row, rounded up.
        const ROW: usize = 128;
        let outgoing = self
            .outgoing
            .iter()
            .map(|one| ROW + one.envelope.body.len())
            .sum::<usize>();
        let instance = self
            .instance
            .as_ref()
            .map_or(0, |change| ROW + change.data.len());
        let failed = self
            .failed
            .as_ref()
            .map_or(0, |dead| ROW + dead.envelope.body.len());
        outgoing + instance + failed + ROW * (self.sources.len() + self.history.len())
    }
}

/// A delivery that a unit answers, and how the database recognises it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Source {
    /// A message from a broker: accepted by writing its inbox row.
    Broker {
        /// The endpoint that received it.
        endpoint: EndpointId,
        /// Its identity.
        message_id: MessageId,
    },
    /// A row of this database: accepted by deleting it under its epoch.
    Row(RowKey),
}

/// Names a claimed outbox row: no claim but the one that counted this epoch may settle it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RowKey {
    /// The row's id: a sequence of the database, never reused. "Older" means a smaller id.
    pub id: i64,
    /// How often the row has been claimed.
    pub epoch: i32,
}

/// Says what became of a unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// It is written.
    Committed,
    /// Its message was taken over before: nothing is written and nothing is left to do but ack.
    Duplicate,
    /// The instance moved meanwhile: nothing is written; load again and run again.
    Conflict,
}

/// A saga, machine or flow moving from one version to the next.
#[derive(Clone, Debug, PartialEq)]
pub struct InstanceChange {
    /// Which one.
    pub id: InstanceId,
    /// The version that was read; 0 when it did not exist.
    pub expected: i64,
    /// Whether it goes on or is over.
    pub status: InstanceStatus,
    /// The named state of a machine.
    pub state: Option<Cow<'static, str>>,
    /// The version of the shape of `data`.
    pub schema_version: i32,
    /// The encoded state.
    pub data: Bytes,
    /// The timers that are armed: name to generation.
    pub timers: BTreeMap<String, u64>,
    /// Timers whose rows are removed before this unit's own are written: the cancelled ones, and
    /// those that are armed anew.
    pub disarmed: Vec<String>,
    /// The request that started it, for answers.
    pub origin: Option<Origin>,
    /// All of its labels from now on; `None` leaves them as they are. Names are unique within the
    /// list. One that another running instance of its kind has is refused; one whose instance is
    /// over is taken over.
    pub labels: Option<Vec<Label>>,
}

impl InstanceChange {
    /// Says whether the instance ends with it.
    pub(crate) fn is_over(&self) -> bool {
        self.status == InstanceStatus::Completed
    }
}

/// A second name of an instance, such as the number of its payment: finds it as its key does.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Label {
    /// What it names, for example `payment-id`.
    pub name: Cow<'static, str>,
    /// The value, unique among the running instances of a kind.
    pub value: String,
}

/// A label, and what kind of instance has it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LabelId {
    /// The saga's or machine's name.
    pub kind: Arc<str>,
    /// The label.
    pub label: Label,
}

impl fmt::Display for LabelId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}={}", self.kind, self.label.name, self.label.value)
    }
}

/// Says whether an instance goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum InstanceStatus {
    /// It waits for messages.
    Running,
    /// It is over: its row stays as a tombstone, so that "too late" is known.
    Completed,
}

/// The request that started an instance.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Origin {
    /// Where the answer is wanted.
    pub reply_to: Option<String>,
    /// Its conversation.
    pub correlation_id: CorrelationId,
    /// Its identity.
    pub message_id: MessageId,
    /// The question that it asked, as its headers have it, so that a late answer finds its way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request: Option<(String, String)>,
}

/// What one unit did with one message, for people.
#[derive(Clone, Debug, PartialEq)]
pub struct HistoryEntry {
    /// Where the message was handled.
    pub endpoint: EndpointId,
    /// The message.
    pub message_id: MessageId,
    /// Its type.
    pub message_type: MessageType,
    /// Its conversation.
    pub correlation_id: CorrelationId,
    /// The instance that it moved, and to which version.
    pub instance: Option<(InstanceId, i64)>,
    /// The rest, stored as JSON.
    pub detail: HistoryDetail,
}

/// The part of a history entry that is only ever shown, never searched.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct HistoryDetail {
    /// The message that caused this one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub causation_id: Option<MessageId>,
    /// The machine's state before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state_from: Option<Cow<'static, str>>,
    /// The machine's state after.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state_to: Option<Cow<'static, str>>,
    /// The instance ended with it; not said by what was written before hosts noted it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_over: bool,
    /// What was sent: identity and type.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sent: Vec<(MessageId, MessageType)>,
    /// Which of those that were sent became rows of endpoints of this database: place in `sent`, and
    /// endpoint. Written when they are placed; timers are left out, which their instance accounts
    /// for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub placed: Vec<(u32, EndpointName)>,
    /// The timers that it armed, by name; their messages are among those sent.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub armed: Vec<String>,
    /// The timers that it cancelled.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub cancelled: Vec<String>,
    /// The host that did it, by name; none where it was written before hosts said so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// Which attempt succeeded, from 1.
    pub attempt: u32,
    /// How long the handler took, in microseconds.
    pub micros: u64,
    /// What was decided where nothing ran, for example `stale_timer` or `ignored`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<Cow<'static, str>>,
}

impl HistoryDetail {
    /// Says whether a message is among those that were sent.
    pub fn has_sent(&self, message: MessageId) -> bool {
        self.sent.iter().any(|(id, _)| *id == message)
    }
}

/// A message that stopped being tried, with everything needed to understand and redrive it.
#[derive(Clone, Debug, PartialEq)]
pub struct DeadLetter {
    /// The endpoint that gave up.
    pub endpoint: EndpointName,
    /// The message as it came: raw bytes, all headers.
    pub envelope: Envelope,
    /// Why.
    pub reason: Reason,
    /// Every failed try that we know of.
    pub attempts: Vec<Attempt>,
    /// Its key, where it has one.
    pub key: Option<String>,
    /// The instance that it was for.
    pub instance: Option<InstanceId>,
    /// What its key's later messages do.
    pub key_after: KeyAfterDeath,
}

impl DeadLetter {
    /// Returns the key whose later messages wait until somebody has dealt with this one.
    pub fn held_key(&self) -> Option<&str> {
        let is_held = self.key_after == KeyAfterDeath::Waits;
        self.key.as_deref().filter(|_| is_held)
    }
}

/// Says what the later messages of a key do when one of them became a dead letter.
///
/// Where order is declared, a stub holds the place of a dead letter whose key waits: redriven, the
/// message stands there again; discarded, it makes way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum KeyAfterDeath {
    /// They wait until it is redriven or discarded.
    #[default]
    Waits,
    /// They go on without it: redriven, it comes after them.
    GoesOn,
}

/// Why a message is a dead letter or a row is parked, as a word that programs can compare.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Reason {
    /// The handler failed as often as it may.
    AttemptsExhausted,
    /// It was tried as often as it may be without costing an attempt.
    ExcusesExhausted,
    /// The handler said that trying again is useless.
    Terminal,
    /// No handler of the endpoint takes this type.
    NoHandler,
    /// The bytes are not a body of this type.
    Undecodable,
    /// The body is sealed and cannot be opened here: an unknown key, or not sealed for this message.
    CannotOpen,
    /// The body is not sealed, and bodies of this type have to be.
    NotSealed,
    /// The body was not kept when the message became a dead letter.
    BodyDropped,
    /// The endpoint does not accept what the body is said to be.
    ContentNotAccepted,
    /// Body or headers are larger than allowed, or a header has control characters.
    OutOfBounds,
    /// The message's version is higher than the handler knows.
    NewerVersion,
    /// It was received after its time.
    Expired,
    /// It killed its host too often.
    KilledHost,
    /// The machine takes no such event in its state.
    EventNotAcceptedInState,
    /// It was kept for a later state, and none came that takes it.
    DeferredTooOften,
    /// The key that finds its instance is empty or longer than 2048 bytes.
    UnusableKey,
    /// No instance exists for it, and none came within the budget.
    NoInstance,
    /// Its instance is over.
    TooLate,
    /// The instance's stored state cannot be read.
    StateUndecodable,
    /// The database refused the unit's values.
    RefusedByStore,
    /// The unit was larger than one may be.
    UnitTooLarge,
    /// A command without an endpoint that takes it.
    NoOwner,
    /// A reply to a message that asked for none.
    NoReplyAddress,
    /// An answer to a question that no process of this service waits for.
    NobodyAsked,
    /// The broker has no place for it.
    Unroutable,
}

impl Reason {
    /// Returns the stored word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::AttemptsExhausted => "attempts_exhausted",
            Self::ExcusesExhausted => "excuses_exhausted",
            Self::Terminal => "terminal",
            Self::NoHandler => "no_handler",
            Self::Undecodable => "undecodable",
            Self::CannotOpen => "cannot_open",
            Self::NotSealed => "not_sealed",
            Self::BodyDropped => "body_dropped",
            Self::ContentNotAccepted => "content_not_accepted",
            Self::OutOfBounds => "out_of_bounds",
            Self::NewerVersion => "newer_version",
            Self::Expired => "expired",
            Self::KilledHost => "killed_host",
            Self::EventNotAcceptedInState => "event_not_accepted_in_state",
            Self::DeferredTooOften => "deferred_too_often",
            Self::UnusableKey => "unusable_key",
            Self::NoInstance => "no_instance",
            Self::TooLate => "too_late",
            Self::StateUndecodable => "state_undecodable",
            Self::RefusedByStore => "refused_by_store",
            Self::UnitTooLarge => "unit_too_large",
            Self::NoOwner => "no_owner",
            Self::NoReplyAddress => "no_reply_address",
            Self::NobodyAsked => "nobody_asked",
            Self::Unroutable => "unroutable",
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What becomes of a claimed row that no unit answers. Always conditional on its epoch: a settle
/// that comes too late changes nothing.
#[derive(Clone, Debug, PartialEq)]
pub enum Settle {
    /// It was sent: remove it.
    Delete(RowKey),
    /// It was sent, and what is sent is kept: remove it, and keep what it was.
    Keep {
        /// Which row.
        row: RowKey,
        /// How long, from now.
        kept_for: Duration,
    },
    /// It is to be tried again.
    Release {
        /// Which row.
        row: RowKey,
        /// When, from now.
        after: Duration,
        /// The tries so far, the latest last; `None` leaves them as they are. Failures become the
        /// number of those that cost an attempt, and starts at least as many, so that a start
        /// without a recorded end is always one more than the failures; starts alone are
        /// forgotten, since the last one ended with a word.
        attempts: Option<Vec<Attempt>>,
        /// Whether its start is taken back because the handler never ran.
        start: Start,
    },
    /// An operator has to decide.
    Park {
        /// Which row.
        row: RowKey,
        /// Why.
        reason: Reason,
        /// The failed tries so far, the latest last.
        attempts: Vec<Attempt>,
    },
    /// It is about to run alone, because earlier starts ended without a word.
    StartSolo(RowKey),
}

/// Says whether a released row keeps the start that its claim counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// The handler ran.
    Counted,
    /// It never ran: the start is given back.
    GivenBack,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a host wrote before it noted where an instance ended.
    #[test]
    fn history_that_says_nothing_of_an_end_is_read_and_written_as_it_was() {
        let old = r#"{"state_from":"placed","state_to":"paid","attempt":1,"micros":7}"#;
        let detail: HistoryDetail = serde_json::from_str(old).expect("it is history");
        assert!(!detail.is_over);
        let again = serde_json::to_string(&detail).expect("it can be encoded");
        assert_eq!(again, old);
    }
}
