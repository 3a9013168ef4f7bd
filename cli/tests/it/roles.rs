//! What each role may do: by the word of the program, and by the grants of the server.

use std::time::Duration;

use sagabus_core::admin::{
    Action, AuditFilter, Change, Errand, Forced, Page, Parcel, RowFilter, RowState, RowVerb,
    StoreAdmin, Task,
};
use sagabus_core::envelope::Envelope;
use sagabus_core::schedule::ScheduleVerb;
use sagabus_core::{Event, Host, InstanceId, Kind, Message, Timestamp, cron};
use sagabus_ops::Role;
use sagabus_outbox::PgStore;
use sagabus_testkit::wait::eventually;

use crate::parcels::{self, Hand, Release};
use crate::postgres::{self, Database, on_server};
use crate::scene::{self, Ran, Scene, Ship};

/// Commands that change nothing where they are done again, and the least role that each takes.
const COMMANDS: &[(&str, &[&str])] = &[
    ("reader", &["status"]),
    ("reader", &["dead-letters", "groups"]),
    ("reader", &["operations", "list"]),
    ("reader", &["sagas", "list"]),
    ("reader", &["endpoints", "list"]),
    ("reader", &["hosts"]),
    ("reader", &["accounts"]),
    ("reader", &["inbox", "list"]),
    ("reader", &["outbox", "list"]),
    ("operator", &["dead-letters", "discard", "1", "--yes"]),
    ("operator", &["dead-letters", "restore", "1", "--yes"]),
    ("operator", &["outbox", "release", "--all", "--yes"]),
    (
        "operator",
        &["outbox", "release", "--all", "--to", "@payments", "--yes"],
    ),
    ("operator", &["endpoints", "pause", "payments", "--yes"]),
    ("operator", &["endpoints", "resume", "payments", "--yes"]),
    ("admin", &["schema", "migrate"]),
];

const ROLES: [&str; 4] = ["reader", "body-reader", "operator", "admin"];

fn rank(role: &str) -> usize {
    ROLES.iter().position(|one| *one == role).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_role_is_kept_to_by_every_command() {
    let (scene, store) = Scene::with_failures(2).await;
    for role in ROLES {
        for (needs, command) in COMMANDS {
            let ran = scene.run(&[command, &["--role", role][..]].concat());
            let may = rank(role) >= rank(needs);
            assert_eq!(ran.code, i32::from(!may), "{role} {command:?}: {ran:?}");
            assert_eq!(ran.err.contains("may not"), !may, "{ran:?}");
        }
        let show = scene.run(&["dead-letters", "show", "1", "--json", "--role", role]);
        let shown: serde_json::Value = serde_json::from_str(&show.out).unwrap();
        let sees = rank(role) >= rank("body-reader");
        assert_eq!(shown["body"]["text"].is_string(), sees, "{role}: {shown}");
    }
    let ran = scene.run(&["status", "--role", "root"]);
    assert_eq!(ran.code, 2, "{ran:?}");
    let by_variable = scene::program(&["--store", scene.file().to_str().unwrap()])
        .args(["dead-letters", "discard", "2", "--yes"])
        .env("SAGABUS_ROLE", "reader")
        .output()
        .unwrap();
    assert_eq!(by_variable.status.code(), Some(1));
    assert_eq!(store.counts().await.unwrap().dead_letters, 2);
}

#[test]
fn a_file_has_no_roles_to_grant() {
    let ran = scene::run(&["--store", "shop.db", "schema", "grants"]);
    assert_eq!(ran.code, 2, "{ran:?}");
    assert!(ran.err.contains("a SQLite file has no roles"), "{ran:?}");
}

/// A login of the server that is a member of one of the granted roles.
async fn login(server: &str, url: &str, role: &str) -> String {
    let group = format!("sagabus_{}", role.replace('-', "_"));
    let name = format!("{}_{}", &group, uuid::Uuid::now_v7().simple());
    let sql = format!("create role {name} login password 'secret' in role {group}");
    on_server(server, sql).await;
    let at = url.find('@').unwrap();
    format!("postgres://{name}:secret{}", &url[at..])
}

#[tokio::test(flavor = "multi_thread")]
async fn the_server_refuses_what_a_login_was_not_granted() {
    let Some(database) = Database::new().await else {
        return;
    };
    let store = PgStore::connect(&database.url).await.unwrap();
    store.migrate().await.unwrap();
    postgres::fill(&store, 2).await;
    let grants = scene::run(&["--store", &database.url, "schema", "grants"]);
    assert_eq!(grants.code, 0, "{grants:?}");
    on_server(&database.url, grants.out.clone()).await;
    on_server(&database.url, grants.out).await;

    for role in ROLES {
        let url = login(&database.url, &database.url, role).await;
        // The program was told nothing: what refuses is the server.
        let run = |command: &[&str]| -> Ran { scene::run(&[&["--store", &url], command].concat()) };
        for (needs, command) in COMMANDS.iter().filter(|(_, one)| one[0] != "schema") {
            let ran = run(command);
            let may = rank(role) >= rank(needs);
            assert_eq!(ran.code == 0, may, "{role} {command:?}: {ran:?}");
        }
        let show = run(&["dead-letters", "show", "1"]);
        let sees = rank(role) >= rank("body-reader");
        assert_eq!(show.code == 0, sees, "{role}: {show:?}");
        let audit = run(&["audit"]);
        assert_eq!(audit.code == 0, sees, "{role}: {audit:?}");
        for sql in [
            "update sagabus.audit set who = 'eve'",
            "delete from sagabus.audit",
            "delete from sagabus.dead_letter",
            "update sagabus.dead_letter set body = ''",
            "drop table sagabus.audit",
            "insert into sagabus.instance (kind, key, version, schema_version, data, timers, \
             created_at, updated_at) values ('a', 'b', 1, 1, '', '', 0, 0)",
        ] {
            assert!(
                postgres::try_on_server(&url, sql).await.is_err(),
                "{role}: {sql}"
            );
        }
        let alter = "update sagabus.instance set version = version";
        let may = postgres::try_on_server(&url, alter).await.is_ok();
        assert_eq!(may, role == "admin", "{role}");
        let name = url["postgres://".len()..].split(':').next().unwrap();
        on_server(&database.url, format!("drop role {name}")).await;
    }
    store.close();
    database.drop().await;
}

#[derive(serde::Serialize, serde::Deserialize)]
struct Noted;

impl Message for Noted {
    const TYPE: &'static str = "roles.noted";
    const KIND: Kind = Kind::Event;
}
impl Event for Noted {}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_runs_without_the_right_to_change_the_schema() {
    let Some(database) = Database::new().await else {
        return;
    };
    let owner = PgStore::connect(&database.url).await.unwrap();
    owner.migrate().await.unwrap();
    on_server(&database.url, PgStore::grants().to_owned()).await;
    let url = login(&database.url, &database.url, "host").await;
    let store = PgStore::connect(&url).await.unwrap();

    let (told, mut hears) = tokio::sync::mpsc::unbounded_channel();
    let handler = move |_: Noted| {
        let told = told.clone();
        async move { told.send(()).map_err(sagabus_core::HandlerError::from) }
    };
    let builder = Host::builder("notes").store(store.clone());
    let host = builder
        .endpoint("notes", |e| e.handle(handler))
        .build()
        .unwrap();
    let host = host.start().await.unwrap();
    host.bus().publish(Noted).await.unwrap();
    let heard = tokio::time::timeout(Duration::from_secs(30), hears.recv()).await;
    assert_eq!(heard.unwrap(), Some(()));
    assert!(host.stop(Duration::from_secs(30)).await);

    for sql in [
        "create table sagabus.mine (id int)",
        "alter table sagabus.outbox add column mine int",
        "drop table sagabus.inbox",
        "truncate sagabus.inbox",
        "update sagabus.audit set who = 'eve'",
        "delete from sagabus.audit",
    ] {
        assert!(postgres::try_on_server(&url, sql).await.is_err(), "{sql}");
    }
    store.close();
    owner.close();
    let name = url["postgres://".len()..].split(':').next().unwrap();
    on_server(&database.url, format!("drop role {name}")).await;
    database.drop().await;
}

fn rehearsal(envelope: &Envelope) -> Action {
    errand(Task::Rehearse(Box::new(Parcel::new(envelope, None))))
}

fn transition() -> Action {
    errand(Task::Transition(Box::new(Forced {
        instance: InstanceId {
            kind: "parcel".into(),
            key: "1".into(),
        },
        version: 1,
        to: Some("lost".to_owned()),
        before: None,
        who: "ada".to_owned(),
    })))
}

fn errand(task: Task) -> Action {
    Action::AskHost(Box::new(Errand {
        endpoint: "payments".to_owned(),
        until: Timestamp::NEVER,
        task,
    }))
}

fn rows(id: i64, verb: RowVerb) -> Action {
    Action::ChangeRows {
        ids: vec![id],
        verb,
    }
}

/// Everything that an operator may change, in an order in which each changes something.
async fn operators_actions(store: &PgStore) -> Vec<Action> {
    let ids = async |state| {
        let filter = RowFilter {
            state: Some(state),
            ..RowFilter::default()
        };
        let rows = store.rows(&filter, Page::oldest(10)).await.unwrap();
        rows.iter().map(|row| row.id).collect::<Vec<_>>()
    };
    let (timers, parked) = (ids(RowState::Timer).await, ids(RowState::Parked).await);
    assert_eq!((timers.len(), parked.len()), (2, 2));
    let dead = store.dead_letters(1).await.unwrap().remove(0);
    let endpoint = || "payments".to_owned();
    let transport = || "archive".to_owned();
    let schedule = |name: &str, verb| Action::ChangeSchedule {
        name: name.to_owned(),
        verb,
    };
    let moved = |at: usize, due| Action::MoveTimers {
        ids: vec![timers[at]],
        due,
    };
    vec![
        Action::DiscardDeadLetters(vec![dead.id]),
        Action::RestoreDeadLetters(vec![dead.id]),
        Action::RedriveDeadLetters(vec![dead.id]),
        rows(parked[0], RowVerb::Release),
        rows(parked[0], RowVerb::Park),
        rows(
            parked[0],
            RowVerb::Readdress {
                to: "@parcels".to_owned(),
            },
        ),
        rows(parked[1], RowVerb::Discard),
        Action::SendMessage {
            endpoint: endpoint(),
            envelope: Box::new(dead.envelope.clone()),
        },
        moved(0, Some(Timestamp::NEVER)),
        Action::CancelTimers(vec![timers[0]]),
        moved(1, None),
        Action::PauseEndpoint {
            endpoint: endpoint(),
        },
        Action::ResumeEndpoint {
            endpoint: endpoint(),
        },
        Action::PauseTransport {
            transport: transport(),
        },
        Action::ResumeTransport {
            transport: transport(),
        },
        schedule("report", ScheduleVerb::Pause),
        schedule("report", ScheduleVerb::Resume),
        schedule("reminder", ScheduleVerb::Fire),
        schedule("reminder", ScheduleVerb::Remove),
        rehearsal(&dead.envelope),
    ]
}

/// Leaves two dead letters, two parked commands of which one has an owner by now, two timers and two
/// schedules.
async fn leave_some_of_everything(store: &PgStore) {
    postgres::fill(store, 2).await;
    let host = parcels::host(store.clone(), Release::Current).await;
    for parcel in [1, 2] {
        host.bus().send(Hand { parcel }).await.unwrap();
    }
    let armed = async || (store.counts().await.unwrap().running == 2).then_some(());
    eventually("two parcels", armed).await;
    assert!(host.stop(Duration::from_secs(10)).await);
    let host = scene::host_with(store.clone(), |builder| {
        let yearly = || cron("0 6 1 1 *");
        builder
            .recurring("report", yearly(), |_| Ship { order: 1 })
            .recurring("reminder", yearly(), |_| Ship { order: 2 })
    })
    .await;
    host.bus().send(Ship { order: 8 }).await.unwrap();
    let parked = async || (store.counts().await.unwrap().parked == 2).then_some(());
    eventually("two parked commands", parked).await;
    assert!(host.stop(Duration::from_secs(10)).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operators_login_does_all_that_an_operator_may() {
    let Some(database) = Database::new().await else {
        return;
    };
    let store = PgStore::connect(&database.url).await.unwrap();
    store.migrate().await.unwrap();
    leave_some_of_everything(&store).await;
    let grants = scene::run(&["--store", &database.url, "schema", "grants"]);
    on_server(&database.url, grants.out).await;
    // One of the parked commands gets an owner, so that it can be released.
    let owner = "insert into sagabus.subscription (message_type, endpoint_id, kind) \
        select 'shop.ship', id, 'command' from sagabus.endpoint where name = 'payments'";
    on_server(&database.url, owner.to_owned()).await;
    let actions = operators_actions(&store).await;
    let change = |action: &Action| Change {
        who: "ada".to_owned(),
        why: "grants".to_owned(),
        action: action.clone(),
    };
    for role in ["body-reader", "operator"] {
        let url = login(&database.url, &database.url, role).await;
        let own = PgStore::connect(&url).await.unwrap();
        for action in &actions {
            assert_eq!(Role::needed(action), Role::Operator, "{action:?}");
            let done = own.change(&change(action)).await;
            match role {
                "operator" => assert!(!done.unwrap().is_empty(), "{action:?}"),
                _ => assert!(done.is_err(), "{role} may {action:?}: {done:?}"),
            }
        }
        let beyond = own.change(&change(&transition())).await;
        assert!(beyond.is_err(), "{role} may force an instance: {beyond:?}");
        own.close();
        let name = url["postgres://".len()..].split(':').next().unwrap();
        on_server(&database.url, format!("drop role {name}")).await;
    }
    let noted = store
        .audit(&AuditFilter::default(), Page::latest(100))
        .await
        .unwrap();
    assert_eq!(noted.len(), actions.len(), "each left its entry");
    store.close();
    database.drop().await;
}
