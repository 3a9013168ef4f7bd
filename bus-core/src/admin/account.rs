//! What became of every message that came to an endpoint, and which nobody can say it of.

use crate::clock::Timestamp;
use crate::id::MessageId;

/// Messages that are named when nothing says what became of them. More would only repeat what these
/// say; all of them are counted.
pub const MISSING_MAX: u32 = 100;

/// The accounts of the endpoints, from what is stored at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Accounts {
    /// What came later than this is accounted for. Retention removed what was done before;
    /// zero: nothing was ever removed.
    pub since: Timestamp,
    /// One per endpoint and message type, in that order.
    pub lines: Vec<AccountLine>,
    /// The first messages that came and of which nothing is left, [`MISSING_MAX`] at most.
    pub missing: Vec<MissingMessage>,
}

impl Accounts {
    /// Opens accounts without entries.
    pub const fn since(since: Timestamp) -> Self {
        Self {
            since,
            lines: Vec::new(),
            missing: Vec::new(),
        }
    }

    /// Returns how many messages came of which nothing is left. 0: the accounts balance.
    pub fn missing_count(&self) -> u64 {
        self.lines.iter().map(|line| line.missing).sum()
    }

    /// Adds messages to the line of an endpoint and type, which is the last or a new one.
    pub fn add(&mut self, endpoint: &str, message_type: Option<&str>, origin: Origin, count: u64) {
        let is_new = self.lines.last().is_none_or(|last| {
            last.endpoint != endpoint || last.message_type.as_deref() != message_type
        });
        if is_new {
            self.lines.push(AccountLine {
                endpoint: endpoint.to_owned(),
                message_type: message_type.map(str::to_owned),
                ..AccountLine::default()
            });
        }
        let Some(line) = self.lines.last_mut() else {
            return;
        };
        match origin.is_accepted {
            true => line.accepted += count,
            false => line.created += count,
        }
        *match origin.end {
            End::Handled => &mut line.handled,
            End::Dead => &mut line.dead,
            End::Expired => &mut line.expired,
            End::Discarded => &mut line.discarded,
            End::Moved => &mut line.moved,
            End::Pending => &mut line.pending,
            End::Missing => &mut line.missing,
        } += count;
    }
}

/// The messages of one type at one endpoint: what came on one side, what became of it on the other.
/// `accepted + created = handled + dead + expired + discarded + moved + pending`, and what is missing
/// there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AccountLine {
    /// The endpoint.
    pub endpoint: String,
    /// The type; `None` where nothing that is left says it.
    pub message_type: Option<String>,
    /// Taken over from a broker, or sent by an API under an identity: the inbox has them.
    pub accepted: u64,
    /// Written for the endpoint by this database: by units, timers, schedules and operators, and in
    /// an API's own transaction.
    pub created: u64,
    /// A unit answered them.
    pub handled: u64,
    /// Dead letters that nobody has dealt with, but the expired ones.
    pub dead: u64,
    /// Dead letters that nobody has dealt with: they came after their time.
    pub expired: u64,
    /// Dead letters that are not wanted any more.
    pub discarded: u64,
    /// Dead letters that were redriven to another endpoint, or under another identity.
    pub moved: u64,
    /// Rows that wait, or are in a host's hands.
    pub pending: u64,
    /// They came, and nothing is left of them.
    pub missing: u64,
}

/// A message that came and of which nothing is left.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MissingMessage {
    /// The endpoint to which it came.
    pub endpoint: String,
    /// The message.
    pub message: MessageId,
    /// Its type, where something says it.
    pub message_type: Option<String>,
    /// When it came.
    pub at: Timestamp,
}

/// How messages came, and what became of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Origin {
    /// The inbox has them.
    pub is_accepted: bool,
    /// What became of them.
    pub end: End,
}

/// What became of a message at an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum End {
    /// A unit answered it.
    Handled,
    /// It is a dead letter.
    Dead,
    /// It is a dead letter because it came after its time.
    Expired,
    /// Its dead letter is not wanted any more.
    Discarded,
    /// Its dead letter was redriven to another endpoint, or under another identity.
    Moved,
    /// It is a row that waits, or is in a host's hands.
    Pending,
    /// Nothing is left of it.
    Missing,
}

impl End {
    /// Reads the word that a store's question answers. They have no other.
    pub fn from_stored(word: &str) -> Self {
        match word {
            "handled" => Self::Handled,
            "dead" => Self::Dead,
            "expired" => Self::Expired,
            "discarded" => Self::Discarded,
            "moved" => Self::Moved,
            "pending" => Self::Pending,
            _ => Self::Missing,
        }
    }
}
