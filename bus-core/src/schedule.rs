//! A schedule: the durable side of what recurs. Stored as an instance of its own kind, so that it
//! moves by its version, in one commit with the message that it fires.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::clock::{Timestamp, micros};
use crate::id::{InstanceId, MessageId};
use crate::recurrence::{Calendar, LATE_MAX, Missed, Overlap, Recurrence};

/// The kind of the instances that are schedules. No saga is called so: kinds of ours begin with `@`.
pub const SCHEDULE_KIND: &str = "@schedule";
/// Firings that a schedule remembers, for people.
const FIRINGS_MAX: usize = 10;

/// What a schedule's instance holds, as JSON.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Schedule {
    /// What was declared.
    pub declared: Declared,
    /// The next time, by the database's clock; none where there is none any more.
    pub next: Option<Timestamp>,
    /// The latest firings, the last one last.
    pub firings: Vec<Firing>,
    /// How many messages it has fired.
    pub fired: u64,
}

/// What a host declared, and may declare otherwise when it starts again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Declared {
    /// The name of the host.
    pub host: String,
    /// The type of the message.
    pub message_type: String,
    /// When.
    #[serde(flatten)]
    pub recurrence: Recurrence,
}

/// A message that was fired.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Firing {
    /// The time for which it was.
    pub due: Timestamp,
    /// When it was, by the database's clock.
    pub at: Timestamp,
    /// Its identity.
    pub message: MessageId,
}

/// How a schedule stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ScheduleState {
    /// It waits for its next time.
    Waiting,
    /// An operator paused it: times pass by.
    Paused,
    /// An operator let it go on: what passed meanwhile is not missed.
    Resumed,
    /// An operator wants it fired now.
    Asked,
    /// An operator wants it fired now, and then paused as before.
    AskedWhilePaused,
}

/// What an operator does to a schedule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ScheduleVerb {
    /// Lets times pass by.
    Pause,
    /// Lets it go on.
    Resume,
    /// Fires it once, now.
    Fire,
    /// Forgets it.
    Remove,
}

impl ScheduleState {
    /// Every state.
    pub const ALL: [Self; 5] = [
        Self::Waiting,
        Self::Paused,
        Self::Resumed,
        Self::Asked,
        Self::AskedWhilePaused,
    ];

    /// Returns the stored word.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Paused => "paused",
            Self::Resumed => "resumed",
            Self::Asked => "asked",
            Self::AskedWhilePaused => "asked_while_paused",
        }
    }

    /// Reads the stored word; `None` for one that is none of ours.
    pub fn from_stored(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|one| one.as_str() == word)
    }

    /// Says what an operator's verb makes of it; `None`: nothing, it is so already, or is about to
    /// be something else.
    pub const fn after(self, verb: ScheduleVerb) -> Option<Self> {
        match (verb, self) {
            (ScheduleVerb::Pause, Self::Waiting | Self::Resumed) => Some(Self::Paused),
            (ScheduleVerb::Pause, Self::Asked) => Some(Self::AskedWhilePaused),
            (ScheduleVerb::Pause, Self::Paused | Self::AskedWhilePaused) => None,
            (ScheduleVerb::Resume, Self::Paused) => Some(Self::Resumed),
            (
                ScheduleVerb::Resume,
                Self::Waiting | Self::Resumed | Self::Asked | Self::AskedWhilePaused,
            ) => None,
            (ScheduleVerb::Fire, Self::Waiting) => Some(Self::Asked),
            (ScheduleVerb::Fire, Self::Paused) => Some(Self::AskedWhilePaused),
            (ScheduleVerb::Fire, Self::Resumed | Self::Asked | Self::AskedWhilePaused) => None,
            // Its row goes, whatever it says.
            (ScheduleVerb::Remove, _) => None,
        }
    }
}

impl ScheduleVerb {
    /// Returns the word by which audit entries name it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pause => "pause_schedule",
            Self::Resume => "resume_schedule",
            Self::Fire => "fire_schedule",
            Self::Remove => "remove_schedule",
        }
    }

    /// Lists what it makes of which states, as stored words.
    pub fn moves(self) -> Vec<(&'static str, &'static str)> {
        let all = ScheduleState::ALL.into_iter();
        all.filter_map(|from| Some((from.as_str(), from.after(self)?.as_str())))
            .collect()
    }
}

/// Names the instance of a schedule.
pub fn schedule_id(name: &str) -> InstanceId {
    InstanceId {
        kind: SCHEDULE_KIND.into(),
        key: name.into(),
    }
}

/// What is to be done about a schedule now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Turn {
    /// The times for which messages are fired.
    pub(crate) due: Vec<Timestamp>,
    /// The next time.
    pub(crate) next: Option<Timestamp>,
    /// How it stands then.
    pub(crate) state: ScheduleState,
}

/// What the host knows when it decides about a schedule.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Situation {
    /// The database's time.
    pub(crate) now: Timestamp,
    /// How long after its time it fires.
    pub(crate) offset: Duration,
    /// The message that was fired last waits or is being handled.
    pub(crate) is_busy: bool,
}

impl Schedule {
    /// Begins with the first time after `now`.
    pub(crate) fn new(declared: Declared, calendar: &Calendar, now: Timestamp) -> Self {
        Self {
            declared,
            next: calendar.after(now),
            firings: Vec::new(),
            fired: 0,
        }
    }

    /// Takes over another declaration. The next time stays where only something else changed.
    pub(crate) fn redeclare(&mut self, declared: Declared, calendar: &Calendar, now: Timestamp) {
        let when = |one: &Declared| (one.recurrence.cron.clone(), one.recurrence.zone.clone());
        if when(&self.declared) != when(&declared) {
            self.next = calendar.after(now);
        }
        self.declared = declared;
    }

    /// Decides what is to be done now; `None`: nothing.
    pub(crate) fn decide(
        &self,
        state: ScheduleState,
        calendar: &Calendar,
        situation: Situation,
    ) -> Option<Turn> {
        let Situation {
            now,
            offset,
            is_busy,
        } = situation;
        let turn = |due, next, state| Some(Turn { due, next, state });
        match state {
            ScheduleState::Paused => None,
            ScheduleState::Resumed => turn(Vec::new(), calendar.after(now), ScheduleState::Waiting),
            ScheduleState::Asked => turn(vec![now], self.next, ScheduleState::Waiting),
            ScheduleState::AskedWhilePaused => turn(vec![now], self.next, ScheduleState::Paused),
            ScheduleState::Waiting => {
                // Its clock goes after by its share of the jitter; beyond that nothing differs.
                let now = Timestamp::from_micros(now.as_micros().saturating_sub(micros(offset)));
                let next = self.next.filter(|next| *next <= now)?;
                let due = match (is_busy, self.declared.recurrence.overlap) {
                    (true, Overlap::Wait) => return None,
                    (true, Overlap::Skip) => Vec::new(),
                    _ => self.due(calendar, next, now),
                };
                turn(due, calendar.after(now), ScheduleState::Waiting)
            }
        }
    }

    /// Returns the times that are fired, of those from `next` to `now`.
    fn due(&self, calendar: &Calendar, next: Timestamp, now: Timestamp) -> Vec<Timestamp> {
        match self.declared.recurrence.missed {
            Missed::One => calendar.passed(next, now, 1),
            Missed::All { max } => calendar.passed(next, now, max as usize),
            Missed::Skip => {
                let mut due = calendar.passed(next, now, 1);
                due.retain(|one| one.plus(LATE_MAX) >= now);
                due
            }
        }
    }

    /// Notes what was fired.
    pub(crate) fn note(&mut self, firings: &[Firing]) {
        self.fired += firings.len() as u64;
        self.firings.extend(firings);
        let surplus = self.firings.len().saturating_sub(FIRINGS_MAX);
        self.firings.drain(..surplus);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recurrence::cron;

    const HOUR: i64 = 3_600_000_000;

    fn at(hours: i64, seconds: i64) -> Timestamp {
        Timestamp::from_micros(hours * HOUR + seconds * 1_000_000)
    }

    fn hourly(recurrence: Recurrence) -> (Schedule, Calendar) {
        let calendar = recurrence.calendar().expect("it can be read");
        let declared = Declared {
            host: "host".to_owned(),
            message_type: "test.do".to_owned(),
            recurrence,
        };
        (Schedule::new(declared, &calendar, at(0, 1)), calendar)
    }

    fn decided(
        recurrence: Recurrence,
        state: ScheduleState,
        now: Timestamp,
        is_busy: bool,
    ) -> Option<Turn> {
        let (schedule, calendar) = hourly(recurrence);
        let situation = Situation {
            now,
            offset: Duration::ZERO,
            is_busy,
        };
        schedule.decide(state, &calendar, situation)
    }

    fn waiting(recurrence: Recurrence, now: Timestamp) -> Option<(Vec<Timestamp>, Timestamp)> {
        let turn = decided(recurrence, ScheduleState::Waiting, now, false)?;
        assert_eq!(turn.state, ScheduleState::Waiting);
        Some((turn.due, turn.next.expect("there is always a next hour")))
    }

    #[test]
    fn nothing_is_fired_before_its_time() {
        assert_eq!(waiting(cron("0 * * * *"), at(0, 3599)), None);
        let fired = waiting(cron("0 * * * *"), at(1, 0));
        assert_eq!(fired, Some((vec![at(1, 0)], at(2, 0))));
    }

    #[test]
    fn missed_times_are_made_up_for_as_declared() {
        let late = at(5, 90);
        let one = waiting(cron("0 * * * *"), late);
        assert_eq!(one, Some((vec![at(5, 0)], at(6, 0))));
        let skip = waiting(cron("0 * * * *").missed(Missed::Skip), late);
        assert_eq!(skip, Some((vec![], at(6, 0))));
        let just = waiting(cron("0 * * * *").missed(Missed::Skip), at(5, 60));
        assert_eq!(just, Some((vec![at(5, 0)], at(6, 0))));
        let all = waiting(cron("0 * * * *").missed(Missed::All { max: 100 }), late);
        let every = (1..=5).map(|hour| at(hour, 0)).collect();
        assert_eq!(all, Some((every, at(6, 0))));
        let bounded = waiting(cron("0 * * * *").missed(Missed::All { max: 2 }), late);
        assert_eq!(bounded, Some((vec![at(4, 0), at(5, 0)], at(6, 0))));
    }

    #[test]
    fn a_year_of_missed_seconds_is_made_up_for_within_its_bound() {
        let all = cron("* * * * * *").missed(Missed::All { max: 1000 });
        let (due, _) = waiting(all, at(24 * 365, 0)).expect("it is due");
        assert_eq!((due.len(), due.last()), (1000, Some(&at(24 * 365, 0))));
    }

    #[test]
    fn what_is_busy_overlaps_as_declared() {
        let busy = |overlap| {
            let recurrence = cron("0 * * * *").overlap(overlap);
            decided(recurrence, ScheduleState::Waiting, at(1, 5), true)
        };
        let due = |turn: Option<Turn>| turn.map(|turn| (turn.due, turn.next));
        let next = Some(at(2, 0));
        assert_eq!(due(busy(Overlap::Allow)), Some((vec![at(1, 0)], next)));
        assert_eq!(due(busy(Overlap::Skip)), Some((vec![], next)));
        assert_eq!(due(busy(Overlap::Wait)), None);
    }

    #[test]
    fn operators_have_their_way() {
        let turn = |state| decided(cron("0 * * * *"), state, at(7, 9), false);
        assert_eq!(turn(ScheduleState::Paused), None);
        let resumed = turn(ScheduleState::Resumed).expect("it goes on");
        assert_eq!((resumed.due, resumed.next), (vec![], Some(at(8, 0))));
        let asked = turn(ScheduleState::Asked).expect("it is fired");
        assert_eq!((asked.due, asked.next), (vec![at(7, 9)], Some(at(1, 0))));
        assert_eq!(asked.state, ScheduleState::Waiting);
        let paused = turn(ScheduleState::AskedWhilePaused).expect("it is fired");
        assert_eq!(paused.state, ScheduleState::Paused);
    }

    #[test]
    fn a_share_of_the_jitter_puts_off_and_changes_nothing_else() {
        let (schedule, calendar) = hourly(cron("0 * * * *"));
        let decide = |now| {
            let situation = Situation {
                now,
                offset: Duration::from_secs(120),
                is_busy: false,
            };
            let turn = schedule.decide(ScheduleState::Waiting, &calendar, situation)?;
            Some((turn.due, turn.next))
        };
        assert_eq!(decide(at(1, 119)), None);
        assert_eq!(decide(at(1, 120)), Some((vec![at(1, 0)], Some(at(2, 0)))));
        // The second hour has come, but not with its share.
        assert_eq!(decide(at(2, 30)), Some((vec![at(1, 0)], Some(at(2, 0)))));
    }

    #[test]
    fn another_expression_begins_anew_and_another_policy_does_not() {
        let (mut schedule, calendar) = hourly(cron("0 * * * *"));
        let mut declared = schedule.declared.clone();
        declared.recurrence = declared.recurrence.missed(Missed::Skip);
        schedule.redeclare(declared.clone(), &calendar, at(5, 1));
        assert_eq!(schedule.next, Some(at(1, 0)));
        declared.recurrence.cron = "30 * * * *".to_owned();
        let calendar = declared.recurrence.calendar().expect("it can be read");
        schedule.redeclare(declared, &calendar, at(5, 1));
        assert_eq!(schedule.next, Some(at(5, 1800)));
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let (mut schedule, _) = hourly(cron("0 * * * *"));
        for hour in 0..25 {
            let message = MessageId::new();
            let due = at(hour, 0);
            schedule.note(&[Firing {
                due,
                at: due,
                message,
            }]);
        }
        assert_eq!((schedule.fired, schedule.firings.len()), (25, 10));
        assert_eq!(schedule.firings[9].due, at(24, 0));
    }

    #[test]
    fn every_state_has_its_word_and_no_other_word_is_one() {
        for state in ScheduleState::ALL {
            assert_eq!(ScheduleState::from_stored(state.as_str()), Some(state));
        }
        assert_eq!(ScheduleState::from_stored("asleep"), None);
    }

    #[test]
    fn an_operators_verb_moves_what_is_not_so_already() {
        let moves = ScheduleVerb::moves;
        let paused = [
            ("waiting", "paused"),
            ("resumed", "paused"),
            ("asked", "asked_while_paused"),
        ];
        assert_eq!(moves(ScheduleVerb::Pause), paused);
        assert_eq!(moves(ScheduleVerb::Resume), [("paused", "resumed")]);
        let asked = [("waiting", "asked"), ("paused", "asked_while_paused")];
        assert_eq!(moves(ScheduleVerb::Fire), asked);
        assert_eq!(moves(ScheduleVerb::Remove), []);
    }

    #[test]
    fn an_operators_verb_has_a_word_of_its_own_in_the_audit() {
        let verbs = [
            (ScheduleVerb::Pause, "pause_schedule"),
            (ScheduleVerb::Resume, "resume_schedule"),
            (ScheduleVerb::Fire, "fire_schedule"),
            (ScheduleVerb::Remove, "remove_schedule"),
        ];
        for (verb, word) in verbs {
            assert_eq!(verb.as_str(), word);
        }
    }
}
