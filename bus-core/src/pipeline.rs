//! What surrounds a handler, as one visible list.

use std::any::Any;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;

use crate::bus;
use crate::context::Ctx;
use crate::error::HandlerError;
use crate::handler::Subscriber;
use crate::sync::time;
use crate::trace::Trace;

/// Something that runs around every handler. The first in the list is the outermost.
pub trait Middleware: Send + Sync {
    /// Its name, as `Host::describe()` prints it.
    fn name(&self) -> &'static str;

    /// Does what it does, and runs the rest.
    ///
    /// # Errors
    /// Whatever the rest returned, or its own error, which counts as the handler's.
    fn run<'a>(&'a self, cx: &'a Ctx, next: Next<'a>) -> BoxFuture<'a, Result<(), HandlerError>>;
}

/// The list that every handler runs in.
///
/// Before it come receive, decode, correlate, lane and load; after it retry and commit: these own
/// the delivery and are no middleware.
pub fn default_pipeline(deadline: Duration) -> Vec<Arc<dyn Middleware>> {
    vec![
        // One span per try, joined to the sender's trace.
        Arc::new(Trace),
        // A panic is an error like any other.
        Arc::new(CatchPanic),
        // A handler that takes too long is an error like any other.
        Arc::new(Deadline(deadline)),
        // The bus refuses to be used from here on: it would bypass the unit of work.
        Arc::new(GuardBus),
    ]
}

/// The rest of the pipeline, and the handler at its end.
pub struct Next<'a> {
    rest: &'a [Arc<dyn Middleware>],
    subscriber: &'a dyn Subscriber,
    message: Box<dyn Any + Send + Sync>,
}

impl<'a> Next<'a> {
    /// Prepares a run of a pipeline.
    pub fn new(
        pipeline: &'a [Arc<dyn Middleware>],
        subscriber: &'a dyn Subscriber,
        message: Box<dyn Any + Send + Sync>,
    ) -> Self {
        Self {
            rest: pipeline,
            subscriber,
            message,
        }
    }

    /// Runs what remains.
    ///
    /// # Errors
    /// The handler's error, or that of a middleware.
    pub fn run(self, cx: &'a Ctx) -> BoxFuture<'a, Result<(), HandlerError>> {
        match self.rest.split_first() {
            Some((first, rest)) => first.run(cx, Next { rest, ..self }),
            None => self.subscriber.handle(self.message, cx),
        }
    }
}

impl fmt::Debug for Next<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.rest.iter().map(|one| one.name()).collect();
        f.debug_struct("Next")
            .field("rest", &names)
            .finish_non_exhaustive()
    }
}

struct CatchPanic;

impl Middleware for CatchPanic {
    fn name(&self) -> &'static str {
        "catch-panic"
    }

    fn run<'a>(&'a self, cx: &'a Ctx, next: Next<'a>) -> BoxFuture<'a, Result<(), HandlerError>> {
        Box::pin(async move {
            // What a panic may have left half-done is dropped with the attempt: staged messages,
            // the open transaction, the saga's state in memory.
            let run = std::panic::AssertUnwindSafe(async move { next.run(cx).await });
            match run.catch_unwind().await {
                Ok(result) => result,
                Err(panic) => Err(HandlerError::new(format!(
                    "handler panicked: {}",
                    words(&*panic)
                ))),
            }
        })
    }
}

/// Returns what a panic said.
fn words(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no message")
}

struct Deadline(Duration);

impl Middleware for Deadline {
    fn name(&self) -> &'static str {
        "deadline"
    }

    fn run<'a>(&'a self, cx: &'a Ctx, next: Next<'a>) -> BoxFuture<'a, Result<(), HandlerError>> {
        Box::pin(async move {
            let deadline = self.0;
            tokio::select! {
                biased;
                result = time::timeout(deadline, next.run(cx)) => result.unwrap_or_else(|_| {
                    let error = format!("handler took longer than its deadline of {deadline:?}");
                    Err(HandlerError::new(error))
                }),
                () = cx.limit_reached() => Err(HandlerError::new(
                    "handler held the only writer through its `Tx` for longer than the store's `tx_limit`",
                )),
            }
        })
    }
}

struct GuardBus;

impl Middleware for GuardBus {
    fn name(&self) -> &'static str {
        "guard-bus"
    }

    fn run<'a>(&'a self, cx: &'a Ctx, next: Next<'a>) -> BoxFuture<'a, Result<(), HandlerError>> {
        Box::pin(bus::inside_handler(next.run(cx)))
    }
}
