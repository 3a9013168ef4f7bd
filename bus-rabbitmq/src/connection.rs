//! One connection that is made again whenever it is lost, and what is known of it meanwhile.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_rs::Runtime;
use futures_util::StreamExt;
use lapin::auth::AuthProvider;
use lapin::tcp::{AMQPUriTcpExt, OwnedTLSConfig};
use lapin::types::{LongString, ShortString};
use lapin::uri::{AMQPUri, SASLMechanism};
use lapin::{Connection, ConnectionProperties, Event};
use sagabus_core::backoff::Backoff;
use sagabus_core::clock::{self, Timestamp};
use sagabus_core::error::TransportError;
use sagabus_core::lifecycle::Lifecycle;
use sagabus_core::transport::Health;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, timeout, timeout_at};

use crate::config::RabbitMqConfig;
use crate::error::Failure;
use crate::nesting;

/// How often the state of a connection is looked at beside its events, which are only sent for
/// some ways to end.
const LOOK: Duration = Duration::from_millis(500);
/// How long the broker may take to greet a process that was connected before, at first. The driver
/// does not notice when a connection ends while it is made, so this is what such an end costs; it
/// is doubled after each silence, up to `connect_timeout`, for a broker that is slow.
const GREETING: Duration = Duration::from_secs(2);
/// How long a goodbye may take.
const CLOSE_MAX: Duration = Duration::from_secs(2);

/// A connection for one purpose. Connects when it is first needed, and ends with its last user.
pub(crate) struct Link {
    uri: AMQPUri,
    state: watch::Receiver<State>,
    supervisor: Supervisor,
    is_started: AtomicBool,
    /// Ends the supervisor.
    lifecycle: Lifecycle,
}

/// What is known of a connection.
#[derive(Clone)]
enum State {
    /// The first try is under way.
    Starting,
    /// It can be used. A blocked one takes no messages.
    Up {
        connection: Arc<Connection>,
        blocked: Option<(Timestamp, String)>,
    },
    /// It is tried again and again.
    Down { since: Timestamp, failure: Failure },
}

impl Link {
    /// Prepares a connection; `purpose` is a word for logs and the broker's tools.
    pub(crate) fn new(
        purpose: &'static str,
        config: &Arc<RabbitMqConfig>,
    ) -> Result<Self, TransportError> {
        let uri = config.parse()?;
        let (sender, state) = watch::channel(State::Starting);
        let supervisor = Supervisor {
            purpose,
            config: Arc::clone(config),
            uri: uri.clone(),
            state: Arc::new(sender),
        };
        Ok(Self {
            uri,
            state,
            supervisor,
            is_started: AtomicBool::new(false),
            lifecycle: Lifecycle::new(),
        })
    }

    /// Returns the connection, or why there is none. Waits for the first try, and for no other.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub(crate) async fn connection(&self) -> Result<Arc<Connection>, TransportError> {
        self.start();
        let mut state = self.state.clone();
        let settled = state.wait_for(|state| !matches!(state, State::Starting));
        match settled.await.map(|state| state.clone()) {
            Ok(State::Up { connection, .. }) => Ok(connection),
            Ok(State::Down { failure, .. }) => Err(failure.to_transport()),
            Ok(State::Starting) | Err(_) => {
                Err(Failure::lost(&self.uri, "it was closed by this process").to_transport())
            }
        }
    }

    /// Waits until there is a connection; `None` once there will be none.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub(crate) async fn connected(&self) -> Option<Arc<Connection>> {
        self.start();
        let mut state = self.state.clone();
        // One that was lost a moment ago is still noted here.
        let is_up = |state: &State| match state {
            State::Up { connection, .. } => connection.status().connected(),
            State::Starting | State::Down { .. } => false,
        };
        let up = state.wait_for(is_up);
        match up.await.ok()?.clone() {
            State::Up { connection, .. } => Some(connection),
            _ => None,
        }
    }

    /// Asks something on the connection, and again on the next one when the first was lost
    /// meanwhile; not longer than connecting may take.
    pub(crate) async fn ask<T, F>(
        &self,
        mut ask: impl FnMut(Arc<Connection>) -> F,
    ) -> Result<T, TransportError>
    where
        F: Future<Output = Result<T, TransportError>>,
    {
        let most = self.supervisor.config.connect_timeout;
        let deadline = Instant::now() + most;
        let mut connection = self.connection().await?;
        loop {
            let answer = tokio::select! {
                answer = timeout_at(deadline, ask(Arc::clone(&connection))) => answer,
                error = self.lost(&connection) => Ok(Err(error)),
            };
            let error = match answer {
                Ok(Err(error @ TransportError::Unavailable(_))) => error,
                Ok(answer) => return answer,
                Err(_) => return Err(Failure::timed_out(&self.uri, most).to_transport()),
            };
            if connection.status().connected() {
                return Err(error);
            }
            match timeout_at(deadline, self.next_after(&connection)).await {
                Ok(Some(next)) => connection = next,
                Ok(None) | Err(_) => return Err(error),
            }
        }
    }

    /// Waits until a connection is known to be lost. The driver does not always end what waits on
    /// one.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub(crate) async fn lost(&self, connection: &Arc<Connection>) -> TransportError {
        let is_other = |state: &State| match state {
            State::Up {
                connection: now, ..
            } => !Arc::ptr_eq(now, connection),
            State::Starting | State::Down { .. } => true,
        };
        let mut state = self.state.clone();
        match state.wait_for(is_other).await.map(|state| state.clone()) {
            Ok(State::Down { failure, .. }) => failure.to_transport(),
            _ => Failure::lost(&self.uri, "there is another one now").to_transport(),
        }
    }

    /// Waits for another connection than this one.
    async fn next_after(&self, lost: &Arc<Connection>) -> Option<Arc<Connection>> {
        let is_other = |state: &State| match state {
            State::Up { connection, .. } => !Arc::ptr_eq(connection, lost),
            State::Starting | State::Down { .. } => false,
        };
        let mut state = self.state.clone();
        match state.wait_for(is_other).await.ok()?.clone() {
            State::Up { connection, .. } => Some(connection),
            State::Starting | State::Down { .. } => None,
        }
    }

    /// Says whether there is a connection, as far as is known.
    pub(crate) fn is_connected(&self) -> bool {
        match &*self.state.borrow() {
            State::Up { connection, .. } => connection.status().connected(),
            State::Starting | State::Down { .. } => false,
        }
    }

    /// Returns why the broker takes no messages, where it said so.
    pub(crate) fn blocked(&self) -> Option<TransportError> {
        match &*self.state.borrow() {
            State::Up {
                blocked: Some((_, reason)),
                ..
            } => Some(Failure::blocked(&self.uri, reason).to_transport()),
            _ => None,
        }
    }

    /// Returns what is known, without waiting.
    pub(crate) fn health(&self) -> Health {
        match &*self.state.borrow() {
            State::Down { since, failure } => Health::Reconnecting {
                since: *since,
                error: failure.to_string(),
            },
            State::Up {
                blocked: Some((since, reason)),
                ..
            } => Health::Blocked {
                since: *since,
                reason: reason.clone(),
            },
            State::Up { blocked: None, .. } | State::Starting => Health::Connected,
        }
    }

    fn start(&self) {
        if !self.is_started.swap(true, Ordering::Relaxed) {
            let supervisor = self.supervisor.clone();
            let lifecycle = self.lifecycle.clone();
            self.lifecycle.spawn(supervisor.run(lifecycle));
        }
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.lifecycle.drain();
    }
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Link")
            .field("purpose", &self.supervisor.purpose)
            .field("health", &self.health())
            .finish_non_exhaustive()
    }
}

/// Keeps one connection.
#[derive(Clone)]
struct Supervisor {
    purpose: &'static str,
    config: Arc<RabbitMqConfig>,
    uri: AMQPUri,
    state: Arc<watch::Sender<State>>,
}

impl Supervisor {
    async fn run(self, lifecycle: Lifecycle) {
        let mut outage = Backoff::new(self.purpose);
        let most = self.config.connect_timeout;
        // Nothing is in a hurry before the first time.
        let mut greeting = most;
        loop {
            let failure = tokio::select! {
                biased;
                () = lifecycle.draining() => return,
                connected = self.connect(greeting) => match connected {
                    Err(failure) => {
                        greeting = (greeting * 2).min(most);
                        failure
                    }
                    Ok(connection) => {
                        outage.ended();
                        greeting = GREETING.min(most);
                        match self.keep(connection, &lifecycle).await {
                            Some(failure) => failure,
                            None => return,
                        }
                    }
                },
            };
            self.note_down(&failure);
            tokio::select! {
                () = lifecycle.draining() => return,
                () = outage.failed(&failure) => {}
            }
        }
    }

    /// Watches a connection until it is lost; `None` when it is to be closed.
    async fn keep(&self, connection: Connection, lifecycle: &Lifecycle) -> Option<Failure> {
        let connection = Arc::new(connection);
        let mut events = Box::pin(connection.events_listener());
        self.state.send_replace(State::Up {
            connection: Arc::clone(&connection),
            blocked: None,
        });
        let error = loop {
            tokio::select! {
                () = lifecycle.draining() => {
                    // What was not closed in time is closed by the end of its socket.
                    let _ = timeout(CLOSE_MAX, connection.close(200, "OK".into())).await;
                    return None;
                }
                event = events.next() => match event {
                    Some(Event::ConnectionBlocked(reason)) => self.note_blocked(Some(reason)),
                    Some(Event::ConnectionUnblocked) => self.note_blocked(None),
                    // An error of one channel is told here, too, and is its user's business.
                    Some(Event::Error(error)) if !connection.status().connected() => {
                        break error.to_string();
                    }
                    Some(_) => {}
                    None => break "it ended".to_owned(),
                },
                () = tokio::time::sleep(LOOK) => {
                    if !connection.status().connected() {
                        break "it is closed".to_owned();
                    }
                }
            }
        };
        Some(Failure::lost(&self.uri, &error))
    }

    fn note_down(&self, failure: &Failure) {
        self.state.send_modify(|state| {
            let since = match state {
                State::Down { since, .. } => *since,
                State::Starting | State::Up { .. } => clock::now(),
            };
            let failure = failure.clone();
            *state = State::Down { since, failure };
        });
    }

    fn note_blocked(&self, reason: Option<String>) {
        let purpose = self.purpose;
        match &reason {
            Some(reason) => tracing::warn!(what = purpose, reason, "the broker takes no messages"),
            None => tracing::info!(what = purpose, "the broker takes messages again"),
        }
        self.state.send_modify(|state| {
            if let State::Up { blocked, .. } = state {
                *blocked = reason.map(|reason| (clock::now(), reason));
            }
        });
    }

    async fn connect(&self, greeting: Duration) -> Result<Connection, Failure> {
        let most = self.config.connect_timeout;
        // The password is not in what the driver may log.
        let mut uri = self.uri.clone();
        let password = std::mem::take(&mut uri.authority.userinfo.password);
        let name = format!("{} ({})", self.config.connection_name, self.purpose);
        let properties = ConnectionProperties::default().with_connection_name(name.into());
        let mechanism = uri.query.auth_mechanism.unwrap_or_default();
        let properties = properties.with_auth_provider(Login {
            user: uri.authority.userinfo.username.clone(),
            password,
            mechanism,
        });
        let tls = OwnedTLSConfig {
            identity: None,
            cert_chain: self.config.ca_certificates.clone(),
        };
        // What carries the bytes, with TLS where there is TLS.
        let carrier = Runtime::tokio_current();
        let opened = Arc::new(Notify::new());
        let is_open = Arc::clone(&opened);
        let open = Connection::connector(
            uri,
            nesting::runtime(),
            async move |uri, _| {
                // A thread of the driver waits here, and must not for ever.
                let opening = uri.connect_with_config_async(tls.as_ref(), &carrier);
                let opened = timeout(most, opening).await;
                let timed_out = || std::io::Error::from(std::io::ErrorKind::TimedOut);
                let stream = opened.map_err(|_| timed_out())??;
                is_open.notify_one();
                Ok(nesting::sieved(stream))
            },
            properties,
        );
        let silent = async {
            opened.notified().await;
            tokio::time::sleep(greeting).await;
        };
        tokio::select! {
            connected = timeout(most, open) => match connected {
                Ok(Ok(connection)) => Ok(connection),
                Ok(Err(error)) => Err(Failure::connecting(&self.uri, &error)),
                Err(_) => Err(Failure::timed_out(&self.uri, most)),
            },
            () = silent => Err(Failure::timed_out(&self.uri, greeting)),
        }
    }
}

/// Answers the broker's question who we are.
struct Login {
    user: String,
    password: String,
    mechanism: SASLMechanism,
}

impl AuthProvider for Login {
    fn mechanism(&self) -> ShortString {
        self.mechanism.name().into()
    }

    fn auth_starter(&self) -> Result<LongString, String> {
        match self.mechanism {
            SASLMechanism::Plain => Ok(format!("\0{}\0{}", self.user, self.password).into()),
            SASLMechanism::External | SASLMechanism::Anonymous => Ok("".into()),
            other => Err(format!(
                "the mechanism {other} is not supported; use `plain`"
            )),
        }
    }
}
