//! State machines: declared once, checked when the host is built, run by the engine.

mod builder;
mod check;
mod definition;
mod run;

pub use builder::{
    Closed, During, Initial, MachineEndpoint, NotStarted, Open, Started, StateMachine, When,
};
pub use definition::{Step, Transition};
