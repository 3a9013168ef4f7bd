//! Vocabulary, contracts and engine of sagabus. Knows no broker and no SQL.
//!
//! Users depend on the facade `sagabus`, which re-exports what is here.

// What travels.
pub mod message;
pub mod id;
pub mod headers;
pub mod envelope;
pub mod codec;
// What a handler run produces.
pub mod unit_of_work;
// What a backend implements.
pub mod endpoint;
pub mod transport;
pub mod store;
pub mod clock;
// The boundary errors.
pub mod error;
// What runs it.
pub mod lifecycle;

pub use clock::Timestamp;
pub use endpoint::{Destination, EndpointName, Order};
pub use envelope::{Due, Envelope, Outgoing};
pub use error::{
    BuildError, BusError, CodecError, HandlerError, ResultExt, RunError, StoreError, TransportError,
};
pub use headers::Headers;
pub use id::{CorrelationId, HostId, InstanceId, MessageId, StoreId};
pub use lifecycle::Lifecycle;
pub use message::{Command, Event, Kind, Message};
pub use store::Store;
pub use transport::{Capabilities, Delivery, Transport};
pub use unit_of_work::{Outcome, Reason, Source, UnitOfWork};

// Backends that need nothing.
pub mod memory;
