//! What a host refuses to be built of, in words that name the thing and the remedy.

use std::borrow::Cow;
use std::time::Duration;

use sagabus_core::endpoint::Order;
use sagabus_core::handler::State;
use sagabus_core::memory::{MemoryStore, MemoryTransport};
use sagabus_core::retry::Retry;
use sagabus_core::store::{EndpointSpec, Retention};
use sagabus_core::{
    Capabilities, Command, EndpointBuilder, Event, Host, HostBuilder, Kind, Message, Transport,
};
use sagabus_testkit::transport::{Alteration, Altered};
use serde::{Deserialize, Serialize};

/// Declares an empty message.
macro_rules! message {
    ($name:ident, $kind:ident, $type:expr) => {
        #[derive(Serialize, Deserialize)]
        struct $name {}

        impl Message for $name {
            const TYPE: &'static str = $type;
            const KIND: Kind = Kind::$kind;
        }
        impl $kind for $name {}
    };
}

message!(Pay, Command, "build.pay");
message!(Paid, Event, "build.paid");
message!(Nameless, Command, "");
message!(Spaced, Command, "build spaced");

async fn pay(_: Pay) {}

async fn pay_again(_: Pay) {}

async fn note(_: Paid) {}

async fn nameless(_: Nameless) {}

async fn spaced(_: Spaced) {}

struct Gateway;

async fn charge(_: Pay, _: State<Gateway>) {}

fn builder() -> HostBuilder {
    Host::builder("shop").store(MemoryStore::new())
}

fn one(endpoint: EndpointBuilder) -> EndpointBuilder {
    endpoint.handle(pay)
}

/// Returns what building says when it refuses.
fn refusal(builder: HostBuilder) -> String {
    match builder.build() {
        Ok(host) => panic!("it was built: {}", host.describe()),
        Err(error) => error.to_string(),
    }
}

/// Checks that a refusal has all of these words: the thing, the fact and the remedy.
fn check(what: &str, builder: HostBuilder, words: &[&str]) {
    let text = refusal(builder);
    for word in words {
        assert!(text.contains(word), "{what}: no {word:?} in {text:?}");
    }
    assert!(!text.ends_with('.'), "{what}: {text:?}");
}

#[test]
fn what_would_lose_or_block_messages_is_refused_with_its_remedy() {
    let module = module_path!();
    let two = [format!("{module}::pay`"), format!("{module}::pay_again`")];
    check(
        "no store",
        Host::builder("shop").endpoint("payments", one),
        &["host `shop`", "no store", "`.store(..)`"],
    );
    check(
        "one endpoint twice",
        builder()
            .endpoint("payments", one)
            .endpoint("payments", |e| e.handle(note)),
        &["endpoint `payments`", "twice", "one `.endpoint(..)` call"],
    );
    check(
        "tries of a type that is handled elsewhere",
        builder()
            .endpoint("payments", |e| e.handle(pay))
            .endpoint("audit", |e| e.handle(note).retry_for::<Pay>(Retry::none())),
        &["endpoint `audit`", "`build.pay`", "`.retry_for::<..>(..)`"],
    );
    check(
        "a rehearsal of a type that is handled elsewhere",
        builder().endpoint("audit", |e| e.handle(note).rehearses::<Pay>()),
        &["endpoint `audit`", "`build.pay`", "`.rehearses::<..>(..)`"],
    );
    check(
        "an endpoint without handlers",
        builder().endpoint("payments", |e| e),
        &[
            "endpoint `payments`",
            "no handler",
            "`.handle(..)`",
            "remove the endpoint",
        ],
    );
    check(
        "two subscribers of one type",
        builder().endpoint("payments", |e| e.handle(pay).handle(pay_again)),
        &[
            "endpoint `payments`",
            "`build.pay`",
            &two[0],
            &two[1],
            "an endpoint of its own",
        ],
    );
    check(
        "two owners of one command",
        builder().endpoint("payments", one).endpoint("more", one),
        &[
            "command `build.pay`",
            "`payments`",
            "`more`",
            "remove one handler",
            "an event",
        ],
    );
    check(
        "a state that nobody gave",
        builder().endpoint("payments", |e| e.handle(charge)),
        &[
            "endpoint `payments`",
            "::charge`",
            "Gateway",
            "`.state(..)`",
        ],
    );
    check(
        "an inbox that forgets too soon",
        builder().endpoint("payments", one).retention(Retention {
            inbox: Duration::from_secs(60),
            ..Retention::default()
        }),
        &[
            "inbox retention of 60s",
            "`.retention(..)`",
            "shorten the retries",
        ],
    );
    // An hour more than the tries take, and no less.
    let tries = Retry {
        immediate: 0,
        delayed: 3,
        delay: Duration::from_secs(3600),
        delay_max: Duration::from_secs(3600),
        ..Retry::default()
    };
    for (hours, is_enough) in [(4, true), (3, false)] {
        let inbox = Duration::from_secs(hours * 3600);
        let patient = builder()
            .endpoint("payments", |e| e.handle(pay).retry(tries.clone()))
            .retention(Retention {
                inbox,
                ..Retention::default()
            });
        match is_enough {
            true => assert!(patient.build().is_ok(), "{hours} h are enough"),
            false => check(
                "tries that outlast the inbox",
                patient,
                &["10800s", "14400s"],
            ),
        }
    }
}

#[test]
fn names_that_no_store_and_broker_could_keep_are_refused() {
    let long = "x".repeat(101);
    for name in [
        "",
        "Payments",
        "pay ments",
        "zahlung\u{fc}",
        "@payments",
        "a\0b",
        &long,
    ] {
        let quoted = format!("{name:?}");
        let words = [quoted.as_str(), "1 to 100 characters", "a-z"];
        check("an endpoint's name", builder().endpoint(name, one), &words);
    }
    let longest = "x".repeat(100);
    for name in ["p", "payments.v2_eu-west", &longest] {
        assert!(builder().endpoint(name, one).build().is_ok(), "{name}");
    }
    let words = ["1 to 200 visible ASCII"];
    let endpoint = builder().endpoint("payments", |e| e.handle(nameless));
    check("a type without a name", endpoint, &[words[0], "\"\""]);
    let endpoint = builder().endpoint("payments", |e| e.handle(spaced));
    check(
        "a type with a space",
        endpoint,
        &[words[0], "\"build spaced\""],
    );
}

#[test]
fn an_event_has_many_subscribers_and_a_state_that_was_given_is_enough() {
    let host = builder()
        .state(Gateway)
        .endpoint("payments", |e| e.handle(charge).handle(note))
        .endpoint("audit", |e| e.handle(note));
    let host = host.build().unwrap();
    assert!(host.state::<Gateway>().is_some());
}

#[test]
fn a_host_describes_its_endpoints_pipeline_and_handlers() {
    let host = builder()
        .endpoint("payments", |e| {
            let definition = serde_json::json!({"machine": "payment"});
            let often = Retry {
                immediate: 7,
                ..Retry::default()
            };
            let e = e.handle(pay).handle(note).definition(definition);
            e.retry_for::<Pay>(often)
        })
        .endpoint("audit", |e| {
            let e = e.handle(note).order(Order::PerKey).capacity(7);
            e.retry(Retry::none())
        });
    let described = host.build().unwrap().describe();
    let at = |pointer: &str| described.pointer(pointer).cloned().unwrap_or_default();
    let name = |handler: &str| -> Cow<'_, str> { format!("{}::{handler}", module_path!()).into() };
    for (pointer, expected) in [
        ("/host", serde_json::json!("shop")),
        ("/endpoints/0/endpoint", "payments".into()),
        ("/endpoints/0/handlers/0/type", "build.paid".into()),
        ("/endpoints/0/handlers/0/kind", "event".into()),
        ("/endpoints/0/handlers/0/handler", name("note").into()),
        ("/endpoints/0/handlers/1/type", "build.pay".into()),
        ("/endpoints/0/handlers/1/kind", "command".into()),
        ("/endpoints/0/handlers/1/handler", name("pay").into()),
        ("/endpoints/0/handlers/1/version", 1.into()),
        ("/endpoints/0/definitions/0/machine", "payment".into()),
        ("/endpoints/0/retry/immediate", 2.into()),
        ("/endpoints/1/endpoint", "audit".into()),
        ("/endpoints/1/capacity", 7.into()),
        ("/endpoints/1/order", "PerKey".into()),
        ("/endpoints/1/retry/delayed", 0.into()),
        ("/endpoints/0/handlers/0/retry", serde_json::Value::Null),
        ("/endpoints/0/handlers/1/retry/immediate", 7.into()),
        (
            "/endpoints/1/pipeline",
            serde_json::json!(["trace", "catch-panic", "deadline", "guard-bus"]),
        ),
        (
            "/steps",
            serde_json::json!([
                "receive", "decode", "lane", "load", "pipeline", "retry", "commit", "ack"
            ]),
        ),
    ] {
        assert_eq!(at(pointer), expected, "{pointer} of {described:#}");
    }
}

#[test]
fn transports_that_do_not_fit_together_are_refused() {
    let archive = || builder().transport_named("archive", MemoryTransport::new());
    check(
        "a name that is none",
        builder()
            .transport_named("a:b", MemoryTransport::new())
            .endpoint("payments", one),
        &["transport name \"a:b\"", "not usable", "a-z"],
    );
    check(
        "one name twice",
        archive()
            .transport_named("archive", MemoryTransport::new())
            .endpoint("payments", one),
        &["host", "`archive`", "another name"],
    );
    check(
        "an endpoint of nowhere",
        builder().endpoint("payments", |e| one(e).reads_from("archive")),
        &[
            "endpoint `payments`",
            "`archive`",
            "`.transport_named(\"archive\", ..)`",
        ],
    );
    check(
        "a route to nowhere",
        archive().route::<Paid>("attic").endpoint("payments", one),
        &[
            "route of `build.paid`",
            "`attic`",
            "`.transport_named(\"attic\", ..)`",
        ],
    );
    let elsewhere = [
        "command `build.pay`",
        "`archive`",
        "endpoint `payments`",
        "`default`",
        "`.reads_from(..)`",
    ];
    check(
        "a command that does not go to its owner",
        archive().route::<Pay>("archive").endpoint("payments", one),
        &elsewhere,
    );
    check(
        "an announcement that goes by another transport than its handler's",
        archive()
            .transport(MemoryTransport::new())
            .announces::<Paid>()
            .endpoint("audit", |e| e.reads_from("archive").handle(note)),
        &["`shop`", "`build.paid`", "the same transport"],
    );
    check(
        "an order that the endpoint's own transport breaks",
        builder()
            .transport(MemoryTransport::new())
            .transport_named("loose", Altered(Loose(MemoryTransport::new())))
            .endpoint("payments", |e| {
                one(e).reads_from("loose").order(Order::PerKey)
            }),
        &["endpoint `payments`", "order per key"],
    );
}

#[test]
fn a_host_describes_its_transports_and_what_goes_by_each() {
    let host = builder()
        .transport(MemoryTransport::new())
        .transport_named("loose", Altered(Loose(MemoryTransport::new())))
        .route::<Paid>("loose")
        .endpoint("payments", |e| one(e).reads_from("loose"))
        .endpoint("audit", |e| e.handle(note));
    let described = host.build().unwrap().describe();
    let at = |pointer: &str| described.pointer(pointer).cloned().unwrap_or_default();
    for (pointer, expected) in [
        ("/transports/0/transport", serde_json::json!("default")),
        ("/transports/0/order", "PerKey".into()),
        ("/transports/0/routes", serde_json::json!([])),
        ("/transports/1/transport", "loose".into()),
        ("/transports/1/order", "Unordered".into()),
        (
            "/transports/1/routes",
            serde_json::json!(["build.paid", "build.pay"]),
        ),
        // Only what reads from it, and what asks by it.
        (
            "/transports/1/topology/queues",
            serde_json::json!([
                { "name": "payments", "types": ["build.pay"] },
                { "name": "audit", "types": [] },
            ]),
        ),
        ("/endpoints/0/reads_from", "loose".into()),
        ("/endpoints/1/reads_from", "default".into()),
    ] {
        assert_eq!(at(pointer), expected, "{pointer} of {described:#}");
    }
}

#[test]
fn an_announcement_that_nobody_here_applies_is_refused() {
    let host = builder().announces::<Paid>().endpoint("pay", one);
    let refused = refusal(host);
    for word in ["`shop`", "`build.paid`", "add a handler", "`publish`"] {
        assert!(refused.contains(word), "{word} is not in: {refused}");
    }
    let host = builder().announces::<Paid>();
    let host = host
        .endpoint("pay", one)
        .endpoint("note", |e| e.handle(note));
    let host = host.build().unwrap();
    assert_eq!(
        host.describe()["announces"],
        serde_json::json!(["build.paid"])
    );
}

/// A broker that keeps no order.
#[derive(Debug)]
struct Loose(MemoryTransport);

impl Alteration for Loose {
    fn transport(&self) -> &dyn Transport {
        &self.0
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities {
            order: Order::Unordered,
            ..self.0.capabilities()
        }
    }

    fn topology(&self, endpoints: &[EndpointSpec]) -> serde_json::Value {
        let queues = endpoints.iter().map(|one| {
            let types = one.subscriptions.iter().map(|one| &one.message_type);
            serde_json::json!({ "name": one.name, "types": types.collect::<Vec<_>>() })
        });
        serde_json::json!({ "queues": queues.collect::<Vec<_>>() })
    }
}

#[test]
fn an_order_that_the_transport_does_not_keep_is_refused() {
    let ordered = |endpoint: EndpointBuilder| one(endpoint).order(Order::PerKey);
    let loose = || Altered(Loose(MemoryTransport::new()));
    let refused = refusal(builder().transport(loose()).endpoint("pay", ordered));
    for word in ["`pay`", "order per key", "`Order::Unordered`"] {
        assert!(refused.contains(word), "{word} is not in: {refused}");
    }
    assert!(
        builder()
            .transport(loose())
            .endpoint("pay", one)
            .build()
            .is_ok()
    );
    let kept = builder().transport(MemoryTransport::new());
    assert!(kept.endpoint("pay", ordered).build().is_ok());
}
