//! A command is published as if everyone owned it.

use sagabus::prelude::*;
use serde::{Deserialize, Serialize};

#[derive(Command, Serialize, Deserialize)]
#[message("orders.place-order")]
struct PlaceOrder;

fn place(bus: &Bus) {
    let _ = bus.publish(PlaceOrder);
}

fn main() {
    place(&Bus::default());
}
