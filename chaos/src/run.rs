//! One set-up from its start to its verdict.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::client::{Client, Placed};
use crate::fault::{self, Fault};
use crate::judge::Verdict;
use crate::machine::expected;
use crate::operator;
use crate::process::Replica;
use crate::records::Records;
use crate::runs::Stops;
use crate::service::Service;
use crate::site::{Can, Engine, SetUp, Site};
use crate::storm::{Plan, Storm};

/// Time for the first transfers, so that queues and groups are there before anything dies.
const WARM_UP: Duration = Duration::from_secs(4);
/// For so long nothing may stand still while something is left to do when the storm is over: how
/// long all of it takes is the machine's business.
const STANDS_STILL: Duration = Duration::from_secs(90);
/// And it is over some day.
const QUIET_WITHIN: Duration = Duration::from_secs(15 * 60);
/// Between two looks, each of which reads everything.
const LOOKS: Duration = Duration::from_millis(500);
/// The databases' words for a full disk, as hosts log them.
const FULL: &[&str] = &["No space left on device", "disk is full"];
const REPLICAS: [(Service, &str); 4] = [
    (Service::Transfers, "transfers-1"),
    (Service::Accounts, "accounts-1"),
    (Service::Transfers, "transfers-2"),
    (Service::Accounts, "accounts-2"),
];

/// What one set-up showed.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) set_up: SetUp,
    pub(crate) verdict: Verdict,
    /// What happened, and how often.
    pub(crate) faults: BTreeMap<&'static str, u64>,
    /// What the hosts counted, by their last words.
    pub(crate) counted: BTreeMap<String, u64>,
    /// Copies under an identity that was sent before.
    pub(crate) copies: u64,
    pub(crate) lives: u32,
    /// How long it took to do what was left; none: it was never done.
    pub(crate) quiet_after: Option<Duration>,
    /// What should have happened and did not.
    pub(crate) vacuous: Vec<&'static str>,
    /// What could not be done here, and why.
    pub(crate) not_run: Vec<(Fault, String)>,
    /// What came of hosts that were told to go, where nothing else was done.
    pub(crate) stops: Option<Stops>,
}

impl Outcome {
    pub(crate) fn is_good(&self) -> bool {
        self.verdict.wrong.is_empty() && self.vacuous.is_empty() && self.quiet_after.is_some()
    }
}

/// Runs one set-up; `None`, with a word, where there is nothing to make it of.
pub(crate) async fn run(
    set_up: SetUp,
    plan: &Plan,
    seed: u64,
    folder: &Path,
) -> Result<Option<Outcome>> {
    std::fs::create_dir_all(folder).context("a folder for logs can be made")?;
    let Some(mut site) = Site::open(set_up, folder, &plan.faults, seed).await? else {
        return Ok(None);
    };
    let mut replicas = start_hosts(&site, plan.only_terminates(), folder)?;
    let (database, carrier) = (site.database(), site.carrier.clone());
    let client = Client::start(&database, carrier.as_ref()).await?;
    let (over, is_over) = watch::channel(false);
    let placing = tokio::spawn(client.run(seed, is_over));
    tokio::time::sleep(WARM_UP).await;
    site.settle_broker();

    let mut storm = Storm::new(&mut site, &mut replicas, seed);
    storm.rage(plan).await?;
    over.send_replace(true);
    let (client, placed) = placing.await.context("the client does not panic")?;
    let quiet_after = until_quiet(&mut storm, &placed).await?;
    storm.end().await;
    let mut faults = std::mem::take(&mut storm.seen);
    client.stop().await;

    let records = Records::read(&site).await?;
    if let Engine::Postgres { doubt, .. } = &site.engine {
        let doubt: Arc<_> = Arc::clone(doubt);
        faults.extend(doubt.seen());
    }
    let mut counted = BTreeMap::new();
    for (name, value) in replicas.iter().flat_map(Replica::counted) {
        *counted.entry(name).or_default() += value;
    }
    faults.extend(site.publications.seen());
    if site.disk.is_some() {
        let met = replicas.iter().map(|one| one.lives_with(FULL));
        faults.insert(fault::MET_FULL, met.sum());
    }
    let mut verdict = Verdict::of(&placed, &records);
    let stops = plan.only_terminates().then(|| {
        let lives: Vec<_> = replicas.iter().flat_map(Replica::lives_told).collect();
        Stops::of(&lives)
    });
    if let Some(stops) = &stops {
        verdict.judge_stops(stops, &faults);
    }
    Ok(Some(Outcome {
        set_up,
        vacuous: vacuous(&site, plan, &faults, &counted, &placed),
        not_run: not_run(&site, plan),
        stops,
        verdict,
        faults,
        counted,
        copies: placed.copies,
        lives: replicas.iter().map(Replica::lives).sum(),
        quiet_after,
    }))
}

pub(crate) fn start_hosts(site: &Site, tells: bool, folder: &Path) -> Result<Vec<Replica>> {
    let database = site.database();
    let carrier = site.carrier.as_ref();
    let replica = |(service, name)| Replica::new(service, name, &database, carrier, folder);
    let mut replicas: Vec<_> = REPLICAS.map(replica).into();
    if let Some(clock) = &site.clock {
        replicas[clock.host()].variables = clock.variables();
    }
    for replica in &mut replicas {
        replica.tells = tells;
        replica.start()?;
    }
    Ok(replicas)
}

/// Waits until the ledger has all that it must have, and nothing waits.
pub(crate) async fn until_quiet(
    storm: &mut Storm<'_>,
    placed: &Placed,
) -> Result<Option<Duration>> {
    let started = Instant::now();
    let (mut latest, mut done) = (started, 0);
    while started.elapsed() < QUIET_WITHIN && latest.elapsed() < STANDS_STILL {
        storm.calm().await?;
        let records = Records::read(storm.site).await?;
        let redriven = operator::redrive(storm.site, &records).await?;
        storm.count(fault::REDRIVEN, redriven);
        if records.ledger.len() > done {
            (latest, done) = (Instant::now(), records.ledger.len());
        }
        let there: BTreeSet<_> = records
            .ledger
            .iter()
            .map(|(id, leg, _)| (*id, leg.as_str()))
            .collect();
        let is_done = |id: &i64| {
            expected(*id)
                .iter()
                .all(|(leg, _)| there.contains(&(*id, *leg)))
        };
        let verdict = Verdict::of(placed, &records);
        let is_quiet = verdict.wrong.is_empty() && records.outbox == 0;
        if is_quiet && placed.acknowledged.iter().all(is_done) {
            return Ok(Some(started.elapsed()));
        }
        tokio::time::sleep(LOOKS).await;
    }
    Ok(None)
}

/// Names what should have happened and did not: a run in which nothing goes wrong shows nothing.
fn vacuous(
    site: &Site,
    plan: &Plan,
    faults: &BTreeMap<&'static str, u64>,
    counted: &BTreeMap<String, u64>,
    placed: &Placed,
) -> Vec<&'static str> {
    let done = plan
        .faults
        .iter()
        .filter(|fault| site.can(**fault) == Can::Do);
    let mut must: Vec<_> = done.flat_map(|fault| fault.must()).copied().collect();
    must.retain(|what| faults.get(what).copied().unwrap_or(0) == 0);
    let cuts_commits = plan.faults.contains(&Fault::CutCommits);
    let is_cut = cuts_commits && site.can(Fault::CutCommits) == Can::Do;
    if is_cut && counted.get("duplicates").copied().unwrap_or(0) == 0 {
        must.push("a duplicate that was recognised");
    }
    if placed.copies == 0 {
        must.push("a copy under an identity that was sent before");
    }
    let placed_most = placed.acknowledged.len() as i64 * 100 >= placed.attempts * 95;
    if !placed_most {
        must.push("95 % of the transfers acknowledged");
    }
    must
}

fn not_run(site: &Site, plan: &Plan) -> Vec<(Fault, String)> {
    let each = plan
        .faults
        .iter()
        .filter_map(|fault| match site.can(*fault) {
            Can::NotRun(why) => Some((*fault, why)),
            Can::Do | Can::NotHere => None,
        });
    each.collect()
}
