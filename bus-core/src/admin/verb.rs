//! What is done in bulk, and with what.

use super::row::RowVerb;

/// What an operation does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verb {
    /// Dead letters become rows of their endpoints again, or of another endpoint.
    Redrive {
        /// The endpoint that handles them instead; `None`: each the one that gave it up.
        to: Option<String>,
    },
    /// Dead letters are not wanted any more, and stay readable.
    Discard,
    /// Discarded dead letters are open again.
    Restore,
    /// Rows of the outbox are changed.
    Rows(RowVerb),
    /// Messages that brokers took, and that are kept, are in the outbox again.
    Republish,
}

impl Verb {
    /// Returns the stored word.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Redrive { .. } => "redrive",
            Self::Discard => "discard",
            Self::Restore => "restore",
            Self::Rows(verb) => verb.as_str(),
            Self::Republish => REPUBLISH_SENT,
        }
    }

    /// Reads the stored words. The tables hold no others.
    pub fn from_stored(word: &str, to: Option<String>) -> Self {
        match word {
            "discard" => Self::Discard,
            "restore" => Self::Restore,
            REPUBLISH_SENT => Self::Republish,
            "redrive" => Self::Redrive { to },
            rows => Self::Rows(RowVerb::from_stored(rows, to)),
        }
    }

    /// Returns where things go instead, if they do: an endpoint's name, or a row's destination.
    pub fn to(&self) -> Option<&str> {
        match self {
            Self::Redrive { to } => to.as_deref(),
            Self::Rows(RowVerb::Readdress { to }) => Some(to),
            Self::Discard | Self::Restore | Self::Rows(_) | Self::Republish => None,
        }
    }

    /// Returns the word by which audit entries name each of its steps.
    pub const fn action(&self) -> &'static str {
        match self {
            Self::Redrive { .. } => "redrive_dead_letters",
            Self::Discard => "discard_dead_letters",
            Self::Restore => "restore_dead_letters",
            Self::Rows(_) | Self::Republish => self.as_str(),
        }
    }

    /// Returns what it is for.
    pub const fn subject(&self) -> Subject {
        match self {
            Self::Redrive { .. } | Self::Discard | Self::Restore => Subject::DeadLetters,
            Self::Rows(_) => Subject::Rows,
            Self::Republish => Subject::Sent,
        }
    }
}

/// The word of a republication, in the audit and in operations.
pub(super) const REPUBLISH_SENT: &str = "republish_sent";

/// What bulk changes are for: their entries are named by ids of one table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Subject {
    /// Messages that stopped being tried.
    DeadLetters,
    /// Rows of the outbox.
    Rows,
    /// Messages that brokers took and that are kept.
    Sent,
}

impl Subject {
    /// Returns the words for several of them.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::DeadLetters => "dead letters",
            Self::Rows => "rows",
            Self::Sent => "messages",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stored_words_are_read_back() {
        let to = "@refunds".to_owned();
        let rows = [
            RowVerb::Park,
            RowVerb::Release,
            RowVerb::Readdress { to: to.clone() },
            RowVerb::Expedite,
            RowVerb::Discard,
            RowVerb::Purge,
        ];
        let others = [
            Verb::Redrive { to: Some(to) },
            Verb::Redrive { to: None },
            Verb::Discard,
            Verb::Restore,
            Verb::Republish,
        ];
        for verb in rows.map(Verb::Rows).into_iter().chain(others) {
            let to = verb.to().map(str::to_owned);
            assert_eq!(Verb::from_stored(verb.as_str(), to), verb);
        }
    }
}
