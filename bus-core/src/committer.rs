//! Commits all waiting units and settles in one call, and tells each its outcome.
//!
//! A call takes whatever arrived while the previous one was under way: no linger, no tuning. This
//! is a database's group commit, one level up.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::stream::{FuturesUnordered, StreamExt};
use tokio::sync::{mpsc, oneshot};

use crate::attempt::failure_count;
use crate::backoff::{Backoff, jittered};
use crate::counters::Counters;
use crate::envelope::{Due, Outgoing};
use crate::error::StoreError;
use crate::faults::{self, Point};
use crate::id::InstanceId;
use crate::intake::{InHand, Intakes, Slot};
use crate::lifecycle::Lifecycle;
use crate::route::{Router, note_places};
use crate::store::{
    Birth, ClaimedRow, CommitReport, Group, OpenTransaction, Place, Placement, Store,
};
use crate::sync::time;
use crate::unit_of_work::{Outcome, RowKey, Settle, Source, UnitOfWork};

/// Units in one call. Measured: 400 instead of 100 adds 8 % of throughput for four times the
/// latency.
const UNITS_MAX: usize = 100;
/// Bytes in one call, which bounds memory and lock time. A single larger unit is its own group.
const BYTES_MAX: usize = 4 * 1024 * 1024;
/// Settles in one call: as many as a publisher's window has rows.
const SETTLES_MAX: usize = 1000;
/// Calls under way at once. Measured: two reach 1.5 times one, four add a tenth to that.
const CALLS_MAX: usize = 2;
/// Units that must wait before a second call starts beside the first; fewer would only split a
/// group in two, and each call costs as much as about twenty units. Measured: 64 instead of 32 makes
/// groups half as large again.
const SECOND_CALL_UNITS_MIN: usize = 64;
/// Entries that may wait. Every unit's message holds a place of its endpoint, so this is a
/// back-stop.
const WAITING_MAX: usize = 4096;

/// Gives units and settles to the committer. Cheap to clone.
#[derive(Clone, Debug)]
pub struct CommitterHandle {
    waiting: mpsc::Sender<Entry>,
    shared: Arc<Shared>,
}

/// What became of a unit.
#[derive(Debug)]
pub enum Answer {
    /// The store decided.
    Done(Outcome),
    /// The store refuses this unit's values, whatever else is in its group.
    Refused(StoreError),
}

#[derive(Debug)]
enum Entry {
    Unit(Box<UnitOfWork>, oneshot::Sender<Answer>),
    Settle(Settle, Option<oneshot::Sender<()>>),
}

/// What every commit needs.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) router: Arc<Router>,
    pub(crate) intakes: Arc<Intakes>,
    pub(crate) in_hand: Arc<InHand>,
    pub(crate) counters: Arc<Counters>,
    pub(crate) lease: Duration,
    pub(crate) lifecycle: Lifecycle,
}

impl CommitterHandle {
    /// Commits a unit, in a group with whatever else waits. `None`: the host was forced to stop
    /// and the outcome is unknown.
    ///
    /// # Cancel safety
    /// A dropped call's unit is committed all the same.
    pub fn commit(&self, unit: UnitOfWork) -> impl Future<Output = Option<Answer>> + Send {
        // Boxed before there is a future, which would carry it about.
        let unit = Box::new(unit);
        async move {
            let place = self.waiting.reserve().await.ok()?;
            let (answer, answered) = oneshot::channel();
            place.send(Entry::Unit(unit, answer));
            answered.await.ok()
        }
    }

    /// Settles a row, and waits until that is durable.
    ///
    /// # Cancel safety
    /// A dropped call's settle happens all the same.
    pub async fn settle(&self, settle: Settle) {
        let (done, is_done) = oneshot::channel();
        if self
            .waiting
            .send(Entry::Settle(settle, Some(done)))
            .await
            .is_ok()
        {
            let _ = is_done.await; // A lost settle is found by the end of the lease.
        }
    }

    /// Settles rows without waiting.
    ///
    /// # Cancel safety
    /// Settles that were not handed over are found by the end of their leases.
    pub async fn settle_all(&self, settles: Vec<Settle>) {
        for settle in settles {
            if self
                .waiting
                .send(Entry::Settle(settle, None))
                .await
                .is_err()
            {
                return;
            }
        }
    }

    /// Commits a unit through the transaction that its handler's own SQL opened.
    ///
    /// # Errors
    /// [`StoreError::Unknown`] when the answer was lost: the unit is left to redelivery.
    pub async fn commit_through(
        &self,
        transaction: Box<dyn OpenTransaction>,
        unit: UnitOfWork,
    ) -> Result<Outcome, StoreError> {
        let prepared = self.shared.prepare(vec![unit], Vec::new());
        let result = transaction.commit(&prepared.group).await;
        faults::at(Point::AfterTxCommit);
        match result {
            Ok(report) => {
                self.shared.counters.groups.increment();
                let outcome = report
                    .outcomes
                    .first()
                    .copied()
                    .unwrap_or(Outcome::Conflict);
                self.shared.count(outcome);
                self.shared.hand_over(prepared, &report);
                Ok(outcome)
            }
            Err(StoreError::StaleRoutes(routes)) => {
                self.shared.router.learn(*routes);
                Ok(Outcome::Conflict)
            }
            Err(error) => Err(error),
        }
    }

    /// Places a unit's messages by the current routes, all born available: for a transaction whose
    /// commit we shall not see.
    pub fn place(&self, mut unit: UnitOfWork) -> Group {
        let routes = self.shared.router.routes();
        let placements = self.shared.router.place(&routes, 0, &unit);
        note_places(&mut unit, &placements);
        Group {
            units: vec![unit],
            placements,
            settles: Vec::new(),
            routes_version: routes.version,
            lease: self.shared.lease,
        }
    }

    /// Returns the host's store.
    pub fn store(&self) -> &Arc<dyn Store> {
        &self.shared.store
    }

    /// Returns the owner of the host's tasks.
    pub fn lifecycle(&self) -> &Lifecycle {
        &self.shared.lifecycle
    }

    /// Returns the router.
    pub fn router(&self) -> &Arc<Router> {
        &self.shared.router
    }
}

/// Starts the committer; it ends when the last handle is dropped and everything is committed.
pub(crate) fn start(shared: Arc<Shared>) -> CommitterHandle {
    let (waiting, queue) = mpsc::channel(WAITING_MAX);
    let lifecycle = shared.lifecycle.clone();
    let loop_shared = Arc::clone(&shared);
    lifecycle.spawn_uncut(run(loop_shared, queue));
    CommitterHandle { waiting, shared }
}

async fn run(shared: Arc<Shared>, mut queue: mpsc::Receiver<Entry>) {
    let mut waiting = VecDeque::new();
    let mut arrived = Vec::with_capacity(UNITS_MAX);
    let mut calls: FuturesUnordered<BoxFuture<'static, ()>> = FuturesUnordered::new();
    let mut is_open = true;
    while is_open || !waiting.is_empty() || !calls.is_empty() {
        tokio::select! {
            biased;
            Some(()) = calls.next(), if !calls.is_empty() => {}
            n = queue.recv_many(&mut arrived, UNITS_MAX), if is_open && waiting.len() < WAITING_MAX => {
                is_open = n > 0;
                waiting.extend(arrived.drain(..));
            }
        }
        // Whatever else is there already belongs into this group, too.
        while waiting.len() < WAITING_MAX {
            match queue.try_recv() {
                Ok(entry) => waiting.push_back(entry),
                Err(_) => break,
            }
        }
        while may_start(calls.len(), waiting.len()) {
            calls.push(start_call(&shared, take_group(&mut waiting)));
        }
    }
}

/// Says whether another call should start beside those under way.
fn may_start(calls: usize, waiting: usize) -> bool {
    match calls {
        0 => waiting > 0,
        n if n < CALLS_MAX => waiting >= SECOND_CALL_UNITS_MIN,
        _ => false,
    }
}

/// What one call is made from.
#[derive(Default)]
struct Batch {
    units: Vec<UnitOfWork>,
    answers: Vec<oneshot::Sender<Answer>>,
    settles: Vec<Settle>,
    settled: Vec<oneshot::Sender<()>>,
}

/// Takes the oldest entries that may share a call.
fn take_group(waiting: &mut VecDeque<Entry>) -> Batch {
    let (mut batch, mut bytes) = (Batch::default(), 0);
    let units_max = waiting.len().min(UNITS_MAX);
    let mut inside = Inside {
        sources: HashSet::with_capacity(units_max),
        instances: HashSet::with_capacity(units_max),
        ..Inside::default()
    };
    let mut held_back = VecDeque::new();
    while batch.units.len() < UNITS_MAX && batch.settles.len() < SETTLES_MAX {
        let Some(entry) = waiting.pop_front() else {
            break;
        };
        match entry {
            Entry::Settle(settle, done) => {
                batch.settles.push(settle);
                batch.settled.extend(done);
            }
            Entry::Unit(unit, answer) => {
                let size = unit.size();
                let is_full = !batch.units.is_empty() && bytes + size > BYTES_MAX;
                if is_full || !inside.admits(&unit) {
                    held_back.push_back(Entry::Unit(unit, answer));
                    if is_full {
                        break;
                    }
                    continue;
                }
                bytes += size;
                batch.units.push(*unit);
                batch.answers.push(answer);
            }
        }
    }
    while let Some(entry) = held_back.pop_back() {
        waiting.push_front(entry);
    }
    batch
}

/// What the units of a group are about.
#[derive(Default)]
struct Inside {
    sources: HashSet<Source>,
    instances: HashSet<InstanceId>,
    has_held_key: bool,
    has_message: bool,
}

impl Inside {
    /// Says whether a unit may join, and notes it: at most one per source and per instance; and
    /// none that sends beside a dead letter that holds its key, which is written last: the message
    /// would stand before it.
    fn admits(&mut self, unit: &UnitOfWork) -> bool {
        let dead = unit.failed.as_deref();
        let holds_key = dead.is_some_and(|dead| dead.held_key().is_some());
        let sends = !unit.outgoing.is_empty();
        let change = unit.instance.as_ref();
        let is_known = unit.sources.iter().any(|one| self.sources.contains(one))
            || change.is_some_and(|change| self.instances.contains(&change.id))
            || holds_key && self.has_message
            || sends && self.has_held_key;
        if !is_known {
            self.sources.extend(unit.sources.iter().copied());
            self.instances
                .extend(change.map(|change| change.id.clone()));
            self.has_held_key |= holds_key;
            self.has_message |= sends;
        }
        !is_known
    }
}

/// Runs one call on a task of its own, which nothing cuts off.
fn start_call(shared: &Arc<Shared>, batch: Batch) -> BoxFuture<'static, ()> {
    let (done, is_done) = oneshot::channel();
    let task = Arc::clone(shared);
    shared.lifecycle.spawn_uncut(async move {
        let Batch {
            units,
            answers,
            settles,
            settled,
        } = batch;
        task.counters.settled.add(settles.len() as u64);
        task.commit(units, answers, settles).await;
        for one in settled {
            let _ = one.send(()); // Nobody has to wait for a settle.
        }
        let _ = done.send(()); // The loop is gone when the host was forced to stop.
    });
    Box::pin(async move {
        let _ = is_done.await; // A call that panicked is over, too.
    })
}

/// A group with the places that its leased rows will take.
pub(crate) struct Prepared {
    pub(crate) group: Group,
    slots: Vec<Option<Slot>>,
}

impl Shared {
    /// Places every message, and leases those that can go on in this process.
    pub(crate) fn prepare(&self, mut units: Vec<UnitOfWork>, settles: Vec<Settle>) -> Prepared {
        let routes = self.router.routes();
        let mut placements = Vec::new();
        for (index, unit) in units.iter_mut().enumerate() {
            if !unit.outgoing.is_empty() {
                let own = self.router.place(&routes, index, unit);
                note_places(unit, &own);
                placements.extend(own);
            }
        }
        let slots = placements
            .iter_mut()
            .map(|one| self.lease(&units, one))
            .collect();
        let (routes_version, lease) = (routes.version, self.lease);
        Prepared {
            group: Group {
                units,
                placements,
                settles,
                routes_version,
                lease,
            },
            slots,
        }
    }

    fn lease(&self, units: &[UnitOfWork], placement: &mut Placement) -> Option<Slot> {
        let outgoing = &units[placement.unit].outgoing[placement.outgoing];
        if placement.birth != Birth::Available || outgoing.due != Due::Now {
            return None;
        }
        let slot = self.intakes.reserve(&placement.place)?;
        placement.birth = Birth::Leased;
        Some(slot)
    }

    /// Commits until the store has decided on every unit.
    async fn commit(
        &self,
        units: Vec<UnitOfWork>,
        answers: Vec<oneshot::Sender<Answer>>,
        settles: Vec<Settle>,
    ) {
        let mut backoff = Backoff::new("commit");
        let mut prepared = self.prepare(units, settles);
        loop {
            faults::at(Point::BeforeCommit);
            let error = match self.store.commit(&prepared.group).await {
                Ok(report) => {
                    faults::at(Point::AfterCommit);
                    backoff.ended();
                    return self.answer(prepared, answers, &report);
                }
                Err(error) => error,
            };
            match error {
                StoreError::StaleRoutes(routes) => {
                    self.router.learn(*routes);
                    let Group { units, settles, .. } = prepared.group;
                    prepared = self.prepare(units, settles);
                }
                StoreError::Refused(_) => return self.split(prepared, answers, error).await,
                StoreError::Busy(_) => {
                    time::sleep(jittered(Duration::from_millis(5))).await;
                }
                error => {
                    if matches!(error, StoreError::Unknown(_)) {
                        self.counters.resubmitted.increment();
                    }
                    tokio::select! {
                        biased;
                        // Whoever waits learns that the outcome is not known.
                        () = self.lifecycle.forced() => return,
                        () = backoff.failed(&error) => {}
                    }
                }
            }
        }
    }

    /// Halves a refused group until the guilty unit is alone.
    fn split(
        &self,
        prepared: Prepared,
        mut answers: Vec<oneshot::Sender<Answer>>,
        error: StoreError,
    ) -> BoxFuture<'_, ()> {
        let Group {
            mut units, settles, ..
        } = prepared.group;
        drop(prepared.slots);
        Box::pin(async move {
            if units.is_empty() {
                let count = settles.len();
                tracing::error!(error = %error, count, "settles refused; their leases will end");
            } else if !settles.is_empty() {
                self.commit(Vec::new(), Vec::new(), settles).await;
                self.commit(units, answers, Vec::new()).await;
            } else if units.len() == 1 {
                if let Some(answer) = answers.pop() {
                    let _ = answer.send(Answer::Refused(error)); // Its message is redelivered.
                }
            } else {
                let half = units.len() / 2;
                let (more_units, more_answers) = (units.split_off(half), answers.split_off(half));
                self.commit(units, answers, Vec::new()).await;
                self.commit(more_units, more_answers, Vec::new()).await;
            }
        })
    }

    fn answer(
        &self,
        prepared: Prepared,
        answers: Vec<oneshot::Sender<Answer>>,
        report: &CommitReport,
    ) {
        self.counters.groups.increment();
        self.hand_over(prepared, report);
        for (answer, &outcome) in answers.into_iter().zip(&report.outcomes) {
            self.count(outcome);
            let _ = answer.send(Answer::Done(outcome)); // A caller that gave up does not ask.
        }
    }

    fn count(&self, outcome: Outcome) {
        match outcome {
            Outcome::Committed => self.counters.committed.increment(),
            Outcome::Duplicate => self.counters.duplicates.increment(),
            Outcome::Conflict => self.counters.conflicts.increment(),
        }
    }

    /// Lets the rows that were born leased go on in this process.
    fn hand_over(&self, prepared: Prepared, report: &CommitReport) {
        let Prepared { mut group, slots } = prepared;
        self.tell_parked(&group, report);
        let leased = slots.into_iter().zip(&report.leased).zip(&group.placements);
        for ((slot, row), placement) in leased {
            let (Some(slot), Some(row)) = (slot, row) else {
                continue;
            };
            faults::at(Point::BeforeHandOver);
            let outgoing = &mut group.units[placement.unit].outgoing[placement.outgoing];
            self.counters.handed_over.increment();
            slot.fill(born(*row, &placement.place, outgoing), &self.in_hand);
        }
    }
}

impl Shared {
    /// Says which messages were stored for an operator, because nobody takes them.
    fn tell_parked(&self, group: &Group, report: &CommitReport) {
        for placement in &group.placements {
            let is_stored = report.outcomes.get(placement.unit) == Some(&Outcome::Committed);
            if let (Birth::Parked(reason), true) = (placement.birth, is_stored) {
                self.counters.parked.increment();
                let envelope = &group.units[placement.unit].outgoing[placement.outgoing].envelope;
                let (id, message_type) = (envelope.id, &envelope.message_type);
                tracing::warn!(%id, %message_type, reason = reason.as_str(), "message is parked");
            }
        }
    }
}

/// Makes the claimed row that a message born leased is.
fn born(row: RowKey, place: &Place, outgoing: &Outgoing) -> ClaimedRow {
    let failures = i32::try_from(failure_count(&outgoing.attempts)).unwrap_or(i32::MAX);
    ClaimedRow {
        row,
        destination: place.as_stored(&outgoing.envelope.message_type),
        envelope: outgoing.envelope.clone(),
        key: outgoing.key.clone(),
        starts: failures.saturating_add(1),
        failures,
        solo_starts: 0,
        attempts: outgoing.attempts.clone(),
        timer: outgoing.timer.clone(),
        is_expired: false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::endpoint::{Destination, EndpointName};
    use crate::envelope::Envelope;
    use crate::headers::Headers;
    use crate::id::MessageId;
    use crate::unit_of_work::{DeadLetter, InstanceChange, InstanceStatus, KeyAfterDeath, Reason};

    fn row(id: i64) -> UnitOfWork {
        UnitOfWork {
            sources: vec![Source::Row(RowKey { id, epoch: 1 })],
            ..UnitOfWork::default()
        }
    }

    /// A unit of so many bytes that changes an instance.
    fn moving(id: i64, key: &str, bytes: usize) -> UnitOfWork {
        let mut unit = row(id);
        let change = |data: Vec<u8>| InstanceChange {
            id: InstanceId {
                kind: "test".into(),
                key: key.into(),
            },
            expected: 0,
            status: InstanceStatus::Running,
            state: None,
            schema_version: 1,
            data: data.into(),
            timers: Default::default(),
            disarmed: Vec::new(),
            origin: None,
            labels: None,
        };
        unit.instance = Some(change(Vec::new()));
        unit.instance = Some(change(vec![0; bytes.saturating_sub(unit.size())]));
        unit
    }

    fn envelope() -> Envelope {
        Envelope {
            id: MessageId::new(),
            message_type: "test.do".into(),
            headers: Headers::new(),
            body: Default::default(),
        }
    }

    fn sending(id: i64) -> UnitOfWork {
        let mut unit = row(id);
        unit.outgoing = vec![Outgoing::from_envelope(envelope(), Destination::Owner)];
        unit
    }

    fn dead(id: i64, key_after: KeyAfterDeath) -> UnitOfWork {
        let mut unit = row(id);
        unit.failed = Some(Box::new(DeadLetter {
            endpoint: EndpointName::new("work").expect("a usable name"),
            envelope: envelope(),
            reason: Reason::Terminal,
            attempts: Vec::new(),
            key: Some("k".to_owned()),
            instance: None,
            key_after,
        }));
        unit
    }

    /// Returns the rows that each call answers.
    fn groups(units: Vec<UnitOfWork>) -> Vec<Vec<i64>> {
        let entry = |unit| Entry::Unit(Box::new(unit), oneshot::channel().0);
        let mut waiting: VecDeque<_> = units.into_iter().map(entry).collect();
        let mut all = Vec::new();
        while !waiting.is_empty() {
            let batch = take_group(&mut waiting);
            assert_eq!(batch.units.len(), batch.answers.len());
            assert!(!batch.units.is_empty(), "a call that answers nobody");
            let ids = batch.units.iter().flat_map(|unit| &unit.sources);
            let ids = ids.filter_map(|source| match source {
                Source::Row(row) => Some(row.id),
                Source::Broker { .. } => None,
            });
            all.push(ids.collect());
        }
        all
    }

    #[test]
    fn a_second_call_starts_for_enough_units_only_and_a_third_never() {
        assert_eq!((may_start(0, 0), may_start(0, 1)), (false, true));
        let few = SECOND_CALL_UNITS_MIN - 1;
        assert_eq!((may_start(1, few), may_start(1, few + 1)), (false, true));
        assert!(!may_start(CALLS_MAX, WAITING_MAX));
    }

    #[test]
    fn a_call_has_so_many_units_and_settles_and_no_more() {
        let units = (0..).map(row).take(UNITS_MAX + 1).collect();
        let lengths: Vec<_> = groups(units).iter().map(Vec::len).collect();
        assert_eq!(lengths, [UNITS_MAX, 1]);

        let settle = |id| Entry::Settle(Settle::Delete(RowKey { id, epoch: 1 }), None);
        let mut waiting: VecDeque<_> = (0..).map(settle).take(SETTLES_MAX + 1).collect();
        assert_eq!(take_group(&mut waiting).settles.len(), SETTLES_MAX);
        assert_eq!(take_group(&mut waiting).settles.len(), 1);
    }

    #[test]
    fn a_call_has_so_many_bytes_unless_one_unit_has_more() {
        let half = BYTES_MAX / 2;
        let fit = vec![
            moving(1, "a", half),
            moving(2, "b", half),
            moving(3, "c", 0),
        ];
        assert_eq!(groups(fit), [vec![1, 2], vec![3]]);
        // Nothing overtakes what is too large for this call.
        let larger = vec![
            moving(1, "a", half),
            moving(2, "b", 2 * BYTES_MAX),
            moving(3, "c", 1),
        ];
        assert_eq!(groups(larger), [vec![1], vec![2], vec![3]]);
    }

    #[test]
    fn a_call_has_one_unit_for_each_source_and_instance_and_the_rest_keeps_its_order() {
        let same = vec![
            moving(1, "a", 0),
            moving(2, "a", 0),
            moving(3, "b", 0),
            moving(4, "a", 0),
        ];
        assert_eq!(groups(same), [vec![1, 3], vec![2], vec![4]]);
        assert_eq!(groups(vec![row(1), row(1), row(2)]), [vec![1, 2], vec![1]]);
    }

    #[test]
    fn nothing_is_sent_in_one_call_with_a_dead_letter_that_holds_its_key() {
        let (waits, goes_on) = (KeyAfterDeath::Waits, KeyAfterDeath::GoesOn);
        let before = vec![sending(1), dead(2, waits), sending(3)];
        assert_eq!(groups(before), [vec![1, 3], vec![2]]);
        let behind = vec![dead(1, waits), sending(2), dead(3, waits), row(4)];
        assert_eq!(groups(behind), [vec![1, 3, 4], vec![2]]);
        let free = vec![sending(1), dead(2, goes_on), sending(3)];
        assert_eq!(groups(free), [vec![1, 2, 3]]);
    }
}
