//! Timers that fire at the very moment in which they are cancelled or replaced: what is committed
//! first holds, and a copy on its way has no effect after that.

use std::time::Duration;

use sagabus_core::{Command, Due, Event, InstanceId, Kind, Message, Outgoing, RunningHost};
use sagabus_saga::{Correlate, MachineEndpoint, Saga, SagaState, StateMachine};
use sagabus_testkit::bus::{Scene, start, stop};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use crate::stores::say;

on_every_store! {
    a_timer_that_is_cancelled_or_replaced_as_it_fires_has_one_of_two_ends,
}

/// Trials on every store that is fast enough.
const TRIALS: u64 = 10_000;
/// Trials at the same time: as many as a small machine sends before their timers fire.
const BATCH: u64 = 500;
/// After so long there is no further batch.
const TIME_MAX: Duration = Duration::from_secs(60);
/// When a timer fires, and about when it is cancelled.
const DELAY: Duration = Duration::from_millis(250);
/// Between the earliest and the latest cancel.
const SPREAD_MICROS: u64 = 24_000;

/// Declares what an alarm takes.
macro_rules! messages {
    ($($kind:ident $name:ident $type:literal,)*) => {
        $(
            #[derive(Clone, Debug, Serialize, Deserialize)]
            struct $name {
                id: u64,
                n: u32,
            }

            impl Message for $name {
                const TYPE: &'static str = $type;
                const KIND: Kind = Kind::$kind;
            }
            impl $kind for $name {}

            impl Correlate<Alarm> for $name {
                fn key(&self) -> u64 {
                    self.id
                }
            }
        )*
    };
}

messages! {
    Command Arm "alarms.arm",
    Command Touch "alarms.touch",
    Command Cancel "alarms.cancel",
    Command Replace "alarms.replace",
    Event Ring "alarms.ring",
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Stage {
    Armed,
    Rung,
    Cancelled,
}

impl SagaState for Stage {
    const ALL: &'static [Self] = &[Self::Armed, Self::Rung, Self::Cancelled];

    fn name(self) -> &'static str {
        match self {
            Self::Armed => "armed",
            Self::Rung => "rung",
            Self::Cancelled => "cancelled",
        }
    }
}

#[derive(Debug, Default, Serialize, Deserialize)]
struct Alarm {
    touched: u32,
    /// The rings, in order, by the number of what armed them.
    rung: Vec<u32>,
    /// Rings in a state in which none may come.
    late: u32,
}

impl Saga for Alarm {
    type Key = u64;
    type State = Stage;
}

fn alarms() -> StateMachine<Alarm> {
    let again = || {
        Alarm::when::<Replace>()
            .unschedule("ring")
            .schedule("ring", Duration::from_millis(5), |_, m| Ring {
                id: m.id,
                n: m.n,
            })
            .transition_to(Stage::Armed)
    };
    StateMachine::named("alarm")
        .endless()
        .initially(
            Alarm::when::<Arm>()
                .init(|_| Alarm::default())
                .schedule("ring", DELAY, |_, m| Ring { id: m.id, n: m.n })
                .transition_to(Stage::Armed),
        )
        .during_any(Alarm::when::<Touch>().then(|a, _| a.touched += 1).stay())
        .during_any(again())
        .during(
            [Stage::Armed, Stage::Rung],
            Alarm::when::<Cancel>()
                .unschedule("ring")
                .transition_to(Stage::Cancelled),
        )
        .during(
            Stage::Armed,
            Alarm::when::<Ring>()
                .then(|a, m| a.rung.push(m.n))
                .transition_to(Stage::Rung),
        )
        // Nothing may ever come here: it would be an effect after a cancel that is committed.
        .during(
            [Stage::Rung, Stage::Cancelled],
            Alarm::when::<Ring>().then(|a, _| a.late += 1).stay(),
        )
}

/// How the trials ended.
#[derive(Debug, Default)]
struct Ends {
    rung_then_cancelled: u32,
    cancelled_in_time: u32,
    rung_then_replaced: u32,
    replaced_in_time: u32,
}

async fn a_timer_that_is_cancelled_or_replaced_as_it_fires_has_one_of_two_ends(scene: Scene) {
    let here = scene.builder("here");
    let there = scene.builder_on("there", scene.peer());
    let hosts = [
        start(here.endpoint("alarms", |e| e.machine(alarms()))).await,
        start(there.endpoint("alarms", |e| e.machine(alarms()))).await,
    ];
    let started = Instant::now();
    let mut ends = Ends::default();
    let mut trials = 0;
    while trials < TRIALS && started.elapsed() < TIME_MAX {
        let batch = trials..trials + BATCH;
        race(&hosts, batch.clone()).await;
        scene.quiet().await;
        for id in batch {
            let alarm = alarm(&scene, id).await;
            let end = end(&mut ends, id, &alarm);
            *end += 1;
        }
        trials += BATCH;
    }
    for host in hosts {
        stop(host).await;
    }
    let engine = scene.admin().about().await.unwrap().engine;
    let seconds = started.elapsed().as_secs();
    say(&format!(
        "timers against their cancellation on {engine}: {trials} trials in {seconds} s, {ends:?}\n"
    ));
    assert_eq!(scene.counts().await.dead_letters, 0);
    let Ends {
        rung_then_cancelled,
        cancelled_in_time,
        rung_then_replaced,
        replaced_in_time,
    } = ends;
    let both = [
        [rung_then_cancelled, cancelled_in_time],
        [rung_then_replaced, replaced_in_time],
    ];
    for ends in both {
        let least = ends.into_iter().min().unwrap_or_default();
        assert!(least > 0, "one end never came: {both:?}");
    }
}

/// Arms timers, and lets what cancels or replaces them be due when they are.
async fn race(hosts: &[RunningHost; 2], ids: std::ops::Range<u64>) {
    for part in ids.clone().collect::<Vec<_>>().chunks(50) {
        let arms = part.iter().map(|&id| outgoing(&Arm { id, n: 1 }, None));
        hosts[0].bus().send_all(arms.collect()).await.unwrap();
        let at = |id: u64, step: u64| {
            let micros = id.wrapping_mul(7919).wrapping_add(step * 131) % SPREAD_MICROS;
            Some(DELAY + Duration::from_micros(micros) - Duration::from_micros(SPREAD_MICROS / 2))
        };
        // Touches keep the instance busy, so that the others wait for it together.
        let others = part.iter().flat_map(|&id| {
            let last = match id % 2 {
                0 => outgoing(&Cancel { id, n: 2 }, at(id, 2)),
                _ => outgoing(&Replace { id, n: 2 }, at(id, 2)),
            };
            [
                outgoing(&Touch { id, n: 0 }, at(id, 0)),
                outgoing(&Touch { id, n: 0 }, at(id, 1)),
                last,
            ]
        });
        hosts[1].bus().send_all(others.collect()).await.unwrap();
    }
}

fn outgoing<M: Message>(message: &M, after: Option<Duration>) -> Outgoing {
    Outgoing {
        due: after.map_or(Due::Now, Due::After),
        ..Outgoing::new(message).unwrap()
    }
}

async fn alarm(scene: &Scene, id: u64) -> Alarm {
    let id = InstanceId {
        kind: "alarm".into(),
        key: id.to_string().into(),
    };
    let found = scene.admin().instance(&id).await.unwrap().unwrap();
    assert!(found.timers.is_empty(), "{id} still waits");
    serde_json::from_slice(&found.data).unwrap()
}

/// Finds the end that a trial came to, or fails.
fn end<'a>(ends: &'a mut Ends, id: u64, alarm: &Alarm) -> &'a mut u32 {
    assert_eq!((alarm.late, alarm.touched), (0, 2), "{id}: {alarm:?}");
    match (id % 2, alarm.rung.as_slice()) {
        (0, [1]) => &mut ends.rung_then_cancelled,
        (0, []) => &mut ends.cancelled_in_time,
        (1, [1, 2]) => &mut ends.rung_then_replaced,
        (1, [2]) => &mut ends.replaced_in_time,
        _ => panic!("{id} had an effect after its cancel, twice, or none: {alarm:?}"),
    }
}
