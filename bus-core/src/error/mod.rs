//! What can go wrong, one type per boundary.

mod boundary;
mod bus;
mod handler;
pub mod codes;
mod host;

pub use boundary::{BoxError, CodecError, KeyringError, OpenError, StoreError, TransportError};
pub use bus::{BusError, RequestError};
pub use handler::{Class, HandlerError, Result, ResultExt, chain};
pub use host::{BuildError, RunError};
