//! What is kept of a try that did not succeed.

use serde::{Deserialize, Serialize};

use crate::clock::Timestamp;

/// A try of a message that did not succeed: a failure, or one that cost no attempt.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attempt {
    /// When, by the host's clock.
    pub at: Timestamp,
    /// On which host.
    pub host: String,
    /// The error and what caused it, outermost first, cut at 4 KiB.
    pub error: String,
    /// 0: a failure, which costs an attempt. Else how many tries that cost none this entry stands
    /// for; it tells of the latest of them, so that many take no more room than one.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub excused: u32,
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde passes every field by reference"
)]
fn is_zero(number: &u32) -> bool {
    *number == 0
}

/// Counts the tries that cost an attempt.
pub fn failure_count(attempts: &[Attempt]) -> usize {
    attempts.iter().filter(|one| one.excused == 0).count()
}

/// Counts the tries that cost none.
pub fn excuse_count(attempts: &[Attempt]) -> u32 {
    let counts = attempts.iter().map(|one| one.excused);
    counts.fold(0, u32::saturating_add)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attempt(excused: u32) -> Attempt {
        Attempt {
            at: Timestamp::from_micros(0),
            host: "one".to_owned(),
            error: "broken".to_owned(),
            excused,
        }
    }

    #[test]
    fn what_cost_an_attempt_is_stored_as_it_was_before_any_was_excused() {
        let stored = |one: &Attempt| serde_json::to_value(one).expect("it can be written");
        let (failure, excuse) = (attempt(0), attempt(7));
        assert_eq!(stored(&failure).get("excused"), None);
        assert_eq!(stored(&excuse)["excused"], 7);
        for one in [failure, excuse] {
            let read: Attempt = serde_json::from_value(stored(&one)).expect("it can be read");
            assert_eq!(read, one);
        }
    }

    #[test]
    fn an_entry_counts_as_a_failure_or_for_the_tries_that_it_stands_for() {
        let all = [attempt(0), attempt(7), attempt(0), attempt(u32::MAX)];
        assert_eq!(failure_count(&all), 2);
        assert_eq!(excuse_count(&all[..3]), 7);
        assert_eq!(excuse_count(&all), u32::MAX);
    }
}
