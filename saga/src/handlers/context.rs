//! What a saga's handler may do.

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use sagabus_core::{Command, Ctx, HandlerError, Message};

use crate::effects::Effects;
use crate::lock::Reserve;

/// What the handler of a saga may do: everything that [`Ctx`] offers, and what belongs to its
/// instance: time-outs, questions, its end.
pub struct SagaCtx {
    cx: Ctx,
    pub(crate) effects: Effects,
    pub(crate) is_complete: bool,
}

impl SagaCtx {
    pub(crate) fn new(cx: Ctx, kind: Arc<str>) -> Self {
        Self {
            cx,
            effects: Effects::new(kind),
            is_complete: false,
        }
    }

    /// Ends the saga with this message: its time-outs are cancelled and a tombstone stays.
    pub fn complete(&mut self) {
        self.is_complete = true;
    }

    /// Asks for a message to this saga when `after` has passed. A time-out with the same name is
    /// replaced; one that fires after it was cancelled has no effect.
    ///
    /// # Errors
    /// When the message cannot be encoded.
    pub fn timeout<M: Message>(
        &mut self,
        name: &'static str,
        after: Duration,
        message: M,
    ) -> Result<(), HandlerError> {
        self.effects.arm(name, after, &message)
    }

    /// Cancels a time-out, or the question of that name: its answer is not waited for any more.
    pub fn cancel(&mut self, name: &'static str) {
        self.effects.disarm(name);
    }

    /// Sends a command whose answer comes back to this very instance, needing no key, and limits
    /// how long it is waited for.
    ///
    /// One of three comes: the answer; `RequestFailed`, when the command became a dead letter;
    /// `RequestTimedOut`. What comes later than that has no effect.
    ///
    /// # Errors
    /// When the command cannot be encoded.
    pub fn ask<C: Command>(
        &mut self,
        name: &'static str,
        timeout: Duration,
        command: C,
    ) -> Result<(), HandlerError> {
        self.effects.ask(name, timeout, &command)
    }

    /// Reserves a business key until it is given back or the saga ends; others wait, are refused or
    /// take it over, as they say. One of three comes: `Reserved`, `NotReserved` (both declared with
    /// `.on_answer::<M>()`) or `RequestFailed`; and `ReservationLost`, where the lock is taken from
    /// it. An endpoint of this database keeps the locks: `.locks()`.
    ///
    /// Reserving again under a name gives back what was had by it.
    pub fn reserve(&mut self, name: &'static str, reserve: Reserve) {
        self.effects.reserve(name, reserve);
    }

    /// Gives back what was reserved under a name, or stops waiting for it. The end of the saga does
    /// it for all.
    pub fn release(&mut self, name: &'static str) {
        self.effects.release(name);
    }

    /// Answers the request that started this saga, however long ago.
    ///
    /// # Errors
    /// When the answer cannot be encoded. A saga that nobody asked fails for good when its message
    /// is committed.
    pub fn respond<M: Message>(&mut self, answer: M) -> Result<(), HandlerError> {
        self.effects.respond(&answer)
    }
}

impl Deref for SagaCtx {
    type Target = Ctx;

    fn deref(&self) -> &Ctx {
        &self.cx
    }
}

impl fmt::Debug for SagaCtx {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SagaCtx")
            .field("cx", &self.cx)
            .field("is_complete", &self.is_complete)
            .finish_non_exhaustive()
    }
}
