//! The broker as the engine sees it.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::{self, BoxFuture};
use futures_util::stream::BoxStream;
use sagabus_core::clock::{self, Timestamp};
use sagabus_core::codec::BODY_BYTES_MAX;
use sagabus_core::endpoint::{EndpointName, Order};
use sagabus_core::error::TransportError;
use sagabus_core::id::StoreId;
use sagabus_core::lifecycle::Lifecycle;
use sagabus_core::message::Kind;
use sagabus_core::store::EndpointSpec;
use sagabus_core::transport::{
    Capabilities, Deliveries, Delivery, Health, Publication, Transport, address,
};
use tokio::time::timeout;

use crate::config::{RabbitMqConfig, TopologyMode};
use crate::connection::Link;
use crate::consumer::{Receiver, Redeclare, Streams};
use crate::error::unavailable;
use crate::pieces;
use crate::publisher::Publisher;
use crate::topology::Declarer;

/// How long a host that stops waits for its last answers.
const CLOSE_MAX: Duration = Duration::from_secs(5);

/// RabbitMQ, 3.10 or newer. Cheap to clone; clones share two connections, one for each direction.
///
/// Nothing is connected before a host starts. The last clone that is dropped closes the connections.
#[derive(Clone)]
pub struct RabbitMq {
    config: Arc<RabbitMqConfig>,
    parts: Result<Arc<Parts>, String>,
}

struct Parts {
    publisher: Publisher,
    receiving: Arc<Link>,
    declared: Arc<Declared>,
    outages: Arc<Outages>,
    streams: Arc<Streams>,
    /// Owns the tasks that receive. Each ends with its stream.
    lifecycle: Lifecycle,
}

impl RabbitMq {
    /// Uses the broker at this URL, `amqp://user:password@host:port/vhost`, with every default.
    ///
    /// A URL that cannot be read is an error when the host starts.
    pub fn connect(url: impl Into<String>) -> Self {
        Self::with(RabbitMqConfig::new(url))
    }

    /// Uses a broker as it is configured. What cannot be is an error when the host starts.
    pub fn with(config: RabbitMqConfig) -> Self {
        let config = Arc::new(config);
        let parts = Parts::new(&config).map(Arc::new);
        Self {
            config,
            parts: parts.map_err(|error| error.to_string()),
        }
    }

    /// Declares the exchanges of messages that are only published, beside what
    /// [`declare`](Transport::declare) does for endpoints: for a user that provisions for hosts
    /// which may only verify.
    ///
    /// # Errors
    /// [`TransportError::Setup`] with what to do, [`TransportError::Unavailable`].
    pub async fn provision_published(&self, events: &[&str]) -> Result<(), TransportError> {
        let parts = self.parts()?;
        let declare = |connection: Arc<lapin::Connection>| async move {
            let channel = connection.create_channel().await;
            let channel = channel.map_err(|error| unavailable(&error))?;
            let declarer = Declarer {
                channel: &channel,
                config: &self.config,
            };
            for event in events {
                let exchange = address(Kind::Event, event);
                declarer.published(&exchange).await?;
            }
            Ok(())
        };
        parts.receiving.ask(declare).await
    }

    fn parts(&self) -> Result<&Arc<Parts>, TransportError> {
        let parts = self.parts.as_ref();
        parts.map_err(|fact| TransportError::Setup(fact.clone()))
    }
}

impl Parts {
    fn new(config: &Arc<RabbitMqConfig>) -> Result<Self, TransportError> {
        let receiving = Arc::new(Link::new("receiving from RabbitMQ", config)?);
        let publishing = Link::new("publishing to RabbitMQ", config)?;
        Ok(Self {
            publisher: Publisher::new(publishing, config),
            declared: Arc::new(Declared {
                link: Arc::clone(&receiving),
                config: Arc::clone(config),
                endpoints: Mutex::default(),
            }),
            receiving,
            outages: Arc::default(),
            streams: Arc::default(),
            lifecycle: Lifecycle::new(),
        })
    }
}

impl fmt::Debug for RabbitMq {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("RabbitMq").field(&self.config).finish()
    }
}

impl Transport for RabbitMq {
    fn capabilities(&self) -> Capabilities {
        Capabilities {
            broker: "rabbitmq",
            reports_unroutable: true,
            ordered_publish: true,
            counts_redeliveries: true,
            // A queue that is there with another limit is refused where we declare it.
            deliveries: match self.config.topology {
                TopologyMode::Declare => Deliveries::Limited(self.config.delivery_limit),
                TopologyMode::Verify => Deliveries::Unknown,
            },
            acks_each: true,
            order: Order::PerKey,
            body_bytes_max: BODY_BYTES_MAX,
        }
    }

    fn declare<'a>(
        &'a self,
        store: StoreId,
        endpoints: &'a [EndpointSpec],
    ) -> BoxFuture<'a, Result<(), TransportError>> {
        async move {
            let parts = self.parts()?;
            parts.publisher.link().connection().await?;
            for spec in endpoints {
                parts.declared.declare(store, spec).await?;
            }
            Ok(())
        }
        .boxed()
    }

    fn publish<'a>(
        &'a self,
        window: &'a [Publication],
    ) -> BoxFuture<'a, Vec<Result<(), TransportError>>> {
        match &self.parts {
            Ok(parts) => parts.publisher.publish(window).boxed(),
            Err(fact) => {
                let refused = |_| Err(TransportError::Unavailable(fact.clone().into()));
                future::ready(window.iter().map(refused).collect()).boxed()
            }
        }
    }

    fn subscribe<'a>(
        &'a self,
        endpoint: &'a EndpointSpec,
        prefetch: u32,
    ) -> BoxFuture<'a, Result<BoxStream<'static, Delivery>, TransportError>> {
        async move {
            let parts = self.parts()?;
            let receiver = Receiver {
                link: Arc::clone(&parts.receiving),
                endpoint: endpoint.name.clone(),
                order: endpoint.order,
                queues: pieces::queues(&endpoint.name, endpoint.order, &self.config)
                    .into_iter()
                    .map(|queue| format!("{}{queue}", self.config.namespace))
                    .collect(),
                prefetch,
                redeclare: parts.declared.redeclare(&endpoint.name),
                outages: Arc::clone(&parts.outages),
                streams: Arc::clone(&parts.streams),
            };
            receiver.subscribe(&parts.lifecycle).await
        }
        .boxed()
    }

    fn topology(&self, endpoints: &[EndpointSpec]) -> serde_json::Value {
        pieces::described(endpoints, &self.config)
    }

    fn health(&self) -> Health {
        let Ok(parts) = &self.parts else {
            return Health::Reconnecting {
                since: clock::now(),
                error: self.parts.as_ref().err().cloned().unwrap_or_default(),
            };
        };
        let connections = [parts.receiving.health(), parts.publisher.link().health()];
        let all = connections.into_iter().chain(parts.outages.health());
        let weight = |health: &Health| match health {
            Health::Reconnecting { .. } => 2,
            Health::Blocked { .. } => 1,
            Health::Connected => 0,
        };
        all.max_by_key(weight).unwrap_or(Health::Connected)
    }

    /// Waits for the answers of dropped streams. The connections go with the last clone.
    fn close(&self) -> BoxFuture<'_, ()> {
        async move {
            if let Ok(parts) = &self.parts {
                // What is not told by then comes again, and is recognised.
                let _ = timeout(CLOSE_MAX, parts.streams.left()).await;
            }
        }
        .boxed()
    }
}

/// What was declared, to be declared again when a connection comes back.
struct Declared {
    link: Arc<Link>,
    config: Arc<RabbitMqConfig>,
    endpoints: Mutex<HashMap<EndpointName, (StoreId, EndpointSpec)>>,
}

impl Declared {
    async fn declare(&self, store: StoreId, spec: &EndpointSpec) -> Result<(), TransportError> {
        let declare = |connection: Arc<lapin::Connection>| async move {
            let channel = connection.create_channel().await;
            let channel = channel.map_err(|error| unavailable(&error))?;
            let declarer = Declarer {
                channel: &channel,
                config: &self.config,
            };
            declarer.endpoint(store, spec).await?;
            // A channel that stays open costs the broker a process; its end is no news.
            let _ = channel.close(200, "OK".into()).await;
            Ok(())
        };
        self.link.ask(declare).await?;
        let known = (store, spec.clone());
        lock(&self.endpoints).insert(spec.name.clone(), known);
        Ok(())
    }

    fn redeclare(self: &Arc<Self>, endpoint: &EndpointName) -> Redeclare {
        let (declared, endpoint) = (Arc::clone(self), endpoint.clone());
        Arc::new(move || {
            let declared = Arc::clone(&declared);
            let known = lock(&declared.endpoints).get(&endpoint).cloned();
            async move {
                match known {
                    Some((store, spec)) if declared.config.topology == TopologyMode::Declare => {
                        declared.declare(store, &spec).await
                    }
                    _ => Ok(()),
                }
            }
            .boxed()
        })
    }
}

/// The endpoints that cannot be received for, although there is a connection.
#[derive(Default)]
pub(crate) struct Outages(Mutex<BTreeMap<EndpointName, (Timestamp, String)>>);

impl Outages {
    /// Notes an error of an endpoint; the first of an outage says when it began.
    pub(crate) fn began(&self, endpoint: &EndpointName, error: &str) {
        let mut outages = lock(&self.0);
        let outage = outages.entry(endpoint.clone());
        let outage = outage.or_insert_with(|| (clock::now(), String::new()));
        error.clone_into(&mut outage.1);
    }

    /// Notes that an endpoint is received for.
    pub(crate) fn ended(&self, endpoint: &EndpointName) {
        lock(&self.0).remove(endpoint);
    }

    fn health(&self) -> Option<Health> {
        let outages = lock(&self.0);
        let (endpoint, (since, error)) = outages.iter().min_by_key(|(_, (since, _))| *since)?;
        Some(Health::Reconnecting {
            since: *since,
            error: format!("endpoint `{endpoint}`: {error}"),
        })
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
