//! Functions that a transition cannot run.

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

/// Does not give the data back.
async fn forgets(_: Order, _: Place) -> Result {
    Ok(())
}

/// Borrows the data.
async fn borrows(order: &mut Order, _: Place) -> Result {
    order.id += 1;
    Ok(())
}

fn main() {
    let _ = Order::when::<Place>().run(forgets).stay();
    let _ = Order::when::<Place>().run(borrows).stay();
    let _ = Stage::Open;
}
