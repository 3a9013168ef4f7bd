//! What a host does beside its messages: extend leases, remove what is old.

use std::sync::Arc;
use std::time::Duration;

use crate::backoff::{Backoff, jittered};
use crate::counters::Counters;
use crate::faults::{self, Point};
use crate::id::HostId;
use crate::intake::InHand;
use crate::lifecycle::Lifecycle;
use crate::store::{Extension, Retention, Store};

/// The pause between sweeps while there is more, so that commits get their turn.
const SWEEP_PAUSE_FULL: Duration = Duration::from_millis(50);

/// Extends the leases of everything in hand, in one statement per third of a lease.
///
/// Goes on while the host drains: what is in hand must stay ours until it is settled. Ends when
/// the host has stopped.
pub(crate) async fn extend_leases(
    store: Arc<dyn Store>,
    host: HostId,
    in_hand: Arc<InHand>,
    lease: Duration,
    lifecycle: Lifecycle,
) {
    let mut backoff = Backoff::new("extend leases");
    let mut pause = lease / 3;
    loop {
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = lifecycle.draining() => {
                if in_hand.rows().is_empty() {
                    return;
                }
                tokio::time::sleep((lease / 3).min(Duration::from_millis(100))).await;
            }
        }
        let extension = Extension {
            host,
            rows: in_hand.rows(),
            lease,
        };
        match store.extend(&extension).await {
            Ok(_) => {
                faults::at(Point::AfterExtend);
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
            () = tokio::time::sleep(pause) => {}
            () = lifecycle.draining() => return,
        }
        pause = match store.sweep(&retention).await {
            Ok(swept) => {
                faults::at(Point::AfterSweep);
                backoff.ended();
                counters
                    .swept
                    .add(swept.inbox + swept.history + swept.tombstones);
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
