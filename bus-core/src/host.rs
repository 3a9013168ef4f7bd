//! A host: one service's endpoints, put together, checked, run and stopped.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;

use crate::bus::Bus;
use crate::clock::Timestamp;

use crate::endpoint::Order;
use crate::error::{BuildError, RunError};
use crate::handler::{Given, States};
use crate::keeping::Keeping;
use crate::memory::MemoryStore;
use crate::message::{Event, Kind, Message};
use crate::observer::{Observer, Observers};
use crate::plan::{EndpointBuilder, EndpointPlan, check_retention};
use crate::protection::Protector;
use crate::recurrence::Recurrence;
use crate::recurring::{Recurring, RecurringPlan};
use crate::running;
use crate::running_host::RunningHost;
use crate::store::{Retention, Store};
use crate::transport::Transport;
use crate::transports::{TransportName, Transports};

/// How long a stop waits for what is in hand before it lets go.
const STOP_DEADLINE: Duration = Duration::from_secs(30);

/// One service's endpoints, checked and ready to run.
#[derive(Debug)]
pub struct Host {
    pub(crate) name: String,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) transports: Arc<Transports>,
    pub(crate) states: States,
    pub(crate) endpoints: Vec<EndpointPlan>,
    pub(crate) retention: Retention,
    pub(crate) lease: Duration,
    pub(crate) bus: Bus,
    pub(crate) announced: Vec<&'static str>,
    pub(crate) recurring: Vec<RecurringPlan>,
    pub(crate) overloaded_after: Option<Duration>,
    pub(crate) protector: Option<Arc<Protector>>,
    pub(crate) keeping: Keeping,
    pub(crate) observers: Arc<Observers>,
}

impl Host {
    /// Starts putting a host together. The name appears in history, headers and logs.
    pub fn builder(name: &str) -> HostBuilder {
        HostBuilder {
            name: name.to_owned(),
            store: None,
            transports: Transports::default(),
            routes: Vec::new(),
            error: None,
            states: States::default(),
            endpoints: Vec::new(),
            retention: Retention::default(),
            lease: Duration::from_secs(15),
            announced: Vec::new(),
            recurring: Vec::new(),
            overloaded_after: None,
            protection: Protector::default(),
            keeping: Keeping::default(),
        }
    }

    /// Returns the bus by which the rest of the process sends. Works while the host runs.
    pub fn bus(&self) -> Bus {
        self.bus.clone()
    }

    /// Returns the shared value of this type, as handlers get it.
    pub fn state<T: Send + Sync + 'static>(&self) -> Option<Arc<T>> {
        self.states.get::<T>()
    }

    /// Follows what the host does once it runs: each message that it handled, and how an instance
    /// moved, told after the commit. Several may observe; none of them can hold the host up.
    pub fn observe(&self) -> Observer {
        self.observers.join()
    }

    /// Describes transports, endpoints, subscriptions, retries and the pipeline, as JSON.
    pub fn describe(&self) -> serde_json::Value {
        let endpoints = self.endpoints.iter().map(EndpointPlan::describe);
        let mut described = json!({
            "host": self.name,
            "lease_seconds": self.lease.as_secs_f64(),
            "inbox_retention_seconds": self.retention.inbox.as_secs_f64(),
            "steps": ["receive", "decode", "lane", "load", "pipeline", "retry", "commit", "ack"],
            "transports": self.transports.describe(&self.endpoints),
            "endpoints": endpoints.collect::<Vec<_>>(),
            "announces": self.announced,
            "recurring": self.recurring.iter().map(RecurringPlan::describe).collect::<Vec<_>>(),
        });
        if let Some(protector) = &self.protector {
            protector.describe(&mut described);
        }
        self.keeping.describe(&mut described);
        described
    }

    /// Starts the host and returns once it receives. A broker that is away is joined when it comes;
    /// until then the host is not ready ([`HostHealth::readiness`](crate::HostHealth::readiness)).
    ///
    /// # Errors
    /// [`RunError`] with what to do: the schema is missing or of another release, the database
    /// cannot be used, a broker refuses the host, a command has two owners.
    pub async fn start(self) -> Result<RunningHost, RunError> {
        running::start(self).await
    }

    /// Runs the host until the process is told to stop (Ctrl-C or SIGTERM), then drains for up to
    /// 30 s. A second signal lets go at once.
    ///
    /// # Errors
    /// As [`start`](Self::start).
    pub async fn run(self) -> Result<(), RunError> {
        let running = self.start().await?;
        stop_signal().await;
        tokio::select! {
            _ = running.stop(STOP_DEADLINE) => {}
            () = stop_signal() => {
                running.stop(Duration::ZERO).await;
            }
        }
        Ok(())
    }
}

/// Waits for Ctrl-C or SIGTERM.
async fn stop_signal() {
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        match signal(SignalKind::terminate()) {
            Ok(mut terminate) => {
                tokio::select! {
                    _ = terminate.recv() => {}
                    _ = tokio::signal::ctrl_c() => {}
                }
            }
            Err(error) => {
                tracing::warn!(%error, "SIGTERM cannot be listened for; Ctrl-C can");
                wait_for_ctrl_c().await;
            }
        }
    }
    #[cfg(not(unix))]
    wait_for_ctrl_c().await;
}

async fn wait_for_ctrl_c() {
    if let Err(error) = tokio::signal::ctrl_c().await {
        tracing::warn!(%error, "no signal can be listened for; end the process to stop the host");
        std::future::pending::<()>().await;
    }
}

/// A host that is being put together.
#[must_use = "a builder does nothing before `build`"]
pub struct HostBuilder {
    name: String,
    store: Option<Arc<dyn Store>>,
    transports: Transports,
    routes: Vec<(Kind, &'static str, String)>,
    error: Option<BuildError>,
    states: States,
    endpoints: Vec<(String, EndpointBuilder)>,
    retention: Retention,
    lease: Duration,
    announced: Vec<&'static str>,
    recurring: Vec<Recurring>,
    overloaded_after: Option<Duration>,
    pub(crate) protection: Protector,
    pub(crate) keeping: Keeping,
}

impl HostBuilder {
    /// Sets the database. Without a transport it is the bus, too.
    pub fn store(self, store: impl Store) -> Self {
        self.shared_store(Arc::new(store))
    }

    /// Sets a database that others hold, too, whatever its type.
    pub fn shared_store(mut self, store: Arc<dyn Store>) -> Self {
        self.store = Some(store);
        self
    }

    /// Sets the broker that carries commands and events: the default transport, by which goes all
    /// that has no other [`route`](Self::route).
    pub fn transport(mut self, transport: impl Transport + 'static) -> Self {
        self.transports.add(TransportName::default(), transport);
        self
    }

    /// Adds a further broker under a name. Endpoints read from it by
    /// [`reads_from`](EndpointBuilder::reads_from), message types go by it by
    /// [`route`](Self::route). The name is stored in rows: one that is renamed leaves them behind.
    pub fn transport_named(mut self, name: &str, transport: impl Transport + 'static) -> Self {
        match TransportName::new(name) {
            Ok(known) if self.transports.add(known.clone(), transport) => {}
            Ok(known) => self.refuse(BuildError::TransportTwice {
                name: known.to_string(),
            }),
            Err(error) => self.refuse(error),
        }
        self
    }

    /// Makes a message type go by the transport of this name instead of the default one. A command
    /// whose owner is an endpoint of this host goes where that one reads, without being told.
    pub fn route<M: Message>(mut self, transport: &str) -> Self {
        self.routes.push((M::KIND, M::TYPE, transport.to_owned()));
        self
    }

    fn refuse(&mut self, error: BuildError) {
        self.error.get_or_insert(error);
    }

    /// Gives a value that handlers take as `State<T>`; one per type.
    pub fn state<T: Send + Sync + 'static>(mut self, value: T) -> Self {
        self.states.insert(value);
        self
    }

    /// Adds an endpoint with its handlers.
    pub fn endpoint(
        mut self,
        name: &str,
        build: impl FnOnce(EndpointBuilder) -> EndpointBuilder,
    ) -> Self {
        self.endpoints
            .push((name.to_owned(), build(EndpointBuilder::default())));
        self
    }

    /// Declares that this host announces an event: `bus.announce(..)` hands it to the broker first,
    /// and an endpoint of this host applies it.
    pub fn announces<E: Event>(mut self) -> Self {
        self.announced.push(E::TYPE);
        self
    }

    /// Declares a message that recurs: `make` is called with the time for which it is, and what it
    /// returns is sent or published, by its kind, once for all hosts that declare it. The name is
    /// stored: one that is renamed begins anew.
    ///
    /// # Examples
    /// ```
    /// # use sagabus_core::{Command, Host, cron};
    /// fn declare<M: Command>(report: impl Fn() -> M + Send + Sync + 'static) {
    ///     let daily = cron("0 6 * * *").in_zone("Europe/Berlin");
    ///     let host = Host::builder("reports").recurring("daily-report", daily, move |_| report());
    ///     # let _ = host;
    /// }
    /// ```
    pub fn recurring<M: Message>(
        mut self,
        name: &str,
        recurrence: Recurrence,
        make: impl Fn(Timestamp) -> M + Send + Sync + 'static,
    ) -> Self {
        self.recurring.push(Recurring::new(name, recurrence, make));
        self
    }

    /// Sets how long inbox rows, history and tombstones are kept.
    pub fn retention(mut self, retention: Retention) -> Self {
        self.retention = retention;
        self
    }

    /// Sets how long a row belongs to the host that took it, if that host dies. Default 15 s;
    /// extended for as long as the host lives, so handlers may take longer.
    pub fn lease(mut self, lease: Duration) -> Self {
        self.lease = lease;
        self
    }

    /// Refuses to send from outside of handlers ([`BusError::Overloaded`](crate::BusError)) while a
    /// message of the outbox could have been taken for longer than this and was not. Default: never.
    /// Measured every third of a lease; what handlers send is never refused.
    pub fn overloaded_after(mut self, age: Duration) -> Self {
        self.overloaded_after = Some(age);
        self
    }

    /// Checks everything that can be known without the database.
    ///
    /// # Errors
    /// [`BuildError`], which says what to change.
    pub fn build(self) -> Result<Host, BuildError> {
        let Some(store) = self.store.clone() else {
            return Err(BuildError::NoStore { host: self.name });
        };
        self.put_together(store, Needs::Checked)
    }

    /// Describes the host that this would build, as [`Host::describe`] does, for which no database
    /// is needed.
    ///
    /// # Errors
    /// [`BuildError`], as [`build`](Self::build): but nothing is said of what handlers need of the
    /// store.
    pub fn describe(self) -> Result<serde_json::Value, BuildError> {
        let placeholder = Arc::new(MemoryStore::new());
        let host = self.put_together(placeholder, Needs::Unchecked)?;
        Ok(host.describe())
    }

    /// Says whether it has a database already.
    pub fn has_store(&self) -> bool {
        self.store.is_some()
    }

    fn put_together(self, store: Arc<dyn Store>, needs: Needs) -> Result<Host, BuildError> {
        let given = Given {
            states: &self.states,
            store: &*store,
        };
        let given = (needs == Needs::Checked).then_some(&given);
        let mut endpoints: Vec<EndpointPlan> = Vec::with_capacity(self.endpoints.len());
        for (name, builder) in self.endpoints {
            if endpoints
                .iter()
                .any(|known| known.spec.name.as_str() == name)
            {
                return Err(BuildError::EndpointTwice { name });
            }
            endpoints.push(builder.build(&name, given)?);
        }
        if let Some(error) = self.error {
            return Err(error);
        }
        check_owners(&endpoints)?;
        let mut transports = self.transports;
        transports.route_all(&self.routes, &endpoints)?;
        check_announced(&self.name, &self.announced, &endpoints, &transports)?;
        check_order(&transports, &endpoints)?;
        check_retention(&endpoints, &self.retention)?;
        self.keeping.check(&self.retention)?;
        let recurring = build_recurring(self.recurring, &endpoints)?;
        let protector = self.protection.build(&self.name)?.map(Arc::new);
        for endpoint in &mut endpoints {
            endpoint.dispatch.protect(protector.clone());
        }
        Ok(Host {
            name: self.name,
            store,
            transports: Arc::new(transports),
            states: self.states,
            endpoints,
            retention: self.retention,
            lease: self.lease,
            bus: Bus::default(),
            announced: self.announced,
            recurring,
            overloaded_after: self.overloaded_after,
            protector,
            keeping: self.keeping,
            observers: Arc::default(),
        })
    }
}

impl fmt::Debug for HostBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HostBuilder")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

/// Says whether what handlers need of their host is looked for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Needs {
    Checked,
    Unchecked,
}

/// Refuses a command that two endpoints of this host take.
fn check_owners(endpoints: &[EndpointPlan]) -> Result<(), BuildError> {
    let mut owners = std::collections::HashMap::new();
    for endpoint in endpoints {
        for subscription in &endpoint.spec.subscriptions {
            if subscription.kind != crate::message::Kind::Command {
                continue;
            }
            let (message_type, name) = (&subscription.message_type, &endpoint.spec.name);
            if let Some(first) = owners.insert(message_type, name) {
                return Err(BuildError::TwoOwners {
                    message_type: message_type.to_string(),
                    first: first.to_string(),
                    second: name.to_string(),
                });
            }
        }
    }
    Ok(())
}

/// Checks what recurs, each name once.
fn build_recurring(
    declared: Vec<Recurring>,
    endpoints: &[EndpointPlan],
) -> Result<Vec<RecurringPlan>, BuildError> {
    let mut names = std::collections::HashSet::new();
    let mut plans = Vec::with_capacity(declared.len());
    for one in declared {
        if !names.insert(one.name().to_owned()) {
            return Err(BuildError::RecurringTwice {
                name: one.name().to_owned(),
            });
        }
        let takers = endpoints.iter().map(|endpoint| &endpoint.spec);
        let takers = takers.filter(|spec| spec.takes(one.message_type()));
        let takers = takers.map(|spec| spec.name.clone()).collect();
        plans.push(one.build(takers)?);
    }
    Ok(plans)
}

/// Refuses an announcement that nobody here applies: state and announcement would never converge.
fn check_announced(
    host: &str,
    announced: &[&str],
    endpoints: &[EndpointPlan],
    transports: &Transports,
) -> Result<(), BuildError> {
    for message_type in announced {
        let by = transports.of(message_type).map(|(name, _)| name);
        let applies = |one: &EndpointPlan| {
            one.spec.takes(message_type) && by.is_none_or(|by| *by == one.reads)
        };
        if !endpoints.iter().any(applies) {
            return Err(BuildError::AnnouncesUnhandled {
                host: host.to_owned(),
                message_type: (*message_type).to_owned(),
            });
        }
    }
    Ok(())
}

/// Refuses an order that the transport would break.
fn check_order(transports: &Transports, endpoints: &[EndpointPlan]) -> Result<(), BuildError> {
    let is_broken = |one: &&EndpointPlan| {
        let transport = transports.get(&one.reads);
        let kept = transport.map_or(Order::PerKey, |transport| transport.capabilities().order);
        one.spec.order == Order::PerKey && kept == Order::Unordered
    };
    match endpoints.iter().find(is_broken) {
        Some(endpoint) => Err(BuildError::OrderNotKept {
            endpoint: endpoint.spec.name.to_string(),
        }),
        None => Ok(()),
    }
}
