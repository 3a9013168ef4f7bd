//! An order's life, as messages and a machine.

use std::time::Duration;

use sagabus_core::{Command, Event, Kind, Message};
use sagabus_saga::{Correlate, Saga, SagaState, StateMachine};
use serde::{Deserialize, Serialize};

/// Declares a message about order `id`.
macro_rules! message {
    ($kind:ident $name:ident $type:literal) => {
        #[derive(Clone, Debug, Serialize, Deserialize)]
        pub(crate) struct $name {
            pub(crate) id: u64,
        }

        impl Message for $name {
            const TYPE: &'static str = $type;
            const KIND: Kind = Kind::$kind;
        }
        impl $kind for $name {}

        impl Correlate<Order> for $name {
            fn key(&self) -> u64 {
                self.id
            }
        }
    };
}

message!(Command PlaceOrder "orders.place");
message!(Command TakePayment "payments.take");
message!(Event PaymentTaken "payments.taken");
message!(Event PaymentTimedOut "orders.payment-timed-out");
message!(Event OrderShipped "shipping.shipped");
message!(Event OrderClosed "orders.closed");
message!(Event Remark "orders.remark");

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
}
