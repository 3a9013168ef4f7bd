//! A broker that a host may start without: what is asked of it before the first answer, and the
//! joining that goes on until it is there.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::future::{BoxFuture, join_all};
use futures_util::stream::BoxStream;

use crate::backoff::jittered;
use crate::clock::{self, Timestamp};
use crate::error::{RunError, TransportError, chain};
use crate::id::StoreId;
use crate::inflow::Inflow;
use crate::intake::Intake;
use crate::lifecycle::Lifecycle;
use crate::receiver;
use crate::store::EndpointSpec;
use crate::sync::time::{sleep, timeout};
use crate::transport::{Capabilities, Delivery, Health, Publication, Transport};
use crate::transports::{TransportName, Transports};

/// How long a start waits for a broker that is known to be away. Short: the endpoints and rows of
/// the others wait as well. One that is there may take as long as it wants.
const AWAY_MAX: Duration = Duration::from_secs(2);
/// Between two tries to join: a broker that is back should be used within a second.
const PAUSE: Duration = Duration::from_secs(1);

/// A host's transport, to which nothing is published before it knows the host's endpoints: an event
/// that comes before them would go past them.
pub(crate) struct Joined<T> {
    transport: T,
    state: Mutex<State>,
}

/// What is known of a host's broker.
enum State {
    /// It was never asked.
    Unknown,
    /// It was asked in vain.
    Away { since: Timestamp, error: String },
    /// It knows the host's endpoints. From here on the transport knows best.
    Known,
}

impl<T> Joined<T> {
    pub(crate) fn new(transport: T) -> Self {
        Self {
            transport,
            state: Mutex::new(State::Unknown),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note(&self, answer: &Result<(), TransportError>) {
        let mut state = self.state();
        *state = match (answer, &*state) {
            (Ok(()), _) | (_, State::Known) => State::Known,
            (Err(error), State::Away { since, .. }) => State::Away {
                since: *since,
                error: chain(error),
            },
            (Err(error), State::Unknown) => State::Away {
                since: clock::now(),
                error: chain(error),
            },
        };
    }
}

impl<T: fmt::Debug> fmt::Debug for Joined<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.transport.fmt(f)
    }
}

impl<T: Transport> Transport for Joined<T> {
    fn capabilities(&self) -> Capabilities {
        self.transport.capabilities()
    }

    fn declare<'a>(
        &'a self,
        store: StoreId,
        endpoints: &'a [EndpointSpec],
    ) -> BoxFuture<'a, Result<(), TransportError>> {
        Box::pin(async move {
            let answer = self.transport.declare(store, endpoints).await;
            self.note(&answer);
            answer
        })
    }

    fn publish<'a>(
        &'a self,
        window: &'a [Publication],
    ) -> BoxFuture<'a, Vec<Result<(), TransportError>>> {
        let error = match &*self.state() {
            State::Known => return self.transport.publish(window),
            State::Away { error, .. } => error.clone(),
            State::Unknown => "it was not asked yet".to_owned(),
        };
        let each = window.iter();
        let away = each.map(|_| Err(TransportError::Unavailable(error.clone().into())));
        Box::pin(std::future::ready(away.collect()))
    }

    fn subscribe<'a>(
        &'a self,
        endpoint: &'a EndpointSpec,
        prefetch: u32,
    ) -> BoxFuture<'a, Result<BoxStream<'static, Delivery>, TransportError>> {
        self.transport.subscribe(endpoint, prefetch)
    }

    fn topology(&self, endpoints: &[EndpointSpec]) -> serde_json::Value {
        self.transport.topology(endpoints)
    }

    fn health(&self) -> Health {
        match &*self.state() {
            State::Away { since, error } => Health::Reconnecting {
                since: *since,
                error: error.clone(),
            },
            State::Unknown | State::Known => self.transport.health(),
        }
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        self.transport.close()
    }
}

/// What an endpoint receives by one transport.
pub(crate) struct Share {
    pub(crate) name: TransportName,
    pub(crate) spec: EndpointSpec,
    pub(crate) intake: Intake,
    pub(crate) inflow: Arc<Inflow>,
}

/// Makes every broker know the endpoints that read from it, and begins to receive. A broker that is
/// away is joined when it comes, and keeps nothing else waiting.
///
/// # Errors
/// A broker that is there and refuses the host.
pub(crate) async fn join_all_of(
    transports: &Transports,
    store: StoreId,
    shares: Vec<Share>,
    lifecycle: &Lifecycle,
) -> Result<(), RunError> {
    let mut joinings: Vec<_> = transports
        .each()
        .map(|(name, transport)| Joining {
            name: name.clone(),
            transport: Arc::clone(transport),
            store,
            shares: Vec::new(),
            lifecycle: lifecycle.clone(),
        })
        .collect();
    for share in shares {
        let its = joinings.iter_mut().find(|one| one.name == share.name);
        if let Some(its) = its {
            its.shares.push(share);
        }
    }
    let answers = join_all(joinings.iter_mut().map(Joining::try_once)).await;
    for (joining, answer) in joinings.into_iter().zip(answers) {
        match answer {
            Ok(()) => {}
            Err(error) if is_away(&error) => {
                tracing::warn!(
                    transport = %joining.name,
                    error = chain(&error),
                    "the broker is away; the host starts without it"
                );
                lifecycle.spawn(joining.run());
            }
            Err(error) => return Err(refused(&joining.name, error)),
        }
    }
    Ok(())
}

/// One broker, and what is not yet received from it.
struct Joining {
    name: TransportName,
    transport: Arc<dyn Transport>,
    store: StoreId,
    shares: Vec<Share>,
    lifecycle: Lifecycle,
}

impl Joining {
    /// Tries to join, and gives up soon where the transport knows that its broker is away.
    async fn try_once(&mut self) -> Result<(), TransportError> {
        let transport = Arc::clone(&self.transport);
        let mut joining = std::pin::pin!(self.join());
        loop {
            if let Ok(answer) = timeout(AWAY_MAX, &mut joining).await {
                return answer;
            }
            if let Health::Reconnecting { error, .. } = transport.health() {
                return Err(TransportError::Unavailable(error.into()));
            }
        }
    }

    async fn join(&mut self) -> Result<(), TransportError> {
        let specs: Vec<_> = self.shares.iter().map(|one| one.spec.clone()).collect();
        self.transport.declare(self.store, &specs).await?;
        while let Some(share) = self.shares.last() {
            let prefetch = u32::try_from(share.intake.capacity()).unwrap_or(u32::MAX);
            let deliveries = self.transport.subscribe(&share.spec, prefetch).await?;
            let Some(share) = self.shares.pop() else {
                break;
            };
            self.lifecycle.spawn(receiver::receive(
                share.intake,
                share.inflow,
                share.name,
                deliveries,
                self.lifecycle.clone(),
            ));
        }
        Ok(())
    }

    /// Tries until it has joined. A refusal is told, and tried again as well: somebody may mend
    /// what is wrong, and the host does its other work meanwhile.
    async fn run(mut self) {
        let lifecycle = self.lifecycle.clone();
        let mut is_refused = false;
        loop {
            tokio::select! {
                () = sleep(jittered(PAUSE)) => {}
                () = lifecycle.draining() => return,
            }
            let answer = tokio::select! {
                answer = self.join() => answer,
                () = lifecycle.draining() => return,
            };
            let Err(error) = answer else {
                tracing::info!(transport = %self.name, "the broker is there; the host uses it");
                return;
            };
            let is_away = is_away(&error);
            if !is_away && !is_refused {
                tracing::error!(
                    transport = %self.name,
                    error = chain(&error),
                    "the broker refuses the host; trying again"
                );
            }
            is_refused = !is_away;
        }
    }
}

fn refused(name: &TransportName, source: TransportError) -> RunError {
    match *name == TransportName::default() {
        true => RunError::Transport(source),
        false => RunError::NamedTransport {
            name: name.to_string(),
            source,
        },
    }
}

/// Says whether the broker gave no answer, rather than a refusal.
fn is_away(error: &TransportError) -> bool {
    matches!(
        error,
        TransportError::Unavailable(_) | TransportError::Unknown(_)
    )
}
