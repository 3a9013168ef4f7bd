//! A transition says what it does and not where it ends.

use sagabus::prelude::*;
use serde::{Deserialize, Serialize};

#[derive(State, Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Stage {
    Paying,
}

#[derive(Saga, Serialize, Deserialize)]
#[saga(key = u64, state = Stage)]
struct Order {
    id: u64,
}

#[derive(Event, Serialize, Deserialize)]
#[message("orders.order-placed", correlate(Order = order_id))]
struct OrderPlaced {
    order_id: u64,
}

fn main() {
    let _ = StateMachine::<Order>::named("order")
        .during(Stage::Paying, Order::when::<OrderPlaced>().then(|_, _| ()));
}
