//! The life of an order, in one place.
//!
//! ```text
//!            PlaceOrder            PaymentTaken             OrderShipped
//!  (start) ────────────▶ awaiting ─────────────▶ shipping ──────────────▶ finished
//!                        payment
//!                         │   │ PaymentDeclined
//!         PaymentTimedOut │   └──────────────────────────────────┐
//!                         ▼                                      ▼
//!                    overdue ──── PaymentDeclined ──────────▶ cancelled
//!                         │ PaymentTaken, too late               ▲
//!                         ▼                                      │
//!                    refunding ──── PaymentRefunded ─────────────┘
//! ```

use std::time::Duration;

use sagabus::prelude::*;
use serde::{Deserialize, Serialize};

use crate::messages::{
    OrderCancelled, OrderFinished, OrderShipped, PaymentDeclined, PaymentOverdue, PaymentRefunded,
    PaymentTaken, PaymentTimedOut, PlaceOrder, RefundPayment, ShipOrder, TakePayment,
};

/// How long a customer waits for the payment. Short, so that one can watch it pass.
pub(crate) const PAYMENT_DEADLINE: Duration = Duration::from_secs(2);

/// What the machine remembers of an order between two messages.
#[derive(Serialize, Deserialize, Saga)]
#[saga(key = i64, state = Stage)]
pub(crate) struct Order {
    pub(crate) order_id: i64,
    pub(crate) cents: i64,
}

/// Where an order stands while it is under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, State)]
pub(crate) enum Stage {
    AwaitingPayment,
    Shipping,
    /// The deadline has passed, and whether the card was charged is not known yet.
    Overdue,
    Refunding,
}

/// Declares what every message does in every state.
pub(crate) fn order_machine() -> StateMachine<Order> {
    let machine = StateMachine::named("order")
        .initially(
            Order::when::<PlaceOrder>()
                .init(|m| Order {
                    order_id: m.order_id,
                    cents: m.cents,
                })
                .send(|o, m| TakePayment {
                    order_id: o.order_id,
                    cents: o.cents,
                    card: m.card.clone(),
                })
                .schedule("payment-deadline", PAYMENT_DEADLINE, |o, _| {
                    PaymentTimedOut {
                        order_id: o.order_id,
                    }
                })
                .transition_to(Stage::AwaitingPayment),
        )
        .during(
            Stage::AwaitingPayment,
            Order::when::<PaymentTaken>()
                .unschedule("payment-deadline")
                .send(|o, _| ShipOrder {
                    order_id: o.order_id,
                })
                .transition_to(Stage::Shipping),
        )
        .during(
            Stage::AwaitingPayment,
            Order::when::<PaymentDeclined>()
                .publish(declined)
                .finalize(),
        )
        .during(
            Stage::AwaitingPayment,
            // Not cancelled yet: the card may have been charged, or may still be. `TakePayment` is
            // always answered, and only its answer says whether there is money to give back.
            Order::when::<PaymentTimedOut>()
                .publish(|o, _| PaymentOverdue {
                    order_id: o.order_id,
                })
                .transition_to(Stage::Overdue),
        )
        .during(
            Stage::Shipping,
            Order::when::<OrderShipped>()
                .publish(|o, _| OrderFinished {
                    order_id: o.order_id,
                })
                .finalize(),
        );
    with_late_payments(machine)
}

/// Adds what happens after the payment deadline has passed.
fn with_late_payments(machine: StateMachine<Order>) -> StateMachine<Order> {
    machine
        .during(
            Stage::Overdue,
            Order::when::<PaymentDeclined>()
                .publish(declined)
                .finalize(),
        )
        .during(
            Stage::Overdue,
            Order::when::<PaymentTaken>()
                .send(|o, m| RefundPayment {
                    order_id: o.order_id,
                    cents: o.cents,
                    receipt: m.receipt.clone(),
                })
                .transition_to(Stage::Refunding),
        )
        .during(
            Stage::Refunding,
            Order::when::<PaymentRefunded>()
                .publish(|o, _| OrderCancelled {
                    order_id: o.order_id,
                    reason: "paid too late, refunded".to_owned(),
                })
                .finalize(),
        )
}

fn declined(order: &Order, message: &PaymentDeclined) -> OrderCancelled {
    OrderCancelled {
        order_id: order.order_id,
        reason: message.reason.clone(),
    }
}
