//! Who acts, and why.

use sagabus_core::admin::{Action, Change};

/// Who makes a change, and why: what the audit keeps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Operator {
    /// A person's or a program's name.
    pub who: String,
    /// A few words; may be empty.
    pub why: String,
}

impl Operator {
    /// Makes the change that is this operator's.
    pub fn does(&self, action: Action) -> Change {
        Change {
            who: self.who.clone(),
            why: self.why.clone(),
            action,
        }
    }
}
