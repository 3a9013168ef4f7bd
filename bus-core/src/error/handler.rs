//! What a handler says, and what that asks the engine to do.

use std::error::Error;
use std::fmt;
use std::time::Duration;

use super::boundary::{BoxError, StoreError};
use crate::unit_of_work::Reason;

/// What handlers return: nothing by default, and any error by `?`.
pub type Result<T = (), E = HandlerError> = std::result::Result<T, E>;

/// Why a handler did not succeed. Made from any error by `?`, which means *try again*.
///
/// It is itself no [`Error`], which is what lets it convert from every error.
pub struct HandlerError {
    class: Class,
    source: BoxError,
}

/// What an error asks the engine to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// Try again, as often as the endpoint allows.
    Retry,
    /// Try again after this time; costs no attempt.
    RetryAfter(Duration),
    /// Never try again: a dead letter now.
    Terminal,
    /// Load and run again, outside the retry budget.
    Conflict,
    /// Try again, as often as the endpoint allows; the dead letter then has this reason.
    RetryAs(Reason),
    /// Never try again, for a reason that the engine knows.
    Dead(Reason),
    /// Not yet: try again with growing pauses until this time is used up; then a dead letter with
    /// this reason. Holds back no other message of its key meanwhile.
    Defer(Reason, Duration),
    /// Another process of this service has what it takes: leave the message to that one until this
    /// time is used up; then a dead letter with this reason. Costs no attempt.
    Elsewhere(Reason, Duration),
}

impl HandlerError {
    /// Makes an error from a sentence: lowercase, no full stop.
    pub fn new(message: impl Into<String>) -> Self {
        Self {
            class: Class::Retry,
            source: message.into().into(),
        }
    }

    /// Makes an error that asks for another try after `delay` and costs no attempt: the gateway
    /// said when it will be back.
    pub fn retry_after(delay: Duration, source: impl Into<BoxError>) -> Self {
        Self {
            class: Class::RetryAfter(delay),
            source: source.into(),
        }
    }

    /// Makes an error that asks for the message to be loaded and run again, outside the retry
    /// budget: somebody else was faster.
    pub fn conflict(source: impl Into<BoxError>) -> Self {
        Self {
            class: Class::Conflict,
            source: source.into(),
        }
    }

    /// Makes an error that is tried again as often as the endpoint allows and then becomes a dead
    /// letter with a reason that tools know.
    pub fn retry_as(reason: Reason, source: impl Into<BoxError>) -> Self {
        Self {
            class: Class::RetryAs(reason),
            source: source.into(),
        }
    }

    /// Makes a dead letter of the message now, with a reason that tools know.
    pub fn dead(reason: Reason, source: impl Into<BoxError>) -> Self {
        Self {
            class: Class::Dead(reason),
            source: source.into(),
        }
    }

    /// Makes an error that means *not yet*: the message is tried again, with growing pauses, for
    /// about `budget`; then it is a dead letter with this reason.
    ///
    /// What it waits for may stand behind it, so it leaves its place in line.
    pub fn defer(reason: Reason, budget: Duration, source: impl Into<BoxError>) -> Self {
        Self {
            class: Class::Defer(reason, budget),
            source: source.into(),
        }
    }

    /// Makes an error that leaves the message to another process of this service, for about
    /// `budget`; then it is a dead letter with this reason. Costs no attempt.
    pub(crate) fn elsewhere(reason: Reason, budget: Duration, source: impl Into<BoxError>) -> Self {
        Self {
            class: Class::Elsewhere(reason, budget),
            source: source.into(),
        }
    }

    /// Makes a dead letter of the message now: trying again is useless.
    #[must_use]
    pub fn terminal(self) -> Self {
        Self {
            class: Class::Terminal,
            ..self
        }
    }

    /// Returns what the engine is asked to do.
    pub fn class(&self) -> Class {
        self.class
    }

    /// Returns the error and what caused it, outermost first, joined by `: ` and cut at 4 KiB.
    pub fn chain(&self) -> String {
        chain(&*self.source)
    }

    /// Says whether the message is not to blame: the store could not be reached or was busy, or
    /// `excuses` knows a cause. An error that says itself what to do has no excuse.
    pub(crate) fn is_excused(&self, excuses: impl Fn(&(dyn Error + 'static)) -> bool) -> bool {
        let is_transient = |cause: &(dyn Error + 'static)| {
            cause
                .downcast_ref::<StoreError>()
                .is_some_and(StoreError::is_transient)
        };
        let first: &(dyn Error + 'static) = &*self.source;
        self.class == Class::Retry
            && std::iter::successors(Some(first), |&cause| cause.source())
                .any(|cause| is_transient(cause) || excuses(cause))
    }
}

impl<E: Into<BoxError>> From<E> for HandlerError {
    fn from(source: E) -> Self {
        Self {
            class: Class::Retry,
            source: source.into(),
        }
    }
}

impl fmt::Debug for HandlerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.class, self.chain())
    }
}

impl fmt::Display for HandlerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.source, f)
    }
}

/// Adds [`terminal`](ResultExt::terminal) to results.
pub trait ResultExt<T> {
    /// Makes an error mean *dead letter now* instead of *try again*.
    ///
    /// # Errors
    /// The same error, as a terminal [`HandlerError`].
    fn terminal(self) -> Result<T>;
}

impl<T, E: Into<HandlerError>> ResultExt<T> for std::result::Result<T, E> {
    fn terminal(self) -> Result<T> {
        self.map_err(|error| error.into().terminal())
    }
}

/// Joins an error and its sources by `: `, cut at 4 KiB. What an error's own text ends with is not
/// said twice: many libraries put their source's words into theirs.
pub fn chain(error: &(dyn Error + 'static)) -> String {
    /// Bounds what one attempt adds to a row.
    const BYTES_MAX: usize = 4096;
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let words = cause.to_string();
        if !text.ends_with(&words) {
            text.push_str(": ");
            text.push_str(&words);
        }
        source = cause.source();
    }
    if text.len() > BYTES_MAX {
        let cut = text.floor_char_boundary(BYTES_MAX);
        text.truncate(cut);
        text.push('…');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("query failed{}", if *.says_cause { ": no such table" } else { "" })]
    struct Outer {
        says_cause: bool,
        source: std::io::Error,
    }

    #[test]
    fn a_cause_is_said_once() {
        for says_cause in [true, false] {
            let source = std::io::Error::other("no such table");
            let outer = Outer { says_cause, source };
            assert_eq!(chain(&outer), "query failed: no such table");
        }
    }
}
