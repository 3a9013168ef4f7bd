//! A till that is jammed, then mended: what a dead letter of it would send.

use sagabus_core::admin::StoreAdmin;
use sagabus_core::message::{self, Kind, Message};
use sagabus_core::{Host, Result, ResultExt, Retry, RunningHost, State, Store};
use sagabus_outbox::PgStore;
use sagabus_testkit::wait::eventually;

use crate::postgres::Database;
use crate::rehearsing::{everything, everything_on_server, stop};
use crate::scene::{Charge, Ran, Scene, run};

/// A command that is paid for.
#[derive(serde::Serialize, serde::Deserialize)]
struct Order {
    order: u32,
}

impl Message for Order {
    const TYPE: &'static str = "till.order";
    const KIND: Kind = Kind::Command;
}

impl message::Command for Order {}

/// Whether the till takes orders.
#[derive(Clone, Copy)]
struct Mended {
    is_mended: bool,
}

async fn take(command: Order, mended: State<Mended>) -> Result<Charge> {
    if !mended.is_mended {
        return Err(std::io::Error::other("the drawer is jammed")).terminal();
    }
    Ok(Charge {
        order: command.order,
        note: "of the till".to_owned(),
    })
}

/// Starts a host that takes orders, or gives them up.
pub(crate) async fn till(store: impl Store, is_mended: bool) -> RunningHost {
    let host = Host::builder("till")
        .store(store)
        .state(Mended { is_mended });
    let host = host.endpoint("till", |e| {
        e.retry(Retry::none()).handle(take).rehearses::<Order>()
    });
    host.build().unwrap().start().await.unwrap()
}

/// Leaves a dead letter of a till that was jammed.
pub(crate) async fn refused_order<S: Store + StoreAdmin + Clone>(store: &S) {
    let jammed = till(store.clone(), false).await;
    jammed.bus().send(Order { order: 7 }).await.unwrap();
    eventually("a dead letter", || async {
        (store.counts().await.unwrap().dead_letters == 1).then_some(())
    })
    .await;
    stop(jammed).await;
}

/// Rehearses a dead letter before and after its handler was mended.
async fn what_it_would_send_is_told<S: Store + StoreAdmin + Clone>(
    store: S,
    run: impl Fn(&[&str]) -> Ran,
    everything: impl AsyncFn() -> Vec<String>,
) {
    refused_order(&store).await;
    let rehearse = ["dead-letters", "rehearse", "1"];
    let jammed = till(store.clone(), false).await;
    let before = everything().await;
    let ran = run(&rehearse);
    assert_eq!(ran.code, 0, "{ran:?}");
    assert!(
        ran.out.starts_with("would fail; nothing of it happened\n"),
        "{ran:?}"
    );
    assert!(ran.out.contains("the drawer is jammed"), "{ran:?}");
    assert!(!ran.out.contains("sends"), "{ran:?}");
    stop(jammed).await;

    let mended = till(store.clone(), true).await;
    let ran = run(&rehearse);
    assert_eq!(ran.code, 0, "{ran:?}");
    assert!(
        ran.out
            .starts_with("would be handled; nothing of it happened\nendpoint     till, by till\n"),
        "{ran:?}"
    );
    let sends = "\nsends shop.charge to its owner\n    {\"order\":7,\"note\":\"of the till\"}\n";
    assert!(ran.out.ends_with(sends), "{ran:?}");
    let ran = run(&[&rehearse[..], &["--json"]].concat());
    let json: serde_json::Value = serde_json::from_str(&ran.out).unwrap();
    let report = &json["rehearsal"]["report"];
    assert_eq!(report["sent"][0]["type"], "shop.charge", "{json}");
    assert_eq!(everything().await, before, "nothing was sent");

    // What was told is what happens.
    let ran = run(&["dead-letters", "retry", "1", "--yes"]);
    assert_eq!(ran.code, 0, "{ran:?}");
    eventually("a charge that nobody takes", || async {
        (store.counts().await.unwrap().parked == 1).then_some(())
    })
    .await;
    let ran = run(&["outbox", "parked"]);
    assert!(ran.out.contains("shop.charge"), "{ran:?}");
    stop(mended).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_dead_letter_would_send_is_told_and_not_sent() {
    let (scene, store) = Scene::new().await;
    let run = |arguments: &[&str]| scene.run(arguments);
    what_it_would_send_is_told(store.clone(), run, async || everything(&store).await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_dead_letter_would_send_is_told_on_a_server() {
    let Some(database) = Database::new().await else {
        return;
    };
    let store = PgStore::connect(&database.url).await.unwrap();
    store.migrate().await.unwrap();
    let run = |arguments: &[&str]| run(&[&["--store", &database.url], arguments].concat());
    let everything = async || everything_on_server(&database.url).await;
    what_it_would_send_is_told(store.clone(), run, everything).await;
    store.close();
    database.drop().await;
}
