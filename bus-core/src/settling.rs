//! How a message ends: its unit committed, itself written down for later, a dead letter, or acked.

use std::time::Duration;

use futures_util::future::FutureExt;
use tokio::time::Instant;

use crate::committer::Answer;
use crate::context::Staged;
use crate::endpoint::{Destination, Order};
use crate::envelope::{Due, Outgoing};
use crate::error::{HandlerError, StoreError, chain};
use crate::fault_event::fault_of;
use crate::faults::{self, Point};
use crate::handling::{Case, End};
use crate::headers;
use crate::intake::Arrival;
use crate::request;
use crate::retry::Decision;
use crate::store::OpenTransaction;
use crate::unit_of_work::{
    DeadLetter, HistoryDetail, HistoryEntry, InstanceChange, Outcome, Reason, RowKey, Settle,
    Source, UnitOfWork,
};

/// Attempts that a dead letter remembers: the latest. More would only repeat what these say.
const ATTEMPTS_KEPT: usize = 20;
/// What a try is told to have failed by where others were faster.
const MOVED: &str = "the instance or the subscriptions changed meanwhile";
/// The most messages that one unit may send.
const UNIT_MESSAGES_MAX: usize = 10_000;
/// The most bytes that one unit may write.
const UNIT_BYTES_MAX: usize = 16 * 1024 * 1024;

impl Case<'_> {
    /// Makes the unit of what a handler staged; an error where it is larger than one may be.
    pub(crate) fn bounded_unit(
        &self,
        staged: Staged,
        started: Instant,
    ) -> Result<UnitOfWork, HandlerError> {
        let unit = self.unit(staged, started);
        check_bounds(unit.outgoing.len(), unit.size())?;
        Ok(unit)
    }

    /// Commits a unit in the transaction that its handler opened.
    pub(crate) async fn commit_through(
        &self,
        unit: Result<UnitOfWork, HandlerError>,
        transaction: Box<dyn OpenTransaction>,
    ) -> End {
        let unit = match unit {
            Ok(unit) => unit,
            Err(error) => {
                transaction.rollback().await;
                return End::Failed(error);
            }
        };
        faults::at(Point::BeforeTxCommit);
        match self
            .endpoint
            .committer
            .commit_through(transaction, unit)
            .await
        {
            Ok(Outcome::Committed) => End::Settled,
            Ok(Outcome::Duplicate) => End::Known,
            Ok(Outcome::Conflict) => End::Reload(MOVED.to_owned()),
            Err(error @ (StoreError::Busy(_) | StoreError::Unavailable(_))) => {
                End::Excused(chain(&error))
            }
            Err(StoreError::Unknown(error)) => {
                tracing::warn!(
                    error = chain(&*error),
                    "commit of a `Tx` is in doubt; redelivery will tell"
                );
                End::Abandoned
            }
            Err(error @ StoreError::TransactionEnded) => {
                End::Failed(HandlerError::from(error).terminal())
            }
            Err(error @ StoreError::Refused(_)) => {
                End::Failed(HandlerError::dead(Reason::RefusedByStore, error))
            }
            Err(error) => End::Failed(error.into()),
        }
    }

    /// Commits a unit in a group with others.
    pub(crate) fn commit_grouped(&self, unit: UnitOfWork) -> impl Future<Output = End> + Send {
        let answer = self.endpoint.committer.commit(unit);
        answer.map(|answer| match answer {
            Some(Answer::Done(Outcome::Committed)) => End::Settled,
            Some(Answer::Done(Outcome::Duplicate)) => End::Known,
            Some(Answer::Done(Outcome::Conflict)) => End::Reload(MOVED.to_owned()),
            Some(Answer::Refused(error)) => {
                End::Failed(HandlerError::dead(Reason::RefusedByStore, error))
            }
            None => End::Abandoned,
        })
    }

    /// Accepts the message without an effect, and records why.
    pub(crate) async fn commit_nothing(&self, note: &'static str) -> End {
        let staged = Staged {
            note: Some(note.into()),
            ..Staged::default()
        };
        self.commit_grouped(self.unit(staged, Instant::now())).await
    }

    pub(crate) fn unit(&self, staged: Staged, started: Instant) -> UnitOfWork {
        let envelope = self.arrival.envelope();
        let history = self.endpoint.keeps_history.then(|| HistoryEntry {
            endpoint: self.endpoint.id,
            message_id: envelope.id,
            message_type: envelope.message_type.clone(),
            correlation_id: envelope.correlation_id(),
            instance: staged
                .instance
                .as_ref()
                .map(|change| (change.id.clone(), change.expected + 1)),
            detail: self.detail(&staged, started),
        });
        UnitOfWork {
            sources: vec![self.source()],
            instance: staged.instance,
            outgoing: staged.outgoing,
            history: history.into_iter().collect(),
            failed: None,
        }
    }

    /// Tells people what a unit did.
    fn detail(&self, staged: &Staged, started: Instant) -> HistoryDetail {
        let causation = self.arrival.envelope().headers.get(headers::CAUSATION_ID);
        let instance = staged.instance.as_ref();
        let outgoing = staged.outgoing.iter();
        let timers = outgoing.clone().filter_map(|one| one.timer.as_ref());
        let armed: Vec<_> = timers.map(|timer| timer.name.clone()).collect();
        let disarmed = instance.map_or(&[][..], |change| &change.disarmed);
        let cancelled = disarmed.iter().filter(|name| !armed.contains(name));
        HistoryDetail {
            causation_id: causation.and_then(|id| id.parse().ok()),
            state_from: staged.state_from.clone(),
            state_to: instance.and_then(|change| change.state.clone()),
            is_over: instance.is_some_and(InstanceChange::is_over),
            sent: outgoing
                .map(|one| (one.envelope.id, one.envelope.message_type.clone()))
                .collect(),
            // Known when it is placed.
            placed: Vec::new(),
            cancelled: cancelled.cloned().collect(),
            armed,
            host: Some(self.endpoint.host.name.clone()),
            attempt: self.tries.failures() + 1,
            micros: u64::try_from(started.elapsed().as_micros()).unwrap_or(u64::MAX),
            note: staged.note.clone(),
        }
    }

    pub(crate) fn source(&self) -> Source {
        match &self.arrival {
            Arrival::Row(row) => Source::Row(row.row),
            Arrival::Delivery(delivery) => Source::Broker {
                endpoint: self.endpoint.id,
                message_id: delivery.envelope.id,
            },
        }
    }

    /// Writes the message down for later, with its attempts, and lets go of the original.
    pub(crate) async fn postpone(self, after: Duration) {
        self.endpoint.counters.postponed.increment();
        if let Arrival::Row(row) = &self.arrival {
            faults::at(Point::BeforeTakeOver);
            let release = self.release(row.row, after);
            self.endpoint.committer.settle(release).await;
            faults::at(Point::AfterTakeOver);
            return;
        }
        let copy = self.copy(after);
        self.write_down(copy).await;
    }

    /// Writes the message down for later outside its line, so that what it waits for may pass it.
    pub(crate) async fn set_aside(self, after: Duration) {
        let stands_in_line = self.endpoint.order == Order::PerKey && self.arrival.key().is_some();
        if !stands_in_line {
            return self.postpone(after).await;
        }
        self.endpoint.counters.postponed.increment();
        let mut copy = self.copy(after);
        copy.key = None;
        self.write_down(copy).await;
    }

    /// Releases the message's row, with what was recorded of its tries since it came.
    fn release(&self, row: RowKey, after: Duration) -> Settle {
        Settle::Release {
            row,
            after,
            attempts: self.tries.changed(),
            start: self.tries.start(),
        }
    }

    /// Copies the message for later, with its attempts.
    fn copy(&self, after: Duration) -> Outgoing {
        let destination = Destination::Endpoint(self.endpoint.name.clone());
        let mut copy = Outgoing::from_envelope(self.arrival.envelope().clone(), destination);
        copy.attempts = self.tries.all().to_vec();
        if !after.is_zero() {
            copy.due = Due::After(after);
        }
        copy
    }

    /// Commits a copy of the message in its place, and acks the original.
    async fn write_down(self, copy: Outgoing) {
        let unit = UnitOfWork {
            sources: vec![self.source()],
            outgoing: vec![copy],
            ..UnitOfWork::default()
        };
        faults::at(Point::BeforeTakeOver);
        let end = self.commit_grouped(unit).await;
        faults::at(Point::AfterTakeOver);
        match end {
            End::Settled => {
                if matches!(self.arrival, Arrival::Delivery(_)) {
                    self.endpoint.inflow.took_over();
                }
                self.ack().await;
            }
            End::Known => self.ack().await,
            // It can never be written down: coming again and again would not help it.
            End::Failed(error) => self.dead(Reason::RefusedByStore, Some(error.chain())).await,
            End::Reload(_) | End::Excused(_) | End::Abandoned => {}
        }
    }

    /// Stops trying: the message becomes a dead letter, with everything that is known.
    pub(crate) async fn dead(mut self, reason: Reason, error: Option<String>) {
        if let Some(error) = error {
            self.tries.fail(&self.endpoint.host.name, error);
        }
        let attempts = self.tries.latest(ATTEMPTS_KEPT);
        let mut envelope = self.arrival.envelope().clone();
        // What a broker delivers may have a type or key that no store keeps as text; nothing may
        // keep a message from becoming a dead letter. The key is in the headers, which are bytes.
        if envelope.message_type.contains('\0') {
            envelope.message_type = envelope.message_type.replace('\0', "\u{fffd}").into();
        }
        let key = self.arrival.key().filter(|key| !key.contains('\0'));
        let key = key.map(str::to_owned);
        let (id, message_type) = (envelope.id, envelope.message_type.clone());
        let last = attempts.last().map_or("", |one| one.error.as_str());
        let news = request::failure_of(&envelope, reason, last);
        let mut dead = DeadLetter {
            endpoint: self.endpoint.name.clone(),
            envelope,
            reason,
            attempts,
            key,
            instance: self.instance.take().filter(|id| !id.key.contains('\0')),
            key_after: self.endpoint.key_after,
        };
        let outgoing = self.told(&mut dead, news);
        let unit = UnitOfWork {
            sources: vec![self.source()],
            outgoing,
            failed: Some(Box::new(dead)),
            ..UnitOfWork::default()
        };
        faults::at(Point::BeforeDeadLetter);
        let end = self.commit_grouped(unit).await;
        faults::at(Point::AfterDeadLetter);
        match end {
            End::Settled => {
                self.endpoint.counters.dead_lettered.increment();
                let (endpoint, reason) = (&self.endpoint.name, reason.as_str());
                tracing::warn!(%id, %message_type, %endpoint, reason, "message is a dead letter");
                self.ack().await;
            }
            End::Known => {
                tracing::info!(%id, "message to be given up had ended before");
                self.ack().await;
            }
            End::Failed(error) => {
                tracing::error!(%id, error = error.chain(), "dead letter was refused; the message comes again");
            }
            End::Reload(_) | End::Excused(_) | End::Abandoned => {}
        }
    }

    /// Makes what tells of a dead letter, and the dead letter as it is stored.
    fn told(&self, dead: &mut DeadLetter, news: Option<Outgoing>) -> Vec<Outgoing> {
        let host = &self.endpoint.host;
        let protector = host.protector.as_deref();
        let opened = protector.and_then(|one| one.told_of(dead));
        let shown = opened.as_ref().unwrap_or(dead);
        // Placed by the routes as they are when it commits: nowhere, where nobody subscribed.
        let mut fault = fault_of(shown);
        if let Some(fault) = &mut fault {
            let headers = &mut fault.envelope.headers;
            headers.set(headers::SOURCE, host.name.clone());
        }
        let mirror = self.endpoint.mirror.as_ref();
        let mirrored = mirror.and_then(|one| one.event_of(shown, &host.name));
        let mut all: Vec<_> = news.into_iter().chain(fault).chain(mirrored).collect();
        let Some(protector) = protector else {
            return all;
        };
        all.retain_mut(|one| {
            let sealed = protector.seal_told(one, opened.is_some());
            if let Err(error) = &sealed {
                // What cannot be sealed is not told; the dead letter itself is written.
                let (id, error) = (dead.envelope.id, chain(error));
                tracing::error!(%id, error, "what tells of a dead letter cannot be sealed");
            }
            sealed.is_ok()
        });
        all
    }

    /// Gives back what waited for its turn: a row, or a broker's message that has waited for too
    /// long, which becomes one. At the end of the host the broker's message is simply let go.
    pub(crate) async fn give_back(self) {
        match &self.arrival {
            Arrival::Row(row) => {
                let release = self.release(row.row, Duration::ZERO);
                self.endpoint.committer.settle_all(vec![release]).await;
            }
            Arrival::Delivery(_) if self.endpoint.lifecycle.is_draining() => {}
            Arrival::Delivery(_) => self.postpone(Duration::ZERO).await,
        }
    }

    /// Lets go of a message whose commit is in doubt: it comes again, and the inbox or the epoch
    /// tells whether it was done.
    pub(crate) async fn abandon(mut self) {
        let after = Duration::from_millis(50);
        let row = match self.arrival {
            // The broker counts how often it comes again.
            Arrival::Delivery(delivery) => return delivery.retry_after(after).await,
            Arrival::Row(ref row) => row.row,
        };
        let cause = "the commit did not answer; its outcome is unknown".to_owned();
        self.tries.excuse(&self.endpoint.host.name, cause);
        if let Decision::Dead(reason) = self.retry().excuse(self.tries.excuses()) {
            return self.dead(reason, None).await;
        }
        let release = self.release(row, after);
        self.endpoint.committer.settle_all(vec![release]).await;
    }

    /// Tells the broker that the message is ours for good. A row is gone with its commit.
    pub(crate) async fn ack(self) {
        faults::at(Point::BeforeAck);
        if let Arrival::Delivery(delivery) = self.arrival {
            delivery.ack().await;
        }
        faults::at(Point::AfterAck);
    }
}

/// Refuses a unit that sends or writes more than one may.
fn check_bounds(messages: usize, bytes: usize) -> Result<(), HandlerError> {
    if messages <= UNIT_MESSAGES_MAX && bytes <= UNIT_BYTES_MAX {
        return Ok(());
    }
    let error = format!(
        "unit of {messages} messages and {bytes} bytes is larger than {UNIT_MESSAGES_MAX} messages or {UNIT_BYTES_MAX} bytes"
    );
    Err(HandlerError::dead(Reason::UnitTooLarge, error))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Class;

    #[test]
    fn a_unit_has_ten_thousand_messages_and_sixteen_mebibytes_at_most() {
        assert!(check_bounds(10_000, 16_777_216).is_ok());
        for (messages, bytes) in [(10_001, 0), (0, 16_777_217)] {
            let refused = check_bounds(messages, bytes).expect_err("it is too large");
            assert_eq!(refused.class(), Class::Dead(Reason::UnitTooLarge));
        }
    }
}
