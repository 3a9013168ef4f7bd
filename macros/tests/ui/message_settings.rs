//! What `#[message(..)]` refuses.

use sagabus::prelude::*;
use serde::{Deserialize, Serialize};

#[derive(Event, Serialize, Deserialize)]
struct WithoutAttribute;

#[derive(Event, Serialize, Deserialize)]
#[message(version = 2)]
struct WithoutName;

#[derive(Event, Serialize, Deserialize)]
#[message = "orders.order-placed"]
struct WithoutParentheses;

#[derive(Event, Serialize, Deserialize)]
#[message("orders placed")]
struct WrongCharacters;

#[derive(Event, Serialize, Deserialize)]
#[message("")]
struct EmptyName;

#[derive(Event, Serialize, Deserialize)]
#[message("orders.order-placed", verson = 2)]
struct UnknownSetting;

#[derive(Event, Serialize, Deserialize)]
#[message("orders.order-placed", version = 0)]
struct VersionZero;

#[derive(Event, Serialize, Deserialize)]
#[message("orders.order-placed", version = 2)]
#[message(version = 3)]
struct Twice;

#[derive(Event, Serialize, Deserialize)]
#[message("orders.order-placed", key = order)]
struct UnknownField {
    order_id: u64,
    cents: i64,
}

#[derive(Event, Serialize, Deserialize)]
#[message("orders.order-placed", key = lines)]
struct KeyWithoutText {
    lines: Vec<u64>,
}

#[derive(Event, Serialize, Deserialize)]
#[message("orders.order-placed", key = order_id)]
enum KeyOfEnum {
    Placed { order_id: u64 },
}

#[derive(Event, Serialize, Deserialize)]
#[message("orders.order-placed")]
struct Generic<T> {
    order: T,
}

#[derive(Saga, Serialize, Deserialize)]
#[saga(key = String)]
struct Order {
    number: String,
}

#[derive(Event, Serialize, Deserialize)]
#[message("orders.order-placed", correlate(Order = order_id))]
struct KeyOfAnotherType {
    order_id: u64,
}

#[derive(Event, Serialize, Deserialize)]
#[message("orders.order-placed", alias = "shop placed")]
struct AliasOfWrongCharacters;

#[derive(Event, Serialize, Deserialize)]
#[message("orders.order-placed", alias = "orders.order-placed")]
struct AliasOfToday;

#[derive(Event, Serialize, Deserialize)]
#[message("orders.order-placed", alias = "shop.placed", alias = "shop.placed")]
struct AliasTwice;

fn main() {}
