//! `sagabus schedules`.

use std::time::Duration;

use sagabus_core::{Host, HostBuilder, RunningHost, cron};
use sagabus_outbox::SqliteStore;

use crate::scene::{Scene, Ship};

fn reports(store: SqliteStore) -> HostBuilder {
    let yearly = cron("0 6 1 1 *").in_zone("Europe/Berlin");
    let host = Host::builder("reports").store(store);
    host.recurring("report", yearly, |_| Ship { order: 1 })
}

async fn started(builder: HostBuilder) -> RunningHost {
    builder.build().unwrap().start().await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_recurs_is_listed_paused_and_fired() {
    let (scene, store) = Scene::new().await;
    let host = started(reports(store)).await;
    let ran = scene.run(&["schedules", "list"]);
    for text in [
        "report",
        "waiting",
        "0 6 1 1 * (Europe/Berlin)",
        "-01-01T05:00",
    ] {
        assert!(ran.out.contains(text), "{text}: {}", ran.out);
    }
    let refused = scene.run(&["schedules", "pause", "report"]);
    assert_eq!(refused.code, 2, "nobody confirmed it: {refused:?}");
    let looked = scene.run(&["schedules", "pause", "report", "--dry-run"]);
    assert_eq!(looked.code, 0, "{looked:?}");
    assert_eq!(
        scene.json(&["schedules", "show", "report"])["state"],
        "waiting"
    );
    let paused = scene.run(&[
        "schedules",
        "pause",
        "report",
        "--yes",
        "--why",
        "month end",
    ]);
    assert_eq!((paused.code, paused.out.as_str()), (0, "paused\n"));
    let again = scene.run(&["schedules", "pause", "report", "--yes"]);
    assert_eq!(again.code, 1, "{again:?}");
    assert!(
        again.err.contains("is paused: nothing to change"),
        "{again:?}"
    );

    let fired = scene.json(&["schedules", "fire", "report", "--yes"]);
    assert_eq!(fired["changed"], 1);
    sagabus_testkit::wait::eventually("a firing", || async {
        let shown = scene.json(&["schedules", "show", "report"]);
        (shown["fired"] == 1 && shown["state"] == "paused").then_some(())
    })
    .await;
    let parked = scene.json(&["outbox", "parked"]);
    assert_eq!(parked["rows"][0]["message_type"], "shop.ship");
    let audit = scene.json(&["audit"]);
    assert_eq!(audit["audit"][1]["action"], "pause_schedule", "{audit}");
    assert_eq!(audit["audit"][1]["why"], "month end");
    assert_eq!(
        scene.json(&["sagas", "list"])["instances"],
        serde_json::json!([])
    );
    assert!(host.stop(Duration::from_secs(10)).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_declared_no_more_is_said_and_can_be_removed() {
    let (scene, store) = Scene::new().await;
    let host = started(reports(store.clone())).await;
    let refused = scene.run(&["schedules", "remove", "report", "--yes"]);
    assert_eq!(refused.code, 1, "{refused:?}");
    assert!(refused.err.contains("1 live hosts declare"), "{refused:?}");
    assert!(host.stop(Duration::from_secs(10)).await);
    // A later release has dropped it; the first process is heard of no more after twice its lease.
    let without = Host::builder("reports").store(store);
    let host = started(without.lease(Duration::from_millis(600))).await;
    let id = serde_json::json!("schedule_without_host");
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(scene.file());
    let mut connection = sqlx::ConnectOptions::connect(&options).await.unwrap();
    let age = "update sagabus_host set heartbeat_at = heartbeat_at - 3600000000 \
        where started_at = (select min(started_at) from sagabus_host)";
    sqlx::query(age).execute(&mut connection).await.unwrap();
    let status = scene.json(&["status"]);
    let codes: Vec<_> = status["findings"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| &one["code"])
        .collect();
    assert_eq!(codes, [&id], "{status}");
    let fire = scene.run(&["schedules", "fire", "report", "--yes"]);
    assert_eq!(fire.code, 1, "{fire:?}");
    let removed = scene.run(&["schedules", "remove", "report", "--yes"]);
    assert_eq!(removed.code, 0, "{removed:?}");
    let gone = scene.run(&["schedules", "show", "report"]);
    assert_eq!(gone.code, 3, "{gone:?}");
    assert!(host.stop(Duration::from_secs(10)).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_schedule_that_cannot_be_read_holds_up_no_other() {
    let (scene, store) = Scene::new().await;
    let yearly = || cron("0 6 1 1 *");
    let builder = Host::builder("reports").store(store.clone());
    let builder = builder.recurring("broken", yearly(), |_| Ship { order: 1 });
    let host = started(builder.recurring("sound", yearly(), |_| Ship { order: 2 })).await;
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(scene.file());
    let mut connection = sqlx::ConnectOptions::connect(&options).await.unwrap();
    let spoil = "update sagabus_instance set data = x'00ff' where key = 'broken'";
    sqlx::query(spoil).execute(&mut connection).await.unwrap();
    let listed = scene.run(&["schedules", "list"]);
    assert!(listed.out.contains("cannot be read"), "{}", listed.out);
    let shown = scene.run(&["schedules", "show", "broken"]);
    assert!(
        shown.out.contains("a newer release wrote it"),
        "{}",
        shown.out
    );
    let fired = scene.run(&["schedules", "fire", "sound", "--yes"]);
    assert_eq!(fired.code, 0, "{fired:?}");
    sagabus_testkit::wait::eventually("a firing", || async {
        (scene.json(&["schedules", "show", "sound"])["fired"] == 1).then_some(())
    })
    .await;
    assert!(host.stop(Duration::from_secs(10)).await);
    // A start says what to do, instead of beginning anew.
    let broken = reports(store.clone()).recurring("broken", yearly(), |_| Ship { order: 1 });
    let refused = broken.build().unwrap().start().await;
    let refused = sagabus_core::error::chain(&refused.unwrap_err());
    assert!(
        refused.contains("`sagabus schedules remove broken`"),
        "{refused}"
    );
    let removed = scene.run(&["schedules", "remove", "broken", "--yes"]);
    assert_eq!(removed.code, 1, "its host is heard of still: {removed:?}");
}
