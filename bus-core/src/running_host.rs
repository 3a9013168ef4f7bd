//! A host that runs: what it says of itself, and how it is stopped.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{join, join_all};

use crate::bus::Bus;
use crate::counters::Counters;
use crate::health::{EndpointHealth, HostHealth, Watched};
use crate::id::HostId;
use crate::lifecycle::Lifecycle;
use crate::store::Store;
use crate::sync::time;
use crate::transport::Health;
use crate::transports::{TransportName, Transports};
use crate::upkeep;

/// How long leaving the broker may take at least: a host that is told to let go at once has its
/// answers to write all the same.
const CLOSE_MIN: Duration = Duration::from_secs(1);
/// How long leaving the broker may take at most: a broker that is away would never answer.
const CLOSE_MAX: Duration = Duration::from_secs(10);

/// A host that runs. Dropping it does not stop it; [`stop`](Self::stop) does.
#[derive(Debug)]
pub struct RunningHost {
    pub(crate) bus: Bus,
    pub(crate) counters: Arc<Counters>,
    pub(crate) transports: Arc<Transports>,
    pub(crate) lifecycle: Lifecycle,
    pub(crate) watched: Vec<Watched>,
    pub(crate) health: HostHealth,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) id: HostId,
}

impl RunningHost {
    /// Returns the bus.
    pub fn bus(&self) -> Bus {
        self.bus.clone()
    }

    /// Returns what has been counted since the start.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Says how the default transport's broker is doing; `None` where there is none.
    pub fn transport_health(&self) -> Option<Health> {
        let transport = self.transports.get(&TransportName::default());
        transport.map(|transport| transport.health())
    }

    /// Says how every broker is doing, the default one first.
    pub fn transports_health(&self) -> Vec<(TransportName, Health)> {
        let each = self.transports.each();
        each.map(|(name, transport)| (name.clone(), transport.health()))
            .collect()
    }

    /// Returns what answers liveness and readiness, for as long as the process lives.
    pub fn health(&self) -> HostHealth {
        self.health.clone()
    }

    /// Says how each endpoint is doing, in the order of their registration.
    pub fn endpoints(&self) -> Vec<EndpointHealth> {
        self.watched.iter().map(Watched::health).collect()
    }

    /// Stops: takes nothing new, finishes what is in hand for at most `deadline`, then lets go.
    /// What was let go comes again. Returns whether everything was finished.
    ///
    /// A handler that calls it waits for itself: it is let go with the stop at the deadline, and its
    /// message comes again. Have a task of your own stop the host.
    ///
    /// # Cancel safety
    /// Calling again goes on where the dropped call was.
    pub async fn stop(&self, deadline: Duration) -> bool {
        self.lifecycle.drain();
        // The committer ends when the last handle is gone, and the bus has one.
        self.bus.close();
        let is_clean = self.lifecycle.stop(deadline).await;
        let patience = deadline.clamp(CLOSE_MIN, CLOSE_MAX);
        let leaving = self.transports.each().map(async |(name, transport)| {
            let left = time::timeout(patience, transport.close()).await;
            if left.is_err() {
                tracing::warn!(
                    transport = %name,
                    "the broker was not left in order; what was handled may come again"
                );
            }
        });
        let farewell = upkeep::say_farewell(&*self.store, self.id);
        join(join_all(leaving), farewell).await;
        is_clean
    }
}
