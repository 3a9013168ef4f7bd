//! M1-backlog: the memory of a relay, in a process of its own, while very many rows of 1 KiB wait.

use std::time::Duration;

use anyhow::{Result, bail};
use futures_util::future::{BoxFuture, FutureExt};
use sagabus_core::Host;

use super::relay::{Backlog, To};
use crate::brokers::Broker;
use crate::brokers::target::Target;
use crate::child::{self, Child};
use crate::measure::Window;
use crate::ratio::{Must, Promise};
use crate::row::{Bench, Found};
use crate::services::{Backend, Filling, Place};
use crate::workload::NOTE;

/// The most that it may use, in MiB.
const MUST: Must = Must::AtMost(80.0);
/// Bytes of a body.
const BODY: usize = 1_024;
/// Of them, what is not the note.
const AROUND: usize = 53;

/// Relays for a fixed time, and reads the most memory that the process ever had.
pub(crate) fn memory(bench: &Bench, _: Backend) -> BoxFuture<'_, Result<Found>> {
    async move {
        let (services, broker) = (&bench.services, Broker::RabbitMq);
        let place = services.place(Backend::Postgres, &Filling::none()).await?;
        let Place::Postgres { url, .. } = &place else {
            bail!("this row is for PostgreSQL");
        };
        let mut target = Target::open(bench, broker).await?;
        let addresses = To::Plain.open(&mut target).await?;
        let count = bench.profile.long_backlog;
        let note = NOTE.repeat(BODY.div_ceil(NOTE.len()));
        let backlog = Backlog::write(&place, &addresses, count, &note[..BODY - AROUND]).await?;
        backlog.release().await?;
        let bytes = "select length(body)::bigint from sagabus.outbox limit 1";
        let bytes = place.number(bytes).await?;
        place.settle().await?;

        let arguments = ["relaying-host", url, bench.brokers.address(broker)?];
        let mut child = Child::again(&arguments).await?;
        let window = Window::open_with(&place, bench, broker).await?;
        let before = child.cpu();
        child.tell("go").await?;
        tokio::time::sleep(bench.profile.stretch()).await;
        child.tell("report").await?;
        let published = child.answer().await?;
        let mut run = window.close(&place, published, None).await?;
        let used = child.cpu().zip(before);
        run.cpu_seconds = used.map_or(f64::NAN, |(now, before)| (now - before).as_secs_f64());
        child.tell("stop").await?;
        let sent: u64 = child.answer().await?;
        run.most_kib = child.most_kib();
        child.end().await?;

        run.rows = place.counts().await?;
        let left = run.rows["outbox"];
        run.expect("bytes of a body", bytes, i64::try_from(BODY)?);
        let all = i64::try_from(sent)? + left;
        run.expect("sent and left", all, i64::try_from(count)?);
        run.notes.insert("rows left", left as f64);
        if run.messages == 0 {
            run.faults.push("nothing was sent".to_owned());
        }
        target.take_all(sent).await?.check(&mut run, sent)?;
        target.close().await?;
        services.remove(place).await?;
        let most = run.most_mib().unwrap_or(f64::NAN);
        let mut found = Found {
            faults: run.faults.clone(),
            promises: vec![Promise::new("MiB at most", most, MUST)],
            ..Found::default()
        };
        found.runs.insert("ours", vec![run]);
        Ok(found)
    }
    .boxed()
}

/// The process itself: relays when it is told to, and says how much a broker confirmed, before it
/// stops and after it.
pub(crate) async fn run_relaying_host(database: &str, broker: &str) -> Result<()> {
    let place = Place::Postgres {
        url: database.to_owned(),
        name: String::new(),
    };
    let host = Host::builder("relaying")
        .shared_store(place.open().await?.store)
        .transport(sagabus_rabbitmq::RabbitMq::connect(broker))
        .build()?;
    println!("ready");
    child::order().await?;
    let host = host.start().await?;
    child::order().await?;
    println!("{}", host.counters().published.get());
    child::order().await?;
    if !host.stop(Duration::from_secs(10)).await {
        bail!("the host did not stop within 10 s");
    }
    println!("{}", host.counters().published.get());
    child::order().await
}
