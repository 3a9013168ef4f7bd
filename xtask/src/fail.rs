//! The one error type: a sentence for the person at the terminal.

use std::fmt;

/// Why a command ended early.
#[derive(Debug)]
pub(crate) enum Error {
    /// Ctrl-C or SIGTERM: what was started has been ended.
    Interrupted,
    /// What failed, on what, and where there is one, what to do next.
    Failed(String),
}

pub(crate) type Result<T, E = Error> = std::result::Result<T, E>;

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Interrupted => f.write_str("interrupted"),
            Self::Failed(message) => f.write_str(message),
        }
    }
}

/// Ends with a message.
pub(crate) fn fail<T>(message: impl Into<String>) -> Result<T> {
    Err(Error::Failed(message.into()))
}

/// Says what was being done when something went wrong.
pub(crate) trait Doing<T> {
    /// Turns the error into `cannot <what>: <error>`.
    fn doing(self, what: impl fmt::Display) -> Result<T>;
}

impl<T, E: fmt::Display> Doing<T> for std::result::Result<T, E> {
    fn doing(self, what: impl fmt::Display) -> Result<T> {
        self.map_err(|error| Error::Failed(format!("cannot {what}: {error}")))
    }
}
