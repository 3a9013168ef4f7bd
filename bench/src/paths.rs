//! The hot path in memory, cut into parts for somebody who counts instructions: no database, no
//! broker, one thread. Functions that begin with `counted_` are what is counted of their part.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use clap::ValueEnum;
use futures_util::future::{BoxFuture, FutureExt};
use sagabus_core::endpoint::Order;
use sagabus_core::memory::MemoryStore;
use sagabus_core::pipeline::{Middleware, Next};
use sagabus_core::store::{
    Attached, Birth, Claim, ClaimFrom, EndpointSpec, Group, Place, Placement, Registration, Scan,
    Store,
};
use sagabus_core::{
    Ctx, Destination, EndpointName, Envelope, HandlerError, Host, HostId, Lifecycle, Outcome,
    Outgoing, Source as Answered, UnitOfWork, codec,
};
use sagabus_saga::MachineEndpoint;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::rows::s1;
use crate::source::{Raw, Source, Synthetic};
use crate::workload::{Charge, ENDPOINT, NOTE, account_name, accounts, message_for};

/// Messages on the way: the engine's own default for an endpoint.
const WINDOW: usize = 256;
/// Accounts that get the messages: so many that none is hot.
const FEW: u64 = 500;
/// Rows of one claim and of one commit.
const PART: usize = 100;
/// Under valgrind everything takes fifty times as long.
const PATIENCE: Duration = Duration::from_secs(300);

/// A part of the hot path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Path {
    /// A message becomes an envelope, and that becomes a message again.
    Envelope,
    /// A machine's transition, from stored data to stored data.
    Transition,
    /// A message is received, handled by a machine, committed and acked; what it sends is published.
    Handled,
    /// A row is claimed, answered by a unit and removed.
    OwnRow,
}

impl Path {
    pub(crate) const ALL: [Self; 4] = [
        Self::Envelope,
        Self::Transition,
        Self::Handled,
        Self::OwnRow,
    ];

    /// Whether only what `counted_` functions do is counted: of the others, all that is done more
    /// for more messages.
    pub(crate) fn is_marked(self) -> bool {
        self != Self::Handled
    }

    /// How often it is counted. The seeds of hash tables, and with them what the allocator does, move
    /// the shortest count by up to 3 %, the least of five by less than 1 %; they move others by less
    /// than 0.4 %.
    pub(crate) fn times(self) -> usize {
        match self {
            Self::Transition => 5,
            Self::Envelope | Self::Handled | Self::OwnRow => 1,
        }
    }
}

/// Does a part for so many messages.
pub(crate) async fn run(path: Path, messages: u64) -> Result<()> {
    match path {
        Path::Envelope => envelopes(messages),
        Path::Transition => transitions(messages).await,
        Path::Handled => handled(messages).await,
        Path::OwnRow => own_rows(messages).await,
    }
}

fn envelopes(messages: u64) -> Result<()> {
    let mut cents = 0;
    for n in 0..messages {
        let charge = Charge {
            account: account_name(n % FEW),
            cents: 1,
            note: NOTE.into(),
        };
        cents += counted_envelope(&charge)?.cents;
    }
    ensure!(u64::try_from(cents)? == messages, "{cents} cents came back");
    Ok(())
}

#[inline(never)]
fn counted_envelope(charge: &Charge) -> Result<Charge> {
    let envelope = Envelope::new(charge)?;
    Ok(codec::decode(&envelope)?)
}

async fn transitions(messages: u64) -> Result<()> {
    let source = Source::new(WINDOW, s1::nth_tick);
    let host = Host::builder("counted")
        .store(MemoryStore::new())
        .transport(Synthetic(Arc::clone(&source)))
        .endpoint(ENDPOINT, |e| e.middleware(Counted).machine(s1::counters()));
    through(host.build()?, &source, messages).await
}

/// Has the machine run in a function that can be told by its name.
struct Counted;

impl Middleware for Counted {
    fn name(&self) -> &'static str {
        "counted"
    }

    fn run<'a>(&'a self, cx: &'a Ctx, next: Next<'a>) -> BoxFuture<'a, Result<(), HandlerError>> {
        async move { counted_transition(cx, next) }.boxed()
    }
}

#[inline(never)]
fn counted_transition(cx: &Ctx, next: Next<'_>) -> Result<(), HandlerError> {
    // A machine without functions of the user's own waits for nothing.
    let done = next.run(cx).now_or_never();
    done.unwrap_or_else(|| Err(HandlerError::new("the machine waits").terminal()))
}

async fn handled(messages: u64) -> Result<()> {
    // Made before, so that what the bench does for a message is little.
    let raws: Vec<Raw> = (0..FEW).map(|n| message_for(n, n)).collect();
    let nth = move |n: u64| Raw {
        id: Uuid::now_v7(),
        ..raws[(n % FEW) as usize].clone()
    };
    let source = Source::new(WINDOW, nth);
    let host = Host::builder("counted")
        .store(MemoryStore::new())
        .transport(Synthetic(Arc::clone(&source)))
        .endpoint(ENDPOINT, |e| e.machine(accounts()));
    through(host.build()?, &source, messages).await?;
    let sent = messages * 3 / 2;
    ensure!(source.published() == sent, "{} sent", source.published());
    Ok(())
}

/// Lets a host handle what a source delivers.
async fn through(host: Host, source: &Source, messages: u64) -> Result<()> {
    let host = host.start().await?;
    let fed = source.feed(messages, PATIENCE).await;
    fed.with_context(|| format!("messages were not acked within {PATIENCE:?}"))?;
    if !host.stop(Duration::from_secs(60)).await {
        bail!("the host did not stop within a minute");
    }
    let committed = host.counters().committed.get();
    ensure!(committed == messages, "{committed} of {messages} committed");
    Ok(())
}

async fn own_rows(messages: u64) -> Result<()> {
    let (store, lifecycle) = (MemoryStore::new(), Lifecycle::new());
    let name = EndpointName::new(ENDPOINT)?;
    let registration = Registration {
        host: HostId::new(),
        host_name: "counted".to_owned(),
        endpoints: vec![EndpointSpec {
            name: name.clone(),
            order: Order::Unordered,
            subscriptions: Vec::new(),
        }],
        definitions: serde_json::json!({}),
    };
    let attached = store.attach(&registration, &lifecycle).await?;
    let claim = Claim {
        from: ClaimFrom::Endpoints(vec![(name.clone(), u32::try_from(PART)?)]),
        lease: PATIENCE,
        scan: Scan::Cold,
    };
    for part in 0..messages / PART as u64 {
        store.commit(&written(&attached, &name, part)?).await?;
        counted_own_rows(&store, &claim, attached.routes.version)?;
    }
    ensure!(store.due_count() == 0, "rows were left");
    ensure!(lifecycle.stop(PATIENCE).await, "the store did not stop");
    Ok(())
}

/// A group that writes rows for the endpoint.
fn written(attached: &Attached, name: &EndpointName, part: u64) -> Result<Group> {
    let target = attached.routes.endpoints.get(name).context("no endpoint")?;
    let mut unit = UnitOfWork::default();
    let mut placements = Vec::with_capacity(PART);
    for n in 0..PART {
        let raw = message_for(n as u64, part);
        let envelope = crate::source::envelope(raw);
        let outgoing = Outgoing::from_envelope(envelope, Destination::Owner);
        unit.outgoing.push(outgoing);
        placements.push(Placement {
            unit: 0,
            outgoing: n,
            place: Place::Endpoint(target.clone()),
            birth: Birth::Available,
        });
    }
    Ok(Group {
        units: vec![unit],
        placements,
        routes_version: attached.routes.version,
        lease: PATIENCE,
        ..Group::default()
    })
}

#[inline(never)]
fn counted_own_rows(store: &MemoryStore, claim: &Claim, routes_version: i64) -> Result<()> {
    // The store in memory has every answer at once.
    let claimed = store.claim(claim).now_or_never();
    let rows = claimed.context("the claim waits")??;
    ensure!(rows.len() == PART, "{} rows were claimed", rows.len());
    let units = rows.iter().map(|row| UnitOfWork {
        sources: vec![Answered::Row(row.row)],
        ..UnitOfWork::default()
    });
    let group = Group {
        units: units.collect(),
        routes_version,
        lease: PATIENCE,
        ..Group::default()
    };
    let report = store.commit(&group).now_or_never();
    let report = report.context("the commit waits")??;
    let is_committed = |outcome: &Outcome| *outcome == Outcome::Committed;
    ensure!(report.outcomes.iter().all(is_committed), "a unit was lost");
    Ok(())
}
