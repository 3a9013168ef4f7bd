//! Everybody else, while a handler sleeps in its transaction on a message whose duplicate is on
//! another host.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use futures_util::future::{BoxFuture, FutureExt};
use sagabus_core::{Ctx, HandlerError, Host, RunningHost, State};
use sagabus_outbox::{Postgres, Tx};
use uuid::Uuid;

use crate::filling;
use crate::measure::Window;
use crate::ratio::{Must, Promise};
use crate::row::{Bench, Found, Latency, Run};
use crate::services::{Backend, Place};
use crate::source::{Raw, Source, Synthetic};
use crate::workload::{Charge, ENDPOINT, nth_charge};

/// How long the handler sleeps.
const SLEEPS: Duration = Duration::from_millis(1_500);
/// Messages of everybody else, on each host.
const OTHERS: u64 = 300;
/// The pause between them.
const PACE: Duration = Duration::from_millis(4);
/// What the others may take, in milliseconds.
const MUST: f64 = 100.0;
/// The message that is slept on.
const SLEEPER: Uuid = Uuid::from_u128(0x018b_cfe5_6800_7000_8000_0000_0000_0001);

/// Says on which host the handler sleeps.
#[derive(Debug)]
struct Sleepy(AtomicBool);

/// Measures how long the others take.
pub(crate) fn others(bench: &Bench, backend: Backend) -> BoxFuture<'_, Result<Found>> {
    async move {
        let place = bench.services.place(backend, &filling::payments()).await?;
        place
            .run("create table effect (message_id uuid not null)")
            .await?;
        let (one, sleeping) = host(&place, true).await?;
        let (two, other) = host(&place, false).await?;
        warm_up(&[&sleeping, &other]).await?;
        let before = [sleeping.took().len(), other.took().len()];
        let window = Window::open(&place).await?;
        // The sleeper first, then its duplicate on the other host, then everybody else.
        sleeping.offer(1);
        tokio::time::sleep(Duration::from_millis(200)).await;
        other.offer(1);
        for _ in 0..OTHERS {
            sleeping.offer(1);
            other.offer(1);
            tokio::time::sleep(PACE).await;
        }
        let all = async {
            while sleeping.acked() + other.acked() < 2 * (WARM_UP + 1 + OTHERS) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        if tokio::time::timeout(Duration::from_secs(20), all)
            .await
            .is_err()
        {
            bail!("not every message was acked");
        }
        let mut run = window.close(&place, 2 * OTHERS, None).await?;
        for host in [one, two] {
            host.stop(Duration::from_secs(10)).await;
        }
        let effects = place
            .number(
                "select count(*) from effect where message_id = \
            '018bcfe5-6800-7000-8000-000000000001'",
            )
            .await?;
        run.expect("effects of the message that was slept on", effects, 1);
        let all = place.number("select count(*) from effect").await?;
        run.expect(
            "effects in all",
            all,
            i64::try_from(1 + 2 * (WARM_UP + OTHERS))?,
        );
        latency_of_others(
            &mut run,
            sleeping.took().split_off(before[0]),
            other.took().split_off(before[1]),
        )?;
        bench.services.remove(place).await?;
        let p99 = run.p99();
        let mut found = Found {
            faults: run.faults.clone(),
            ..Found::default()
        };
        let what = "p99 ms of the others";
        found
            .promises
            .push(Promise::new(what, p99, Must::AtMost(MUST)));
        found.runs.insert("ours", vec![run]);
        Ok(found)
    }
    .boxed()
}

/// Notes how long everybody took but the sleeper, who is the longest on its host.
fn latency_of_others(run: &mut Run, mut took: Vec<Duration>, other: Vec<Duration>) -> Result<()> {
    took.sort_unstable();
    let slept = took.pop().context("nothing was acked")?;
    if slept < SLEEPS {
        run.faults
            .push(format!("the handler slept for {slept:?} only"));
    }
    took.extend(other);
    run.latency = Latency::of(took);
    Ok(())
}

/// Messages before the sleeper.
const WARM_UP: u64 = 100;

async fn warm_up(sources: &[&Arc<Source>]) -> Result<()> {
    for source in sources {
        let fed = source.feed(WARM_UP, Duration::from_secs(20)).await;
        fed.context("messages were not acked within 20 s")?;
    }
    Ok(())
}

async fn host(place: &Place, is_sleepy: bool) -> Result<(RunningHost, Arc<Source>)> {
    let source = Source::new(256, move |n| match n {
        WARM_UP => Raw {
            id: SLEEPER,
            ..nth_charge(n)
        },
        n => nth_charge(n),
    });
    let host = Host::builder("bench")
        .shared_store(place.open().await?.store)
        .transport(Synthetic(Arc::clone(&source)))
        .state(Sleepy(AtomicBool::new(is_sleepy)))
        .endpoint(ENDPOINT, |e| e.handle(write_effect))
        .build()?;
    Ok((host.start().await?, source))
}

async fn write_effect(
    _: Charge,
    cx: Ctx,
    sleepy: State<Sleepy>,
    mut tx: Tx<Postgres>,
) -> Result<(), HandlerError> {
    let id = cx.message_id().as_uuid();
    sqlx::query("insert into effect (message_id) values ($1)")
        .bind(id)
        .execute(tx.conn().await?)
        .await?;
    // Once: the second try finds that the other host was faster.
    if id == SLEEPER && sleepy.0.0.swap(false, Ordering::SeqCst) {
        tokio::time::sleep(SLEEPS).await;
    }
    Ok(())
}
