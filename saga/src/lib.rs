//! Sagas and state machines over the contracts of `sagabus-core`. Knows no broker and no SQL.
//!
//! Both keep one instance per business key and commit together: message handled, state changed and
//! messages sent.

// What an instance is, and how a message finds it.
pub mod saga;
pub mod correlate;
mod message;
mod standing;
mod stored;
mod effects;
mod check;
pub mod lock;
// Two ways to write one.
pub mod handlers;
pub mod machine;
// For tests alone.
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;

pub use correlate::{Correlate, CorrelateByLabel};
pub use handlers::{HandlerSaga, Handles, NamedSaga, SagaCtx, SagaEndpoint, Starts, saga};
pub use lock::{NotReserved, Refusal, ReservationLost, Reserve, Reserved};
pub use machine::{MachineEndpoint, NotAccepted, StateMachine};
pub use message::RequestTimedOut;
pub use saga::{Saga, SagaState};
pub use sagabus_core::request::RequestFailed;
pub use standing::Missing;
