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
        Some(at_most) => Err(too_many(&format!("{count} {what}"), at_most)),
        None => Ok(()),
    }
}

/// Refuses the same where nobody counts further than `counted_max`.
pub(crate) fn demand_at_most_counted(
    meant: (u64, &str),
    counted_max: u64,
    at_most: u64,
) -> Result<(), OpsError> {
    let (count, what) = meant;
    if count > counted_max.max(at_most) {
        return Err(too_many(
            &format!("more than {counted_max} {what}"),
            at_most,
        ));
    }
    demand_at_most(meant, Some(at_most))
}

/// Says that more is meant than an operator allowed.
fn too_many(meant: &str, at_most: u64) -> OpsError {
    OpsError::Refused(format!(
        "{meant} are meant, and {at_most} at most are allowed; nothing was changed [SB0403]"
    ))
}
