//! One saga or machine under test.

use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use sagabus_core::faults::{self, Point};
use sagabus_core::store::{Group, Instance, Store, StoreAdmin, StoredDeadLetter, Subscription};
use sagabus_core::unit_of_work::{InstanceChange, InstanceStatus, UnitOfWork};
use sagabus_core::{
    Bus, EndpointBuilder, Host, HostBuilder, InstanceId, Message, MessageId, Outcome, Outgoing,
    RunningHost, headers,
};
use sagabus_saga::{HandlerSaga, MachineEndpoint, Saga, SagaEndpoint, SagaState, StateMachine};
use serde_json::Value;

use super::history::shown;
use super::place::{LEASE, Place};
use super::recorder::{Recorded, Recorder, what_it_sends};

/// Where the test receives what is sent.
const TEST: &str = "the-test";
/// Longer than any chain of messages that a test starts needs.
const PATIENCE: Duration = Duration::from_secs(60);

/// Builds the endpoint under test; again after a crash.
type Endpoint = Arc<dyn Fn(EndpointBuilder) -> EndpointBuilder + Send + Sync>;
/// Adds to the host; again after a crash.
type Equip = Arc<dyn Fn(HostBuilder) -> HostBuilder + Send + Sync>;

/// A saga or machine under test: a real host, and a clock that stands still until the test moves
/// it. Every call waits until everything that is due has been handled.
///
/// In memory, unless [`on`](Self::on) names a database: a scenario is a function over a `SagaTest`,
/// and runs everywhere.
///
/// ```
/// # use sagabus_core::{Command, Event, Kind, Message};
/// # use sagabus_saga::{Correlate, Saga, StateMachine, SagaState};
/// # use sagabus_testkit::saga::SagaTest;
/// # use std::time::Duration;
/// # macro_rules! message { ($kind:ident $name:ident $type:literal) => {
/// #     #[derive(Clone, serde::Serialize, serde::Deserialize)] struct $name { id: u64 }
/// #     impl Message for $name { const TYPE: &'static str = $type; const KIND: Kind = Kind::$kind; }
/// #     impl $kind for $name {}
/// #     impl Correlate<Order> for $name { fn key(&self) -> u64 { self.id } }
/// # } }
/// # message!(Command Place "orders.place"); message!(Event Late "orders.late");
/// # message!(Event Cancelled "orders.cancelled");
/// # #[derive(serde::Serialize, serde::Deserialize)] struct Order { id: u64 }
/// # #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)] enum Stage { Paying }
/// # impl SagaState for Stage {
/// #     const ALL: &'static [Self] = &[Self::Paying]; fn name(self) -> &'static str { "paying" } }
/// # impl Saga for Order { type Key = u64; type State = Stage; }
/// # fn order_machine() -> StateMachine<Order> {
/// #     StateMachine::named("order")
/// #         .initially(Order::when::<Place>().init(|m| Order { id: m.id })
/// #             .schedule("deadline", Duration::from_secs(900), |o, _| Late { id: o.id })
/// #             .transition_to(Stage::Paying))
/// #         .during(Stage::Paying, Order::when::<Late>()
/// #             .publish(|o, _| Cancelled { id: o.id }).finalize())
/// # }
/// let mut test = SagaTest::machine("order", order_machine);
/// test.when(Place { id: 7 });
/// test.then_state(7, Some(Stage::Paying));
/// test.then_timers(7, &["deadline"]);
/// test.advance(Duration::from_secs(15 * 60));
/// test.then_over(7);
/// assert_eq!(test.sent::<Cancelled>().len(), 1);
/// ```
pub struct SagaTest {
    place: Place,
    host: Option<RunningHost>,
    /// Where the host dies during the next call.
    crash: Option<Point>,
    /// It has died there, and another one goes on.
    has_heir: bool,
    kind: Arc<str>,
    endpoint: Endpoint,
    equip: Equip,
    recorders: Vec<Subscription>,
    recorded: Recorded,
}

impl SagaTest {
    /// Tests a machine of this name.
    ///
    /// # Panics
    /// When the machine is refused; the message says why.
    pub fn machine<S: Saga>(
        kind: &'static str,
        machine: impl Fn() -> StateMachine<S> + Send + Sync + 'static,
    ) -> Self {
        let recorders = what_it_sends(&machine().describe());
        Self::new(kind, Arc::new(move |e| e.machine(machine())), recorders)
    }

    /// Tests a handler-per-message saga of this name. What it sends is received by the test where
    /// [`receives`](Self::receives) says so.
    pub fn saga<S: Saga>(
        kind: &'static str,
        saga: impl Fn() -> HandlerSaga<S> + Send + Sync + 'static,
    ) -> Self {
        Self::new(kind, Arc::new(move |e| e.saga(saga())), Vec::new())
    }

    fn new(kind: &'static str, endpoint: Endpoint, recorders: Vec<Subscription>) -> Self {
        Self {
            place: Place::memory(),
            host: None,
            crash: None,
            has_heir: false,
            kind: kind.into(),
            endpoint,
            equip: Arc::new(|host| host),
            recorders,
            recorded: Recorded::default(),
        }
    }

    /// Runs the test on a database of its own, whose schema is there and which `open` opens: a file,
    /// a server. Timers fire when the test lets their time pass, there too. Before the first
    /// message.
    #[must_use]
    pub fn on<S: Store + StoreAdmin + Clone>(mut self, open: impl Future<Output = S>) -> Self {
        self.place = Place::database(open);
        self
    }

    /// Adds states and other endpoints to the host. Before the first message.
    #[must_use]
    pub fn with(
        mut self,
        equip: impl Fn(HostBuilder) -> HostBuilder + Send + Sync + 'static,
    ) -> Self {
        self.equip = Arc::new(equip);
        self
    }

    /// Lets the test receive a type of message. Before the first message.
    #[must_use]
    pub fn receives<M: Message>(mut self) -> Self {
        let one = Subscription {
            message_type: M::TYPE.into(),
            kind: M::KIND,
        };
        self.recorders
            .retain(|known| known.message_type != one.message_type);
        self.recorders.push(one);
        self
    }

    /// Puts an instance in place, as if messages had brought it there.
    ///
    /// # Panics
    /// When there is one already.
    pub fn given<S: Saga>(&mut self, key: impl ToString, state: Option<S::State>, data: &S) {
        let change = InstanceChange {
            id: self.id(key),
            expected: 0,
            status: InstanceStatus::Running,
            state: state.map(|state| state.name().into()),
            schema_version: S::SCHEMA_VERSION,
            data: serde_json::to_vec(data).expect("data is JSON").into(),
            timers: BTreeMap::new(),
            disarmed: Vec::new(),
            origin: None,
            labels: None,
        };
        let group = Group {
            units: vec![UnitOfWork {
                instance: Some(change),
                ..UnitOfWork::default()
            }],
            ..Group::default()
        };
        let Place { runtime, store, .. } = &self.place;
        let report = runtime.block_on(store.commit(&group));
        let outcomes = report.expect("the store takes it").outcomes;
        let committed = [Outcome::Committed];
        assert_eq!(outcomes, committed, "there is such an instance already");
    }

    /// Sends a message and waits until all that follows at once has been handled.
    pub fn when<M: Message>(&mut self, message: M) {
        self.send(vec![prepared(&message)]);
    }

    /// Sends one message twice: the same identity, as after a redelivery.
    pub fn when_twice<M: Message>(&mut self, message: M) {
        let one = prepared(&message).with_id(MessageId::new());
        self.send(vec![one.clone()]);
        self.send(vec![one]);
    }

    /// Sends messages at the same time.
    pub fn when_together<M: Message>(&mut self, messages: impl IntoIterator<Item = M>) {
        self.send(messages.into_iter().map(|one| prepared(&one)).collect());
    }

    /// Sends a message and goes on at once: the next one overtakes it, or comes while it is
    /// handled. What is sent before the message that begins an instance comes too early.
    pub fn post<M: Message>(&mut self, message: M) {
        self.start();
        self.deliver(self.bus(), vec![prepared(&message)]);
    }

    /// Lets time pass, and everything happen that is due meanwhile.
    ///
    /// # Panics
    /// When what is due is not handled; the message shows what waits.
    pub fn advance(&mut self, time: Duration) {
        self.start();
        let crash = self.crash.take();
        faults::crash_at(crash);
        self.settle();
        let mut left = time;
        while !left.is_zero() {
            left = self.place.pass(left);
            self.settle();
        }
        self.check_crash(crash);
    }

    /// Lets the host die as a killed process does, and starts another one, which takes over what
    /// the first had in hand when its lease has ended.
    pub fn crash(&mut self) {
        self.start();
        self.stop();
        self.start();
    }

    /// Lets the host die at a point of the next call, and starts another one, which goes on. The
    /// points are those of the walk of a message: before its commit, after it, and so on.
    ///
    /// The call panics when the host never came there.
    pub fn crash_after(&mut self, point: Point) {
        self.crash = Some(point);
    }

    /// Checks the state of an instance; `None` for one without.
    ///
    /// # Panics
    /// When it is in another state, over, or not there; the message shows what happened.
    pub fn then_state<T: SagaState>(&self, key: impl ToString, state: Option<T>) {
        let found = self.found(key);
        let (is, wanted) = (found.state.as_deref(), state.map(SagaState::name));
        let is_running = found.status == InstanceStatus::Running;
        assert!(
            is_running,
            "{} is over; {}",
            found.id,
            self.shown(&found.id)
        );
        let elsewhere = || format!("{} is elsewhere; {}", found.id, self.shown(&found.id));
        assert_eq!(is, wanted, "{}", elsewhere());
    }

    /// Checks that an instance is over.
    ///
    /// # Panics
    /// When it is not; the message shows what happened.
    pub fn then_over(&self, key: impl ToString) {
        let found = self.found(key);
        let is_over = found.status == InstanceStatus::Completed;
        assert!(
            is_over,
            "{} is not over; {}",
            found.id,
            self.shown(&found.id)
        );
    }

    /// Checks which timers and questions of an instance are armed, in the order of their names.
    ///
    /// # Panics
    /// When others are; the message shows what happened.
    pub fn then_timers(&self, key: impl ToString, names: &[&str]) {
        let found = self.found(key);
        let armed: Vec<&str> = found.timers.keys().map(String::as_str).collect();
        assert_eq!(armed, names, "of {}; {}", found.id, self.shown(&found.id));
    }

    /// Returns the data of an instance.
    ///
    /// # Panics
    /// When there is none, or it cannot be read.
    pub fn data<S: Saga>(&self, key: impl ToString) -> S {
        let found = self.found(key);
        let json: Value = serde_json::from_slice(&found.data).expect("data is JSON");
        let data = match json.get("$saga") {
            Some(_) => json["data"].clone(),
            None => json,
        };
        serde_json::from_value(data).expect("data is of this saga")
    }

    /// Returns every message of a type that was sent, each once, in the order in which it arrived.
    pub fn sent<M: Message>(&self) -> Vec<M> {
        self.recorded.of::<M>()
    }

    /// Returns the types of everything that was sent.
    pub fn sent_types(&self) -> Vec<String> {
        self.recorded.types()
    }

    /// Returns the messages that were given up.
    pub fn dead_letters(&self) -> Vec<StoredDeadLetter> {
        let Place { runtime, admin, .. } = &self.place;
        let read = runtime.block_on(admin.dead_letters(1000));
        read.expect("the store can be read")
    }

    /// Returns an instance as it is stored; `None` where there is none.
    pub fn instance(&self, key: impl ToString) -> Option<Instance> {
        let id = self.id(key);
        let Place { runtime, admin, .. } = &self.place;
        let read = runtime.block_on(admin.instance(&id));
        read.expect("the store can be read")
    }

    /// Returns what happened to an instance, what waits and what was given up: the words that a
    /// failed check shows.
    pub fn what_happened(&self, key: impl ToString) -> String {
        self.shown(&self.id(key))
    }

    fn shown(&self, of: &InstanceId) -> String {
        let Place { runtime, admin, .. } = &self.place;
        runtime.block_on(shown(&**admin, of))
    }

    fn found(&self, key: impl ToString) -> Instance {
        let id = self.id(key);
        let found = self.instance(&id.key);
        found.unwrap_or_else(|| panic!("there is no {id}; {}", self.shown(&id)))
    }

    fn id(&self, key: impl ToString) -> InstanceId {
        InstanceId {
            kind: Arc::clone(&self.kind),
            key: key.to_string().into(),
        }
    }

    fn send(&mut self, messages: Vec<Outgoing>) {
        self.start();
        let Some(point) = self.crash.take() else {
            self.deliver(self.bus(), messages);
            return self.settle();
        };
        // By another process: the point belongs to the host that handles.
        self.stop();
        let sender = Host::builder("sender").shared_store(Arc::clone(&self.place.store));
        let sender = sender.build().unwrap_or_else(|error| panic!("{error}"));
        let sender = self.place.runtime.block_on(sender.start());
        let sender = sender.unwrap_or_else(|error| panic!("{error}"));
        self.deliver(sender.bus(), messages);
        self.place.runtime.block_on(sender.stop(PATIENCE));
        faults::crash_at(Some(point));
        self.start();
        self.settle();
        self.check_crash(Some(point));
    }

    fn bus(&self) -> Bus {
        let bus = self.host.as_ref().map(RunningHost::bus);
        bus.expect("the host has been started")
    }

    fn deliver(&self, bus: Bus, messages: Vec<Outgoing>) {
        let sent = messages.into_iter().map(|one| bus.send_all(vec![one]));
        let sent = self.place.runtime.block_on(join_all(sent));
        for one in sent {
            one.expect("the message is stored");
        }
    }

    fn start(&mut self) {
        if self.host.is_some() {
            return;
        }
        let (endpoint, recorded) = (Arc::clone(&self.endpoint), self.recorded.clone());
        let builder = Host::builder("test").shared_store(Arc::clone(&self.place.store));
        let builder = (self.equip)(builder).lease(LEASE);
        let mut builder = builder.endpoint("under-test", |e| endpoint(e));
        if !self.recorders.is_empty() {
            builder = builder.endpoint(TEST, |e| {
                self.recorders.iter().fold(e, |e, one| {
                    e.subscribe(Arc::new(Recorder {
                        subscription: one.clone(),
                        recorded: recorded.clone(),
                    }))
                })
            });
        }
        let host = builder.build().unwrap_or_else(|error| panic!("{error}"));
        let host = self.place.runtime.block_on(host.start());
        self.host = Some(host.unwrap_or_else(|error| panic!("{error}")));
    }

    /// Ends the host at once, whatever it has in hand.
    fn stop(&mut self) {
        if let Some(host) = self.host.take() {
            self.place.runtime.block_on(host.stop(Duration::ZERO));
        }
    }

    /// Waits until nothing is due. A host that has died meanwhile gets its heir.
    fn settle(&mut self) {
        let started = self.place.now();
        loop {
            let is_busy = self.place.go_on();
            let has_died = self.crash_is_over();
            if !is_busy && !has_died {
                return;
            }
            let is_late = self.place.now() - started > PATIENCE;
            let nobody = || self.shown(&self.id("-"));
            assert!(!is_late, "there is still something due; {}", nobody());
        }
    }

    /// Says whether the host has died, and starts another one then.
    fn crash_is_over(&mut self) -> bool {
        if !faults::has_crashed() {
            return false;
        }
        self.stop();
        faults::crash_at(None);
        self.start();
        self.has_heir = true;
        true
    }

    /// Fails where the host should have died and has not.
    fn check_crash(&mut self, point: Option<Point>) {
        let Some(point) = point else { return };
        let has_died = std::mem::take(&mut self.has_heir);
        faults::crash_at(None);
        let point = point.as_str();
        assert!(
            has_died,
            "the host never came to `{point}`; {}",
            self.shown(&self.id("-"))
        );
    }
}

impl Drop for SagaTest {
    fn drop(&mut self) {
        faults::crash_at(None);
        self.stop();
    }
}

impl fmt::Debug for SagaTest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SagaTest")
            .field("kind", &self.kind)
            .finish_non_exhaustive()
    }
}

/// Prepares a message that asks for answers to the test.
fn prepared<M: Message>(message: &M) -> Outgoing {
    let mut outgoing = Outgoing::new(message).expect("the message can be encoded");
    let to = &mut outgoing.envelope.headers;
    to.set(headers::REPLY_TO, format!("@{TEST}"));
    outgoing
}
