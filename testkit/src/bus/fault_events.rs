//! Whoever subscribed to it is told of a dead letter.
#![expect(missing_docs, reason = "a behaviour says by its name what it shows")]

use sagabus_core::envelope::Envelope;
use sagabus_core::fault_event::Body;
use sagabus_core::memory::MemoryTransport;
use sagabus_core::{
    Ctx, Destination, EndpointName, Event, Fault, HandlerError, HostBuilder, Kind, Message,
    Outgoing, Result, State, headers,
};
use serde::{Deserialize, Serialize};

use super::scene::{Do, Log, Scene, quick_retry, start, stop};

async fn fail(command: Do) -> Result {
    Err(HandlerError::new(format!("no luck with {}", command.n)))
}

async fn refuse(_: Do) -> Result {
    Err(HandlerError::new("never").terminal())
}

async fn watch(fault: Fault<Do>, log: State<Log>) {
    let Fault {
        message,
        endpoint,
        reason,
        attempts,
        ..
    } = &fault;
    let n = message.as_ref().map(|command| command.n);
    let last = attempts.last().map_or("", |one| one.error.as_str());
    let count = attempts.len();
    log.add(format!(
        "{n:?} at {endpoint}: {reason} after {count}, {last}"
    ));
}

/// With a broker and without.
fn each_way(scene: &Scene, name: &str) -> [(HostBuilder, &'static str); 2] {
    [
        (scene.builder(name), "without a broker"),
        (
            scene.builder(name).transport(MemoryTransport::new()),
            "over a broker",
        ),
    ]
}

pub async fn a_fault_tells_of_a_dead_letter_once(scene: Scene) {
    for (round, (builder, way)) in (1..).zip(each_way(&scene, "host")) {
        let builder = builder.endpoint("work", |e| e.handle(fail).retry(quick_retry()));
        let host = start(builder.endpoint("watch", |e| e.handle(watch))).await;
        host.bus().send(Do { n: 5 }).await.expect("it is stored");
        let dead = scene.dead_letters(round).await;
        let lines = scene.log.wait_for(round).await;
        let wanted = "Some(5) at work: attempts_exhausted after 4, no luck with 5";
        assert_eq!(lines[round - 1], wanted, "{way}");
        scene.quiet().await;
        stop(host).await;
        assert_eq!(
            (scene.log.lines().len(), dead.len()),
            (round, round),
            "{way}"
        );
    }
}

pub async fn a_fault_brings_the_message_as_it_came(scene: Scene) {
    async fn watch(fault: Fault<Do>, log: State<Log>) {
        let (reason, is_decoded) = (fault.reason, fault.message.is_some());
        let body = fault.content.map(|content| content.body);
        log.add(format!("{is_decoded} {reason} {body:?}"));
    }
    let builder = scene.builder("host");
    let builder = builder.endpoint("work", |e| e.handle(refuse));
    let host = start(builder.endpoint("watch", |e| e.handle(watch))).await;
    let work = Destination::Endpoint(EndpointName::new("work").expect("a usable name"));
    for body in [&b"{\"n\":"[..], b"\xff"] {
        let mut envelope = Envelope::new(&Do { n: 1 }).expect("it can be encoded");
        envelope.body = body.to_vec().into();
        let one = Outgoing::from_envelope(envelope, work.clone());
        host.bus().send_all(vec![one]).await.expect("it is stored");
    }
    let mut lines = scene.log.wait_for(2).await;
    lines.sort();
    let bodies = [Body::Bytes(vec![0xff]), Body::Text("{\"n\":".to_owned())];
    let wanted = bodies.map(|body| format!("false undecodable {:?}", Some(body)));
    assert_eq!(lines, wanted);
    scene.quiet().await;
    stop(host).await;
}

pub async fn a_fault_that_nobody_wants_is_not_written(scene: Scene) {
    for (round, (builder, way)) in (1..).zip(each_way(&scene, "host")) {
        let builder = builder.endpoint("work", |e| e.handle(refuse));
        let host = start(builder).await;
        host.bus().send(Do { n: 1 }).await.expect("it is stored");
        scene.dead_letters(round).await;
        scene.quiet().await;
        // The command itself, where it went over the broker.
        assert!(host.counters().published.get() <= 1, "{way}");
        assert_eq!(scene.counts().await.parked, 0, "{way}");
        stop(host).await;
    }
}

/// A host that sends nothing learns of a new subscriber all the same.
pub async fn whoever_subscribes_later_is_told_from_then_on(scene: Scene) {
    let builder = scene.builder("host");
    let host = start(builder.endpoint("work", |e| e.handle(refuse))).await;
    let sender = start(scene.builder_on("sender", scene.peer())).await;
    sender.bus().send(Do { n: 1 }).await.expect("it is stored");
    scene.dead_letters(1).await;
    let watcher = scene.builder_on("watcher", scene.peer());
    let watcher = start(watcher.endpoint("watch", |e| e.handle(watch))).await;
    sender.bus().send(Do { n: 2 }).await.expect("it is stored");
    let lines = scene.log.wait_for(1).await;
    assert_eq!(lines, ["Some(2) at work: terminal after 1, never"]);
    scene.quiet().await;
    for host in [host, sender, watcher] {
        stop(host).await;
    }
}

pub async fn a_fault_that_dies_has_no_fault(scene: Scene) {
    async fn die(_: Fault<Do>, log: State<Log>) -> Result {
        log.add("told");
        Err(HandlerError::new("too much").terminal())
    }
    async fn watch_faults(_: Fault<Fault<Do>>, log: State<Log>) {
        log.add("told of the fault");
    }
    let builder = scene.builder("host");
    let builder = builder.endpoint("work", |e| e.handle(refuse));
    let builder = builder.endpoint("watch", |e| e.handle(die));
    let host = start(builder.endpoint("more", |e| e.handle(watch_faults))).await;
    host.bus().send(Do { n: 1 }).await.expect("it is stored");
    assert_eq!(scene.dead_letters(2).await.len(), 2);
    scene.quiet().await;
    stop(host).await;
    assert_eq!(scene.log.lines(), ["told"]);
}

/// What `work` gave up, as a watcher of the broker gets it.
#[derive(Debug, Serialize, Deserialize)]
struct GivenUp {
    n: u32,
}

impl Message for GivenUp {
    const TYPE: &'static str = "work-dlt";
    const KIND: Kind = Kind::Event;
}
impl Event for GivenUp {}

/// Notes what the headers of a published dead letter say.
fn told(cx: &Ctx) -> String {
    let of = |name| cx.headers().get(name).unwrap_or("nothing").to_owned();
    let names = [
        headers::DEAD_ENDPOINT,
        headers::DEAD_TYPE,
        headers::DEAD_REASON,
        headers::DEAD_ATTEMPTS,
        headers::DEAD_ERROR,
    ];
    names.map(of).join(", ")
}

async fn watch_given_up(event: GivenUp, cx: Ctx, log: State<Log>) {
    log.add(format!("{}: {}", event.n, told(&cx)));
}

pub async fn a_dead_letter_is_published_where_its_endpoint_mirrors_them(scene: Scene) {
    for (round, (builder, way)) in (1..).zip(each_way(&scene, "host")) {
        let builder = builder.endpoint("work", |e| {
            let e = e.handle(fail).retry(quick_retry());
            e.mirrors_dead_letters()
        });
        // What watches does not mirror.
        let builder = builder.endpoint("watch", |e| e.handle(watch_given_up));
        let host = start(builder.endpoint("other", |e| e.handle(watch))).await;
        let id = host.bus().send(Do { n: 5 }).await.expect("it is stored");
        let dead = scene.dead_letters(round).await;
        assert!(dead.iter().any(|one| one.envelope.id == id), "{way}");
        let lines = scene.log.wait_for(2 * round).await;
        let wanted = "5: work, test.do, attempts_exhausted, 4, no luck with 5";
        let found = lines.iter().filter(|line| *line == wanted);
        assert_eq!(found.count(), round, "{way}: {lines:?}");
        scene.quiet().await;
        stop(host).await;
    }
}

/// Bytes that are no message of ours, and a watcher that fails: its own dead letters, mirrored too,
/// do not go round.
pub async fn a_dead_letter_that_cannot_be_read_is_published_as_it_came(scene: Scene) {
    let builder = scene.builder("host");
    let builder = builder.endpoint("work", |e| {
        let e = e.handle(refuse).handle(watch_given_up);
        e.mirrors_dead_letters()
    });
    let host = start(builder).await;
    let work = Destination::Endpoint(EndpointName::new("work").expect("a usable name"));
    let mut envelope = Envelope::new(&Do { n: 1 }).expect("it can be encoded");
    envelope.body = b"\xff\0".to_vec().into();
    let one = Outgoing::from_envelope(envelope, work);
    host.bus().send_all(vec![one]).await.expect("it is stored");
    let dead = scene.dead_letters(2).await;
    scene.quiet().await;
    stop(host).await;
    let mut dead: Vec<_> = dead
        .iter()
        .map(|one| (one.envelope.message_type.as_ref(), &one.envelope.body[..]))
        .collect();
    dead.sort_unstable();
    let body = &b"\xff\0"[..];
    assert_eq!(dead, [("test.do", body), ("work-dlt", body)]);
}
