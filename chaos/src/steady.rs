//! Work at four fifths of what the hosts can do, while hosts, the database and the broker are
//! restarted by turns: how much of it is done in time, and how soon a backlog is gone.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::client::Client;
use crate::fault::Fault;
use crate::judge::Verdict;
use crate::load::{Load, Pace, Progress};
use crate::records::Records;
use crate::report;
use crate::run::{start_hosts, until_quiet};
use crate::site::{Can, SetUp, Site};
use crate::storm::Storm;

/// The part of the peak that is asked for.
const PART: f64 = 0.8;
/// How long the peak is looked for, and what comes before.
const PEAK_TIME: Duration = Duration::from_secs(20);
const WARM_UP: Duration = Duration::from_secs(10);
/// Transfers that are not finished at most while it is.
const AHEAD: usize = 1_500;
/// A transfer that is not finished then is backlog. Some are answered by a timer, and some are tried
/// again later.
const LATE: Duration = Duration::from_secs(3);
/// For so long nothing is late any more when a backlog is gone.
const CALM: Duration = Duration::from_secs(8);
/// Between two restarts, at least.
const EVERY: Duration = Duration::from_secs(60);
const LOOKS: Duration = Duration::from_millis(250);
/// How much of what was asked for must be done when the time is over, and how soon a backlog must be
/// gone.
const DONE_MUST: f64 = 0.95;
const GONE_WITHIN: Duration = Duration::from_secs(60);
/// What is restarted, by turns.
pub(crate) const RESTARTS: [Fault; 4] = [
    Fault::Terminate,
    Fault::Kill,
    Fault::CrashDatabase,
    Fault::KillBroker,
];

/// What one set-up showed.
#[derive(Debug)]
pub(crate) struct Endurance {
    pub(crate) set_up: SetUp,
    /// Transfers a second at most, and those that were asked for.
    peak: f64,
    rate: f64,
    time: Duration,
    /// The part of what was asked for that was finished when the time was over.
    done: f64,
    /// How long after each restart the last was late; none: it still was a minute later.
    gone: Vec<(Fault, Option<Duration>)>,
    verdict: Verdict,
    is_quiet: bool,
    seen: BTreeMap<&'static str, u64>,
}

impl Endurance {
    pub(crate) fn is_good(&self) -> bool {
        let is_gone = !self.gone.is_empty() && self.gone.iter().all(|one| one.1.is_some());
        is_gone && self.done >= DONE_MUST && self.is_quiet && self.verdict.wrong.is_empty()
    }

    pub(crate) fn show(&self) {
        let set_up = self.set_up;
        let word = if self.is_good() { "ok" } else { "FAILED" };
        println!("\n{set_up:?}: {word}");
        println!(
            "  {:.0} transfers a second at most, {:.0} asked for during {:.0} s",
            self.peak,
            self.rate,
            self.time.as_secs_f64()
        );
        println!("figure: {set_up:?}, done in time: {:.4}", self.done);
        if self.done < DONE_MUST {
            println!("  WRONG done in time: less than {DONE_MUST}");
        }
        for fault in RESTARTS {
            let of = self.gone.iter().filter(|one| one.0 == fault);
            let of: Vec<_> = of.map(|one| one.1).collect();
            let longest = of.iter().flatten().max();
            if let Some(longest) = longest {
                let (times, longest) = (of.len(), longest.as_secs_f64());
                println!("figure: {set_up:?}, {fault:?}, times: {times}");
                println!("figure: {set_up:?}, {fault:?}, longest backlog, s: {longest:.1}");
            }
            let never = of.iter().filter(|one| one.is_none()).count();
            if never > 0 {
                println!("  WRONG backlog after {fault:?} not gone within a minute: {never} times");
            }
        }
        if !self.is_quiet {
            println!("  NEVER DONE when the time was over");
        }
        for (what, times) in &self.seen {
            println!("figure: {set_up:?}, {what}: {times}");
        }
        report::show_verdict(set_up, &self.verdict);
    }
}

/// Runs one set-up; `None`, with a word, where there is nothing to make it of.
pub(crate) async fn run(
    set_up: SetUp,
    time: Duration,
    seed: u64,
    folder: &Path,
) -> Result<Option<Endurance>> {
    std::fs::create_dir_all(folder).context("a folder for logs can be made")?;
    let Some(mut site) = Site::open(set_up, folder, &RESTARTS, seed).await? else {
        return Ok(None);
    };
    let mut replicas = start_hosts(&site, false, folder)?;
    let client = Client::start(&site.database(), site.carrier.as_ref()).await?;
    let load = Load::new(client.bus(), &site).await?;
    let (pace, told) = watch::channel(Pace::Ahead(AHEAD));
    let (tell, progress) = watch::channel(Progress::default());
    let loading = tokio::spawn(load.run(told, tell));
    let peak = peak(&site, &progress).await?;
    pace.send_replace(Pace::Rest);
    let mut storm = Storm::new(&mut site, &mut replicas, seed);
    until_finished(&progress).await?;

    let (since, of, rate) = (Instant::now(), progress.borrow().placed, peak * PART);
    println!("{set_up:?}: {peak:.0} transfers a second at most; {rate:.0} from now on");
    pace.send_replace(Pace::PerSecond { rate, since, of });
    let gone = restart_by_turns(&mut storm, &progress, since + time).await?;
    let (took, finished) = (since.elapsed(), progress.borrow().finished - of);
    pace.send_replace(Pace::Rest);
    until_finished(&progress).await?;
    pace.send_replace(Pace::Over);
    let placed = loading.await.context("the load does not panic")??;
    let is_quiet = until_quiet(&mut storm, &placed).await?.is_some();
    storm.end().await;
    let seen = std::mem::take(&mut storm.seen);
    client.stop().await;
    let verdict = Verdict::of(&placed, &Records::read(&site).await?);
    Ok(Some(Endurance {
        set_up,
        peak,
        rate,
        time: took,
        done: finished as f64 / (rate * took.as_secs_f64()),
        gone,
        verdict,
        is_quiet,
        seen,
    }))
}

/// Transfers a second that are finished while as many wait as may.
async fn peak(site: &Site, progress: &watch::Receiver<Progress>) -> Result<f64> {
    tokio::time::sleep(WARM_UP / 2).await;
    // One that is killed within seconds of a declaration starts anew.
    site.settle_broker();
    tokio::time::sleep(WARM_UP).await;
    let (since, before) = (Instant::now(), progress.borrow().finished);
    tokio::time::sleep(PEAK_TIME).await;
    let finished = progress.borrow().finished - before;
    if finished == 0 {
        bail!("no transfer was finished in {PEAK_TIME:?}");
    }
    Ok(finished as f64 / since.elapsed().as_secs_f64())
}

async fn until_finished(progress: &watch::Receiver<Progress>) -> Result<()> {
    let mut progress = progress.clone();
    let finished = progress.wait_for(|now| now.finished == now.placed);
    let ended = tokio::time::timeout(GONE_WITHIN * 5, finished).await;
    ended.context("transfers are never finished")??;
    Ok(())
}

/// Restarts one after the other until the time is over, each when the backlog of the one before is
/// gone; says how long it was there.
async fn restart_by_turns(
    storm: &mut Storm<'_>,
    progress: &watch::Receiver<Progress>,
    end: Instant,
) -> Result<Vec<(Fault, Option<Duration>)>> {
    let possible = RESTARTS.into_iter();
    let possible: Vec<_> = possible
        .filter(|fault| storm.site.can(*fault) == Can::Do)
        .collect();
    let mut turns = possible.into_iter().cycle();
    let mut gone = Vec::new();
    let mut next = Instant::now() + EVERY / 2;
    while let Some(fault) = turns.next()
        && next + GONE_WITHIN < end
    {
        tokio::time::sleep_until(next).await;
        next = Instant::now() + EVERY;
        let (back, took) = backlog_of(storm, fault, progress).await?;
        let shown = took.map_or("more than 60 s".to_owned(), |took| {
            format!("{:.1} s", took.as_secs_f64())
        });
        println!(
            "{fault:?}: back after {:.1} s, backlog for {shown}; {} finished",
            back.as_secs_f64(),
            progress.borrow().finished
        );
        gone.push((fault, took));
    }
    while Instant::now() < end {
        tokio::time::sleep(LOOKS).await;
        storm.calm().await?;
    }
    Ok(gone)
}

/// How long what is restarted was away, and how long after that began the last transfer was late;
/// `None` where one still was a minute later.
async fn backlog_of(
    storm: &mut Storm<'_>,
    fault: Fault,
    progress: &watch::Receiver<Progress>,
) -> Result<(Duration, Option<Duration>)> {
    let since = Instant::now();
    storm.strike(fault).await?;
    let back = since.elapsed();
    let mut latest = since;
    while latest.elapsed() < LATE + CALM {
        if progress.borrow().behind > LATE {
            latest = Instant::now();
        }
        if latest - since > GONE_WITHIN {
            return Ok((back, None));
        }
        tokio::time::sleep(LOOKS).await;
        storm.calm().await?;
    }
    Ok((back, Some(latest - since)))
}
