//! What an operator asks a live host to do, because it takes the service's own code: a row for each
//! endpoint, which hosts look at as they look for pauses.

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::change::{Held, shown};
use crate::clock::Timestamp;
use crate::envelope::{Envelope, Timer};
use crate::headers::Headers;
use crate::id::{InstanceId, MessageId};

/// The kind of the instances that errands are stored as; the key is the endpoint.
pub const ERRAND_KIND: &str = "@errand";
/// The state of an errand that no host has taken yet.
pub const ASKED: &str = "asked";
/// The state of an errand that a host is about.
pub const TAKEN: &str = "taken";
/// The state of an errand whose answer is there.
pub const ANSWERED: &str = "answered";
/// The word by which audit entries name it that a host was asked to move an instance.
pub const TRANSITION: &str = "transition_instance";
/// The word by which audit entries name it that a host was asked to cancel an instance.
pub const CANCEL: &str = "cancel_instance";
/// How long an errand without an answer keeps its endpoint from being asked another one, in
/// microseconds: longer than anybody waits for one.
pub const ERRAND_STALE_MICROS: i64 = 60_000_000;

/// Names the row of an endpoint's errand.
pub fn errand_id(endpoint: &str) -> InstanceId {
    InstanceId {
        kind: ERRAND_KIND.into(),
        key: endpoint.into(),
    }
}

/// One thing that an operator asks a host of an endpoint to do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Errand {
    /// The endpoint.
    pub endpoint: String,
    /// By the database's clock: later nobody waits for it, and no host takes it.
    pub until: Timestamp,
    /// What is to be done.
    pub task: Task,
}

/// What is asked of a host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Task {
    /// Handle a message and undo it: what would it do now?
    Rehearse(Box<Parcel>),
    /// Move an instance of a machine to another state, with what its machine does on the way; or end
    /// one, of a saga without states, too.
    Transition(Box<Forced>),
    /// Write instances of older releases anew in the shape of this one.
    Migrate(Box<Batch>),
    /// Read what an operator would have an instance be. Nothing is written.
    Read(Box<Candidate>),
}

/// What an operator would have an instance be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Candidate {
    /// Which one.
    pub instance: InstanceId,
    /// The version of the shape of the data.
    pub schema_version: i32,
    /// The state of a machine.
    pub state: Option<String>,
    /// The data: JSON.
    pub data: String,
}

/// The most instances that one errand names: each is a commit, and all of them are to be done long
/// before nobody waits for the answer any more.
pub const BATCH_MAX: u32 = 500;

/// Instances that are written anew.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Batch {
    /// Their kind.
    pub kind: String,
    /// Their keys.
    pub keys: Vec<String>,
    /// Who asks, for the history.
    pub who: String,
}

/// What became of instances that were to be written anew.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Migrated {
    /// How many were.
    pub migrated: u64,
    /// How many were over, or of this version already: a message had moved them.
    pub current: u64,
    /// Those that could not be, by key, and why. They stay as they were.
    pub failed: Vec<(String, String)>,
}

/// A message as it is handed to a host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Parcel {
    id: MessageId,
    #[serde(rename = "type")]
    message_type: String,
    headers: Headers,
    body: ParcelBody,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    timer: Option<(InstanceId, String, u64)>,
}

/// Bytes, as text where they are text.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum ParcelBody {
    Text(String),
    Bytes(Vec<u8>),
}

impl Parcel {
    /// Packs a message, and the timer that it is.
    pub fn new(envelope: &Envelope, timer: Option<&Timer>) -> Self {
        Self {
            id: envelope.id,
            message_type: envelope.message_type.clone().into_owned(),
            headers: envelope.headers.clone(),
            body: match std::str::from_utf8(&envelope.body) {
                Ok(text) => ParcelBody::Text(text.to_owned()),
                Err(_) => ParcelBody::Bytes(envelope.body.to_vec()),
            },
            timer: timer.map(|one| (one.owner.clone(), one.name.clone(), one.generation)),
        }
    }

    /// Unpacks it.
    pub fn open(self) -> (Envelope, Option<Timer>) {
        let envelope = Envelope {
            id: self.id,
            message_type: self.message_type.into(),
            headers: self.headers,
            body: match self.body {
                ParcelBody::Text(text) => text.into(),
                ParcelBody::Bytes(bytes) => bytes.into(),
            },
        };
        let timer = self.timer.map(|(owner, name, generation)| Timer {
            owner,
            name,
            generation,
        });
        (envelope, timer)
    }
}

/// An instance that an operator moves by hand.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Forced {
    /// Which one.
    pub instance: InstanceId,
    /// The version that the operator saw; a host moves no other.
    pub version: i64,
    /// The state that it gets; `None`: it is cancelled.
    pub to: Option<String>,
    /// What the operator saw, for the audit.
    #[serde(skip)]
    pub before: Option<Held>,
    /// Who asks, for the history.
    pub who: String,
}

/// What an instance is after a host moved it by hand, for the audit: who asked saw it in the answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transitioned {
    /// Which one.
    pub instance: InstanceId,
    /// The version that the operator saw, as the host was asked.
    pub version: i64,
    /// The host that moved it, by name.
    pub host: String,
    /// What it is from then on.
    pub after: Standing,
}

impl Transitioned {
    /// Returns what the audit keeps beside what was asked for.
    pub fn outcome(&self) -> Value {
        json!({
            "host": self.host,
            "after": {
                "version": self.after.version,
                "state": self.after.state,
                "is_over": self.after.is_over,
                "data": self.after.data,
            },
        })
    }
}

impl Errand {
    /// Returns the word by which audit entries name it.
    pub const fn as_str(&self) -> &'static str {
        match &self.task {
            Task::Rehearse(_) => "rehearse_message",
            Task::Transition(forced) if forced.to.is_none() => CANCEL,
            Task::Transition(_) => TRANSITION,
            Task::Migrate(_) => "migrate_instances",
            Task::Read(_) => "read_instance",
        }
    }

    /// Returns the row's data.
    pub fn to_bytes(&self) -> Bytes {
        let bytes = serde_json::to_vec(self);
        bytes.expect("an errand is always JSON").into()
    }

    /// Returns what the audit keeps.
    pub fn detail(&self) -> Value {
        match &self.task {
            Task::Rehearse(parcel) => json!({
                "endpoint": self.endpoint,
                "message_id": parcel.id,
                "message_type": parcel.message_type,
            }),
            Task::Transition(forced) => json!({
                "endpoint": self.endpoint,
                "kind": forced.instance.kind,
                "key": forced.instance.key,
                "version": forced.version,
                "from": forced.before.as_ref().and_then(|held| held.state.as_deref()),
                "to": forced.to,
                "before": forced.before.as_ref().map(|held| shown(&held.data)),
            }),
            Task::Migrate(batch) => json!({
                "endpoint": self.endpoint,
                "kind": batch.kind,
                "keys": batch.keys,
            }),
            Task::Read(candidate) => json!({
                "endpoint": self.endpoint,
                "kind": candidate.instance.kind,
                "key": candidate.instance.key,
            }),
        }
    }
}

/// What a host answers to an errand.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ErrandAnswer {
    /// The host, by name.
    pub host: String,
    /// What came of it.
    pub report: Report,
}

/// What handling a message, or moving an instance by hand, came to.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// The handler, saga or machine; none where nobody takes the message.
    pub handler: Option<String>,
    /// How it ended.
    pub verdict: Verdict,
    /// The instance and how it moves; none where none is touched.
    pub instance: Option<Moved>,
    /// The first messages that are sent, [`SENT_MAX`] at most; timers among them.
    pub sent: Vec<Sent>,
    /// How many there are.
    pub sent_count: u64,
    /// The timers that are cancelled.
    pub cancelled: Vec<String>,
    /// All labels of the instance from then on, name and value; none where they stay.
    pub labels: Option<Vec<(String, String)>>,
    /// What was decided where nothing ran, for example `ignored`.
    pub note: Option<String>,
    /// What became of a batch of instances.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub migrated: Option<Migrated>,
}

/// Messages that a report describes: enough to see what goes on.
pub const SENT_MAX: usize = 50;
/// Characters that a report keeps of each body.
pub const SENT_BODY_CHARS_MAX: usize = 2_000;

/// How it ended.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "is")]
pub enum Verdict {
    /// As it is meant to: what the report says is what happens.
    #[default]
    Well,
    /// It failed, and nothing of it happens.
    Failed {
        /// What the error asks for: `retry`, `terminal`, `dead`, `conflict` and so on.
        class: String,
        /// What would become of a message that fails so for the first time.
        then: String,
        /// The error and its causes.
        error: String,
    },
    /// It was not run, because it may touch the outside.
    Skipped {
        /// What to do about it.
        why: String,
    },
    /// It cannot be run at all.
    Refused {
        /// As a dead letter has it, where it would be one.
        reason: Option<String>,
        /// Why.
        error: String,
    },
}

/// An instance before and after.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Moved {
    /// Its kind.
    pub kind: String,
    /// Its key.
    pub key: String,
    /// What it was; none where it begins.
    pub before: Option<Standing>,
    /// What it becomes; none where it stays.
    pub after: Option<Standing>,
}

/// What an instance is at a version.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Standing {
    /// Its version.
    pub version: i64,
    /// Whether it is over.
    pub is_over: bool,
    /// The named state of a machine.
    pub state: Option<String>,
    /// Its data: as JSON where it is JSON, else as text.
    pub data: Value,
    /// The timers that are armed.
    pub timers: Vec<String>,
}

/// A message that is sent.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Sent {
    /// Its type.
    #[serde(rename = "type")]
    pub message_type: String,
    /// To whom, in words.
    pub to: String,
    /// Its key.
    pub key: Option<String>,
    /// After how many seconds; none: at once.
    pub after_seconds: Option<f64>,
    /// The timer that it is.
    pub timer: Option<String>,
    /// Its body, as text where it is text.
    pub body: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_unpacked_as_it_was_packed() {
        let timer = Timer {
            owner: errand_id("x"),
            name: "patience".to_owned(),
            generation: 7,
        };
        for body in [&b"{\"n\":1}"[..], b"", b"\xff\x00\x01"] {
            let mut headers = Headers::default();
            headers.set("k", "v");
            let envelope = Envelope {
                id: MessageId::new(),
                message_type: "test.do".into(),
                headers,
                body: Bytes::copy_from_slice(body),
            };
            let errand = Errand {
                endpoint: "work".to_owned(),
                until: Timestamp::NEVER,
                task: Task::Rehearse(Box::new(Parcel::new(&envelope, Some(&timer)))),
            };
            let read: Errand = serde_json::from_slice(&errand.to_bytes()).unwrap();
            assert_eq!(read, errand);
            let Task::Rehearse(parcel) = read.task else {
                panic!("it was a rehearsal");
            };
            assert_eq!(parcel.open(), (envelope, Some(timer.clone())));
        }
    }
}
