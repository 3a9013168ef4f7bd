use sagabus::{Command, Correlate, Event, Kind, Message, Saga};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

#[derive(Saga, Serialize, Deserialize)]
#[saga(key = Uuid)]
struct Order {
    id: Uuid,
}

#[derive(Saga, Serialize, Deserialize)]
#[saga(key = String)]
struct Customer {
    email: String,
}

#[derive(Command, Serialize, Deserialize)]
#[message("orders.place-order")]
struct PlaceOrder {
    order_id: Uuid,
}

/// Settings before the name, and in two attributes.
#[derive(Event, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[message(correlate(Order = order_id, Customer = email), version = 3, "orders.order-placed")]
#[message(key = order_id)]
struct OrderPlaced {
    order_id: Uuid,
    email: String,
}

#[derive(Message, Serialize, Deserialize)]
#[message("orders.number", key = 0)]
struct Number(u64);

#[derive(Event, Serialize, Deserialize)]
#[message("orders.outcome")]
enum Outcome {
    Shipped,
    Cancelled { reason: String },
}

/// The prelude of a crate that has names of its own.
mod renamed {
    pub(crate) use sagabus as bus;
}

#[derive(Command, Serialize, Deserialize)]
#[message("orders.cancel", crate = crate::messages::renamed::bus)]
struct Cancel;

/// Says how a handwritten implementation lives beside a derived one.
impl Correlate<Customer> for PlaceOrder {
    fn key(&self) -> String {
        self.order_id.to_string()
    }
}

fn is_command<M: Command>() -> bool {
    M::KIND == Kind::Command
}

fn is_event<M: Event>() -> bool {
    M::KIND == Kind::Event
}

#[test]
fn each_derive_gives_name_version_and_kind() {
    assert!(is_command::<PlaceOrder>() && is_command::<Cancel>());
    assert!(is_event::<OrderPlaced>() && is_event::<Outcome>());
    assert_eq!(Number::KIND, Kind::Reply);
    assert_eq!(
        (PlaceOrder::TYPE, PlaceOrder::VERSION),
        ("orders.place-order", 1)
    );
    assert_eq!(
        (OrderPlaced::TYPE, OrderPlaced::VERSION),
        ("orders.order-placed", 3)
    );
    assert_eq!(Cancel::TYPE, "orders.cancel");
}

#[test]
fn a_key_is_the_text_of_its_field() {
    let order_id = Uuid::from_u128(7);
    let placed = OrderPlaced {
        order_id,
        email: "a@example.org".to_owned(),
    };
    assert_eq!(placed.message_key(), Some(order_id.to_string()));
    assert_eq!(Number(12).message_key().as_deref(), Some("12"));
    assert_eq!(PlaceOrder { order_id }.message_key(), None);
}

#[test]
fn a_message_finds_each_saga_by_the_field_named_for_it() {
    let order_id = Uuid::from_u128(7);
    let placed = OrderPlaced {
        order_id,
        email: "a@example.org".to_owned(),
    };
    assert_eq!(Correlate::<Order>::key(&placed), order_id);
    assert_eq!(Correlate::<Customer>::key(&placed), "a@example.org");
    assert_eq!(
        Correlate::<Customer>::key(&PlaceOrder { order_id }),
        order_id.to_string()
    );
}

#[test]
fn a_derived_message_survives_its_encoding() {
    let placed = OrderPlaced {
        order_id: Uuid::from_u128(7),
        email: "a@example.org".to_owned(),
    };
    let decoded = OrderPlaced::decode(&placed.encode().unwrap()).unwrap();
    assert_eq!(decoded, placed);
    let cancelled = Outcome::Cancelled {
        reason: "no stock".to_owned(),
    };
    let decoded = Outcome::decode(&cancelled.encode().unwrap()).unwrap();
    assert!(matches!(decoded, Outcome::Cancelled { reason } if reason == "no stock"));
    assert!(matches!(
        Outcome::decode(b"\"Shipped\"").unwrap(),
        Outcome::Shipped
    ));
}
