//! Sagas and state machines over the contracts of `sagabus-core`. Knows no broker and no SQL.
//!
//! A state machine keeps one instance per business key, moves it from state to state as messages
//! come, and sends messages as it moves. Message handled, state changed and messages sent commit
//! together.

// What an instance is.
pub mod saga;
pub mod correlate;
// State machines.
pub mod machine;

pub use correlate::Correlate;
pub use machine::{MachineEndpoint, StateMachine};
pub use saga::{Saga, SagaState};
