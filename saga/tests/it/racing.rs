//! Many messages for few instances, twice, from everywhere: each is applied once.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use sagabus_core::memory::MemoryTransport;
use sagabus_core::store::Instance;
use sagabus_core::transport::{Publication, address};
use sagabus_core::{
    Command, EndpointBuilder, Envelope, InstanceId, Kind, Message, MessageId, Result, Retry,
    RunningHost, Transport,
};
use sagabus_saga::{
    Correlate, Handles, MachineEndpoint, NamedSaga, Saga, SagaCtx, SagaEndpoint, SagaState, Starts,
    StateMachine, saga,
};
use sagabus_testkit::bus::{Scene, start, stop};
use sagabus_testkit::wait::eventually;
use serde::{Deserialize, Serialize};

use crate::stores::say;

on_every_store! {
    sixty_four_messages_at_once_move_one_instance_sixty_four_times,
    one_host_does_not_try_messages_of_one_instance_against_each_other,
    random_messages_with_duplicates_on_two_hosts_end_where_a_plain_sum_does,
    a_hot_instance_takes_many_messages_in_one_unit_and_each_once,
    copies_that_come_together_with_their_messages_change_nothing,
    two_hosts_that_get_the_same_messages_at_once_apply_each_once,
    only_what_may_be_done_again_is_merged,
    an_error_cuts_a_merged_unit_before_it_and_hurts_nobody_else,
    what_one_merged_message_arms_a_later_one_cancels,
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
    counting(&Arc::default())
}

/// Sums that count how often a message was tried, whatever became of it.
fn counting(tries: &Arc<AtomicU64>) -> StateMachine<Sum> {
    let count = |tries: &Arc<AtomicU64>| {
        let tries = Arc::clone(tries);
        move |_: &mut Sum, _: &Add| {
            tries.fetch_add(1, Ordering::SeqCst);
        }
    };
    StateMachine::named("sum")
        .endless()
        .initially(
            Sum::when::<Add>()
                .init(|m| Sum { sum: m.amount })
                .then(count(tries))
                .transition_to(Stage::Counting),
        )
        .during(
            Stage::Counting,
            Sum::when::<Add>()
                .then(|s, m| s.sum += m.amount)
                .then(count(tries))
                .stay(),
        )
}

async fn two_hosts(scene: &Scene, tries: &Arc<AtomicU64>) -> [RunningHost; 2] {
    let here = scene.builder("here");
    let there = scene.builder_on("there", scene.peer());
    [
        start(here.endpoint("sums", |e| e.machine(counting(tries)))).await,
        start(there.endpoint("sums", |e| e.machine(counting(tries)))).await,
    ]
}

async fn at_version(scene: &Scene, key: u64, version: i64) -> Instance {
    let id = InstanceId {
        kind: "sum".into(),
        key: key.to_string().into(),
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

/// Sends messages for one instance at the same time, and checks that each moved it once.
async fn sixty_four_at_once(scene: &Scene, hosts: Vec<RunningHost>) {
    const MESSAGES: i64 = 64;
    let sent = (0..MESSAGES).map(|n| {
        let bus = hosts[usize::try_from(n).unwrap() % hosts.len()].bus();
        async move { bus.send(Add { key: 1, amount: 1 }).await.unwrap() }
    });
    futures_util::future::join_all(sent).await;
    at_version(scene, 1, MESSAGES).await;
    scene.quiet().await;
    for host in hosts {
        stop(host).await;
    }
    let end = at_version(scene, 1, MESSAGES).await;
    let sum: Sum = serde_json::from_slice(&end.data).unwrap();
    assert_eq!((end.version, sum.sum), (MESSAGES, MESSAGES));
    assert_eq!(scene.counts().await.dead_letters, 0);
}

async fn sixty_four_messages_at_once_move_one_instance_sixty_four_times(scene: Scene) {
    let tries = Arc::default();
    let hosts = Vec::from(two_hosts(&scene, &tries).await);
    sixty_four_at_once(&scene, hosts).await;
    let tries = tries.load(Ordering::SeqCst);
    say(&format!(
        "64 messages of one instance on two hosts: {tries} tries\n"
    ));
    // Across hosts only the version keeps order.
    assert!(tries <= 3 * 64, "{tries} tries for 64 messages");
}

async fn one_host_does_not_try_messages_of_one_instance_against_each_other(scene: Scene) {
    let (here, tries) = (scene.builder("here"), Arc::default());
    let host = start(here.endpoint("sums", |e| e.machine(counting(&tries)))).await;
    sixty_four_at_once(&scene, vec![host]).await;
    let tries = tries.load(Ordering::SeqCst);
    say(&format!(
        "64 messages of one instance on one host: {tries} tries\n"
    ));
    assert!(tries <= 70, "{tries} tries for 64 messages");
}

fn publication(key: u64, amount: i64) -> Publication {
    Publication {
        address: address(Kind::Command, Add::TYPE),
        envelope: Envelope::new(&Add { key, amount }).unwrap(),
        key: None,
    }
}

async fn publish(transport: &MemoryTransport, window: &[Publication]) {
    for answer in transport.publish(window).await {
        answer.unwrap();
    }
}

/// Every tenth message has been handled by another host when this one gets them all.
async fn a_hot_instance_takes_many_messages_in_one_unit_and_each_once(scene: Scene) {
    const MESSAGES: i64 = 1000;
    let transport = MemoryTransport::new();
    let window: Vec<_> = (1..=MESSAGES)
        .map(|amount| publication(1, amount))
        .collect();
    let tenth: Vec<_> = window.iter().step_by(10).cloned().collect();
    let builder = scene.builder_on("other", scene.peer());
    let builder = builder.transport(transport.clone());
    let other = start(builder.endpoint("sums", |e| e.machine(sums()))).await;
    publish(&transport, &tenth).await;
    at_version(&scene, 1, MESSAGES / 10).await;
    stop(other).await;

    let builder = scene.builder("here").transport(transport.clone());
    let host = start(builder.endpoint("sums", |e| e.machine(sums()))).await;
    publish(&transport, &window).await;
    let look = || async {
        let hosts = std::slice::from_ref(&host);
        (count(hosts, "duplicates") == 100).then_some(())
    };
    at_version(&scene, 1, MESSAGES).await;
    eventually("the known tenth", look).await;
    let units = count(std::slice::from_ref(&host), "committed");
    stop(host).await;
    let end = at_version(&scene, 1, MESSAGES).await;
    let sum: Sum = serde_json::from_slice(&end.data).unwrap();
    let expected = MESSAGES * (MESSAGES + 1) / 2;
    assert_eq!((end.version, sum.sum), (MESSAGES, expected));
    assert!(units < 450, "900 messages were {units} units");
    say(&format!(
        "900 messages of a hot instance were {units} units\n"
    ));
    let counts = scene.counts().await;
    assert_eq!((counts.dead_letters, counts.inbox), (0, 1000));
    assert_eq!(counts.history, 1000, "each message has its own entry");
}

/// A broker may deliver a message again while it is in hand: both wait for the instance then.
async fn copies_that_come_together_with_their_messages_change_nothing(scene: Scene) {
    const MESSAGES: i64 = 100;
    let transport = MemoryTransport::new();
    let window = (1..=MESSAGES).map(|amount| publication(1, amount));
    let window: Vec<_> = window.flat_map(|one| [one.clone(), one]).collect();
    let builder = scene.builder("here").transport(transport.clone());
    let host = start(builder.endpoint("sums", |e| e.machine(sums()))).await;
    publish(&transport, &window).await;
    let look = || async {
        let hosts = std::slice::from_ref(&host);
        (count(hosts, "duplicates") == 100).then_some(())
    };
    eventually("every copy is recognised", look).await;
    stop(host).await;
    let end = at_version(&scene, 1, MESSAGES).await;
    let sum: Sum = serde_json::from_slice(&end.data).unwrap();
    assert_eq!(
        (end.version, sum.sum),
        (MESSAGES, MESSAGES * (MESSAGES + 1) / 2)
    );
    assert_eq!(scene.counts().await.history, 100);
}

/// Each host has a broker of its own, and both bring all messages: whole units conflict, because the
/// other host has moved the instance or knows a part of them. No conflict costs a try.
async fn two_hosts_that_get_the_same_messages_at_once_apply_each_once(scene: Scene) {
    const MESSAGES: i64 = 300;
    let mut window: Vec<_> = (1..=MESSAGES)
        .map(|amount| publication(1, amount))
        .collect();
    let mut hosts = Vec::new();
    let mut brokers = Vec::new();
    for (name, store) in [("here", scene.store()), ("there", scene.peer())] {
        let transport = MemoryTransport::new();
        let builder = scene.builder_on(name, store).transport(transport.clone());
        let once = |e: EndpointBuilder| e.machine(sums()).retry(Retry::none());
        hosts.push(start(builder.endpoint("sums", once)).await);
        brokers.push(transport);
    }
    publish(&brokers[0], &window).await;
    window.reverse();
    publish(&brokers[1], &window).await;
    let look = || async { (count(&hosts, "duplicates") == 300).then_some(()) };
    eventually("every copy is recognised", look).await;
    scene.quiet().await;
    let (units, conflicts) = (count(&hosts, "committed"), count(&hosts, "conflicts"));
    for host in hosts {
        stop(host).await;
    }
    let end = at_version(&scene, 1, MESSAGES).await;
    let sum: Sum = serde_json::from_slice(&end.data).unwrap();
    let expected = MESSAGES * (MESSAGES + 1) / 2;
    assert_eq!((end.version, sum.sum), (MESSAGES, expected));
    let counts = scene.counts().await;
    assert_eq!((counts.dead_letters, counts.inbox), (0, 300));
    assert_eq!(counts.history, 300);
    say(&format!(
        "300 messages of one instance that two hosts had at once were {units} units, after \
         {conflicts} conflicts\n"
    ));
}

/// A sum as a struct.
#[derive(Debug, Serialize, Deserialize)]
struct Tally {
    sum: i64,
}

impl Saga for Tally {
    type Key = u64;
    type State = ();
}

impl NamedSaga for Tally {
    const NAME: &'static str = "sum";
}

impl Correlate<Tally> for Add {
    fn key(&self) -> u64 {
        self.key
    }
}

impl Starts<Add> for Tally {
    fn start(_: &Add) -> Self {
        Self { sum: 0 }
    }
}

impl Handles<Add> for Tally {
    async fn handle(&mut self, message: Add, _: &mut SagaCtx) -> Result {
        self.sum += message.amount;
        Ok(())
    }
}

async fn add(mut sum: Sum, message: Add) -> Result<Sum> {
    sum.sum += message.amount;
    Ok(sum)
}

/// Sums by a function of the user's, which may do anything.
fn running() -> StateMachine<Sum> {
    StateMachine::named("sum")
        .endless()
        .initially(
            Sum::when::<Add>()
                .init(|_| Sum { sum: 0 })
                .run(add)
                .transition_to(Stage::Counting),
        )
        .during(Stage::Counting, Sum::when::<Add>().run(add).stay())
}

/// A machine that runs nothing, and a struct that says so; no others.
async fn only_what_may_be_done_again_is_merged(scene: Scene) {
    const MESSAGES: i64 = 120;
    let tally = || saga::<Tally>().starts_with::<Add>();
    type Equip = Box<dyn FnOnce(EndpointBuilder) -> EndpointBuilder>;
    let cases: [(&str, bool, Equip); 4] = [
        ("a pure machine", true, Box::new(|e| e.machine(sums()))),
        (
            "a struct that says so",
            true,
            Box::new(move |e| e.saga(tally().merges())),
        ),
        ("a struct", false, Box::new(move |e| e.saga(tally()))),
        (
            "a machine that runs functions",
            false,
            Box::new(|e| e.machine(running())),
        ),
    ];
    for (key, (what, is_merged, equip)) in (1..).zip(cases) {
        let transport = MemoryTransport::new();
        let builder = scene.builder("here").transport(transport.clone());
        let host = start(builder.endpoint("sums", equip)).await;
        let window: Vec<_> = (0..MESSAGES).map(|_| publication(key, 1)).collect();
        publish(&transport, &window).await;
        let end = at_version(&scene, key, MESSAGES).await;
        let units = || count(std::slice::from_ref(&host), "committed");
        if is_merged {
            let units = units();
            assert!(units < 60, "{what}: 120 messages were {units} units");
        } else {
            // A unit is counted when its commit has been answered: others see it before.
            let look = || async { (units() == 120).then_some(()) };
            eventually(&format!("{what}: a unit for each message"), look).await;
        }
        stop(host).await;
        let sum: Sum = serde_json::from_slice(&end.data).unwrap();
        assert_eq!((end.version, sum.sum), (MESSAGES, MESSAGES), "{what}");
    }
}

/// Refuses one amount, arms a timer at another, and cancels it at a third.
fn moody() -> StateMachine<Sum> {
    StateMachine::named("sum")
        .endless()
        .initially(
            Sum::when::<Add>()
                .init(|m| Sum { sum: m.amount })
                .transition_to(Stage::Counting),
        )
        .during(
            Stage::Counting,
            Sum::when_if::<Add>(|_, m| m.amount == 13)
                .then(|_, _| panic!("thirteen is not added"))
                .stay(),
        )
        .during(
            Stage::Counting,
            Sum::when_if::<Add>(|_, m| m.amount == 7)
                .schedule("later", Duration::from_millis(50), |_, _| Add {
                    key: 1,
                    amount: 1_000_000,
                })
                .stay(),
        )
        .during(
            Stage::Counting,
            Sum::when_if::<Add>(|_, m| m.amount == 8)
                .unschedule("later")
                .stay(),
        )
        .during(
            Stage::Counting,
            Sum::when_else::<Add>()
                .then(|s, m| s.sum += m.amount)
                .stay(),
        )
}

/// Runs a moody machine over one window of amounts, which wait for it.
async fn moody_host(scene: &Scene, amounts: &[i64]) -> RunningHost {
    let transport = MemoryTransport::new();
    let builder = scene.builder("here").transport(transport.clone());
    let moody = |e: EndpointBuilder| e.machine(moody()).retry(Retry::none());
    let host = start(builder.endpoint("sums", moody)).await;
    let window: Vec<_> = amounts
        .iter()
        .map(|amount| publication(1, *amount))
        .collect();
    publish(&transport, &window).await;
    host
}

async fn an_error_cuts_a_merged_unit_before_it_and_hurts_nobody_else(scene: Scene) {
    let mut amounts = vec![1; 200];
    for at in [40, 41, 150] {
        amounts[at] = 13;
    }
    let host = moody_host(&scene, &amounts).await;
    let dead = scene.dead_letters(3).await;
    let end = at_version(&scene, 1, 197).await;
    stop(host).await;
    let sum: Sum = serde_json::from_slice(&end.data).unwrap();
    assert_eq!((end.version, sum.sum), (197, 197));
    assert!(dead.iter().all(|one| one.reason == "attempts_exhausted"));
    assert_eq!(scene.counts().await.dead_letters, 3);
}

async fn what_one_merged_message_arms_a_later_one_cancels(scene: Scene) {
    let mut amounts = vec![1; 60];
    // Armed, cancelled, armed twice: one timer is left.
    for (at, amount) in [(30, 7), (31, 8), (32, 7), (33, 7)] {
        amounts[at] = amount;
    }
    let host = moody_host(&scene, &amounts).await;
    at_version(&scene, 1, 61).await;
    scene.quiet().await;
    stop(host).await;
    let end = at_version(&scene, 1, 61).await;
    let sum: Sum = serde_json::from_slice(&end.data).unwrap();
    assert_eq!((end.version, sum.sum), (61, 1_000_056), "it fired once");
    assert!(end.timers.is_empty());
    assert_eq!(scene.counts().await.dead_letters, 0);
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
    let hosts = two_hosts(&scene, &Arc::default()).await;
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
