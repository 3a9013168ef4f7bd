//! The shop of `sagabus demo`: what it sells does not matter, what goes wrong in it does.

use std::time::Duration;

use sagabus_core::error::CodecError;
use sagabus_core::message::{self, Kind, Message};
use sagabus_core::{
    Bus, BusError, Destination, Envelope, HandlerError, HostBuilder, Outgoing, Result, ResultExt,
    Retry, cron,
};
use sagabus_saga::{Correlate, MachineEndpoint, Saga, SagaState, StateMachine};
use serde::{Deserialize, Serialize};

/// Orders that are placed.
pub(crate) const ORDERS: u32 = 40;
/// Dead letters of these orders, one that cannot be read among them.
pub(crate) const DEAD: u32 = ORDERS / 10 * 2 + 1;
/// Commands that nobody takes.
pub(crate) const PARKED: u32 = ORDERS / 10;
/// Orders that are delivered.
pub(crate) const DELIVERED: u32 = ORDERS / 10 * 7;

macro_rules! messages {
    ($($name:ident $type:literal $kind:ident $($correlated:ident)?;)*) => {
        $(#[derive(Clone, Debug, Serialize, Deserialize)]
        pub(crate) struct $name {
            order: u32,
        }

        impl Message for $name {
            const TYPE: &'static str = $type;
            const KIND: Kind = Kind::$kind;
        }

        impl message::$kind for $name {}

        $(impl Correlate<$correlated> for $name {
            fn key(&self) -> u32 {
                self.order
            }
        })?)*
    };
}

messages! {
    Place "shop.place" Command Order;
    Charge "payments.charge" Command;
    Charged "payments.charged" Event Order;
    Pack "depot.pack" Command;
    PrintLabel "depot.print-label" Command;
    Delivered "depot.delivered" Event Order;
    Remind "shop.remind" Command Order;
    Report "shop.report" Command;
}

/// What becomes of an order, by its number.
enum Fate {
    GatewayIsAway,
    CardIsDeclined,
    LabelIsMissing,
    Delivered,
}

fn fate(order: u32) -> Fate {
    match order % 10 {
        3 => Fate::GatewayIsAway,
        5 => Fate::LabelIsMissing,
        7 => Fate::CardIsDeclined,
        _ => Fate::Delivered,
    }
}

#[derive(Serialize, Deserialize)]
pub(crate) struct Order {
    order: u32,
    cents: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Stage {
    Placed,
    Paid,
}

impl SagaState for Stage {
    const ALL: &'static [Self] = &[Self::Placed, Self::Paid];

    fn name(self) -> &'static str {
        match self {
            Self::Placed => "placed",
            Self::Paid => "paid",
        }
    }
}

impl Saga for Order {
    type Key = u32;
    type State = Stage;

    fn labels(&self) -> Vec<(&'static str, String)> {
        vec![("invoice", format!("i-{}", 7000 + self.order))]
    }
}

fn orders() -> StateMachine<Order> {
    let place = Order::when::<Place>()
        .init(|m| Order {
            order: m.order,
            cents: 1_000 + m.order * 25,
        })
        .send(|o, _| Charge { order: o.order })
        .schedule("patience", Duration::from_secs(24 * 3600), |o, _| Remind {
            order: o.order,
        })
        .transition_to(Stage::Placed);
    let pay = Order::when::<Charged>()
        .unschedule("patience")
        .send(|o, _| Pack { order: o.order })
        .transition_to(Stage::Paid);
    let remind = Order::when::<Remind>()
        .send(|o, _| Charge { order: o.order })
        .stay();
    StateMachine::named("order")
        .initially(place)
        .during(Stage::Placed, pay)
        .during(Stage::Placed, remind)
        .during(Stage::Paid, Order::when::<Delivered>().finalize())
}

async fn charge(command: Charge) -> Result<Charged> {
    let order = command.order;
    match fate(order) {
        Fate::GatewayIsAway => Err(HandlerError::new(format!(
            "gateway answered 503 to order {order}"
        ))),
        Fate::CardIsDeclined => {
            let declined = format!("card of order {order} was declined");
            Err(std::io::Error::other(declined)).terminal()
        }
        Fate::LabelIsMissing | Fate::Delivered => Ok(Charged { order }),
    }
}

async fn pack(command: Pack) -> (Option<PrintLabel>, Option<Delivered>) {
    let order = command.order;
    match fate(order) {
        Fate::LabelIsMissing => (Some(PrintLabel { order }), None),
        _ => (None, Some(Delivered { order })),
    }
}

async fn report(_: Report) {}

/// Gives a host what the shop is made of.
pub(crate) fn equip(builder: HostBuilder) -> HostBuilder {
    let soon = Duration::from_millis(20);
    let retry = Retry {
        immediate: 1,
        delayed: 1,
        delay: soon,
        delay_max: soon,
        ..Retry::default()
    };
    let daily = cron("0 6 * * *");
    builder
        .endpoint("orders", |e| e.machine(orders()))
        .endpoint("payments", move |e| e.retry(retry).handle(charge))
        .endpoint("depot", |e| e.handle(pack))
        .endpoint("reports", |e| e.handle(report))
        .recurring("daily-report", daily, |_| Report { order: 0 })
}

/// Places the orders, and one command that cannot be read.
pub(crate) async fn open(bus: &Bus) -> std::result::Result<(), BusError> {
    let mut all = (1..=ORDERS)
        .map(|order| Outgoing::new(&Place { order }))
        .collect::<std::result::Result<Vec<_>, CodecError>>()?;
    let mut torn = Envelope::new(&Charge { order: 41 })?;
    torn.body = r#"{"order":"forty-one""#.into();
    all.push(Outgoing::from_envelope(torn, Destination::Owner));
    bus.send_all(all).await
}
