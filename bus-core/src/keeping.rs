//! What is kept of messages that brokers took, so that an operator can send them again.

use std::time::Duration;

use crate::error::BuildError;
use crate::host::HostBuilder;
use crate::store::Retention;
use crate::unit_of_work::{RowKey, Settle};

impl HostBuilder {
    /// Keeps what brokers took for so long, so that `sagabus outbox republish` can send a window of
    /// it again: the same identities, the same bytes. Without it, a row is gone with its confirm.
    ///
    /// What that costs: each message is written a second time when its confirm comes, and removed
    /// when its time is over. What is sealed is kept sealed. Never longer than the
    /// [inbox](Retention::inbox) remembers a message, or who has handled one would do so again.
    pub fn keep_sent(mut self, kept_for: Duration) -> Self {
        self.keeping = Keeping(Some(kept_for));
        self
    }
}

/// How long a host keeps what brokers took, if at all.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Keeping(Option<Duration>);

impl Keeping {
    /// Checks what was declared.
    ///
    /// # Errors
    /// [`BuildError::KeptTooLong`].
    pub(crate) fn check(self, retention: &Retention) -> Result<(), BuildError> {
        match self.0.filter(|kept| *kept > retention.inbox) {
            Some(kept) => Err(BuildError::KeptTooLong {
                kept,
                retention: retention.inbox,
            }),
            None => Ok(()),
        }
    }

    /// Describes what tools have to know.
    pub(crate) fn describe(self, into: &mut serde_json::Value) {
        if let Some(kept) = self.0 {
            into["keep_sent_seconds"] = kept.as_secs_f64().into();
        }
    }

    /// Says what becomes of a row that a broker took.
    pub(crate) fn settle(self, row: RowKey) -> Settle {
        match self.0 {
            None => Settle::Delete(row),
            Some(kept_for) => Settle::Keep { row, kept_for },
        }
    }
}
