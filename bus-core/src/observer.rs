//! Tells whoever wants to know what units did, as soon as they have committed.

use std::sync::{Arc, OnceLock};

use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;

use crate::store::CommitReport;
use crate::unit_of_work::{HistoryEntry, Outcome, UnitOfWork};

/// Entries that an observer may be behind: ten full groups. More would be memory that is spent on
/// one who does not keep up.
const BEHIND_MAX: usize = 1024;

/// Those who observe a host. While there are none, each commit pays for one look.
#[derive(Debug, Default)]
pub(crate) struct Observers(OnceLock<broadcast::Sender<Arc<HistoryEntry>>>);

impl Observers {
    pub(crate) fn join(&self) -> Observer {
        let sender = self.0.get_or_init(|| broadcast::Sender::new(BEHIND_MAX));
        Observer {
            entries: sender.subscribe(),
            missed: 0,
        }
    }

    /// Tells what units did that are written now, and waits for nobody.
    pub(crate) fn tell(&self, units: &mut [UnitOfWork], report: &CommitReport) {
        let Some(sender) = self.0.get() else { return };
        for (unit, outcome) in units.iter_mut().zip(&report.outcomes) {
            if *outcome != Outcome::Committed {
                continue;
            }
            for entry in unit.history.drain(..) {
                let _ = sender.send(Arc::new(entry)); // All of them may have left.
            }
        }
    }
}

/// Follows what a host does, from [`Host::observe`](crate::Host::observe) on: the entries of its
/// history, each told once its unit was seen to commit.
///
/// It stands outside of the units: however slow it is, and whatever becomes of its task, no message
/// waits for it. What it does not promise: a host that dies after a commit has not told of it, nor
/// has one that learnt of a commit in doubt later. What endpoints without history do is not told.
/// The history in the store is the truth.
///
/// ```
/// # use sagabus_core::{BuildError, Host, memory::MemoryStore};
/// # async fn observed() -> Result<(), BuildError> {
/// let host = Host::builder("shop").store(MemoryStore::new()).build()?;
/// let mut observer = host.observe();
/// tokio::spawn(async move {
///     while let Some(entry) = observer.next().await {
///         if let Some((instance, version)) = &entry.instance {
///             let (from, to) = (&entry.detail.state_from, &entry.detail.state_to);
///             println!("{instance} {version}: {}, {from:?} to {to:?}", entry.message_type);
///         }
///     }
/// });
/// # Ok(()) }
/// ```
#[derive(Debug)]
pub struct Observer {
    entries: broadcast::Receiver<Arc<HistoryEntry>>,
    missed: u64,
}

impl Observer {
    /// Returns the next entry; `None` when the host has stopped. Entries of one instance come in the
    /// order of its versions, as far as one host moved it.
    ///
    /// # Cancel safety
    /// A dropped call takes nothing.
    pub async fn next(&mut self) -> Option<Arc<HistoryEntry>> {
        loop {
            match self.entries.recv().await {
                Ok(entry) => return Some(entry),
                Err(RecvError::Lagged(missed)) => self.missed += missed,
                Err(RecvError::Closed) => return None,
            }
        }
    }

    /// Returns how many entries it was too slow for: it may be 1,024 behind, and then loses the
    /// oldest ones.
    pub fn missed(&self) -> u64 {
        self.missed
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::endpoint::EndpointId;
    use crate::scripted::envelope;
    use crate::unit_of_work::HistoryDetail;

    fn unit(attempt: u32) -> UnitOfWork {
        let of = envelope("test.do");
        let entry = HistoryEntry {
            endpoint: EndpointId(1),
            message_id: of.id,
            message_type: of.message_type.clone(),
            correlation_id: of.correlation_id(),
            instance: None,
            detail: HistoryDetail {
                attempt,
                ..HistoryDetail::default()
            },
        };
        UnitOfWork {
            history: vec![entry],
            ..UnitOfWork::default()
        }
    }

    fn tell(observers: &Observers, outcomes: &[Outcome]) {
        let numbers = 0..u32::try_from(outcomes.len()).expect("a few");
        let report = CommitReport {
            outcomes: outcomes.to_vec(),
            leased: Vec::new(),
        };
        let mut units: Vec<_> = numbers.map(unit).collect();
        observers.tell(&mut units, &report);
    }

    async fn told(observer: &mut Observer) -> Vec<u32> {
        let mut all = Vec::new();
        while let Some(entry) = observer.next().await {
            all.push(entry.detail.attempt);
        }
        all
    }

    #[tokio::test]
    async fn each_observer_is_told_of_what_committed_since_it_came() {
        let observers = Observers::default();
        tell(&observers, &[Outcome::Committed]);
        let mut first = observers.join();
        tell(&observers, &[Outcome::Duplicate, Outcome::Committed]);
        let mut second = observers.join();
        tell(&observers, &[Outcome::Committed, Outcome::Conflict]);
        drop(observers);
        assert_eq!(told(&mut first).await, [1, 0]);
        assert_eq!(told(&mut second).await, [0]);
        assert_eq!((first.missed(), second.missed()), (0, 0));
    }

    #[tokio::test]
    async fn who_is_too_slow_loses_the_oldest_and_knows_how_many() {
        let observers = Observers::default();
        let mut slow = observers.join();
        tell(&observers, &[Outcome::Committed; BEHIND_MAX + 3]);
        drop(observers);
        let told = told(&mut slow).await;
        assert_eq!((told.len(), told.first()), (BEHIND_MAX, Some(&3)));
        assert_eq!(slow.missed(), 3);
    }

    #[test]
    fn nobody_is_told_where_everybody_has_left() {
        let observers = Observers::default();
        drop(observers.join());
        tell(&observers, &[Outcome::Committed]);
        let late = observers.join();
        assert!(late.entries.is_empty());
    }
}
