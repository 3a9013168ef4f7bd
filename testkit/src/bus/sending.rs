//! What is sent arrives, once, where it should.
#![expect(missing_docs, reason = "a behaviour says by its name what it shows")]

use std::collections::HashSet;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::{BoxFuture, FutureExt};
use sagabus_core::admin::{Action, HistoryOf, Page, RowFilter, RowState, RowVerb};
use sagabus_core::pipeline::{Middleware, Next};
use sagabus_core::{
    CodecError, Ctx, Event, Kind, Message, MessageId, Result, State, codec, headers,
};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use crate::wait::{eventually, grow_older};

use super::pausing::operate;
use super::scene::{Answered, Do, Done, Log, Scene, start, stop};

async fn note(command: Do, log: State<Log>) {
    log.add(format!("do {}", command.n));
}

async fn note_done(event: Done, log: State<Log>) {
    log.add(format!("done {}", event.n));
}

async fn do_it(command: Do, log: State<Log>) -> Done {
    log.add(format!("do {}", command.n));
    Done { n: command.n }
}

pub async fn a_command_reaches_its_owner_once(scene: Scene) {
    let host = scene.host("work", |e| e.handle(note)).await;
    host.bus().send(Do { n: 1 }).await.expect("it is stored");
    assert_eq!(scene.log.wait_for(1).await, ["do 1"]);
    scene.quiet().await;
    stop(host).await;
    assert_eq!(scene.log.lines(), ["do 1"]);
    assert_eq!(scene.counts().await.history, 1);
}

pub async fn an_event_reaches_every_subscribed_endpoint_once(scene: Scene) {
    let builder = scene.builder("host");
    let builder = builder.endpoint("first", |e| e.handle(note_done));
    let host = start(builder.endpoint("second", |e| e.handle(note_done))).await;
    host.bus()
        .publish(Done { n: 7 })
        .await
        .expect("it is stored");
    scene.log.wait_for(2).await;
    scene.quiet().await;
    stop(host).await;
    assert_eq!(scene.log.lines(), ["done 7", "done 7"]);
}

pub async fn what_a_handler_returns_is_sent_by_its_kind(scene: Scene) {
    async fn ask(event: Done) -> Vec<Do> {
        if event.n == 0 {
            vec![Do { n: 1 }, Do { n: 2 }]
        } else {
            Vec::new()
        }
    }
    let builder = scene.builder("host").endpoint("ask", |e| e.handle(ask));
    let builder = builder.endpoint("work", |e| e.handle(do_it));
    let host = start(builder.endpoint("audit", |e| e.handle(note_done))).await;
    host.bus()
        .publish(Done { n: 0 })
        .await
        .expect("it is stored");
    let mut lines = scene.log.wait_for(5).await;
    lines.sort();
    assert_eq!(lines, ["do 1", "do 2", "done 0", "done 1", "done 2"]);
    scene.quiet().await;
    stop(host).await;
}

pub async fn a_reply_reaches_the_endpoint_that_asked(scene: Scene) {
    async fn ask(event: Done) -> Do {
        Do { n: event.n }
    }
    async fn answer(command: Do) -> Answered {
        Answered { n: command.n + 1 }
    }
    async fn note_answer(answer: Answered, log: State<Log>) {
        log.add(format!("answered {}", answer.n));
    }
    let builder = scene.builder("host");
    let builder = builder.endpoint("ask", |e| e.handle(ask).handle(note_answer));
    let host = start(builder.endpoint("work", |e| e.handle(answer))).await;
    host.bus()
        .publish(Done { n: 41 })
        .await
        .expect("it is stored");
    assert_eq!(scene.log.wait_for(1).await, ["answered 42"]);
    // Nobody asked for this one's answer: it cannot be sent, and saying so is not swallowed.
    host.bus().send(Do { n: 1 }).await.expect("it is stored");
    let dead = scene.dead_letters(1).await;
    assert_eq!(dead[0].reason, "no_reply_address");
    stop(host).await;
}

pub async fn a_scheduled_message_arrives_when_its_time_has_come(scene: Scene) {
    async fn later(command: Do, cx: Ctx, log: State<Log>) -> sagabus_core::Result {
        log.add("asked");
        cx.schedule(Duration::from_millis(300), Done { n: command.n })?;
        Ok(())
    }
    let host = scene
        .host("work", |e| e.handle(later).handle(note_done))
        .await;
    let started = Instant::now();
    host.bus().send(Do { n: 3 }).await.expect("it is stored");
    host.bus()
        .schedule(Duration::from_millis(200), Done { n: 4 })
        .await
        .expect("it is stored");
    let lines = scene.log.wait_for(3).await;
    assert!(
        started.elapsed() >= Duration::from_millis(300),
        "after {:?}",
        started.elapsed()
    );
    let lines: HashSet<_> = lines.iter().map(String::as_str).collect();
    assert_eq!(lines, HashSet::from(["asked", "done 3", "done 4"]));
    stop(host).await;
}

/// A month is no special time: it waits in the database, over restarts, and an operator may make it
/// due.
pub async fn a_message_for_next_month_waits_until_then(scene: Scene) {
    const MONTH: Duration = Duration::from_secs(30 * 24 * 60 * 60);
    let host = scene.host("audit", |e| e.handle(note_done)).await;
    let bus = host.bus();
    let scheduled = bus.schedule(MONTH, Done { n: 1 }).await;
    scheduled.expect("it is stored");
    bus.publish(Done { n: 2 }).await.expect("it is stored");
    assert_eq!(scene.log.wait_for(1).await, ["done 2"]);
    let only_it = || async {
        let all = RowFilter::default();
        let rows = scene.admin().rows(&all, Page::oldest(10)).await;
        let mut rows = rows.expect("rows are shown");
        (rows.len() == 1).then(|| rows.remove(0))
    };
    let (row, _) = eventually("the row for next month alone", only_it).await;
    let due = row.available_at.as_micros();
    let waits = Duration::from_micros((due - row.created_at.as_micros()).unsigned_abs());
    assert!(waits.abs_diff(MONTH) < Duration::from_secs(60), "{waits:?}");
    stop(host).await;

    let host = scene.host("audit", |e| e.handle(note_done)).await;
    grow_older(Duration::from_millis(500)).await;
    assert_eq!(scene.log.lines(), ["done 2"]);
    let expedite = Action::ChangeRows {
        ids: vec![row.id],
        verb: RowVerb::Expedite,
    };
    assert_eq!(operate(&scene, expedite).await, 1);
    assert_eq!(scene.log.wait_for(2).await, ["done 2", "done 1"]);
    scene.quiet().await;
    stop(host).await;
}

pub async fn a_message_that_came_too_late_is_a_dead_letter(scene: Scene) {
    let host = scene.host("work", |e| e.handle(note)).await;
    let bus = host.bus();
    let expired = bus.send(Do { n: 1 }).after(Duration::from_millis(50));
    expired
        .expires_after(Duration::ZERO)
        .await
        .expect("it is stored");
    let dead = scene.dead_letters(1).await;
    assert_eq!(dead[0].reason, "expired");
    assert_eq!(host.counters().expired.get(), 1);
    assert_eq!(scene.log.lines(), [""; 0]);
    stop(host).await;
}

/// And keeps no other from leaving.
pub async fn what_expired_before_it_left_is_parked_and_counted(scene: Scene) {
    let builder = scene.with_broker(scene.builder("host"));
    let host = start(builder.endpoint("audit", |e| e.handle(note_done))).await;
    let bus = host.bus();
    let expired = bus.publish(Done { n: 1 }).after(Duration::from_millis(50));
    let expired = expired.expires_after(Duration::ZERO).await;
    let id = expired.expect("it is stored");
    let parked = RowFilter {
        state: Some(RowState::Parked),
        ..RowFilter::default()
    };
    let look = || async {
        let rows = scene.admin().rows(&parked, Page::oldest(10)).await;
        rows.expect("rows are shown").pop()
    };
    let (row, _) = eventually("a parked row", look).await;
    assert_eq!(
        (row.envelope.id, row.parked.as_deref()),
        (id, Some("expired"))
    );
    assert_eq!(host.counters().expired.get(), 1);
    bus.publish(Done { n: 2 }).await.expect("it is stored");
    scene.log.wait_for(1).await;
    scene.quiet().await;
    stop(host).await;
    assert_eq!(scene.log.lines(), ["done 2"]);
}

pub async fn a_command_without_owner_is_parked(scene: Scene) {
    let host = scene.host("other", |e| e.handle(note_done)).await;
    host.bus().send(Do { n: 1 }).await.expect("it is stored");
    let counts = scene.counts().await;
    assert_eq!((counts.parked, counts.outbox), (1, 0));
    assert_eq!(host.counters().parked.get(), 1);
    stop(host).await;
}

pub async fn an_event_without_subscriber_is_nobodys_business(scene: Scene) {
    let host = scene.host("work", |e| e.handle(note)).await;
    host.bus()
        .publish(Done { n: 1 })
        .await
        .expect("it is accepted");
    scene.quiet().await;
    let counts = scene.counts().await;
    assert_eq!((counts.parked, counts.dead_letters), (0, 0));
    // A broker may have subscribers that we do not know.
    let unheard = u64::from(!scene.has_broker());
    assert_eq!(host.counters().unheard.get(), unheard);
    stop(host).await;
}

pub async fn a_resent_identity_is_handled_once(scene: Scene) {
    let host = scene.host("work", |e| e.handle(note)).await;
    let (bus, id) = (host.bus(), MessageId::new());
    let send = || async {
        let sent = bus.send(Do { n: 1 }).with_id(id).await;
        sent.expect("it is accepted");
        scene.quiet().await;
    };
    send().await;
    // A copy that comes before the first has committed may run, too, and is then refused.
    let committed = || async {
        let of = HistoryOf::Message(id);
        let found = scene.admin().history(&of, Page::oldest(10)).await;
        (found.expect("history can be read").len() == 1).then_some(())
    };
    eventually("the first has committed", committed).await;
    send().await;
    send().await;
    bus.send(Do { n: 2 }).await.expect("it is stored");
    scene.log.wait_for(2).await;
    stop(host).await;
    assert_eq!(scene.log.lines(), ["do 1", "do 2"]);
}

pub async fn a_thousand_messages_are_handled_once_each(scene: Scene) {
    let builder = scene.builder("host").endpoint("work", |e| e.handle(do_it));
    let host = start(builder.endpoint("audit", |e| e.handle(note_done))).await;
    let bus = host.bus();
    let sends = (0..1000).map(|n| {
        let bus = bus.clone();
        async move { bus.send(Do { n }).await }
    });
    for sent in futures_util::future::join_all(sends).await {
        sent.expect("it is stored");
    }
    scene.log.wait_for(2000).await;
    scene.quiet().await;
    stop(host).await;
    let lines = scene.log.lines();
    let distinct: HashSet<_> = lines.iter().collect();
    assert_eq!((lines.len(), distinct.len()), (2000, 2000));
    let counts = scene.counts().await;
    assert_eq!(
        (counts.dead_letters, counts.parked, counts.history),
        (0, 0, 2000)
    );
}

pub async fn conversation_and_cause_travel_with_what_a_handler_sends(scene: Scene) {
    async fn note_headers(_: Done, cx: Ctx, log: State<Log>) {
        let header = |name| cx.headers().get(name).unwrap_or("none").to_owned();
        log.add(header(headers::CORRELATION_ID));
        log.add(header(headers::CAUSATION_ID));
        log.add(header(headers::TRACEPARENT));
    }
    let builder = scene.builder("host").endpoint("work", |e| e.handle(do_it));
    let host = start(builder.endpoint("audit", |e| e.handle(note_headers))).await;
    let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let id = host
        .bus()
        .send(Do { n: 1 })
        .header(headers::TRACEPARENT, trace)
        .await;
    let id = id.expect("it is stored").to_string();
    let lines = scene.log.wait_for(4).await;
    assert_eq!(lines, ["do 1", &id, &id, trace]);
    stop(host).await;
}

/// Travels as MessagePack.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Measured {
    celsius: i32,
}

impl Message for Measured {
    const TYPE: &'static str = "test.measured";
    const KIND: Kind = Kind::Event;
    const CONTENT_TYPE: &'static str = codec::MSGPACK;

    fn encode(&self) -> Result<Bytes, CodecError> {
        codec::encode_msgpack(self)
    }

    fn decode(body: &[u8]) -> Result<Self, CodecError> {
        codec::decode_msgpack(body)
    }
}
impl Event for Measured {}

/// Its content type says how it is read; an endpoint that takes another one alone does not get it.
pub async fn a_type_with_a_codec_of_its_own_travels_by_it(scene: Scene) {
    async fn note_measured(event: Measured, cx: Ctx, log: State<Log>) {
        let content_type = cx.headers().get(headers::CONTENT_TYPE);
        let content_type = content_type.unwrap_or("nothing");
        log.add(format!("{} as {content_type}", event.celsius));
    }
    let builder = scene.builder("host");
    let builder = builder.endpoint("open", |e| e.handle(note_measured));
    let builder = builder.endpoint("strict", |e| {
        e.content_types([codec::JSON]).handle(note_measured)
    });
    let host = start(builder).await;
    let published = host.bus().publish(Measured { celsius: -3 }).await;
    let id = published.expect("it is stored");
    assert_eq!(scene.log.wait_for(1).await, ["-3 as application/msgpack"]);
    let dead = scene.dead_letters(1).await.remove(0);
    assert_eq!((dead.envelope.id, dead.endpoint.as_str()), (id, "strict"));
    assert_eq!(dead.reason, "content_not_accepted");
    scene.quiet().await;
    stop(host).await;
    assert_eq!(scene.log.lines().len(), 1);
}

/// Says when the rest begins and ends, by its name.
struct Around(&'static str);

impl Middleware for Around {
    fn name(&self) -> &'static str {
        self.0
    }

    fn run<'a>(&'a self, cx: &'a Ctx, next: Next<'a>) -> BoxFuture<'a, Result> {
        async move {
            let log = cx.state::<Log>()?;
            log.add(format!("{} begins", self.0));
            let result = next.run(cx).await;
            log.add(format!("{} ends", self.0));
            result
        }
        .boxed()
    }
}

pub async fn a_middleware_runs_around_every_handler_of_its_endpoint(scene: Scene) {
    let build = |e: sagabus_core::EndpointBuilder| {
        let e = e.middleware(Around("outer")).middleware(Around("inner"));
        e.handle(note)
    };
    let host = scene.host("work", build).await;
    host.bus().send(Do { n: 1 }).await.expect("it is stored");
    let lines = scene.log.wait_for(5).await;
    let around = [
        "outer begins",
        "inner begins",
        "do 1",
        "inner ends",
        "outer ends",
    ];
    assert_eq!(lines, around);
    stop(host).await;
}
