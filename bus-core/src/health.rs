//! How a host and its endpoints are doing, as the host itself sees it. Asks nobody.

use std::sync::Arc;
use std::time::Duration;

use crate::clock::Timestamp;
use crate::endpoint::EndpointName;
use crate::gate::Gate;
use crate::inflow::Inflow;
use crate::intake::Intake;
use crate::lifecycle::Lifecycle;
use crate::store_clock::StoreClock;
use crate::transport::Health;
use crate::transports::Transports;

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

/// How long the heartbeat may not even be tried before the process is stuck: far above any call's
/// time-out, and a process that is killed too soon helps nobody.
const STUCK_AFTER: Duration = Duration::from_secs(60);

/// Says how a running host is doing, for whoever keeps the process running. Cheap to clone; asks
/// nobody, so it may be asked every second.
#[derive(Clone, Debug)]
pub struct HostHealth {
    pub(crate) watched: Vec<Watched>,
    pub(crate) transports: Arc<Transports>,
    pub(crate) clock: Arc<StoreClock>,
    pub(crate) lease: Duration,
    pub(crate) lifecycle: Lifecycle,
}

/// An answer, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// Yes, or no.
    pub is_well: bool,
    /// Why not, and what else somebody may want to know. May have entries where all is well.
    pub reasons: Vec<String>,
}

impl HostHealth {
    /// Says whether the process does its work at all. No: restart it. A database or broker that is
    /// away is no reason: a restart would not bring it back.
    pub fn liveness(&self) -> Verdict {
        let silent = self.clock.since_tried();
        let patience = STUCK_AFTER.max(self.lease.saturating_mul(4));
        let is_stuck = silent > patience && !self.lifecycle.is_draining();
        let reason = || format!("no heartbeat was tried for {} s", silent.as_secs());
        Verdict {
            is_well: !is_stuck,
            reasons: is_stuck.then(reason).into_iter().collect(),
        }
    }

    /// Says whether the host takes work: it runs, its database answered within two leases, and its
    /// brokers take messages. An endpoint that pauses or is full is told, and no reason to say no:
    /// what it waits for is not mended by sending requests elsewhere.
    pub fn readiness(&self) -> Verdict {
        let mut reasons = Vec::new();
        if self.lifecycle.is_draining() {
            reasons.push("the host drains".to_owned());
        }
        let silent = self.clock.since_read();
        if silent > self.lease.saturating_mul(2) {
            reasons.push(format!(
                "the database has not answered for {} s",
                silent.as_secs()
            ));
        }
        for (name, transport) in self.transports.each() {
            match transport.health() {
                Health::Connected => {}
                Health::Blocked { reason, .. } => {
                    reasons.push(format!("transport `{name}` takes no messages: {reason}"));
                }
                Health::Reconnecting { .. } => {
                    reasons.push(format!("transport `{name}` is not connected"));
                }
            }
        }
        let is_well = reasons.is_empty();
        reasons.extend(self.watched.iter().filter_map(|one| told(&one.health())));
        Verdict { is_well, reasons }
    }
}

/// Says what is worth a word about an endpoint.
fn told(one: &EndpointHealth) -> Option<String> {
    let endpoint = &one.endpoint;
    match &one.flow {
        Flow::Open => None,
        Flow::Paused => Some(format!("endpoint `{endpoint}` is paused by an operator")),
        Flow::Full { rows } => Some(format!(
            "endpoint `{endpoint}` has {rows} messages in the database and lets no more in"
        )),
        Flow::Probing { error, since, .. } => Some(format!(
            "endpoint `{endpoint}` pauses since {since}: everything fails alike: {error}"
        )),
    }
}
