//! Bodies that only a key opens, and bodies that are not shown.
#![expect(missing_docs, reason = "a behaviour says by its name what it shows")]

use std::time::Duration;

use sagabus_core::admin::{DeadLetterFilter, HistoryOf, Page, RowFilter};
use sagabus_core::error::RequestError;
use sagabus_core::{
    Bus, Command, Ctx, Destination, EndpointName, Envelope, Event, Fault, HandlerError,
    HostBuilder, Keyring, Kind, Message, MessageId, Outgoing, Protection, Redaction, Result,
    RunningHost, State, cron, headers,
};
use serde::{Deserialize, Serialize};

use super::scene::{Log, Scene, quick_retry, start, stop};
use crate::wait::eventually;

/// What must be in no table, no error and on no broker.
const CARD: &str = "4111-CANARY-1111";
/// Long enough for anything that is going to happen.
const LONG: Duration = Duration::from_secs(20);

/// Declares a message with a number, and a card that is nobody's business.
macro_rules! with_card {
    ($name:ident $type:literal $kind:ident) => {
        #[derive(Clone, Debug, Serialize, Deserialize)]
        struct $name {
            n: u32,
            card: String,
        }

        impl $name {
            fn of(n: u32) -> Self {
                let card = CARD.to_owned();
                Self { n, card }
            }
        }

        impl Message for $name {
            const TYPE: &'static str = $type;
            const KIND: Kind = Kind::$kind;
        }
    };
}

with_card!(Pay "test.pay-by-card" Command);
impl Command for Pay {}
with_card!(Refund "test.refund-to-card" Command);
impl Command for Refund {}
with_card!(Remind "test.remind-of-card" Command);
impl Command for Remind {}
with_card!(Paid "test.paid-by-card" Event);
impl Event for Paid {}
with_card!(Receipt "test.receipt-of-card" Reply);

/// A refund as it is published when it died.
#[derive(Debug, Deserialize, Serialize)]
struct DeadRefund {
    card: String,
}

impl Message for DeadRefund {
    const TYPE: &'static str = "refunds-dlt";
    const KIND: Kind = Kind::Event;
}
impl Event for DeadRefund {}

fn keys() -> Keyring {
    Keyring::new("k1", [1; 32]).expect("a usable id")
}

/// A host whose messages are all sealed.
fn sealing(scene: &Scene, keys: Keyring) -> HostBuilder {
    let builder = scene.builder("host");
    builder.protects(keys, Protection::Required)
}

/// A host without keys, which sends what it is told to.
async fn plain(scene: &Scene) -> RunningHost {
    start(scene.builder_on("stranger", scene.peer())).await
}

async fn pay(command: Pay, cx: Ctx, log: State<Log>) -> Result<Paid> {
    if command.card != CARD {
        return Err(HandlerError::new("another card").terminal());
    }
    if cx.attempt() < 3 {
        return Err(HandlerError::new("not yet"));
    }
    log.add(format!("pay {}", command.n));
    cx.schedule(Duration::from_secs(3600), Remind::of(command.n))?;
    Ok(Paid::of(command.n))
}

async fn note(command: Pay, log: State<Log>) {
    assert_eq!(command.card, CARD);
    log.add(format!("pay {}", command.n));
}

async fn refuse(_: Refund) -> Result {
    Err(HandlerError::new("never").terminal())
}

async fn remind(_: Remind) {}

async fn book(event: Paid, log: State<Log>) {
    assert_eq!(event.card, CARD);
    log.add(format!("book {}", event.n));
}

async fn mail(event: Paid, log: State<Log>) {
    assert_eq!(event.card, CARD);
    log.add(format!("mail {}", event.n));
}

/// Everything that the tables hold of messages: type, key, body.
async fn stored(scene: &Scene) -> Vec<Envelope> {
    let all = Page::latest(100);
    let rows = scene.admin().rows(&RowFilter::default(), all).await;
    let rows = rows.expect("rows can be read").into_iter();
    let dead = DeadLetterFilter::any();
    let dead = scene.admin().find_dead_letters(&dead, all).await;
    let dead = dead.expect("dead letters can be read").into_iter();
    rows.map(|one| one.envelope)
        .chain(dead.map(|one| one.envelope))
        .collect()
}

fn holds_card(one: &Envelope) -> bool {
    String::from_utf8_lossy(&one.body).contains("CANARY")
}

pub async fn what_is_sealed_reaches_its_handlers_and_is_stored_nowhere_in_plain(scene: Scene) {
    let builder = sealing(&scene, keys())
        .endpoint("till", |e| e.handle(pay).retry(quick_retry()))
        .endpoint("refunds", |e| e.handle(refuse))
        .endpoint("reminders", |e| e.handle(remind))
        .endpoint("books", |e| e.handle(book))
        .endpoint("mails", |e| e.handle(mail));
    let host = start(builder).await;
    host.bus().send(Pay::of(7)).await.expect("it is stored");
    host.bus().send(Refund::of(8)).await.expect("it is stored");
    let bus = host.bus();
    let later = bus.schedule(LONG * 100, Remind::of(9));
    later.await.expect("it is stored");
    let mut lines = scene.log.wait_for(3).await;
    lines.sort();
    assert_eq!(lines, ["book 7", "mail 7", "pay 7"]);
    let dead = scene.dead_letters(1).await;
    assert_eq!(dead[0].reason, "terminal");
    let all = stored(&scene).await;
    assert!(all.len() >= 3, "{all:?}");
    for one in &all {
        assert_eq!(one.headers.get(headers::SEALED), Some("k1"), "{one:?}");
        assert!(!holds_card(one), "{one:?}");
        let opened = keys().open(one).expect("it was sealed with this key");
        assert!(holds_card(&opened), "{opened:?}");
    }
    stop(host).await;
}

/// Sends a message as it is, to whoever takes its type.
async fn send_as_it_is(bus: &Bus, envelope: Envelope) {
    let one = Outgoing::from_envelope(envelope, Destination::Owner);
    bus.send_all(vec![one]).await.expect("it is stored");
}

fn sealed<M: Message>(message: &M) -> Envelope {
    let mut envelope = Envelope::new(message).expect("it can be encoded");
    keys().seal(&mut envelope).expect("it can be sealed");
    envelope
}

/// What may be made of sealed messages without their key, each with an identity of its own.
fn forged(other: &Envelope) -> [Envelope; 6] {
    let mut swapped = sealed(&Pay::of(1));
    swapped.body = other.body.clone();
    let mut replayed = sealed(&Pay::of(1));
    replayed.id = MessageId::new();
    let mut retyped = sealed(&Refund::of(3));
    retyped.message_type = Pay::TYPE.into();
    let mut flipped = sealed(&Pay::of(1));
    let mut bytes = flipped.body.to_vec();
    bytes[30] ^= 1;
    flipped.body = bytes.into();
    let mut keyed = sealed(&Pay::of(1));
    keyed.headers.set(headers::KEY, "another");
    let mut empty = sealed(&Pay::of(1));
    empty.body.clear();
    [swapped, replayed, retyped, flipped, keyed, empty]
}

pub async fn what_was_not_sealed_for_this_message_is_a_dead_letter(scene: Scene) {
    let builder = sealing(&scene, keys()).endpoint("till", |e| e.handle(note));
    let host = start(builder).await;
    let stranger = plain(&scene).await;
    let other = sealed(&Pay::of(2));
    let forged = forged(&other);
    let count = forged.len();
    for envelope in forged {
        send_as_it_is(&stranger.bus(), envelope).await;
    }
    let dead = scene.dead_letters(count).await;
    for one in &dead {
        assert_eq!(
            (one.reason.as_str(), one.attempts.len()),
            ("cannot_open", 1)
        );
        assert!(
            one.attempts[0].error.ends_with("[SB0501]"),
            "{:?}",
            one.attempts
        );
    }
    assert_eq!(scene.log.lines(), [""; 0]);
    // As it was sealed it is handled, and once: the inbox knows the second.
    // Only once it is committed: two that a broker brings at once may both be tried.
    send_as_it_is(&stranger.bus(), other.clone()).await;
    scene.log.wait_for(1).await;
    let of = HistoryOf::Message(other.id);
    let committed = || async {
        let found = scene.admin().history(&of, Page::oldest(10)).await;
        (found.expect("history can be read").len() == 1).then_some(())
    };
    eventually("a history entry", committed).await;
    for envelope in [other, sealed(&Pay::of(4))] {
        send_as_it_is(&stranger.bus(), envelope).await;
    }
    assert_eq!(scene.log.wait_for(2).await, ["pay 2", "pay 4"]);
    scene.quiet().await;
    assert_eq!(scene.log.count("pay 2"), 1);
    stop(stranger).await;
    stop(host).await;
}

pub async fn what_is_not_sealed_is_a_dead_letter_where_that_is_required(scene: Scene) {
    let stranger = plain(&scene).await;
    let builder = sealing(&scene, keys()).endpoint("till", |e| e.handle(note));
    let host = start(builder).await;
    stranger.bus().send(Pay::of(1)).await.expect("it is stored");
    let dead = scene.dead_letters(1).await;
    assert_eq!(dead[0].reason, "not_sealed");
    assert!(dead[0].attempts[0].error.ends_with("[SB0502]"));
    stop(host).await;
    // While senders learn to seal, both are taken.
    let builder = sealing(&scene, keys()).protection::<Pay>(Protection::Sealed);
    let host = start(builder.endpoint("till", |e| e.handle(note))).await;
    stranger.bus().send(Pay::of(2)).await.expect("it is stored");
    host.bus().send(Pay::of(3)).await.expect("it is stored");
    let mut lines = scene.log.wait_for(2).await;
    lines.sort();
    assert_eq!(lines, ["pay 2", "pay 3"]);
    stop(stranger).await;
    stop(host).await;
}

pub async fn what_waits_is_opened_after_its_key_was_replaced(scene: Scene) {
    let till = |builder: HostBuilder| builder.endpoint("till", |e| e.handle(note));
    let host = start(till(sealing(&scene, keys()))).await;
    let bus = host.bus();
    let later = bus.schedule(Duration::from_secs(2), Pay::of(1));
    later.await.expect("it is stored");
    stop(host).await;
    let newer = Keyring::new("k2", [2; 32]).expect("a usable id");
    let both = newer.opens("k1", [1; 32]).expect("a usable id");
    let host = start(till(sealing(&scene, both))).await;
    assert_eq!(scene.log.wait_for(1).await, ["pay 1"]);
    let bus = host.bus();
    let later = bus.schedule(LONG * 100, Pay::of(2));
    later.await.expect("it is stored");
    let all = stored(&scene).await;
    let sealed_with: Vec<_> = all
        .iter()
        .map(|one| one.headers.get(headers::SEALED))
        .collect();
    assert_eq!(sealed_with, [Some("k2")]);
    stop(host).await;
}

pub async fn an_unknown_key_makes_a_dead_letter_that_can_be_redriven(scene: Scene) {
    let till = |builder: HostBuilder| builder.endpoint("till", |e| e.handle(note));
    let sender = start(sealing(&scene, keys())).await;
    let other = Keyring::new("k2", [2; 32]).expect("a usable id");
    let without: [HostBuilder; 2] = [sealing(&scene, other), scene.builder("host")];
    for (round, builder) in (1..).zip(without) {
        let host = start(till(builder)).await;
        sender.bus().send(Pay::of(1)).await.expect("it is stored");
        let dead = scene.dead_letters(round).await;
        assert!(dead.iter().all(|one| one.reason == "cannot_open"));
        assert!(dead[0].attempts[0].error.contains("`k1`"), "{:?}", dead[0]);
        stop(host).await;
    }
    assert_eq!(scene.log.lines(), [""; 0]);
    let host = start(till(sealing(&scene, keys()))).await;
    for one in scene.dead_letters(2).await {
        let redriven = scene.admin().redrive(one.id).await;
        assert!(redriven.expect("it is stored"));
    }
    assert_eq!(scene.log.wait_for(2).await, ["pay 1", "pay 1"]);
    stop(sender).await;
    stop(host).await;
}

pub async fn who_asks_under_seal_gets_the_answer_under_seal(scene: Scene) {
    async fn answer(command: Pay, cx: Ctx, log: State<Log>) -> Result<Receipt> {
        let is_sealed = cx.headers().get(headers::SEALED).is_some();
        log.add(format!("sealed: {is_sealed}"));
        match command.n {
            0 => Err(HandlerError::new("no such sum").terminal()),
            n => Ok(Receipt::of(n + 1)),
        }
    }
    let builder = sealing(&scene, keys())
        .endpoint("shop", |e| e.answers::<Receipt>())
        .endpoint("till", |e| e.handle(answer));
    let host = start(builder).await;
    let bus = host.bus();
    let receipt = bus.request::<Receipt>(Pay::of(5)).within(LONG).await;
    let receipt = receipt.expect("it is answered");
    assert_eq!((receipt.n, receipt.card.as_str()), (6, CARD));
    let refused = bus.request::<Receipt>(Pay::of(0)).within(LONG).await;
    assert!(
        matches!(refused, Err(RequestError::Failed(_))),
        "{refused:?}"
    );
    assert_eq!(scene.log.lines(), ["sealed: true", "sealed: true"]);
    assert_eq!(scene.dead_letters(1).await.len(), 1);
    stop(host).await;
}

/// The other ways by which messages leave: each is taken only where it was sealed.
pub async fn what_is_sent_on_recurs_or_is_announced_is_sealed(scene: Scene) {
    async fn send_on(_: Paid, cx: Ctx) -> Result {
        let books = Destination::Endpoint(EndpointName::new("books")?);
        cx.push(Outgoing::from_envelope(cx.envelope().clone(), books))?;
        Ok(())
    }
    async fn noted(command: Remind, log: State<Log>) {
        if log.count("remind") == 0 {
            log.add("remind");
        }
        assert_eq!(command.card, CARD);
    }
    let builder = scene.with_broker(sealing(&scene, keys()));
    let builder = builder
        .announces::<Paid>()
        .recurring("remind", cron("* * * * * *"), |_| Remind::of(1))
        .endpoint("mails", |e| e.handle(send_on))
        .endpoint("books", |e| e.handle(book))
        .endpoint("reminders", |e| e.handle(noted));
    let host = start(builder).await;
    host.bus().announce(Paid::of(3)).await.expect("it is there");
    let mut lines = scene.log.wait_for(3).await;
    lines.sort();
    assert_eq!(lines, ["book 3", "book 3", "remind"]);
    stop(host).await;
}

pub async fn what_tells_of_a_sealed_dead_letter_is_sealed(scene: Scene) {
    async fn watch(fault: Fault<Refund>, cx: Ctx, log: State<Log>) {
        let is_sealed = cx.headers().get(headers::SEALED).is_some();
        let card = fault.message.map(|message| message.card);
        log.add(format!("fault, {is_sealed}, {card:?}"));
    }
    async fn mirrored(event: DeadRefund, cx: Ctx, log: State<Log>) {
        let is_sealed = cx.headers().get(headers::SEALED).is_some();
        log.add(format!("mirror, {is_sealed}, {}", event.card));
    }
    // Sealed is the refund alone: what tells of it is, because it is.
    let builder = scene.builder("host").protects(keys(), Protection::Plain);
    let builder = builder
        .protection::<Refund>(Protection::Required)
        .endpoint("refunds", |e| e.handle(refuse).mirrors_dead_letters())
        .endpoint("watch", |e| e.handle(watch).handle(mirrored));
    let host = start(builder).await;
    host.bus().send(Refund::of(1)).await.expect("it is stored");
    let mut lines = scene.log.wait_for(2).await;
    lines.sort();
    let wanted = [
        format!("fault, true, Some({CARD:?})"),
        format!("mirror, true, {CARD}"),
    ];
    assert_eq!(lines, wanted);
    stop(host).await;
}

pub async fn a_dead_letter_may_be_stored_without_its_body(scene: Scene) {
    async fn watch(fault: Fault<Refund>, log: State<Log>) {
        let body = fault.content.map(|content| content.body);
        log.add(format!("{body:?}"));
    }
    let redaction = Redaction::fields(["/card"]).never_in_dead_letters();
    let builder = scene.builder("host").redacts::<Refund>(redaction);
    let builder = builder
        .endpoint("refunds", |e| e.handle(refuse))
        .endpoint("watch", |e| e.handle(watch));
    let host = start(builder).await;
    host.bus().send(Refund::of(1)).await.expect("it is stored");
    let dead = scene.dead_letters(1).await;
    assert_eq!(dead[0].envelope.body, "");
    let bytes = Refund::of(1).encode().expect("it can be encoded").len();
    let told = dead[0].envelope.headers.get(headers::DROPPED);
    assert_eq!(told, Some(bytes.to_string().as_str()));
    let lines = scene.log.wait_for(1).await;
    assert!(!lines[0].contains("CANARY"), "{lines:?}");
    assert!(
        scene
            .admin()
            .redrive(dead[0].id)
            .await
            .expect("it is stored")
    );
    scene.quiet().await;
    let again = scene.dead_letters(1).await;
    assert_eq!(again[0].reason, "body_dropped");
    stop(host).await;
}

pub async fn what_is_masked_is_in_no_error(scene: Scene) {
    let mut odd = Envelope::new(&Pay::of(1)).expect("it can be encoded");
    odd.body = format!("{{\"n\":\"{CARD}\",\"card\":1}}").into();
    let builders = [
        scene
            .builder("host")
            .redacts::<Pay>(Redaction::fields(["/card"])),
        sealing(&scene, keys()),
    ];
    for (round, builder) in (1..).zip(builders) {
        let host = start(builder.endpoint("till", |e| e.handle(note))).await;
        let odd = Envelope {
            id: MessageId::new(),
            ..odd.clone()
        };
        send_as_it_is(&host.bus(), odd).await;
        let dead = scene.dead_letters(round).await;
        let error = &dead[0].attempts[0].error;
        assert_eq!(dead[0].reason, "undecodable");
        assert!(error.contains("line 1 column"), "{error}");
        assert!(!error.contains("CANARY"), "{error}");
        stop(host).await;
    }
}
