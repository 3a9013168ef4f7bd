//! An order's life, as messages and a machine.

use std::time::Duration;

use sagabus_saga::{Missing, Saga, SagaState, StateMachine};
use serde::{Deserialize, Serialize};

messages! { Order:
    Command PlaceOrder "orders.place",
    Command TakePayment "payments.take",
    Event PaymentTaken "payments.taken",
    Event PaymentTimedOut "orders.payment-timed-out",
    Event OrderShipped "shipping.shipped",
    Event OrderClosed "orders.closed",
    Event Remark "orders.remark",
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Stage {
    Paying,
    Shipping,
}

impl SagaState for Stage {
    const ALL: &'static [Self] = &[Self::Paying, Self::Shipping];

    fn name(self) -> &'static str {
        match self {
            Self::Paying => "paying",
            Self::Shipping => "shipping",
        }
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Order {
    pub(crate) id: u64,
    pub(crate) remarks: u32,
}

impl Saga for Order {
    type Key = u64;
    type State = Stage;
}

pub(crate) fn order_machine(deadline: Duration) -> StateMachine<Order> {
    StateMachine::named("order")
        .initially(
            Order::when::<PlaceOrder>()
                .init(|e| Order {
                    id: e.id,
                    remarks: 0,
                })
                .send(|o, _| TakePayment { id: o.id })
                .schedule("payment-deadline", deadline, |o, _| PaymentTimedOut {
                    id: o.id,
                })
                .transition_to(Stage::Paying),
        )
        .during(
            Stage::Paying,
            Order::when::<PaymentTaken>()
                .unschedule("payment-deadline")
                .transition_to(Stage::Shipping),
        )
        .during(
            Stage::Paying,
            Order::when::<PaymentTimedOut>()
                .publish(|o, _| OrderClosed { id: o.id })
                .finalize(),
        )
        .during(
            Stage::Shipping,
            Order::when::<OrderShipped>()
                .publish(|o, _| OrderClosed { id: o.id })
                .finalize(),
        )
        .during_any(Order::when::<Remark>().then(|o, _| o.remarks += 1).stay())
        .missing_for::<Remark>(Missing::Wait(Duration::from_millis(60)))
}
