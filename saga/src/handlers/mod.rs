//! Handler-per-message sagas: a struct with one `async fn` per message.

mod builder;
mod context;
mod define;
mod run;

pub use builder::{HandlerSaga, SagaEndpoint, saga};
pub use context::SagaCtx;
pub use define::{Handles, NamedSaga, Starts};
