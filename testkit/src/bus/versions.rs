//! Messages that change their shape or their name while old and new hosts run side by side.
#![expect(missing_docs, reason = "a behaviour says by its name what it shows")]

use std::collections::BTreeSet;

use sagabus_core::{
    Command, Event, HandlerError, HostBuilder, Kind, Message, Result, RunningHost, State,
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::scene::{Log, Scene, quick_retry, start, stop};

/// Declares a message of one release: its name, former names, version and fields.
macro_rules! release {
    ($kind:ident $name:ident $type:literal $aliases:expr, version $version:literal $(, $upcast:path)?;
     $($field:ident: $of:ty),*) => {
        #[derive(Debug, Serialize, Deserialize)]
        struct $name {
            $($field: $of,)*
        }

        impl Message for $name {
            const TYPE: &'static str = $type;
            const ALIASES: &'static [&'static str] = &$aliases;
            const KIND: Kind = Kind::$kind;
            const VERSION: u32 = $version;
            $(fn upcast(from: u32, body: Value) -> Result<Value> {
                $upcast(from, body)
            })?
        }
        impl $kind for $name {}
    };
}

release! { Command PayEuros "test.pay" [], version 1; n: u32, euros: i64 }
release! { Command PayCents "test.pay" [], version 3, to_cents; n: u32, cents: i64, currency: String }
release! { Command PayNothing "test.pay" [], version 3; n: u32 }

/// Version 1 had euros, version 2 cents, version 3 a currency beside them.
fn to_cents(from: u32, mut body: Value) -> Result<Value> {
    if from == 1 {
        let euros = body["euros"].as_i64();
        let euros = euros.ok_or_else(|| HandlerError::new("no euros"))?;
        return Ok(json!({ "n": body["n"], "cents": euros * 100 }));
    }
    body["currency"] = "EUR".into();
    Ok(body)
}

async fn take_euros(command: PayEuros, log: State<Log>) {
    log.add(format!("{}: {} euros", command.n, command.euros));
}

async fn take_cents(command: PayCents, log: State<Log>) {
    let PayCents { n, cents, currency } = command;
    log.add(format!("{n}: {cents} {currency}"));
}

pub async fn an_older_message_is_brought_to_the_shape_of_today(scene: Scene) {
    let host = scene.host("till", |e| e.handle(take_cents)).await;
    let older = PayEuros { n: 1, euros: 3 };
    host.bus().send(older).await.expect("it is stored");
    assert_eq!(scene.log.wait_for(1).await, ["1: 300 EUR"]);
    let today = PayCents {
        n: 2,
        cents: 5,
        currency: "USD".to_owned(),
    };
    host.bus().send(today).await.expect("it is stored");
    assert_eq!(scene.log.wait_for(2).await[1], "2: 5 USD");
    stop(host).await;
}

release! { Command PayOdd "test.pay" [], version 1; n: u32 }

pub async fn an_older_message_that_fits_no_shape_is_a_dead_letter(scene: Scene) {
    let host = scene.host("till", |e| e.handle(take_cents)).await;
    let odd = PayOdd { n: 1 };
    host.bus().send(odd).await.expect("it is stored");
    let dead = scene.dead_letters(1).await;
    assert_eq!(dead[0].reason, "undecodable");
    let error = &dead[0].attempts[0].error;
    assert!(error.contains("no euros"), "{error}");
    let bus = host.bus();
    let nonsense = bus.send(PayNothing { n: 2 });
    let nonsense = nonsense.header(sagabus_core::headers::VERSION, "latest");
    nonsense.await.expect("it is stored");
    let dead = scene.dead_letters(2).await;
    assert_eq!(dead[0].reason, "undecodable");
    let error = &dead[0].attempts[0].error;
    assert!(error.contains("sagabus-version"), "{error}");
    stop(host).await;
    assert_eq!(scene.log.lines(), [""; 0]);
}

pub async fn a_newer_message_waits_for_the_newer_host(scene: Scene) {
    let old = start(
        scene
            .builder("old")
            .endpoint("till", |e| e.handle(take_euros)),
    );
    let old = old.await;
    let newer = PayCents {
        n: 1,
        cents: 5,
        currency: "USD".to_owned(),
    };
    old.bus().send(newer).await.expect("it is stored");
    let dead = scene.dead_letters(1).await;
    assert_eq!(dead[0].reason, "newer_version");
    stop(old).await;
    let builder = scene.builder_on("new", scene.peer());
    let new = start(builder.endpoint("till", |e| e.handle(take_cents))).await;
    let is_back = scene.admin().redrive(dead[0].id).await;
    assert!(is_back.expect("the store answers"), "it is redriven");
    assert_eq!(scene.log.wait_for(1).await, ["1: 5 USD"]);
    stop(new).await;
}

release! { Command Book "test.book" [], version 1; n: u32 }
release! { Command Reserve "test.reserve" ["test.book", "test.hold"], version 1; n: u32 }
release! { Event Booked "test.booked" [], version 1; n: u32 }
release! { Event Reserved "test.reserved" ["test.booked"], version 1; n: u32 }

async fn reserve(command: Reserve, log: State<Log>) {
    log.add(format!("reserve {}", command.n));
}

async fn note_reserved(event: Reserved, log: State<Log>) {
    log.add(format!("reserved {}", event.n));
}

pub async fn a_renamed_message_answers_to_its_former_names(scene: Scene) {
    let builder = scene.builder("host");
    let builder = builder.endpoint("rooms", |e| e.handle(reserve));
    let host = start(builder.endpoint("mails", |e| e.handle(note_reserved))).await;
    let bus = host.bus();
    bus.send(Book { n: 1 }).await.expect("it has an owner");
    bus.send(Reserve { n: 2 }).await.expect("it has an owner");
    bus.publish(Booked { n: 3 }).await.expect("it is stored");
    bus.publish(Reserved { n: 4 }).await.expect("it is stored");
    let lines: BTreeSet<_> = scene.log.wait_for(4).await.into_iter().collect();
    let expected = ["reserve 1", "reserve 2", "reserved 3", "reserved 4"];
    assert_eq!(lines, expected.map(str::to_owned).into());
    scene.quiet().await;
    stop(host).await;
    assert_eq!(scene.log.lines().len(), 4, "each once");
}

/// The release before a name changes: it sends the old one and takes both.
mod before {
    use super::*;

    release! { Command Order "test.buy" ["test.order"], version 1; n: u32 }

    async fn take(command: Order, log: State<Log>) {
        log.add(format!("{}", command.n));
    }

    pub(super) fn on(builder: HostBuilder) -> HostBuilder {
        builder.endpoint("shop", |e| e.handle(take).retry(quick_retry()))
    }

    pub(super) async fn send(host: &RunningHost, n: u32) {
        let sent = host.bus().send(Order { n }).await;
        sent.expect("it has an owner");
    }
}

/// The release that sends the new name.
mod after {
    use super::*;

    release! { Command Order "test.order" ["test.buy"], version 1; n: u32 }

    async fn take(command: Order, log: State<Log>) {
        log.add(format!("{}", command.n));
    }

    pub(super) fn on(builder: HostBuilder) -> HostBuilder {
        builder.endpoint("shop", |e| e.handle(take).retry(quick_retry()))
    }

    pub(super) async fn send(host: &RunningHost, n: u32) {
        let sent = host.bus().send(Order { n }).await;
        sent.expect("it has an owner");
    }
}

pub async fn two_releases_share_an_endpoint_while_a_name_changes(scene: Scene) {
    let old = start(before::on(scene.builder("old"))).await;
    let new = start(after::on(scene.builder_on("new", scene.peer()))).await;
    for n in 0..20 {
        before::send(&old, n).await;
        after::send(&new, 100 + n).await;
    }
    let all = |log: &Log| log.lines().into_iter().collect::<BTreeSet<_>>();
    scene.log.wait_for(40).await;
    scene.quiet().await;
    stop(old).await;
    stop(new).await;
    let expected = (0..20).chain(100..120).map(|n| n.to_string());
    assert_eq!(all(&scene.log), expected.collect());
    assert_eq!(scene.log.lines().len(), 40, "each once");
    assert_eq!(scene.counts().await.dead_letters, 0);
}
