//! Rows that are set aside, hurried on, sent elsewhere, removed in numbers.

use std::process::Stdio;
use std::time::Duration;

use sagabus_core::Host;
use sagabus_core::admin::{Page, SentFilter, StoreAdmin};
use sagabus_core::memory::MemoryTransport;
use sagabus_outbox::SqliteStore;
use sagabus_testkit::wait::eventually;

use crate::rehearsing::on_file;
use crate::scene::{Audited, Charge, Scene, host, program, spare_host};

/// Leaves `count` commands that wait at `payments`, whose host stopped before it came to them.
async fn waiting(count: u32) -> (Scene, SqliteStore) {
    let (scene, store) = Scene::new().await;
    let spare = spare_host(store.clone()).await;
    assert!(spare.stop(Duration::from_secs(10)).await);
    let running = host(store.clone()).await;
    let paused = scene.run(&["endpoints", "pause", "payments", "--yes"]);
    assert_eq!(paused.code, 0, "{paused:?}");
    eventually("a pause", || async {
        let all = running.endpoints();
        let is_paused = |one: &sagabus_core::EndpointHealth| one.flow == sagabus_core::Flow::Paused;
        all.iter().any(is_paused).then_some(())
    })
    .await;
    for order in 0..count {
        let note = String::new();
        running.bus().send(Charge { order, note }).await.unwrap();
    }
    assert!(running.stop(Duration::from_secs(10)).await);
    (scene, store)
}

fn ids(scene: &Scene) -> Vec<String> {
    let rows = scene.json(&["outbox", "rows", "--oldest-first"]);
    let rows = rows["rows"].as_array().unwrap().iter();
    rows.map(|one| one["id"].to_string()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_are_parked_and_sent_to_another_endpoint() {
    let (scene, store) = waiting(3).await;
    let ids = ids(&scene);
    let park = ["outbox", "park", "--destination", "@payments"];
    let ran = scene.run(&park);
    assert_eq!(ran.code, 2, "not without a word: {ran:?}");
    let ran = scene.run(&[&park[..], &["--yes", "--why", "wrong gateway"]].concat());
    assert_eq!(ran.code, 0, "{ran:?}");
    assert!(ran.out.contains("parked 3 rows (operation 1)"), "{ran:?}");
    assert_eq!(store.counts().await.unwrap().parked, 3);
    let ran = scene.run(&["outbox", "park", &ids[0], "--yes"]);
    assert!(ran.out.contains("1 stay as they are: sent"), "{ran:?}");

    let to = ["outbox", "release", "--reason", "operator", "--to"];
    for (place, code, text) in [
        ("@nobody", 3, "there is no endpoint `nobody`"),
        ("?shop.charge", 1, "a destination is `@endpoint`"),
        ("@spare", 0, "released 3 rows"),
    ] {
        let ran = scene.run(&[&to[..], &[place, "--yes"]].concat());
        assert_eq!(ran.code, code, "{place}: {ran:?}");
        assert!((ran.out + &ran.err).contains(text), "{place}");
    }
    let outbox = scene.json(&["outbox", "list"]);
    assert_eq!(outbox["destinations"][0]["destination"], "@spare");
    assert_eq!(outbox["destinations"][0]["waiting"], 3);
    let audit = scene.json(&["audit"]);
    assert_eq!(audit["audit"][0]["action"], "readdress_rows");
    assert_eq!(audit["audit"][0]["detail"][0]["to"], "@spare");
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_are_found_by_message_key_and_age() {
    let (scene, store) = waiting(3).await;
    let rows = scene.json(&["outbox", "rows"])["rows"].clone();
    let message = rows[1]["message_id"].as_str().unwrap();
    for (filter, count) in [
        (["--message", message], 1),
        (["--key", "nobody"], 0),
        (["--younger-than", "1h"], 3),
        (["--older-than", "1h"], 0),
    ] {
        let found = scene.json(&[&["outbox", "rows"], &filter[..]].concat());
        assert_eq!(found["rows"].as_array().unwrap().len(), count, "{filter:?}");
    }
    let one = scene.json(&["outbox", "park", "--message", message, "--yes"]);
    assert_eq!(
        (&one["changed"], &one["verb"], &one["state"]),
        (&1.into(), &"park_rows".into(), &"done".into())
    );
    assert_eq!(one["selection"]["message"], message);
    let parked = scene.json(&["outbox", "parked"])["rows"].clone();
    assert_eq!(parked[0]["id"], rows[1]["id"]);
    assert_eq!(store.counts().await.unwrap().parked, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_are_found_by_error_and_id() {
    let (scene, store) = waiting(3).await;
    let ids = ids(&scene);
    let attempts = r#"[{"at":0,"host":"shop","error":"100% of cards were Declined"}]"#;
    let sql = format!(
        "update sagabus_outbox set attempts = cast('{attempts}' as blob), failures = 1 where id = {}",
        ids[1]
    );
    on_file(&scene, &sql).await;
    let listed = |filter: &[&str]| -> Vec<String> {
        let found = scene.json(&[&["outbox", "rows", "--oldest-first"], filter].concat());
        let rows = found["rows"].as_array().unwrap().iter();
        rows.map(|one| one["id"].to_string()).collect()
    };
    for (filter, found) in [
        (&["--error", "cards WERE declined"][..], &ids[1..2]),
        (&["--error", "100%"], &ids[1..2]),
        (&["--error", "%"], &ids[1..2]),
        (&["--error", "shop"], &[]),
        (&["--error", ""], &ids[1..2]),
        (
            &[&ids[2], &ids[0], &ids[0]],
            &[ids[0].clone(), ids[2].clone()],
        ),
        (&[&ids[0], "--error", "declined"], &[]),
        (&["4711"], &[]),
    ] {
        assert_eq!(listed(filter), found, "{filter:?}");
    }
    let shown = scene.run(&["outbox", "rows", &ids[1]]);
    assert!(shown.out.contains("cards were Declined"), "{shown:?}");
    let long = "x".repeat(1001);
    let refused = scene.run(&["outbox", "rows", "--error", &long]);
    assert_eq!(refused.code, 1, "{refused:?}");
    let fact = "a text that is searched for takes 1000 bytes at most";
    assert!(refused.err.contains(fact), "{refused:?}");

    let one = scene.json(&["outbox", "park", "--error", "DECLINED", "--yes"]);
    assert_eq!((&one["changed"], &one["total"]), (&1.into(), &1.into()));
    assert_eq!(one["selection"]["error"], "DECLINED");
    assert_eq!(store.counts().await.unwrap().parked, 1);
    let parked = |filter: &[&str]| scene.json(&[&["outbox", "parked"], filter].concat());
    assert_eq!(parked(&[&ids[1]])["rows"][0]["id"].to_string(), ids[1]);
    assert_eq!(parked(&[&ids[0]])["rows"], serde_json::json!([]));
    assert_eq!(
        parked(&["--error", "operator"])["rows"][0]["parked"],
        "operator"
    );
    let purge = [
        "outbox",
        "purge",
        "--error",
        "declined",
        "--at-most",
        "3",
        "--yes",
    ];
    let refused = scene.run(&purge);
    assert_eq!(refused.code, 2, "of one destination: {refused:?}");
    let done = scene.run(&[&purge[..], &["--destination", "@payments"]].concat());
    assert!(
        done.out.ends_with("removed 1 rows (operation 2)\n"),
        "{done:?}"
    );
    assert_eq!(listed(&[]), [ids[0].clone(), ids[2].clone()]);
}

/// Writes so many rows for `payments` by hand, from an id on; timers where they have a name.
async fn fill(scene: &Scene, from: i64, count: u32, timer: &str) {
    let sql = format!(
        "with recursive n(i) as (select 0 union all select i + 1 from n where i + 1 < {count}) \
         insert into sagabus_outbox (id, message_id, message_type, destination, headers, body, \
         available_at, created_at, timer_kind, timer_key, timer_name, timer_generation) \
         select {from} + i, randomblob(16), 'shop.charge', '@payments', x'7b7d', x'7b7d', \
         9000000000000000, 0, 'order', cast(i as text), {timer}, 1 from n"
    );
    on_file(scene, &sql).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn timers_keep_nobody_from_the_rows_behind_them() {
    let (scene, store) = waiting(1).await;
    fill(&scene, -600, 600, "'patience'").await;
    let park = ["outbox", "park", "--destination", "@payments"];
    let preview = scene.json(&[&park[..], &["--dry-run"]].concat());
    assert_eq!(preview["preview"]["count"], 1, "timers are not counted");
    let ran = scene.run(&[&park[..], &["--yes"]].concat());
    assert!(
        ran.out.ends_with("parked 1 rows (operation 1)\n"),
        "{ran:?}"
    );
    assert_eq!(store.counts().await.unwrap().parked, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_of_more_rows_than_one_step_takes_is_one_operation() {
    let (scene, store) = waiting(1).await;
    fill(&scene, 1_000_000, 1_200, "null").await;
    let park = ["outbox", "park", "--destination", "@payments"];
    let preview = scene.json(&[&park[..], &["--dry-run"]].concat());
    assert_eq!(preview["preview"]["count"], 1_201);
    assert_eq!(preview["sample"].as_array().unwrap().len(), 5);
    let ran = scene.run(&[&park[..], &["--at-most", "1200", "--yes"]].concat());
    assert_eq!(ran.code, 1, "{ran:?}");
    let fact = "1201 rows are meant, and 1200 at most are allowed; nothing was changed";
    assert!(ran.err.contains(fact), "{ran:?}");
    assert_eq!(store.counts().await.unwrap().parked, 0);
    let ran = scene.run(&[&park[..], &["--yes", "--why", "wrong gateway"]].concat());
    assert!(ran.out.contains("\n.. and 1196 more\n"), "{ran:?}");
    assert!(
        ran.out.ends_with("parked 1201 rows (operation 1)\n"),
        "{ran:?}"
    );
    assert_eq!(store.counts().await.unwrap().parked, 1_201);
    let audit = scene.json(&["audit"]);
    let entries = audit["audit"].as_array().unwrap().iter();
    let steps: Vec<_> = entries
        .filter(|one| one["operation"] == 1)
        .map(|one| {
            assert_eq!(one["why"], "wrong gateway");
            let count = one["detail"].as_array().unwrap().len();
            (one["action"].as_str().unwrap(), count)
        })
        .collect();
    let park = "park_rows";
    assert_eq!(
        steps,
        [
            (park, 201),
            (park, 500),
            (park, 500),
            ("begin_operation", 1)
        ]
    );
    let shown = scene.run(&["operations", "show", "1"]);
    for text in ["what         park rows", "parked       1201 of 1201"] {
        assert!(shown.out.contains(text), "{text}: {shown:?}");
    }
    assert!(!shown.out.contains("failed once"), "{shown:?}");
    let listed = scene.run(&["operations", "list"]);
    assert!(listed.out.contains("park rows"), "{listed:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_of_rows_keeps_its_rate_and_is_paused_and_resumed() {
    let (scene, store) = waiting(0).await;
    fill(&scene, 1, 40, "null").await;
    let park = ["outbox", "park", "--all", "--rate", "10", "--yes"];
    let file = scene.file();
    let mut driver = program(&[&["--store", file.to_str().unwrap()], &park[..]].concat())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    eventually("some are parked", || async {
        (store.counts().await.unwrap().parked >= 4).then_some(())
    })
    .await;
    let paused = scene.run(&["operations", "pause", "1", "--why", "lunch"]);
    assert_eq!(paused.code, 0, "{paused:?}");
    assert_eq!(driver.wait().unwrap().code(), Some(5));
    let parked = store.counts().await.unwrap().parked;
    assert!((4..40).contains(&parked), "{parked}");
    let resumed = scene.run(&["operations", "resume", "1"]);
    assert!(
        resumed.out.contains("parked 40 rows (operation 1)"),
        "{resumed:?}"
    );
    let named = scene.run(&["outbox", "release", "1", "--rate", "5", "--yes"]);
    assert_eq!(named.code, 2, "{named:?}");
    assert!(named.err.contains("leave `--rate` out"), "{named:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_is_removed_up_to_a_number_that_is_said() {
    let (scene, store) = waiting(7).await;
    let purge = ["outbox", "purge", "--destination", "@payments", "--at-most"];
    let ran = scene.run(&[&purge[..], &["6", "--yes"]].concat());
    assert_eq!(ran.code, 1, "{ran:?}");
    assert!(
        ran.err.contains("7 rows are meant, and 6 at most"),
        "{ran:?}"
    );
    let ran = scene.run(&[&purge[..4], &["--yes"]].concat());
    assert_eq!(ran.code, 2, "a number has to be said: {ran:?}");
    let ran = scene.run(&[&purge[..], &["7", "--dry-run"]].concat());
    assert_eq!(ran.code, 0, "{ran:?}");
    assert_eq!(store.counts().await.unwrap().outbox, 7);

    let ran = scene.run(&[&purge[..], &["7", "--yes", "--why", "a test ran wild"]].concat());
    assert_eq!(ran.code, 0, "{ran:?}");
    assert!(
        ran.out
            .contains("\n.. and 2 more\nremoved 7 rows (operation 1)\n"),
        "{ran:?}"
    );
    let counts = store.counts().await.unwrap();
    assert_eq!((counts.outbox, counts.parked), (0, 0));
    let ran = scene.run(&[&purge[..], &["7", "--yes"]].concat());
    assert_eq!((ran.code, ran.out.as_str()), (0, "removed 0 rows\n"));

    // Nothing is missing: they were discarded, and the audit names each.
    let accounts = scene.json(&["accounts"]);
    let lines = accounts["accounts"].as_array().unwrap();
    let payments = lines.iter().find(|one| one["endpoint"] == "payments");
    assert_eq!(payments.unwrap()["discarded"], 7, "{accounts:#}");
    let audit = scene.json(&["audit"]);
    assert_eq!(audit["audit"][0]["action"], "purge_rows");
    assert_eq!(audit["audit"][0]["detail"].as_array().unwrap().len(), 7);
}

#[tokio::test(flavor = "multi_thread")]
async fn dead_letters_are_changed_up_to_a_number_that_is_said() {
    let (scene, store) = Scene::with_failures(4).await;
    for verb in ["retry", "discard"] {
        let change = ["dead-letters", verb, "--all", "--yes", "--at-most"];
        let ran = scene.run(&[&change[..], &["3"]].concat());
        assert_eq!(ran.code, 1, "{ran:?}");
        assert!(
            ran.err.contains("4 dead letters are meant, and 3 at most"),
            "{ran:?}"
        );
        assert_eq!(store.counts().await.unwrap().dead_letters, 4);
    }
    let ran = scene.run(&[
        "dead-letters",
        "discard",
        "--all",
        "--yes",
        "--at-most",
        "4",
    ]);
    assert_eq!(ran.code, 0, "{ran:?}");
    assert_eq!(store.counts().await.unwrap().dead_letters, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_is_due_is_not_expedited() {
    let (scene, _store) = waiting(1).await;
    let ids = ids(&scene);
    let ran = scene.run(&["outbox", "expedite", &ids[0], "--yes"]);
    assert_eq!(ran.code, 0, "{ran:?}");
    assert!(ran.out.contains("expedited 0 rows"), "{ran:?}");
    assert!(ran.out.contains("1 stay as they are: due"), "{ran:?}");
}

/// Waits until a broker has taken so many messages that are kept, and returns their ids.
async fn kept(store: &SqliteStore, count: usize, behind: i64) -> Vec<i64> {
    let look = || async {
        let page = Page::oldest(100).behind(Some(behind));
        let found = store.sent(&SentFilter::default(), page).await.unwrap();
        let ids: Vec<i64> = found.iter().map(|one| one.id).collect();
        (ids.len() == count).then_some(ids)
    };
    eventually("what was sent", look).await.0
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_sent_is_sent_again_where_it_is_kept() {
    let (scene, store) = Scene::new().await;
    let republish = ["outbox", "republish", "--since", "1h", "--at-most"];
    let again = |more: &[&str]| scene.run(&[&republish[..], more].concat());
    let ran = again(&["3", "--yes"]);
    assert_eq!(ran.code, 1, "{ran:?}");
    for word in ["no host keeps what it has sent", ".keep_sent(..)", "SB0405"] {
        assert!(ran.err.contains(word), "{word}: {ran:?}");
    }

    let host = Host::builder("shop").store(store.clone());
    let host = host
        .transport(MemoryTransport::new())
        .keep_sent(Duration::from_secs(3600));
    let host = host.build().unwrap().start().await.unwrap();
    let ran = again(&["3", "--yes"]);
    let none = (0, "republished 0 messages\n");
    assert_eq!((ran.code, ran.out.as_str()), none, "{ran:?}");
    let mut latest = None;
    for _ in 0..3 {
        latest = Some(host.bus().publish(Audited).await.unwrap());
    }
    let first = kept(&store, 3, 0).await;
    let told = scene.run(&["messages", "show", &latest.unwrap().to_string()]);
    let took = "  a broker took it at event/shop.audited\n";
    assert!(told.out.contains(took), "{told:?}");
    let ran = again(&["2", "--yes"]);
    assert_eq!(ran.code, 1, "{ran:?}");
    assert!(
        ran.err
            .contains("3 messages are meant, and 2 at most are allowed; nothing was changed"),
        "{ran:?}"
    );
    let ran = again(&["3"]);
    assert_eq!(ran.code, 2, "not without a word: {ran:?}");
    assert!(ran.err.contains("republish 3 messages"), "{ran:?}");
    let preview = scene.json(&[&republish[..], &["3", "--dry-run"]].concat());
    assert_eq!(preview["preview"]["count"], 3, "{preview:#}");
    assert_eq!(preview["sample"][0]["id"], first[0]);
    assert_eq!(preview["sample"][0]["message_type"], "shop.audited");
    let ran = again(&["3", "--yes", "--role", "body-reader"]);
    assert!(ran.err.contains("that takes role `operator`"), "{ran:?}");
    for nothing in [
        ["--until", "30m"],
        ["--type", "shop.charge"],
        ["--destination", "queue/nobody"],
    ] {
        let ran = again(&[&["3", "--yes"], &nothing[..]].concat());
        assert_eq!((ran.code, ran.out.as_str()), none, "{nothing:?}");
    }
    assert_eq!(kept(&store, 3, 0).await, first);

    let ran = again(&["3", "--yes", "--why", "a queue was purged"]);
    assert_eq!(ran.code, 0, "{ran:?}");
    assert!(
        ran.out.ends_with("republished 3 messages (operation 1)\n"),
        "{ran:?}"
    );
    kept(&store, 3, first[2]).await;
    assert_eq!(kept(&store, 3, 0).await.len(), 3, "kept anew, and once");
    let audit = scene.json(&["audit"]);
    assert_eq!(audit["audit"][0]["action"], "republish_sent");
    assert_eq!(audit["audit"][0]["why"], "a queue was purged");
    assert_eq!(audit["audit"][0]["detail"].as_array().unwrap().len(), 3);
    assert!(host.stop(Duration::from_secs(10)).await);
}
