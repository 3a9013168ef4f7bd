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
