//! A store whose every call may fail, be late, or lose its answer. Without faults it is the
//! in-memory store, and keeps the same contract.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::future::{BoxFuture, FutureExt};
use sagabus_core::backlog::Extended;
use sagabus_core::memory::MemoryStore;
use sagabus_core::store::{
    Answer, Attached, Claim, ClaimedRow, CommitReport, Extension, Group, Question, Registration,
    Retention, Swept,
};
use sagabus_core::unit_of_work::Outcome;
use sagabus_core::{Lifecycle, Store, StoreError};
use sagabus_model::Held;
use tokio::sync::watch;
use tokio::time::sleep;

use crate::fault::Fault;
use crate::guard::{self, Guard};
use crate::link::Link;
use crate::seen::{Ended, Seen};
use crate::world::Entry;

/// What a lease is where it never ends.
const FOR_EVER: Duration = Duration::from_secs(1000 * 24 * 3600);

/// The database that the hosts of a run share.
#[derive(Clone, Debug)]
pub(crate) struct Database {
    pub(crate) memory: MemoryStore,
    wakeups: Arc<Wakeups>,
    /// Owns what a server does after its client is gone.
    tasks: Lifecycle,
}

/// Each host has a channel of its own: of several that wait on one, tokio chooses by chance.
#[derive(Debug, Default)]
struct Wakeups {
    hosts: Mutex<Vec<(watch::Sender<u64>, bool)>>,
    news: Mutex<Option<watch::Receiver<u64>>>,
}

impl Database {
    pub(crate) fn new(tasks: &Lifecycle) -> Self {
        Self {
            memory: MemoryStore::new(),
            wakeups: Arc::default(),
            tasks: tasks.clone(),
        }
    }

    /// Returns one host's way to it. One that `hears` is woken when rows become available.
    pub(crate) fn store(&self, link: &Arc<Link>, hears: bool) -> SimStore {
        SimStore {
            database: self.clone(),
            link: Arc::clone(link),
            hears,
        }
    }

    fn tell(&self, link: &Link) {
        let mut news = self
            .wakeups
            .news
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let Some(news) = news
            .as_mut()
            .filter(|news| news.has_changed().is_ok_and(|it| it))
        else {
            return;
        };
        news.borrow_and_update();
        if link.world.happens(Fault::WakeupsLost, 100) {
            return;
        }
        let hosts = self.wakeups.hosts.lock();
        let hosts = hosts.unwrap_or_else(PoisonError::into_inner);
        for (host, _) in hosts.iter().filter(|(_, hears)| *hears) {
            host.send_modify(|count| *count += 1);
        }
    }
}

/// One host's way to the database.
#[derive(Clone, Debug)]
pub(crate) struct SimStore {
    database: Database,
    pub(crate) link: Arc<Link>,
    hears: bool,
}

/// What becomes of a commit's answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Doubt {
    Made,
    NotMade,
    MadeLate,
}

impl SimStore {
    /// Passes the way to the database, on which a call may be late, fail, or find its host gone.
    async fn go(&self, call: &str) -> Result<(), StoreError> {
        let world = &self.link.world;
        self.link.pass().await;
        if world.happens(Fault::KilledBeforeCall, 2) {
            self.link.kill(Fault::Killed);
        }
        if world.happens(Fault::StoreSlow, 15) {
            sleep(world.millis(20, 400)).await;
        } else if world.below(2) == 0 {
            sleep(world.millis(1, 4)).await;
        }
        self.link.pass().await;
        if world.happens(Fault::StoreFailed, 15) {
            world.note(format_args!("{} {call}: away", self.link.name));
            return Err(StoreError::Unavailable("simulated".into()));
        }
        Ok(())
    }

    /// Passes the way back.
    async fn come_back(&self) {
        let world = &self.link.world;
        self.database.tell(&self.link);
        if world.happens(Fault::KilledAfterCall, 2) {
            self.link.kill(Fault::Killed);
        }
        if world.below(2) == 0 {
            sleep(world.millis(1, 3)).await;
        }
        self.link.pass().await;
    }

    /// Makes a call that reads, or whose lost answer is found by the end of a lease.
    async fn ask<'t, T>(
        &self,
        call: &str,
        run: impl FnOnce() -> BoxFuture<'t, Result<T, StoreError>> + Send,
    ) -> Result<T, StoreError> {
        self.go(call).await?;
        let answer = run().await;
        let is_lost = self.link.world.happens(Fault::AnswerLost, 10);
        self.come_back().await;
        if is_lost {
            return Err(StoreError::Unknown("simulated".into()));
        }
        answer
    }

    /// Ends a handler's own transaction: its rows and its group together.
    pub(crate) async fn commit_with(
        &self,
        group: &Group,
        rows: Vec<Entry>,
    ) -> Result<CommitReport, StoreError> {
        let world = &self.link.world;
        self.go("commit tx").await?;
        if world.happens(Fault::TxDoubtNotMade, 10) {
            self.see(group, Ended::Unmade);
            return Err(StoreError::Unknown("simulated".into()));
        }
        let report = self.write(group).await;
        let is_won = report
            .as_ref()
            .is_ok_and(|report| report.outcomes.first() == Some(&Outcome::Committed));
        if is_won {
            world.lock().ledger.extend(rows);
        }
        let is_lost = is_won && world.happens(Fault::TxDoubtMade, 10);
        self.see_report(group, &report, !is_lost);
        self.come_back().await;
        if is_lost {
            return Err(StoreError::Unknown("simulated".into()));
        }
        report
    }

    async fn commit_or_doubt(&self, group: &Group) -> Result<CommitReport, StoreError> {
        let world = &self.link.world;
        self.go("commit").await?;
        let doubts = [
            (Fault::DoubtMade, Doubt::Made),
            (Fault::DoubtNotMade, Doubt::NotMade),
            (Fault::DoubtMadeLate, Doubt::MadeLate),
        ];
        let doubt = doubts.iter().find(|(fault, _)| world.happens(*fault, 12));
        let Some((_, doubt)) = doubt else {
            let report = self.write(group).await;
            self.see_report(group, &report, true);
            self.come_back().await;
            return report;
        };
        match doubt {
            Doubt::Made => {
                let report = self.write(group).await;
                self.see_report(group, &report, false);
            }
            Doubt::NotMade => self.see(group, Ended::Unmade),
            Doubt::MadeLate => {
                self.see(group, Ended::Later);
                let (late, group) = (self.clone(), group.clone());
                let after = world.millis(1, 300);
                self.database.tasks.spawn(async move {
                    sleep(after).await;
                    if let Ok(report) = late.write(&group).await {
                        late.see(&group, Ended::Landed(report));
                    }
                    late.database.tell(&late.link);
                });
            }
        }
        self.come_back().await;
        if *doubt != Doubt::Made && world.is_off(Guard::Doubt) {
            return Ok(CommitReport {
                outcomes: vec![Outcome::Committed; group.units.len()],
                leased: vec![None; group.placements.len()],
            });
        }
        Err(StoreError::Unknown("simulated".into()))
    }

    fn see(&self, group: &Group, ended: Ended) {
        self.link.world.see(Seen::Called {
            process: self.link.name.clone(),
            group: Arc::new(group.clone()),
            ended,
        });
    }

    /// Notes what the store decided, if it did.
    fn see_report(&self, group: &Group, report: &Result<CommitReport, StoreError>, is_heard: bool) {
        match report {
            Ok(report) if is_heard => self.see(group, Ended::Heard(report.clone())),
            Ok(report) => self.see(group, Ended::Unheard(report.clone())),
            Err(_) if is_heard => {}
            Err(_) => self.see(group, Ended::Unmade),
        }
    }

    /// Carries a commit out, as the server does, and notes what it wrote.
    async fn write(&self, group: &Group) -> Result<CommitReport, StoreError> {
        let (world, memory) = (&self.link.world, &self.database.memory);
        let report = match world.guard {
            None => memory.commit(group).await,
            Some(guard) => self.write_without(guard, group).await,
        };
        let Ok(report) = report else {
            world.note(format_args!("{} commit: {report:?}", self.link.name));
            return report;
        };
        let mut inner = world.lock();
        for (unit, outcome) in group.units.iter().zip(&report.outcomes) {
            match outcome {
                Outcome::Committed => {
                    let sent = unit.outgoing.iter().map(|one| one.envelope.id);
                    inner.written.extend(sent);
                }
                Outcome::Duplicate => inner.tally.count(Fault::DuplicateFound),
                Outcome::Conflict => inner.tally.count(Fault::ConflictFound),
            }
        }
        drop(inner);
        let (units, settles) = (group.units.len(), &group.settles);
        let sources = group.units.iter().flat_map(|unit| &unit.sources);
        world.note(format_args!(
            "{} commit {units} units: {:?} of {:?}, settles {settles:?}",
            self.link.name,
            report.outcomes,
            sources.collect::<Vec<_>>()
        ));
        Ok(report)
    }

    async fn write_without(&self, guard: Guard, group: &Group) -> Result<CommitReport, StoreError> {
        let memory = &self.database.memory;
        match guard {
            Guard::OneTransaction => {
                let (first, second) = guard::split(group);
                let mut report = memory.commit(&first).await?;
                // The process may end between the two.
                if self.link.is_dead() || self.link.world.happens(Fault::KilledAfterCall, 20) {
                    self.link.kill(Fault::Killed);
                    report.leased = vec![None; group.placements.len()];
                } else {
                    report.leased = memory.commit(&second).await?.leased;
                }
                Ok(report)
            }
            Guard::LoserKeepsNothing => {
                let report = memory.commit(group).await?;
                let losers = report.outcomes.iter().enumerate();
                for (index, _) in losers.filter(|(_, it)| **it == Outcome::Conflict) {
                    memory.commit(&guard::sources_of(group, index)).await?;
                }
                Ok(report)
            }
            _ => {
                let known = |question| {
                    let answers = memory.load(std::slice::from_ref(&question)).now_or_never();
                    answers?.ok()?.pop()?.instance
                };
                memory.commit(&guard::weakened(guard, group, known)).await
            }
        }
    }

    fn claim_seen<'a>(
        &'a self,
        claim: &'a Claim,
        number: Held,
    ) -> BoxFuture<'a, Result<Vec<ClaimedRow>, StoreError>> {
        Box::pin(async move {
            let rows = self.database.memory.claim(claim).await?;
            self.link.world.see(Seen::Claimed {
                process: self.link.name.clone(),
                number,
                rows: rows.clone(),
            });
            Ok(rows)
        })
    }

    fn lease(&self, lease: Duration) -> Duration {
        match self.link.world.is_off(Guard::LeaseEnds) {
            true => FOR_EVER,
            false => lease,
        }
    }
}

impl Store for SimStore {
    fn attach<'a>(
        &'a self,
        registration: &'a Registration,
        lifecycle: &'a Lifecycle,
    ) -> BoxFuture<'a, Result<Attached, StoreError>> {
        Box::pin(async move {
            let memory = &self.database.memory;
            let attach = || memory.attach(registration, lifecycle);
            let attached = self.ask("attach", attach).await?;
            let known = attached.endpoints.iter();
            let known = known.map(|(name, id)| (*id, name.clone()));
            self.link.world.lock().endpoints.extend(known);
            let (sender, receiver) = watch::channel(0);
            let wakeups = &self.database.wakeups;
            let mut news = wakeups.news.lock().unwrap_or_else(PoisonError::into_inner);
            news.get_or_insert(attached.wakeups);
            let hosts = wakeups.hosts.lock();
            let mut hosts = hosts.unwrap_or_else(PoisonError::into_inner);
            hosts.push((sender, self.hears));
            Ok(Attached {
                wakeups: receiver,
                ..attached
            })
        })
    }

    fn load<'a>(
        &'a self,
        questions: &'a [Question],
    ) -> BoxFuture<'a, Result<Vec<Answer>, StoreError>> {
        Box::pin(async move {
            let mut answers = self
                .ask("load", || self.database.memory.load(questions))
                .await?;
            if self.link.world.is_off(Guard::Inbox) {
                answers.iter_mut().for_each(|one| one.is_taken_over = false);
            }
            let (name, count) = (&self.link.name, answers.len());
            self.link
                .world
                .note(format_args!("{name} load {count} answers"));
            Ok(answers)
        })
    }

    fn commit<'a>(&'a self, group: &'a Group) -> BoxFuture<'a, Result<CommitReport, StoreError>> {
        Box::pin(async move {
            let group = Group {
                lease: self.lease(group.lease),
                ..group.clone()
            };
            self.commit_or_doubt(&group).await
        })
    }

    fn claim<'a>(&'a self, claim: &'a Claim) -> BoxFuture<'a, Result<Vec<ClaimedRow>, StoreError>> {
        Box::pin(async move {
            let claim = Claim {
                lease: self.lease(claim.lease),
                ..claim.clone()
            };
            let number = self.link.world.number();
            let claiming = || self.claim_seen(&claim, number);
            let asked = self.ask("claim", claiming).await;
            if asked.is_err() {
                self.link.world.see(Seen::ClaimLost(number));
            }
            let rows = asked?;
            if !rows.is_empty() {
                let keys: Vec<_> = rows.iter().map(|row| row.row).collect();
                let name = &self.link.name;
                self.link.world.note(format_args!("{name} claim {keys:?}"));
            }
            Ok(rows)
        })
    }

    fn extend<'a>(
        &'a self,
        extension: &'a Extension,
    ) -> BoxFuture<'a, Result<Extended, StoreError>> {
        Box::pin(async move {
            let extension = Extension {
                lease: self.lease(extension.lease),
                ..extension.clone()
            };
            self.ask("extend", || self.database.memory.extend(&extension))
                .await
        })
    }

    fn sweep<'a>(&'a self, retention: &'a Retention) -> BoxFuture<'a, Result<Swept, StoreError>> {
        Box::pin(self.ask("sweep", || self.database.memory.sweep(retention)))
    }
}
