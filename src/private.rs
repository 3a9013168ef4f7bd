//! What the code refers to that `sagabus-macros` writes. No promise is made about any of it.

use std::future::Future;

pub use sagabus_core::{Command, Event, Kind, Message, Result};
use sagabus_core::{Extract, IntoOutgoing};
pub use sagabus_saga::{Correlate, NamedSaga, Saga, SagaState};
pub use serde_json::Value;

/// The first argument of a handler.
#[diagnostic::on_unimplemented(
    message = "the first argument of a handler is its message, and `{Self}` is not a message",
    label = "not a message",
    note = "extractors come after the message: `async fn handle(message: OrderPlaced, cx: Ctx)`",
    note = "to make a message of a type, derive one of `Command`, `Event` or `Message`, together \
            with `Serialize` and `Deserialize`, and name it: `#[message(\"orders.order-placed\")]`"
)]
pub trait FirstArgument {
    /// Exists when the type fits.
    const CHECKED: () = ();
}

#[diagnostic::do_not_recommend]
impl<M: Message> FirstArgument for M {}

/// Another argument of a handler.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be an argument of a handler",
    label = "not an extractor",
    note = "the message comes first, then `State<T>`, `Ctx`, `IdempotencyKey`, `MessageId`, \
            `Tx<Postgres>` or `Tx<Sqlite>`",
    note = "a value of your own is given to the host with `.state(value)` and taken as `State<T>`"
)]
pub trait FurtherArgument {
    /// Exists when the type fits.
    const CHECKED: () = ();
}

#[diagnostic::do_not_recommend]
impl<T: Extract> FurtherArgument for T {}

/// What a handler returns.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be returned by a handler",
    label = "neither nothing nor messages",
    note = "return `()`, a message, an `Option`, `Vec` or tuple of messages, or a `Result` of these"
)]
pub trait Returned {
    /// Exists when the type fits.
    const CHECKED: () = ();
}

#[diagnostic::do_not_recommend]
impl<T: IntoOutgoing> Returned for T {}

/// Accepts the future of a handler.
pub fn future_is_send<F: Future + Send>(_: F) {}
