//! `sagabus endpoints pause|resume`.

use std::time::Duration;

use sagabus_core::Flow;
use sagabus_core::admin::StoreAdmin;
use sagabus_testkit::wait::eventually;

use crate::scene::{Charge, Scene, host};

#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_is_paused_and_goes_on() {
    let (scene, store) = Scene::new().await;
    let host = host(store.clone()).await;
    let refused = scene.run(&["endpoints", "pause", "payments"]);
    assert_eq!(refused.code, 2, "nobody confirmed it: {refused:?}");
    let paused = scene.run(&[
        "endpoints",
        "pause",
        "payments",
        "--yes",
        "--why",
        "incident",
    ]);
    assert_eq!(paused.code, 0, "{paused:?}");
    let again = scene.run(&["endpoints", "pause", "payments", "--yes"]);
    assert_eq!(again.code, 1, "{again:?}");
    assert!(again.err.contains("[SB0403]"), "{again:?}");
    let is_held = || async { (host.endpoints()[0].flow == Flow::Paused).then_some(()) };
    eventually("a paused endpoint", is_held).await;

    let listed = scene.json(&["endpoints", "list"]);
    assert_eq!(listed["endpoints"][0]["is_paused"], true);
    let status = scene.json(&["status"]);
    assert_eq!(status["findings"][0]["code"], "endpoint_paused");
    let note = "waits".to_owned();
    let sent = host.bus().send(Charge { order: 1, note }).await;
    sent.unwrap();
    let waits = store.counts().await.unwrap();
    assert_eq!((waits.outbox, waits.dead_letters), (1, 0));

    let resumed = scene.run(&["endpoints", "resume", "payments", "--yes"]);
    assert_eq!(resumed.code, 0, "{resumed:?}");
    let is_tried = || async { (store.counts().await.unwrap().dead_letters == 1).then_some(()) };
    eventually("a message that was tried", is_tried).await;
    let unknown = scene.run(&["endpoints", "pause", "nobody", "--yes"]);
    assert_eq!(unknown.code, 3, "{unknown:?}");
    // What would be refused is, also where nothing is changed, and before anybody is asked.
    for (verb, name, code) in [
        ("pause", "nobody", 3),
        ("remove", "nobody", 3),
        ("resume", "payments", 1),
        ("remove", "payments", 1),
    ] {
        for more in [&["--dry-run"][..], &[]] {
            let ran = scene.run(&[&["endpoints", verb, name], more].concat());
            assert_eq!(ran.code, code, "{verb} {name} {more:?}: {ran:?}");
        }
    }
    let looked = scene.run(&["endpoints", "pause", "payments", "--dry-run"]);
    assert_eq!(looked.code, 0, "{looked:?}");
    let audit = scene.json(&["audit"]);
    assert_eq!(audit["audit"][1]["action"], "pause_endpoint");
    assert!(host.stop(Duration::from_secs(10)).await);
}
