#![cfg_attr(feature = "sqlite", doc = include_str!("../README.md"))]
#![cfg_attr(
    not(feature = "sqlite"),
    doc = "A service bus with sagas for Rust, over a database alone. Its guide needs the feature `sqlite`."
)]

pub mod prelude;
pub mod guide;
#[doc(hidden)]
#[path = "private.rs"]
pub mod __private;

// What travels.
pub use sagabus_core::{
    CodecError, Command, CorrelationId, Destination, Due, EndpointName, Envelope, Event, Headers,
    HostId, InstanceId, Kind, Message, MessageId, Order, Outgoing, StoreId, Timestamp,
};
pub use sagabus_core::{codec, endpoint, envelope, headers, id, message};
// What a handler is made of.
pub use sagabus_core::{
    Ctx, Extract, Fault, Handler, HandlerError, IdempotencyKey, IntoOutgoing, Result, ResultExt,
    Retry, State,
};
pub use sagabus_core::{context, error, fault_event, handler, retry};
pub use sagabus_macros::{Command, Event, Message, State, debug_handler};
// Sagas and state machines.
pub use sagabus_macros::Saga;
pub use sagabus_saga::{
    Correlate, CorrelateByLabel, HandlerSaga, Handles, MachineEndpoint, Missing, NamedSaga,
    NotAccepted, NotReserved, Refusal, RequestFailed, RequestTimedOut, ReservationLost, Reserve,
    Reserved, Saga, SagaCtx, SagaEndpoint, SagaState, Starts, StateMachine, lock, machine, saga,
};
// What runs it.
#[cfg(feature = "axum")]
pub use sagabus_core::health_routes;
pub use sagabus_core::{
    Announcing, Breaker, BuildError, Bus, BusError, DurationExt, EndpointBuilder, EndpointHealth,
    Fate, Flow, History, Host, HostBuilder, HostHealth, Lifecycle, Observer, RequestError,
    Requesting, RunError, RunningHost, Verdict, announce, asking, bus, counters, faults, host,
    lifecycle, observer, pipeline, plan,
};
// What bodies are protected by.
pub use sagabus_core::{Keyring, Protection, Redaction, keyring, protection, redaction};
// What recurs.
pub use sagabus_core::{Missed, Overlap, Recurrence, cron, recurrence, schedule};
// What a backend implements.
pub use sagabus_core::{
    Capabilities, Delivery, Health, KeyAfterDeath, Outcome, Reason, Source, Store, StoreError,
    Transport, TransportError, UnitOfWork, admin, backlog, store, transport, unit_of_work,
};
// Backends.
pub use sagabus_core::memory;
#[cfg(any(feature = "postgres", feature = "sqlite"))]
pub use sagabus_outbox::{BusExt, BusTransaction, CtxExt, Engine, Outbox, Tx, UserTransaction};
#[cfg(feature = "postgres")]
pub use sagabus_outbox::{PgConfig, PgStore, Postgres};
#[cfg(feature = "sqlite")]
pub use sagabus_outbox::{Sqlite, SqliteConfig, SqliteStore};
// The command line.
#[cfg(feature = "cli")]
pub use sagabus_cli as cli;
// Brokers.
#[cfg(feature = "kafka")]
pub use sagabus_kafka as kafka;
#[cfg(feature = "kafka")]
pub use sagabus_kafka::{Kafka, KafkaConfig};
#[cfg(feature = "rabbitmq")]
pub use sagabus_rabbitmq as rabbitmq;
#[cfg(feature = "rabbitmq")]
pub use sagabus_rabbitmq::{RabbitMq, RabbitMqConfig};
