//! Puts a host's parts to work, in the order in which they need each other.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::sync::{RwLock, mpsc};
use tokio::time::Instant;

use crate::announce::Announcer;
use crate::backoff::Backoff;
use crate::bus::Running;
use crate::claimer::Claimer;
use crate::committer::{self, CommitterHandle, Shared};
use crate::context::HostFacts;
use crate::counters::Counters;
use crate::endpoint::{EndpointId, EndpointName};
use crate::error::{RunError, StoreError, TransportError};
use crate::handling::Endpoint;
use crate::host::{Host, RunningHost};
use crate::id::{HostId, StoreId};
use crate::intake::{InHand, Intake, Intakes, Work};
use crate::lifecycle::Lifecycle;
use crate::loader::{self, LoaderHandle};
use crate::plan::{EndpointPlan, History};
use crate::receiver;
use crate::relay;
use crate::route::Router;
use crate::store::{Attached, EndpointSpec, Registration};
use crate::transport::Transport;
use crate::upkeep;

/// How long a host that starts rides out a broker that is away. Short: whoever starts it by hand
/// waits for the word that an address is wrong.
const AWAY_MAX: Duration = Duration::from_secs(5);

/// Starts a host: attach, check, then the way out, then the way in.
pub(crate) async fn start(host: Host) -> Result<RunningHost, RunError> {
    let lifecycle = Lifecycle::new();
    match start_on(host, &lifecycle).await {
        Ok(running) => Ok(running),
        Err(error) => {
            lifecycle.stop(Duration::ZERO).await;
            Err(error)
        }
    }
}

/// Fails to compile if a host cannot be started in a task.
fn _is_send(host: Host) -> impl Future<Output = Result<RunningHost, RunError>> + Send {
    start(host)
}

async fn start_on(host: Host, lifecycle: &Lifecycle) -> Result<RunningHost, RunError> {
    let host_id = HostId::new();
    let registration = registration(&host, host_id);
    let attached = host.store.attach(&registration, lifecycle).await?;

    let parts = Parts::new(&host, attached, lifecycle);
    let mut intakes = HashMap::new();
    let mut receivers = Vec::new();
    for plan in host.endpoints {
        let (intake, works) = Intake::new(plan.capacity);
        intakes.insert(plan.spec.name.clone(), intake.clone());
        receivers.push((parts.endpoint(plan)?, intake, works));
    }
    parts.shared.intakes.open(intakes.clone());
    if let Some(transport) = &host.transport {
        let specs: Vec<_> = registration.endpoints.clone();
        while_away("declare", || transport.declare(parts.store, &specs)).await?;
        relay::start(&parts.shared, &parts.committer, transport, &parts.wakeups);
    }
    for (endpoint, intake, works) in receivers {
        start_receiver(&parts, host.transport.as_ref(), endpoint, intake, works).await?;
    }
    start_upkeep(&parts, intakes, host_id, host.retention);
    host.bus.open(Running {
        committer: parts.committer.clone(),
        facts: Arc::clone(&parts.facts),
        announcer: Announcer {
            transport: host.transport.clone(),
            store: Arc::clone(&parts.shared.store),
            appliers: Arc::new(appliers(
                &host.announced,
                &registration,
                &parts.endpoint_ids,
            )),
            lifecycle: lifecycle.clone(),
        },
    });
    let counters = Arc::clone(&parts.shared.counters);
    Ok(RunningHost {
        bus: host.bus,
        counters,
        transport: host.transport,
        lifecycle: lifecycle.clone(),
    })
}

/// Asks a broker again that is away for a moment, as a host that runs does. One that is away for
/// longer is an error of the start: its address may be wrong.
async fn while_away<'a, T>(
    what: &'static str,
    ask: impl Fn() -> BoxFuture<'a, Result<T, TransportError>>,
) -> Result<T, TransportError> {
    let deadline = Instant::now() + AWAY_MAX;
    let mut outage = Backoff::new(what);
    loop {
        match ask().await {
            Ok(done) => {
                outage.ended();
                return Ok(done);
            }
            Err(error @ TransportError::Unavailable(_)) if Instant::now() < deadline => {
                outage.failed(&error).await;
            }
            Err(error) => return Err(error),
        }
    }
}

/// What the parts of a running host share.
struct Parts {
    shared: Arc<Shared>,
    facts: Arc<HostFacts>,
    loader: LoaderHandle,
    committer: CommitterHandle,
    solo: Arc<RwLock<()>>,
    endpoint_ids: HashMap<EndpointName, EndpointId>,
    wakeups: tokio::sync::watch::Receiver<u64>,
    store: StoreId,
}

impl Parts {
    fn new(host: &Host, attached: Attached, lifecycle: &Lifecycle) -> Self {
        let shared = Arc::new(Shared {
            store: Arc::clone(&host.store),
            router: Arc::new(Router::new(attached.routes, host.transport.clone())),
            intakes: Arc::new(Intakes::default()),
            in_hand: Arc::new(InHand::default()),
            counters: Arc::new(Counters::default()),
            lease: host.lease,
            lifecycle: lifecycle.clone(),
        });
        Self {
            facts: Arc::new(HostFacts {
                name: host.name.clone(),
                states: host.states.clone(),
                store: Arc::clone(&host.store),
                has_transport: host.transport.is_some(),
            }),
            loader: loader::start(Arc::clone(&host.store), lifecycle),
            committer: committer::start(Arc::clone(&shared)),
            shared,
            solo: Arc::default(),
            endpoint_ids: attached.endpoints,
            wakeups: attached.wakeups,
            store: attached.store,
        }
    }

    fn endpoint(&self, plan: EndpointPlan) -> Result<Endpoint, RunError> {
        let EndpointSpec { name, order, .. } = plan.spec;
        let id = self.endpoint_ids.get(&name).copied().ok_or_else(|| {
            StoreError::Setup(format!(
                "store attached without an id for endpoint `{name}`"
            ))
        })?;
        Ok(Endpoint {
            name,
            id,
            order,
            dispatch: plan.dispatch,
            pipeline: plan.pipeline,
            retry: plan.retry,
            keeps_history: plan.history == History::Kept,
            host: Arc::clone(&self.facts),
            loader: self.loader.clone(),
            committer: self.committer.clone(),
            in_hand: Arc::clone(&self.shared.in_hand),
            counters: Arc::clone(&self.shared.counters),
            solo: Arc::clone(&self.solo),
            lifecycle: self.shared.lifecycle.clone(),
        })
    }
}

/// Lists for each announced type the endpoints that apply it.
fn appliers(
    announced: &[&str],
    registration: &Registration,
    ids: &HashMap<EndpointName, EndpointId>,
) -> HashMap<String, Vec<EndpointId>> {
    let applying = |message_type: &str| {
        let takers = registration.endpoints.iter();
        let takers = takers.filter(|spec| spec.takes(message_type));
        takers
            .filter_map(|spec| ids.get(&spec.name).copied())
            .collect()
    };
    let each = announced.iter();
    each.map(|message_type| ((*message_type).to_owned(), applying(message_type)))
        .collect()
}

fn registration(host: &Host, id: HostId) -> Registration {
    Registration {
        host: id,
        host_name: host.name.clone(),
        endpoints: host
            .endpoints
            .iter()
            .map(|plan| plan.spec.clone())
            .collect(),
        definitions: host.describe(),
    }
}

async fn start_receiver(
    parts: &Parts,
    transport: Option<&Arc<dyn Transport>>,
    endpoint: Endpoint,
    intake: Intake,
    works: mpsc::UnboundedReceiver<Work>,
) -> Result<(), RunError> {
    let lifecycle = &parts.shared.lifecycle;
    if let Some(transport) = transport {
        let spec = EndpointSpec {
            name: endpoint.name.clone(),
            order: endpoint.order,
            subscriptions: endpoint
                .dispatch
                .subscribers()
                .iter()
                .map(|one| one.subscription())
                .collect(),
        };
        let prefetch = u32::try_from(intake.capacity()).unwrap_or(u32::MAX);
        let subscribe = || transport.subscribe(&spec, prefetch);
        let deliveries = while_away("subscribe", subscribe).await?;
        lifecycle.spawn(receiver::receive(
            intake.clone(),
            deliveries,
            lifecycle.clone(),
        ));
    }
    lifecycle.spawn(receiver::run(Arc::new(endpoint), intake, works));
    Ok(())
}

fn start_upkeep(
    parts: &Parts,
    intakes: HashMap<EndpointName, Intake>,
    host: HostId,
    retention: crate::store::Retention,
) {
    let shared = &parts.shared;
    let (lifecycle, store) = (&shared.lifecycle, &shared.store);
    let leases = upkeep::extend_leases(
        Arc::clone(store),
        host,
        Arc::clone(&shared.in_hand),
        shared.lease,
        lifecycle.clone(),
    );
    lifecycle.spawn(leases);
    let counters = Arc::clone(&shared.counters);
    lifecycle.spawn(upkeep::sweep(
        Arc::clone(store),
        retention,
        counters,
        lifecycle.clone(),
    ));
    if !intakes.is_empty() {
        let claimer = Claimer {
            store: Arc::clone(store),
            intakes,
            in_hand: Arc::clone(&shared.in_hand),
            counters: Arc::clone(&shared.counters),
            lease: shared.lease,
            wakeups: parts.wakeups.clone(),
            lifecycle: lifecycle.clone(),
        };
        lifecycle.spawn(claimer.run());
    }
}
