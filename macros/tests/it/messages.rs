use sagabus::{
    Command, Correlate, Envelope, Event, Kind, Message, Saga, SagaState, State, codec, headers,
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
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

/// The third version of a message that was renamed twice.
#[derive(Event, Debug, PartialEq, Serialize, Deserialize)]
#[message("payments.paid", version = 2, upcast = to_cents)]
#[message(alias = "shop.paid", alias = "paid")]
struct Paid {
    cents: i64,
}

fn to_cents(from: u32, body: Value) -> sagabus::Result<Value> {
    assert_eq!(from, 1);
    Ok(json!({ "cents": body["euros"].as_i64().unwrap_or_default() * 100 }))
}

#[test]
fn names_and_shapes_of_the_past_are_settings() {
    assert_eq!(Paid::ALIASES, ["shop.paid", "paid"]);
    assert_eq!(OrderPlaced::ALIASES, [""; 0]);
    let mut older = Envelope::new(&Paid { cents: 1 }).unwrap();
    older.headers.remove(headers::VERSION);
    older.body = r#"{"euros":3}"#.into();
    assert_eq!(codec::decode::<Paid>(&older).unwrap(), Paid { cents: 300 });
}

#[derive(State, Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Stage {
    Waiting,
    #[state("shipping", alias = "on-its-way", alias = "sent")]
    Shipping,
}

#[test]
fn a_state_answers_to_its_former_names() {
    assert_eq!(Stage::named("sent"), Some(Stage::Shipping));
    assert_eq!(Stage::named("on-its-way"), Some(Stage::Shipping));
    assert_eq!(Stage::named("waiting"), Some(Stage::Waiting));
    assert_eq!(Stage::named("gone"), None);
    assert_eq!(Stage::Waiting.aliases(), [""; 0]);
}
