//! One span for each try of a message, with the names of OpenTelemetry and the sender's trace.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use sagabus_core::memory::MemoryStore;
use sagabus_core::{Command, Ctx, HandlerError, Host, Kind, Message, Result, Retry, headers};
use serde::{Deserialize, Serialize};
use tokio::time::sleep;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};

#[derive(Serialize, Deserialize)]
struct Print {
    page: u32,
}

impl Message for Print {
    const TYPE: &'static str = "traced.print";
    const KIND: Kind = Kind::Command;
}
impl Command for Print {}

async fn fail_once(_: Print, cx: Ctx) -> Result {
    match cx.attempt() {
        1 => Err(HandlerError::new("no paper")),
        _ => Ok(()),
    }
}

/// What was said by name, with its fields.
#[derive(Clone, Default)]
struct Said(Arc<Mutex<Vec<Line>>>);

#[derive(Clone, Debug, Default)]
struct Line {
    name: String,
    fields: BTreeMap<&'static str, String>,
}

impl Said {
    fn add(&self, line: Line) {
        self.0.lock().expect("nobody panics with it").push(line);
    }

    /// Returns the fields of all that have this name.
    fn named(&self, name: &str) -> Vec<BTreeMap<&'static str, String>> {
        let lines = self.0.lock().expect("nobody panics with it");
        let named = lines.iter().filter(|line| line.name == name);
        named.map(|line| line.fields.clone()).collect()
    }
}

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        let value = format!("{value:?}").trim_matches('"').to_owned();
        match field.name() {
            "message" => self.name = value,
            name => _ = self.fields.insert(name, value),
        }
    }
}

impl Subscriber for Said {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target().starts_with("sagabus")
    }

    fn new_span(&self, attributes: &Attributes<'_>) -> Id {
        let mut line = Line {
            name: attributes.metadata().name().to_owned(),
            ..Line::default()
        };
        attributes.record(&mut line);
        self.add(line);
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut line = Line::default();
        event.record(&mut line);
        self.add(line);
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

#[tokio::test(start_paused = true)]
async fn each_try_has_a_span_of_its_own_in_the_senders_trace() {
    const TRACE: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let said = Said::default();
    // Two: of a single one, `tracing` thinks that all threads have it or none.
    let _other = tracing::Dispatch::new(said.clone());
    let _guard = tracing::subscriber::set_default(said.clone());
    let retry = Retry {
        immediate: 1,
        ..Retry::none()
    };
    let host = Host::builder("printer")
        .store(MemoryStore::new())
        .endpoint("work", |e| e.handle(fail_once).retry(retry));
    let host = host.build().expect("it is put together well").start().await;
    let host = host.expect("it starts");
    let bus = host.bus();
    let sent = bus
        .send(Print { page: 1 })
        .header(headers::TRACEPARENT, TRACE);
    let id = sent.await.expect("it is stored").to_string();
    let counters = host.counters();
    // The unit that sent the message, and the one that answers it.
    while counters.committed.get() < 2 {
        sleep(Duration::from_millis(10)).await;
    }
    assert!(host.stop(Duration::from_secs(10)).await, "it stops");

    let span = |attempt: &str| {
        BTreeMap::from(
            [
                ("messaging.message.id", id.as_str()),
                ("messaging.message.type", Print::TYPE),
                ("messaging.message.conversation_id", &id),
                ("messaging.destination.name", "work"),
                ("traceparent", TRACE),
                ("attempt", attempt),
            ]
            .map(|(name, value)| (name, value.to_owned())),
        )
    };
    assert_eq!(said.named("handle"), [span("1"), span("2")]);
    let failed = said.named("handler failed");
    let failed: Vec<_> = failed.iter().map(|one| one["error"].as_str()).collect();
    assert_eq!(failed, ["no paper"]);
    assert_eq!(said.named("host runs").len(), 1);
}
