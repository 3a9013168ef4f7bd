//! A handler keeps something across an await that must stay on its thread.

use std::rc::Rc;

use sagabus::prelude::*;
use serde::{Deserialize, Serialize};

#[derive(Command, Serialize, Deserialize)]
#[message("orders.place-order")]
struct PlaceOrder;

async fn place_order(_: PlaceOrder) {
    let count = Rc::new(1);
    std::future::ready(()).await;
    drop(count);
}

fn main() {
    Host::builder("shop").endpoint("orders", |endpoint| endpoint.handle(place_order));
}
