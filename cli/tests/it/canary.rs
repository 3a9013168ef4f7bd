//! Secrets that are known, looked for in everything that is said: logs, errors, `Debug`, health and
//! what the program prints.

use std::time::Duration;

use sagabus_core::admin::StoreAdmin;
use sagabus_core::error::chain;
use sagabus_core::{Destination, Envelope, HostBuilder, Keyring, Outgoing, Protection, Redaction};
use sagabus_outbox::{PgConfig, PgStore, SqliteStore};
use sagabus_testkit::saying::{heard, told};
use sagabus_testkit::wait::eventually;
use tracing::Level;

use crate::scene::{Charge, Scene, host_with, run};

/// Stands in a body, where it is masked or sealed.
const BODY: &str = "canary-body-4711";
/// Stands where a password stands.
const PASSWORD: &str = "canary-password-4711";
/// A key: no text, to find its bytes in whatever form.
const SECRET: [u8; 32] = [
    0xca, 0xfe, 0x47, 0x11, 0xca, 0xfe, 0x47, 0x11, 0xca, 0xfe, 0x47, 0x11, 0xca, 0xfe, 0x47, 0x11,
    0xca, 0xfe, 0x47, 0x11, 0xca, 0xfe, 0x47, 0x11, 0xca, 0xfe, 0x47, 0x11, 0xca, 0xfe, 0x47, 0x11,
];

fn keys() -> Keyring {
    Keyring::new("k1", SECRET).unwrap()
}

fn hex() -> String {
    SECRET.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn sealed(builder: HostBuilder) -> HostBuilder {
    masked(builder.protects(keys(), Protection::Sealed))
}

fn masked(builder: HostBuilder) -> HostBuilder {
    let builder = builder.redacts::<Charge>(Redaction::fields(["/note", "/order"]));
    println!("said {builder:?}");
    builder
}

/// A body that is no charge, with the canary where a number belongs.
fn odd() -> Outgoing {
    let note = BODY.to_owned();
    let mut odd = Envelope::new(&Charge { order: 1, note }).unwrap();
    odd.body = format!("{{\"order\":\"{BODY}\",\"note\":\"{BODY}\"}}").into();
    Outgoing::from_envelope(odd, Destination::Owner)
}

/// Runs a host that fails at whatever it gets, and prints what it says of itself.
async fn fails(store: &SqliteStore, declare: fn(HostBuilder) -> HostBuilder, dead: u64) {
    let host = host_with(store.clone(), declare).await;
    let note = BODY.to_owned();
    host.bus().send(Charge { order: 7, note }).await.unwrap();
    host.bus().send_all(vec![odd()]).await.unwrap();
    let all = || async {
        let counts = store.counts().await.unwrap();
        (counts.dead_letters == dead).then_some(())
    };
    eventually("dead letters", all).await;
    let health = host.health();
    println!("said {host:?} {health:?} {:?}", health.readiness());
    println!("said {:?} {:?}", host.endpoints(), host.bus());
    println!("said {:?} {:?}", host.counters(), keys());
    let refused = Keyring::parse(&format!("k1 {}\nk1 {}", hex(), hex())).unwrap_err();
    println!("said {refused} {refused:?}");
    assert!(host.stop(Duration::from_secs(10)).await);
}

/// Prints what the program says to every question about the database.
fn asks(scene: &Scene) {
    let ring = scene.file().with_file_name("keys");
    std::fs::write(&ring, format!("k1 {}\n", hex())).unwrap();
    let ring = ring.to_str().unwrap();
    let questions: [&[&str]; 17] = [
        &["status"],
        &["doctor"],
        &["dead-letters", "list"],
        &["dead-letters", "groups"],
        &["dead-letters", "show", "1"],
        &["dead-letters", "show", "2"],
        &["dead-letters", "show", "3"],
        &["dead-letters", "show", "4"],
        &["outbox", "list"],
        &["inbox", "list"],
        &["operations", "list"],
        &["sagas", "list"],
        &["hosts"],
        &["describe"],
        &["endpoints", "list"],
        &["accounts"],
        &["audit"],
    ];
    for question in questions {
        for more in [&[][..], &["--json"]] {
            let ran = scene.run(&[question, more].concat());
            println!("ran {question:?} {}: {} {}", ran.code, ran.out, ran.err);
        }
    }
    for id in ["1", "2", "3", "4"] {
        let ran = scene.run(&["dead-letters", "show", id, "--keyring", ring]);
        println!("ran {id} {}: {} {}", ran.code, ran.out, ran.err);
    }
    let revealed = scene.run(&["dead-letters", "show", "1", "--reveal"]);
    assert!(
        revealed.out.contains(BODY),
        "the canary is there to be found"
    );
}

/// Prints what is said of URLs with a password.
async fn connects() {
    let urls = [
        format!("postgres://nobody:{PASSWORD}@127.0.0.1:1/nothing"),
        format!("postgres://nobody:{PASSWORD}@127.0.0.1:port/nothing"),
        format!("mysql://nobody:{PASSWORD}@127.0.0.1/nothing"),
    ];
    for url in urls {
        let ran = run(&["--store", &url, "status"]);
        println!("ran {}: {} {}", ran.code, ran.out, ran.err);
        assert_ne!(ran.code, 0);
        let config = PgConfig::new(&url);
        println!("said {config:?}");
        if let Err(error) = PgStore::connect(&url).await {
            println!("said {error:?} {}", chain(&error));
        }
    }
}

/// Runs with everything logged, when it is started as a child; else there is nothing to do.
#[tokio::test(flavor = "multi_thread")]
async fn runs_only_as_a_child_that_says_everything() {
    if told(Level::TRACE).is_none() {
        return;
    }
    let (scene, store) = Scene::new().await;
    fails(&store, masked, 2).await;
    fails(&store, sealed, 4).await;
    asks(&scene);
    connects().await;
    println!("said all");
}

#[test]
fn no_secret_is_in_anything_that_is_said() {
    let said = heard("canary::runs_only_as_a_child_that_says_everything", "");
    for needed in [
        "log sagabus",
        "host runs",
        " endpoints=\"payments\"",
        " definitions={",
        "said all",
        "undecodable",
        "***",
        "`k1`",
    ] {
        assert!(said.contains(needed), "{needed} is not there: {said}");
    }
    let numbers = |bytes: &[u8]| {
        let all: Vec<_> = bytes.iter().map(u8::to_string).collect();
        all.join(", ")
    };
    let canaries = [
        BODY.to_owned(),
        PASSWORD.to_owned(),
        hex()[..16].to_owned(),
        numbers(BODY.as_bytes()),
        numbers(PASSWORD.as_bytes()),
        numbers(&SECRET[..8]),
    ];
    for canary in canaries {
        let lines: Vec<_> = said.lines().filter(|one| one.contains(&canary)).collect();
        assert!(lines.is_empty(), "{canary}: {lines:#?}");
    }
}
