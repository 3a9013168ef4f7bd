//! What the author of a handler-per-message saga implements.

use std::future::Future;

use sagabus_core::{Message, Result};

use super::context::SagaCtx;
use crate::saga::Saga;

/// A saga with a name, by which its instances are stored.
#[diagnostic::on_unimplemented(
    message = "the saga `{Self}` has no name",
    label = "needs a name under which its instances are stored",
    note = "name it where it is derived: `#[saga(\"shipping-policy\", key = Uuid)]`"
)]
pub trait NamedSaga: Saga {
    /// The stored name: choose it for good. 1 to 100 visible ASCII characters.
    const NAME: &'static str;
}

/// What a saga does when a message comes.
///
/// ```
/// # use sagabus_core::{Kind, Message, Result};
/// # use sagabus_saga::{Handles, Saga, SagaCtx};
/// # #[derive(serde::Serialize, serde::Deserialize)] struct Packed;
/// # impl Message for Packed { const TYPE: &'static str = "shop.packed"; const KIND: Kind = Kind::Event; }
/// # #[derive(serde::Serialize, serde::Deserialize)] struct Shipping { packed: bool }
/// # impl Saga for Shipping { type Key = u64; type State = (); }
/// impl Handles<Packed> for Shipping {
///     async fn handle(&mut self, _: Packed, cx: &mut SagaCtx) -> Result {
///         self.packed = true;
///         cx.complete();
///         Ok(())
///     }
/// }
/// ```
#[diagnostic::on_unimplemented(
    message = "the saga `{Self}` does not handle `{M}`",
    label = "no handler for this message",
    note = "write `impl Handles<{M}> for {Self} {{ async fn handle(&mut self, message: {M}, cx: \
            &mut SagaCtx) -> Result {{ .. }} }}`"
)]
pub trait Handles<M: Message>: Saga {
    /// Changes the saga's data and stages what it wants. Write it as `async fn`.
    ///
    /// An error drops whatever was changed and staged, and the message is tried again.
    fn handle(&mut self, message: M, cx: &mut SagaCtx) -> impl Future<Output = Result> + Send;
}

/// A message that begins a saga where there is none; [`Handles`] then handles it.
///
/// Several messages may start a saga: whichever comes first does, the others are handled.
#[diagnostic::on_unimplemented(
    message = "the saga `{Self}` is not started by `{M}`",
    label = "this message starts nothing",
    note = "write `impl Starts<{M}> for {Self} {{ fn start(message: &{M}) -> Self {{ .. }} }}`"
)]
pub trait Starts<M: Message>: Handles<M> {
    /// Makes the data of a new instance.
    fn start(message: &M) -> Self;
}
