//! A handler takes a value of its own without `State`.

use sagabus::prelude::*;
use serde::{Deserialize, Serialize};

#[derive(Command, Serialize, Deserialize)]
#[message("orders.place-order")]
struct PlaceOrder;

struct Gateway;

async fn place_order(_: PlaceOrder, _: Gateway) {}

fn main() {
    Host::builder("shop").endpoint("orders", |endpoint| endpoint.handle(place_order));
}
