//! A saga that is said to take a message and has no `Handles` for it, and one without a name.

use sagabus::prelude::*;
use serde::{Deserialize, Serialize};

#[derive(Command, Clone, Serialize, Deserialize)]
#[message("shop.place", correlate(Order = id))]
struct Place {
    id: u64,
}

#[derive(Event, Clone, Serialize, Deserialize)]
#[message("shop.paid")]
struct Paid {
    payment: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, State)]
enum Stage {
    Open,
}

#[derive(Saga, Serialize, Deserialize)]
#[saga("order", key = u64)]
struct Order {
    id: u64,
}

#[derive(Saga, Serialize, Deserialize)]
#[saga(key = u64)]
struct Nameless {}

fn main() {
    let _ = saga::<Order>().on::<Place>();
    let _ = saga::<Order>().starts_with::<Place>();
    let _ = saga::<Nameless>();
    let _ = Stage::Open;
}
