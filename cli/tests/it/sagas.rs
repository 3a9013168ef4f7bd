//! Instances: found by what is known of them, and what happened to one.

use std::time::Duration;

use sagabus_core::InstanceId;
use sagabus_core::admin::StoreAdmin;
use sagabus_outbox::SqliteStore;

use crate::parcels::{self, Hand, Lose, Release};
use crate::scene::Scene;

pub(crate) fn parcel(key: &str) -> InstanceId {
    InstanceId {
        kind: "parcel".into(),
        key: key.into(),
    }
}

/// Hands three parcels to the carrier, who loses the second one.
pub(crate) async fn lost_one() -> Scene {
    let (scene, store) = Scene::new().await;
    let host = parcels::host(store.clone(), Release::Current).await;
    for parcel in 1..=3 {
        host.bus().send(Hand { parcel }).await.unwrap();
    }
    host.bus().send(Lose { parcel: 2 }).await.unwrap();
    sagabus_testkit::wait::eventually("a lost parcel", || async {
        let lost = store.instance(&parcel("2")).await.unwrap();
        let running = store.counts().await.unwrap().running;
        (running == 3 && lost?.version == 2).then_some(())
    })
    .await;
    assert!(host.stop(Duration::from_secs(10)).await);
    scene
}

#[tokio::test(flavor = "multi_thread")]
async fn instances_are_found_by_key_state_age_and_label() {
    let scene = lost_one().await;
    let cases: [(&[&str], &[&str]); 8] = [
        (&[], &["1", "2", "3"]),
        (&["--key", "3"], &["3"]),
        (&["--state", "lost"], &["2"]),
        (&["--label", "tracking=t-1"], &["1"]),
        (&["--label", "tracking=t-2", "--state", "moving"], &[]),
        (&["--label", "t-1=tracking"], &[]),
        (&["--older-than", "0s"], &["1", "2", "3"]),
        (&["--older-than", "1h", "--kind", "parcel"], &[]),
    ];
    for (arguments, keys) in cases {
        let json = scene.json(&[&["sagas", "list"], arguments].concat());
        let found = json["instances"].as_array().unwrap().iter();
        let found: Vec<_> = found.map(|one| one["key"].as_str().unwrap()).collect();
        assert_eq!(found, keys, "{arguments:?}");
    }
    let odd = scene.run(&["sagas", "list", "--label", "tracking"]);
    assert_eq!(odd.code, 2, "{odd:?}");
    assert!(odd.err.contains("NAME=VALUE"), "{odd:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_happened_to_an_instance_is_told_in_order() {
    let scene = lost_one().await;
    let ran = scene.run(&["sagas", "show", "parcel", "2"]);
    let lines: Vec<_> = ran.out.lines().collect();
    let told = lines.iter().position(|line| line.contains("version 1: "));
    let told = &lines[told.unwrap_or_else(|| panic!("{}", ran.out))..];
    let expected = [
        "version 1: (new) to moving, by carrier",
        "    came      parcels.hand ",
        "    sent      parcels.lose ",
        "    armed     patience",
        "version 2: moving to lost, by carrier",
        "    came      parcels.lose ",
        "    cancelled patience",
    ];
    assert_eq!(told.len(), expected.len(), "{}", ran.out);
    for (line, expected) in told.iter().zip(expected) {
        assert!(line.contains(expected), "{expected}: {}", ran.out);
    }
    assert!(ran.out.contains("tracking     t-2"), "{}", ran.out);

    let json = scene.json(&["sagas", "show", "parcel", "2"]);
    let label = serde_json::json!({ "name": "tracking", "value": "t-2" });
    assert_eq!(json["labels"][0], label);
    assert_eq!(json["history"][0]["detail"]["host"], "carrier");
    assert_eq!(json["history"][1]["detail"]["cancelled"][0], "patience");
}

#[tokio::test(flavor = "multi_thread")]
async fn dead_letters_are_found_by_a_label_of_their_instance() {
    let scene = lost_one().await;
    let store = SqliteStore::open(scene.file()).await.unwrap();
    let host = parcels::host(store.clone(), Release::Current).await;
    host.bus().send(Lose { parcel: 2 }).await.unwrap();
    sagabus_testkit::wait::eventually("a parcel that is lost already", || async {
        (store.counts().await.unwrap().dead_letters == 1).then_some(())
    })
    .await;
    assert!(host.stop(Duration::from_secs(10)).await);
    for (label, count) in [
        ("tracking=t-2", 1),
        ("tracking=t-1", 0),
        ("t-2=tracking", 0),
    ] {
        let found = scene.json(&["dead-letters", "list", "--label", label]);
        assert_eq!(
            found["dead_letters"].as_array().unwrap().len(),
            count,
            "{label}"
        );
    }
    let retried = scene.run(&["dead-letters", "retry", "--label", "tracking=t-2", "--yes"]);
    assert!(
        retried.out.contains("retried 1 dead letters"),
        "{retried:?}"
    );
    let shown = scene.json(&["operations", "show", "1"]);
    assert_eq!(shown["selection"]["label"], "tracking=t-2", "{shown}");
}
