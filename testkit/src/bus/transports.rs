//! Several brokers in one host: each message goes by its own, and none waits for another's.
#![expect(missing_docs, reason = "a behaviour says by its name what it shows")]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use sagabus_core::admin::{Action, Page, RowFilter};
use sagabus_core::error::{HandlerError, TransportError, chain};
use sagabus_core::memory::MemoryTransport;
use sagabus_core::store::EndpointSpec;
use sagabus_core::transport::{Health, Publication, Transport};
use sagabus_core::{Ctx, HostBuilder, Retry, State, StoreId};
use tokio::time::Instant;

use crate::transport::{Alteration, Altered};
use crate::wait::{eventually, grow_older};

use super::pausing::operate;
use super::scene::{Answered, Do, Done, Log, Scene, quick_retry, start, stop};

/// A broker that takes nothing while it is down.
#[derive(Clone, Debug)]
struct Shaky {
    broker: MemoryTransport,
    is_down: Arc<AtomicBool>,
    /// What a host declares is refused.
    refuses: Arc<AtomicBool>,
}

impl Shaky {
    fn new() -> Self {
        Self {
            broker: MemoryTransport::new(),
            is_down: Arc::default(),
            refuses: Arc::default(),
        }
    }

    fn set_down(&self, is_down: bool) {
        self.is_down.store(is_down, Ordering::SeqCst);
    }
}

impl Alteration for Shaky {
    fn transport(&self) -> &dyn Transport {
        &self.broker
    }

    fn declare<'a>(
        &'a self,
        store: StoreId,
        endpoints: &'a [EndpointSpec],
    ) -> BoxFuture<'a, Result<(), TransportError>> {
        if self.refuses.load(Ordering::SeqCst) {
            let refusal = TransportError::Setup("no permission to `work`; allow it".to_owned());
            return std::future::ready(Err(refusal)).boxed();
        }
        if self.is_down.load(Ordering::SeqCst) {
            let away = TransportError::Unavailable("the broker is down".into());
            return std::future::ready(Err(away)).boxed();
        }
        self.broker.declare(store, endpoints)
    }

    fn publish<'a>(
        &'a self,
        window: &'a [Publication],
    ) -> BoxFuture<'a, Vec<Result<(), TransportError>>> {
        if !self.is_down.load(Ordering::SeqCst) {
            return self.broker.publish(window);
        }
        let away = |_| Err(TransportError::Unavailable("the broker is down".into()));
        std::future::ready(window.iter().map(away).collect()).boxed()
    }
}

async fn note(command: Do, log: State<Log>) {
    log.add(format!("do {}", command.n));
}

async fn note_done(event: Done, log: State<Log>) {
    log.add(format!("done {}", event.n));
}

async fn answer(command: Do, log: State<Log>) -> Answered {
    log.add(format!("do {}", command.n));
    Answered { n: command.n }
}

async fn ask(event: Done, cx: Ctx) -> Result<(), HandlerError> {
    cx.send(Do { n: event.n })?;
    Ok(())
}

async fn note_answer(answer: Answered, log: State<Log>) {
    log.add(format!("answered {}", answer.n));
}

/// Commands by the default broker, events by the one called `archive`.
fn two(builder: HostBuilder, default: &Shaky, archive: &Shaky) -> HostBuilder {
    builder
        .transport(Altered(default.clone()))
        .transport_named("archive", Altered(archive.clone()))
        .route::<Done>("archive")
        .endpoint("work", |e| e.handle(note))
        .endpoint("audit", |e| e.reads_from("archive").handle(note_done))
}

/// Counts what was sent by a broker for an endpoint and not yet taken.
fn waiting(shaky: &Shaky, endpoint: &str) -> usize {
    let name = sagabus_core::EndpointName::new(endpoint).expect("it is a name");
    shaky.broker.depth(&name).0
}

pub async fn each_type_goes_by_its_transport(scene: Scene) {
    let (default, archive) = (Shaky::new(), Shaky::new());
    let host = start(two(scene.builder("host"), &default, &archive)).await;
    for n in 0..20 {
        host.bus().send(Do { n }).await.expect("it is stored");
        host.bus().publish(Done { n }).await.expect("it is stored");
    }
    scene.log.wait_for(40).await;
    scene.quiet().await;
    stop(host).await;
    for n in 0..20 {
        assert_eq!(scene.log.count(&format!("do {n}")), 1);
        assert_eq!(scene.log.count(&format!("done {n}")), 1);
    }
}

/// More rows than a relay holds wait for the one that is down, and the other's are not even late.
pub async fn a_broker_that_is_down_delays_no_other(scene: Scene) {
    let (default, archive) = (Shaky::new(), Shaky::new());
    let host = start(two(scene.builder("host"), &default, &archive)).await;
    let bus = host.bus();
    default.set_down(true);
    let burst =
        (0..1500).map(|n| sagabus_core::Outgoing::new(&Do { n }).expect("it can be encoded"));
    bus.send_all(burst.collect()).await.expect("it is stored");
    for n in 0..50 {
        bus.publish(Done { n }).await.expect("it is stored");
    }
    let lines = scene.log.wait_for(50).await;
    assert!(lines.iter().all(|line| line.starts_with("done ")));
    // Nor does it fall behind while the first outage goes on.
    tokio::time::sleep(Duration::from_secs(2)).await;
    bus.publish(Done { n: 50 }).await.expect("it is stored");
    scene.log.wait_for(51).await;
    // A handler may be quicker than the settle of the row that brought its message.
    let only_the_burst = || async { (scene.counts().await.outbox == 1500).then_some(()) };
    eventually("row of the burst alone", only_the_burst).await;

    default.set_down(false);
    scene.log.wait_for(1551).await;
    scene.quiet().await;
    stop(host).await;
    assert_eq!(scene.log.lines().len(), 1551, "nothing came twice");
}

/// What is sent from memory leaves nothing to be looked for: only now and then is it looked all the
/// same.
pub async fn what_was_sent_from_memory_is_not_looked_for(scene: Scene) {
    const SENT: u32 = 300;
    let (default, archive) = (Shaky::new(), Shaky::new());
    let host = start(two(scene.builder("host"), &default, &archive)).await;
    let claims = || host.counters().claims.get();
    let (before, began) = (claims(), Instant::now());
    for n in 1..=SENT {
        let bus = host.bus();
        bus.publish(Done { n }).await.expect("it is stored");
        scene.log.wait_for(n as usize).await;
    }
    // Two relays and one claimer, every 200 ms; twice as many for what comes in between.
    let polls = 2 * 3 * (began.elapsed().as_millis() / 200 + 1);
    let claimed = claims() - before;
    assert!(
        u128::from(claimed) <= polls,
        "{claimed} claims, {polls} polls"
    );
    stop(host).await;
}

/// A start is no reason to wait for a broker: what it carries waits, and the other's goes on.
pub async fn a_broker_that_is_away_at_the_start_is_joined_when_it_comes(scene: Scene) {
    let (default, archive) = (Shaky::new(), Shaky::new());
    archive.set_down(true);
    let host = start(two(scene.builder("host"), &default, &archive)).await;
    let bus = host.bus();
    for n in 0..20 {
        bus.publish(Done { n }).await.expect("it is stored");
        bus.send(Do { n }).await.expect("it is stored");
    }
    let lines = scene.log.wait_for(20).await;
    assert!(lines.iter().all(|line| line.starts_with("do ")));
    let (name, health) = host.transports_health().remove(1);
    assert_eq!(name.to_string(), "archive");
    let is_told =
        matches!(&health, Health::Reconnecting { error, .. } if error.contains("is down"));
    assert!(is_told, "{health:?}");
    let readiness = host.health().readiness();
    assert_eq!(readiness.reasons, ["transport `archive` is not connected"]);
    assert!(host.health().liveness().is_well);

    // Its rows would go past an endpoint that it does not know yet: refused, it gets none of them.
    archive.refuses.store(true, Ordering::SeqCst);
    archive.set_down(false);
    let is_refused = || async {
        let (_, health) = host.transports_health().remove(1);
        let word = "no permission to `work`; allow it";
        matches!(health, Health::Reconnecting { error, .. } if error == word).then_some(())
    };
    eventually("the word of the broker", is_refused).await;
    assert_eq!(scene.counts().await.outbox, 20);
    archive.refuses.store(false, Ordering::SeqCst);
    scene.log.wait_for(40).await;
    assert!(host.health().readiness().is_well);
    scene.quiet().await;
    stop(host).await;
    assert_eq!(scene.log.lines().len(), 40, "nothing came twice");
}

pub async fn a_broker_that_refuses_at_the_start_is_an_error(scene: Scene) {
    let (default, archive) = (Shaky::new(), Shaky::new());
    archive.refuses.store(true, Ordering::SeqCst);
    let host = two(scene.builder("host"), &default, &archive).build();
    let refused = host.expect("it is put together well").start().await;
    let error = chain(&refused.expect_err("the broker refuses"));
    let named = "host cannot use its transport `archive` [SB0202]: no permission to `work`";
    assert!(error.starts_with(named), "{error}");
}

/// The owner reads from `archive`, so the command goes there without being told; the endpoint that
/// asked reads from the default broker.
pub async fn an_answer_comes_back_by_the_transport_of_its_question(scene: Scene) {
    let (default, archive) = (Shaky::new(), Shaky::new());
    let builder = scene.builder("host").transport(Altered(default.clone()));
    let builder = builder.transport_named("archive", Altered(archive.clone()));
    let builder = builder.endpoint("shop", |e| e.handle(ask).handle(note_answer));
    let host = start(builder.endpoint("work", |e| e.reads_from("archive").handle(answer))).await;
    host.bus()
        .publish(Done { n: 7 })
        .await
        .expect("it is stored");
    assert_eq!(scene.log.wait_for(2).await, ["do 7", "answered 7"]);
    scene.quiet().await;
    stop(host).await;
    assert_eq!(
        (waiting(&default, "work"), waiting(&archive, "shop")),
        (0, 0)
    );
}

/// The database carries what no broker does.
pub async fn a_named_broker_stands_beside_the_database(scene: Scene) {
    let archive = Shaky::new();
    let builder = scene.builder("host");
    let builder = builder.transport_named("archive", Altered(archive.clone()));
    let builder = builder.route::<Done>("archive");
    let builder = builder.endpoint("work", |e| e.handle(note).retry(quick_retry()));
    let host =
        start(builder.endpoint("audit", |e| e.reads_from("archive").handle(note_done))).await;
    archive.set_down(true);
    host.bus()
        .publish(Done { n: 1 })
        .await
        .expect("it is stored");
    host.bus().send(Do { n: 1 }).await.expect("it is stored");
    assert_eq!(scene.log.wait_for(1).await, ["do 1"]);
    archive.set_down(false);
    assert_eq!(scene.log.wait_for(2).await, ["do 1", "done 1"]);
    scene.quiet().await;
    stop(host).await;
}

/// A service that was rolled out without the broker leaves its rows to those who have it.
pub async fn rows_wait_for_a_host_that_has_their_transport(scene: Scene) {
    let (default, archive) = (Shaky::new(), Shaky::new());
    let first = start(two(scene.builder("one"), &default, &archive)).await;
    archive.set_down(true);
    first
        .bus()
        .publish(Done { n: 1 })
        .await
        .expect("it is stored");
    stop(first).await;
    archive.set_down(false);

    let builder = scene.builder_on("two", scene.peer());
    let builder = builder.transport(Altered(default.clone()));
    let second = start(builder.endpoint("work", |e| e.handle(note))).await;
    second.bus().send(Do { n: 1 }).await.expect("it is stored");
    assert_eq!(scene.log.wait_for(1).await, ["do 1"]);
    // Over two leases and several looks at what is due.
    tokio::time::sleep(Duration::from_millis(1500)).await;
    assert_eq!(scene.counts().await.outbox, 1);
    let counted = second.counters().snapshot();
    assert!(counted.contains(&("publish_failures", 0)), "{counted:?}");
    stop(second).await;

    let third = start(two(scene.builder("three"), &default, &archive)).await;
    assert_eq!(scene.log.wait_for(2).await, ["do 1", "done 1"]);
    scene.quiet().await;
    stop(third).await;
}

/// An endpoint for one message at a time still gets what it set aside for later.
pub async fn an_endpoint_of_one_place_gets_its_own_rows(scene: Scene) {
    async fn fail_once(command: Do, cx: Ctx, log: State<Log>) -> Result<(), HandlerError> {
        log.add(format!("do {}", command.n));
        match cx.attempt() {
            1 => Err(HandlerError::new("not at the first try")),
            _ => Ok(()),
        }
    }
    let (default, archive) = (Shaky::new(), Shaky::new());
    let builder = scene.builder("host").transport(Altered(default));
    let builder = builder.transport_named("archive", Altered(archive));
    let host = start(builder.endpoint("work", |e| {
        let e = e.reads_from("archive").capacity(1).handle(fail_once);
        e.retry(Retry {
            immediate: 0,
            ..quick_retry()
        })
    }));
    let host = host.await;
    host.bus().send(Do { n: 1 }).await.expect("it is stored");
    assert_eq!(scene.log.wait_for(2).await, ["do 1", "do 1"]);
    scene.quiet().await;
    stop(host).await;
}

fn pause(transport: &str) -> Action {
    Action::PauseTransport {
        transport: transport.to_owned(),
    }
}

fn resume(transport: &str) -> Action {
    Action::ResumeTransport {
        transport: transport.to_owned(),
    }
}

/// Counts the rows that wait for the transport that is called `archive`.
async fn held_back(scene: &Scene) -> usize {
    let rows = scene
        .admin()
        .rows(&RowFilter::default(), Page::oldest(100))
        .await;
    let rows = rows.expect("rows are shown");
    let archived = rows
        .iter()
        .filter(|row| row.destination.starts_with(":archive:"));
    archived.count()
}

/// Publishes events until the host has noticed the pause: the one that waits is the last.
async fn publish_until_held(scene: &Scene, host: &sagabus_core::RunningHost) -> u32 {
    for n in 1..100 {
        host.bus().publish(Done { n }).await.expect("it is stored");
        grow_older(Duration::from_millis(100)).await;
        if held_back(scene).await == 0 {
            continue;
        }
        // It may only have been on its way.
        grow_older(Duration::from_millis(1500)).await;
        if held_back(scene).await == 1 {
            return n;
        }
    }
    panic!("the pause was not noticed");
}

/// What goes by another transport goes on; what waits was tried by nobody.
pub async fn a_transport_that_an_operator_paused_sends_nothing_until_it_goes_on(scene: Scene) {
    let (default, archive) = (Shaky::new(), Shaky::new());
    let host = start(two(scene.builder("host"), &default, &archive)).await;
    assert_eq!(operate(&scene, pause("archive")).await, 1);
    assert_eq!(operate(&scene, pause("archive")).await, 0, "it is paused");
    let last = publish_until_held(&scene, &host).await;
    let seen = scene.log.lines().len();
    host.bus().send(Do { n: 0 }).await.expect("it is stored");
    host.bus()
        .publish(Done { n: 100 })
        .await
        .expect("it is stored");
    scene.log.wait_for(seen + 1).await;
    grow_older(Duration::from_millis(500)).await;
    assert_eq!(held_back(&scene).await, 2);
    assert_eq!(scene.log.lines().len(), seen + 1, "only the command went");
    let rows = scene
        .admin()
        .rows(&RowFilter::default(), Page::oldest(10))
        .await;
    for row in rows.expect("rows are shown") {
        assert_eq!(row.failures, 0, "{row:?}");
    }
    assert_eq!(operate(&scene, resume("archive")).await, 1);
    assert_eq!(operate(&scene, resume("archive")).await, 0, "it goes on");
    scene.log.wait_for(seen + 3).await;
    scene.quiet().await;
    stop(host).await;
    let mut lines = scene.log.lines();
    lines.sort();
    let mut expected: Vec<_> = (1..=last).map(|n| format!("done {n}")).collect();
    expected.extend(["do 0".to_owned(), "done 100".to_owned()]);
    expected.sort();
    assert_eq!(lines, expected, "nothing is lost and nothing comes twice");
}

pub async fn a_process_that_starts_into_a_pause_of_a_transport_does_not_break_it(scene: Scene) {
    let (default, archive) = (Shaky::new(), Shaky::new());
    let first = start(two(scene.builder("one"), &default, &archive)).await;
    assert_eq!(operate(&scene, pause("archive")).await, 1);
    let last = publish_until_held(&scene, &first).await;
    let seen = scene.log.lines().len();
    let second = start(two(scene.builder("two"), &default, &archive)).await;
    second
        .bus()
        .publish(Done { n: 100 })
        .await
        .expect("it is stored");
    grow_older(Duration::from_millis(1500)).await;
    assert_eq!(scene.log.lines().len(), seen);
    assert_eq!(held_back(&scene).await, 2);
    stop(first).await;
    assert_eq!(operate(&scene, resume("archive")).await, 1);
    scene.log.wait_for(last as usize + 1).await;
    scene.quiet().await;
    stop(second).await;
    assert_eq!(scene.log.lines().len(), last as usize + 1);
}
