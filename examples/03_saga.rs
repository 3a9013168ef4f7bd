//! A handler-per-message saga: a parcel is shipped when its order is paid and packed, whichever
//! comes first, and packed within a moment.
//!
//! ```text
//! order 1 is on its way
//! order 2 is not packed yet
//! order 2 is on its way
//! ```

use sagabus::memory::MemoryStore;
use sagabus::prelude::*;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

#[derive(Event, Serialize, Deserialize)]
#[message("shop.order-paid", correlate(Shipping = 0))]
struct OrderPaid(u32);

#[derive(Event, Serialize, Deserialize)]
#[message("shop.order-packed", correlate(Shipping = 0))]
struct OrderPacked(u32);

#[derive(Event, Serialize, Deserialize)]
#[message("shop.packing-is-late", correlate(Shipping = 0))]
struct PackingIsLate(u32);

#[derive(Event, Serialize, Deserialize)]
#[message("shop.told")]
struct Told(String);

/// What is remembered between two messages.
#[derive(Default, Serialize, Deserialize, Saga)]
#[saga("shipping", key = u32)]
struct Shipping {
    order: u32,
    paid: bool,
    packed: bool,
}

impl Shipping {
    fn of(order: u32) -> Self {
        Self {
            order,
            ..Self::default()
        }
    }

    fn ship_when_ready(&self, cx: &mut SagaCtx) -> Result {
        if self.paid && self.packed {
            cx.publish(Told(format!("order {} is on its way", self.order)))?;
            cx.complete();
        }
        Ok(())
    }
}

impl Starts<OrderPaid> for Shipping {
    fn start(message: &OrderPaid) -> Self {
        Self::of(message.0)
    }
}

impl Handles<OrderPaid> for Shipping {
    async fn handle(&mut self, _: OrderPaid, cx: &mut SagaCtx) -> Result {
        self.paid = true;
        cx.timeout("packing", 50.millis(), PackingIsLate(self.order))?;
        self.ship_when_ready(cx)
    }
}

impl Starts<OrderPacked> for Shipping {
    fn start(message: &OrderPacked) -> Self {
        Self::of(message.0)
    }
}

impl Handles<OrderPacked> for Shipping {
    async fn handle(&mut self, _: OrderPacked, cx: &mut SagaCtx) -> Result {
        self.packed = true;
        self.ship_when_ready(cx)
    }
}

impl Handles<PackingIsLate> for Shipping {
    async fn handle(&mut self, _: PackingIsLate, cx: &mut SagaCtx) -> Result {
        cx.publish(Told(format!("order {} is not packed yet", self.order)))?;
        Ok(())
    }
}

async fn show(event: Told, seen: State<mpsc::Sender<String>>) -> Result {
    println!("{}", event.0);
    seen.send(event.0).await?;
    Ok(())
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let shipping = saga::<Shipping>()
        .starts_with::<OrderPaid>()
        .starts_with::<OrderPacked>()
        .on::<PackingIsLate>();
    let (sender, mut seen) = mpsc::channel::<String>(8);
    let host = Host::builder("shop")
        .store(MemoryStore::new())
        .state(sender)
        .endpoint("shipping", |e| e.saga(shipping))
        .endpoint("show", |e| e.handle(show))
        .build()?;
    let host = host.start().await?;
    let bus = host.bus();
    let mut next = async || seen.recv().await.unwrap_or_default();
    bus.publish(OrderPacked(1)).await?;
    bus.publish(OrderPaid(1)).await?;
    assert_eq!(next().await, "order 1 is on its way");
    bus.publish(OrderPaid(2)).await?;
    assert_eq!(next().await, "order 2 is not packed yet"); // By itself, after 50 ms.
    bus.publish(OrderPacked(2)).await?;
    assert_eq!(next().await, "order 2 is on its way");
    host.stop(5.secs()).await;
    Ok(())
}
