//! Derives and one attribute for sagabus. Sugar only: all that they write can be written by hand.
//!
//! Use them through the facade: `use sagabus::prelude::*;`. Generated code refers to `::sagabus`;
//! where the facade has another path, say so with `crate = path`.

mod attribute;
mod debug_handler;
mod message;
mod saga;
mod state;

use proc_macro::TokenStream;
use syn::{DeriveInput, parse_macro_input};

use crate::message::Derived;

/// Derives `Message` for a plain message: an answer to a request.
///
/// The settings are those of [`Event`](macro@Event).
///
/// ```
/// use sagabus::{Kind, Message};
///
/// #[derive(Message, serde::Serialize, serde::Deserialize)]
/// #[message("payments.quote")]
/// struct Quote { cents: i64 }
///
/// assert_eq!(Quote::TYPE, "payments.quote");
/// assert_eq!(Quote::KIND, Kind::Reply);
/// ```
#[proc_macro_derive(Message, attributes(message))]
pub fn derive_message(input: TokenStream) -> TokenStream {
    derive(input, |input| message::derive(input, Derived::Message))
}

/// Derives `Message` and `Command`: asks one owner to do something.
///
/// The settings are those of [`Event`](macro@Event).
///
/// ```
/// use sagabus::{Command, Kind, Message};
///
/// #[derive(Command, serde::Serialize, serde::Deserialize)]
/// #[message("orders.place-order")]
/// struct PlaceOrder { order_id: u64 }
///
/// assert_eq!(PlaceOrder::KIND, Kind::Command);
/// ```
#[proc_macro_derive(Command, attributes(message))]
pub fn derive_command(input: TokenStream) -> TokenStream {
    derive(input, |input| message::derive(input, Derived::Command))
}

/// Derives `Message` and `Event`: tells everyone what happened.
///
/// `#[message(..)]` takes these settings, in any order and in one attribute or several:
///
/// - `"orders.order-placed"`: the stored name, 1 to 200 visible ASCII characters. Required.
/// - `version = 2`: the version of the body's shape. Default 1.
/// - `upcast = function`: brings a body of version `from` to the shape of the version after it:
///   `fn(from: u32, body: serde_json::Value) -> sagabus::Result<serde_json::Value>`.
/// - `alias = "shop.order-placed"`: another name that it answers to, one that it had before. May be
///   given several times.
/// - `key = order_id`: the field whose text orders and finds the message.
/// - `correlate(Order = order_id, ..)`: implements `Correlate<Order>`, so that the field's value
///   finds the instance of the saga `Order`. The field's type is the saga's key.
/// - `crate = path`: where the facade is. Default `::sagabus`.
///
/// ```
/// use sagabus::{Correlate, Event, Message, Saga};
///
/// #[derive(Saga, serde::Serialize, serde::Deserialize)]
/// #[saga(key = u64)]
/// struct Order { id: u64 }
///
/// #[derive(Event, serde::Serialize, serde::Deserialize)]
/// #[message("orders.order-placed", version = 2, key = order_id, correlate(Order = order_id))]
/// struct OrderPlaced { order_id: u64, cents: i64 }
///
/// let placed = OrderPlaced { order_id: 7, cents: 1_999 };
/// assert_eq!(OrderPlaced::VERSION, 2);
/// assert_eq!(placed.message_key().as_deref(), Some("7"));
/// assert_eq!(Correlate::<Order>::key(&placed), 7);
/// ```
#[proc_macro_derive(Event, attributes(message))]
pub fn derive_event(input: TokenStream) -> TokenStream {
    derive(input, |input| message::derive(input, Derived::Event))
}

/// Derives `SagaState` for an enum whose variants are the states of a machine.
///
/// A state is stored by its name, which is the variant's in lower case with hyphens
/// (`AwaitingPayment`: `awaiting-payment`, `HTTPDone`: `http-done`). `#[state("..")]` on a variant
/// gives another one: 1 to 100 visible ASCII characters. Stored names stay when a variant is
/// renamed in code only if they are given so; or the state answers to its former name, too:
/// `#[state(alias = "on-its-way")]`.
///
/// `#[state(within = Warehouse)]` on a variant makes it a part of another state: what the whole takes,
/// the part takes, too.
///
/// `#[state(crate = path)]` on the enum says where the facade is.
///
/// ```
/// use sagabus::{SagaState, State};
///
/// #[derive(State, Clone, Copy, Debug, PartialEq, Eq, Hash)]
/// enum Stage {
///     AwaitingPayment,
///     #[state("shipping")]
///     OnItsWay,
/// }
///
/// assert_eq!(Stage::AwaitingPayment.name(), "awaiting-payment");
/// assert_eq!(Stage::named("shipping"), Some(Stage::OnItsWay));
/// ```
#[proc_macro_derive(State, attributes(state))]
pub fn derive_state(input: TokenStream) -> TokenStream {
    derive(input, state::derive)
}

/// Derives `Saga` for a struct: the data of one business process.
///
/// `#[saga(..)]` takes these settings, in any order:
///
/// - `"shipping-policy"`: the name under which a handler-per-message saga is stored. A machine is
///   named where it is declared.
/// - `key = Uuid`: the type of the business key that finds an instance. Required.
/// - `state = Stage`: the named states of a machine. Default `()`.
/// - `version = 2`: the version of the data's shape. Default 1.
/// - `upcast = function`: brings stored data of version `from` to the shape of the version after it:
///   `fn(from: i32, data: serde_json::Value) -> sagabus::Result<serde_json::Value>`.
/// - `crate = path`: where the facade is. Default `::sagabus`.
///
/// ```
/// use sagabus::{Saga, State};
///
/// #[derive(State, Clone, Copy, Debug, PartialEq, Eq, Hash)]
/// enum Stage { AwaitingPayment, Shipping }
///
/// #[derive(Saga, serde::Serialize, serde::Deserialize)]
/// #[saga(key = u64, state = Stage, version = 2)]
/// struct Order { id: u64, cents: i64 }
///
/// assert_eq!(Order::SCHEMA_VERSION, 2);
/// ```
#[proc_macro_derive(Saga, attributes(saga))]
pub fn derive_saga(input: TokenStream) -> TokenStream {
    derive(input, saga::derive)
}

/// Checks each part of a handler by itself, so that an error points at the wrong part.
///
/// Without it the compiler can only say that a function is not a handler. The checks are: the
/// first argument is a message, every other one an extractor, the return value something to send,
/// and the future may move between threads. For a free `async fn` without generics; it changes
/// nothing about the function.
///
/// ```
/// use sagabus::{Command, Event, IdempotencyKey, Result, debug_handler};
///
/// #[derive(Command, serde::Serialize, serde::Deserialize)]
/// #[message("payments.charge-card")]
/// struct ChargeCard { order_id: u64 }
///
/// #[derive(Event, serde::Serialize, serde::Deserialize)]
/// #[message("payments.card-charged")]
/// struct CardCharged { order_id: u64, receipt: String }
///
/// #[debug_handler]
/// async fn charge_card(command: ChargeCard, key: IdempotencyKey) -> Result<CardCharged> {
///     Ok(CardCharged { order_id: command.order_id, receipt: key.to_string() })
/// }
/// ```
#[proc_macro_attribute]
pub fn debug_handler(settings: TokenStream, item: TokenStream) -> TokenStream {
    debug_handler::expand(settings.into(), item.into()).into()
}

fn derive(
    input: TokenStream,
    write: fn(&DeriveInput) -> syn::Result<proc_macro2::TokenStream>,
) -> TokenStream {
    let input = parse_macro_input!(input as DeriveInput);
    write(&input)
        .unwrap_or_else(syn::Error::into_compile_error)
        .into()
}
