//! `sagabus timers`.

use std::time::Duration;

use sagabus_core::admin::StoreAdmin;
use sagabus_testkit::wait::eventually;

use crate::parcels::{Hand, Release, host};
use crate::scene::Scene;

#[tokio::test(flavor = "multi_thread")]
async fn a_timer_is_listed_moved_fired_and_cancelled() {
    let (scene, store) = Scene::new().await;
    let host = host(store.clone(), Release::Current).await;
    for parcel in [1, 2] {
        let sent = host.bus().send(Hand { parcel }).await;
        sent.unwrap();
    }
    let two_are_armed = || async {
        let listed = scene.json(&["timers", "list", "--oldest-first"]);
        let timers = listed["timers"].as_array().unwrap().clone();
        (timers.len() == 2).then_some(timers)
    };
    let (timers, _) = eventually("two timers", two_are_armed).await;
    let id = |at: usize| timers[at]["id"].to_string();
    let shown = scene.run(&["timers", "show", &id(0)]);
    assert!(shown.out.contains("(patience)"), "{}", shown.out);
    let refused = scene.run(&["timers", "cancel", &id(0)]);
    assert_eq!(refused.code, 2, "nobody confirmed it: {refused:?}");
    let of = timers[0]["timer"]["owner"]["key"].as_str().unwrap();
    assert!(
        refused.err.contains(&format!("`patience` of parcel {of}")),
        "whose it is, is said: {refused:?}"
    );
    let its = scene.json(&["timers", "list", "--kind", "parcel", "--key", of]);
    assert_eq!(its["timers"], serde_json::json!([timers[0]]));
    let half = scene.run(&["timers", "list", "--key", of]);
    assert_eq!(half.code, 2, "{half:?}");
    let moved = scene.run(&["timers", "move", &id(0), "3d", "--yes"]);
    assert_eq!((moved.code, moved.out.as_str()), (0, "moved\n"));
    let later = scene.json(&["timers", "show", &id(0)]);
    assert_ne!(later["available_at"], timers[0]["available_at"]);
    let cancelled = scene.run(&["timers", "cancel", &id(0), "--yes"]);
    assert_eq!((cancelled.code, cancelled.out.as_str()), (0, "cancelled\n"));
    let again = scene.run(&["timers", "cancel", &id(0), "--yes"]);
    assert_eq!(again.code, 3, "{again:?}");

    let fired = scene.run(&["timers", "fire", &id(1), "--yes"]);
    assert_eq!((fired.code, fired.out.as_str()), (0, "fired\n"));
    let key = timers[1]["timer"]["owner"]["key"]
        .as_str()
        .unwrap()
        .to_owned();
    let is_lost = || async {
        let shown = scene.json(&["sagas", "show", "parcel", &key]);
        shown.to_string().contains("\"lost\"").then_some(())
    };
    eventually("a parcel that is lost", is_lost).await;
    assert_eq!(store.counts().await.unwrap().outbox, 0);
    assert!(host.stop(Duration::from_secs(10)).await);
}
