//! What a live host is asked by the program: to rehearse a message, to move an instance.

use std::time::Duration;

use sagabus_core::admin::StoreAdmin;
use sagabus_core::{Flow, RunningHost};
use sagabus_outbox::{PgStore, SqliteStore};
use sqlx::sqlite::SqliteRow;
use sqlx::{Connection, PgConnection, Row, SqliteConnection};

use crate::parcels::{self, Hand, Release};
use crate::postgres::{self, Database};
use crate::sagas::{lost_one, parcel};
use crate::scene::{Charge, Scene, host, run};

/// Every row of every table but those that say what an operator did and that hosts live.
pub(crate) async fn everything(store: &SqliteStore) -> Vec<String> {
    let tables = "select name from sqlite_master where type = 'table' and name like 'sagabus_%' \
        and name not in ('sagabus_audit', 'sagabus_host') order by name";
    let names: Vec<String> = sqlx::query_scalar(tables)
        .fetch_all(store.reader())
        .await
        .unwrap();
    assert!(names.len() > 8, "{names:?}");
    let mut all = Vec::new();
    for name in names {
        let columns = format!("select name from pragma_table_info('{name}')");
        let columns = sqlx::query_scalar::<_, String>(sqlx::AssertSqlSafe(columns));
        let columns = columns.fetch_all(store.reader()).await.unwrap();
        let quoted: Vec<_> = columns
            .iter()
            .map(|one| format!("quote(\"{one}\")"))
            .collect();
        let kept = match name.as_str() {
            "sagabus_instance" => " where kind <> '@errand'",
            _ => "",
        };
        let text = format!(
            "select {} from {name}{kept} order by 1",
            quoted.join("||'|'||")
        );
        let rows = sqlx::query(sqlx::AssertSqlSafe(text));
        let rows = rows.fetch_all(store.reader()).await.unwrap();
        let line = |row: &SqliteRow| format!("{name}: {}", row.get::<String, _>(0));
        all.extend(rows.iter().map(line));
    }
    all
}

/// The same of a database on a server.
pub(crate) async fn everything_on_server(url: &str) -> Vec<String> {
    let mut connection = PgConnection::connect(url).await.unwrap();
    let tables = "select table_name::text from information_schema.tables \
        where table_schema = 'sagabus' and table_type = 'BASE TABLE' \
        and table_name not in ('audit', 'host') order by 1";
    let names: Vec<String> = sqlx::query_scalar(tables)
        .fetch_all(&mut connection)
        .await
        .unwrap();
    assert!(names.len() > 8, "{names:?}");
    let mut all = Vec::new();
    for name in names {
        let kept = match name.as_str() {
            "instance" => " where kind <> '@errand'",
            _ => "",
        };
        let text = format!("select t::text from sagabus.\"{name}\" t{kept} order by 1");
        let rows = sqlx::query_scalar::<_, String>(sqlx::AssertSqlSafe(text));
        let rows = rows.fetch_all(&mut connection).await.unwrap();
        all.extend(rows.into_iter().map(|row| format!("{name}: {row}")));
    }
    connection.close().await.unwrap();
    all
}

/// Lets everybody know that no host lives any more.
pub(crate) async fn hosts_are_gone(scene: &Scene) {
    on_file(scene, "update sagabus_host set heartbeat_at = 1").await;
}

/// Runs a statement beside the program.
pub(crate) async fn on_file(scene: &Scene, sql: &str) {
    let path = scene.file().display().to_string();
    let mut connection = SqliteConnection::connect(&path).await.unwrap();
    let sql = sqlx::AssertSqlSafe(sql.to_owned());
    sqlx::query(sql).execute(&mut connection).await.unwrap();
}

/// Stops a host, which has nothing in hand.
pub(crate) async fn stop(host: RunningHost) {
    assert!(host.stop(Duration::from_secs(10)).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_waiting_message_is_rehearsed_and_every_table_stays_as_it_was() {
    let (scene, store) = Scene::new().await;
    let host = parcels::host(store.clone(), Release::Current).await;
    host.bus().send(Hand { parcel: 7 }).await.unwrap();
    sagabus_testkit::wait::eventually("a parcel", || async {
        store.instance(&parcel("7")).await.unwrap()
    })
    .await;
    // Its timer waits for an hour: what would it do now?
    let timers = scene.json(&["timers", "list"]);
    let id = timers["timers"][0]["message_id"]
        .as_str()
        .unwrap()
        .to_owned();
    let before = everything(&store).await;
    let ran = scene.run(&["messages", "rehearse", &id]);
    assert_eq!(ran.code, 0, "{ran:?}");
    for line in [
        "would be handled; nothing of it happened",
        "endpoint     parcels, by carrier",
        "handler      parcel",
        "parcel 7 moves",
        "  version: 1 -> 2",
        "  state: moving -> lost",
        "sends nothing",
    ] {
        assert!(
            ran.out.lines().any(|one| one == line),
            "{line}: {}",
            ran.out
        );
    }
    let json = scene.json(&["messages", "rehearse", &id]);
    let report = &json["rehearsal"]["report"];
    assert_eq!(report["verdict"]["is"], "well", "{json}");
    assert_eq!(report["instance"]["after"]["state"], "lost");
    assert_eq!(everything(&store).await, before);
    let audit = scene.json(&["audit"]);
    assert_eq!(audit["audit"][0]["action"], "rehearse_message");
    stop(host).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_would_be_sent_is_shown() {
    let (scene, store) = Scene::new().await;
    let host = parcels::host(store.clone(), Release::Current).await;
    let paused = scene.run(&["endpoints", "pause", "parcels", "--yes"]);
    assert_eq!(paused.code, 0, "{paused:?}");
    let is_held = async || (host.endpoints()[0].flow == Flow::Paused).then_some(());
    sagabus_testkit::wait::eventually("a pause", is_held).await;
    let id = host.bus().send(Hand { parcel: 7 }).await.unwrap();
    let ran = scene.run(&["messages", "rehearse", &id.to_string()]);
    assert_eq!(ran.code, 0, "{ran:?}");
    let sent = "sends parcels.lose to @parcels, timer patience, after 3600 s\n    {\"parcel\":7}";
    for text in [
        "parcel 7 begins\n",
        "  state: (nothing) -> moving\n",
        "  data: (nothing) -> {\"parcel\":7}\n",
        "  label tracking is t-7\n",
        sent,
    ] {
        assert!(ran.out.contains(text), "{text}: {}", ran.out);
    }
    assert_eq!(store.counts().await.unwrap().running, 0);
    stop(host).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rehearsal_on_a_server_leaves_every_table_as_it_was() {
    let Some(database) = Database::new().await else {
        return;
    };
    let store = PgStore::connect(&database.url).await.unwrap();
    store.migrate().await.unwrap();
    postgres::fill(&store, 1).await;
    let host = parcels::host(store.clone(), Release::Current).await;
    host.bus().send(Hand { parcel: 7 }).await.unwrap();
    sagabus_testkit::wait::eventually("a parcel", || async {
        store.instance(&parcel("7")).await.unwrap()
    })
    .await;
    let run = |arguments: &[&str]| run(&[&["--store", &database.url], arguments].concat());
    let timers = run(&["timers", "list", "--json"]);
    let timers: serde_json::Value = serde_json::from_str(&timers.out).unwrap();
    let id = timers["timers"][0]["message_id"].as_str().unwrap();
    let before = everything_on_server(&database.url).await;
    let is_of = |table: &str| before.iter().any(|row| row.starts_with(table));
    assert!(
        ["instance: ", "outbox: ", "dead_letter: "]
            .into_iter()
            .all(is_of)
    );

    let ran = run(&["messages", "rehearse", id]);
    assert_eq!(ran.code, 0, "{ran:?}");
    assert!(ran.out.contains("  state: moving -> lost"), "{ran:?}");
    let after = everything_on_server(&database.url).await;
    let differs = before.iter().zip(&after).find(|(one, other)| one != other);
    assert!(before == after, "{differs:?}");
    let audit = run(&["audit", "--json"]);
    assert!(audit.out.contains("rehearse_message"), "{audit:?}");

    // The comparison sees what a change does.
    stop(host).await;
    assert_eq!(
        run(&[
            "timers",
            "fire",
            &timers["timers"][0]["id"].to_string(),
            "--yes"
        ])
        .code,
        0
    );
    assert_ne!(everything_on_server(&database.url).await, before);
    store.close();
    database.drop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_letter_whose_handler_may_touch_the_outside_is_not_run() {
    let (scene, store) = Scene::with_failures(1).await;
    hosts_are_gone(&scene).await;
    let none = scene.run(&["dead-letters", "rehearse", "1"]);
    assert_eq!(none.code, 1, "{none:?}");
    assert!(
        none.err.contains("no live host runs endpoint `payments`"),
        "{none:?}"
    );
    assert!(none.err.contains("SB0404"), "{none:?}");

    let host = host(store.clone()).await;
    let before = everything(&store).await;
    let ran = scene.run(&["dead-letters", "rehearse", "1"]);
    assert_eq!(ran.code, 0, "{ran:?}");
    assert!(
        ran.out.contains("was not run; nothing of it happened"),
        "{ran:?}"
    );
    assert!(
        ran.out.contains("`shop.charge` with `.rehearses::<..>()`"),
        "{ran:?}"
    );
    assert_eq!(everything(&store).await, before);
    for (arguments, code) in [
        (&["dead-letters", "rehearse", "99"][..], 3),
        (&["dead-letters", "rehearse", "one"], 2),
        (
            &[
                "messages",
                "rehearse",
                "018f4e5a-0000-7000-8000-000000000001",
            ],
            3,
        ),
        (&["messages", "rehearse", "no-id"], 2),
    ] {
        let odd = scene.run(arguments);
        assert_eq!(odd.code, code, "{arguments:?} {odd:?}");
    }
    let order = Charge {
        order: 9,
        note: String::new(),
    };
    host.bus().send(order).await.unwrap();
    stop(host).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_waits_for_a_host_that_hangs_is_told_so_and_nothing_is_done_later() {
    let (scene, store) = Scene::with_failures(1).await;
    let host = host(store.clone()).await;
    stop(host).await;
    // As one that was killed a moment ago.
    on_file(&scene, "update sagabus_host set stopped_at = null").await;
    let ran = scene.run(&["dead-letters", "rehearse", "1"]);
    assert_eq!(ran.code, 1, "{ran:?}");
    assert!(
        ran.err.contains("took it within 5 s, and none will"),
        "{ran:?}"
    );
    let again = scene.run(&["dead-letters", "rehearse", "1"]);
    assert!(again.err.contains("ask again in a moment"), "{again:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_moves_an_instance_and_refuses_what_it_does_not_know() {
    let scene = lost_one().await;
    hosts_are_gone(&scene).await;
    let to = |to: &'static str| ["sagas", "transition", "parcel", "2", "--to", to];
    let nobody = scene.run(&[&to("moving")[..], &["--yes"]].concat());
    assert_eq!(nobody.code, 1, "{nobody:?}");
    assert!(
        nobody.err.contains("no live host runs endpoint `parcels`"),
        "{nobody:?}"
    );

    let store = SqliteStore::open(scene.file()).await.unwrap();
    let host = parcels::host(store.clone(), Release::Current).await;
    let looked = scene.run(&[&to("moving")[..], &["--dry-run"]].concat());
    assert!(looked.out.contains("from lost to moving"), "{looked:?}");
    let asked = scene.run(&to("moving"));
    assert_eq!(asked.code, 2, "{asked:?}");
    let unknown = scene.run(&[&to("flying")[..], &["--yes"]].concat());
    assert_eq!(unknown.code, 1, "{unknown:?}");
    assert!(
        unknown
            .err
            .contains("machine `parcel` has no state `flying`"),
        "{unknown:?}"
    );
    let same = scene.run(&[&to("lost")[..], &["--yes"]].concat());
    assert!(same.err.contains("in state `lost` already"), "{same:?}");
    let none = scene.run(&[
        "sagas",
        "transition",
        "parcel",
        "99",
        "--to",
        "lost",
        "--yes",
    ]);
    assert_eq!(none.code, 3, "{none:?}");
    let found = || async { store.instance(&parcel("2")).await.unwrap().unwrap() };
    assert_eq!(
        (found().await.version, found().await.state.as_deref()),
        (2, Some("lost"))
    );

    let moved = scene.run(&[&to("moving")[..], &["--yes", "--why", "found"]].concat());
    assert_eq!(moved.code, 0, "{moved:?}");
    assert!(
        moved.out.contains("is moved by carrier to moving"),
        "{moved:?}"
    );
    assert_eq!(
        (found().await.version, found().await.state.as_deref()),
        (3, Some("moving"))
    );
    let audit = scene.json(&["audit"]);
    let asked = audit["audit"].as_array().unwrap().iter();
    let asked = asked.filter(|one| one["detail"][0]["to"] == "moving");
    assert_eq!(asked.count(), 1, "before and after in one entry: {audit}");
    let entry = &audit["audit"][0];
    let after = &entry["detail"][0]["after"];
    assert_eq!(
        (&after["version"], &after["state"], &after["is_over"]),
        (&3.into(), &"moving".into(), &false.into())
    );
    assert_eq!(after["data"]["parcel"], 2, "{audit}");
    assert_eq!(entry["detail"][0]["host"], "carrier");
    let hidden = scene.json(&["audit", "--role", "reader"]);
    for name in ["before", "after"] {
        let hidden = &hidden["audit"][0]["detail"][0][name];
        assert!(hidden.is_null(), "{name}: {hidden}");
    }
    assert_eq!(entry["action"], "transition_instance", "{audit}");
    assert_eq!(
        (&entry["who"], &entry["why"]),
        (&"ada".into(), &"found".into())
    );
    let detail = &entry["detail"][0];
    assert_eq!(
        (&detail["from"], &detail["to"]),
        (&"lost".into(), &"moving".into())
    );
    assert_eq!(detail["before"]["text"], "{\"parcel\":2}", "{audit}");
    let history = scene.run(&["sagas", "show", "parcel", "2"]);
    assert!(
        history
            .out
            .contains("lost to moving, moved by ada, by carrier"),
        "{history:?}"
    );

    let cancel = ["sagas", "cancel", "parcel", "2"];
    let seen = scene.run(&[&cancel[..], &["--dry-run"]].concat());
    assert_eq!(
        (seen.code, seen.out.as_str()),
        (
            0,
            "would cancel parcel 2 in state moving, with what is done on the way to its end\n"
        )
    );
    assert_eq!(found().await.version, 3);
    let over = scene.run(&[&cancel[..], &["--yes", "--why", "never came"]].concat());
    assert_eq!(over.code, 0, "{over:?}");
    assert!(
        over.out.contains("parcel 2 is cancelled by carrier"),
        "{over:?}"
    );
    assert_eq!(found().await.version, 4);
    let audit = scene.json(&["audit", "--action", "cancel_instance"]);
    let entry = &audit["audit"][0]["detail"][0];
    assert_eq!(
        (&entry["from"], &entry["to"]),
        (&"moving".into(), &serde_json::Value::Null)
    );
    assert_eq!(entry["after"]["is_over"], true, "{audit}");
    let history = scene.run(&["sagas", "show", "parcel", "2"]);
    assert!(
        history
            .out
            .contains("moving to the end, cancelled by ada, by carrier"),
        "{history:?}"
    );
    let again = scene.run(&[&cancel[..], &["--yes"]].concat());
    assert_eq!(again.code, 1, "{again:?}");
    stop(host).await;
}
