//! Why a command was not done, and its exit code.

use std::io::{self, ErrorKind, Write};

use sagabus_core::error::{BoxError, chain, codes};
use sagabus_core::{BuildError, RunError, StoreError};
use sagabus_ops::OpsError;

use crate::text::safe;

/// Why a command was not done.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// The arguments do not say what to do.
    #[error("{0}")]
    Usage(String),
    /// A change was not confirmed.
    #[error("{0}")]
    NotConfirmed(String),
    /// A bulk change stopped half-way.
    #[error("{0}")]
    HalfWay(String),
    /// Not all is well.
    #[error("{0} findings; each says what to do")]
    Findings(usize),
    /// The accounts do not balance.
    #[error("{0} messages came, and nothing is left of them")]
    Missing(u64),
    /// The service's own code gave no host.
    #[error("the host cannot be put together")]
    Host(#[source] BoxError),
    /// The service's host is put together wrongly.
    #[error(transparent)]
    Build(#[from] BuildError),
    /// The service did not start.
    #[error(transparent)]
    Run(#[from] RunError),
    /// What operators do was not done.
    #[error(transparent)]
    Ops(#[from] OpsError),
    /// The answer could not be written.
    #[error("cannot write the answer")]
    Output(#[from] io::Error),
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        Self::Ops(error.into())
    }
}

impl Failure {
    /// Returns the code, as `--help` documents it.
    fn code(&self) -> u8 {
        match self {
            Self::Output(error) if error.kind() == ErrorKind::BrokenPipe => 0,
            Self::Usage(_) | Self::NotConfirmed(_) => 2,
            Self::HalfWay(_) => 5,
            Self::Findings(_) | Self::Missing(_) => 6,
            Self::Ops(OpsError::NotFound(_)) => 3,
            Self::Ops(OpsError::Store(StoreError::Setup(_) | StoreError::Unavailable(_))) => 4,
            Self::Run(RunError::Store(StoreError::Setup(_) | StoreError::Unavailable(_))) => 4,
            Self::Ops(_) | Self::Output(_) | Self::Host(_) | Self::Build(_) | Self::Run(_) => 1,
        }
    }

    /// Returns the code of what databases say in words of their own.
    fn implied(&self) -> &'static str {
        let (Self::Ops(OpsError::Store(error)) | Self::Run(RunError::Store(error))) = self else {
            return "";
        };
        match error {
            StoreError::Unavailable(_) | StoreError::Unknown(_) | StoreError::Busy(_) => {
                " [SB0226]"
            }
            StoreError::Refused(_) => " [SB0308]",
            _ => "",
        }
    }

    /// Says on standard error what is wrong, and returns the code. Who closed the pipe has seen
    /// enough and is told nothing.
    pub(crate) fn report(&self) -> u8 {
        let code = self.code();
        if code != 0 {
            let text = safe(&format!("{}{}", chain(self), self.implied()));
            let _ = writeln!(io::stderr(), "error: {text}"); // Nobody is left to be told.
            if let Some(known) = codes::code_in(&text) {
                let _ = writeln!(io::stderr(), "`sagabus explain {}` tells more", known.code); // As above.
            }
        }
        code
    }
}
