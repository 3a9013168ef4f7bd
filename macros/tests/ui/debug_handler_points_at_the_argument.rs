//! The attribute points at the one argument that is wrong.

use sagabus::prelude::*;
use serde::{Deserialize, Serialize};

#[derive(Command, Serialize, Deserialize)]
#[message("orders.place-order")]
struct PlaceOrder;

struct Gateway;

#[debug_handler]
async fn own_value(_: PlaceOrder, _: IdempotencyKey, _: Gateway) {}

#[debug_handler]
async fn message_last(_: Ctx, _: PlaceOrder) {}

fn main() {}
