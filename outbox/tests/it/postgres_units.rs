//! Groups in few words, on a store that a host attached to.

use std::future::Future;
use std::task::Poll;
use std::time::Duration;

use sagabus_core::endpoint::{Destination, EndpointName, Order};
use sagabus_core::envelope::{Envelope, Outgoing};
use sagabus_core::store::{
    Attached, Birth, Claim, ClaimFrom, ClaimedRow, EndpointSpec, Group, Place, Placement,
    Registration, Scan, Store, Target,
};
use sagabus_core::unit_of_work::{
    HistoryDetail, HistoryEntry, InstanceChange, InstanceStatus, Source, UnitOfWork,
};
use sagabus_core::{Headers, HostId, InstanceId, Lifecycle, MessageId};
use sagabus_outbox::PgStore;

/// A store with the endpoint `orders`.
pub(crate) struct Site {
    pub(crate) store: PgStore,
    pub(crate) attached: Attached,
    pub(crate) lifecycle: Lifecycle,
}

impl Site {
    pub(crate) async fn new(store: PgStore) -> Self {
        let lifecycle = Lifecycle::new();
        let endpoint = |name, order| EndpointSpec {
            name: EndpointName::new(name).unwrap(),
            order,
            subscriptions: Vec::new(),
        };
        let registration = Registration {
            host: HostId::new(),
            host_name: "test".to_owned(),
            endpoints: vec![
                endpoint("orders", Order::Unordered),
                endpoint("parcels", Order::PerKey),
            ],
            definitions: serde_json::json!({}),
        };
        let attached = store.attach(&registration, &lifecycle).await.unwrap();
        Self {
            store,
            attached,
            lifecycle,
        }
    }

    pub(crate) fn target(&self, name: &str) -> Target {
        let name = EndpointName::new(name).unwrap();
        self.attached.routes.endpoints[&name].clone()
    }

    /// A unit that answers a message at `orders`, records it and sends one message on, whose body
    /// names it.
    pub(crate) fn unit(&self, message_id: MessageId) -> UnitOfWork {
        let endpoint = self.target("orders").id;
        UnitOfWork {
            sources: vec![Source::Broker {
                endpoint,
                message_id,
            }],
            outgoing: vec![outgoing(&message_id.to_string())],
            history: vec![HistoryEntry {
                endpoint,
                message_id,
                message_type: "shop.order-placed".into(),
                correlation_id: message_id.into(),
                instance: None,
                detail: HistoryDetail::default(),
            }],
            ..UnitOfWork::default()
        }
    }

    /// A group whose messages all go to `orders`, available.
    pub(crate) fn group(&self, units: Vec<UnitOfWork>) -> Group {
        self.group_to("orders", units)
    }

    /// A group whose messages all go to one endpoint, available.
    pub(crate) fn group_to(&self, name: &str, units: Vec<UnitOfWork>) -> Group {
        let place = Place::Endpoint(self.target(name));
        let placements = units.iter().enumerate().flat_map(|(unit, work)| {
            let place = place.clone();
            (0..work.outgoing.len()).map(move |outgoing| Placement {
                unit,
                outgoing,
                place: place.clone(),
                birth: Birth::Available,
            })
        });
        Group {
            placements: placements.collect(),
            units,
            routes_version: self.attached.routes.version,
            lease: Duration::from_secs(3600),
            ..Group::default()
        }
    }

    pub(crate) async fn claim(&self, name: &str, limit: u32) -> Vec<ClaimedRow> {
        let claim = Claim {
            from: ClaimFrom::Endpoints(vec![(EndpointName::new(name).unwrap(), limit)]),
            lease: Duration::from_secs(3600),
            scan: Scan::Cold,
        };
        self.store.claim(&claim).await.unwrap()
    }

    pub(crate) async fn stop(&self) {
        assert!(self.lifecycle.stop(Duration::from_secs(5)).await);
    }
}

/// A message with this body.
pub(crate) fn outgoing(body: &str) -> Outgoing {
    let envelope = Envelope {
        id: MessageId::new(),
        message_type: "shop.order-placed".into(),
        headers: Headers::new(),
        body: body.to_owned().into(),
    };
    Outgoing::from_envelope(envelope, Destination::Owner)
}

/// A change of an instance from this version on.
pub(crate) fn change(key: &str, expected: i64) -> InstanceChange {
    InstanceChange {
        id: InstanceId {
            kind: "order".into(),
            key: key.into(),
        },
        expected,
        status: InstanceStatus::Running,
        state: None,
        schema_version: 1,
        data: "{}".into(),
        timers: [].into(),
        disarmed: Vec::new(),
        origin: None,
        labels: None,
    }
}

/// Drops a call after it was polled so often; `None` when it was not done by then.
pub(crate) async fn cancelled_after<F: Future>(polls: u64, call: F) -> Option<F::Output> {
    let mut call = std::pin::pin!(call);
    for _ in 0..polls {
        if let Poll::Ready(output) = futures_util::poll!(&mut call) {
            return Some(output);
        }
        tokio::task::yield_now().await;
    }
    None
}

/// Small numbers without order, the same in every run with the same seed.
pub(crate) struct Dice(u64);

impl Dice {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed * 2 + 1)
    }

    /// A number below `end`.
    pub(crate) fn below(&mut self, end: u64) -> u64 {
        // Xorshift: no crate for this.
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % end
    }
}
