//! Locks on business keys, held by sagas over many messages and two hosts.

use std::time::Duration;

use sagabus_core::admin::InstanceFilter;
use sagabus_core::unit_of_work::InstanceStatus;
use sagabus_core::{InstanceId, Message, Result, RunningHost, State};
use sagabus_saga::lock::{BreakLock, KIND, Lock};
use sagabus_saga::{
    Correlate, Handles, MachineEndpoint, NamedSaga, NotReserved, Refusal, RequestFailed,
    ReservationLost, Reserve, Reserved, Saga, SagaCtx, SagaEndpoint, SagaState, Starts,
    StateMachine, saga,
};
use sagabus_testkit::bus::{Log, Scene, start, stop};
use sagabus_testkit::wait::eventually;
use serde::{Deserialize, Serialize};

on_every_store! {
    who_waits_gets_the_lock_in_the_order_of_asking,
    who_does_not_wait_is_refused_and_told_by_whom,
    who_takes_over_has_it_and_the_other_is_told,
    patience_ends_and_the_next_one_is_another,
    whoever_ends_while_it_waits_is_passed_over,
    an_operator_breaks_a_lock_and_the_next_one_has_it,
    an_instance_does_not_wait_for_itself,
    a_saga_reserves_and_gives_back_before_its_end,
    one_at_a_time_over_hosts_that_come_and_go,
    the_loss_of_a_lock_waits_for_the_lock,
    a_lock_that_nobody_keeps_is_asked_for_when_somebody_does,
}

messages! { Visit:
    Command Come "visits.come",
    Command Hurry "visits.hurry",
    Command Push "visits.push",
    Command Twice "visits.twice",
    Command Leave "visits.leave",
    Event Rest "visits.rest",
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Stage {
    Outside,
    Inside,
    Robbed,
}

impl SagaState for Stage {
    const ALL: &'static [Self] = &[Self::Outside, Self::Inside, Self::Robbed];

    fn name(self) -> &'static str {
        match self {
            Self::Outside => "outside",
            Self::Inside => "inside",
            Self::Robbed => "robbed",
        }
    }
}

#[derive(Debug, Serialize, Deserialize)]
struct Visit {
    id: u64,
    refused: Option<Refusal>,
    fence: u64,
}

impl Saga for Visit {
    type Key = u64;
    type State = Stage;
}

/// All visits are to one room.
fn room() -> Reserve {
    Reserve::key("room", 1)
}

/// Declares what follows a message that makes a visit which reserves the room.
macro_rules! visit {
    ($message:ident, $reserve:expr) => {
        Visit::when::<$message>()
            .init(|message| Visit {
                id: message.id,
                refused: None,
                fence: 0,
            })
            .reserve("room", |_, _| $reserve)
            .transition_to(Stage::Outside)
    };
}

async fn enter(mut visit: Visit, answer: Reserved, log: State<Log>) -> Result<Visit> {
    visit.fence = answer.fence;
    log.add(format!("{} has it", visit.id));
    Ok(visit)
}

/// A visit: asks for the room, has it until it is told to leave, or for `rest`.
fn visits(rest: Option<Duration>) -> StateMachine<Visit> {
    let enter = Visit::when_answered::<Reserved>("room").run(enter);
    let enter = match rest {
        Some(rest) => enter.schedule("rest", rest, |visit, _| Rest { id: visit.id }),
        None => enter,
    };
    StateMachine::named("visit")
        .initially(visit!(Come, room()))
        .initially(visit!(Hurry, room().or_refuse()))
        .initially(visit!(Push, room().take_over()))
        .during(Stage::Outside, enter.transition_to(Stage::Inside))
        .during(
            Stage::Outside,
            Visit::when_answered::<NotReserved>("room")
                .then(|visit, answer| visit.refused = Some(answer.refusal))
                .stay(),
        )
        .during(
            Stage::Inside,
            Visit::when::<Twice>()
                .reserve("again", |_, _| room())
                .stay(),
        )
        .during(
            Stage::Inside,
            Visit::when_answered::<NotReserved>("again")
                .then(|visit, answer| visit.refused = Some(answer.refusal))
                .stay(),
        )
        .during(
            Stage::Inside,
            Visit::when_answered::<Reserved>("again").finalize(),
        )
        .during(
            Stage::Inside,
            Visit::when_answered::<ReservationLost>("room").transition_to(Stage::Robbed),
        )
        .during_any(Visit::when::<Leave>().finalize())
        .during_any(Visit::when::<Rest>().finalize())
}

/// A host with visitors, and one that keeps the room's lock.
async fn hosts(scene: &Scene, machine: StateMachine<Visit>) -> [RunningHost; 2] {
    let keeper = keeper(scene).await;
    let builder = scene.builder("visitors");
    let visitors = start(builder.endpoint("visits", |e| e.machine(machine))).await;
    [visitors, keeper]
}

async fn keeper(scene: &Scene) -> RunningHost {
    let builder = scene.builder_on("keeper", scene.peer());
    start(builder.endpoint("locks", |e| e.locks())).await
}

async fn stop_all(hosts: [RunningHost; 2]) {
    for host in hosts {
        stop(host).await;
    }
}

/// Waits until a visit is in a state; "" is its end.
async fn visit_is(scene: &Scene, id: u64, state: &str) -> Visit {
    let id = InstanceId {
        kind: "visit".into(),
        key: id.to_string().into(),
    };
    let look = || async {
        let found = scene.admin().instance(&id).await.unwrap()?;
        let is_over = found.status == InstanceStatus::Completed;
        let now = match is_over {
            true => "",
            false => found.state.as_deref().unwrap_or_default(),
        };
        // Beside the data stands what it holds.
        let data: serde_json::Value = serde_json::from_slice(&found.data).unwrap();
        let data = data.get("data").cloned().unwrap_or(data);
        (now == state).then(|| serde_json::from_value(data).unwrap())
    };
    eventually(&format!("{id} {state}"), look).await.0
}

async fn refused(scene: &Scene, id: u64) -> Refusal {
    let look = || async { visit_is(scene, id, "outside").await.refused };
    eventually(&format!("{id} is refused"), look).await.0
}

/// Waits until so many wait for the room; nobody has it where it is `None`.
async fn room_is(scene: &Scene, holder: Option<&str>, waiting: usize) {
    let id = InstanceId {
        kind: KIND.into(),
        key: "room/1".into(),
    };
    let look = || async {
        let found = scene.admin().instance(&id).await.unwrap()?;
        let is_free = found.status == InstanceStatus::Completed;
        let data: serde_json::Value = serde_json::from_slice(&found.data).unwrap();
        let count = data["waiting"].as_array().map_or(0, Vec::len);
        let is_it = match holder {
            None => is_free,
            Some(holder) => !is_free && data["holder"]["key"] == holder,
        };
        (is_it && count == waiting).then_some(())
    };
    eventually(&format!("room {holder:?}, {waiting} wait"), look).await;
}

async fn who_waits_gets_the_lock_in_the_order_of_asking(scene: Scene) {
    let hosts = hosts(&scene, visits(None)).await;
    let bus = hosts[0].bus();
    for id in 1..=4 {
        bus.send(Come { id }).await.unwrap();
        let ahead = usize::try_from(id).unwrap() - 1;
        room_is(&scene, Some("1"), ahead).await;
    }
    let mut fences = Vec::new();
    for id in 1..=4 {
        fences.push(visit_is(&scene, id, "inside").await.fence);
        bus.send(Leave { id }).await.unwrap();
        visit_is(&scene, id, "").await;
    }
    room_is(&scene, None, 0).await;
    assert!(fences.is_sorted_by(|a, b| a < b), "{fences:?}");
    // A later life of the lock goes on counting.
    bus.send(Come { id: 5 }).await.unwrap();
    assert!(visit_is(&scene, 5, "inside").await.fence > fences[3]);
    stop_all(hosts).await;
    let expected = [1, 2, 3, 4, 5].map(|id| format!("{id} has it"));
    assert_eq!(scene.log.lines(), expected);
    let counts = scene.counts().await;
    assert_eq!((counts.dead_letters, counts.outbox), (0, 0));
}

async fn who_does_not_wait_is_refused_and_told_by_whom(scene: Scene) {
    let hosts = hosts(&scene, visits(None)).await;
    let bus = hosts[0].bus();
    bus.send(Hurry { id: 1 }).await.unwrap();
    visit_is(&scene, 1, "inside").await;
    bus.send(Hurry { id: 2 }).await.unwrap();
    assert_eq!(refused(&scene, 2).await, Refusal::Held);
    bus.send(Leave { id: 2 }).await.unwrap();
    visit_is(&scene, 2, "").await;
    // Its end gives back nothing that it never had.
    scene.quiet().await;
    room_is(&scene, Some("1"), 0).await;
    stop_all(hosts).await;
    assert_eq!(scene.counts().await.dead_letters, 0);
}

async fn who_takes_over_has_it_and_the_other_is_told(scene: Scene) {
    let hosts = hosts(&scene, visits(None)).await;
    let bus = hosts[0].bus();
    bus.send(Come { id: 1 }).await.unwrap();
    visit_is(&scene, 1, "inside").await;
    bus.send(Come { id: 2 }).await.unwrap();
    room_is(&scene, Some("1"), 1).await;
    bus.send(Push { id: 3 }).await.unwrap();
    visit_is(&scene, 3, "inside").await;
    visit_is(&scene, 1, "robbed").await;
    // The end of the one that was robbed frees nothing.
    bus.send(Leave { id: 1 }).await.unwrap();
    visit_is(&scene, 1, "").await;
    room_is(&scene, Some("3"), 1).await;
    bus.send(Leave { id: 3 }).await.unwrap();
    visit_is(&scene, 2, "inside").await;
    stop_all(hosts).await;
    assert_eq!(scene.counts().await.dead_letters, 0);
}

async fn patience_ends_and_the_next_one_is_another(scene: Scene) {
    let impatient = StateMachine::named("visit")
        .initially(visit!(Come, room()))
        .initially(visit!(Hurry, room().wait_for(Duration::from_millis(150))));
    let machine = with_rest_of(impatient);
    let hosts = hosts(&scene, machine).await;
    let bus = hosts[0].bus();
    bus.send(Come { id: 1 }).await.unwrap();
    visit_is(&scene, 1, "inside").await;
    bus.send(Hurry { id: 2 }).await.unwrap();
    assert_eq!(refused(&scene, 2).await, Refusal::TimedOut);
    bus.send(Come { id: 3 }).await.unwrap();
    room_is(&scene, Some("1"), 1).await;
    bus.send(Leave { id: 1 }).await.unwrap();
    visit_is(&scene, 3, "inside").await;
    stop_all(hosts).await;
    assert_eq!(scene.counts().await.dead_letters, 0);
}

/// The rest of a visit, without a step twice.
fn with_rest_of(machine: StateMachine<Visit>) -> StateMachine<Visit> {
    machine
        .during(
            Stage::Outside,
            Visit::when_answered::<Reserved>("room")
                .run(enter)
                .transition_to(Stage::Inside),
        )
        .during(
            Stage::Outside,
            Visit::when_answered::<NotReserved>("room")
                .then(|visit, answer| visit.refused = Some(answer.refusal))
                .stay(),
        )
        .during(
            Stage::Inside,
            Visit::when_answered::<ReservationLost>("room").transition_to(Stage::Robbed),
        )
        .during_any(Visit::when::<Leave>().finalize())
}

async fn whoever_ends_while_it_waits_is_passed_over(scene: Scene) {
    let hosts = hosts(&scene, visits(None)).await;
    let bus = hosts[0].bus();
    for id in 1..=3 {
        bus.send(Come { id }).await.unwrap();
        let ahead = usize::try_from(id).unwrap() - 1;
        room_is(&scene, Some("1"), ahead).await;
    }
    bus.send(Leave { id: 2 }).await.unwrap();
    room_is(&scene, Some("1"), 1).await;
    bus.send(Leave { id: 1 }).await.unwrap();
    visit_is(&scene, 3, "inside").await;
    bus.send(Leave { id: 3 }).await.unwrap();
    room_is(&scene, None, 0).await;
    // The timers of those who waited are gone, too.
    scene.quiet().await;
    stop_all(hosts).await;
    let expected = [1, 3].map(|id| format!("{id} has it"));
    assert_eq!(scene.log.lines(), expected);
}

async fn an_operator_breaks_a_lock_and_the_next_one_has_it(scene: Scene) {
    let hosts = hosts(&scene, visits(None)).await;
    let bus = hosts[0].bus();
    for id in 1..=2 {
        bus.send(Come { id }).await.unwrap();
        let ahead = usize::try_from(id).unwrap() - 1;
        room_is(&scene, Some("1"), ahead).await;
    }
    let resource = "room/1".to_owned();
    bus.send(BreakLock { resource }).await.unwrap();
    visit_is(&scene, 1, "robbed").await;
    visit_is(&scene, 2, "inside").await;
    // A lock that nobody has is broken in vain.
    let resource = "room/2".to_owned();
    bus.send(BreakLock { resource }).await.unwrap();
    scene.quiet().await;
    stop_all(hosts).await;
    assert_eq!(scene.counts().await.dead_letters, 0);
}

async fn an_instance_does_not_wait_for_itself(scene: Scene) {
    let hosts = hosts(&scene, visits(None)).await;
    let bus = hosts[0].bus();
    bus.send(Come { id: 1 }).await.unwrap();
    visit_is(&scene, 1, "inside").await;
    bus.send(Twice { id: 1 }).await.unwrap();
    let look = || async { visit_is(&scene, 1, "inside").await.refused };
    let refusal = eventually("the answer", look).await.0;
    assert_eq!(refusal, Refusal::HeldByItself);
    bus.send(Leave { id: 1 }).await.unwrap();
    room_is(&scene, None, 0).await;
    stop_all(hosts).await;
}

/// A saga as a struct, which gives the lock back and lives on.
#[derive(Debug, Serialize, Deserialize)]
struct Guest {
    id: u64,
    has_it: bool,
}

impl Saga for Guest {
    type Key = u64;
    type State = ();
}

impl NamedSaga for Guest {
    const NAME: &'static str = "guest";
}

macro_rules! correlate_guest {
    ($($message:ident)*) => {
        $(impl Correlate<Guest> for $message {
            fn key(&self) -> u64 {
                self.id
            }
        })*
    };
}

correlate_guest! { Come Leave }

impl Starts<Come> for Guest {
    fn start(message: &Come) -> Self {
        Self {
            id: message.id,
            has_it: false,
        }
    }
}

impl Handles<Come> for Guest {
    async fn handle(&mut self, _: Come, cx: &mut SagaCtx) -> Result {
        cx.reserve("room", room());
        Ok(())
    }
}

impl Handles<Reserved> for Guest {
    async fn handle(&mut self, _: Reserved, cx: &mut SagaCtx) -> Result {
        self.has_it = true;
        cx.state::<Log>()?.add(format!("{} has it", self.id));
        Ok(())
    }
}

impl Handles<NotReserved> for Guest {
    async fn handle(&mut self, _: NotReserved, cx: &mut SagaCtx) -> Result {
        cx.complete();
        Ok(())
    }
}

impl Handles<RequestFailed> for Guest {
    async fn handle(&mut self, _: RequestFailed, cx: &mut SagaCtx) -> Result {
        cx.complete();
        Ok(())
    }
}

/// The first time gives back, the second ends.
impl Handles<Leave> for Guest {
    async fn handle(&mut self, _: Leave, cx: &mut SagaCtx) -> Result {
        if self.has_it {
            self.has_it = false;
            cx.release("room");
        } else {
            cx.complete();
        }
        Ok(())
    }
}

async fn a_saga_reserves_and_gives_back_before_its_end(scene: Scene) {
    let guests = saga::<Guest>()
        .starts_with::<Come>()
        .on::<Leave>()
        .on_answer::<Reserved>()
        .on_answer::<NotReserved>()
        .on_request_failed();
    let keeper = keeper(&scene).await;
    let builder = scene.builder("guests");
    let host = start(builder.endpoint("guests", |e| e.saga(guests))).await;
    let bus = host.bus();
    for id in 1..=2 {
        bus.send(Come { id }).await.unwrap();
        let ahead = usize::try_from(id).unwrap() - 1;
        room_is(&scene, Some("1"), ahead).await;
    }
    scene.log.wait_for(1).await;
    bus.send(Leave { id: 1 }).await.unwrap();
    assert_eq!(scene.log.wait_for(2).await, ["1 has it", "2 has it"]);
    room_is(&scene, Some("2"), 0).await;
    assert_eq!(scene.counts().await.running, 3, "both guests, and the lock");
    for id in [2, 2, 1] {
        bus.send(Leave { id }).await.unwrap();
    }
    room_is(&scene, None, 0).await;
    stop_all([host, keeper]).await;
    assert_eq!(scene.counts().await.dead_letters, 0);
}

/// Visits of 5 ms each, from two hosts that are let go of again and again.
async fn one_at_a_time_over_hosts_that_come_and_go(scene: Scene) {
    const VISITS: u64 = 20;
    let rest = Duration::from_millis(5);
    let both = |name: &str, store| {
        let builder = scene.builder_on(name, store);
        let builder = builder.endpoint("locks", |e| e.locks());
        start(builder.endpoint("visits", |e| e.machine(visits(Some(rest)))))
    };
    let mut first = both("first", scene.store()).await;
    let second = both("second", scene.peer()).await;
    for id in 0..VISITS {
        let host = if id % 2 == 0 { &first } else { &second };
        host.bus().send(Come { id }).await.unwrap();
        if id % 5 == 4 {
            // Let go at once: what it had in hand comes again, here or there.
            first.stop(Duration::ZERO).await;
            first = both("first", scene.store()).await;
        }
    }
    let over = || async {
        let counts = scene.counts().await;
        (counts.running == 0 && counts.outbox == 0).then_some(())
    };
    eventually("the end of all visits", over).await;
    stop_all([first, second]).await;
    assert_eq!(scene.counts().await.dead_letters, 0);
    one_held_it_at_a_time(&scene, VISITS).await;
}

/// Reads in the lock's history that it was given once for each visit, and never while it was held.
async fn one_held_it_at_a_time(scene: &Scene, visits: u64) {
    let id = InstanceId {
        kind: KIND.into(),
        key: "room/1".into(),
    };
    let page = sagabus_core::admin::Page::oldest(500);
    let of = sagabus_core::admin::HistoryOf::Instance(id.clone());
    let history = scene.admin().history(&of, page).await.unwrap();
    let mut given = 0;
    let mut is_held = false;
    for entry in &history {
        let entry = &entry.entry;
        let gives = entry
            .detail
            .sent
            .iter()
            .filter(|(_, message_type)| message_type == Reserved::TYPE)
            .count();
        let frees = entry.message_type == "sagabus.lock.release";
        assert!(gives <= 1, "{entry:?}");
        assert!(!is_held || frees || gives == 0, "given twice: {entry:?}");
        is_held = gives == 1 || (is_held && !frees);
        given += u64::try_from(gives).unwrap();
    }
    assert_eq!(given, visits, "{history:#?}");
    let filter = InstanceFilter {
        kind: Some(KIND.to_owned()),
        ..InstanceFilter::default()
    };
    let locks = scene.admin().instances(&filter, 10).await.unwrap();
    assert_eq!(locks.len(), 1, "one lock, which is over");
    let lock = scene.admin().instance(&id).await.unwrap().unwrap();
    assert_eq!(lock.status, InstanceStatus::Completed);
    let _: Lock = serde_json::from_slice(&lock.data).unwrap();
}

async fn a_lock_that_nobody_keeps_is_asked_for_when_somebody_does(scene: Scene) {
    let builder = scene.builder("visitors");
    let host = start(builder.endpoint("visits", |e| e.machine(visits(None)))).await;
    host.bus().send(Come { id: 1 }).await.unwrap();
    host.bus().send(Come { id: 2 }).await.unwrap();
    host.bus().send(Leave { id: 2 }).await.unwrap();
    visit_is(&scene, 2, "").await;
    let parked = || async { (scene.counts().await.parked == 3).then_some(()) };
    eventually("what nobody takes", parked).await;
    let keeper = keeper(&scene).await;
    visit_is(&scene, 1, "inside").await;
    scene.quiet().await;
    room_is(&scene, Some("1"), 0).await;
    stop_all([host, keeper]).await;
}

#[test]
fn a_reservation_without_its_branches_is_refused() {
    let machine = StateMachine::named("visit")
        .initially(visit!(Come, room()))
        .during_any(Visit::when::<Leave>().finalize());
    let faults = machine.check().join("; ");
    for wanted in ["when_answered::<Reserved>", "when_answered::<NotReserved>"] {
        assert!(faults.contains(wanted), "{faults}");
    }
    let odd = StateMachine::named("visit").initially(
        Visit::when::<Come>()
            .init(|message| Visit {
                id: message.id,
                refused: None,
                fence: 0,
            })
            .reserve("a:b", |_, _| room())
            .finalize(),
    );
    let faults = odd.check().join("; ");
    assert!(faults.contains("without `:`"), "{faults}");
    assert_eq!(visits(None).check(), [""; 0]);
}

/// Answers as the keeper does, but in the order in which messages may come.
async fn keeps_in_disorder(asked: Reserve) -> (ReservationLost, Reserved) {
    let resource = asked.resource().to_owned();
    let lost = ReservationLost {
        resource: resource.clone(),
        taker: None,
    };
    (lost, Reserved { resource, fence: 1 })
}

/// Handled as it came, the instance would believe for ever to have the lock.
async fn the_loss_of_a_lock_waits_for_the_lock(scene: Scene) {
    let builder = scene.builder("host");
    let builder = builder.endpoint("locks", |e| e.handle(keeps_in_disorder));
    let host = start(builder.endpoint("visits", |e| e.machine(visits(None)))).await;
    host.bus().send(Come { id: 1 }).await.unwrap();
    visit_is(&scene, 1, "robbed").await;
    stop(host).await;
    assert_eq!(scene.log.lines(), ["1 has it"]);
    assert_eq!(scene.counts().await.dead_letters, 0);
}
