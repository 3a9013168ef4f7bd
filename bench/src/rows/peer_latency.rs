//! L1 beside others: from the beginning of the transaction that sends to whoever receives from a
//! quorum queue. Theirs sends from a process of its own; the plain client that receives is the same.

use std::time::Duration;

use anyhow::{Result, bail};
use futures_util::future::{BoxFuture, FutureExt};

use super::l1_broker::{LATENCIES, Way, messages, ours, warm_up};
use super::peers::{Part, Program};
use crate::brokers::Broker;
use crate::measure::{Count, Plan, Sameness, Subject, compare};
use crate::ratio::Must;
use crate::row::{Bench, Found, Latency, Run};
use crate::services::{Backend, Place};

const PEER: &str = "watermill-latency";
/// Messages a second: a sixteenth of what theirs can do, so that none waits for the one before.
const PACE: u32 = 100;

/// Beside Watermill's forwarder, which asks for new rows every millisecond.
pub(crate) fn watermill(bench: &Bench, _: Backend) -> BoxFuture<'_, Result<Found>> {
    compare(Plan {
        profile: bench.profile,
        subjects: [
            Subject::new("ours", move |n| {
                ours(bench, Broker::RabbitMq, PACE, n).boxed()
            }),
            Subject::new(PEER, move |n| theirs(bench, n).boxed()),
        ],
        count: Count::Fixed(messages(bench, PACE)),
        figures: LATENCIES,
        must: Some(Must::AtMost(0.25)),
        sameness: Sameness::None,
    })
    .boxed()
}

async fn theirs(bench: &Bench, messages: u64) -> Result<Run> {
    let program = Program::Watermill.built()?;
    let way = Way::open(bench, Broker::RabbitMq).await?;
    let Place::Postgres { url, .. } = &way.place else {
        bail!("this row is for PostgreSQL");
    };
    let (count, pace) = (messages.to_string(), PACE.to_string());
    let beginning = way.stopwatch.beginning().to_string();
    let part = Part {
        program: program.as_os_str(),
        // Nothing before: it warms up by its first messages, as ours does.
        arguments: &[PEER, url, &count, &way.address, "0", &pace, &beginning],
        messages,
        broker: Some(Broker::RabbitMq),
    };
    let (mut run, done) = part.take(bench, &way.place).await?;
    run.expect("messages that are not done", done.left, 0);
    let wanted = usize::try_from(messages)?;
    if !way
        .stopwatch
        .wait_for(wanted, Duration::from_secs(10))
        .await
    {
        bail!("not every message arrived");
    }
    run.latency = Latency::of(way.stopwatch.taken().split_off(warm_up(PACE)));
    way.close(bench, messages, run).await
}
