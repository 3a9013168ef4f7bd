//! The attribute points at the return type.

use sagabus::prelude::*;
use serde::{Deserialize, Serialize};

#[derive(Command, Serialize, Deserialize)]
#[message("orders.place-order")]
struct PlaceOrder;

#[debug_handler]
async fn number(_: PlaceOrder) -> u64 {
    7
}

#[debug_handler]
async fn text_in_result(_: PlaceOrder) -> Result<Option<&'static str>> {
    Ok(None)
}

fn main() {}
