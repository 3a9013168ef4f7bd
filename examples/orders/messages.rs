//! Everything that travels: commands ask one owner, events tell everyone.

use sagabus::prelude::*;
use serde::{Deserialize, Serialize};

use crate::machine::Order;

/// Asks for an order to be carried out. Sent by the API, in the transaction that writes the order.
#[derive(Command, Serialize, Deserialize)]
#[message("orders.place-order", key = order_id, correlate(Order = order_id))]
pub(crate) struct PlaceOrder {
    pub(crate) order_id: i64,
    pub(crate) cents: i64,
    pub(crate) card: String,
}

/// Asks for money. Answered exactly once: by `PaymentTaken` or by `PaymentDeclined`.
#[derive(Command, Serialize, Deserialize)]
#[message("payments.take-payment", key = order_id)]
pub(crate) struct TakePayment {
    pub(crate) order_id: i64,
    pub(crate) cents: i64,
    pub(crate) card: String,
}

/// The gateway has charged the card; our own books do not know yet.
#[derive(Event, Serialize, Deserialize)]
#[message("payments.card-charged", key = order_id)]
pub(crate) struct CardCharged {
    pub(crate) order_id: i64,
    pub(crate) cents: i64,
    pub(crate) receipt: String,
}

/// The money is here and in our books.
#[derive(Event, Serialize, Deserialize)]
#[message("payments.payment-taken", key = order_id, correlate(Order = order_id))]
pub(crate) struct PaymentTaken {
    pub(crate) order_id: i64,
    pub(crate) receipt: String,
}

/// The gateway refused; no money moved.
#[derive(Event, Serialize, Deserialize)]
#[message("payments.payment-declined", key = order_id, correlate(Order = order_id))]
pub(crate) struct PaymentDeclined {
    pub(crate) order_id: i64,
    pub(crate) reason: String,
}

/// The machine's timer: nobody has answered `TakePayment` in time.
#[derive(Event, Serialize, Deserialize)]
#[message("orders.payment-timed-out", key = order_id, correlate(Order = order_id))]
pub(crate) struct PaymentTimedOut {
    pub(crate) order_id: i64,
}

/// The customer is to hear that the order will be cancelled.
#[derive(Event, Serialize, Deserialize)]
#[message("orders.payment-overdue", key = order_id)]
pub(crate) struct PaymentOverdue {
    pub(crate) order_id: i64,
}

/// Asks for money to be given back.
#[derive(Command, Serialize, Deserialize)]
#[message("payments.refund-payment", key = order_id)]
pub(crate) struct RefundPayment {
    pub(crate) order_id: i64,
    pub(crate) cents: i64,
    pub(crate) receipt: String,
}

/// The gateway has given the money back; our own books do not know yet.
#[derive(Event, Serialize, Deserialize)]
#[message("payments.card-refunded", key = order_id)]
pub(crate) struct CardRefunded {
    pub(crate) order_id: i64,
    pub(crate) cents: i64,
    pub(crate) receipt: String,
}

/// The money is back with the customer and out of our books.
#[derive(Event, Serialize, Deserialize)]
#[message("payments.payment-refunded", key = order_id, correlate(Order = order_id))]
pub(crate) struct PaymentRefunded {
    pub(crate) order_id: i64,
}

/// Asks for a parcel.
#[derive(Command, Serialize, Deserialize)]
#[message("shipping.ship-order", key = order_id)]
pub(crate) struct ShipOrder {
    pub(crate) order_id: i64,
}

/// The parcel has left.
#[derive(Event, Serialize, Deserialize)]
#[message("shipping.order-shipped", key = order_id, correlate(Order = order_id))]
pub(crate) struct OrderShipped {
    pub(crate) order_id: i64,
}

/// The good end.
#[derive(Event, Serialize, Deserialize)]
#[message("orders.order-finished", key = order_id)]
pub(crate) struct OrderFinished {
    pub(crate) order_id: i64,
}

/// The other end. No money of the customer is left with us.
#[derive(Event, Serialize, Deserialize)]
#[message("orders.order-cancelled", key = order_id)]
pub(crate) struct OrderCancelled {
    pub(crate) order_id: i64,
    pub(crate) reason: String,
}
