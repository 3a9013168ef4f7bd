//! Whether a broker's messages are let in: not while the database has taken over too many of them.

use crate::endpoint::EndpointName;
use crate::flag::Flag;
use crate::lifecycle::Lifecycle;
use crate::sync::atomic::{AtomicU64, Ordering};

/// What one endpoint's intake from its broker depends on.
#[derive(Debug)]
pub(crate) struct Inflow {
    endpoint: EndpointName,
    /// Rows from which on nothing more is let in.
    rows_max: u32,
    /// Rows at the last measurement, of all hosts together.
    measured: AtomicU64,
    /// Messages that this host had written down since.
    since: AtomicU64,
    full: Flag,
}

impl Inflow {
    /// Lets in, until more is known.
    pub(crate) fn new(endpoint: EndpointName, rows_max: u32) -> Self {
        Self {
            endpoint,
            rows_max,
            measured: AtomicU64::new(0),
            since: AtomicU64::new(0),
            full: Flag::default(),
        }
    }

    /// Returns the bound.
    pub(crate) fn rows_max(&self) -> u32 {
        self.rows_max
    }

    /// Waits until a broker's message may be let in. `None`: the host drains.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub(crate) async fn wait(&self, lifecycle: &Lifecycle) -> Option<()> {
        if !self.full.is_set() {
            return Some(());
        }
        tokio::select! {
            biased;
            () = lifecycle.draining() => None,
            () = self.full.cleared() => Some(()),
        }
    }

    /// Notes that a broker's message was written down.
    pub(crate) fn took_over(&self) {
        self.since.fetch_add(1, Ordering::Relaxed);
        if self.rows() >= u64::from(self.rows_max) {
            self.set_full(true);
        }
    }

    /// Notes how many rows there are.
    pub(crate) fn measured(&self, rows: u32) {
        self.since.store(0, Ordering::Relaxed);
        self.measured.store(u64::from(rows), Ordering::Relaxed);
        self.set_full(rows >= self.rows_max);
    }

    /// Returns how many rows there are, while they are too many.
    pub(crate) fn excess(&self) -> Option<u64> {
        self.full.is_set().then(|| self.rows())
    }

    fn rows(&self) -> u64 {
        self.measured.load(Ordering::Relaxed) + self.since.load(Ordering::Relaxed)
    }

    fn set_full(&self, is_full: bool) {
        if !self.full.set(is_full) {
            return;
        }
        let (endpoint, rows) = (&self.endpoint, self.rows());
        match is_full {
            true => tracing::warn!(
                %endpoint,
                rows,
                "the database has taken over too many messages; the broker keeps the others"
            ),
            false => tracing::info!(%endpoint, rows, "the broker's messages are let in again"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn nothing_is_let_in_from_the_bound_on_until_there_is_room_again() {
        let endpoint = EndpointName::new("work").expect("a usable name");
        let (inflow, lifecycle) = (Inflow::new(endpoint, 3), Lifecycle::new());
        inflow.measured(1);
        inflow.took_over();
        assert_eq!(inflow.wait(&lifecycle).await, Some(()));
        inflow.took_over();
        assert_eq!(inflow.excess(), Some(3), "its own are counted at once");
        inflow.measured(3);
        assert_eq!(inflow.excess(), Some(3));
        let (entered, ()) = tokio::join!(inflow.wait(&lifecycle), async { inflow.measured(2) });
        assert_eq!((entered, inflow.excess()), (Some(()), None));
        inflow.measured(9);
        lifecycle.drain();
        assert_eq!(inflow.wait(&lifecycle).await, None);
    }
}
