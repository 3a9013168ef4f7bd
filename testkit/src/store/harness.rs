//! Three endpoints on a fresh store, and short words for calling it.

use std::any::Any;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use sagabus_core::backlog::{Backlog, Extended, Measure};
use sagabus_core::endpoint::{EndpointId, EndpointName, Order};
use sagabus_core::error::StoreError;
use sagabus_core::id::{HostId, InstanceId, MessageId};
use sagabus_core::lifecycle::Lifecycle;
use sagabus_core::message::Kind;
use sagabus_core::store::{
    Answer, Attached, Claim, ClaimFrom, ClaimedRow, CommitReport, Counts, EndpointSpec, Extension,
    Fate, Group, Instance, Question, Registration, Scan, Store, StoreAdmin, Subscription, Target,
};
use sagabus_core::transports::TransportName;
use sagabus_core::unit_of_work::{Outcome, RowKey, Settle};

use super::build::{Plan, group};
use super::under_test::{Allowed, Skippable, StoreUnderTest};

/// A lease that no test outlives.
pub(super) const HOUR: Duration = Duration::from_secs(3600);

/// A store with the endpoints `orders` and `audit` (unordered) and `parcels` (ordered by key), and
/// a host attached to it.
pub struct Harness {
    /// The store.
    pub store: Arc<dyn Store>,
    /// The same database, as another process reaches it.
    pub peer: Arc<dyn Store>,
    /// Its administration.
    pub admin: Arc<dyn StoreAdmin>,
    /// What the store answered when the host attached.
    pub attached: Attached,
    /// The host.
    pub host: HostId,
    /// Ends with the test.
    pub lifecycle: Lifecycle,
    lacks: Vec<Skippable>,
    allowed: Allowed,
    name: String,
    _keep: Option<Box<dyn Any + Send + Sync>>,
}

impl fmt::Debug for Harness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Harness")
            .field("store", &self.store)
            .field("attached", &self.attached)
            .finish_non_exhaustive()
    }
}

impl Harness {
    /// Attaches a host with the three endpoints.
    ///
    /// # Panics
    /// When the store refuses.
    pub async fn attach(name: &str, test: StoreUnderTest, allowed: Allowed) -> Arc<Self> {
        let lifecycle = Lifecycle::new();
        let registration = registration(
            "first",
            [
                endpoint("orders", Order::Unordered, &["shop.order-placed"]),
                endpoint("parcels", Order::PerKey, &["shop.order-placed"]),
                endpoint("audit", Order::Unordered, &[]),
            ],
        );
        let attached = test
            .store
            .attach(&registration, &lifecycle)
            .await
            .expect("a fresh store takes a host");
        Arc::new(Self {
            store: test.store,
            peer: test.peer,
            admin: test.admin,
            attached,
            host: registration.host,
            lifecycle,
            lacks: test.lacks,
            allowed,
            name: name.to_owned(),
            _keep: test.keep,
        })
    }

    /// Ends what the store started for the host.
    pub(super) async fn stop(&self) {
        self.lifecycle.stop(Duration::from_secs(5)).await;
    }

    /// Says whether the backend does something that it may honestly not do, and prints it if not.
    ///
    /// # Panics
    /// When the backend's conformance test does not allow itself to skip it.
    pub fn can(&self, what: Skippable) -> bool {
        if !self.lacks.contains(&what) {
            return true;
        }
        assert!(
            self.allowed.contains(&what),
            "{} skips {what:?}, which its conformance test does not allow",
            self.name
        );
        println!("SKIPPED CAPABILITY: {what:?} in {}", self.name);
        false
    }

    fn target(&self, name: &str) -> Target {
        let name = endpoint_name(name);
        self.attached
            .routes
            .endpoints
            .get(&name)
            .unwrap_or_else(|| panic!("the store knows endpoint {name}"))
            .clone()
    }

    /// Returns the unordered endpoint.
    pub fn orders(&self) -> Target {
        self.target("orders")
    }

    /// Returns the endpoint that is ordered by key.
    pub fn parcels(&self) -> Target {
        self.target("parcels")
    }

    /// Returns another unordered endpoint.
    pub fn audit(&self) -> Target {
        self.target("audit")
    }

    /// Returns the small integer of `orders`.
    pub fn at_orders(&self) -> EndpointId {
        self.orders().id
    }

    /// Puts units together to a group.
    pub fn group(&self, plans: impl IntoIterator<Item = Plan>) -> Group {
        Group {
            routes_version: self.attached.routes.version,
            ..group(plans)
        }
    }

    /// Commits a group, again where somebody else was faster.
    ///
    /// # Errors
    /// What the store says, unless it is [`StoreError::Busy`].
    pub async fn try_commit(&self, group: &Group) -> Result<CommitReport, StoreError> {
        loop {
            match self.store.commit(group).await {
                Err(StoreError::Busy(_)) => tokio::task::yield_now().await,
                answer => return answer,
            }
        }
    }

    /// Commits units that the store must take, and returns the report.
    pub async fn commit(&self, plans: impl IntoIterator<Item = Plan>) -> CommitReport {
        self.commit_group(&self.group(plans)).await
    }

    /// Commits a group that the store must take, and returns the report.
    pub async fn commit_group(&self, group: &Group) -> CommitReport {
        let report = self.try_commit(group).await.expect("the group is taken");
        assert_eq!(report.outcomes.len(), group.units.len());
        assert_eq!(report.leased.len(), group.placements.len());
        report
    }

    /// Commits one unit and returns what became of it.
    pub async fn outcome(&self, plan: Plan) -> Outcome {
        let report = self.commit([plan]).await;
        report.outcomes[0]
    }

    /// Commits one unit that must be written, and returns the rows that were born leased.
    pub async fn write(&self, plan: Plan) -> Vec<Option<RowKey>> {
        let report = self.commit([plan]).await;
        assert_eq!(report.outcomes, [Outcome::Committed]);
        report.leased
    }

    /// Settles rows.
    pub async fn settle(&self, settles: impl IntoIterator<Item = Settle>) {
        let mut group = self.group([]);
        group.settles.extend(settles);
        self.commit_group(&group).await;
    }

    /// Claims up to 100 rows of an endpoint for an hour.
    pub async fn claim(&self, from: &Target) -> Vec<ClaimedRow> {
        self.claim_for(from, HOUR).await
    }

    /// Claims up to 100 rows of an endpoint.
    pub async fn claim_for(&self, from: &Target, lease: Duration) -> Vec<ClaimedRow> {
        claim(&*self.store, &[(from, 100)], lease).await
    }

    /// Claims the one row that an endpoint has to give.
    pub async fn claim_one(&self, from: &Target) -> ClaimedRow {
        let rows = self.claim(from).await;
        one(rows)
    }

    /// Claims up to `limit` rows for transports, and up to `per_address` of each address, or up to
    /// its bound where that is less.
    pub async fn claim_for_transport(
        &self,
        limit: u32,
        per_address: u32,
        bounds: &[(&str, u32)],
    ) -> Vec<ClaimedRow> {
        let default = TransportName::default();
        self.claim_by(default, limit, per_address, bounds).await
    }

    /// Claims up to `limit` rows for one transport, and up to `per_address` of each address.
    pub async fn claim_by(
        &self,
        name: TransportName,
        limit: u32,
        per_address: u32,
        bounds: &[(&str, u32)],
    ) -> Vec<ClaimedRow> {
        let bounds = bounds.iter();
        let bounds = bounds.map(|(address, bound)| ((*address).to_owned(), *bound));
        let claim = Claim {
            from: ClaimFrom::Transport {
                name,
                limit,
                per_address,
                bounds: bounds.collect(),
            },
            lease: HOUR,
            scan: Scan::Cold,
        };
        self.store.claim(&claim).await.expect("a claim is answered")
    }

    /// Extends the leases of rows and returns how many were still ours.
    pub async fn extend(&self, rows: &[RowKey], lease: Duration) -> u64 {
        self.extend_and_measure(rows, lease, Measure::default())
            .await
            .rows
    }

    /// Measures what waits.
    pub async fn measure(&self, measure: Measure) -> Backlog {
        self.extend_and_measure(&[], HOUR, measure).await.backlog
    }

    /// Says that the host has stopped.
    pub async fn say_farewell(&self) {
        let last = Extension {
            is_last: true,
            ..self.extension(&[], Duration::ZERO, Measure::default())
        };
        let said = self.store.extend(&last).await;
        said.expect("a farewell is answered");
    }

    fn extension(&self, rows: &[RowKey], lease: Duration, measure: Measure) -> Extension {
        Extension {
            host: self.host,
            clock: sagabus_core::clock::now(),
            rows: rows.to_vec(),
            lease,
            measure,
            is_last: false,
        }
    }

    async fn extend_and_measure(
        &self,
        rows: &[RowKey],
        lease: Duration,
        measure: Measure,
    ) -> Extended {
        let extension = self.extension(rows, lease, measure);
        let extended = self.store.extend(&extension).await;
        extended.expect("an extension is answered")
    }

    /// Asks about waiting messages.
    pub async fn load(&self, questions: &[Question]) -> Vec<Answer> {
        let answers = self.store.load(questions).await.expect("load is answered");
        assert_eq!(answers.len(), questions.len());
        answers
    }

    /// Asks whether a message was taken over.
    pub async fn is_taken_over(&self, endpoint: &Target, message: MessageId) -> bool {
        let question = Question {
            taken_over: Some((endpoint.id, message)),
            ..Question::default()
        };
        self.load(&[question]).await[0].is_taken_over
    }

    /// Asks what became of a message.
    pub async fn fate(&self, endpoint: &Target, message: MessageId) -> Option<Fate> {
        let question = Question {
            fate: Some((endpoint.id, message)),
            ..Question::default()
        };
        self.load(&[Question::default(), question]).await[1].fate
    }

    /// Asks whether a key is blocked.
    pub async fn is_blocked(&self, endpoint: &Target, key: &str) -> bool {
        let question = Question {
            blocked: Some((endpoint.name.clone(), key.to_owned())),
            ..Question::default()
        };
        self.load(&[question]).await[0].is_blocked
    }

    /// Reads an instance by the loader's question, which must agree with the administration.
    pub async fn instance(&self, id: &InstanceId) -> Option<Instance> {
        let question = Question {
            instance: Some(id.clone()),
            ..Question::default()
        };
        let loaded = self.load(&[question]).await.remove(0).instance;
        let shown = self.admin.instance(id).await.expect("an instance is shown");
        assert_eq!(loaded, shown, "load and administration show one instance");
        loaded
    }

    /// Counts rows.
    pub async fn counts(&self) -> Counts {
        self.admin.counts().await.expect("rows are counted")
    }
}

/// Claims rows of endpoints, each with the number wanted, by a cold scan, which sees everything.
pub(super) async fn claim(
    store: &dyn Store,
    from: &[(&Target, u32)],
    lease: Duration,
) -> Vec<ClaimedRow> {
    let claim = Claim {
        from: ClaimFrom::Endpoints(
            from.iter()
                .map(|(target, limit)| (target.name.clone(), *limit))
                .collect(),
        ),
        lease,
        scan: Scan::Cold,
    };
    loop {
        match store.claim(&claim).await {
            Err(StoreError::Busy(_)) => tokio::task::yield_now().await,
            rows => return rows.expect("a claim is answered"),
        }
    }
}

/// Takes the only row out of a claim.
pub(super) fn one(mut rows: Vec<ClaimedRow>) -> ClaimedRow {
    assert_eq!(rows.len(), 1, "one row was to be had: {rows:#?}");
    rows.remove(0)
}

/// Describes a host.
pub(super) fn registration(
    name: &str,
    endpoints: impl IntoIterator<Item = EndpointSpec>,
) -> Registration {
    Registration {
        host: HostId::new(),
        host_name: name.to_owned(),
        endpoints: endpoints.into_iter().collect(),
        definitions: serde_json::json!({ "machines": [] }),
    }
}

/// Describes an endpoint that takes events.
pub(super) fn endpoint(name: &str, order: Order, events: &[&'static str]) -> EndpointSpec {
    EndpointSpec {
        name: endpoint_name(name),
        order,
        subscriptions: events
            .iter()
            .map(|&event| Subscription {
                message_type: event.into(),
                kind: Kind::Event,
            })
            .collect(),
    }
}

/// Makes an endpoint's name.
pub(super) fn endpoint_name(name: &str) -> EndpointName {
    EndpointName::new(name).expect("the suite's endpoint names are usable")
}

/// Makes an instance's id.
pub(super) fn instance(key: &str) -> InstanceId {
    InstanceId {
        kind: "order".into(),
        key: key.into(),
    }
}

/// Makes the state of an instance.
pub(super) fn data(text: &str) -> Bytes {
    Bytes::from(format!("{{\"note\":{text:?}}}"))
}
