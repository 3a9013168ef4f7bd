//! Machines that are made of data when the program runs: which branches there are, at which limits,
//! for which states, and after what time.

use std::collections::BTreeMap;
use std::time::Duration;

use sagabus_core::InstanceId;
use sagabus_core::store::Instance;
use sagabus_core::unit_of_work::InstanceStatus;
use sagabus_saga::{MachineEndpoint, Saga, SagaState, StateMachine};
use sagabus_testkit::bus::{Scene, quick_retry, start, stop};
use sagabus_testkit::wait::eventually;
use serde::{Deserialize, Serialize};

on_every_store! {
    machines_made_of_data_do_what_their_data_says,
}

messages! { Purchase:
    Event Asked "purchases.asked" { cents: u64 },
    Event Approved "purchases.approved",
    Event Overdue "purchases.overdue",
}

#[derive(Debug, Serialize, Deserialize)]
struct Purchase {
    id: u64,
}

impl Saga for Purchase {
    type Key = u64;
    type State = Desk;
}

/// On whose desk it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Desk {
    Clerk,
    Boss,
}

impl SagaState for Desk {
    const ALL: &'static [Self] = &[Self::Clerk, Self::Boss];

    fn name(self) -> &'static str {
        match self {
            Self::Clerk => "clerk",
            Self::Boss => "boss",
        }
    }
}

/// What a customer configures.
#[derive(Deserialize)]
struct Rules {
    name: String,
    /// Above how many cents a purchase goes to which desk; the first that holds counts.
    limits: Vec<(u64, Desk)>,
    /// Where it goes after `patience_ms`.
    overdue: BTreeMap<Desk, Desk>,
    patience_ms: u64,
}

const CAUTIOUS: &str = r#"{
    "name": "cautious", "limits": [[1000, "boss"], [100, "clerk"]],
    "overdue": {}, "patience_ms": 60000
}"#;
const GENEROUS: &str = r#"{
    "name": "generous", "limits": [[1000, "clerk"]],
    "overdue": {"clerk": "boss"}, "patience_ms": 40
}"#;
/// Nothing ever comes to the boss.
const FORGETFUL: &str = r#"{
    "name": "forgetful", "limits": [[1000, "clerk"]], "overdue": {}, "patience_ms": 40
}"#;

fn purchases(rules: &str) -> StateMachine<Purchase> {
    let rules: Rules = serde_json::from_str(rules).unwrap();
    let patience = Duration::from_millis(rules.patience_ms);
    let mut machine = StateMachine::named(&rules.name);
    for (limit, desk) in rules.limits {
        let branch = Purchase::when_if::<Asked>(move |_, m| m.cents > limit)
            .init(|m| Purchase { id: m.id })
            .schedule("patience", patience, |p, _| Overdue { id: p.id })
            .transition_to(desk);
        machine = machine.initially(branch);
    }
    let (moving, waiting): (Vec<Desk>, Vec<Desk>) = Desk::ALL
        .iter()
        .copied()
        .partition(|desk| rules.overdue.contains_key(desk));
    for desk in moving {
        let next = rules.overdue[&desk];
        machine = machine.during(desk, Purchase::when::<Overdue>().transition_to(next));
    }
    machine
        .initially(
            Purchase::when_else::<Asked>()
                .init(|m| Purchase { id: m.id })
                .finalize(),
        )
        .during(waiting, Purchase::ignore::<Overdue>())
        .during(Desk::ALL.to_vec(), Purchase::when::<Approved>().finalize())
}

/// Waits for a version of a purchase in one of the machines.
async fn at_version(scene: &Scene, machine: &str, key: u64, version: i64) -> Instance {
    let id = InstanceId {
        kind: machine.into(),
        key: key.to_string().into(),
    };
    let look = || async {
        let found = scene.admin().instance(&id).await.unwrap();
        found.filter(|one| one.version == version)
    };
    eventually(&format!("version {version} of {id}"), look)
        .await
        .0
}

async fn machines_made_of_data_do_what_their_data_says(scene: Scene) {
    let mut builder = scene.builder("shop");
    for rules in [CAUTIOUS, GENEROUS] {
        let machine = purchases(rules);
        assert_eq!(machine.check(), [""; 0]);
        let endpoint = machine.describe()["machine"].as_str().unwrap().to_owned();
        builder = builder.endpoint(&endpoint, |e| e.machine(machine).retry(quick_retry()));
    }
    let host = start(builder).await;
    for (id, cents) in [(1, 50), (2, 500), (3, 5000)] {
        host.bus().publish(Asked { id, cents }).await.unwrap();
    }
    let cases = [
        ("cautious", 1, 1, None),
        ("cautious", 2, 1, Some("clerk")),
        ("cautious", 3, 1, Some("boss")),
        ("generous", 1, 1, None),
        ("generous", 2, 1, None),
        // Its clerk had it for 40 ms.
        ("generous", 3, 2, Some("boss")),
    ];
    for (machine, key, version, desk) in cases {
        let found = at_version(&scene, machine, key, version).await;
        let is_running = found.status == InstanceStatus::Running;
        let is_at = found.state.as_deref().filter(|_| is_running);
        assert_eq!(is_at, desk, "{machine} {key}");
    }
    host.bus().publish(Approved { id: 3 }).await.unwrap();
    for (machine, version) in [("cautious", 2), ("generous", 3)] {
        let found = at_version(&scene, machine, 3, version).await;
        assert_eq!(found.status, InstanceStatus::Completed, "{machine}");
    }
    stop(host).await;
    assert_eq!(scene.counts().await.dead_letters, 0);
}

#[test]
fn data_that_makes_no_sound_machine_is_refused_as_code_is() {
    let faults = purchases(FORGETFUL).check();
    assert!(
        faults.iter().any(|fault| fault.contains("`boss`")),
        "{faults:?}"
    );
}
