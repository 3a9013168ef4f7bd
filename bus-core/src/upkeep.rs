//! What a host does beside its messages: extend leases, remove what is old.

use std::sync::Arc;
use std::time::Duration;

use crate::backlog::{Backlog, Measure, Wanted};
use crate::backoff::{Backoff, jittered};
use crate::clock;
use crate::counters::Counters;
use crate::endpoint::EndpointName;
use crate::error::chain;
use crate::faults::{self, Point};
use crate::id::HostId;
use crate::inflow::Inflow;
use crate::intake::InHand;
use crate::lifecycle::Lifecycle;
use crate::overload::Overload;
use crate::store::{Extension, Retention, Store};
use crate::store_clock::StoreClock;
use crate::sync::time;

/// The pause between sweeps while there is more, so that commits get their turn.
const SWEEP_PAUSE_FULL: Duration = Duration::from_millis(50);
/// How long a farewell may take: a database that is away must not keep a host from stopping.
const FAREWELL_MAX: Duration = Duration::from_secs(1);

/// What a host knows by asking with its heartbeat, so that no message has to ask.
pub(crate) struct Bounds {
    /// Endpoints whose broker keeps messages back while the database has too many.
    pub(crate) inflows: Vec<(EndpointName, Arc<Inflow>)>,
    pub(crate) overload: Arc<Overload>,
    pub(crate) clock: Arc<StoreClock>,
}

impl Bounds {
    fn question(&self) -> Measure {
        let inflows = self.inflows.iter();
        let count =
            |(name, inflow): &(EndpointName, Arc<Inflow>)| (name.clone(), inflow.rows_max());
        Measure {
            endpoints: inflows.map(count).collect(),
            oldest: match self.overload.is_limited() {
                true => Wanted::Yes,
                false => Wanted::No,
            },
        }
    }

    fn learn(&self, backlog: Backlog) {
        for ((_, inflow), rows) in self.inflows.iter().zip(backlog.counts) {
            inflow.measured(rows);
        }
        self.overload.measured(backlog.oldest);
    }
}

/// Extends the leases of everything in hand, in one statement per third of a lease, and learns what
/// waits.
///
/// Goes on while the host drains: what is in hand must stay ours until it is settled. Ends when
/// the host has stopped.
pub(crate) async fn extend_leases(
    store: Arc<dyn Store>,
    host: HostId,
    in_hand: Arc<InHand>,
    bounds: Bounds,
    lease: Duration,
    lifecycle: Lifecycle,
) {
    let mut backoff = Backoff::new("extend leases");
    let mut pause = lease / 3;
    loop {
        tokio::select! {
            biased;
            () = lifecycle.draining() => {
                if in_hand.rows().is_empty() {
                    return;
                }
                time::sleep((lease / 3).min(Duration::from_millis(100))).await;
            }
            () = time::sleep(pause) => {}
        }
        let extension = Extension {
            host,
            clock: clock::now(),
            rows: in_hand.rows(),
            lease,
            measure: bounds.question(),
            is_last: false,
        };
        bounds.clock.tried();
        match store.extend(&extension).await {
            Ok(extended) => {
                faults::at(Point::AfterExtend);
                bounds.clock.learn(extended.now);
                bounds.learn(extended.backlog);
                backoff.ended();
                pause = lease / 3;
            }
            Err(error) => {
                backoff.failed(&error).await;
                pause = Duration::ZERO;
            }
        }
    }
}

/// Says that a host has stopped, so that nobody takes it for alive until its heartbeat is old.
pub(crate) async fn say_farewell(store: &dyn Store, host: HostId) {
    let last = Extension {
        host,
        clock: clock::now(),
        rows: Vec::new(),
        lease: Duration::ZERO,
        measure: Measure::default(),
        is_last: true,
    };
    let said = time::timeout(FAREWELL_MAX, store.extend(&last)).await;
    let error = match said {
        Ok(Ok(_)) => return,
        Ok(Err(error)) => chain(&error),
        Err(_) => "the database did not answer in time".to_owned(),
    };
    tracing::info!(
        error,
        "host stopped and could not say so; it counts as alive for two leases"
    );
}

/// Removes what is older than its retention, a bounded number of rows at a time.
pub(crate) async fn sweep(
    store: Arc<dyn Store>,
    retention: Retention,
    counters: Arc<Counters>,
    lifecycle: Lifecycle,
) {
    // Hosts that start together do not sweep together.
    let mut pause = jittered(retention.interval / 6);
    let mut backoff = Backoff::new("sweep");
    loop {
        tokio::select! {
            biased;
            () = lifecycle.draining() => return,
            () = time::sleep(pause) => {}
        }
        pause = match store.sweep(&retention).await {
            Ok(swept) => {
                faults::at(Point::AfterSweep);
                backoff.ended();
                counters.swept.add(swept.rows());
                if swept.is_full {
                    SWEEP_PAUSE_FULL
                } else {
                    jittered(retention.interval)
                }
            }
            Err(error) => {
                backoff.failed(&error).await;
                jittered(retention.interval)
            }
        };
    }
}
