//! The seeded schedule: what is done to whom, and how often it really happened.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Result;
use sqlx::{Connection, PgConnection};
use tokio::time::Instant;

use crate::dice::Dice;
use crate::process::{Gone, Replica};
use crate::service::LEASE;
use crate::site::{Broker, Engine, Site, blocking};

/// How long the server is down at most.
const DOWN_MAX: u64 = 600;
const END_ALL: &str = "select count(pg_terminate_backend(pid)) from pg_stat_activity \
    where datname = current_database() and pid <> pg_backend_pid()";

/// What is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    Kill,
    Freeze,
    Terminate,
    EndConnections,
    CutConnections,
    CrashDatabase,
    KillBroker,
}

/// How often each happens, compared with the others.
const WEIGHTS: [(Fault, u64); 7] = [
    (Fault::Kill, 16),
    (Fault::Freeze, 6),
    (Fault::Terminate, 3),
    (Fault::EndConnections, 2),
    (Fault::CutConnections, 3),
    (Fault::CrashDatabase, 1),
    (Fault::KillBroker, 1),
];

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
    /// until the time is over.
    pub(crate) async fn rage(&mut self, time: Duration) -> Result<()> {
        let end = Instant::now() + time;
        let possible: Vec<_> = WEIGHTS
            .iter()
            .filter(|(fault, _)| self.can(*fault))
            .collect();
        let sum = possible.iter().map(|(_, weight)| weight).sum();
        let mut first: Vec<_> = possible.iter().map(|(fault, _)| *fault).collect();
        while Instant::now() < end || !first.is_empty() {
            let fault = first.pop().unwrap_or_else(|| {
                let mut at = self.dice.below(sum);
                let chosen = possible.iter().find(|(_, weight)| {
                    let is_it = at < *weight;
                    at = at.saturating_sub(*weight);
                    is_it
                });
                chosen.map_or(Fault::Kill, |(fault, _)| *fault)
            });
            self.strike(fault).await?;
            let pause = self.dice.millis(50, 500);
            tokio::time::sleep(pause).await;
            self.look_after().await?;
        }
        self.calm().await
    }

    fn can(&self, fault: Fault) -> bool {
        match fault {
            Fault::Kill | Fault::Freeze | Fault::Terminate => true,
            Fault::EndConnections | Fault::CutConnections | Fault::CrashDatabase => {
                matches!(self.site.engine, Engine::Postgres { .. })
            }
            Fault::KillBroker => !matches!(self.site.broker, Broker::None),
        }
    }

    fn count(&mut self, what: &'static str, n: u64) {
        *self.seen.entry(what).or_default() += n;
    }

    async fn strike(&mut self, fault: Fault) -> Result<()> {
        let victim = self.dice.below(self.replicas.len() as u64) as usize;
        match fault {
            Fault::Kill => {
                let is_there = !self.replicas[victim].has_ended();
                self.replicas[victim].kill().await;
                self.count("hosts killed (SIGKILL)", u64::from(is_there));
                self.replicas[victim].start()?;
            }
            Fault::Freeze => {
                let lease = u64::try_from(LEASE.as_millis())?;
                let time = self.dice.millis(lease * 6 / 5, lease * 5 / 2);
                self.replicas[victim].freeze();
                self.thawing.push((victim, Instant::now() + time));
                self.count("hosts frozen beyond their leases (SIGSTOP)", 1);
            }
            Fault::Terminate => {
                self.thaw(victim);
                let gone = self.replicas[victim].terminate().await;
                self.count("hosts told to go (SIGTERM)", 1);
                self.count_gone(gone);
                self.replicas[victim].start()?;
            }
            Fault::EndConnections => {
                if let Engine::Postgres { server, .. } = &self.site.engine {
                    let mut connection = PgConnection::connect(&server.url()).await?;
                    let ended: i64 = sqlx::query_scalar(END_ALL)
                        .fetch_one(&mut connection)
                        .await?;
                    self.count("connections ended by the server", u64::try_from(ended)?);
                }
            }
            Fault::CutConnections => {
                self.site.cut_connections().await;
                self.count("times every connection to the database was cut", 1);
            }
            Fault::CrashDatabase => {
                let pause = self.dice.millis(0, DOWN_MAX);
                if let Engine::Postgres { server, .. } = &self.site.engine {
                    blocking(|| server.crash());
                    tokio::time::sleep(pause).await;
                    blocking(|| server.restart());
                    self.count("database crashes (immediate)", 1);
                }
            }
            Fault::KillBroker => {
                self.site.kill_broker();
                self.count("broker kills (SIGKILL)", 1);
            }
        }
        Ok(())
    }

    fn count_gone(&mut self, gone: Gone) {
        match gone {
            Gone::InTime => {}
            Gone::TooLate => self.count("hosts that were too late to go", 1),
            Gone::Badly => self.count("hosts that did not start when told to go", 1),
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
        for at in 0..self.replicas.len() {
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
            self.count("hosts told to go (SIGTERM)", 1);
            self.count_gone(gone);
        }
    }
}
