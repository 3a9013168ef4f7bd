//! Many messages for few instances, twice, from everywhere: each is applied once.

use std::collections::HashMap;

use sagabus_core::store::Instance;
use sagabus_core::{Command, InstanceId, Kind, Message, MessageId, RunningHost};
use sagabus_saga::{Correlate, MachineEndpoint, Saga, SagaState, StateMachine};
use sagabus_testkit::bus::{Scene, start, stop};
use sagabus_testkit::wait::eventually;
use serde::{Deserialize, Serialize};

on_every_store! {
    sixty_four_messages_at_once_move_one_instance_sixty_four_times,
    random_messages_with_duplicates_on_two_hosts_end_where_a_plain_sum_does,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Add {
    key: u64,
    amount: i64,
}

impl Message for Add {
    const TYPE: &'static str = "sums.add";
    const KIND: Kind = Kind::Command;
}
impl Command for Add {}

impl Correlate<Sum> for Add {
    fn key(&self) -> u64 {
        self.key
    }
}

#[derive(Debug, Serialize, Deserialize)]
struct Sum {
    sum: i64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Stage {
    Counting,
}

impl SagaState for Stage {
    const ALL: &'static [Self] = &[Self::Counting];

    fn name(self) -> &'static str {
        "counting"
    }
}

impl Saga for Sum {
    type Key = u64;
    type State = Stage;
}

/// Any message starts a sum; the others add to it.
fn sums() -> StateMachine<Sum> {
    StateMachine::named("sum")
        .endless()
        .initially(
            Sum::when::<Add>()
                .init(|m| Sum { sum: m.amount })
                .transition_to(Stage::Counting),
        )
        .during(
            Stage::Counting,
            Sum::when::<Add>().then(|s, m| s.sum += m.amount).stay(),
        )
}

async fn two_hosts(scene: &Scene) -> [RunningHost; 2] {
    let here = scene
        .builder("here")
        .endpoint("sums", |e| e.machine(sums()));
    let there = scene.builder_on("there", scene.peer());
    let there = there.endpoint("sums", |e| e.machine(sums()));
    [start(here).await, start(there).await]
}

async fn at_version(scene: &Scene, key: u64, version: i64) -> Instance {
    let id = InstanceId {
        kind: "sum".into(),
        key: key.to_string(),
    };
    let look = || async {
        let found = scene.admin().instance(&id).await.unwrap();
        found.filter(|one| one.version >= version)
    };
    eventually(&format!("version {version} of {id}"), look)
        .await
        .0
}

fn count(hosts: &[RunningHost], name: &str) -> u64 {
    let of = |host: &RunningHost| {
        let counts = host.counters().snapshot();
        counts
            .into_iter()
            .find(|one| one.0 == name)
            .map_or(0, |one| one.1)
    };
    hosts.iter().map(of).sum()
}

async fn sixty_four_messages_at_once_move_one_instance_sixty_four_times(scene: Scene) {
    const MESSAGES: i64 = 64;
    let hosts = two_hosts(&scene).await;
    let sent = (0..MESSAGES).map(|n| {
        let bus = hosts[usize::try_from(n % 2).unwrap()].bus();
        async move { bus.send(Add { key: 1, amount: 1 }).await.unwrap() }
    });
    futures_util::future::join_all(sent).await;
    at_version(&scene, 1, MESSAGES).await;
    scene.quiet().await;
    let tries = count(&hosts, "committed") + count(&hosts, "conflicts");
    let [here, there] = hosts;
    stop(here).await;
    stop(there).await;
    let end = at_version(&scene, 1, MESSAGES).await;
    let sum: Sum = serde_json::from_slice(&end.data).unwrap();
    assert_eq!((end.version, sum.sum), (MESSAGES, MESSAGES));
    assert_eq!(scene.counts().await.dead_letters, 0);
    // The messages that were sent are units, too. Across hosts only the version keeps order.
    let handled = tries - u64::try_from(MESSAGES).unwrap();
    assert!(handled <= 3 * 64, "{handled} tries for 64 messages");
    println!("{handled} tries for 64 messages of one instance on two hosts");
}

/// A generator that gives the same numbers every time: Knuth's MMIX.
struct Numbers(u64);

impl Numbers {
    fn next(&mut self, below: u64) -> u64 {
        let (factor, step) = (6_364_136_223_846_793_005, 1_442_695_040_888_963_407);
        self.0 = self.0.wrapping_mul(factor).wrapping_add(step);
        (self.0 >> 33) % below
    }
}

/// The reference knows nothing of ours: a map of sums, each message once.
async fn random_messages_with_duplicates_on_two_hosts_end_where_a_plain_sum_does(scene: Scene) {
    let hosts = two_hosts(&scene).await;
    let mut numbers = Numbers(20_261_121);
    let mut expected: HashMap<u64, (i64, i64)> = HashMap::new();
    let mut sends = Vec::new();
    for _ in 0..400 {
        let (key, amount) = (
            numbers.next(7),
            i64::try_from(numbers.next(1000)).unwrap() - 500,
        );
        let sum = expected.entry(key).or_default();
        *sum = (sum.0 + 1, sum.1 + amount);
        let id = MessageId::new();
        // Once, twice or three times, and not in the order in which they were made.
        for _ in 0..=numbers.next(3) {
            let at = usize::try_from(numbers.next(sends.len() as u64 + 1)).unwrap();
            sends.insert(at, (id, Add { key, amount }));
        }
    }
    for (n, part) in sends.chunks(50).enumerate() {
        let bus = hosts[n % 2].bus();
        let sent = part.iter().map(|(id, add)| {
            let bus = bus.clone();
            async move { bus.send(add.clone()).with_id(*id).await.unwrap() }
        });
        futures_util::future::join_all(sent).await;
    }
    for (key, (count, _)) in &expected {
        at_version(&scene, *key, *count).await;
    }
    scene.quiet().await;
    let [here, there] = hosts;
    stop(here).await;
    stop(there).await;
    for (key, (count, sum)) in expected {
        let end = at_version(&scene, key, count).await;
        let data: Sum = serde_json::from_slice(&end.data).unwrap();
        assert_eq!((end.version, data.sum), (count, sum), "of {key}");
    }
    assert_eq!(scene.counts().await.dead_letters, 0);
}
