//! A service whose program has the operator's command line beside its own: `run`, `describe`,
//! `machines`, `plan`, and all that `sagabus` does.
//!
//! ```text
//! cargo run --features cli --example own_program -- machines show order
//! cargo run --features cli --example own_program -- --store shop.db migrate
//! cargo run --features cli --example own_program -- --store shop.db run
//! cargo run --features cli --example own_program -- plan --against shop.db
//! ```
//!
//! `SHOP_RELEASE=2` is the release after it, which forgot a state, a time-out and a saga.

use std::process::ExitCode;

use sagabus::prelude::*;
use sagabus::{BuildError, HostBuilder};
use serde::{Deserialize, Serialize};

#[derive(Command, Serialize, Deserialize)]
#[message("orders.place", correlate(Order = order))]
struct PlaceOrder {
    order: u64,
}

#[derive(Event, Serialize, Deserialize)]
#[message("orders.paid", correlate(Order = order))]
struct Paid {
    order: u64,
}

#[derive(Event, Serialize, Deserialize)]
#[message("orders.reminder", correlate(Order = order))]
struct Reminder {
    order: u64,
}

#[derive(Event, Serialize, Deserialize)]
#[message("orders.opened", correlate(Parcel = order))]
struct Opened {
    order: u64,
}

#[derive(State, Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Stage {
    Waiting,
    Reminded,
}

#[derive(Saga, Serialize, Deserialize)]
#[saga(key = u64, state = Stage)]
struct Order {
    id: u64,
}

/// Reminds once of what is not paid.
fn orders() -> StateMachine<Order> {
    StateMachine::named("order")
        .initially(
            Order::when::<PlaceOrder>()
                .init(|message| Order { id: message.order })
                .publish(|order, _| Opened { order: order.id })
                .schedule("reminder", 1.secs(), |order, _| Reminder {
                    order: order.id,
                })
                .transition_to(Stage::Waiting),
        )
        .during(
            Stage::Waiting,
            Order::when::<Reminder>()
                .schedule("reminder", 90.days(), |order, _| Reminder {
                    order: order.id,
                })
                .transition_to(Stage::Reminded),
        )
        .during(Stage::Reminded, Order::when::<Reminder>().finalize())
        .during_any(Order::when::<Paid>().finalize())
}

#[derive(Saga, Serialize, Deserialize)]
#[saga("parcel", key = u64)]
struct Parcel {
    order: u64,
}

impl Starts<Opened> for Parcel {
    fn start(message: &Opened) -> Self {
        Self {
            order: message.order,
        }
    }
}

impl Handles<Opened> for Parcel {
    async fn handle(&mut self, _: Opened, _: &mut SagaCtx) -> Result {
        Ok(())
    }
}

#[derive(State, Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum LaterStage {
    Waiting,
}

#[derive(Saga, Serialize, Deserialize)]
#[saga(key = u64, state = LaterStage)]
struct LaterOrder {
    id: u64,
}

#[derive(Command, Serialize, Deserialize)]
#[message("orders.place", correlate(LaterOrder = order))]
struct LaterPlaceOrder {
    order: u64,
}

#[derive(Event, Serialize, Deserialize)]
#[message("orders.paid", correlate(LaterOrder = order))]
struct LaterPaid {
    order: u64,
}

/// Reminds nobody any more.
fn later_orders() -> StateMachine<LaterOrder> {
    StateMachine::named("order")
        .initially(
            LaterOrder::when::<LaterPlaceOrder>()
                .init(|message| LaterOrder { id: message.order })
                .transition_to(LaterStage::Waiting),
        )
        .during_any(LaterOrder::when::<LaterPaid>().finalize())
}

/// The service, without a database: that is given on the command line.
async fn host() -> Result<HostBuilder, BuildError> {
    let shop = Host::builder("shop");
    if std::env::var("SHOP_RELEASE").as_deref() == Ok("2") {
        return Ok(shop.endpoint("orders", |e| e.machine(later_orders())));
    }
    let shop = shop.endpoint("orders", |e| e.machine(orders()));
    Ok(shop.endpoint("parcels", |e| {
        e.saga(saga::<Parcel>().starts_with::<Opened>())
    }))
}

fn main() -> ExitCode {
    sagabus::cli::main(host)
}
