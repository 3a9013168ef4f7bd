//! H4: what a large inbox costs. The rate of a handler that does nothing, over an inbox that is
//! empty and one that knows a million messages.

use std::sync::Arc;

use anyhow::Result;
use futures_util::future::{BoxFuture, FutureExt};
use sagabus_core::{EndpointBuilder, History};

use super::run::{End, Program, Setup, WARM_UP, over_source};
use crate::filling;
use crate::measure::{Count, Plan, RATE, Sameness, Subject, compare};
use crate::row::{Bench, Found, Run};
use crate::services::{Backend, Filling, Place};
use crate::workload::{Charge, nth_charge};

/// The engine's own default for an endpoint.
const WINDOW: usize = 256;

/// Compares the two.
pub(crate) fn growth(bench: &Bench, backend: Backend) -> BoxFuture<'_, Result<Found>> {
    async move {
        let (grown, empty) = (filling::inbox(bench.profile.grown), Filling::none());
        let (grown, empty) = (&grown, &empty);
        compare(Plan {
            profile: bench.profile,
            subjects: [
                Subject::new("1M known", move |n| run(bench, backend, grown, n).boxed()),
                Subject::new("empty", move |n| run(bench, backend, empty, n).boxed()),
            ],
            count: Count::Pilot {
                pilot: 2_000,
                multiple: 10,
            },
            figures: RATE,
            must: None,
            sameness: Sameness::None,
        })
        .await
    }
    .boxed()
}

pub(super) async fn run(
    bench: &Bench,
    backend: Backend,
    filling: &Filling,
    messages: u64,
) -> Result<Run> {
    let setup = Setup {
        bench,
        backend,
        filling,
        window: WINDOW,
        make: Arc::new(nth_charge),
        warm_up: WARM_UP,
        messages,
        left_per_message: 0.0,
        history: History::NotKept,
        end: End::Handled,
    };
    let endpoint = |e: EndpointBuilder| e.history(History::NotKept).handle(|_: Charge| async {});
    let start =
        |place: Place, source| async move { Program::ours(&place, &source, endpoint).await };
    let (place, _, run) = over_source(setup, start).await?;
    bench.services.remove(place).await?;
    Ok(run)
}
