//! The attribute points at what keeps the future on its thread.

use std::rc::Rc;

use sagabus::prelude::*;
use serde::{Deserialize, Serialize};

#[derive(Command, Serialize, Deserialize)]
#[message("orders.place-order")]
struct PlaceOrder;

#[debug_handler]
async fn place_order(_: PlaceOrder) {
    let count = Rc::new(1);
    std::future::ready(()).await;
    drop(count);
}

fn main() {}
