//! A door to what reads what people write down, for the fuzzer and nobody else.

use crate::clock::Timestamp;
use crate::recurrence::{MISSED_MAX, cron as of};

/// Reads a cron expression and a zone, and finds times by them.
pub fn cron(expression: &str, zone: &str, from: i64, until: i64) {
    let Ok(calendar) = of(expression).in_zone(zone).calendar() else {
        return;
    };
    let (from, until) = (Timestamp::from_micros(from), Timestamp::from_micros(until));
    let Some(next) = calendar.after(from) else {
        return;
    };
    assert!(next > from, "{next:?} is not after {from:?}");
    let max = usize::try_from(MISSED_MAX).expect("it is small");
    let passed = calendar.passed(next, until, max);
    assert!(!passed.is_empty() && passed.len() <= max);
    assert!(passed.is_sorted(), "{passed:?}");
}
