//! A handler's first argument is a type that is no message.

use sagabus::prelude::*;

struct PlaceOrder;

async fn place_order(_: PlaceOrder, _: Ctx) {}

fn main() {
    Host::builder("shop").endpoint("orders", |endpoint| endpoint.handle(place_order));
}
