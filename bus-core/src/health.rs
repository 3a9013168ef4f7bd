//! How the endpoints of a host are doing, as the host itself sees it. Asks nobody.

use std::sync::Arc;

use crate::clock::Timestamp;
use crate::endpoint::EndpointName;
use crate::gate::Gate;
use crate::inflow::Inflow;
use crate::intake::Intake;

/// How an endpoint is doing in this host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndpointHealth {
    /// The endpoint.
    pub endpoint: EndpointName,
    /// Messages that it has in hand.
    pub in_hand: usize,
    /// Messages that it may have in hand.
    pub capacity: usize,
    /// Whether it goes on.
    pub flow: Flow,
}

/// Whether an endpoint takes messages and tries them.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Flow {
    /// It does.
    Open,
    /// Every message fails alike: what is in hand waits, and one at a time is tried.
    Probing {
        /// Since when, by this machine's clock.
        since: Timestamp,
        /// The latest error.
        error: String,
        /// How often one message was tried since.
        probes: u64,
    },
    /// An operator paused it: what is in hand waits, and nothing is tried.
    Paused,
    /// Too many messages wait in the database: those are tried, and the broker keeps the others.
    Full {
        /// How many, when it was last measured; no more are counted than the endpoint may have.
        rows: u64,
    },
}

/// What is asked about one endpoint that runs.
#[derive(Clone, Debug)]
pub(crate) struct Watched {
    pub(crate) endpoint: EndpointName,
    pub(crate) intake: Intake,
    pub(crate) gate: Arc<Gate>,
    pub(crate) inflow: Arc<Inflow>,
}

impl Watched {
    /// Says how the endpoint is doing.
    pub(crate) fn health(&self) -> EndpointHealth {
        let capacity = self.intake.capacity();
        let flow = match (self.gate.pause(), self.inflow.excess()) {
            _ if self.gate.is_held() => Flow::Paused,
            (Some(pause), _) => Flow::Probing {
                since: pause.since,
                error: pause.error,
                probes: pause.probes,
            },
            (None, Some(rows)) => Flow::Full { rows },
            (None, None) => Flow::Open,
        };
        EndpointHealth {
            endpoint: self.endpoint.clone(),
            in_hand: capacity - self.intake.free().min(capacity),
            capacity,
            flow,
        }
    }
}
