//! What tests of single files begin with: units, and a store that does what it was told and writes
//! down what it was asked.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard};

use futures_util::future::BoxFuture;
use tokio::sync::{Notify, Semaphore};

use crate::backlog::Extended;
use crate::endpoint::EndpointId;
use crate::envelope::Envelope;
use crate::error::StoreError;
use crate::headers::Headers;
use crate::id::{InstanceId, MessageId};
use crate::lifecycle::Lifecycle;
use crate::store::{
    Answer, Attached, Birth, Claim, ClaimedRow, CommitReport, Extension, Group, Question,
    Registration, Retention, Store, Swept,
};
use crate::unit_of_work::{InstanceChange, InstanceStatus, Outcome, RowKey, Source, UnitOfWork};

/// Calls that no test needs: more are one call that is made for ever.
pub(crate) const MANY: usize = 50;
/// Of this endpoint every message was taken over before.
pub(crate) const KNOWING: EndpointId = EndpointId(7);

/// A store that commits and answers, but for what it was told.
#[derive(Debug)]
pub(crate) struct Scripted {
    /// What the first calls end with.
    first: Mutex<VecDeque<StoreError>>,
    /// The rows of units that do not commit.
    outcomes: HashMap<i64, Outcome>,
    /// The row of the unit that is refused.
    refused: Option<i64>,
    refuses_settles: bool,
    /// Told of each call when it comes.
    pub(crate) called: Notify,
    /// Calls that may go on.
    pub(crate) gate: Semaphore,
    committed: Mutex<Vec<Group>>,
    asked: Mutex<Vec<usize>>,
}

impl Default for Scripted {
    fn default() -> Self {
        Self {
            first: Mutex::default(),
            outcomes: HashMap::new(),
            refused: None,
            refuses_settles: false,
            called: Notify::new(),
            gate: Semaphore::new(MANY),
            committed: Mutex::default(),
            asked: Mutex::default(),
        }
    }
}

impl Scripted {
    /// Makes a store whose first calls end with these errors.
    pub(crate) fn saying(errors: impl IntoIterator<Item = StoreError>) -> Self {
        Self {
            first: Mutex::new(errors.into_iter().collect()),
            ..Self::default()
        }
    }

    /// Makes a store by which the units of these rows do not commit.
    pub(crate) fn ending(outcomes: impl IntoIterator<Item = (i64, Outcome)>) -> Self {
        Self {
            outcomes: outcomes.into_iter().collect(),
            ..Self::default()
        }
    }

    /// Makes a store that refuses the unit of a row, and all that is in its group.
    pub(crate) fn refusing(row: i64) -> Self {
        Self {
            refused: Some(row),
            ..Self::default()
        }
    }

    /// Makes a store that refuses settles, and all that is in their group.
    pub(crate) fn refusing_settles() -> Self {
        Self {
            refuses_settles: true,
            ..Self::default()
        }
    }

    /// Makes a store whose calls wait until its gate lets them through.
    pub(crate) fn closed() -> Self {
        Self {
            gate: Semaphore::new(0),
            ..Self::default()
        }
    }

    /// Returns the groups of all commit calls.
    pub(crate) fn committed(&self) -> Vec<Group> {
        lock(&self.committed).clone()
    }

    /// Returns the rows that each commit call answered, and how many settles it made.
    pub(crate) fn shapes(&self) -> Vec<(Vec<i64>, usize)> {
        let calls = lock(&self.committed);
        let shape = |group: &Group| (rows(&group.units), group.settles.len());
        calls.iter().map(shape).collect()
    }

    /// Returns how many questions each call had.
    pub(crate) fn asked(&self) -> Vec<usize> {
        lock(&self.asked).clone()
    }

    /// Writes a call down, and says what it ends with where that was told.
    async fn note<T>(&self, calls: &Mutex<Vec<T>>, call: T) -> Result<(), StoreError> {
        self.called.notify_one();
        self.gate
            .acquire()
            .await
            .expect("it is never closed")
            .forget();
        let mut calls = lock(calls);
        assert!(calls.len() < MANY, "the same call for ever");
        calls.push(call);
        match lock(&self.first).pop_front() {
            Some(error) => Err(error),
            None => Ok(()),
        }
    }

    fn decide(&self, group: &Group) -> Result<CommitReport, StoreError> {
        let rows = rows(&group.units);
        let is_refused = self.refused.is_some_and(|row| rows.contains(&row));
        if is_refused || self.refuses_settles && !group.settles.is_empty() {
            return Err(StoreError::Refused("not these".into()));
        }
        let outcome = |row| *self.outcomes.get(row).unwrap_or(&Outcome::Committed);
        let placements = group.placements.iter().zip(1..);
        let leased = placements.map(|(one, id)| {
            let row = RowKey { id, epoch: 1 };
            (one.birth == Birth::Leased).then_some(row)
        });
        Ok(CommitReport {
            outcomes: rows.iter().map(outcome).collect(),
            leased: leased.collect(),
        })
    }
}

impl Store for Scripted {
    fn attach<'a>(
        &'a self,
        _: &'a Registration,
        _: &'a Lifecycle,
    ) -> BoxFuture<'a, Result<Attached, StoreError>> {
        unreachable!("no host of a test has this store")
    }

    fn load<'a>(
        &'a self,
        questions: &'a [Question],
    ) -> BoxFuture<'a, Result<Vec<Answer>, StoreError>> {
        Box::pin(async move {
            self.note(&self.asked, questions.len()).await?;
            let answer = |question: &Question| Answer {
                is_taken_over: question.taken_over.is_some_and(|one| one.0 == KNOWING),
                ..Answer::default()
            };
            Ok(questions.iter().map(answer).collect())
        })
    }

    fn commit<'a>(&'a self, group: &'a Group) -> BoxFuture<'a, Result<CommitReport, StoreError>> {
        Box::pin(async move {
            self.note(&self.committed, group.clone()).await?;
            self.decide(group)
        })
    }

    fn claim<'a>(&'a self, _: &'a Claim) -> BoxFuture<'a, Result<Vec<ClaimedRow>, StoreError>> {
        unreachable!("nothing claims from this store")
    }

    fn extend<'a>(&'a self, _: &'a Extension) -> BoxFuture<'a, Result<Extended, StoreError>> {
        unreachable!("no host of a test has this store")
    }

    fn sweep<'a>(&'a self, _: &'a Retention) -> BoxFuture<'a, Result<Swept, StoreError>> {
        unreachable!("no host of a test has this store")
    }
}

/// Makes a unit that answers a row.
pub(crate) fn row(id: i64) -> UnitOfWork {
    UnitOfWork {
        sources: vec![Source::Row(RowKey { id, epoch: 1 })],
        ..UnitOfWork::default()
    }
}

/// Makes a unit of so many bytes that changes an instance.
pub(crate) fn moving(id: i64, key: &str, bytes: usize) -> UnitOfWork {
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

/// Makes a message without a body.
pub(crate) fn envelope(message_type: &'static str) -> Envelope {
    Envelope {
        id: MessageId::new(),
        message_type: message_type.into(),
        headers: Headers::new(),
        body: Default::default(),
    }
}

/// Returns the rows that units answer.
pub(crate) fn rows(units: &[UnitOfWork]) -> Vec<i64> {
    let sources = units.iter().flat_map(|unit| &unit.sources);
    let rows = sources.filter_map(|source| match source {
        Source::Row(row) => Some(row.id),
        Source::Broker { .. } => None,
    });
    rows.collect()
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("no test panics with it")
}
