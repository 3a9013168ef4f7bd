//! What sagas and machines say to those who ask them: at once, and at the end.

use std::time::Duration;

use sagabus_core::store::Instance;
use sagabus_core::unit_of_work::InstanceStatus;
use sagabus_core::{EndpointBuilder, InstanceId, Message, Result, RunningHost, State};
use sagabus_saga::{
    Handles, MachineEndpoint, NamedSaga, Saga, SagaCtx, SagaEndpoint, SagaState, Starts,
    StateMachine, saga,
};
use sagabus_testkit::bus::{Log, Scene, start, stop};
use sagabus_testkit::wait::{eventually, grow_older};
use serde::{Deserialize, Serialize};

on_every_store! {
    a_saga_answers_its_questions_and_at_its_end_who_began_it,
    a_machine_answers_its_questions_and_at_its_end_who_began_it,
}

messages! { Case:
    Command Open "cases.open",
    Command Look "cases.look",
    Command Calm "cases.calm",
    Command Close "cases.close",
    Event Alarm "cases.alarm",
    Event Echo "cases.echo",
}

/// An answer.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Said(String);

impl Message for Said {
    const TYPE: &'static str = "cases.said";
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Stage {
    Opened,
}

impl SagaState for Stage {
    const ALL: &'static [Self] = &[Self::Opened];

    fn name(self) -> &'static str {
        "opened"
    }
}

#[derive(Debug, Serialize, Deserialize)]
struct Case {
    looks: u32,
}

impl Saga for Case {
    type Key = u64;
    type State = Stage;
}

/// When the alarm goes off, unless somebody calms it.
const ALARM: Duration = Duration::from_millis(400);

fn cases() -> StateMachine<Case> {
    StateMachine::named("case")
        .initially(
            Case::when::<Open>()
                .init(|_| Case { looks: 0 })
                .schedule("alarm", ALARM, |_, m| Alarm { id: m.id })
                .transition_to(Stage::Opened),
        )
        .during(
            Stage::Opened,
            Case::when::<Look>()
                .then(|case, _| case.looks += 1)
                .reply(|case, _| Said(format!("{} looks", case.looks)))
                .stay(),
        )
        .during(
            Stage::Opened,
            Case::when::<Calm>().unschedule("alarm").stay(),
        )
        .during(Stage::Opened, Case::when::<Alarm>().run(ring).stay())
        .during(
            Stage::Opened,
            Case::when::<Close>()
                .publish(|_, m| Echo { id: m.id })
                .respond(|case, _| Said(format!("closed after {} looks", case.looks)))
                .finalize(),
        )
}

async fn ring(case: Case, _: Alarm, log: State<Log>) -> Result<Case> {
    log.add("the alarm goes off");
    Ok(case)
}

/// The same, as a struct with a method per message.
#[derive(Debug, Serialize, Deserialize)]
struct Matter {
    looks: u32,
}

impl Saga for Matter {
    type Key = u64;
    type State = ();
}

impl NamedSaga for Matter {
    const NAME: &'static str = "case";
}

macro_rules! correlate_matter {
    ($($message:ident)*) => {
        $(impl sagabus_saga::Correlate<Matter> for $message {
            fn key(&self) -> u64 {
                self.id
            }
        })*
    };
}

correlate_matter! { Open Look Calm Close Alarm }

impl Starts<Open> for Matter {
    fn start(_: &Open) -> Self {
        Self { looks: 0 }
    }
}

impl Handles<Open> for Matter {
    async fn handle(&mut self, message: Open, cx: &mut SagaCtx) -> Result {
        cx.timeout("alarm", ALARM, Alarm { id: message.id })
    }
}

impl Handles<Look> for Matter {
    async fn handle(&mut self, _: Look, cx: &mut SagaCtx) -> Result {
        self.looks += 1;
        cx.reply(Said(format!("{} looks", self.looks))).map(drop)
    }
}

impl Handles<Calm> for Matter {
    async fn handle(&mut self, _: Calm, cx: &mut SagaCtx) -> Result {
        cx.cancel("alarm");
        Ok(())
    }
}

impl Handles<Alarm> for Matter {
    async fn handle(&mut self, _: Alarm, cx: &mut SagaCtx) -> Result {
        cx.state::<Log>()?.add("the alarm goes off");
        Ok(())
    }
}

impl Handles<Close> for Matter {
    async fn handle(&mut self, message: Close, cx: &mut SagaCtx) -> Result {
        // It is no timer of the saga's: it comes although the saga is over by then.
        cx.schedule(Duration::from_millis(50), Echo { id: message.id })?;
        cx.respond(Said(format!("closed after {} looks", self.looks)))?;
        cx.complete();
        Ok(())
    }
}

async fn note(echo: Echo, log: State<Log>) {
    log.add(format!("echo of {}", echo.id));
}

async fn a_machine_answers_its_questions_and_at_its_end_who_began_it(scene: Scene) {
    answers(scene, |e| e.machine(cases())).await;
}

async fn a_saga_answers_its_questions_and_at_its_end_who_began_it(scene: Scene) {
    let matters = saga::<Matter>()
        .starts_with::<Open>()
        .on::<Look>()
        .on::<Calm>()
        .on::<Alarm>()
        .on::<Close>()
        .uses::<State<Log>>();
    answers(scene, |e| e.saga(matters)).await;
}

async fn at_version(scene: &Scene, version: i64) -> Instance {
    let id = InstanceId {
        kind: "case".into(),
        key: "1".into(),
    };
    let look = || async {
        let found = scene.admin().instance(&id).await.unwrap();
        found.filter(|one| one.version == version)
    };
    eventually(&format!("version {version}"), look).await.0
}

/// Asks by hand what is answered at the end, and asks in between.
async fn answers(scene: Scene, equip: impl FnOnce(EndpointBuilder) -> EndpointBuilder) {
    const PATIENCE: Duration = Duration::from_secs(30);
    let builder = scene.builder("office").endpoint("cases", equip);
    let builder = builder.endpoint("notes", |e| e.handle(note));
    let host = start(builder.endpoint("clerks", |e| e.answers::<Said>())).await;
    let bus = host.bus();
    let whole = bus.request::<Said>(Open { id: 1 }).within(PATIENCE);
    let ((), end) = tokio::join!(in_between(&scene, &host, PATIENCE), whole);
    assert_eq!(end.unwrap(), Said("closed after 2 looks".to_owned()));
    assert_eq!(scene.log.wait_for(1).await, ["echo of 1"]);
    scene.quiet().await;
    stop(host).await;
    let over = at_version(&scene, 5).await;
    assert_eq!(over.status, InstanceStatus::Completed);
    assert_eq!(scene.log.lines().len(), 1, "nobody heard the alarm");
    assert_eq!(scene.counts().await.dead_letters, 0);
}

async fn in_between(scene: &Scene, host: &RunningHost, patience: Duration) {
    let bus = host.bus();
    assert_eq!(at_version(scene, 1).await.timers.len(), 1);
    bus.send(Calm { id: 1 }).await.unwrap();
    assert!(at_version(scene, 2).await.timers.is_empty());
    for looks in 1..=2 {
        let asked = bus.request::<Said>(Look { id: 1 }).within(patience);
        assert_eq!(asked.await.unwrap(), Said(format!("{looks} looks")));
    }
    grow_older(ALARM * 2).await;
    bus.send(Close { id: 1 }).await.unwrap();
}
