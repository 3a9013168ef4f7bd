//! What operators changed: each change with its entry, in one transaction.

use serde_json::Value;

use crate::clock::Timestamp;

/// A change as its audit entry keeps it.
#[derive(Clone, Debug, PartialEq)]
pub struct AuditEntry {
    /// Its id in this database.
    pub id: i64,
    /// When, by the database's clock.
    pub at: Timestamp,
    /// Who.
    pub who: String,
    /// What, as [`Action::as_str`](super::Action::as_str) spells it.
    pub action: String,
    /// Why.
    pub why: String,
    /// The operation of which it is a step, or which was begun, paused, resumed or cancelled.
    pub operation: Option<i64>,
    /// What was changed: one object per row, with what a reader needs to find the message.
    pub detail: Value,
}

/// Which changes are meant. What is not given lets everything through.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AuditFilter {
    /// Only this entry.
    pub id: Option<i64>,
    /// Only what this operator did.
    pub who: Option<String>,
    /// Only this, as [`AuditEntry::action`] has it.
    pub action: Option<String>,
    /// Only steps of this operation, its begin and its commands.
    pub operation: Option<i64>,
    /// Only what was done at this time or later.
    pub since: Option<Timestamp>,
    /// Only what was done before this time.
    pub until: Option<Timestamp>,
}

impl AuditFilter {
    /// Says whether it lets an entry through.
    pub(crate) fn lets(&self, one: &AuditEntry) -> bool {
        let is = |wanted: &Option<String>, text: &str| {
            wanted.as_deref().is_none_or(|wanted| wanted == text)
        };
        self.id.is_none_or(|id| one.id == id)
            && is(&self.who, &one.who)
            && is(&self.action, &one.action)
            && self.operation.is_none_or(|id| one.operation == Some(id))
            && self.since.is_none_or(|since| one.at >= since)
            && self.until.is_none_or(|until| one.at < until)
    }
}
