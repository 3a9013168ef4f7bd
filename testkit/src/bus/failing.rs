//! What fails is tried again, and then kept with everything that is known.
#![expect(missing_docs, reason = "a behaviour says by its name what it shows")]

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::Duration;

use sagabus_core::codec::BODY_BYTES_MAX;
use sagabus_core::envelope::Envelope;
use sagabus_core::{
    Bus, BusError, Command, Ctx, Destination, EndpointBuilder, EndpointName, Event, HandlerError,
    Kind, Message, Outgoing, Result, Retry, State, headers,
};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::scene::{Do, Done, Log, Scene, quick_retry, start, stop};

async fn note(command: Do, log: State<Log>) {
    log.add(format!("do {}", command.n));
}

async fn note_done(event: Done, log: State<Log>) {
    log.add(format!("done {}", event.n));
}

async fn always_fail(command: Do, cx: Ctx, log: State<Log>) -> Result {
    log.add(format!("attempt {} of {}", cx.attempt(), command.n));
    Err(HandlerError::new(format!("no luck with {}", command.n)))
}

pub async fn an_error_is_tried_at_once_then_later_then_never(scene: Scene) {
    let host = scene
        .host("work", |e| e.handle(always_fail).retry(quick_retry()))
        .await;
    let id = host.bus().send(Do { n: 5 }).await.expect("it is stored");
    let dead = scene.dead_letters(1).await;
    let attempts: Vec<_> = (1..=4).map(|n| format!("attempt {n} of 5")).collect();
    assert_eq!(scene.log.lines(), attempts);
    assert_eq!(dead[0].envelope.id, id);
    assert_eq!(
        (dead[0].reason.as_str(), dead[0].endpoint.as_str()),
        ("attempts_exhausted", "work")
    );
    assert_eq!(dead[0].attempts.len(), 4);
    assert!(
        dead[0]
            .attempts
            .iter()
            .all(|one| one.error == "no luck with 5" && one.host == "host")
    );
    assert_eq!(&dead[0].envelope.body[..], br#"{"n":5}"#);
    scene.quiet().await;
    stop(host).await;
}

pub async fn a_terminal_error_is_a_dead_letter_at_once(scene: Scene) {
    async fn refuse(_: Do, log: State<Log>) -> Result {
        log.add("tried");
        Err(HandlerError::new("the card is stolen").terminal())
    }
    let host = scene
        .host("work", |e| e.handle(refuse).retry(quick_retry()))
        .await;
    host.bus().send(Do { n: 1 }).await.expect("it is stored");
    let dead = scene.dead_letters(1).await;
    assert_eq!(
        (dead[0].reason.as_str(), dead[0].attempts.len()),
        ("terminal", 1)
    );
    stop(host).await;
    assert_eq!(scene.log.lines(), ["tried"]);
}

pub async fn a_handler_that_sends_too_much_sends_nothing(scene: Scene) {
    async fn send_many(command: Do, cx: Ctx) -> Result {
        for n in 0..command.n {
            cx.publish(Done { n })?;
        }
        Ok(())
    }
    let build = |e: EndpointBuilder| e.handle(send_many).handle(note_done);
    let host = scene.host("work", |e| build(e).retry(quick_retry())).await;
    let too_many = Do { n: 10_001 };
    host.bus().send(too_many).await.expect("it is stored");
    let dead = scene.dead_letters(1).await;
    assert_eq!(
        (dead[0].reason.as_str(), dead[0].attempts.len()),
        ("unit_too_large", 1)
    );
    scene.quiet().await;
    stop(host).await;
    assert_eq!(scene.log.lines(), [""; 0]);
}

pub async fn a_panic_is_an_error_like_any_other(scene: Scene) {
    async fn panic(command: Do, cx: Ctx, log: State<Log>) {
        log.add(format!("attempt {} of {}", cx.attempt(), command.n));
        let is_well = command.n == 1 && cx.attempt() > 1;
        assert!(is_well, "no luck with {}", command.n);
    }
    let host = scene
        .host("work", |e| e.handle(panic).retry(quick_retry()))
        .await;
    host.bus().send(Do { n: 1 }).await.expect("it is stored");
    scene.log.wait_for(2).await;
    scene.quiet().await;
    assert_eq!(scene.log.lines(), ["attempt 1 of 1", "attempt 2 of 1"]);
    assert_eq!(scene.counts().await.dead_letters, 0);
    host.bus().send(Do { n: 2 }).await.expect("it is stored");
    ends_with(&scene, "handler panicked: no luck with 2").await;
    stop(host).await;
}

/// Waits for the one dead letter, of which every try ended so.
async fn ends_with(scene: &Scene, error: &str) {
    let dead = scene.dead_letters(1).await;
    assert_eq!(dead[0].reason, "attempts_exhausted");
    let errors: Vec<_> = dead[0].attempts.iter().map(|one| &*one.error).collect();
    assert_eq!(errors, [error; 4]);
}

pub async fn what_a_failed_attempt_staged_is_dropped(scene: Scene) {
    async fn send_and_fail(command: Do, cx: Ctx) -> Result {
        cx.publish(Done {
            n: command.n + cx.attempt() * 10,
        })?;
        if cx.attempt() < 3 {
            Err(HandlerError::new("not yet"))
        } else {
            Ok(())
        }
    }
    async fn note_done(event: Done, log: State<Log>) {
        log.add(format!("done {}", event.n));
    }
    let builder = scene.builder("host");
    let builder = builder.endpoint("work", |e| e.handle(send_and_fail).retry(quick_retry()));
    let host = start(builder.endpoint("audit", |e| e.handle(note_done))).await;
    host.bus().send(Do { n: 1 }).await.expect("it is stored");
    scene.log.wait_for(1).await;
    scene.quiet().await;
    stop(host).await;
    assert_eq!(scene.log.lines(), ["done 31"]);
}

pub async fn a_handler_beyond_its_deadline_has_failed(scene: Scene) {
    async fn hang(command: Do, cx: Ctx, log: State<Log>) {
        log.add("started");
        if command.n == 2 || cx.attempt() == 1 {
            std::future::pending::<()>().await;
        }
    }
    let deadline = Duration::from_millis(50);
    let host = scene
        .host("work", |e| {
            e.handle(hang).deadline(deadline).retry(quick_retry())
        })
        .await;
    host.bus().send(Do { n: 1 }).await.expect("it is stored");
    assert_eq!(scene.log.wait_for(2).await, ["started", "started"]);
    scene.quiet().await;
    host.bus().send(Do { n: 2 }).await.expect("it is stored");
    ends_with(&scene, "handler took longer than its deadline of 50ms").await;
    stop(host).await;
}

/// Sends bytes of its own making to `work`.
async fn send_raw(bus: &Bus, change: impl FnOnce(&mut Envelope)) {
    let mut envelope = Envelope::new(&Do { n: 1 }).expect("it can be encoded");
    change(&mut envelope);
    let work = Destination::Endpoint(EndpointName::new("work").expect("a usable name"));
    bus.send_all(vec![Outgoing::from_envelope(envelope, work)])
        .await
        .expect("it is stored");
}

pub async fn a_body_that_cannot_be_decoded_is_a_dead_letter(scene: Scene) {
    let host = scene
        .host("work", |e| e.handle(note).retry(quick_retry()))
        .await;
    let bodies: [&'static [u8]; 4] = [b"", b"{\"n\":", b"\x00\xff\xfe", b"{\"n\":\"x\"}"];
    for body in bodies {
        send_raw(&host.bus(), |envelope| envelope.body = body.into()).await;
    }
    let dead = scene.dead_letters(4).await;
    assert!(
        dead.iter()
            .all(|one| one.reason == "undecodable" && one.attempts.len() == 1)
    );
    let mut kept: Vec<_> = dead.iter().map(|one| one.envelope.body.to_vec()).collect();
    let mut sent: Vec<_> = bodies.iter().map(|body| body.to_vec()).collect();
    kept.sort();
    sent.sort();
    assert_eq!(kept, sent);
    host.bus().send(Do { n: 2 }).await.expect("it is stored");
    assert_eq!(scene.log.wait_for(1).await, ["do 2"]);
    stop(host).await;
}

pub async fn a_type_without_handler_is_a_dead_letter(scene: Scene) {
    let host = scene.host("work", |e| e.handle(note)).await;
    send_raw(&host.bus(), |envelope| {
        envelope.message_type = "test.unheard-of".into();
    })
    .await;
    let dead = scene.dead_letters(1).await;
    assert_eq!(dead[0].reason, "no_handler");
    assert_eq!(dead[0].envelope.message_type, "test.unheard-of");
    stop(host).await;
}

#[derive(Serialize, Deserialize)]
struct NewerDo {
    n: u32,
    more: String,
}

impl Message for NewerDo {
    const TYPE: &'static str = "test.do";
    const VERSION: u32 = 2;
    const KIND: Kind = Kind::Command;
}
impl Command for NewerDo {}

pub async fn a_message_of_a_newer_version_is_a_dead_letter(scene: Scene) {
    let host = scene.host("work", |e| e.handle(note)).await;
    let newer = NewerDo {
        n: 1,
        more: "news".to_owned(),
    };
    host.bus().send(newer).await.expect("it is stored");
    let dead = scene.dead_letters(1).await;
    assert_eq!(dead[0].reason, "newer_version");
    assert_eq!(scene.log.lines(), [""; 0]);
    stop(host).await;
}

#[derive(Serialize, Deserialize)]
struct Large {
    text: String,
}

impl Message for Large {
    const TYPE: &'static str = "test.large";
    const KIND: Kind = Kind::Event;
}
impl Event for Large {}

pub async fn headers_out_of_bounds_are_refused_where_they_are_sent(scene: Scene) {
    let host = scene.host("work", |e| e.handle(note)).await;
    let bus = host.bus();
    let control = bus.send(Do { n: 1 }).header("note", "a\u{7}b").await;
    assert!(matches!(control, Err(BusError::Codec(_))), "{control:?}");
    let mut many = bus.send(Do { n: 1 });
    for n in 0..65 {
        many = many.header(&format!("h{n}"), "x");
    }
    let many = many.await;
    assert!(matches!(many, Err(BusError::Codec(_))), "{many:?}");
    let large = bus
        .publish(Large {
            text: "x".repeat(1024 * 1024),
        })
        .await;
    assert!(matches!(large, Err(BusError::Codec(_))), "{large:?}");
    // What slipped past a sender of another make is a dead letter where it arrives.
    send_raw(&bus, |envelope| envelope.headers.set("note", "a\u{7}b")).await;
    send_raw(&bus, |envelope| {
        (0..65).for_each(|n| envelope.headers.set(format!("h{n}"), "x"));
    })
    .await;
    send_raw(&bus, |envelope| {
        envelope.body = vec![b' '; BODY_BYTES_MAX + 1].into();
    })
    .await;
    let dead = scene.dead_letters(3).await;
    assert!(dead.iter().all(|one| one.reason == "out_of_bounds"));
    let errors = dead.iter().map(|one| one.attempts[0].error.as_str());
    let mut errors: Vec<_> = errors.collect();
    errors.sort_unstable();
    for (error, fact) in errors.iter().zip([
        "headers where at most 64 may be",
        "body of 1048577 bytes is larger than 1048576",
        "header `note` contains a control character",
    ]) {
        assert!(error.ends_with(fact), "{errors:?}");
    }
    assert_eq!(scene.log.lines(), [""; 0]);
    stop(host).await;
}

pub async fn a_redriven_dead_letter_is_handled_once(scene: Scene) {
    async fn heal(command: Do, cx: Ctx, healthy: State<Mutex<bool>>, log: State<Log>) -> Result {
        if *healthy.lock().expect("nobody panics here") {
            log.add(format!("attempt {} of {}", cx.attempt(), command.n));
            return Ok(());
        }
        Err(HandlerError::new("down").terminal())
    }
    let builder = scene.builder("host").state(Mutex::new(false));
    let host = builder
        .endpoint("work", |e| e.handle(heal))
        .build()
        .expect("it can be built");
    let healthy = host.state::<Mutex<bool>>().expect("it was given");
    let host = host.start().await.expect("it starts");
    host.bus().send(Do { n: 9 }).await.expect("it is stored");
    let dead = scene.dead_letters(1).await;
    *healthy.lock().expect("nobody panics here") = true;
    assert!(
        scene
            .admin()
            .redrive(dead[0].id)
            .await
            .expect("it can be redriven")
    );
    assert!(
        !scene
            .admin()
            .redrive(dead[0].id)
            .await
            .expect("it can be asked twice")
    );
    assert_eq!(scene.log.wait_for(1).await, ["attempt 1 of 9"]);
    scene.quiet().await;
    stop(host).await;
    assert_eq!(scene.log.lines().len(), 1);
    assert_eq!(scene.counts().await.dead_letters, 0);
}

pub async fn one_failing_message_does_not_hold_up_the_others(scene: Scene) {
    async fn fail_seven(command: Do, log: State<Log>) -> Result {
        if command.n == 7 {
            return Err(HandlerError::new("seven"));
        }
        log.add(format!("do {}", command.n));
        Ok(())
    }
    let host = scene
        .host("work", |e| e.handle(fail_seven).retry(quick_retry()))
        .await;
    for n in 0..50 {
        host.bus().send(Do { n }).await.expect("it is stored");
    }
    scene.log.wait_for(49).await;
    assert_eq!(scene.dead_letters(1).await.len(), 1);
    scene.quiet().await;
    stop(host).await;
    assert_eq!(scene.log.lines().len(), 49);
}

pub async fn an_error_that_asks_for_time_costs_no_attempt(scene: Scene) {
    async fn busy(_: Do, cx: Ctx, log: State<Log>) -> Result {
        log.add(format!("attempt {}", cx.attempt()));
        if log.lines().len() < 6 {
            return Err(HandlerError::retry_after(
                Duration::from_millis(10),
                "gateway is busy",
            ));
        }
        Ok(())
    }
    let host = scene
        .host("work", |e| e.handle(busy).retry(quick_retry()))
        .await;
    host.bus().send(Do { n: 1 }).await.expect("it is stored");
    assert_eq!(scene.log.wait_for(6).await, ["attempt 1"; 6]);
    scene.quiet().await;
    stop(host).await;
    assert_eq!(scene.counts().await.dead_letters, 0);
}

pub async fn an_error_that_asks_for_time_gets_all_of_it(scene: Scene) {
    const DELAY: Duration = Duration::from_millis(300);
    type Asked = Mutex<HashMap<u32, Instant>>;
    async fn busy_once(command: Do, asked: State<Asked>, log: State<Log>) -> Result {
        let mut asked = asked.lock().expect("nobody panics");
        match asked.get(&command.n) {
            None => {
                asked.insert(command.n, Instant::now());
                Err(HandlerError::retry_after(DELAY, "gateway is busy"))
            }
            Some(at) if at.elapsed() < DELAY => {
                log.add(format!("early, after {:?}", at.elapsed()));
                Ok(())
            }
            Some(_) => {
                log.add("in time");
                Ok(())
            }
        }
    }
    let builder = scene.builder("patient").state(Asked::default());
    let host = start(builder.endpoint("work", |e| e.handle(busy_once))).await;
    for n in 0..8 {
        host.bus().send(Do { n }).await.expect("it is stored");
    }
    let lines = scene.log.wait_for(8).await;
    stop(host).await;
    assert_eq!(lines, ["in time"; 8]);
}

pub async fn tries_that_cost_no_attempt_are_bounded_over_restarts(scene: Scene) {
    async fn busy(_: Do, cx: Ctx, log: State<Log>) -> Result {
        log.add(format!("attempt {}", cx.attempt()));
        let pause = Duration::from_millis(30);
        Err(HandlerError::retry_after(pause, "gateway is busy"))
    }
    let retry = Retry {
        excuses: 5,
        ..Retry::none()
    };
    let build = |e: EndpointBuilder| e.handle(busy).retry(retry.clone());
    let host = scene.host("work", build).await;
    host.bus().send(Do { n: 1 }).await.expect("it is stored");
    scene.log.wait_for(3).await;
    stop(host).await;
    let host = scene.host("work", build).await;
    let dead = scene.dead_letters(1).await;
    scene.quiet().await;
    stop(host).await;
    assert_eq!(scene.log.lines(), ["attempt 1"; 6]);
    assert_eq!(dead[0].reason, "excuses_exhausted");
    assert_eq!(dead[0].fingerprint, "excuses_exhausted: gateway is busy");
    let kept: Vec<_> = dead[0].attempts.iter().map(|one| one.excused).collect();
    assert_eq!(kept, [6], "one entry stands for all of them");
}

pub async fn a_message_that_always_conflicts_is_a_dead_letter_in_the_end(scene: Scene) {
    async fn lose(_: Do, log: State<Log>) -> Result {
        log.add("tried");
        Err(HandlerError::conflict("somebody is always faster"))
    }
    let retry = Retry {
        excuses: 1,
        ..Retry::none()
    };
    let host = scene.host("work", |e| e.handle(lose).retry(retry)).await;
    host.bus().send(Do { n: 1 }).await.expect("it is stored");
    let dead = scene.dead_letters(1).await;
    stop(host).await;
    assert_eq!(dead[0].reason, "excuses_exhausted");
    assert_eq!(dead[0].attempts[0].excused, 2);
    assert_eq!(scene.log.lines(), ["tried"; 8], "three reruns each time");
}

/// An allow-list of an endpoint, and a content type without a codec: each a stored row that says
/// what to send.
pub async fn content_that_is_not_accepted_is_a_dead_letter(scene: Scene) {
    let builder = scene.builder("host").endpoint("strict", |e| {
        e.content_types(["Application/JSON"]).handle(note)
    });
    let host = start(builder.endpoint("open", |e| e.handle(note_done))).await;
    let bus = host.bus();
    let send = |n, content_type: &'static str| {
        bus.send(Do { n })
            .header(headers::CONTENT_TYPE, content_type)
    };
    send(1, "application/vnd.test+json")
        .await
        .expect("it is stored");
    send(2, "application/json; charset=utf-8")
        .await
        .expect("it is stored");
    let unknown = bus
        .publish(Done { n: 3 })
        .header(headers::CONTENT_TYPE, "application/xml");
    unknown.await.expect("it is stored");
    let mut dead = scene.dead_letters(2).await;
    dead.sort_by(|a, b| b.endpoint.cmp(&a.endpoint));
    let told: Vec<_> = dead
        .iter()
        .map(|one| (one.reason.as_str(), one.attempts[0].error.as_str()))
        .collect();
    assert_eq!(
        told,
        [
            (
                "content_not_accepted",
                "content type `application/vnd.test+json` is not accepted here; send \
                 `application/json`"
            ),
            (
                "undecodable",
                "content type `application/xml` cannot be read; send `application/json`"
            ),
        ]
    );
    scene.quiet().await;
    stop(host).await;
    assert_eq!(scene.log.lines(), ["do 2"]);
}
