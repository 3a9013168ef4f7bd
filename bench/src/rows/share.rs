//! S1-H2: what the machine takes of the processor time of H2: dispatch, decoding, transition, encoding
//! and staging, out of all that client and database use.

use std::sync::Arc;

use anyhow::Result;
use futures_util::future::{BoxFuture, FutureExt};
use sagabus_core::{EndpointBuilder, History};
use sagabus_saga::MachineEndpoint;

use super::h2::check_accounts;
use super::run::{End, Program, Setup, WARM_UP, over_source};
use super::s1::{Probe, Taken};
use crate::filling;
use crate::ratio::{Must, Promise};
use crate::report::median;
use crate::row::{Bench, Found, Run};
use crate::services::{Backend, Place};
use crate::workload::{accounts, nth_message};

/// The engine's own default for an endpoint.
const WINDOW: usize = 256;
/// The part that it may take.
const MUST: Must = Must::AtMost(0.15);
/// What the notes call it.
const SHARE: &str = "part in the machine";
/// One account in ten is new, and one message in two sends two.
const PATTERN: u64 = 20;

/// Measures the part.
pub(crate) fn of_h2(bench: &Bench, backend: Backend) -> BoxFuture<'_, Result<Found>> {
    async move {
        let messages = (bench.profile.seconds * 10_000.0) as u64;
        let messages = messages.div_ceil(PATTERN) * PATTERN;
        let mut found = Found::default();
        let mut runs = Vec::new();
        for _ in 0..bench.profile.reps {
            let run = run(bench, backend, messages).await?;
            found.faults.extend(run.faults.clone());
            runs.push(run);
        }
        let share = median(&runs, |run| run.notes.get(SHARE).copied());
        let promise = share.map(|is| Promise::new(SHARE, is, MUST));
        found.promises.extend(promise);
        found.runs.insert("ours", runs);
        Ok(found)
    }
    .boxed()
}

async fn run(bench: &Bench, backend: Backend, messages: u64) -> Result<Run> {
    let setup = Setup {
        bench,
        backend,
        filling: &filling::accounts(),
        window: WINDOW,
        make: Arc::new(nth_message),
        warm_up: WARM_UP,
        messages,
        left_per_message: 0.0,
        history: History::Kept,
        end: End::Handled,
    };
    let taken = Arc::new(Taken::default());
    let endpoint = |e: EndpointBuilder| e.middleware(Probe(Arc::clone(&taken))).machine(accounts());
    let start =
        |place: Place, source| async move { Program::ours(&place, &source, endpoint).await };
    let (place, _, mut run) = over_source(setup, start).await?;
    check_accounts(&place, WARM_UP + messages, &mut run).await?;
    let (_, seconds, _) = taken.behind(usize::try_from(WARM_UP)?);
    let all = run.cpu_seconds + run.server_cpu_seconds.unwrap_or_default();
    run.notes.insert(SHARE, seconds / all);
    bench.services.remove(place).await?;
    Ok(run)
}
