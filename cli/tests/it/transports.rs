//! `sagabus outbox pause|resume`.

use std::time::Duration;

use sagabus_core::Host;
use sagabus_core::memory::MemoryTransport;

use crate::scene::Scene;

#[tokio::test(flavor = "multi_thread")]
async fn a_transport_is_paused_and_goes_on() {
    let (scene, store) = Scene::new().await;
    let host = Host::builder("shop")
        .store(store)
        .transport(MemoryTransport::new())
        .transport_named("archive", MemoryTransport::new());
    let host = host.build().unwrap().start().await.unwrap();
    let described = scene.run(&["describe", "shop"]).out;
    for name in ["default", "archive"] {
        let line = format!("  transport {name} (memory, order PerKey, ");
        assert!(described.contains(&line), "{described}");
    }
    let refused = scene.run(&["outbox", "pause"]);
    assert_eq!(refused.code, 2, "nobody confirmed it: {refused:?}");
    let looked = scene.run(&["outbox", "pause", "--dry-run"]);
    assert_eq!(looked.code, 0, "{looked:?}");
    assert!(looked.out.contains("transport `default`"), "{looked:?}");
    assert!(
        scene.json(&["status"])["findings"]
            .as_array()
            .unwrap()
            .is_empty()
    );

    let archive = ["--transport", "archive"];
    let run = |verb: &str, more: &[&str]| scene.run(&[&["outbox", verb, "--yes"], more].concat());
    let paused = run("pause", &archive);
    assert_eq!(paused.out, "paused within a second\n", "{paused:?}");
    let looked = scene.run(&[&["outbox", "pause", "--dry-run"][..], &archive].concat());
    assert_eq!(looked.code, 1, "it is paused already: {looked:?}");
    let again = run("pause", &archive);
    assert_eq!(again.code, 1, "{again:?}");
    assert!(again.err.contains("[SB0403]"), "{again:?}");
    let status = scene.json(&["status"]);
    assert_eq!(status["findings"][0]["code"], "transport_paused");
    let doctor = scene.run(&["doctor"]);
    assert_eq!(doctor.code, 6, "{doctor:?}");
    assert!(
        doctor.out.contains("outbox resume --transport archive"),
        "{doctor:?}"
    );
    let default = run("resume", &[]);
    assert_eq!(default.code, 1, "only `archive` is paused: {default:?}");
    let resumed = run("resume", &archive);
    assert_eq!(resumed.out, "goes on within a second\n", "{resumed:?}");
    let nobody = run("pause", &["--transport", "nobody"]);
    assert_eq!(nobody.code, 3, "{nobody:?}");
    assert!(
        nobody.err.contains("they have archive, default"),
        "{nobody:?}"
    );
    let audit = scene.json(&["audit", "--oldest-first"]);
    assert_eq!(audit["audit"][0]["action"], "pause_transport");
    assert_eq!(audit["audit"][1]["action"], "resume_transport");
    assert!(host.stop(Duration::from_secs(10)).await);
}
