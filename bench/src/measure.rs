//! Compares subjects: interleaved repetitions in rotated order, a ratio per repetition.

use std::time::{Duration, Instant};

use anyhow::Result;
use futures_util::future::BoxFuture;

use crate::brokers::Broker;
use crate::machine;
use crate::ratio::{Must, Promise, Ratio};
use crate::row::{Alone, Bench, Found, Profile, Run};
use crate::services::Place;

/// How far the bytes of two subjects that do the same work may lie apart.
const BYTES_APART_MAX: f64 = 0.10;
/// Repetitions of a comparison without a promise, where time is short.
const REPS_SHORT: usize = 2;
/// A run that takes longer than this is stuck.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

/// One of those that are compared.
pub(crate) struct Subject<'a> {
    pub(crate) name: &'static str,
    pub(crate) run: Box<dyn Fn(u64) -> BoxFuture<'a, Result<Run>> + Send + Sync + 'a>,
}

impl<'a> Subject<'a> {
    pub(crate) fn new<F>(name: &'static str, run: F) -> Self
    where
        F: Fn(u64) -> BoxFuture<'a, Result<Run>> + Send + Sync + 'a,
    {
        let run = Box::new(run);
        Self { name, run }
    }
}

/// What is compared, and how.
pub(crate) struct Plan<'a> {
    pub(crate) profile: Profile,
    /// The first is divided by the second.
    pub(crate) subjects: [Subject<'a>; 2],
    pub(crate) count: Count,
    /// What is divided; the promise is about the first.
    pub(crate) figures: &'static [Figure],
    pub(crate) must: Option<Must>,
    /// Whether both must write the same rows, and about the same bytes.
    pub(crate) sameness: Sameness,
}

/// How many messages a run has.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Count {
    /// As many as keep the second subject busy for as long as the profile says, found by a run of
    /// `pilot` messages and rounded up to a `multiple`.
    Pilot { pilot: u64, multiple: u64 },
    /// So many.
    Fixed(u64),
}

/// A figure of a run, by name.
pub(crate) type Figure = (&'static str, fn(&Run) -> f64);

/// Messages per second.
pub(crate) const RATE: &[Figure] = &[("rate", Run::rate)];

/// What two subjects must have in common for their ratio to mean something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sameness {
    /// Rows at the end, and bytes of write-ahead log within a tenth.
    RowsAndBytes,
    /// Rows at the end.
    Rows,
    /// Nothing: one subject has more to do.
    None,
}

/// Runs a comparison.
pub(crate) async fn compare(plan: Plan<'_>) -> Result<Found> {
    let messages = messages(&plan).await?;
    let [numerator, denominator] = &plan.subjects;
    let mut found = Found::default();
    if let Some(alone) = plan.profile.alone {
        let subject = match alone {
            Alone::Ours => numerator,
            Alone::Bare => denominator,
        };
        for _ in 0..plan.profile.reps {
            run_one(&mut found, subject, messages).await?;
        }
        return Ok(found);
    }
    // What promises nothing is measured less often where time is short.
    let reps = match plan.must {
        None if plan.profile.is_short => plan.profile.reps.min(REPS_SHORT),
        _ => plan.profile.reps,
    };
    for rep in 0..reps {
        let order = match rep % 2 {
            0 => [denominator, numerator],
            _ => [numerator, denominator],
        };
        for subject in order {
            run_one(&mut found, subject, messages).await?;
        }
    }
    let faults = differences(
        &found.runs[numerator.name],
        &found.runs[denominator.name],
        plan.sameness,
    );
    found.faults.extend(faults);
    if !found.faults.is_empty() {
        // Nobody knows what was compared.
        return Ok(found);
    }
    for (name, figure) in plan.figures {
        let what = format!("{name}: {} / {}", numerator.name, denominator.name);
        let each = |subject| found.runs[subject].iter().map(figure);
        let values = each(numerator.name).zip(each(denominator.name));
        let ratio = Ratio::of(&what, values.map(|(a, b)| a / b).collect());
        if let (Some(ratio), Some(must), true) = (&ratio, plan.must, found.ratios.is_empty()) {
            let is = ratio.median;
            found.promises.push(Promise { what, is, must });
        }
        found.ratios.extend(ratio);
    }
    Ok(found)
}

/// Finds out how many messages keep the reference busy for as long as the profile says.
async fn messages(plan: &Plan<'_>) -> Result<u64> {
    match plan.count {
        Count::Fixed(messages) => Ok(messages),
        Count::Pilot { pilot, multiple } => {
            pilot_run(&plan.subjects[1], &plan.profile, pilot, multiple).await
        }
    }
}

async fn pilot_run(
    subject: &Subject<'_>,
    profile: &Profile,
    pilot: u64,
    multiple: u64,
) -> Result<u64> {
    let run = (subject.run)(pilot).await?;
    let wanted = (run.rate() * profile.seconds) as u64;
    Ok(wanted.max(pilot / 4).div_ceil(multiple) * multiple)
}

/// Runs the points of a curve, each for as long as the profile says, all once per repetition; divides
/// the last by the first. Without a pilot the subjects know how much they do.
pub(crate) async fn grow(profile: Profile, pilot: u64, points: Vec<Subject<'_>>) -> Result<Found> {
    /// One account in ten is new, and one message in two sends two.
    const MULTIPLE: u64 = 20;
    let mut counts = Vec::with_capacity(points.len());
    for point in &points {
        counts.push(match pilot {
            0 => 0,
            _ => pilot_run(point, &profile, pilot, MULTIPLE).await?,
        });
    }
    let mut found = Found {
        curve: points.iter().map(|point| point.name).collect(),
        ..Found::default()
    };
    for rep in 0..profile.reps {
        let mut order: Vec<usize> = (0..points.len()).collect();
        order.rotate_left(rep % points.len().max(1));
        for n in order {
            run_one(&mut found, &points[n], counts[n]).await?;
        }
    }
    if let (Some(first), Some(last), true) =
        (points.first(), points.last(), found.faults.is_empty())
    {
        let what = format!("rate: {} / {}", last.name, first.name);
        let rates = |name| found.runs[name].iter().map(Run::rate);
        let each = rates(last.name).zip(rates(first.name));
        let ratio = Ratio::of(what, each.map(|(last, first)| last / first).collect());
        found.ratios.extend(ratio);
    }
    Ok(found)
}

async fn run_one(found: &mut Found, subject: &Subject<'_>, messages: u64) -> Result<()> {
    let run = (subject.run)(messages).await?;
    let faults = run.faults.iter();
    let faults = faults.map(|fault| format!("{}: {fault}", subject.name));
    found.faults.extend(faults);
    found.runs.entry(subject.name).or_default().push(run);
    Ok(())
}

/// Says where two subjects did not do the same work. Bytes are those of all repetitions: which
/// pages are written whole after a checkpoint is chance.
fn differences(one: &[Run], other: &[Run], sameness: Sameness) -> Vec<String> {
    let mut found = Vec::new();
    if sameness == Sameness::None {
        return found;
    }
    for (one, other) in one.iter().zip(other) {
        if one.rows != other.rows {
            let (one, other) = (&one.rows, &other.rows);
            found.push(format!("rows differ: {one:?} and {other:?}"));
        }
    }
    let bytes = |runs: &[Run]| {
        let messages: u64 = runs.iter().map(|run| run.messages).sum();
        let bytes = runs.iter().map(|run| run.bytes).sum::<Option<u64>>()?;
        Some(bytes as f64 / messages as f64)
    };
    if let (Sameness::RowsAndBytes, Some(one), Some(other)) = (sameness, bytes(one), bytes(other)) {
        let apart = (one / other - 1.0).abs();
        if apart > BYTES_APART_MAX {
            found.push(format!(
                "bytes written per message differ by {:.0} %: {one:.0} and {other:.0}",
                apart * 100.0
            ));
        }
    }
    found
}

/// A stretch of time in which something is measured.
pub(crate) struct Window {
    started: Instant,
    cpu: Duration,
    server_cpu: Option<Duration>,
    broker: Option<BrokerCpu>,
    bytes: Option<u64>,
}

/// The broker's processor time, asked for again at the end.
type BrokerCpu = (Box<dyn Fn() -> Option<Duration> + Send>, Duration);

impl Window {
    pub(crate) async fn open(place: &Place) -> Result<Self> {
        let bytes = place.bytes().await?;
        let server_cpu = place.server_cpu().await?;
        machine::forget_most_memory();
        Ok(Self {
            bytes,
            server_cpu,
            broker: None,
            cpu: machine::cpu(),
            started: Instant::now(),
        })
    }

    /// Begins a stretch in which a broker works as well.
    pub(crate) async fn open_with(place: &Place, bench: &Bench, broker: Broker) -> Result<Self> {
        let brokers = bench.brokers.clone();
        let cpu = move || brokers.cpu(broker);
        let before = cpu();
        let mut window = Self::open(place).await?;
        window.broker = before.map(|before| (Box::new(cpu) as _, before));
        Ok(window)
    }

    /// Ends the stretch; `took` where somebody knows better how long it was.
    pub(crate) async fn close(
        self,
        place: &Place,
        messages: u64,
        took: Option<Duration>,
    ) -> Result<Run> {
        let seconds = took.unwrap_or_else(|| self.started.elapsed()).as_secs_f64();
        let cpu_seconds = machine::cpu().saturating_sub(self.cpu).as_secs_f64();
        let broker_cpu = self.broker.and_then(|(cpu, before)| Some((cpu()?, before)));
        let server_cpu = place.server_cpu().await?.zip(self.server_cpu);
        let bytes = place.bytes().await?.zip(self.bytes);
        let most_kib = machine::memory_kib(std::process::id()).map(|(_, most)| most);
        let used = |(after, before): (Duration, Duration)| after.saturating_sub(before);
        Ok(Run {
            messages,
            seconds,
            cpu_seconds,
            server_cpu_seconds: server_cpu.map(used).map(|cpu| cpu.as_secs_f64()),
            broker_cpu_seconds: broker_cpu.map(used).map(|cpu| cpu.as_secs_f64()),
            bytes: bytes.map(|(after, before)| after - before),
            most_kib,
            ..Run::default()
        })
    }
}
