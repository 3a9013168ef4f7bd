//! The only reader of the wall clock. For people and for identities: what decides anything (leases,
//! due times, retention) is the database's time.

use std::fmt;
use std::str::FromStr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use crate::wire_time;

/// A point in time, in microseconds since 1970-01-01 UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Timestamp(i64);

impl Timestamp {
    /// When a stub is available, which holds the place of a dead letter: the last microsecond of the
    /// year 9999.
    pub const NEVER: Self = Self(253_402_300_799_999_999);

    /// Wraps microseconds since 1970-01-01 UTC.
    pub const fn from_micros(micros: i64) -> Self {
        Self(micros)
    }

    /// Returns microseconds since 1970-01-01 UTC.
    pub const fn as_micros(self) -> i64 {
        self.0
    }

    /// Returns the time that lies `by` later.
    #[must_use]
    pub fn plus(self, by: Duration) -> Self {
        Self(self.0.saturating_add(micros(by)))
    }
}

impl fmt::Display for Timestamp {
    /// Writes RFC 3339 in UTC, like `2026-11-21T12:40:00.000001Z`; the bare number of microseconds
    /// outside the years 1970 to 9999.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match wire_time::format(self.0) {
            Some(text) => f.write_str(&text),
            None => write!(f, "{}", self.0),
        }
    }
}

impl FromStr for Timestamp {
    type Err = String;

    /// Reads RFC 3339, in any zone.
    fn from_str(text: &str) -> Result<Self, String> {
        let micros = wire_time::parse(text);
        micros.map(Self).ok_or_else(|| {
            format!("{text:?} is no time; write it like 2026-11-21T12:40:00Z (RFC 3339)")
        })
    }
}

/// Converts to whole microseconds; the largest number for what does not fit.
pub fn micros(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}

/// Reads this machine's clock. Never for a decision.
#[expect(
    clippy::disallowed_methods,
    reason = "this file is the one place that may"
)]
pub fn now() -> Timestamp {
    #[cfg(feature = "faults")]
    if let Some(now) = crate::chance::simulated_now() {
        return now;
    }
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    let now = micros(since);
    #[cfg(feature = "faults")]
    let now = now.saturating_add(crate::chance::clock_ahead());
    Timestamp(now)
}
