//! `sagabus demo`.

use std::time::Duration;

use sagabus_core::admin::StoreAdmin;
use sagabus_core::{Host, RunningHost, StoreError};
use sagabus_ops::{OpsError, Role};
use serde_json::json;
use tokio::time::Instant;

use crate::arguments::OperatorArguments;
use crate::failure::Failure;
use crate::output::Output;
use crate::place::Place;
use crate::shop;

/// The shop's host, as `sagabus hosts` shows it.
const NAME: &str = "demo-shop";
/// How long an afternoon may take.
const DONE_WITHIN: Duration = Duration::from_secs(60);
/// How often it is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// How long the host may take to stop.
const STOPPED_WITHIN: Duration = Duration::from_secs(10);

/// What to try, in an order that tells a story.
const NEXT: [&str; 8] = [
    "sagabus status",
    "sagabus dead-letters groups",
    "sagabus dead-letters show 1",
    "sagabus sagas list --state placed",
    "sagabus sagas show order 3",
    "sagabus machines show order",
    "sagabus outbox parked",
    "sagabus accounts",
];

/// Fills a database with the afternoon of a shop.
pub(crate) async fn run(
    store: Option<&str>,
    who: &OperatorArguments,
    out: &Output,
) -> Result<(), Failure> {
    who.role.demand(Role::Admin, "fill a database")?;
    if who.dry_run {
        return preview(store, out).await;
    }
    let place = Place::open_or_make(store).await?;
    place.migrate().await?;
    demand_empty(place.admin()).await?;
    let host = shop::equip(Host::builder(NAME).shared_store(place.store()));
    let host = host.build()?.start().await?;
    let sold = sell(&host, place.admin()).await;
    let is_clean = host.stop(STOPPED_WITHIN).await;
    sold?;
    if !is_clean {
        out.note("the shop did not close in time; what it had in hand waits in the outbox");
    }
    let document = || {
        json!({
            "orders": shop::ORDERS,
            "delivered": shop::DELIVERED,
            "dead_letters": shop::DEAD,
            "parked": shop::PARKED,
        })
    };
    if out.json(document)? {
        return Ok(());
    }
    out.line(&format!(
        "{} orders: {} delivered, {} whose payment failed, {} without a label; and one command that \
         nobody can read",
        shop::ORDERS,
        shop::DELIVERED,
        shop::DEAD - 1,
        shop::PARKED
    ))?;
    out.line("with the same --store, or SAGABUS_STORE set to it, try:")?;
    for line in NEXT {
        out.line(&format!("  {line}"))?;
    }
    Ok(())
}

/// Says what would be made, and makes no file.
async fn preview(store: Option<&str>, out: &Output) -> Result<(), Failure> {
    // A file or a schema that is not there is what the demo makes.
    match Place::open(store).await {
        Ok(place) if place.admin().about().await.is_ok() => demand_empty(place.admin()).await?,
        Ok(_) | Err(Failure::Ops(OpsError::Store(StoreError::Setup(_)))) => {}
        Err(failure) => return Err(failure),
    }
    let orders = shop::ORDERS;
    match out.json(|| json!({ "preview": { "orders": orders } }))? {
        true => Ok(()),
        false => out.line(&format!("would make the schema and sell {orders} orders")),
    }
}

/// Refuses what somebody uses: a demo's messages among real ones would be handled by real hosts.
async fn demand_empty(admin: &dyn StoreAdmin) -> Result<(), Failure> {
    let counts = admin.counts().await?;
    let hosts = admin.hosts().await?;
    let rows = counts.outbox + counts.parked + counts.inbox + counts.dead_letters;
    let instances = counts.running + counts.completed;
    if rows + instances + counts.history == 0 && hosts.is_empty() {
        return Ok(());
    }
    Err(Failure::Usage(
        "this database is in use: name a new one, such as --store demo.db [SB0402]".to_owned(),
    ))
}

/// Places the orders and waits until nothing moves any more.
async fn sell(host: &RunningHost, admin: &dyn StoreAdmin) -> Result<(), Failure> {
    let placed = shop::open(&host.bus()).await;
    placed.map_err(|error| Failure::Host(error.into()))?;
    let end = Instant::now() + DONE_WITHIN;
    loop {
        let counts = admin.counts().await?;
        let is_done = counts.dead_letters == u64::from(shop::DEAD)
            && counts.parked == u64::from(shop::PARKED)
            && counts.running == u64::from(shop::ORDERS - shop::DELIVERED);
        if is_done {
            return Ok(());
        }
        if Instant::now() > end {
            let said = format!("the shop has not done its work within {DONE_WITHIN:?}");
            return Err(StoreError::Unavailable(said.into()).into());
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}
