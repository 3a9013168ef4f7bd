//! Vocabulary, contracts and engine of sagabus. Knows no broker and no SQL.
//!
//! Users depend on the facade `sagabus`, which re-exports what is here.

// What travels.
pub mod message;
pub mod chance;
pub mod id;
pub mod headers;
pub mod envelope;
pub mod request;
pub mod fault_event;
pub mod codec;
pub mod keyring;
pub mod redaction;
pub mod protection;
// What a handler run produces.
pub mod attempt;
pub mod unit_of_work;
pub mod fingerprint;
// What a backend implements.
pub mod endpoint;
pub mod transport;
pub mod transports;
pub mod reach;
pub mod wire;
mod wire_time;
mod question;
pub mod backlog;
pub mod store;
pub mod admin;
pub mod clock;
pub mod duration;
#[cfg(not(sagabus_shuttle))]
mod sync;
#[cfg(sagabus_shuttle)]
pub mod sync;
mod store_clock;
// The way out.
pub mod bus;
mod overload;
mod keeping;
pub mod announce;
pub mod asking;
pub mod route;
// The way in.
mod intake;
mod inflow;
mod claimer;
mod receiver;
mod lanes;
mod job;
mod flag;
mod gate;
mod errands;
mod migrating;
mod reading;
mod telling;
pub mod holding;
mod rate;
pub mod loader;
mod handling;
mod care;
mod failing;
mod tries;
mod merging;
mod settling;
mod mirror;
pub mod dispatch;
pub mod pipeline;
mod trace;
pub mod retry;
pub mod handler;
pub mod context;
pub mod error;
// What commits, sends and runs it.
pub mod committer;
mod grouping;
pub mod observer;
mod breakers;
mod relay;
pub mod recurrence;
pub mod schedule;
mod recurring;
mod upkeep;
pub mod backoff;
pub mod counters;
pub mod faults;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
pub mod lifecycle;
pub mod plan;
mod health;
#[cfg(feature = "axum")]
mod health_routes;
pub mod host;
mod running_host;
mod joining;
mod running;
pub use announce::Announcing;
pub use asking::Requesting;
pub use bus::Bus;
pub use clock::Timestamp;
pub use context::Ctx;
pub use duration::DurationExt;
pub use endpoint::{Destination, EndpointName, Order};
pub use envelope::{Due, Envelope, Outgoing};
pub use error::{
    BuildError, BusError, CodecError, HandlerError, RequestError, Result, ResultExt, RunError,
    StoreError, TransportError,
};
pub use fault_event::Fault;
pub use gate::Breaker;
pub use handler::{Extract, Handler, IdempotencyKey, IntoOutgoing, State};
pub use headers::Headers;
pub use health::{EndpointHealth, Flow, HostHealth, Verdict};
#[cfg(feature = "axum")]
pub use health_routes::health_routes;
pub use host::{Host, HostBuilder};
pub use id::{CorrelationId, HostId, InstanceId, MessageId, StoreId};
pub use keyring::Keyring;
pub use lifecycle::Lifecycle;
pub use message::{Command, Event, Kind, Message};
pub use observer::Observer;
pub use plan::{EndpointBuilder, History};
pub use protection::Protection;
pub use recurrence::{Missed, Overlap, Recurrence, cron};
pub use redaction::Redaction;
pub use retry::Retry;
pub use running_host::RunningHost;
pub use store::{Fate, Store};
pub use transport::{Capabilities, Delivery, Health, Transport};
pub use unit_of_work::{KeyAfterDeath, Label, LabelId, Outcome, Reason, Source, UnitOfWork};

// Backends that need nothing.
pub mod memory;
#[cfg(test)]
mod scripted;
