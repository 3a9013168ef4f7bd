//! Functions that cannot be handlers by their shape.

use sagabus::prelude::*;
use serde::{Deserialize, Serialize};

#[derive(Command, Serialize, Deserialize)]
#[message("orders.place-order")]
struct PlaceOrder;

#[debug_handler]
fn not_asynchronous(_: PlaceOrder) {}

#[debug_handler]
async fn without_message() {}

#[debug_handler]
async fn generic<T: Command>(_: T) {}

#[debug_handler]
async fn described(_: impl Command) {}

#[debug_handler]
#[rustfmt::skip]
async fn nine(_: PlaceOrder, _: Ctx, _: Ctx, _: Ctx, _: Ctx, _: Ctx, _: Ctx, _: Ctx, _: Ctx, _: Bus) {}

#[debug_handler(name = "place")]
async fn unknown_setting(_: PlaceOrder) {}

#[debug_handler]
struct NotAFunction;

struct Shop;

impl Shop {
    #[debug_handler]
    async fn method(&self, _: PlaceOrder) {}
}

fn main() {}
