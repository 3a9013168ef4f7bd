//! What went wrong, in words that say what to do. No text here contains a password.

use std::fmt;
use std::time::Duration;

use lapin::protocol::{AMQPErrorKind, AMQPHardError, AMQPSoftError};
use lapin::uri::{AMQPScheme, AMQPUri};
use lapin::{Error, ErrorKind};
use sagabus_core::error::TransportError;

use crate::config::place;

/// Why there is no connection.
#[derive(Clone, Debug)]
pub(crate) struct Failure {
    text: String,
    /// The broker answered and will say the same again until somebody changes something.
    is_setup: bool,
}

impl Failure {
    /// Says why connecting to a broker failed.
    pub(crate) fn connecting(uri: &AMQPUri, error: &Error) -> Self {
        let (place, user) = (place(uri), &uri.authority.userinfo.username);
        if let ErrorKind::ProtocolError(refusal) = error.kind() {
            let said = refusal.get_message();
            let text = match refusal.kind() {
                AMQPErrorKind::Soft(AMQPSoftError::ACCESSREFUSED) => format!(
                    "RabbitMQ at {place} refused the login of `{user}`; check the name and the \
                     password in the URL [SB0218]"
                ),
                AMQPErrorKind::Hard(AMQPHardError::NOTALLOWED) => format!(
                    "RabbitMQ at {place} does not let `{user}` use the vhost `{}` ({said}); create \
                     it with `rabbitmqctl add_vhost`, or permit it with `rabbitmqctl \
                     set_permissions` [SB0219]",
                    uri.vhost
                ),
                _ => format!("RabbitMQ at {place} refused the connection: {said} [SB0202]"),
            };
            return Self {
                text,
                is_setup: true,
            };
        }
        let hint = match uri.scheme {
            AMQPScheme::AMQPS => {
                "check that it runs and that this port speaks TLS with a certificate that is \
                 trusted here (`ca_certificates`) [SB0221]"
            }
            AMQPScheme::AMQP => {
                "check that it runs and that this port does not want TLS (`amqps://`) [SB0202]"
            }
        };
        Self {
            text: format!("RabbitMQ at {place} cannot be used: {error}; {hint}"),
            is_setup: false,
        }
    }

    /// Says that connecting took too long.
    pub(crate) fn timed_out(uri: &AMQPUri, after: Duration) -> Self {
        Self {
            text: format!(
                "RabbitMQ at {} did not answer within {after:?}; check host, port and firewall",
                place(uri)
            ),
            is_setup: false,
        }
    }

    /// Says that a connection was lost.
    pub(crate) fn lost(uri: &AMQPUri, error: &str) -> Self {
        Self {
            text: format!(
                "the connection to RabbitMQ at {} is lost: {error}",
                place(uri)
            ),
            is_setup: false,
        }
    }

    /// Says that messages are not taken for now.
    pub(crate) fn blocked(uri: &AMQPUri, reason: &str) -> Self {
        Self {
            text: format!(
                "RabbitMQ at {} takes no messages for now: {reason}; free memory or disk there",
                place(uri)
            ),
            is_setup: false,
        }
    }

    /// As the contract tells it.
    pub(crate) fn to_transport(&self) -> TransportError {
        if self.is_setup {
            TransportError::Setup(self.text.clone())
        } else {
            TransportError::Unavailable(self.clone().into())
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for Failure {}

/// What the broker says about one exchange or queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// It is not there.
    Missing,
    /// It is there, with other properties.
    Different,
    /// We may not.
    Forbidden,
    /// Something else, or nothing: the connection is gone.
    Other,
}

/// Reads why a channel was closed.
pub(crate) fn refusal(error: &Error) -> (Refusal, String) {
    let ErrorKind::ProtocolError(said) = error.kind() else {
        return (Refusal::Other, error.to_string());
    };
    let refusal = match said.kind() {
        AMQPErrorKind::Soft(AMQPSoftError::NOTFOUND) => Refusal::Missing,
        AMQPErrorKind::Soft(AMQPSoftError::PRECONDITIONFAILED | AMQPSoftError::RESOURCELOCKED) => {
            Refusal::Different
        }
        AMQPErrorKind::Soft(AMQPSoftError::ACCESSREFUSED) => Refusal::Forbidden,
        _ => Refusal::Other,
    };
    (refusal, said.get_message().to_string())
}

/// An error without an answer of the broker about the thing itself.
pub(crate) fn unavailable(error: &Error) -> TransportError {
    TransportError::Unavailable(Box::new(error.clone()))
}
