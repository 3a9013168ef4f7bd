//! Instances that are found by a label: the number of their payment.

use std::time::Duration;

use sagabus_core::store::Instance;
use sagabus_core::unit_of_work::InstanceStatus;
use sagabus_core::{Event, InstanceId, Kind, Message, Result, RunningHost};
use sagabus_saga::{
    CorrelateByLabel, Handles, MachineEndpoint, Missing, NamedSaga, Saga, SagaCtx, SagaEndpoint,
    SagaState, Starts, StateMachine, saga,
};
use sagabus_testkit::bus::{Scene, quick_retry, start, stop};
use sagabus_testkit::wait::eventually;
use serde::{Deserialize, Serialize};

on_every_store! {
    a_message_finds_its_machine_by_a_label,
    a_message_finds_its_saga_by_a_label,
    a_label_may_come_after_the_message_that_needs_it,
    a_label_of_an_instance_that_is_over_is_too_late,
    a_label_of_another_instance_is_refused_with_the_reason,
    a_label_is_let_go_when_the_data_says_so,
    a_label_that_no_index_keeps_is_a_dead_letter,
}

messages! { Ticket:
    Command Reserve "tickets.reserve",
}

/// Names the payment of a ticket; an empty one takes it back.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Billed {
    id: u64,
    payment: String,
}

impl Message for Billed {
    const TYPE: &'static str = "tickets.billed";
    const KIND: Kind = Kind::Event;
}
impl Event for Billed {}

impl sagabus_saga::Correlate<Ticket> for Billed {
    fn key(&self) -> u64 {
        self.id
    }
}

impl sagabus_saga::Correlate<Receipt> for Billed {
    fn key(&self) -> u64 {
        self.id
    }
}

/// Knows a payment and no ticket.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Paid {
    payment: String,
}

impl Message for Paid {
    const TYPE: &'static str = "payments.paid";
    const KIND: Kind = Kind::Event;
}
impl Event for Paid {}

impl CorrelateByLabel<Ticket> for Paid {
    const LABEL: &'static str = "payment";

    fn label(&self) -> String {
        self.payment.clone()
    }
}

impl CorrelateByLabel<Receipt> for Paid {
    const LABEL: &'static str = "payment";

    fn label(&self) -> String {
        self.payment.clone()
    }
}

#[derive(Debug, Serialize, Deserialize)]
struct Ticket {
    payment: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Stage {
    Reserved,
}

impl SagaState for Stage {
    const ALL: &'static [Self] = &[Self::Reserved];

    fn name(self) -> &'static str {
        "reserved"
    }
}

impl Saga for Ticket {
    type Key = u64;
    type State = Stage;

    fn labels(&self) -> Vec<(&'static str, String)> {
        let payment = self.payment.iter();
        payment
            .map(|payment| ("payment", payment.clone()))
            .collect()
    }
}

fn tickets() -> StateMachine<Ticket> {
    StateMachine::named("ticket")
        .initially(
            Ticket::when::<Reserve>()
                .init(|_| Ticket { payment: None })
                .transition_to(Stage::Reserved),
        )
        .during(
            Stage::Reserved,
            Ticket::when::<Billed>()
                .then(|t, m| {
                    t.payment = Some(m.payment.clone()).filter(|payment| payment != "none");
                })
                .stay(),
        )
        .during(Stage::Reserved, Ticket::when_by_label::<Paid>().finalize())
        .missing(Missing::Wait(Duration::from_secs(10)))
}

/// The same, as a handler-per-message saga.
#[derive(Debug, Serialize, Deserialize)]
struct Receipt {
    payment: String,
}

impl Saga for Receipt {
    type Key = u64;
    type State = ();

    fn labels(&self) -> Vec<(&'static str, String)> {
        vec![("payment", self.payment.clone())]
    }
}

impl NamedSaga for Receipt {
    const NAME: &'static str = "receipt";
}

impl Starts<Billed> for Receipt {
    fn start(message: &Billed) -> Self {
        let payment = message.payment.clone();
        Self { payment }
    }
}

impl Handles<Billed> for Receipt {
    async fn handle(&mut self, _: Billed, _: &mut SagaCtx) -> Result {
        Ok(())
    }
}

impl Handles<Paid> for Receipt {
    async fn handle(&mut self, _: Paid, cx: &mut SagaCtx) -> Result {
        cx.complete();
        Ok(())
    }
}

async fn host(scene: &Scene) -> RunningHost {
    host_of(scene, tickets()).await
}

async fn host_of(scene: &Scene, machine: StateMachine<Ticket>) -> RunningHost {
    let builder = scene.builder("theatre");
    start(builder.endpoint("tickets", |e| e.machine(machine).retry(quick_retry()))).await
}

async fn at_version(scene: &Scene, kind: &'static str, key: u64, version: i64) -> Instance {
    let id = InstanceId {
        kind: kind.into(),
        key: key.to_string().into(),
    };
    let look = || async {
        let found = scene.admin().instance(&id).await.unwrap();
        found.filter(|one| one.version == version)
    };
    eventually(&format!("version {version} of {id}"), look)
        .await
        .0
}

async fn reserve(scene: &Scene, host: &RunningHost, id: u64, payment: &str) {
    host.bus().send(Reserve { id }).await.unwrap();
    at_version(scene, "ticket", id, 1).await;
    bill(host, id, payment).await;
    at_version(scene, "ticket", id, 2).await;
}

async fn bill(host: &RunningHost, id: u64, payment: &str) {
    let payment = payment.to_owned();
    host.bus().publish(Billed { id, payment }).await.unwrap();
}

async fn pay(host: &RunningHost, payment: &str) {
    let payment = payment.to_owned();
    host.bus().publish(Paid { payment }).await.unwrap();
}

async fn a_message_finds_its_machine_by_a_label(scene: Scene) {
    let host = host(&scene).await;
    reserve(&scene, &host, 1, "p-1").await;
    reserve(&scene, &host, 2, "Größe/'2'\u{1f600}").await;
    pay(&host, "Größe/'2'\u{1f600}").await;
    let over = at_version(&scene, "ticket", 2, 3).await;
    stop(host).await;
    assert_eq!(over.status, InstanceStatus::Completed);
    let other = at_version(&scene, "ticket", 1, 2).await;
    assert_eq!(other.status, InstanceStatus::Running);
    assert_eq!(scene.counts().await.dead_letters, 0);
}

async fn a_message_finds_its_saga_by_a_label(scene: Scene) {
    let receipts = saga::<Receipt>()
        .starts_with::<Billed>()
        .on_by_label::<Paid>();
    let builder = scene.builder("theatre");
    let host = start(builder.endpoint("receipts", |e| e.saga(receipts))).await;
    bill(&host, 7, "p-7").await;
    at_version(&scene, "receipt", 7, 1).await;
    pay(&host, "p-7").await;
    let over = at_version(&scene, "receipt", 7, 2).await;
    stop(host).await;
    assert_eq!(over.status, InstanceStatus::Completed);
}

async fn a_label_may_come_after_the_message_that_needs_it(scene: Scene) {
    let host = host(&scene).await;
    pay(&host, "p-3").await;
    let is_postponed = |one: &(&str, u64)| one.0 == "postponed" && one.1 > 0;
    let counters = host.counters();
    let look = || async { counters.snapshot().iter().any(is_postponed).then_some(()) };
    eventually("a first try", look).await;
    reserve(&scene, &host, 3, "p-3").await;
    let over = at_version(&scene, "ticket", 3, 3).await;
    stop(host).await;
    assert_eq!(over.status, InstanceStatus::Completed);
    assert_eq!(scene.counts().await.dead_letters, 0);
}

async fn a_label_of_an_instance_that_is_over_is_too_late(scene: Scene) {
    let host = host(&scene).await;
    reserve(&scene, &host, 4, "p-4").await;
    pay(&host, "p-4").await;
    at_version(&scene, "ticket", 4, 3).await;
    pay(&host, "p-4").await;
    assert_eq!(scene.dead_letters(1).await[0].reason, "too_late");
    // A new life begins without the label of the former one, whose message then waits for one.
    host.bus().send(Reserve { id: 4 }).await.unwrap();
    at_version(&scene, "ticket", 4, 4).await;
    stop(host).await;
    let machine = tickets().missing(Missing::Wait(Duration::from_millis(60)));
    let host = host_of(&scene, machine).await;
    pay(&host, "p-4").await;
    assert_eq!(scene.dead_letters(2).await[0].reason, "no_instance");
    stop(host).await;
}

async fn a_label_of_another_instance_is_refused_with_the_reason(scene: Scene) {
    let host = host(&scene).await;
    reserve(&scene, &host, 5, "p-5").await;
    host.bus().send(Reserve { id: 6 }).await.unwrap();
    at_version(&scene, "ticket", 6, 1).await;
    bill(&host, 6, "p-5").await;
    let dead = scene.dead_letters(1).await;
    assert_eq!(dead[0].reason, "refused_by_store");
    pay(&host, "p-5").await;
    at_version(&scene, "ticket", 5, 3).await;
    // Now the number is free.
    bill(&host, 6, "p-5").await;
    at_version(&scene, "ticket", 6, 2).await;
    pay(&host, "p-5").await;
    let over = at_version(&scene, "ticket", 6, 3).await;
    stop(host).await;
    assert_eq!(over.status, InstanceStatus::Completed);
}

async fn a_label_is_let_go_when_the_data_says_so(scene: Scene) {
    let host = host(&scene).await;
    reserve(&scene, &host, 8, "p-8").await;
    bill(&host, 8, "none").await;
    at_version(&scene, "ticket", 8, 3).await;
    reserve(&scene, &host, 9, "p-8").await;
    pay(&host, "p-8").await;
    at_version(&scene, "ticket", 9, 3).await;
    stop(host).await;
    let other = at_version(&scene, "ticket", 8, 3).await;
    assert_eq!(other.status, InstanceStatus::Running);
}

async fn a_label_that_no_index_keeps_is_a_dead_letter(scene: Scene) {
    let host = host(&scene).await;
    host.bus().send(Reserve { id: 10 }).await.unwrap();
    at_version(&scene, "ticket", 10, 1).await;
    bill(&host, 10, "").await;
    bill(&host, 10, &"x".repeat(2049)).await;
    pay(&host, "").await;
    let dead = scene.dead_letters(3).await;
    assert!(
        dead.iter().all(|one| one.reason == "unusable_key"),
        "{dead:?}"
    );
    stop(host).await;
    at_version(&scene, "ticket", 10, 1).await;
}
