//! Puts a host's parts to work, in the order in which they need each other.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{RwLock, mpsc, watch};

use crate::announce::Announcer;
use crate::asking::Answers;
use crate::bus::Running;
use crate::claimer::Claimer;
use crate::committer::{self, CommitterHandle, Shared};
use crate::context::HostFacts;
use crate::counters::Counters;
use crate::endpoint::{EndpointId, EndpointName, Order};
use crate::error::{RunError, StoreError};
use crate::gate::Gate;
use crate::handling::Endpoint;
use crate::health::{HostHealth, Watched};
use crate::holding::{Holding, Look};
use crate::host::Host;
use crate::id::{HostId, StoreId};
use crate::inflow::Inflow;
use crate::intake::{InHand, Intake, Intakes, Work};
use crate::joining::{self, Share};
use crate::lifecycle::Lifecycle;
use crate::loader::{self, LoaderHandle};
use crate::mirror::Mirror;
use crate::overload::Overload;
use crate::plan::{EndpointPlan, History, Mirrors};
use crate::rate::Rate;
use crate::receiver;
use crate::recurring::{RecurringPlan, Scheduler};
use crate::relay;
use crate::route::Router;
use crate::running_host::RunningHost;
use crate::store::{Attached, EndpointSpec, Registration};
use crate::store_clock::StoreClock;
use crate::transports::{TransportName, Transports};
use crate::unit_of_work::KeyAfterDeath;
use crate::upkeep::{self, Bounds};

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

    let parts = Parts::new(&host, host_id, attached, lifecycle);
    let Entrances {
        intakes,
        receivers,
        shares,
        watched,
    } = Entrances::new(&parts, &host.transports, host.endpoints)?;
    parts.shared.intakes.open(intakes.clone());
    joining::join_all_of(&host.transports, parts.store, shares, lifecycle).await?;
    let relays = relay::start(
        &parts.shared,
        &parts.committer,
        &host.transports,
        host.keeping,
        &parts.wakeups,
    );
    start_holding(&parts, &receivers, relays).await?;
    for (endpoint, intake, works) in receivers {
        let running = receiver::run(endpoint, intake, works);
        lifecycle.spawn(running);
    }
    let overload = Arc::new(Overload::new(host.overloaded_after));
    let bounds = bounds(&watched, &host.transports, &overload, &parts.clock);
    let scheduler = parts.scheduler(&host.name, host.recurring, host.retention.inbox);
    start_upkeep(&parts, intakes, bounds, host_id, host.retention);
    host.bus.open(Running {
        committer: parts.committer.clone(),
        facts: Arc::clone(&parts.facts),
        announcer: Announcer {
            transports: Arc::clone(&host.transports),
            store: Arc::clone(&parts.shared.store),
            appliers: Arc::new(appliers(
                &host.announced,
                &registration,
                &parts.endpoint_ids,
            )),
            lifecycle: lifecycle.clone(),
        },
        overload,
    });
    start_recurring(scheduler, lifecycle).await?;
    let counters = Arc::clone(&parts.shared.counters);
    let health = HostHealth {
        watched: watched.clone(),
        transports: Arc::clone(&host.transports),
        clock: Arc::clone(&parts.clock),
        lease: host.lease,
        lifecycle: lifecycle.clone(),
    };
    introduce(&registration, parts.store);
    Ok(RunningHost {
        bus: host.bus,
        counters,
        transports: host.transports,
        lifecycle: lifecycle.clone(),
        watched,
        health,
        store: Arc::clone(&parts.shared.store),
        id: host_id,
    })
}

/// Looks what is paused, before anything is received or sent: a start breaks no pause.
async fn start_holding(
    parts: &Parts,
    receivers: &[Receiving],
    relays: Vec<(TransportName, watch::Sender<bool>)>,
) -> Result<(), RunError> {
    let lifecycle = &parts.shared.lifecycle;
    let endpoints = receivers.iter().map(|(endpoint, ..)| Arc::clone(endpoint));
    let holding = Holding {
        store: Arc::clone(&parts.shared.store),
        endpoints: endpoints.collect(),
        relays,
        clock: Arc::clone(&parts.clock),
        lifecycle: lifecycle.clone(),
    };
    if !holding.endpoints.is_empty() || !holding.relays.is_empty() {
        holding.look(Look::First).await?;
        lifecycle.spawn(holding.run());
    }
    Ok(())
}

/// Declares what recurs, and fires it from then on.
async fn start_recurring(scheduler: Scheduler, lifecycle: &Lifecycle) -> Result<(), RunError> {
    if !scheduler.plans.is_empty() {
        scheduler.declare().await?;
        lifecycle.spawn(scheduler.run());
    }
    Ok(())
}

/// Says in the log what runs: everything as it was resolved. Definitions hold no address, so no
/// password.
fn introduce(registration: &Registration, store: StoreId) {
    let endpoints = registration.endpoints.iter().map(|spec| spec.name.as_str());
    tracing::info!(
        host = registration.host_name,
        id = %registration.host,
        %store,
        release = env!("CARGO_PKG_VERSION"),
        endpoints = endpoints.collect::<Vec<_>>().join(", "),
        definitions = %registration.definitions,
        "host runs"
    );
}

/// An endpoint, and what comes for it.
type Receiving = (Arc<Endpoint>, Intake, mpsc::UnboundedReceiver<Work>);

/// The ways into a host's endpoints.
struct Entrances {
    intakes: HashMap<EndpointName, Intake>,
    receivers: Vec<Receiving>,
    shares: Vec<Share>,
    watched: Vec<Watched>,
}

impl Entrances {
    fn new(
        parts: &Parts,
        transports: &Transports,
        endpoints: Vec<EndpointPlan>,
    ) -> Result<Self, RunError> {
        let mut all = Self {
            intakes: HashMap::new(),
            receivers: Vec::new(),
            shares: Vec::new(),
            watched: Vec::new(),
        };
        for plan in endpoints {
            let (intake, works) = Intake::new(plan.capacity);
            all.intakes.insert(plan.spec.name.clone(), intake.clone());
            let (reads, spec) = (plan.reads.clone(), plan.spec.clone());
            let endpoint = parts.endpoint(plan)?;
            for (name, _) in transports.each() {
                if let Some(spec) = transports.share(name, &reads, &spec) {
                    all.shares.push(Share {
                        name: name.clone(),
                        spec,
                        intake: intake.clone(),
                        inflow: Arc::clone(&endpoint.inflow),
                    });
                }
            }
            all.watched.push(Watched {
                endpoint: endpoint.name.clone(),
                intake: intake.clone(),
                gate: Arc::clone(&endpoint.gate),
                inflow: Arc::clone(&endpoint.inflow),
            });
            all.receivers.push((Arc::new(endpoint), intake, works));
        }
        Ok(all)
    }
}

/// Says what is measured: how much a broker's endpoints have taken over, and how old the outbox is.
fn bounds(
    watched: &[Watched],
    transports: &Transports,
    overload: &Arc<Overload>,
    clock: &Arc<StoreClock>,
) -> Bounds {
    let bounded = watched.iter().filter(|_| !transports.is_empty());
    Bounds {
        inflows: bounded
            .map(|one| (one.endpoint.clone(), Arc::clone(&one.inflow)))
            .collect(),
        overload: Arc::clone(overload),
        clock: Arc::clone(clock),
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
    clock: Arc<StoreClock>,
}

impl Parts {
    fn new(host: &Host, id: HostId, attached: Attached, lifecycle: &Lifecycle) -> Self {
        let shared = Arc::new(Shared {
            store: Arc::clone(&host.store),
            router: Arc::new(Router::new(attached.routes, Arc::clone(&host.transports))),
            intakes: Arc::new(Intakes::default()),
            in_hand: Arc::new(InHand::default()),
            counters: Arc::new(Counters::default()),
            observers: Arc::clone(&host.observers),
            lease: host.lease,
            lifecycle: lifecycle.clone(),
        });
        let takers = host.endpoints.iter().flat_map(|plan| {
            let name = &plan.spec.name;
            plan.answers
                .iter()
                .map(|answer| ((*answer).to_owned(), name.clone()))
        });
        let answers = Answers::new(id, takers.collect(), Arc::clone(&shared.counters));
        Self {
            facts: Arc::new(HostFacts {
                name: host.name.clone(),
                states: host.states.clone(),
                store: Arc::clone(&host.store),
                transports: Arc::clone(&host.transports),
                answers: Arc::new(answers),
                protector: host.protector.clone(),
            }),
            loader: loader::start(Arc::clone(&host.store), lifecycle),
            committer: committer::start(Arc::clone(&shared)),
            shared,
            solo: Arc::default(),
            endpoint_ids: attached.endpoints,
            wakeups: attached.wakeups,
            store: attached.store,
            clock: Arc::new(StoreClock::new(attached.now)),
        }
    }

    fn scheduler(&self, host: &str, plans: Vec<RecurringPlan>, remembered: Duration) -> Scheduler {
        Scheduler {
            host: host.to_owned(),
            protector: self.facts.protector.clone(),
            plans,
            store: Arc::clone(&self.shared.store),
            committer: self.committer.clone(),
            endpoints: self.endpoint_ids.clone(),
            clock: Arc::clone(&self.clock),
            counters: Arc::clone(&self.shared.counters),
            remembered,
            lifecycle: self.shared.lifecycle.clone(),
        }
    }

    fn endpoint(&self, plan: EndpointPlan) -> Result<Endpoint, RunError> {
        let EndpointSpec { name, order, .. } = plan.spec;
        let id = self.endpoint_ids.get(&name).copied().ok_or_else(|| {
            StoreError::Setup(format!(
                "store attached without an id for endpoint `{name}`"
            ))
        })?;
        let counters = &self.shared.counters;
        let rate = plan.rate.map(|(tries, per)| Rate::new(tries, per));
        let gate = Gate::new(name.clone(), plan.breaker, rate, Arc::clone(counters));
        let inflow = Inflow::new(name.clone(), plan.rows_max);
        let transports = &self.facts.transports;
        let mirror = (plan.mirrors == Mirrors::DeadLetters)
            .then(|| Mirror::of(&name, &plan.reads, transports));
        Ok(Endpoint {
            name,
            id,
            order,
            key_after: match order {
                Order::PerKey => plan.key_after,
                Order::Unordered => KeyAfterDeath::GoesOn,
            },
            mirror,
            dispatch: plan.dispatch,
            pipeline: plan.pipeline,
            retries: plan.retries,
            keeps_history: plan.history == History::Kept,
            host: Arc::clone(&self.facts),
            loader: self.loader.clone(),
            committer: self.committer.clone(),
            in_hand: Arc::clone(&self.shared.in_hand),
            counters: Arc::clone(counters),
            solo: Arc::clone(&self.solo),
            lifecycle: self.shared.lifecycle.clone(),
            gate: Arc::new(gate),
            inflow: Arc::new(inflow),
            rehearsed: plan.rehearsed,
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

fn start_upkeep(
    parts: &Parts,
    intakes: HashMap<EndpointName, Intake>,
    bounds: Bounds,
    host: HostId,
    retention: crate::store::Retention,
) {
    let shared = &parts.shared;
    let (lifecycle, store) = (&shared.lifecycle, &shared.store);
    let leases = upkeep::extend_leases(
        Arc::clone(store),
        host,
        Arc::clone(&shared.in_hand),
        bounds,
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
