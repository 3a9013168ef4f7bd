//! The design of sagabus, model-checked: small models that are explored exhaustively, and mutants
//! of the design that must each be caught by a named property.
//!
//! A model is not the code: it says what each step promises, and every action names the function
//! that it stands for. That the code keeps these promises is shown by the store suite, the kill
//! matrix and the chaos runner; and every run of the simulation is followed through the models of
//! taking over and publishing, message by message and row by row.

// How a model is checked.
mod check;
mod fault;
// How a run of the program is followed through one.
mod follow;
mod hands;
// The models, in the order in which a message meets them.
mod taking_over;
mod publishing;
mod order;
mod timers;
mod retention;
mod firing;
mod locks;
// What the program runs.
mod suite;

pub use check::{Caught, Holds};
pub use hands::Held;
pub use publishing::{OfRow, Outgoing, Published, Written};
pub use suite::{Suite, all};
pub use taking_over::{Call, Decided, Message, OfMessage, Wrote};
