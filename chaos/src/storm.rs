//! The seeded schedule: what is done to whom, and how often it really happened.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Result;
use sqlx::{Connection, PgConnection};
use tokio::time::Instant;

use crate::dice::Dice;
use crate::fault::{self, Fault, Schedule};
use crate::process::{Gone, Replica};
use crate::service::LEASE;
use crate::site::{Can, Engine, Site, blocking};

/// How long the server is down at most.
const DOWN_MAX: u64 = 600;
/// How long a disk is full.
const FULL_MIN: u64 = 600;
const FULL_MAX: u64 = 2400;
/// How much longer than planned a storm lasts at most, until a publication was held.
const HELD_WITHIN: Duration = Duration::from_secs(30);
const END_ALL: &str = "select count(pg_terminate_backend(pid)) from pg_stat_activity \
    where datname = current_database() and pid <> pg_backend_pid()";

/// What is to be done.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) faults: Vec<Fault>,
    pub(crate) schedule: Schedule,
    pub(crate) time: Duration,
}

impl Plan {
    /// Says whether hosts are told to go and nothing else happens to them: then what each handled
    /// is its own doing.
    pub(crate) fn only_terminates(&self) -> bool {
        self.faults == [Fault::Terminate]
    }
}

/// The storm and its victims.
pub(crate) struct Storm<'a> {
    pub(crate) site: &'a mut Site,
    pub(crate) replicas: &'a mut [Replica],
    pub(crate) dice: Dice,
    /// What happened, and how often.
    pub(crate) seen: BTreeMap<&'static str, u64>,
    thawing: Vec<(usize, Instant)>,
}

impl<'a> Storm<'a> {
    pub(crate) fn new(site: &'a mut Site, replicas: &'a mut [Replica], seed: u64) -> Self {
        Self {
            site,
            replicas,
            dice: Dice::new(seed),
            seen: BTreeMap::new(),
            thawing: Vec::new(),
        }
    }

    /// Does each thing once, however long that takes on a busy machine, and then what the dice say,
    /// until the time is over. A publication that was not held within its window until then, because
    /// its host was killed or because it was alone, is held now, while nothing else happens.
    pub(crate) async fn rage(&mut self, plan: &Plan) -> Result<()> {
        let end = Instant::now() + plan.time;
        let weighed = plan.faults.iter().filter(|fault| self.can(**fault));
        let weighed = weighed.map(|fault| (*fault, fault.weight(plan.schedule)));
        let possible: Vec<_> = weighed.filter(|(_, weight)| *weight > 0).collect();
        let mut first: Vec<_> = possible.iter().map(|(fault, _)| *fault).collect();
        let holds = possible.iter().any(|one| one.0 == Fault::StallPublication);
        loop {
            let now = Instant::now();
            let is_over = now >= end && first.is_empty();
            let is_held = !holds || self.site.publications.was_held_within();
            if is_over && (is_held || now >= end + HELD_WITHIN) {
                break;
            }
            let next = if !is_over {
                first.pop().or_else(|| choose(&possible, &mut self.dice))
            } else {
                let is_free = !self.site.publications.is_to_hold();
                is_free.then_some(Fault::StallPublication)
            };
            if let Some(fault) = next {
                self.strike(fault).await?;
            }
            let (least, most) = plan.schedule.pause;
            let pause = self.dice.millis(least, most);
            tokio::time::sleep(pause).await;
            self.look_after().await?;
        }
        self.calm().await
    }

    fn can(&self, fault: Fault) -> bool {
        matches!(self.site.can(fault), Can::Do)
    }

    pub(crate) fn count(&mut self, what: &'static str, n: u64) {
        if n > 0 {
            *self.seen.entry(what).or_default() += n;
        }
    }

    pub(crate) async fn strike(&mut self, fault: Fault) -> Result<()> {
        let victim = self.dice.below(self.replicas.len() as u64) as usize;
        match fault {
            Fault::Kill => self.kill(victim).await?,
            Fault::Freeze => {
                let lease = u64::try_from(LEASE.as_millis())?;
                let time = self.dice.millis(lease * 6 / 5, lease * 5 / 2);
                self.replicas[victim].freeze();
                self.thawing.push((victim, Instant::now() + time));
                self.count(fault::FROZEN, 1);
            }
            Fault::Terminate => self.terminate(victim).await?,
            Fault::EndConnections => self.end_connections().await?,
            Fault::CutConnections => {
                let open = self.site.cut_connections().await;
                self.count(fault::CUT, 1);
                self.count(fault::CUT_OPEN, open);
            }
            Fault::CrashDatabase => self.crash_database().await,
            Fault::FillDisk => self.fill_disk().await?,
            Fault::StepClock => self.step_clock()?,
            Fault::StallPublication => self.site.stall_publication(&mut self.dice),
            Fault::KillBroker => {
                self.site.kill_broker();
                self.count(fault::BROKER_KILLED, 1);
            }
            // These strike by themselves, where a call passes.
            Fault::CutCommits | Fault::CutPublications => {}
        }
        Ok(())
    }

    /// The next host that has started, if one has.
    fn one_that_runs(&self, first: usize) -> Option<usize> {
        let mut order = (first..self.replicas.len()).chain(0..first);
        order.find(|at| self.replicas[*at].is_up())
    }

    /// Tells the next host that runs to go, if one does.
    async fn terminate(&mut self, first: usize) -> Result<()> {
        let Some(victim) = self.one_that_runs(first) else {
            return Ok(());
        };
        self.thaw(victim);
        let gone = self.replicas[victim].terminate().await;
        self.count(fault::TOLD, 1);
        self.count_gone(gone);
        self.replicas[victim].start()
    }

    /// Kills the next host that runs, if one does.
    async fn kill(&mut self, first: usize) -> Result<()> {
        let Some(victim) = self.one_that_runs(first) else {
            return Ok(());
        };
        let is_there = !self.replicas[victim].has_ended();
        self.replicas[victim].kill().await;
        self.count(fault::KILLED, u64::from(is_there));
        self.replicas[victim].start()
    }

    async fn end_connections(&mut self) -> Result<()> {
        if let Engine::Postgres { server, .. } = &self.site.engine {
            let mut connection = PgConnection::connect(&server.url()).await?;
            let ended: i64 = sqlx::query_scalar(END_ALL)
                .fetch_one(&mut connection)
                .await?;
            self.count(fault::ENDED, u64::try_from(ended)?);
        }
        Ok(())
    }

    async fn crash_database(&mut self) {
        let pause = self.dice.millis(0, DOWN_MAX);
        if let Engine::Postgres { server, .. } = &self.site.engine {
            blocking(|| server.crash());
            tokio::time::sleep(pause).await;
            blocking(|| server.restart());
            self.count(fault::CRASHED, 1);
        }
    }

    async fn fill_disk(&mut self) -> Result<()> {
        let time = self.dice.millis(FULL_MIN, FULL_MAX);
        if let Some(disk) = &self.site.disk {
            disk.fill()?;
            tokio::time::sleep(time).await;
            disk.make_room()?;
            self.count(fault::FILLED, 1);
        }
        Ok(())
    }

    fn step_clock(&mut self) -> Result<()> {
        if let Some(clock) = &mut self.site.clock {
            clock.step(&mut self.dice)?;
        }
        Ok(())
    }

    fn count_gone(&mut self, gone: Gone) {
        match gone {
            Gone::InTime => {}
            Gone::TooLate => self.count(fault::TOO_LATE, 1),
            Gone::Badly => self.count(fault::BADLY, 1),
        }
    }

    fn thaw(&mut self, victim: usize) {
        self.thawing.retain(|(one, _)| *one != victim);
        self.replicas[victim].thaw();
    }

    /// Lets frozen hosts go on whose time has come, and starts again who ended by himself.
    async fn look_after(&mut self) -> Result<()> {
        let now = Instant::now();
        let due: Vec<_> = self
            .thawing
            .iter()
            .filter(|(_, at)| *at <= now)
            .copied()
            .collect();
        for (victim, _) in due {
            self.thaw(victim);
        }
        if let Some(clock) = &mut self.site.clock {
            let seen = clock.look(&self.replicas[clock.host()]);
            self.count(fault::STEPPED, u64::from(seen));
        }
        for at in 0..self.replicas.len() {
            if self.replicas[at].is_stuck() {
                self.replicas[at].kill().await;
                self.count(fault::STUCK, 1);
            }
            if self.replicas[at].has_ended() {
                self.count("hosts that gave up starting", 1);
                self.replicas[at].start()?;
            }
        }
        Ok(())
    }

    /// Lets everything run, and whoever died meanwhile again.
    pub(crate) async fn calm(&mut self) -> Result<()> {
        for victim in 0..self.replicas.len() {
            self.thaw(victim);
        }
        self.look_after().await
    }

    /// Tells all hosts to go.
    pub(crate) async fn end(&mut self) {
        for at in 0..self.replicas.len() {
            let gone = self.replicas[at].terminate().await;
            self.count(fault::TOLD, 1);
            self.count_gone(gone);
        }
    }
}

/// What the dice say; `None` where nothing is done by turns.
fn choose(possible: &[(Fault, u64)], dice: &mut Dice) -> Option<Fault> {
    let sum: u64 = possible.iter().map(|(_, weight)| weight).sum();
    if sum == 0 {
        return None;
    }
    let mut at = dice.below(sum);
    let chosen = possible.iter().find(|(_, weight)| {
        let is_it = at < *weight;
        at = at.saturating_sub(*weight);
        is_it
    });
    chosen.map(|(fault, _)| *fault)
}
