//! Commits all waiting units and settles in one call, and tells each its outcome.
//!
//! A call takes whatever arrived while the previous one was under way: no linger, no tuning. This
//! is a database's group commit, one level up.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::stream::{FuturesUnordered, StreamExt};
use tokio::sync::{mpsc, oneshot};

use crate::attempt::failure_count;
use crate::backoff::{Backoff, jittered};
use crate::counters::Counters;
use crate::endpoint::Destination;
use crate::envelope::{Due, Outgoing};
use crate::error::StoreError;
use crate::faults::{self, Point};
use crate::grouping::{Batch, Entry, UNITS_MAX, take_group};
use crate::intake::{InHand, Intakes, Slot};
use crate::lifecycle::Lifecycle;
use crate::observer::Observers;
use crate::route::{Router, note_places};
use crate::store::{
    Birth, ClaimedRow, CommitReport, Group, OpenTransaction, Place, Placement, Store,
};
use crate::sync::time;
use crate::unit_of_work::{Outcome, RowKey, Settle, UnitOfWork};

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

/// What every commit needs.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) router: Arc<Router>,
    pub(crate) intakes: Arc<Intakes>,
    pub(crate) in_hand: Arc<InHand>,
    pub(crate) counters: Arc<Counters>,
    pub(crate) observers: Arc<Observers>,
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
        self.count_unheard(&group, report);
        self.observers.tell(&mut group.units, report);
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

impl Shared {
    /// Counts the events that became no row. Placements come in the order of units and messages.
    fn count_unheard(&self, group: &Group, report: &CommitReport) {
        let mut placed = group.placements.iter().peekable();
        for (unit, (work, outcome)) in group.units.iter().zip(&report.outcomes).enumerate() {
            for (outgoing, one) in work.outgoing.iter().enumerate() {
                let is_its = |at: &&Placement| (at.unit, at.outgoing) == (unit, outgoing);
                let has_row = placed.next_if(is_its).is_some();
                while placed.next_if(is_its).is_some() {}
                let is_event = one.destination == Destination::Subscribers;
                if is_event && !has_row && *outcome == Outcome::Committed {
                    self.counters.unheard.increment();
                }
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
    use std::collections::HashMap;
    use std::pin::pin;

    use futures_util::future::join_all;

    use super::*;
    use crate::endpoint::{EndpointId, EndpointName, Order};
    use crate::intake::{Arrival, Intake, Work};
    use crate::scripted::{MANY, Scripted, envelope, row, rows};
    use crate::store::{Routes, Target};
    use crate::transports::Transports;
    use crate::unit_of_work::Reason;

    /// A transaction of a handler that ends as it was told.
    struct Opened(Result<CommitReport, StoreError>);

    impl OpenTransaction for Opened {
        fn commit<'a>(
            self: Box<Self>,
            _: &'a Group,
        ) -> BoxFuture<'a, Result<CommitReport, StoreError>> {
            Box::pin(std::future::ready(self.0))
        }

        fn rollback(self: Box<Self>) -> BoxFuture<'static, ()> {
            Box::pin(std::future::ready(()))
        }
    }

    fn settle(id: i64) -> Settle {
        Settle::Delete(RowKey { id, epoch: 1 })
    }

    fn event(message_type: &'static str) -> Outgoing {
        Outgoing::from_envelope(envelope(message_type), Destination::Subscribers)
    }

    fn outgoing(message_type: &'static str, due: Due) -> Outgoing {
        let mut one = Outgoing::from_envelope(envelope(message_type), Destination::Owner);
        one.due = due;
        one
    }

    fn work() -> EndpointName {
        EndpointName::new("work").expect("a usable name")
    }

    /// Routes by which `test.do` goes to the endpoint `work`, and nobody takes anything else.
    fn routes(version: i64) -> Routes {
        let target = Target {
            id: EndpointId(1),
            name: work(),
            order: Order::Unordered,
        };
        Routes {
            version,
            subscribers: [("test.do".to_owned(), [target].into())].into(),
            endpoints: HashMap::new(),
        }
    }

    fn shared(store: &Arc<Scripted>, routes: Routes) -> Arc<Shared> {
        Arc::new(Shared {
            store: Arc::clone(store) as Arc<dyn Store>,
            router: Arc::new(Router::new(routes, Arc::new(Transports::default()))),
            intakes: Arc::default(),
            in_hand: Arc::default(),
            counters: Arc::default(),
            observers: Arc::default(),
            lease: Duration::from_secs(30),
            lifecycle: Lifecycle::new(),
        })
    }

    fn is_committed(answer: &Option<Answer>) -> bool {
        matches!(answer, Some(Answer::Done(Outcome::Committed)))
    }

    #[test]
    fn a_second_call_starts_for_enough_units_only_and_a_third_never() {
        assert_eq!((may_start(0, 0), may_start(0, 1)), (false, true));
        let few = SECOND_CALL_UNITS_MIN - 1;
        assert_eq!((may_start(1, few), may_start(1, few + 1)), (false, true));
        assert!(!may_start(CALLS_MAX, WAITING_MAX));
    }

    #[tokio::test]
    async fn a_call_takes_all_that_waits_and_the_end_waits_for_it() {
        let store = Arc::new(Scripted::closed());
        let (waiting, queue) = mpsc::channel(WAITING_MAX);
        for id in 0..300 {
            let entry = Entry::Settle(settle(id), None);
            waiting.try_send(entry).expect("there is room");
        }
        drop(waiting);
        let mut running = pin!(run(shared(&store, routes(1)), queue));
        tokio::select! {
            biased;
            () = &mut running => panic!("it ended before its call"),
            () = store.called.notified() => {}
        }
        store.gate.add_permits(MANY);
        running.await;
        assert_eq!(store.shapes(), [(vec![], 300)]);
    }

    #[tokio::test]
    async fn a_settle_is_durable_when_it_was_waited_for() {
        let store = Arc::new(Scripted::closed());
        let shared = shared(&store, routes(1));
        let committer = start(Arc::clone(&shared));
        let mut settling = Box::pin(committer.settle(settle(1)));
        tokio::select! {
            biased;
            () = &mut settling => panic!("it was not durable"),
            () = store.called.notified() => {}
        }
        store.gate.add_permits(1);
        settling.await;
        // Nobody waits for these: the store is not even open.
        committer.settle_all(vec![settle(2), settle(3)]).await;
        store.gate.add_permits(1);
        drop(committer);
        assert!(shared.lifecycle.stop(Duration::from_secs(10)).await);
        assert_eq!(store.shapes(), [(vec![], 1), (vec![], 2)]);
        assert_eq!(shared.counters.settled.get(), 3);
    }

    /// Returns how many groups were called, and how many units ended in each way.
    fn ends(counters: &Counters) -> [u64; 4] {
        let ends = [
            &counters.groups,
            &counters.committed,
            &counters.duplicates,
            &counters.conflicts,
        ];
        ends.map(|one| one.get())
    }

    #[tokio::test]
    async fn each_unit_learns_its_own_outcome_and_outcomes_are_counted() {
        let outcomes = [
            (2, Outcome::Duplicate),
            (3, Outcome::Duplicate),
            (4, Outcome::Conflict),
            (5, Outcome::Conflict),
            (6, Outcome::Conflict),
        ];
        let store = Arc::new(Scripted::ending(outcomes));
        let shared = shared(&store, routes(1));
        let committer = start(Arc::clone(&shared));
        let answers = join_all((1..=6).map(|id| committer.commit(row(id)))).await;
        assert!(is_committed(&answers[0]));
        for (row, expected) in outcomes {
            let answer = answers.get(usize::try_from(row - 1).expect("rows begin with 1"));
            let is_it = matches!(answer, Some(Some(Answer::Done(one))) if *one == expected);
            assert!(is_it, "{row}: {answer:?}");
        }
        assert_eq!(ends(&shared.counters), [1, 1, 2, 3]);
    }

    #[tokio::test]
    async fn a_refused_unit_is_alone_in_the_end_and_the_others_are_committed() {
        let store = Arc::new(Scripted::refusing(3));
        let committer = start(shared(&store, routes(1)));
        let committing = join_all((1..=5).map(|id| committer.commit(row(id))));
        let (answers, ()) = tokio::join!(committing, committer.settle(settle(9)));
        let (refused, others): (Vec<_>, Vec<_>) = (1..).zip(&answers).partition(|(id, _)| *id == 3);
        assert!(matches!(refused[..], [(_, Some(Answer::Refused(_)))]));
        assert!(others.iter().all(|(_, answer)| is_committed(answer)));
        let halves = [
            (vec![1, 2, 3, 4, 5], 1),
            (vec![], 1),
            (vec![1, 2, 3, 4, 5], 0),
            (vec![1, 2], 0),
            (vec![3, 4, 5], 0),
            (vec![3], 0),
            (vec![4, 5], 0),
        ];
        assert_eq!(store.shapes(), halves);
    }

    #[tokio::test]
    async fn a_refused_settle_is_left_to_its_lease_and_refuses_no_unit() {
        let store = Arc::new(Scripted::refusing_settles());
        let committer = start(shared(&store, routes(1)));
        let (answer, ()) = tokio::join!(committer.commit(row(1)), committer.settle(settle(9)));
        assert!(is_committed(&answer));
        assert_eq!(store.shapes(), [(vec![1], 1), (vec![], 1), (vec![1], 0)]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_that_failed_is_made_again_with_the_same_values() {
        let store = Arc::new(Scripted::saying([
            StoreError::Unknown("the connection broke".into()),
            StoreError::Unavailable("it restarts".into()),
            StoreError::Busy("a lock".into()),
        ]));
        let shared = shared(&store, routes(1));
        let committer = start(Arc::clone(&shared));
        assert!(is_committed(&committer.commit(row(1)).await));
        assert_eq!(store.shapes(), vec![(vec![1], 0); 4]);
        let counters = &shared.counters;
        let counted = [&counters.resubmitted, &counters.groups, &counters.committed];
        assert_eq!(counted.map(|one| one.get()), [1, 1, 1]);
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_at_a_forced_stop_learns_that_nothing_is_known() {
        let away = || StoreError::Unavailable("it is away".into());
        let store = Arc::new(Scripted::saying(std::iter::repeat_with(away).take(MANY)));
        let shared = shared(&store, routes(1));
        let committer = start(Arc::clone(&shared));
        let committing = async move {
            // Its loop ends with the last handle.
            committer.commit(row(1)).await
        };
        let stopping = shared.lifecycle.stop(Duration::ZERO);
        let (answer, is_clean) = tokio::join!(committing, stopping);
        assert!(answer.is_none() && !is_clean);
    }

    #[tokio::test]
    async fn messages_are_placed_anew_where_subscriptions_changed() {
        let stale = StoreError::StaleRoutes(Box::new(routes(7)));
        let store = Arc::new(Scripted::saying([stale]));
        let committer = start(shared(&store, Routes::default()));
        let mut unit = row(1);
        unit.outgoing = vec![outgoing("test.do", Due::Now)];
        assert!(is_committed(&committer.commit(unit).await));
        let placed = |group: &Group| {
            let place = &group.placements[0].place;
            (group.routes_version, place.as_stored("test.do"))
        };
        let places: Vec<_> = store.committed().iter().map(placed).collect();
        assert_eq!(
            places,
            [(0, "?test.do".to_owned()), (7, "@work".to_owned())]
        );
    }

    #[tokio::test]
    async fn a_message_goes_on_here_where_it_is_due_and_has_room() {
        let store = Arc::new(Scripted::ending([(2, Outcome::Duplicate)]));
        let shared = shared(&store, routes(1));
        let (intake, mut works) = Intake::new(1);
        shared.intakes.open([(work(), intake)].into());
        let committer = start(Arc::clone(&shared));
        let (mut unit, mut known) = (row(1), row(2));
        unit.outgoing = vec![
            outgoing("test.do", Due::After(Duration::from_secs(1))),
            outgoing("test.do", Due::Now),
            outgoing("test.do", Due::Now),
            outgoing("test.nobodys", Due::Now),
            event("test.unheard"),
        ];
        known.outgoing = vec![outgoing("test.nobodys", Due::Now), event("test.unheard")];
        let first_due = unit.outgoing[1].envelope.id;
        let committing = [unit, known].map(|unit| committer.commit(unit));
        let answers = join_all(committing).await;
        assert!(is_committed(&answers[0]));

        let placements = &store.committed()[0].placements;
        let births: Vec<_> = placements.iter().map(|one| one.birth).collect();
        let parked = Birth::Parked(Reason::NoOwner);
        let (leased, available) = (Birth::Leased, Birth::Available);
        assert_eq!(births, [available, leased, available, parked, parked]);
        let Ok(Work {
            arrival: Arrival::Row(row),
            ..
        }) = works.try_recv()
        else {
            panic!("nothing was handed over");
        };
        assert_eq!((row.envelope.id, &*row.destination), (first_due, "@work"));
        assert_eq!((row.starts, row.failures), (1, 0));
        assert!(works.try_recv().is_err(), "there was room for one");
        assert_eq!(shared.in_hand.rows(), [row.row]);
        // What was known already is parked by whoever committed it.
        let counters = &shared.counters;
        assert_eq!((counters.handed_over.get(), counters.parked.get()), (1, 1));
        assert_eq!(counters.unheard.get(), 1);
    }

    #[tokio::test]
    async fn what_others_commit_is_placed_for_whoever_comes_first() {
        let store = Arc::new(Scripted::default());
        let shared = shared(&store, routes(3));
        let (intake, _works) = Intake::new(1);
        shared.intakes.open([(work(), intake)].into());
        let mut unit = row(1);
        unit.outgoing = vec![outgoing("test.do", Due::Now)];
        let group = start(shared).place(unit);
        let births: Vec<_> = group.placements.iter().map(|one| one.birth).collect();
        assert_eq!(
            (rows(&group.units), births),
            (vec![1], vec![Birth::Available])
        );
        assert_eq!((group.routes_version, group.lease.as_secs()), (3, 30));
    }

    #[tokio::test]
    async fn a_handlers_own_transaction_ends_as_its_store_says() {
        let store = Arc::new(Scripted::default());
        let shared = shared(&store, routes(1));
        let committer = start(Arc::clone(&shared));
        let through = async |said| {
            let opened = Box::new(Opened(said));
            committer.commit_through(opened, row(1)).await
        };
        let report = |outcome| CommitReport {
            outcomes: vec![outcome],
            leased: Vec::new(),
        };
        for outcome in [Outcome::Committed, Outcome::Duplicate, Outcome::Conflict] {
            let said = through(Ok(report(outcome))).await;
            assert!(matches!(said, Ok(one) if one == outcome), "{said:?}");
        }
        assert_eq!(ends(&shared.counters), [3, 1, 1, 1]);
        // Its handler runs again, by the routes as they are.
        let said = through(Err(StoreError::StaleRoutes(Box::new(routes(7))))).await;
        assert!(matches!(said, Ok(Outcome::Conflict)), "{said:?}");
        assert_eq!(shared.router.routes().version, 7);
        let said = through(Err(StoreError::Unknown("the connection broke".into()))).await;
        assert!(matches!(said, Err(StoreError::Unknown(_))), "{said:?}");
    }
}
