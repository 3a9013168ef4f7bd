//! From the commit of a message to the broker's confirm, for each message by its identity.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use futures_util::future::{BoxFuture, FutureExt};
use futures_util::stream::BoxStream;
use sagabus_core::store::EndpointSpec;
use sagabus_core::transport::Publication;
use sagabus_core::{Capabilities, Delivery, Health, StoreId, Transport, TransportError};
use uuid::Uuid;

/// When messages were committed, and when they were confirmed.
#[derive(Debug)]
pub(crate) struct Lag {
    beginning: Instant,
    times: Mutex<Times>,
}

#[derive(Debug, Default)]
struct Times {
    committed: HashMap<Uuid, Duration>,
    confirmed: Vec<(Uuid, Duration)>,
}

impl Lag {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            beginning: Instant::now(),
            times: Mutex::default(),
        })
    }

    /// Notes that messages are committed, as their writer has just heard.
    pub(crate) fn committed(&self, ids: impl IntoIterator<Item = Uuid>) {
        let now = self.beginning.elapsed();
        let ids = ids.into_iter().map(|id| (id, now));
        self.lock().committed.extend(ids);
    }

    /// Notes that messages are confirmed, as their publisher has just heard.
    pub(crate) fn confirmed(&self, ids: impl IntoIterator<Item = Uuid>) {
        let now = self.beginning.elapsed();
        let ids = ids.into_iter().map(|id| (id, now));
        self.lock().confirmed.extend(ids);
    }

    /// Returns how long each message took that was committed and confirmed, in the order of the
    /// commits. A confirm may be heard before the commit: that took no time.
    pub(crate) fn taken(&self) -> Vec<Duration> {
        let times = self.lock();
        let both = times.confirmed.iter();
        let both = both.filter_map(|(id, at)| Some((*times.committed.get(id)?, *at)));
        let mut both: Vec<_> = both.collect();
        both.sort_unstable();
        both.into_iter()
            .map(|(committed, confirmed)| confirmed.saturating_sub(committed))
            .collect()
    }

    fn lock(&self) -> MutexGuard<'_, Times> {
        // Whole after every call.
        self.times.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A transport of ours that tells of each confirm. The test kit has a shorter way to alter one, but
/// whoever depends on it measures a core with crash points compiled in.
pub(crate) struct Noting {
    pub(crate) transport: Arc<dyn Transport>,
    pub(crate) lag: Arc<Lag>,
}

impl fmt::Debug for Noting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.transport.fmt(f)
    }
}

impl Transport for Noting {
    fn capabilities(&self) -> Capabilities {
        self.transport.capabilities()
    }

    fn declare<'a>(
        &'a self,
        store: StoreId,
        endpoints: &'a [EndpointSpec],
    ) -> BoxFuture<'a, Result<(), TransportError>> {
        self.transport.declare(store, endpoints)
    }

    fn publish<'a>(
        &'a self,
        window: &'a [Publication],
    ) -> BoxFuture<'a, Vec<Result<(), TransportError>>> {
        async move {
            let answers = self.transport.publish(window).await;
            let taken = window.iter().zip(&answers);
            let taken = taken.filter(|(_, answer)| answer.is_ok());
            self.lag
                .confirmed(taken.map(|(one, _)| one.envelope.id.as_uuid()));
            answers
        }
        .boxed()
    }

    fn subscribe<'a>(
        &'a self,
        endpoint: &'a EndpointSpec,
        prefetch: u32,
    ) -> BoxFuture<'a, Result<BoxStream<'static, Delivery>, TransportError>> {
        self.transport.subscribe(endpoint, prefetch)
    }

    fn health(&self) -> Health {
        self.transport.health()
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        self.transport.close()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lag_is_from_commit_to_confirm_in_the_order_of_commits() {
        let lag = Lag::new();
        let at = |millis| Duration::from_millis(millis);
        let [first, second, early, open] = [1, 2, 3, 4].map(Uuid::from_u128);
        {
            let mut times = lag.lock();
            let commits = [(second, 20), (first, 10), (early, 30), (open, 40)];
            times.committed = commits.map(|(id, millis)| (id, at(millis))).into();
            let confirms = [(second, 21), (early, 29), (first, 17)];
            times.confirmed = confirms.map(|(id, millis)| (id, at(millis))).into();
        }
        assert_eq!(lag.taken(), [at(7), at(1), at(0)]);
    }

    #[test]
    fn what_nobody_committed_has_no_lag() {
        let lag = Lag::new();
        lag.confirmed([Uuid::from_u128(1)]);
        assert!(lag.taken().is_empty());
        lag.committed([Uuid::from_u128(1)]);
        assert_eq!(lag.taken(), [Duration::ZERO]);
    }
}
