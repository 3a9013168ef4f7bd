//! What all clients of one cluster share: settings, the state of the link, and calls that block.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::admin::AdminClient;
use rdkafka::client::ClientContext;
use rdkafka::config::{FromClientConfigAndContext, RDKafkaLogLevel};
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode as Code};
use sagabus_core::clock;
use sagabus_core::error::TransportError;
use sagabus_core::lifecycle::Lifecycle;
use sagabus_core::transport::Health;
use tokio::sync::{oneshot, watch};
use tokio::time::Instant;

use crate::config::KafkaConfig;
use crate::error::{is_away, is_new, shown};
use crate::security::{NEEDS_OPENSSL, has_openssl};

/// Between two tries to reach a cluster that is away.
const PROBE: Duration = Duration::from_millis(500);
/// How long one try of a question may take; after it, what the client has heard meanwhile is read.
const ASK: Duration = Duration::from_secs(1);
/// Between two tries.
const PAUSE: Duration = Duration::from_millis(50);
/// Events that are read after a failed try: a connection that fails tells two or three.
const EVENTS_HEARD: u32 = 16;

/// A cluster as this process reaches it. Clones share it.
#[derive(Clone)]
pub(crate) struct Connection {
    shared: Arc<Shared>,
}

struct Shared {
    config: KafkaConfig,
    link: Arc<Link>,
    lifecycle: Lifecycle,
    /// Made when it is needed first.
    inspector: OnceLock<Arc<BaseConsumer<Watching>>>,
    cluster: OnceLock<String>,
    /// Members whose subscription was dropped and who have not left yet.
    leaving: watch::Sender<usize>,
    /// Records that were passed over because their type is not subscribed to.
    passed_over: AtomicU64,
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection")
            .field("config", &self.shared.config)
            .field("health", &self.shared.link.health())
            .finish_non_exhaustive()
    }
}

impl Connection {
    pub(crate) fn new(config: KafkaConfig) -> Self {
        Self {
            shared: Arc::new(Shared {
                config,
                link: Arc::default(),
                lifecycle: Lifecycle::new(),
                inspector: OnceLock::new(),
                cluster: OnceLock::new(),
                leaving: watch::Sender::new(0),
                passed_over: AtomicU64::new(0),
            }),
        }
    }

    pub(crate) fn config(&self) -> &KafkaConfig {
        &self.shared.config
    }

    pub(crate) fn link(&self) -> &Arc<Link> {
        &self.shared.link
    }

    pub(crate) fn lifecycle(&self) -> &Lifecycle {
        &self.shared.lifecycle
    }

    /// Notes that a member begins to leave, until what this returns is dropped.
    pub(crate) fn leaving(&self) -> Leaving {
        self.shared.leaving.send_modify(|count| *count += 1);
        Leaving(Arc::clone(&self.shared))
    }

    /// Waits until every member that begun to leave has left.
    pub(crate) async fn left(&self) {
        let mut leaving = self.shared.leaving.subscribe();
        // The sender lives as long as this connection.
        let _ = leaving.wait_for(|count| *count == 0).await;
    }

    /// Counts a record whose type the endpoint never subscribed to, and tombstones.
    pub(crate) fn pass_over(&self) {
        self.shared.passed_over.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn passed_over(&self) -> u64 {
        self.shared.passed_over.load(Ordering::Relaxed)
    }

    /// Makes a client of any kind.
    pub(crate) fn client<C, T>(&self, config: ClientConfig, context: C) -> Result<T, TransportError>
    where
        T: FromClientConfigAndContext<C>,
        C: ClientContext,
    {
        self.config().check()?;
        let mut config = self.config().finish(config);
        config.set_log_level(RDKafkaLogLevel::Info);
        let made = config.create_with_context(context);
        made.map_err(|error| TransportError::Setup(self.cannot_be_made(&error)))
    }

    fn cannot_be_made(&self, error: &KafkaError) -> String {
        let brokers = &self.config().brokers;
        let fact = shown(error);
        let is_of_tls = fact.contains("ssl") || fact.contains("SSL");
        let remedy = match is_of_tls {
            true if !has_openssl() => NEEDS_OPENSSL,
            true => "check the files of `Tls`, and the password of the key [SB0221]",
            false => "correct the Kafka settings [SB0217]",
        };
        format!("no client for the brokers `{brokers}` can be made: {fact}; {remedy}")
    }

    /// The client for questions about topics. Belongs to no group.
    pub(crate) fn inspector(&self) -> Result<Arc<BaseConsumer<Watching>>, TransportError> {
        if let Some(inspector) = self.shared.inspector.get() {
            return Ok(Arc::clone(inspector));
        }
        let made: BaseConsumer<Watching> = self.client(self.config().client(), self.watching())?;
        // Two that are made at once: one of them is dropped.
        Ok(Arc::clone(
            self.shared.inspector.get_or_init(|| Arc::new(made)),
        ))
    }

    /// The client that creates topics.
    pub(crate) fn admin(&self) -> Result<AdminClient<Watching>, TransportError> {
        self.client(self.config().client(), self.watching())
    }

    pub(crate) fn watching(&self) -> Watching {
        Watching {
            shared: Arc::downgrade(&self.shared),
        }
    }

    /// Asks the cluster something, again and again until it answers, refuses, or the time is over.
    /// `what` ends the sentence "cannot ..". Blocks.
    pub(crate) fn ask<T>(
        &self,
        what: &str,
        question: impl Fn(&BaseConsumer<Watching>, Duration) -> KafkaResult<T>,
    ) -> Result<T, TransportError> {
        let inspector = self.inspector()?;
        let deadline = Instant::now() + self.config().request_timeout;
        loop {
            let error = match question(&inspector, ASK) {
                Ok(answer) => {
                    self.link().forget();
                    return Ok(answer);
                }
                Err(error) => error,
            };
            // Why it did not answer is told by events that wait to be heard.
            for _ in 0..EVENTS_HEARD {
                inspector.poll(Duration::ZERO);
            }
            let code = error.rdkafka_error_code();
            let is_final = code.is_none_or(|code| !is_away(code) && !is_new(code));
            if is_final || self.link().is_refused() || Instant::now() >= deadline {
                return Err(self.failed(what, &error));
            }
            std::thread::sleep(PAUSE);
        }
    }

    /// The cluster's identity, asked for once. Blocks.
    pub(crate) fn cluster(&self) -> Result<String, TransportError> {
        if let Some(cluster) = self.shared.cluster.get() {
            return Ok(cluster.clone());
        }
        let id = self.ask("tell which cluster this is", |inspector, patience| {
            let id = inspector.client().fetch_cluster_id(patience);
            id.ok_or(KafkaError::MetadataFetch(Code::OperationTimedOut))
        })?;
        Ok(self.shared.cluster.get_or_init(|| id).clone())
    }

    /// Runs a call that blocks on a thread of its own.
    ///
    /// # Cancel safety
    /// The call goes on when this is dropped.
    pub(crate) async fn blocking<T: Send + 'static>(
        &self,
        call: impl FnOnce(&Self) -> Result<T, TransportError> + Send + 'static,
    ) -> Result<T, TransportError> {
        let (answer, answered) = oneshot::channel();
        let this = self.clone();
        let run = move || {
            let _ = answer.send(call(&this)); // Whoever asked may have gone.
        };
        let started = self.lifecycle().spawn_thread("kafka-ask", run);
        started.map_err(|error| TransportError::Unavailable(error.into()))?;
        let answer = answered.await;
        answer.map_err(|_| TransportError::Unknown("the call ended without an answer".into()))?
    }

    /// Turns an error of a question into one of ours, with the reason that the link knows.
    pub(crate) fn failed(&self, what: &str, error: &KafkaError) -> TransportError {
        match error.rdkafka_error_code() {
            Some(code) if !is_away(code) => {
                TransportError::Setup(format!("cannot {what}: {}", self.explained(code)))
            }
            _ => self.unreachable(&format!("cannot {what}: {}", shown(error))),
        }
    }

    fn explained(&self, code: Code) -> String {
        let remedy = match code {
            Code::TopicAuthorizationFailed => {
                "; allow this user to DESCRIBE, READ and WRITE it [SB0220]"
            }
            Code::GroupAuthorizationFailed => "; allow this user to READ the group [SB0220]",
            Code::ClusterAuthorizationFailed => {
                "; allow this user to CREATE topics on the cluster [SB0220]"
            }
            _ => "",
        };
        format!("{code}{remedy}")
    }

    /// The error for a cluster that does not answer: what the link saw last says why.
    pub(crate) fn unreachable(&self, fact: &str) -> TransportError {
        let brokers = &self.config().brokers;
        let Some((code, reason)) = self.link().last() else {
            return TransportError::Unavailable(format!("brokers `{brokers}`: {fact}").into());
        };
        match code {
            Code::Authentication | Code::SaslAuthenticationFailed => {
                let user = self.config().security.user().unwrap_or("nobody");
                TransportError::Setup(format!(
                    "brokers `{brokers}` do not let user `{user}` in; check user, password and \
                     mechanism of `security` ({reason}) [SB0218]"
                ))
            }
            Code::SSL if reason.contains("certificate verify failed") => {
                TransportError::Setup(format!(
                    "the certificate of brokers `{brokers}` is not to be trusted: no authority of \
                     `authorities` (by default the system's) has signed it, or it has run out, or \
                     it is for another name than the broker is called by ({reason}) [SB0221]"
                ))
            }
            _ if code == Code::SSL || reason.contains(" alert ") => TransportError::Setup(format!(
                "brokers `{brokers}` and this host do not agree on TLS; check `security`, and \
                 `certificate` of `Tls` where they want one ({reason}) [SB0221]"
            )),
            _ if reason.contains("security.protocol") || reason.contains("SSL") => {
                TransportError::Setup(format!(
                    "brokers `{brokers}` speak another protocol than `security` says: plain \
                     instead of TLS, or without the log-in that they want ({reason}) [SB0221]"
                ))
            }
            _ if is_hung_up(&reason) => TransportError::Unavailable(
                format!(
                    "brokers `{brokers}` close connections at once; where they want TLS or a \
                         log-in, check `security` ({reason}) [SB0221]"
                )
                .into(),
            ),
            _ => TransportError::Unavailable(
                format!("brokers `{brokers}`: {fact} ({reason})").into(),
            ),
        }
    }

    /// Looks whether the cluster answers when a client has lost all its connections, and if not,
    /// until it does. Brokers close idle connections, too, which is no outage.
    fn look_for(&self, code: Code, reason: &str) {
        if self.link().is_looking.swap(true, Ordering::AcqRel) {
            return;
        }
        let this = Arc::downgrade(&self.shared);
        let reason = format!("{code}: {reason}");
        let look = move || {
            while let Some(shared) = this.upgrade() {
                let connection = Self { shared };
                let (link, brokers) = (connection.link(), &connection.config().brokers);
                if connection.answers() || link.is_closed() {
                    link.is_looking.store(false, Ordering::Release);
                    return link.found(brokers);
                }
                link.lost(&reason, brokers);
                drop(connection);
                std::thread::sleep(PROBE);
            }
        };
        // Not counted as a task: nobody waits for a cluster that is away.
        if let Err(error) = Lifecycle::new().spawn_thread("kafka-probe", look) {
            // Better too hopeful than never back.
            self.link().is_looking.store(false, Ordering::Release);
            tracing::warn!(%error, "no thread to look for Kafka");
        }
    }

    /// Asks for one topic, whether it exists or not: the smallest question. Blocks.
    fn answers(&self) -> bool {
        let asked = self.inspector().map(|inspector| {
            inspector.poll(Duration::ZERO);
            inspector.fetch_metadata(Some("sagabus.probe"), PROBE)
        });
        matches!(asked, Ok(Ok(_)))
    }
}

/// Whether a broker closed a connection that it had taken, before it answered anything.
fn is_hung_up(reason: &str) -> bool {
    ["in state UP", "in state APIVERSION_QUERY"]
        .iter()
        .any(|state| reason.contains(state))
}

/// A member that leaves.
pub(crate) struct Leaving(Arc<Shared>);

impl Drop for Leaving {
    fn drop(&mut self) {
        self.0.leaving.send_modify(|count| *count -= 1);
    }
}

/// What is known of the way to the cluster.
#[derive(Default)]
pub(crate) struct Link {
    state: Mutex<State>,
    is_down: AtomicBool,
    is_looking: AtomicBool,
    is_closed: AtomicBool,
}

#[derive(Default)]
struct State {
    lost: Option<(clock::Timestamp, String)>,
    last: Option<(Code, String)>,
}

impl Link {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Says whether no broker can be reached.
    pub(crate) fn is_down(&self) -> bool {
        self.is_down.load(Ordering::Relaxed)
    }

    pub(crate) fn health(&self) -> Health {
        match &self.lock().lost {
            None => Health::Connected,
            Some((since, error)) => Health::Reconnecting {
                since: *since,
                error: error.clone(),
            },
        }
    }

    /// The last thing that went wrong on the way to a broker.
    pub(crate) fn last(&self) -> Option<(Code, String)> {
        self.lock().last.clone()
    }

    /// Ends the search for a cluster that is away.
    pub(crate) fn close(&self) {
        self.is_closed.store(true, Ordering::Relaxed);
    }

    fn is_closed(&self) -> bool {
        self.is_closed.load(Ordering::Relaxed)
    }

    /// Says whether trying again is useless.
    fn is_refused(&self) -> bool {
        let refusals = [
            Code::Authentication,
            Code::SaslAuthenticationFailed,
            Code::SSL,
        ];
        self.lock().last.as_ref().is_some_and(|(code, reason)| {
            refusals.contains(code) || reason.contains("security.protocol")
        })
    }

    /// Notes what may be the reason, where nothing better is known.
    fn suspect(&self, reason: &str) {
        let unknown = || (Code::BrokerTransportFailure, reason.to_owned());
        self.lock().last.get_or_insert_with(unknown);
    }

    /// What went wrong before is no reason for what goes wrong later.
    fn forget(&self) {
        self.lock().last = None;
    }

    fn note(&self, code: Code, reason: &str) {
        self.lock().last = Some((code, reason.to_owned()));
    }

    /// Notes an outage, and says so once.
    fn lost(&self, reason: &str, brokers: &str) {
        let mut state = self.lock();
        if state.lost.is_some() {
            return;
        }
        let known = state.last.clone().map(|(_, reason)| reason);
        let error = known.unwrap_or_else(|| reason.to_owned());
        tracing::warn!(
            brokers,
            error,
            "no Kafka broker can be reached; trying again"
        );
        state.lost = Some((clock::now(), error));
        self.is_down.store(true, Ordering::Relaxed);
    }

    fn found(&self, brokers: &str) {
        let mut state = self.lock();
        state.last = None;
        if state.lost.take().is_some() {
            self.is_down.store(false, Ordering::Relaxed);
            tracing::info!(brokers, "Kafka is reached again");
        }
    }
}

/// Hears what a client says beside its answers.
#[derive(Clone)]
pub(crate) struct Watching {
    /// Weak, because the connection owns clients that have this.
    shared: Weak<Shared>,
}

impl ClientContext for Watching {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, line: &str) {
        tracing::debug!(target: "librdkafka", ?level, facility, "{line}");
        // A broker that closes a connection at once says no more than that, and only here.
        if let (true, Some(shared)) = (facility == "FAIL", self.shared.upgrade()) {
            let reason = line.split_once("]: ").map_or(line, |(_, reason)| reason);
            shared.link.suspect(reason);
        }
    }

    fn error(&self, error: KafkaError, reason: &str) {
        let (Some(code), Some(shared)) = (error.rdkafka_error_code(), self.shared.upgrade()) else {
            return;
        };
        let connection = Connection { shared };
        if code == Code::AllBrokersDown {
            connection.look_for(code, reason);
        } else {
            connection.link().note(code, reason);
        }
    }
}

impl ConsumerContext for Watching {}

impl Watching {
    /// The connection, while somebody has it.
    pub(crate) fn connection(&self) -> Option<Connection> {
        self.shared.upgrade().map(|shared| Connection { shared })
    }
}
