//! One process of the service: its handlers, its way to store and broker, its life.

use std::sync::Arc;
use std::time::Duration;

use sagabus_core::endpoint::Order;
use sagabus_core::memory::MemoryTransport;
use sagabus_core::store::Retention;
use sagabus_core::{Ctx, HandlerError, Host, Result, Retry, RunError, RunningHost};
use sagabus_saga::{SagaEndpoint, saga};

use crate::broker::SimBroker;
use crate::door::SimTx;
use crate::link::Link;
use crate::messages::{
    Account, Bounced, Credit, Credited, Debit, Debited, Note, Refund, Refunded, Settled, bounces,
    cannot_be_noted, cents, stumbles, transfers, vanishes,
};
use crate::store::Database;

/// How long a row belongs to a host.
pub(crate) const LEASE: Duration = Duration::from_millis(900);

async fn debit(m: Debit, mut tx: SimTx) -> Result<Debited> {
    tx.write((m.id, "debit", -cents(m.id)))?;
    Ok(Debited { id: m.id })
}

async fn credit(m: Credit, mut tx: SimTx, cx: Ctx) -> Result<(Option<Credited>, Option<Bounced>)> {
    if bounces(m.id) {
        return Ok((None, Some(Bounced { id: m.id })));
    }
    if vanishes(m.id) {
        return Ok((None, None));
    }
    tx.write((m.id, "credit", cents(m.id)))?;
    if stumbles(m.id) && cx.attempt() < 3 {
        return Err(HandlerError::new("stumbles after its first write"));
    }
    Ok((Some(Credited { id: m.id }), None))
}

async fn refund(m: Refund, mut tx: SimTx) -> Result<Refunded> {
    tx.write((m.id, "refund", cents(m.id)))?;
    Ok(Refunded { id: m.id })
}

async fn note_settled(m: Settled, mut tx: SimTx) -> Result<()> {
    if cannot_be_noted(m.id) {
        return Err(HandlerError::new("this one cannot be noted"));
    }
    tx.write((m.id, "settled", 0))
}

/// Its rows are of the group's own transaction where no other row is: both doors have an endpoint.
async fn note(m: Note, mut tx: SimTx) -> Result<()> {
    tx.write((m.id, "note", m.number))
}

fn retry() -> Retry {
    Retry {
        immediate: 0,
        delayed: 3,
        delay: Duration::from_millis(20),
        delay_max: Duration::from_millis(50),
        ..Retry::default()
    }
}

/// What the processes of a run share.
#[derive(Clone, Debug)]
pub(crate) struct Site {
    pub(crate) database: Database,
    /// None: the database is the bus.
    pub(crate) broker: Option<MemoryTransport>,
}

/// Starts a process behind its link.
pub(crate) async fn start(site: &Site, link: &Arc<Link>) -> Result<RunningHost, RunError> {
    // Of several that wait for one wake-up tokio chooses by chance: with a broker, nobody waits.
    let store = site.database.store(link, site.broker.is_none());
    let builder = Host::builder(&link.name)
        .shared_store(Arc::new(store))
        .lease(LEASE)
        .retention(Retention {
            interval: Duration::from_millis(500),
            ..Retention::default()
        })
        .endpoint("transfers", transfers)
        .endpoint("debits", |e| e.handle(debit).handle(refund).retry(retry()))
        .endpoint("credits", |e| e.handle(credit).retry(retry()))
        .endpoint("settled", |e| e.handle(note_settled).retry(retry()))
        .endpoint("notes", |e| {
            e.handle(note).order(Order::PerKey).retry(retry())
        })
        .endpoint("accounts", |e| {
            e.saga(saga::<Account>().starts_with::<Settled>().merges())
        });
    let builder = match &site.broker {
        Some(broker) => builder.transport(SimBroker::new(broker, link)),
        None => builder,
    };
    let host = builder
        .build()
        .map_err(|error| RunError::Store(sagabus_core::StoreError::Setup(error.to_string())))?;
    host.start().await
}
