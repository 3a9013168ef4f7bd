//! A message that is to find its instance by a label and names none.

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
#[saga(key = u64, state = Stage)]
struct Order {
    id: u64,
}

fn main() {
    let _ = Order::when_by_label::<Paid>().finalize();
    let _ = Order::when::<Place>().transition_to(Stage::Open);
}
