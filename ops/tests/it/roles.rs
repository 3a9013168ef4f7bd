//! Each role and each call: what is answered, what is hidden, what is refused.

use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use sagabus_core::admin::{
    Action, Alteration, AuditFilter, Batch, Candidate, Change, Command, DeadLetterFilter, Edit,
    Errand, Forced, Held, HistoryOf, InboxFilter, InstanceFilter, NewOperation, Operations, Pace,
    Page, Parcel, RowFilter, RowVerb, Selected, SentFilter, Standing, StoreAdmin, Task, Told,
    Transitioned, Verb, Wheel,
};
use sagabus_core::memory::MemoryStore;
use sagabus_core::schedule::ScheduleVerb;
use sagabus_core::{Envelope, Headers, InstanceId, MessageId, StoreError, Timestamp};
use sagabus_ops::{Guarded, Role};

type Asked<'a> = BoxFuture<'a, Result<(), StoreError>>;

/// One call, by the name that it has in its trait, and the least role that it takes.
struct Case {
    name: &'static str,
    needs: Role,
    ask: for<'a> fn(&'a Guarded<'a>) -> Asked<'a>,
}

macro_rules! case {
    ($name:ident, $needs:ident, |$at:ident| $call:expr) => {
        Case {
            name: stringify!($name),
            needs: Role::$needs,
            ask: |$at| async move { $call.await.map(|_| ()) }.boxed(),
        }
    };
}

fn instance() -> InstanceId {
    InstanceId {
        kind: "order".into(),
        key: "1".into(),
    }
}

fn does(action: Action) -> Change {
    Change {
        who: "ada".to_owned(),
        why: String::new(),
        action,
    }
}

fn new() -> NewOperation {
    NewOperation {
        who: "ada".to_owned(),
        why: String::new(),
        verb: Verb::Discard,
        selected: Selected::Named(vec![1]),
        pace: Pace::default(),
    }
}

fn told() -> Told {
    Told {
        id: 1,
        command: Command::Cancel,
        who: "ada".to_owned(),
        why: String::new(),
    }
}

const WHEEL: Wheel = Wheel {
    id: 1,
    epoch: 1,
    lease: Duration::from_secs(1),
};

const PAGE: Page = Page::latest(10);

/// Every call of both traits but `change`, which has a table of its own.
const CALLS: &[Case] = &[
    case!(about, Reader, |at| at.about()),
    case!(counts, Reader, |at| at.counts()),
    case!(vitals, Reader, |at| at.vitals()),
    case!(find_dead_letters, Reader, |at| at
        .find_dead_letters(&DeadLetterFilter::any(), PAGE)),
    case!(dead_letter_groups, Reader, |at| at
        .dead_letter_groups(&DeadLetterFilter::any(), 1)),
    case!(count_dead_letters, Reader, |at| at
        .count_dead_letters(&DeadLetterFilter::any())),
    case!(rows, Reader, |at| at.rows(&RowFilter::default(), PAGE)),
    case!(count_rows, Reader, |at| at
        .count_rows(&RowFilter::default())),
    case!(sent, Reader, |at| at.sent(&SentFilter::default(), PAGE)),
    case!(count_sent, Reader, |at| at
        .count_sent(&SentFilter::default())),
    case!(destinations, Reader, |at| at.destinations()),
    case!(hosts, Reader, |at| at.hosts()),
    case!(endpoints, Reader, |at| at.endpoints()),
    case!(instance, Reader, |at| at.instance(&instance())),
    case!(labels, Reader, |at| at.labels(&instance())),
    case!(instances, Reader, |at| at
        .instances(&InstanceFilter::default(), 1)),
    case!(instance_shapes, Reader, |at| at.instance_shapes()),
    case!(waiting_shapes, Reader, |at| at.waiting_shapes()),
    case!(history, Reader, |at| at
        .history(&HistoryOf::Instance(instance()), PAGE)),
    case!(inbox, Reader, |at| at.inbox(&InboxFilter::default(), 1)),
    case!(accounts, Reader, |at| at.accounts(&[])),
    case!(audit, Reader, |at| at.audit(&AuditFilter::default(), PAGE)),
    case!(dead_letters, Reader, |at| at.dead_letters(1)),
    case!(redrive, Operator, |at| at.redrive(1)),
    case!(begin_operation, Operator, |at| at.begin_operation(&new())),
    case!(operations, Reader, |at| at.operations(None, PAGE)),
    case!(take_wheel, Operator, |at| at.take_wheel(
        1,
        "ada",
        Duration::from_secs(1)
    )),
    case!(step, Operator, |at| at.step(WHEEL, 1)),
    case!(tell, Operator, |at| at.tell(&told())),
    case!(redriven, Reader, |at| at.redriven(1)),
];

fn rows(verb: RowVerb) -> Action {
    Action::ChangeRows { ids: vec![1], verb }
}

/// Every action, by the name that its audit entry has.
fn actions() -> Vec<(Role, Action)> {
    let held = || Held {
        state: None,
        data: Bytes::new(),
    };
    vec![
        (Role::Operator, Action::RedriveDeadLetters(vec![1])),
        (Role::Operator, Action::DiscardDeadLetters(vec![1])),
        (Role::Operator, Action::RestoreDeadLetters(vec![1])),
        (
            Role::Operator,
            Action::SendMessage {
                endpoint: "orders".to_owned(),
                envelope: Box::new(Envelope {
                    id: MessageId::new(),
                    message_type: "shop.order-placed".into(),
                    headers: Headers::default(),
                    body: Bytes::new(),
                }),
            },
        ),
        (
            Role::Admin,
            Action::EditDeadLetter(Edit {
                id: 1,
                message: MessageId::new(),
                before: Bytes::new(),
                after: Bytes::new(),
            }),
        ),
        (
            Role::Admin,
            Action::AlterInstance(Alteration {
                instance: instance(),
                version: 1,
                before: held(),
                after: held(),
            }),
        ),
        (
            Role::Admin,
            Action::CompleteInstance {
                instance: instance(),
                version: 1,
            },
        ),
        (
            Role::Admin,
            Action::RemoveSubscription {
                endpoint: "orders".to_owned(),
                message_type: "shop.order-placed".to_owned(),
            },
        ),
        (
            Role::Admin,
            Action::RemoveEndpoint {
                endpoint: "orders".to_owned(),
            },
        ),
        (
            Role::Operator,
            Action::MoveTimers {
                ids: vec![1],
                due: Some(Timestamp::NEVER),
            },
        ),
        (
            Role::Operator,
            Action::MoveTimers {
                ids: vec![1],
                due: None,
            },
        ),
        (Role::Operator, Action::CancelTimers(vec![1])),
        (
            Role::Operator,
            Action::PauseEndpoint {
                endpoint: "orders".to_owned(),
            },
        ),
        (
            Role::Operator,
            Action::ResumeEndpoint {
                endpoint: "orders".to_owned(),
            },
        ),
        (
            Role::Operator,
            Action::PauseTransport {
                transport: "default".to_owned(),
            },
        ),
        (
            Role::Operator,
            Action::ResumeTransport {
                transport: "default".to_owned(),
            },
        ),
        (
            Role::Admin,
            Action::NoteTransition(Box::new(Transitioned {
                instance: instance(),
                version: 1,
                host: "shop".to_owned(),
                after: Standing {
                    version: 2,
                    is_over: false,
                    state: Some("paid".to_owned()),
                    data: serde_json::Value::Null,
                    timers: Vec::new(),
                },
            })),
        ),
        (
            Role::Operator,
            Action::ChangeSchedule {
                name: "nightly".to_owned(),
                verb: ScheduleVerb::Pause,
            },
        ),
        (Role::Operator, rehearsal()),
        (Role::Admin, transition(Some("paid"))),
        (Role::Admin, transition(None)),
        (Role::Admin, migration()),
        (Role::Admin, reading()),
        (Role::Operator, Action::RepublishSent(vec![1])),
        (Role::Operator, rows(RowVerb::Park)),
        (Role::Operator, rows(RowVerb::Release)),
        (Role::Operator, rows(RowVerb::Expedite)),
        (
            Role::Operator,
            rows(RowVerb::Readdress {
                to: "@orders".to_owned(),
            }),
        ),
        (Role::Operator, rows(RowVerb::Discard)),
        (Role::Operator, rows(RowVerb::Purge)),
    ]
}

fn migration() -> Action {
    ask(Task::Migrate(Box::new(Batch {
        kind: "order".to_owned(),
        keys: vec!["1".to_owned()],
        who: "ada".to_owned(),
    })))
}

fn reading() -> Action {
    ask(Task::Read(Box::new(Candidate {
        instance: instance(),
        schema_version: 1,
        state: None,
        data: "{}".to_owned(),
    })))
}

fn rehearsal() -> Action {
    let envelope = Envelope {
        id: MessageId::new(),
        message_type: "shop.order-placed".into(),
        headers: Headers::default(),
        body: Bytes::new(),
    };
    ask(Task::Rehearse(Box::new(Parcel::new(&envelope, None))))
}

fn transition(to: Option<&str>) -> Action {
    ask(Task::Transition(Box::new(Forced {
        instance: instance(),
        version: 1,
        to: to.map(str::to_owned),
        before: None,
        who: "ada".to_owned(),
    })))
}

fn ask(task: Task) -> Action {
    Action::AskHost(Box::new(Errand {
        endpoint: "orders".to_owned(),
        until: Timestamp::NEVER,
        task,
    }))
}

fn is_refused(name: &str, role: Role, needs: Role, answer: &Result<(), StoreError>) {
    match answer {
        Err(StoreError::Forbidden(text)) => {
            assert!(role < needs, "{role} may {name}: {text}");
            assert!(
                text.contains(&format!("that takes role `{needs}`")),
                "{text}"
            );
        }
        answer => assert!(role >= needs, "{role} may not {name}: {answer:?}"),
    }
}

#[tokio::test]
async fn each_role_may_do_what_it_takes_and_no_more() {
    let store = MemoryStore::new();
    for role in Role::ALL {
        let guarded = Guarded::new(&store, role);
        for case in CALLS {
            let answer = (case.ask)(&guarded).await;
            is_refused(case.name, role, case.needs, &answer);
        }
        for (needs, action) in actions() {
            let name = action.as_str();
            let answer = guarded.change(&does(action)).await.map(|_| ());
            is_refused(name, role, needs, &answer);
        }
    }
}

/// The tables above have every call and every action: a new one has to be decided here.
#[test]
fn no_call_and_no_action_is_forgotten() {
    let contracts = [
        include_str!("../../../bus-core/src/admin/contract.rs"),
        include_str!("../../../bus-core/src/admin/operation.rs"),
    ];
    let mut calls: Vec<&str> = contracts
        .iter()
        .flat_map(|text| {
            let from = text.find("pub trait ").unwrap();
            let rest = &text[from..];
            rest[..rest.find("\n}\n").unwrap()].lines()
        })
        .filter_map(|line| line.strip_prefix("    fn ")?.split(['<', '(']).next())
        .collect();
    calls.retain(|name| *name != "change");
    let listed: Vec<_> = CALLS.iter().map(|case| case.name).collect();
    assert_eq!(listed, calls);

    let text = include_str!("../../../bus-core/src/admin/change.rs");
    let names = text.split("const fn as_str").nth(1).unwrap();
    let names = names[..names.find("\n    }\n").unwrap()].lines();
    let mut known: Vec<_> = names.filter_map(|line| line.split('"').nth(1)).collect();
    known.push(ScheduleVerb::Pause.as_str());
    known.extend([
        "rehearse_message",
        "transition_instance",
        "cancel_instance",
        "migrate_instances",
        "read_instance",
    ]);
    known.extend(["republish_sent", "park_rows", "release_rows"]);
    known.extend(["expedite_rows", "readdress_rows", "discard_rows"]);
    known.push("purge_rows");
    let actions = actions();
    let listed: Vec<_> = actions.iter().map(|(_, action)| action.as_str()).collect();
    assert_eq!(listed, known);
}

#[test]
fn roles_are_read_and_nonsense_is_refused() {
    for role in Role::ALL {
        assert_eq!(role.as_str().parse(), Ok(role));
    }
    for nonsense in ["", "Admin", "root", "reader "] {
        let refused = nonsense.parse::<Role>().unwrap_err();
        assert!(refused.contains("reader, body-reader, operator, admin"));
    }
}
