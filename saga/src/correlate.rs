//! How a message finds its instance.

use sagabus_core::Message;

use crate::saga::Saga;

/// Says which instance of `S` a message is for. Once per message and saga, checked by the compiler.
#[diagnostic::on_unimplemented(
    message = "the saga `{S}` does not know how to find its instance from `{Self}`",
    label = "no correlation from this message",
    note = "name the field that holds the key where the message is derived: \
            `#[message(.., correlate({S} = field))]`",
    note = "or write `impl Correlate<{S}> for {Self} {{ fn key(&self) -> .. {{ .. }} }}`"
)]
pub trait Correlate<S: Saga>: Message {
    /// Returns the key of the instance.
    fn key(&self) -> S::Key;
}

/// Says which instance of `S` a message is for that does not know its key, but a label of it: the
/// number of its payment, for example. The instance has it by [`Saga::labels`].
#[diagnostic::on_unimplemented(
    message = "the saga `{S}` does not know by which label to find its instance from `{Self}`",
    label = "no label in this message",
    note = "write `impl CorrelateByLabel<{S}> for {Self} {{ const LABEL: &'static str = \
            \"payment-id\"; fn label(&self) -> String {{ .. }} }}`"
)]
pub trait CorrelateByLabel<S: Saga>: Message {
    /// The label's name, one of those that [`Saga::labels`] returns.
    const LABEL: &'static str;

    /// Returns the label's value.
    fn label(&self) -> String;
}
