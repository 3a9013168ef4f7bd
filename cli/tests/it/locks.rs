//! Locks: shown, and taken away from who has them.

use std::time::Duration;

use sagabus_core::message::{self, Kind, Message};
use sagabus_core::{Host, Result, RunningHost, Store};
use sagabus_saga::{
    Correlate, Handles, NamedSaga, NotReserved, ReservationLost, Reserve, Reserved, Saga, SagaCtx,
    SagaEndpoint, Starts, saga,
};
use sagabus_testkit::wait::eventually;
use serde::{Deserialize, Serialize};

use crate::scene::Scene;

#[derive(Serialize, Deserialize)]
pub(crate) struct Come {
    pub(crate) guest: u32,
}

impl Message for Come {
    const TYPE: &'static str = "guests.come";
    const KIND: Kind = Kind::Command;
}

impl message::Command for Come {}

impl Correlate<Guest> for Come {
    fn key(&self) -> u32 {
        self.guest
    }
}

/// Has the room until an operator takes it away.
#[derive(Serialize, Deserialize)]
struct Guest {}

impl Saga for Guest {
    type Key = u32;
    type State = ();
}

impl NamedSaga for Guest {
    const NAME: &'static str = "guest";
}

impl Starts<Come> for Guest {
    fn start(_: &Come) -> Self {
        Self {}
    }
}

impl Handles<Come> for Guest {
    async fn handle(&mut self, _: Come, cx: &mut SagaCtx) -> Result {
        cx.reserve("room", Reserve::key("room", "12 A"));
        Ok(())
    }
}

impl Handles<Reserved> for Guest {
    async fn handle(&mut self, _: Reserved, _: &mut SagaCtx) -> Result {
        Ok(())
    }
}

impl Handles<NotReserved> for Guest {
    async fn handle(&mut self, _: NotReserved, _: &mut SagaCtx) -> Result {
        Ok(())
    }
}

impl Handles<ReservationLost> for Guest {
    async fn handle(&mut self, _: ReservationLost, cx: &mut SagaCtx) -> Result {
        cx.complete();
        Ok(())
    }
}

/// Starts a host with a saga that reserves the room `room/12 A`.
pub(crate) async fn hotel(store: impl Store) -> RunningHost {
    let guests = saga::<Guest>()
        .starts_with::<Come>()
        .on_answer::<Reserved>()
        .on_answer::<NotReserved>()
        .on_answer::<ReservationLost>();
    let host = Host::builder("hotel").store(store);
    let host = host.endpoint("guests", |e| e.saga(guests));
    let host = host.endpoint("locks", |e| e.locks());
    host.build().unwrap().start().await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lock_is_shown_and_broken() {
    let (scene, store) = Scene::new().await;
    assert!(
        scene
            .run(&["locks", "list"])
            .out
            .contains("nobody has a lock")
    );
    let missing = scene.run(&["locks", "break", "room/12 A", "--yes"]);
    assert_eq!(missing.code, 3, "{missing:?}");

    let host = hotel(store).await;
    let held = async |holder: &str, waiting: usize| {
        let look = || async {
            let json = scene.json(&["locks", "list"]);
            let lock = &json["locks"][0];
            let count = lock["waiting"].as_array().map_or(0, Vec::len);
            (lock["holder"]["key"] == holder && count == waiting).then_some(())
        };
        eventually(&format!("{holder} has it, {waiting} wait"), look).await;
    };
    host.bus().send(Come { guest: 1 }).await.unwrap();
    held("1", 0).await;
    host.bus().send(Come { guest: 2 }).await.unwrap();
    held("1", 1).await;
    let json = scene.json(&["locks", "list"]);
    let lock = &json["locks"][0];
    assert_eq!(lock["resource"], "room/12 A");
    assert_eq!(lock["holder"]["key"], "1");
    assert_eq!(lock["waiting"][0]["key"], "2");

    let list = scene.run(&["locks", "list"]).out;
    let line = list.lines().nth(1).unwrap_or_default();
    assert!(line.starts_with("room/12 A  guest 1 "), "{list}");
    assert!(line.ends_with("  1        guest 2"), "{list}");

    let page = scene.run(&["locks", "list", "--limit", "1"]);
    let more = "there may be more: go on with --after 'room/12 A'\n";
    assert_eq!(page.err, more, "as a shell takes it");
    let json = scene.json(&["locks", "list", "--limit", "1"]);
    assert_eq!(json["next"], "room/12 A");
    let rest = scene.json(&["locks", "list", "--after", "room/12 A"]);
    assert_eq!(rest, serde_json::json!({ "locks": [], "next": null }));

    let asked = scene.run(&["locks", "break", "room/12 A"]);
    assert_eq!(asked.code, 2, "{asked:?}");
    let preview = scene.run(&["locks", "break", "room/12 A", "--dry-run"]);
    assert_eq!(preview.out, "take lock `room/12 A` from guest 1\n");
    held("1", 1).await;
    let broken = scene.run(&["locks", "break", "room/12 A", "--yes", "--why", "gone home"]);
    assert_eq!(broken.code, 0, "{broken:?}");
    held("2", 0).await;
    let audit = scene.run(&["audit"]);
    assert!(audit.out.contains("send_message"), "{audit:?}");
    assert!(audit.out.contains("gone home"), "{audit:?}");
    let json = scene.json(&["locks", "break", "room/12 A", "--yes"]);
    assert_eq!(json["broken"]["holder"]["key"], "2");
    let free = || async {
        let list = scene.run(&["locks", "list"]);
        list.out.contains("nobody has a lock").then_some(())
    };
    eventually("a free room", free).await;
    assert!(host.stop(Duration::from_secs(10)).await);
}
