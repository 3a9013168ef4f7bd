//! M1-down: the memory of a host that goes on sending while its broker is down. In a process of its
//! own; the broker is down for it alone.

use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use futures_util::future::{BoxFuture, FutureExt};
use sagabus_core::message::Message;
use sagabus_core::{Bus, Host};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::relay::until_empty;
use crate::brokers::Broker;
use crate::brokers::proxy::Proxy;
use crate::brokers::target::Target;
use crate::machine;
use crate::ratio::{Must, Promise};
use crate::row::{Bench, Found, Run};
use crate::services::{Backend, Filling, Place};
use crate::workload::Ping;

/// Messages a second.
const PACE: u32 = 1_000;
/// Bytes of a body, so that what is kept in memory would soon be seen.
const BODY: usize = 4_096;
/// The most MiB that the host may grow: a thousand rows in hand are 4 MiB of bodies, in a form of
/// ours and in the driver's, and what the allocator does not give back.
const MUST: Must = Must::AtMost(16.0);
/// Between two looks.
const LOOK: Duration = Duration::from_millis(50);
/// After this long everything that was on the way when the line was cut has arrived.
const QUIET: Duration = Duration::from_millis(500);

/// Sends on while the broker is down.
pub(crate) fn memory(bench: &Bench, _: Backend) -> BoxFuture<'_, Result<Found>> {
    async move {
        let place = bench
            .services
            .place(Backend::Postgres, &Filling::none())
            .await?;
        let mut target = Target::open(bench, Broker::RabbitMq).await?;
        target.command(Ping::TYPE).await?;
        let proxy = Proxy::open(bench.brokers.address(Broker::RabbitMq)?).await?;
        let sender = Sender::start(&place, &proxy.url).await?;
        let (up, down) = if bench.profile.name == "full" {
            (Duration::from_secs(20), Duration::from_secs(120))
        } else {
            (Duration::from_secs(4), Duration::from_secs(6))
        };
        let before = sender.most_mib_for(up).await?;
        proxy.cut();
        tokio::time::sleep(QUIET).await;
        let arrived = target.waiting().await?;
        let during = sender.most_mib_for(down).await?;
        let got_through = target.waiting().await? - arrived;
        let kept = place.number("select count(*) from sagabus.outbox").await?;
        proxy.restore();
        let after = sender.most_mib_for(QUIET * 4).await?;
        let sent = sender.stop().await?;
        until_empty(&place).await?;

        let mut run = Run {
            messages: sent,
            seconds: (up + QUIET + down + QUIET * 4).as_secs_f64(),
            rows: place.counts().await?,
            ..Run::default()
        };
        run.expect("messages that got through a cut line", got_through, 0);
        let least = i64::from(PACE) * i64::try_from(down.as_secs())? / 2;
        if kept < least {
            let fault = format!("only {kept} rows waited for the broker, less than {least}");
            run.faults.push(fault);
        }
        let arrived = target
            .take_all(u64::try_from(target.waiting().await?)?)
            .await?;
        arrived.check_each(&mut run, sent)?;
        target.close().await?;
        bench.services.remove(place).await?;

        run.notes.insert("MiB before", before);
        run.notes.insert("MiB while down", during);
        run.notes.insert("MiB after", after);
        run.notes.insert("rows that waited", kept as f64);
        let what = "MiB more while the broker is down";
        let mut found = Found {
            faults: run.faults.clone(),
            ..Found::default()
        };
        found
            .promises
            .push(Promise::new(what, during - before, MUST));
        found.runs.insert("ours", vec![run]);
        Ok(found)
    }
    .boxed()
}

/// The process that sends.
struct Sender {
    child: Child,
    orders: ChildStdin,
    says: BufReader<ChildStdout>,
}

impl Sender {
    async fn start(place: &Place, broker: &str) -> Result<Self> {
        let Place::Postgres { url, .. } = place else {
            bail!("this row is for PostgreSQL");
        };
        let mut child = Command::new(std::env::current_exe()?)
            .args(["sending-host", url, broker])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let orders = child.stdin.take().context("no way in")?;
        let says = BufReader::new(child.stdout.take().context("no way out")?);
        let mut sender = Self {
            child,
            orders,
            says,
        };
        ensure!(sender.line().await? == "ready", "the sender did not start");
        Ok(sender)
    }

    async fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        self.says.read_line(&mut line).await?;
        Ok(line.trim().to_owned())
    }

    /// Returns the most memory that the process was seen with.
    async fn most_mib_for(&self, time: Duration) -> Result<f64> {
        let id = self.child.id().context("the sender has ended")?;
        let until = Instant::now() + time;
        let mut most = 0;
        while Instant::now() < until {
            let (now, _) = machine::memory_kib(id).context("the sender has ended")?;
            most = most.max(now);
            tokio::time::sleep(LOOK).await;
        }
        Ok(most as f64 / 1024.0)
    }

    /// Ends it when all is published; returns how many messages it sent.
    async fn stop(mut self) -> Result<u64> {
        self.orders.write_all(b"stop\n").await?;
        let sent = self.line().await?.parse()?;
        ensure!(self.child.wait().await?.success(), "the sender failed");
        Ok(sent)
    }
}

/// The process itself: sends at a steady pace until it is told to stop, then publishes the rest.
pub(crate) async fn run_sending_host(database: &str, broker: &str) -> Result<()> {
    let place = Place::Postgres {
        url: database.to_owned(),
        name: String::new(),
    };
    let host = Host::builder("sending")
        .shared_store(place.open().await?.store)
        .transport(sagabus_rabbitmq::RabbitMq::connect(broker))
        .build()?
        .start()
        .await?;
    println!("ready");
    let (stop, stopped) = watch::channel(false);
    tokio::task::spawn_blocking(move || {
        // Whatever comes, or the end of whoever gives orders.
        let _ = std::io::stdin().read_line(&mut String::new());
        stop.send_replace(true);
    });
    let sent = send(host.bus(), &stopped).await?;
    until_empty(&place).await?;
    println!("{sent}");
    host.stop(Duration::from_secs(5)).await;
    Ok(())
}

/// Sends at a steady pace until it is told to stop, whatever becomes of what was sent.
async fn send(bus: Bus, stopped: &watch::Receiver<bool>) -> Result<u32> {
    let started = Instant::now();
    let mut sending = JoinSet::new();
    let mut sent = 0;
    while !*stopped.borrow() {
        let due = started + Duration::from_secs(1) / PACE * sent;
        tokio::time::sleep_until(due.into()).await;
        let (bus, at) = (bus.clone(), u64::from(sent));
        let note = "x".repeat(BODY).into();
        sending.spawn(async move { bus.send(Ping { at, note }).await });
        sent += 1;
        while let Some(one) = sending.try_join_next() {
            one??;
        }
    }
    while let Some(one) = sending.join_next().await {
        one??;
    }
    Ok(sent)
}
