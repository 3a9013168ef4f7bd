//! The database as the bus, seen as a transport: rows are published to endpoints of the database,
//! claimed for their replicas, and settled. Only for the suite: a host uses its store directly.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use futures_util::stream::{self, BoxStream, StreamExt};
use sagabus_core::endpoint::{Destination, EndpointName, Order};
use sagabus_core::envelope::Outgoing;
use sagabus_core::error::{StoreError, TransportError};
use sagabus_core::id::{HostId, StoreId};
use sagabus_core::lifecycle::Lifecycle;
use sagabus_core::route::Router;
use sagabus_core::store::{
    Birth, Claim, ClaimFrom, ClaimedRow, EndpointSpec, Group, Registration, Routes, Scan, Store,
};
use sagabus_core::transport::{
    Capabilities, Deliveries, Delivery, Health, Publication, Settler, Transport, Verdict,
};
use sagabus_core::unit_of_work::{RowKey, Settle, Start, UnitOfWork};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};

/// The largest body that a host sends.
const BODY_BYTES_MAX: usize = 1024 * 1024;
/// Longer than any behaviour.
const LEASE: Duration = Duration::from_secs(600);
/// Units in one commit.
const GROUP: usize = 50;
/// Between two looks at what there is.
const POLL: Duration = Duration::from_millis(10);

/// One process's way to a database that is the bus.
pub struct DatabaseTransport {
    store: Arc<dyn Store>,
    router: Router,
    host: HostId,
    settles: mpsc::UnboundedSender<Told>,
    lifecycle: Lifecycle,
}

/// A settle, and who waits for it; without one, only the waiting.
type Told = (Option<Settle>, oneshot::Sender<()>);

impl DatabaseTransport {
    /// Looks at a store as at a broker.
    pub fn new(store: Arc<dyn Store>) -> Self {
        let (settles, told) = mpsc::unbounded_channel();
        let lifecycle = Lifecycle::new();
        lifecycle.spawn(settle_all(Arc::clone(&store), told));
        Self {
            store,
            router: Router::new(Routes::default(), Arc::default()),
            host: HostId::new(),
            settles,
            lifecycle,
        }
    }

    async fn attach(&self, endpoints: &[EndpointSpec]) -> Result<(), TransportError> {
        let registration = Registration {
            host: self.host,
            host_name: "suite".to_owned(),
            endpoints: endpoints.to_vec(),
            definitions: serde_json::Value::Null,
        };
        let attached = self.store.attach(&registration, &self.lifecycle).await;
        self.router.learn(attached.map_err(as_transport)?.routes);
        Ok(())
    }

    /// Writes a row for each message that has a place, and says which had none.
    async fn write(&self, window: &[Publication]) -> Vec<Result<(), TransportError>> {
        loop {
            let routes = self.router.routes();
            let mut answers: Vec<Result<(), TransportError>> = Vec::new();
            let (mut units, mut placements) = (Vec::new(), Vec::new());
            for one in window {
                let unit = UnitOfWork {
                    outgoing: vec![outgoing(one)],
                    ..UnitOfWork::default()
                };
                let places = self.router.place(&routes, units.len(), &unit);
                let is_parked = |birth| matches!(birth, Birth::Parked(_));
                if one.envelope.body.len() > BODY_BYTES_MAX {
                    answers.push(Err(TransportError::Refused("too large".to_owned())));
                } else if places.iter().any(|place| is_parked(place.birth)) {
                    let address = one.address.clone();
                    answers.push(Err(TransportError::Unroutable { address }));
                } else {
                    answers.push(Ok(()));
                    units.push(unit);
                    placements.extend(places);
                }
            }
            let group = Group {
                units,
                placements,
                routes_version: routes.version,
                lease: LEASE,
                ..Group::default()
            };
            match self.store.commit(&group).await {
                Ok(_) => return answers,
                Err(StoreError::StaleRoutes(routes)) => self.router.learn(*routes),
                Err(StoreError::Busy(_)) => tokio::time::sleep(POLL).await,
                Err(error) => panic!("the store refuses a group of the suite: {error:?}"),
            }
        }
    }
}

impl fmt::Debug for DatabaseTransport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DatabaseTransport")
            .field("store", &self.store)
            .finish_non_exhaustive()
    }
}

impl Transport for DatabaseTransport {
    fn capabilities(&self) -> Capabilities {
        Capabilities {
            broker: "database",
            reports_unroutable: true,
            ordered_publish: true,
            counts_redeliveries: true,
            deliveries: Deliveries::Unlimited,
            acks_each: true,
            order: Order::PerKey,
            body_bytes_max: BODY_BYTES_MAX,
        }
    }

    fn declare<'a>(
        &'a self,
        _: StoreId,
        endpoints: &'a [EndpointSpec],
    ) -> BoxFuture<'a, Result<(), TransportError>> {
        self.attach(endpoints).boxed()
    }

    fn publish<'a>(
        &'a self,
        window: &'a [Publication],
    ) -> BoxFuture<'a, Vec<Result<(), TransportError>>> {
        async move {
            let mut answers = Vec::with_capacity(window.len());
            for part in window.chunks(GROUP) {
                answers.extend(self.write(part).await);
            }
            answers
        }
        .boxed()
    }

    fn subscribe<'a>(
        &'a self,
        endpoint: &'a EndpointSpec,
        prefetch: u32,
    ) -> BoxFuture<'a, Result<BoxStream<'static, Delivery>, TransportError>> {
        async move {
            // Another process may have declared it.
            self.attach(&[]).await?;
            let name = &endpoint.name;
            if !self.router.routes().endpoints.contains_key(name) {
                let fact = format!("endpoint `{name}` is not declared; declare it first");
                return Err(TransportError::Setup(fact));
            }
            let (deliveries, mut arriving) = mpsc::unbounded_channel();
            let replica = Replica {
                store: Arc::clone(&self.store),
                endpoint: name.clone(),
                places: Arc::new(Semaphore::new(prefetch as usize)),
                settles: self.settles.clone(),
                deliveries,
            };
            self.lifecycle.spawn(replica.run());
            Ok(stream::poll_fn(move |cx| arriving.poll_recv(cx)).boxed())
        }
        .boxed()
    }

    fn health(&self) -> Health {
        Health::Connected
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        let (done, is_done) = oneshot::channel();
        let _ = self.settles.send((None, done)); // Nobody settles any more: nothing is left to tell.
        is_done.map(drop).boxed()
    }
}

impl Drop for DatabaseTransport {
    fn drop(&mut self) {
        self.lifecycle.drain();
    }
}

fn outgoing(publication: &Publication) -> Outgoing {
    let destination = match publication.address.split_once('/') {
        Some(("endpoint", name)) => EndpointName::new(name).map(Destination::Endpoint),
        Some(("command", _)) => Ok(Destination::Owner),
        _ => Ok(Destination::Subscribers),
    };
    let destination = destination.expect("the suite's names are usable");
    let mut outgoing = Outgoing::from_envelope(publication.envelope.clone(), destination);
    outgoing.key.clone_from(&publication.key);
    outgoing
}

fn as_transport(error: StoreError) -> TransportError {
    match error {
        StoreError::Setup(text) => TransportError::Setup(text),
        other => TransportError::Unavailable(Box::new(other)),
    }
}

/// Settles what it is told, in groups, for as long as there is anybody to tell it.
async fn settle_all(store: Arc<dyn Store>, mut told: mpsc::UnboundedReceiver<Told>) {
    let mut batch = Vec::new();
    while told.recv_many(&mut batch, GROUP).await > 0 {
        let (settles, waiting): (Vec<_>, Vec<_>) = batch.drain(..).unzip();
        let group = Group {
            settles: settles.into_iter().flatten().collect(),
            lease: LEASE,
            ..Group::default()
        };
        while let Err(error) = store.commit(&group).await {
            assert!(error.is_transient(), "a settle is refused: {error:?}");
            tokio::time::sleep(POLL).await;
        }
        for one in waiting {
            let _ = one.send(()); // Nobody has to wait.
        }
    }
}

/// One replica of an endpoint.
struct Replica {
    store: Arc<dyn Store>,
    endpoint: EndpointName,
    places: Arc<Semaphore>,
    settles: mpsc::UnboundedSender<Told>,
    // Unbounded, because every delivery in it holds one of the places.
    deliveries: mpsc::UnboundedSender<Delivery>,
}

impl Replica {
    /// Claims as many rows as there are places, until nobody listens.
    async fn run(self) {
        while !self.deliveries.is_closed() {
            let free = self.places.available_permits();
            let claim = Claim {
                from: ClaimFrom::Endpoints(vec![(
                    self.endpoint.clone(),
                    u32::try_from(free).unwrap_or(u32::MAX),
                )]),
                lease: LEASE,
                scan: Scan::Cold,
            };
            let claimed = self.store.claim(&claim).await;
            let rows = claimed.unwrap_or_else(|error| match error.is_transient() {
                true => Vec::new(),
                false => panic!("a claim is refused: {error:?}"),
            });
            let is_idle = rows.is_empty();
            for row in rows {
                // One that nobody takes gives its row back.
                let _ = self.deliveries.send(self.delivery(row));
            }
            if is_idle {
                tokio::time::sleep(POLL).await;
            }
        }
    }

    fn delivery(&self, row: ClaimedRow) -> Delivery {
        let place = Arc::clone(&self.places).try_acquire_owned();
        let settler = RowSettler {
            row: Some(row.row),
            settles: self.settles.clone(),
            _place: place.expect("no more rows are claimed than there are places"),
        };
        let before = u32::try_from(row.starts - 1).unwrap_or_default();
        let (endpoint, settler) = (self.endpoint.clone(), Box::new(settler));
        Delivery::new(endpoint, row.envelope, before, settler)
    }
}

/// Answers for one claimed row; dropped unused, it gives the row back.
struct RowSettler {
    row: Option<RowKey>,
    settles: mpsc::UnboundedSender<Told>,
    _place: OwnedSemaphorePermit,
}

impl RowSettler {
    fn tell(&self, settle: Settle) -> oneshot::Receiver<()> {
        let (done, is_done) = oneshot::channel();
        let _ = self.settles.send((Some(settle), done)); // Its lease ends.
        is_done
    }
}

fn release(row: RowKey, after: Duration) -> Settle {
    Settle::Release {
        row,
        after,
        attempts: None,
        start: Start::Counted,
    }
}

impl Settler for RowSettler {
    fn settle(mut self: Box<Self>, verdict: Verdict) -> BoxFuture<'static, ()> {
        let settle = self.row.take().map(|row| match verdict {
            Verdict::Ack => Settle::Delete(row),
            Verdict::RetryAfter(delay) => release(row, delay),
        });
        async move {
            if let Some(settle) = settle {
                let _ = self.tell(settle).await; // Its lease ends.
            }
        }
        .boxed()
    }
}

impl Drop for RowSettler {
    fn drop(&mut self) {
        if let Some(row) = self.row.take() {
            drop(self.tell(release(row, Duration::ZERO)));
        }
    }
}
