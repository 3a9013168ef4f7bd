//! S1: one transition of a machine in memory, from the stored data to the new one, without load and
//! commit; beside a match by hand. Time and allocations.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use allocation_counter::measure;
use anyhow::{Result, bail};
use futures_util::future::{BoxFuture, FutureExt};
use sagabus_core::pipeline::{Middleware, Next};
use sagabus_core::{Command, Ctx, EndpointBuilder, HandlerError, History, Kind, Message, headers};
use sagabus_saga::{Correlate, MachineEndpoint, Saga, SagaState, StateMachine};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::run::{End, Program, Setup, WARM_UP, over_source};
use crate::measure::{Count, Plan, RATE, Sameness, Subject, compare};
use crate::ratio::{Must, Promise};
use crate::report::median;
use crate::row::{Bench, Found, Run};
use crate::services::{Backend, Filling, Place};
use crate::source::Raw;

/// The engine's own default for an endpoint.
const WINDOW: usize = 256;
/// Counters, which the warm-up makes: so many that none is hot.
const COUNTERS: u64 = WARM_UP;
/// Microseconds of a transition at most.
const MICROS_MUST: Must = Must::AtMost(1.0);
/// Allocations of a transition at most, beyond those of the match by hand.
const ALLOCATIONS_MUST: Must = Must::AtMost(1.0);
/// What the notes call them.
const ALLOCATIONS: &str = "allocations";

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Tick {
    counter: u64,
    by: u64,
}

impl Message for Tick {
    const TYPE: &'static str = "bench.tick";
    const KIND: Kind = Kind::Command;
}
impl Command for Tick {}

impl Correlate<Counter> for Tick {
    fn key(&self) -> u64 {
        self.counter
    }
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Counter {
    count: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Stage {
    Counting,
}

impl SagaState for Stage {
    const ALL: &'static [Self] = &[Self::Counting];

    fn name(self) -> &'static str {
        "counting"
    }
}

impl Saga for Counter {
    type Key = u64;
    type State = Stage;
}

pub(crate) fn counters() -> StateMachine<Counter> {
    StateMachine::named("counter")
        .endless()
        .initially(
            Counter::when::<Tick>()
                .init(|m| Counter { count: m.by })
                .transition_to(Stage::Counting),
        )
        .during(
            Stage::Counting,
            Counter::when::<Tick>().then(|c, m| c.count += m.by).stay(),
        )
}

/// Compares the two.
pub(crate) fn transition(bench: &Bench, backend: Backend) -> BoxFuture<'_, Result<Found>> {
    async move {
        let mut found = compare(Plan {
            profile: bench.profile,
            subjects: [
                Subject::new("ours", move |n| ours(bench, backend, n).boxed()),
                Subject::new("bare", |n| async move { by_hand(n) }.boxed()),
            ],
            count: Count::Fixed((bench.profile.seconds * 10_000.0) as u64),
            figures: RATE,
            must: None,
            sameness: Sameness::None,
        })
        .await?;
        let figure = |subject: &str, figure: fn(&Run) -> f64| {
            let runs = found.runs.get(subject)?;
            median(runs, |run| Some(figure(run)))
        };
        let micros = figure("ours", |run| run.seconds * 1e6 / run.messages as f64);
        let allocations = |run: &Run| run.notes.get(ALLOCATIONS).copied().unwrap_or(f64::NAN);
        let beyond = figure("ours", allocations).zip(figure("bare", allocations));
        let micros = micros.map(|is| Promise::new("us per transition", is, MICROS_MUST));
        let beyond = beyond.map(|(ours, bare)| {
            Promise::new("allocations beyond bare", ours - bare, ALLOCATIONS_MUST)
        });
        found.promises.extend(micros.into_iter().chain(beyond));
        Ok(found)
    }
    .boxed()
}

/// What transitions took, one after the other.
#[derive(Debug, Default)]
pub(super) struct Taken(Mutex<Vec<(Duration, u64)>>);

impl Taken {
    fn add(&self, took: Duration, allocations: u64) {
        let mut taken = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        taken.push((took, allocations));
    }

    /// Returns the time and the allocations of all but the first.
    pub(super) fn behind(&self, first: usize) -> (usize, f64, f64) {
        let taken = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let taken = taken.get(first..).unwrap_or_default();
        let seconds = taken.iter().map(|one| one.0.as_secs_f64()).sum();
        let allocations: u64 = taken.iter().map(|one| one.1).sum();
        (taken.len(), seconds, allocations as f64)
    }
}

/// Measures what is inside of it.
pub(super) struct Probe(pub(super) Arc<Taken>);

impl Middleware for Probe {
    fn name(&self) -> &'static str {
        "probe"
    }

    fn run<'a>(&'a self, cx: &'a Ctx, next: Next<'a>) -> BoxFuture<'a, Result<(), HandlerError>> {
        async move {
            let mut result = None;
            let started = Instant::now();
            // A machine without functions of the user's own waits for nothing.
            let counted = measure(|| result = next.run(cx).now_or_never());
            self.0.add(started.elapsed(), counted.count_total);
            result.unwrap_or_else(|| Err(HandlerError::new("the machine waits").terminal()))
        }
        .boxed()
    }
}

async fn ours(bench: &Bench, backend: Backend, messages: u64) -> Result<Run> {
    let setup = Setup {
        bench,
        backend,
        filling: &Filling::none(),
        window: WINDOW,
        make: Arc::new(nth_tick),
        warm_up: WARM_UP,
        messages,
        left_per_message: 0.0,
        history: History::NotKept,
        end: End::Handled,
    };
    let taken = Arc::new(Taken::default());
    let endpoint = |e: EndpointBuilder| {
        let e = e.middleware(Probe(Arc::clone(&taken)));
        e.history(History::NotKept).machine(counters())
    };
    let start =
        |place: Place, source| async move { Program::ours(&place, &source, endpoint).await };
    let (place, _, mut run) = over_source(setup, start).await?;
    let versions = match place {
        Place::Postgres { .. } => "select sum(version)::bigint from sagabus.instance",
        Place::Sqlite { .. } => "select sum(version) from sagabus_instance",
    };
    let moves = i64::try_from(WARM_UP + messages)?;
    run.expect("moves of counters", place.number(versions).await?, moves);
    let (count, seconds, allocations) = taken.behind(usize::try_from(WARM_UP)?);
    run.expect(
        "transitions",
        i64::try_from(count)?,
        i64::try_from(messages)?,
    );
    run.seconds = seconds;
    let each = allocations / messages as f64;
    run.notes.insert(ALLOCATIONS, each);
    bench.services.remove(place).await?;
    Ok(run)
}

/// What a programmer writes who has one machine and no framework.
fn by_hand(messages: u64) -> Result<Run> {
    let first = serde_json::to_vec(&Counter { count: 0 })?;
    let mut stored = vec![("counting", first); usize::try_from(COUNTERS)?];
    let (mut seconds, mut allocations) = (0.0, 0);
    for n in 0..messages {
        let tick = tick(n);
        let (stage, data) = &mut stored[usize::try_from(tick.counter)?];
        let mut moved = None;
        let started = Instant::now();
        let counted = measure(|| moved = Some(turn(stage, data, &tick)));
        seconds += started.elapsed().as_secs_f64();
        allocations += counted.count_total;
        match moved {
            Some(moved) => *data = moved?,
            None => bail!("nothing was done"),
        }
    }
    let count = |data: &[u8]| serde_json::from_slice::<Counter>(data).map(|one| one.count);
    let counted: Result<Vec<u64>, _> = stored.iter().map(|(_, data)| count(data)).collect();
    let sum = counted?.iter().sum::<u64>();
    let mut run = Run {
        messages,
        seconds,
        cpu_seconds: seconds,
        ..Run::default()
    };
    let all: u64 = (0..messages).map(|n| tick(n).by).sum();
    run.expect("sum", i64::try_from(sum)?, i64::try_from(all)?);
    let each = allocations as f64 / messages as f64;
    run.notes.insert(ALLOCATIONS, each);
    Ok(run)
}

fn turn(stage: &str, data: &[u8], tick: &Tick) -> Result<Vec<u8>> {
    let mut counter: Counter = serde_json::from_slice(data)?;
    match stage {
        "counting" => counter.count += tick.by,
        other => bail!("no tick is taken in `{other}`"),
    }
    Ok(serde_json::to_vec(&counter)?)
}

fn tick(n: u64) -> Tick {
    Tick {
        counter: n % COUNTERS,
        by: n % 7,
    }
}

pub(crate) fn nth_tick(n: u64) -> Raw {
    let id = Uuid::now_v7();
    let body = serde_json::to_vec(&tick(n)).expect("numbers are always JSON");
    Raw {
        id,
        message_type: Tick::TYPE,
        headers: vec![
            (headers::CONTENT_TYPE, "application/json".to_owned()),
            (headers::KIND, "command".to_owned()),
            (headers::CORRELATION_ID, id.to_string()),
        ],
        body: body.into(),
    }
}
