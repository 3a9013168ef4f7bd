//! A database made to try the program on.

use serde_json::json;

use crate::postgres::Database;
use crate::scene::{Scene, run};

#[tokio::test(flavor = "multi_thread")]
async fn the_demo_leaves_something_for_every_command() {
    let (scene, _store) = Scene::new().await;
    let made = scene.json(&["demo"]);
    let expected = json!({"orders": 40, "delivered": 28, "dead_letters": 9, "parked": 4});
    assert_eq!(made, expected);
    let groups = scene.run(&["dead-letters", "groups"]);
    for reason in ["gateway answered", "was declined", "undecodable"] {
        assert!(groups.out.contains(reason), "{groups:?}");
    }
    let accounts = scene.run(&["accounts"]);
    assert_eq!(accounts.code, 0, "{accounts:?}");
    for (command, said) in [
        (vec!["sagas", "show", "order", "3"], "placed"),
        (vec!["sagas", "list", "--state", "placed"], "order"),
        (vec!["machines", "show", "order"], "placed"),
        (vec!["outbox", "parked"], "depot.print-label"),
        (vec!["timers", "list"], "patience"),
        (vec!["schedules", "list"], "daily-report"),
        (vec!["hosts"], "demo-shop"),
        (vec!["dead-letters", "show", "1"], "payments.charge"),
    ] {
        let ran = scene.run(&command);
        assert_eq!(ran.code, 0, "{command:?}: {ran:?}");
        assert!(ran.out.contains(said), "{command:?}: {ran:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_demo_is_the_same_on_postgres() {
    let Some(database) = Database::new().await else {
        return;
    };
    let ran = run(&["--store", &database.url, "demo"]);
    assert_eq!(ran.code, 0, "{ran:?}");
    assert!(ran.out.contains("40 orders: 28 delivered"), "{ran:?}");
    assert!(!ran.out.contains(&database.url), "{ran:?}");
    let accounts = run(&["--store", &database.url, "accounts"]);
    assert_eq!(accounts.code, 0, "{accounts:?}");
    database.drop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_in_use_gets_no_demo() {
    let (scene, _store) = Scene::with_failures(1).await;
    let ran = scene.run(&["demo"]);
    assert_eq!(ran.code, 2, "{ran:?}");
    assert!(ran.err.contains("in use"), "{ran:?}");
    let ran = scene.run(&["demo", "--role", "operator"]);
    assert_ne!(ran.code, 0, "{ran:?}");
    assert_eq!(
        scene.json(&["dead-letters", "groups"])["groups"][0]["count"],
        1
    );
}
