//! One `tracing` span per try of a message.

use futures_util::future::BoxFuture;
use tracing::Instrument;

use crate::context::Ctx;
use crate::error::HandlerError;
use crate::headers;
use crate::pipeline::{Middleware, Next};

/// Opens the span `handle` around a handler, with the field names of OpenTelemetry's messaging
/// conventions, and notes the error of a failed try in it.
pub(crate) struct Trace;

impl Middleware for Trace {
    fn name(&self) -> &'static str {
        "trace"
    }

    fn run<'a>(&'a self, cx: &'a Ctx, next: Next<'a>) -> BoxFuture<'a, Result<(), HandlerError>> {
        let span = tracing::info_span!(
            "handle",
            "messaging.message.id" = %cx.message_id(),
            "messaging.message.type" = %cx.envelope().message_type,
            "messaging.message.conversation_id" = %cx.correlation_id(),
            "messaging.destination.name" = %cx.endpoint(),
            traceparent = cx.headers().get(headers::TRACEPARENT),
            attempt = cx.attempt(),
        );
        if span.is_disabled() {
            return next.run(cx);
        }
        let run = async move {
            let result = next.run(cx).await;
            if let Err(error) = &result {
                tracing::warn!(error = error.chain(), class = ?error.class(), "handler failed");
            }
            result
        };
        Box::pin(run.instrument(span))
    }
}
