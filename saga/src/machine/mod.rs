//! State machines: declared once, checked when the host is built, run by the engine.

mod builder;
mod when;
mod steps;
mod definition;
mod check;
mod describe;
mod run;
mod turn;

pub use builder::{MachineEndpoint, StateMachine};
pub(crate) use definition::{Ending, Trigger};
pub use definition::{NotAccepted, Step, Transition};
pub use describe::{dot, mermaid};
pub use steps::{RunStep, Steps};
pub use when::{AllOf, Closed, During, Initial, NotStarted, Open, Parts, Started, States, When};
