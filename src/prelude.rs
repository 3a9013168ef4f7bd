//! What a service needs: `use sagabus::prelude::*;`.
//!
//! A name of your own takes precedence over one from here: a `struct Order` beside this import is
//! your order, and the bus's is `sagabus::Order`.

// Messages and handlers.
pub use crate::{
    Command, Ctx, Event, HandlerError, IdempotencyKey, Message, Result, ResultExt, State,
    debug_handler,
};
// Sagas and state machines.
pub use crate::{
    Correlate, CorrelateByLabel, Handles, MachineEndpoint, Missing, NamedSaga, NotAccepted,
    NotReserved, RequestFailed, RequestTimedOut, ReservationLost, Reserve, Reserved, Saga, SagaCtx,
    SagaEndpoint, SagaState, Starts, StateMachine, saga,
};
// The host.
pub use crate::{Bus, DurationExt, Fate, Host, Order, Retry, cron};
// Stores, and the doors for a service's own SQL.
#[cfg(any(feature = "postgres", feature = "sqlite"))]
pub use crate::{BusExt, CtxExt, Tx};
#[cfg(feature = "postgres")]
pub use crate::{PgStore, Postgres};
#[cfg(feature = "sqlite")]
pub use crate::{Sqlite, SqliteStore};
