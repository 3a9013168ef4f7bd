//! A proxy before PostgreSQL that knows commit calls when they pass, so that a test can cut a
//! connection exactly there, refuse connections, or swallow everything.

mod wire;
mod proxy;

pub use proxy::{Cut, Director, Mode, Proxy};
pub use wire::{Call, Door, Places};
