//! A handler returns something that cannot be sent.

use sagabus::prelude::*;
use serde::{Deserialize, Serialize};

#[derive(Command, Serialize, Deserialize)]
#[message("orders.place-order")]
struct PlaceOrder;

async fn place_order(_: PlaceOrder) -> u64 {
    7
}

fn main() {
    Host::builder("shop").endpoint("orders", |endpoint| endpoint.handle(place_order));
}
