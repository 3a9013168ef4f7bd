//! Fires what recurs: declares a host's schedules when it starts, then looks at them once a second.
//!
//! Every host that declares a schedule looks; the schedule's version lets one of them fire each
//! time, in one commit with the message.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::backoff::Backoff;
use crate::clock::{Timestamp, micros};
use crate::committer::{Answer, CommitterHandle};
use crate::counters::Counters;
use crate::endpoint::{EndpointId, EndpointName};
use crate::envelope::{Identity, Outgoing};
use crate::error::{BuildError, CodecError, RunError, StoreError};
use crate::faults::{self, Point};
use crate::lifecycle::Lifecycle;
use crate::message::{Kind, Message};
use crate::protection::{self, Protector};
use crate::recurrence::{Calendar, Overlap, Recurrence};
use crate::schedule::{Declared, Firing, Schedule, ScheduleState, Situation, Turn, schedule_id};
use crate::store::{Fate, Instance, Question, Store};
use crate::store_clock::StoreClock;
use crate::sync::time;
use crate::unit_of_work::{InstanceChange, InstanceStatus, Outcome, UnitOfWork};

/// The pause between two looks: how soon an operator's pause or fire is noticed.
const POLL: Duration = Duration::from_secs(1);
/// How often a declaration meets another host's before that is an error.
const DECLARE_TRIES: u32 = 20;
/// The version of the shape of what a schedule holds.
const SHAPE: i32 = 1;

type Make = Arc<dyn Fn(Timestamp) -> Result<Outgoing, CodecError> + Send + Sync>;

/// A message that recurs, as it was declared.
#[derive(Clone)]
pub(crate) struct Recurring {
    name: String,
    recurrence: Recurrence,
    message_type: &'static str,
    kind: Kind,
    make: Make,
}

impl Recurring {
    pub(crate) fn new<M: Message>(
        name: &str,
        recurrence: Recurrence,
        make: impl Fn(Timestamp) -> M + Send + Sync + 'static,
    ) -> Self {
        Self {
            name: name.to_owned(),
            recurrence,
            message_type: M::TYPE,
            kind: M::KIND,
            make: Arc::new(move |due| Outgoing::new(&make(due))),
        }
    }

    /// Checks what can be known without the database. `taken_by` are the host's endpoints that take
    /// the message.
    pub(crate) fn build(self, taken_by: Vec<EndpointName>) -> Result<RecurringPlan, BuildError> {
        let refused = |fact: String| BuildError::Recurring {
            name: self.name.chars().take(100).collect(),
            fact,
        };
        if EndpointName::new(&self.name).is_err() {
            return Err(refused(
                "its name is not usable; take 1 to 100 characters out of a-z, 0-9, `.`, `_` and `-`"
                    .to_owned(),
            ));
        }
        if self.kind == Kind::Reply {
            return Err(refused(format!(
                "`{}` is a reply, which nobody asked for; make it a command or an event",
                self.message_type
            )));
        }
        if self.recurrence.overlap != Overlap::Allow && taken_by.is_empty() {
            return Err(refused(format!(
                "no endpoint of this host takes `{}`, so nobody knows here when it is handled; \
                 declare it in the host that does, or use `Overlap::Allow`",
                self.message_type
            )));
        }
        let calendar = self.recurrence.calendar().map_err(refused)?;
        Ok(RecurringPlan {
            offset: offset(&self.name, self.recurrence.jitter),
            calendar,
            taken_by,
            declared: self,
        })
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn message_type(&self) -> &'static str {
        self.message_type
    }
}

/// Returns a name's share of the jitter: the same on every host, and spread evenly over names.
fn offset(name: &str, jitter: Duration) -> Duration {
    // FNV-1a: stable over releases, which the standard library's hash is not.
    let hash = name.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    let span = micros(jitter).cast_unsigned();
    Duration::from_micros(hash.checked_rem(span).unwrap_or(0))
}

/// A message that recurs, checked.
#[derive(Clone)]
pub(crate) struct RecurringPlan {
    declared: Recurring,
    calendar: Calendar,
    offset: Duration,
    taken_by: Vec<EndpointName>,
}

impl RecurringPlan {
    /// Describes it, as JSON.
    pub(crate) fn describe(&self) -> serde_json::Value {
        let Recurrence {
            cron,
            zone,
            missed,
            overlap,
            jitter,
        } = &self.declared.recurrence;
        serde_json::json!({
            "schedule": self.declared.name,
            "type": self.declared.message_type,
            "cron": cron,
            "zone": zone,
            "missed": missed,
            "overlap": overlap,
            "jitter_seconds": jitter.as_secs_f64(),
        })
    }

    fn declared_by(&self, host: &str) -> Declared {
        Declared {
            host: host.to_owned(),
            message_type: self.declared.message_type.to_owned(),
            recurrence: self.declared.recurrence.clone(),
        }
    }
}

impl fmt::Debug for RecurringPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RecurringPlan")
            .field("name", &self.declared.name)
            .finish_non_exhaustive()
    }
}

/// What the schedules of a host need.
pub(crate) struct Scheduler {
    pub(crate) host: String,
    pub(crate) protector: Option<Arc<Protector>>,
    pub(crate) plans: Vec<RecurringPlan>,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) committer: CommitterHandle,
    pub(crate) endpoints: std::collections::HashMap<EndpointName, EndpointId>,
    pub(crate) clock: Arc<StoreClock>,
    pub(crate) counters: Arc<Counters>,
    /// For how long a handled message is remembered.
    pub(crate) remembered: Duration,
    pub(crate) lifecycle: Lifecycle,
}

/// A schedule as it was read.
struct Read {
    version: i64,
    state: ScheduleState,
    schedule: Schedule,
}

impl Scheduler {
    /// Writes what this host declares, where the rows say otherwise. What no host declares any more
    /// stays, and is fired by nobody.
    pub(crate) async fn declare(&self) -> Result<(), RunError> {
        for plan in &self.plans {
            self.declare_one(plan).await?;
        }
        Ok(())
    }

    async fn declare_one(&self, plan: &RecurringPlan) -> Result<(), RunError> {
        let name = plan.declared.name();
        let wanted = plan.declared_by(&self.host);
        for _ in 0..DECLARE_TRIES {
            let question = Question {
                instance: Some(schedule_id(name)),
                ..Question::default()
            };
            let answers = self.store.load(&[question]).await?;
            let found = answers.into_iter().next().and_then(|one| one.instance);
            let now = self.clock.now();
            let change = match found.map(|one| read(name, &one)).transpose()? {
                Some(known) if known.schedule.declared == wanted => return Ok(()),
                Some(known) if known.schedule.declared.host != self.host => {
                    return Err(
                        StoreError::Setup(taken(name, &known.schedule.declared.host)).into(),
                    );
                }
                Some(mut known) => {
                    known
                        .schedule
                        .redeclare(wanted.clone(), &plan.calendar, now);
                    change(name, known.version, known.state, &known.schedule)
                }
                None => {
                    let schedule = Schedule::new(wanted.clone(), &plan.calendar, now);
                    change(name, 0, ScheduleState::Waiting, &schedule)
                }
            };
            let unit = UnitOfWork {
                instance: Some(change),
                ..UnitOfWork::default()
            };
            match self.committer.commit(unit).await {
                Some(Answer::Done(_)) => {} // Read again: it is written, or somebody was faster.
                Some(Answer::Refused(error)) => return Err(error.into()),
                None => break,
            }
        }
        let fact =
            format!("schedule `{name}` could not be declared: others change it all the time");
        Err(StoreError::Setup(fact).into())
    }

    /// Looks at the schedules until the host drains.
    pub(crate) async fn run(self) {
        let mut backoff = Backoff::new("look at schedules");
        let mut pause = Duration::ZERO;
        loop {
            tokio::select! {
                biased;
                () = self.lifecycle.draining() => return,
                () = time::sleep(pause) => {}
            }
            pause = match self.look().await {
                Ok(pause) => {
                    backoff.ended();
                    pause
                }
                Err(error) => {
                    backoff.failed(&error).await;
                    Duration::ZERO
                }
            };
        }
    }

    /// Fires what is due, and says how long nothing will be.
    async fn look(&self) -> Result<Duration, StoreError> {
        let question = |plan: &RecurringPlan| Question {
            instance: Some(schedule_id(plan.declared.name())),
            ..Question::default()
        };
        let questions: Vec<_> = self.plans.iter().map(question).collect();
        let answers = self.store.load(&questions).await?;
        let mut pause = POLL;
        let mut failed = None;
        for (plan, answer) in self.plans.iter().zip(answers) {
            match self.attend(plan, answer.instance).await {
                Ok(left) => pause = pause.min(left),
                // One that cannot be read or written holds up no other.
                Err(error) => failed = failed.or(Some(error)),
            }
        }
        match failed {
            Some(error) => Err(error),
            None => Ok(pause),
        }
    }

    /// Looks after one schedule, and says how long it will not be due.
    async fn attend(
        &self,
        plan: &RecurringPlan,
        instance: Option<Instance>,
    ) -> Result<Duration, StoreError> {
        let Some(instance) = instance else {
            return Ok(POLL); // An operator removed it; the next start declares it anew.
        };
        let known = read(plan.declared.name(), &instance)?;
        // Another release of this host declared it otherwise, later than this one did.
        if known.schedule.declared != plan.declared_by(&self.host) {
            return Ok(POLL);
        }
        self.take_turn(plan, known).await
    }

    /// Fires one schedule where it is due, and says how long it will not be.
    async fn take_turn(&self, plan: &RecurringPlan, known: Read) -> Result<Duration, StoreError> {
        let now = self.clock.now();
        let situation = Situation {
            now,
            offset: plan.offset,
            is_busy: self.is_busy(plan, &known.schedule, now).await?,
        };
        let turn = known
            .schedule
            .decide(known.state, &plan.calendar, situation);
        if let Some(turn) = turn {
            self.fire(plan, known, turn, now).await?;
            return Ok(Duration::ZERO);
        }
        let next = known.schedule.next.map(|next| next.plus(plan.offset));
        let left = next.map_or(i64::MAX, |next| next.as_micros() - now.as_micros());
        Ok(match u64::try_from(left) {
            Ok(left) if left > 0 => Duration::from_micros(left),
            _ => POLL, // It is due and waits for the message before it, or is paused.
        })
    }

    /// Commits a turn: the schedule moves and its messages are written, or neither.
    async fn fire(
        &self,
        plan: &RecurringPlan,
        mut known: Read,
        turn: Turn,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let mut outgoing = Vec::with_capacity(turn.due.len());
        let mut firings = Vec::with_capacity(turn.due.len());
        for due in turn.due {
            match self.message(plan, due) {
                Ok(one) => {
                    let message = one.envelope.id;
                    firings.push(Firing {
                        due,
                        at: now,
                        message,
                    });
                    outgoing.push(one);
                }
                // The next time it may be another value; this one would fail for ever.
                Err(error) => {
                    let schedule = plan.declared.name();
                    tracing::error!(schedule, %due, %error, "what recurs cannot be encoded");
                }
            }
        }
        known.schedule.note(&firings);
        known.schedule.next = turn.next;
        let unit = UnitOfWork {
            instance: Some(change(
                plan.declared.name(),
                known.version,
                turn.state,
                &known.schedule,
            )),
            outgoing,
            ..UnitOfWork::default()
        };
        faults::at(Point::BeforeFiring);
        let answer = self.committer.commit(unit).await;
        faults::at(Point::AfterFiring);
        match answer {
            Some(Answer::Done(Outcome::Committed)) => {
                self.counters.fired.add(firings.len() as u64);
                Ok(())
            }
            // Another host was faster, or an operator: the next look sees what they did.
            Some(Answer::Done(_)) | None => Ok(()),
            Some(Answer::Refused(error)) => Err(error),
        }
    }

    /// Makes the message for one time, as this host sends it.
    fn message(&self, plan: &RecurringPlan, due: Timestamp) -> Result<Outgoing, CodecError> {
        let mut one = (plan.declared.make)(due)?.begun_by(&self.host)?;
        protection::seal(self.protector.as_deref(), &mut one)?;
        // Its inbox row is what tells whether it has been handled.
        one.identity = Identity::Given;
        Ok(one)
    }

    /// Says whether the message that was fired last still waits, or is being handled.
    async fn is_busy(
        &self,
        plan: &RecurringPlan,
        schedule: &Schedule,
        now: Timestamp,
    ) -> Result<bool, StoreError> {
        let last = schedule.firings.last();
        let is_due = schedule.next.is_some_and(|next| next <= now);
        let Some(last) = last.filter(|_| is_due) else {
            return Ok(false);
        };
        let is_forgotten = last.at.plus(self.remembered) < now;
        if plan.declared.recurrence.overlap == Overlap::Allow || is_forgotten {
            return Ok(false);
        }
        let takers = plan.taken_by.iter();
        let takers = takers.filter_map(|name| self.endpoints.get(name));
        let question = |endpoint: &EndpointId| Question {
            fate: Some((*endpoint, last.message)),
            ..Question::default()
        };
        let questions: Vec<_> = takers.map(question).collect();
        let answers = self.store.load(&questions).await?;
        Ok(answers.iter().any(|one| one.fate == Some(Fate::Pending)))
    }
}

fn taken(name: &str, host: &str) -> String {
    format!(
        "schedule `{name}` belongs to host `{host}` in this database; give it another name, or \
         remove the other one, if it is no more, with `sagabus schedules remove {name}` [SB0214]"
    )
}

fn read(name: &str, instance: &Instance) -> Result<Read, StoreError> {
    let unreadable = |what: &dyn fmt::Display| {
        StoreError::Setup(format!(
            "schedule `{name}` cannot be read: {what}; if no newer release wrote it, remove it \
             with `sagabus schedules remove {name}` [SB0215]"
        ))
    };
    let state = instance.state.as_deref().unwrap_or_default();
    Ok(Read {
        version: instance.version,
        state: ScheduleState::from_stored(state)
            .ok_or_else(|| unreadable(&format!("no state is called `{state}`")))?,
        schedule: serde_json::from_slice(&instance.data).map_err(|error| unreadable(&error))?,
    })
}

fn change(name: &str, expected: i64, state: ScheduleState, schedule: &Schedule) -> InstanceChange {
    let data = serde_json::to_vec(schedule).expect("a schedule is always JSON");
    InstanceChange {
        id: schedule_id(name),
        expected,
        status: InstanceStatus::Running,
        state: Some(state.as_str().into()),
        schema_version: SHAPE,
        data: Bytes::from(data),
        timers: Default::default(),
        disarmed: Vec::new(),
        origin: None,
        labels: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_has_the_same_share_of_the_jitter_in_every_release() {
        let jitter = Duration::from_secs(3600);
        // By FNV-1a's own test vectors: `a` is af63dc4c8601ec8c, `foobar` 85944171f73967e8.
        for (name, hash) in [
            ("", 0xcbf2_9ce4_8422_2325_u64),
            ("a", 0xaf63_dc4c_8601_ec8c),
            ("foobar", 0x8594_4171_f739_67e8),
        ] {
            let share = Duration::from_micros(hash % 3_600_000_000);
            assert_eq!(offset(name, jitter), share, "{name}");
        }
        assert_eq!(offset("a", Duration::ZERO), Duration::ZERO);
    }
}
