//! Where everything fails alike, an endpoint waits for better times; where some messages fail, it
//! goes on.
#![expect(missing_docs, reason = "a behaviour says by its name what it shows")]

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use sagabus_core::admin::{Action, Change};
use sagabus_core::memory::MemoryTransport;
use sagabus_core::{
    Breaker, BusError, Ctx, EndpointBuilder, Flow, HandlerError, HostBuilder, Result, RunningHost,
    State,
};

use tokio::time::Instant;

use super::scene::{Do, Log, Scene, quick_retry, start, stop};
use crate::wait::{eventually, grow_older};

/// What every handler needs, up or down.
#[derive(Debug)]
struct Gateway(AtomicBool);

impl Gateway {
    fn answer(&self) -> Result {
        match self.0.load(Ordering::SeqCst) {
            true => Ok(()),
            false => Err(HandlerError::new("gateway is away")),
        }
    }

    fn set(&self, is_up: bool) {
        self.0.store(is_up, Ordering::SeqCst);
    }
}

async fn call(command: Do, gateway: State<Gateway>, log: State<Log>) -> Result {
    gateway.answer()?;
    log.add(format!("do {}", command.n));
    Ok(())
}

/// Fails for every tenth message, whatever the gateway says.
async fn call_with_luck(command: Do, gateway: State<Gateway>, log: State<Log>) -> Result {
    gateway.answer()?;
    if command.n.is_multiple_of(10) {
        return Err(HandlerError::new(format!("no luck with {}", command.n)));
    }
    log.add(format!("do {}", command.n));
    Ok(())
}

/// Pauses after five, and looks often.
fn breaker() -> Breaker {
    Breaker {
        messages: 5,
        probe_delay: Duration::from_millis(10),
        probe_delay_max: Duration::from_millis(30),
    }
}

fn quick(endpoint: EndpointBuilder) -> EndpointBuilder {
    endpoint
        .retry(quick_retry())
        .breaker(breaker())
        .capacity(64)
}

async fn started(builder: HostBuilder, is_up: bool) -> (RunningHost, Arc<Gateway>) {
    let builder = builder.state(Gateway(AtomicBool::new(is_up)));
    let host = builder.build().expect("the host is put together well");
    let gateway = host.state().expect("it was given");
    (host.start().await.expect("the host starts"), gateway)
}

async fn send_all(host: &RunningHost, n: u32) {
    for n in 1..=n {
        host.bus().send(Do { n }).await.expect("it is stored");
    }
}

/// Waits until an endpoint that is paused has tried so often that whatever counts attempts would
/// have used them up.
async fn wait_for_probes(host: &RunningHost) {
    let look = || async {
        match &host.endpoints()[0].flow {
            Flow::Probing { probes, error, .. } if *probes >= 25 => Some(error.clone()),
            _ => None,
        }
    };
    let (error, _) = eventually("pause with probes", look).await;
    assert_eq!(error, "gateway is away");
}

pub async fn an_outage_of_what_handlers_need_makes_no_dead_letter(scene: Scene) {
    let builder = scene.builder("host");
    let builder = builder.endpoint("work", |e| quick(e.handle(call)));
    let (host, gateway) = started(builder, false).await;
    send_all(&host, 40).await;
    wait_for_probes(&host).await;
    assert_eq!(scene.counts().await.dead_letters, 0);
    gateway.set(true);
    let mut lines = scene.log.wait_for(40).await;
    scene.quiet().await;
    assert_eq!(host.endpoints()[0].flow, Flow::Open);
    assert_eq!(host.counters().paused.get(), 1);
    stop(host).await;
    lines.sort();
    lines.dedup();
    assert_eq!((lines.len(), scene.log.lines().len()), (40, 40));
    assert_eq!(scene.counts().await.dead_letters, 0);
}

pub async fn an_outage_drains_no_broker_into_the_database(scene: Scene) {
    let builder = scene.builder("host").transport(MemoryTransport::new());
    let builder = builder.endpoint("work", |e| quick(e.handle(call)));
    let (host, gateway) = started(builder, false).await;
    send_all(&host, 400).await;
    wait_for_probes(&host).await;
    // Those by whose failures the outage was noticed, and no more.
    let look = || async {
        let counts = scene.counts().await;
        (counts.outbox <= 10).then_some(counts)
    };
    let (counts, _) = eventually("messages left with the broker", look).await;
    assert_eq!((counts.dead_letters, counts.parked), (0, 0));
    let health = host.endpoints().remove(0);
    assert!(health.in_hand <= health.capacity, "{health:?}");
    gateway.set(true);
    scene.log.wait_for(400).await;
    scene.quiet().await;
    stop(host).await;
    assert_eq!(scene.log.lines().len(), 400);
    assert_eq!(scene.counts().await.dead_letters, 0);
}

pub async fn bad_messages_among_good_ones_pause_nothing(scene: Scene) {
    let builder = scene.builder("host");
    let builder = builder.endpoint("work", |e| quick(e.handle(call_with_luck)));
    let (host, _gateway) = started(builder, true).await;
    send_all(&host, 300).await;
    assert_eq!(scene.dead_letters(30).await.len(), 30);
    scene.quiet().await;
    assert_eq!(host.counters().paused.get(), 0);
    stop(host).await;
    assert_eq!(scene.log.lines().len(), 270);
}

pub async fn messages_that_are_bad_for_good_pause_nothing(scene: Scene) {
    async fn refuse(_: Do) -> Result {
        Err(HandlerError::new("the card is stolen").terminal())
    }
    let host = scene.host("work", |e| quick(e.handle(refuse))).await;
    send_all(&host, 20).await;
    assert_eq!(scene.dead_letters(20).await.len(), 20);
    assert_eq!(host.counters().paused.get(), 0);
    stop(host).await;
}

/// A success that ends a pause shows who is to blame.
pub async fn bad_messages_that_waited_out_a_pause_are_dead_letters(scene: Scene) {
    let builder = scene.builder("host");
    let builder = builder.endpoint("work", |e| quick(e.handle(call_with_luck)));
    let (host, gateway) = started(builder, false).await;
    send_all(&host, 60).await;
    wait_for_probes(&host).await;
    gateway.set(true);
    scene.log.wait_for(54).await;
    assert_eq!(scene.dead_letters(6).await.len(), 6);
    scene.quiet().await;
    assert_eq!(host.endpoints()[0].flow, Flow::Open);
    stop(host).await;
    assert_eq!(scene.log.lines().len(), 54);
}

pub async fn what_waits_at_a_paused_endpoint_is_given_back(scene: Scene) {
    let builder = scene.builder("paused");
    let builder = builder.endpoint("work", |e| quick(e.handle(call)));
    let (host, _gateway) = started(builder, false).await;
    send_all(&host, 40).await;
    wait_for_probes(&host).await;
    stop(host).await;
    assert_eq!(scene.log.lines(), [""; 0]);
    assert_eq!(scene.counts().await.outbox, 40);

    let builder = scene.builder_on("heir", scene.peer());
    let up = builder.state(Gateway(AtomicBool::new(true)));
    let heir = start(up.endpoint("work", |e| quick(e.handle(call)))).await;
    scene.log.wait_for(40).await;
    scene.quiet().await;
    stop(heir).await;
    assert_eq!(scene.log.lines().len(), 40);
    assert_eq!(scene.counts().await.dead_letters, 0);
}

/// What is written down for later is bounded: beyond it the broker keeps its messages.
pub async fn a_database_that_took_over_too_much_leaves_messages_with_the_broker(scene: Scene) {
    async fn busy(command: Do, gateway: State<Gateway>, log: State<Log>) -> Result {
        let pause = Duration::from_millis(50);
        let answer = gateway.answer();
        answer.map_err(|_| HandlerError::retry_after(pause, "come again"))?;
        log.add(format!("do {}", command.n));
        Ok(())
    }
    let builder = scene.builder("host").transport(MemoryTransport::new());
    let builder = builder.endpoint("work", |e| {
        quick(e.handle(busy))
            .capacity(8)
            .breaker(Breaker::never())
            .taken_over_max(30)
    });
    let (host, gateway) = started(builder, false).await;
    send_all(&host, 300).await;
    let look = || async {
        let health = host.endpoints().remove(0);
        let postponed = host.counters().postponed.get();
        // Its own rows go on: they are tried again and again.
        (matches!(health.flow, Flow::Full { .. }) && postponed > 100).then_some(())
    };
    eventually("an endpoint that is full", look).await;
    // Those that were in hand when the bound was reached come on top; and for a moment those that
    // were sent and whose rows are not settled yet.
    let look = || async { (scene.counts().await.outbox <= 30 + 8).then_some(()) };
    eventually("an outbox that has not grown past its bound", look).await;
    gateway.set(true);
    scene.log.wait_for(300).await;
    scene.quiet().await;
    let look = || async { (host.endpoints()[0].flow == Flow::Open).then_some(()) };
    eventually("an endpoint with room", look).await;
    stop(host).await;
    assert_eq!(scene.log.lines().len(), 300);
    assert_eq!(scene.counts().await.dead_letters, 0);
}

pub async fn an_api_is_refused_while_its_outbox_is_too_old(scene: Scene) {
    let age = Duration::from_millis(300);
    let api = start(scene.builder("api").overloaded_after(age)).await;
    let owner = scene.builder_on("owner", scene.peer());
    let owner = start(owner.endpoint("work", |e| e.handle(note))).await;
    stop(owner).await;
    let bus = api.bus();
    bus.send(Do { n: 1 }).await.expect("the outbox is empty");
    let look = || async { bus.send(Do { n: 2 }).await.err() };
    let (error, _) = eventually("a refusal", look).await;
    let BusError::Overloaded {
        destination,
        age: is,
        limit,
    } = &error
    else {
        panic!("{error:?}")
    };
    assert_eq!((destination.as_str(), *limit), ("@work", age));
    assert!(*is > age, "{is:?}");
    assert!(error.to_string().contains("try again later"), "{error}");
    // Whoever comes and takes them makes it young again.
    let owner = scene.builder_on("owner", scene.peer());
    let owner = start(owner.endpoint("work", |e| e.handle(note))).await;
    let look = || async { bus.send(Do { n: 3 }).await.ok() };
    eventually("a bus that takes messages", look).await;
    scene.quiet().await;
    stop(owner).await;
    stop(api).await;
}

async fn note(command: Do, log: State<Log>) {
    log.add(format!("do {}", command.n));
}

/// Also where every other try fails and is made again at once.
pub async fn handlers_run_no_more_often_than_their_rate(scene: Scene) {
    type Times = Mutex<Vec<Instant>>;
    async fn tick(_: Do, cx: Ctx, times: State<Times>) -> Result {
        times.lock().expect("nobody panics").push(Instant::now());
        match cx.attempt() {
            1 => Err(HandlerError::new("once more")),
            _ => Ok(()),
        }
    }
    let builder = scene.builder("host").state(Times::default());
    let builder = builder.endpoint("work", |e| {
        quick(e.handle(tick))
            .breaker(Breaker::never())
            .rate(50, Duration::from_secs(1))
    });
    let host = builder.build().expect("the host is put together well");
    let times: Arc<Times> = host.state().expect("it was given");
    let host = host.start().await.expect("the host starts");
    let began = Instant::now();
    send_all(&host, 15).await;
    let look = || async {
        let times = times.lock().expect("nobody panics");
        (times.len() == 30).then(|| times.clone())
    };
    let (times, _) = eventually("all tries", look).await;
    scene.quiet().await;
    stop(host).await;
    // Thirty moments that are 20 ms apart.
    let took = times.into_iter().max().map(|last| last - began);
    assert!(took >= Some(Duration::from_millis(29 * 20)), "{took:?}");
}

/// Operators pause an endpoint in every host, also in one that starts, and nothing is lost by it.
async fn count(command: Do, log: State<Log>) {
    log.add(command.n.to_string());
}

/// Changes something as an operator does; returns how much was changed.
pub(super) async fn operate(scene: &Scene, action: Action) -> usize {
    let change = Change {
        who: "ada".to_owned(),
        why: "an incident".to_owned(),
        action,
    };
    let changed = scene.admin().change(&change).await;
    changed.expect("it can be changed").len()
}

fn pause() -> Action {
    Action::PauseEndpoint {
        endpoint: "work".to_owned(),
    }
}

fn resume() -> Action {
    Action::ResumeEndpoint {
        endpoint: "work".to_owned(),
    }
}

/// Starts a host that has handled one message and is paused then.
async fn paused(scene: &Scene) -> RunningHost {
    let builder = scene.builder("one").endpoint("work", |e| e.handle(count));
    let host = start(builder).await;
    host.bus().send(Do { n: 0 }).await.expect("it is stored");
    scene.log.wait_for(1).await;
    assert_eq!(operate(scene, pause()).await, 1);
    let is_held = || async { (host.endpoints()[0].flow == Flow::Paused).then_some(()) };
    eventually("a paused endpoint", is_held).await;
    host
}

pub async fn what_an_operator_paused_waits_until_it_goes_on(scene: Scene) {
    assert_eq!(operate(&scene, pause()).await, 0, "nobody knows it yet");
    let host = paused(&scene).await;
    assert_eq!(operate(&scene, pause()).await, 0, "it is paused");
    for n in 1..=3 {
        host.bus().send(Do { n }).await.expect("it is stored");
    }
    grow_older(Duration::from_millis(1500)).await;
    assert_eq!(scene.log.lines(), ["0"]);
    assert_eq!(operate(&scene, resume()).await, 1);
    scene.log.wait_for(4).await;
    scene.quiet().await;
    stop(host).await;
    let mut lines = scene.log.lines();
    lines.sort();
    assert_eq!(lines, ["0", "1", "2", "3"]);
    assert_eq!(scene.counts().await.dead_letters, 0);
}

pub async fn a_process_that_starts_into_a_pause_does_not_break_it(scene: Scene) {
    let first = paused(&scene).await;
    let builder = scene.builder("two").endpoint("work", |e| e.handle(count));
    let second = start(builder).await;
    assert_eq!(second.endpoints()[0].flow, Flow::Paused);
    for n in 1..=3 {
        first.bus().send(Do { n }).await.expect("it is stored");
    }
    grow_older(Duration::from_millis(1500)).await;
    assert_eq!(scene.log.lines(), ["0"]);
    stop(second).await;
    assert_eq!(operate(&scene, resume()).await, 1);
    scene.log.wait_for(4).await;
    scene.quiet().await;
    stop(first).await;
    let mut lines = scene.log.lines();
    lines.sort();
    // Where a commit was not to be had, the handler runs again.
    lines.dedup();
    assert_eq!(lines, ["0", "1", "2", "3"]);
}
