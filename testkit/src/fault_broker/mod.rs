//! A toy broker that does wrong on demand. It runs in a process of its own, so that it outlives the
//! hosts that a test kills, and it remembers every publication.

mod wire;
mod faults;
mod log;
mod server;
mod session;
mod control;
mod process;
mod client;
mod receiving;

pub use client::FaultTransport;
pub use control::Control;
pub use faults::{Effect, Fault};
pub use log::{PublishLog, Published};
pub use process::FaultBroker;
pub use server::Server;
