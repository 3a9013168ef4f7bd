//! Who acts, and why.

use sagabus_core::admin::{Action, Change};

use crate::error::OpsError;

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

/// Refuses to change more than an operator allowed: what is meant comes as a number and a word.
///
/// # Errors
/// [`OpsError::Refused`] then.
pub fn demand_at_most(meant: (u64, &str), at_most: Option<u64>) -> Result<(), OpsError> {
    let (count, what) = meant;
    match at_most.filter(|at_most| count > *at_most) {
        Some(at_most) => Err(OpsError::Refused(format!(
            "{count} {what} are meant, and {at_most} at most are allowed; nothing was changed [SB0403]"
        ))),
        None => Ok(()),
    }
}
