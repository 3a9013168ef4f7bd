//! What waits in the outbox, as a host asks about it with its heartbeat.

use std::time::Duration;

use crate::clock::Timestamp;
use crate::endpoint::EndpointName;

/// What a host wants to know about what waits. The default asks nothing and costs nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Measure {
    /// Endpoints whose rows are counted, timers left out, each up to this many.
    pub endpoints: Vec<(EndpointName, u32)>,
    /// The row that could have been taken for the longest time.
    pub oldest: Wanted,
}

impl Measure {
    /// Says whether nothing is asked.
    pub fn is_empty(&self) -> bool {
        self.endpoints.is_empty() && self.oldest == Wanted::No
    }
}

/// Says whether something is asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Wanted {
    /// It is not.
    #[default]
    No,
    /// It is.
    Yes,
}

/// What waits, at some moment during the call.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Backlog {
    /// Rows per endpoint, in the order of the question.
    pub counts: Vec<u32>,
    /// The destination, as stored, whose longest due row could have been taken for the longest time,
    /// and for how long. A row that is in hand, or waits behind another, could not.
    pub oldest: Option<(String, Duration)>,
}

/// What extending leases answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Extended {
    /// Rows that were still the host's.
    pub rows: u64,
    /// What was asked about what waits.
    pub backlog: Backlog,
    /// What the database's clock said during the call.
    pub now: Timestamp,
}
