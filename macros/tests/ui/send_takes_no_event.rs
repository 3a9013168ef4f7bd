//! An event is sent as if it had one owner.

use sagabus::prelude::*;
use serde::{Deserialize, Serialize};

#[derive(Command, Serialize, Deserialize)]
#[message("orders.place-order")]
struct PlaceOrder;

#[derive(Event, Serialize, Deserialize)]
#[message("orders.order-placed")]
struct OrderPlaced;

async fn place_order(_: PlaceOrder, cx: Ctx) -> Result {
    cx.send(OrderPlaced)?;
    Ok(())
}

fn main() {
    Host::builder("shop").endpoint("orders", |endpoint| endpoint.handle(place_order));
}
