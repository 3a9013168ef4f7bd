//! What becomes of a message whose handler failed: one total function.

use std::collections::HashMap;
use std::time::Duration;

use crate::error::Class;
use crate::unit_of_work::Reason;

/// How often a message is tried, and when.
///
/// The first run tries once and `immediate` times more, in process; then the message is written
/// down for later, `delayed` times, each with one try; then it is a dead letter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Retry {
    /// Tries that follow at once. Default 2: most transient errors are gone the second time.
    pub immediate: u32,
    /// Tries that follow later, in the database, holding no broker slot. Default 6.
    pub delayed: u32,
    /// The first delay; each later one is twice as long. Default 1 s.
    pub delay: Duration,
    /// The longest delay. Default 5 min.
    pub delay_max: Duration,
    /// Tries that may be written down for later without costing an attempt: the handler said when
    /// (`retry_after`), others were faster again and again, the database was away or busy. Beyond
    /// it a dead letter, `excuses_exhausted`. Default 1,000: more than eight hours of a gateway that
    /// asks for 30 s each time.
    pub excuses: u32,
}

impl Default for Retry {
    fn default() -> Self {
        Self {
            immediate: 2,
            delayed: 6,
            delay: Duration::from_secs(1),
            delay_max: Duration::from_secs(300),
            excuses: EXCUSES,
        }
    }
}

/// The default of [`Retry::excuses`].
const EXCUSES: u32 = 1000;
/// The first pause after a try that the database or others ended; each later one is twice as long.
const EXCUSED_DELAY: Duration = Duration::from_millis(100);
/// The longest: short, because a database that is back should be used within seconds.
const EXCUSED_DELAY_MAX: Duration = Duration::from_secs(2);

/// What to do with a message whose handler failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Run it again now.
    Now,
    /// Write it down and run it when about this has passed.
    Later(Duration),
    /// Write it down and run it when this has passed, no earlier: its handler said when.
    NotBefore(Duration),
    /// Write it down outside its line and run it when about this has passed: what it waits for may
    /// stand behind it.
    Aside(Duration),
    /// Load it again and run it again; costs nothing.
    Reload,
    /// Keep it in hand until the endpoint, where everything fails, lets it try again.
    Held,
    /// Stop trying.
    Dead(Reason),
}

/// How often the messages of an endpoint are tried: all alike, but for types that say otherwise.
#[derive(Clone, Debug, Default)]
pub(crate) struct Retries {
    pub(crate) all: Retry,
    /// By message type, former names included.
    pub(crate) by_type: HashMap<String, Retry>,
}

impl Retries {
    /// Returns what holds for a message type.
    pub(crate) fn of(&self, message_type: &str) -> &Retry {
        self.by_type.get(message_type).unwrap_or(&self.all)
    }

    /// Returns the longest time that may pass between the first try of any message and its last.
    pub(crate) fn horizon(&self) -> Duration {
        let each = self.by_type.values().map(Retry::horizon);
        each.fold(self.all.horizon(), Duration::max)
    }
}

impl Retry {
    /// Never tries again, but for what costs no attempt.
    pub const fn none() -> Self {
        Self {
            immediate: 0,
            delayed: 0,
            delay: Duration::ZERO,
            delay_max: Duration::ZERO,
            excuses: EXCUSES,
        }
    }

    /// Decides, given how the error is classed, and how many tries cost an attempt and how many cost
    /// none, this one included.
    pub fn decide(&self, class: Class, failures: u32, excuses: u32) -> Decision {
        match class {
            Class::Terminal => Decision::Dead(Reason::Terminal),
            Class::Dead(reason) => Decision::Dead(reason),
            Class::Conflict => Decision::Reload,
            Class::RetryAfter(_) if excuses > self.excuses => {
                Decision::Dead(Reason::ExcusesExhausted)
            }
            Class::RetryAfter(delay) => Decision::NotBefore(delay),
            Class::Retry => self.after(failures, Reason::AttemptsExhausted),
            Class::RetryAs(reason) => self.after(failures, reason),
            Class::Defer(reason, budget) => defer(reason, budget, failures),
            Class::Elsewhere(reason, budget) if HOP.saturating_mul(excuses) > budget => {
                Decision::Dead(reason)
            }
            Class::Elsewhere(..) => Decision::Later(HOP),
        }
    }

    /// Decides on a try that others or the database ended, given how many there are that cost no
    /// attempt, this one included.
    pub fn excuse(&self, excuses: u32) -> Decision {
        if excuses > self.excuses {
            return Decision::Dead(Reason::ExcusesExhausted);
        }
        let doubled = EXCUSED_DELAY.saturating_mul(2u32.saturating_pow(excuses.saturating_sub(1)));
        Decision::Later(doubled.min(EXCUSED_DELAY_MAX))
    }

    /// Returns the longest time that may pass between the first try and the last.
    pub fn horizon(&self) -> Duration {
        (0..self.delayed).map(|n| self.delay_of(n)).sum()
    }

    fn after(&self, failures: u32, reason: Reason) -> Decision {
        if failures <= self.immediate {
            return Decision::Now;
        }
        let delayed = failures - self.immediate - 1;
        if delayed < self.delayed {
            Decision::Later(self.delay_of(delayed))
        } else {
            Decision::Dead(reason)
        }
    }

    fn delay_of(&self, n: u32) -> Duration {
        self.delay
            .saturating_mul(2u32.saturating_pow(n))
            .min(self.delay_max)
    }
}

/// How long a message for another process of the service is left alone: a claim is never far away,
/// and with two processes every other one is right. Always the same, because it waits for nothing.
const HOP: Duration = Duration::from_millis(30);
/// The first pause of a message that came too early; each later one is twice as long.
const DEFER_DELAY: Duration = Duration::from_millis(50);
/// The longest pause where the budget is short: who waits for a person's doing minds no 5 s.
const DEFER_DELAY_MAX: Duration = Duration::from_secs(5);
/// Longest pauses that fit into a long budget, which bounds the attempts that a row carries.
const DEFERS_MAX: u32 = 16;

/// Decides on a message that came too early. Its budget is the sum of the pauses that it was given,
/// so no clock has to be compared with another.
fn defer(reason: Reason, budget: Duration, failures: u32) -> Decision {
    let longest = DEFER_DELAY_MAX.max(budget / DEFERS_MAX);
    let delay = |n: u32| {
        DEFER_DELAY
            .saturating_mul(2u32.saturating_pow(n))
            .min(longest)
    };
    let passed: Duration = (0..failures.saturating_sub(1)).map(delay).sum();
    if passed >= budget {
        return Decision::Dead(reason);
    }
    let next = delay(failures.saturating_sub(1));
    Decision::Aside(next.min(budget - passed))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tries_at_once_then_later_then_never() {
        let second = Duration::from_secs(1);
        let retry = Retry {
            immediate: 1,
            delayed: 3,
            delay: second,
            delay_max: second * 3,
            excuses: 0,
        };
        let decisions: Vec<_> = (1..=5).map(|n| retry.decide(Class::Retry, n, 0)).collect();
        assert_eq!(
            decisions,
            [
                Decision::Now,
                Decision::Later(second),
                Decision::Later(second * 2),
                Decision::Later(second * 3),
                Decision::Dead(Reason::AttemptsExhausted),
            ]
        );
        assert_eq!(retry.horizon(), second * 6);
    }

    #[test]
    fn the_longest_tries_of_an_endpoint_are_those_of_any_type() {
        let second = Duration::from_secs(1);
        let tried = |delayed| Retry {
            delayed,
            delay: second,
            ..Retry::none()
        };
        let tried = |delayed| Retry {
            delay_max: second,
            ..tried(delayed)
        };
        let mut retries = Retries {
            all: tried(3),
            by_type: HashMap::from([("a".to_owned(), tried(7)), ("b".to_owned(), tried(1))]),
        };
        assert_eq!(retries.horizon(), second * 7);
        assert_eq!([retries.of("a"), retries.of("b")], [&tried(7), &tried(1)]);
        assert_eq!(retries.of("c"), &tried(3));
        retries.by_type.remove("a");
        assert_eq!(retries.horizon(), second * 3);
    }

    #[test]
    fn an_error_that_says_when_costs_no_attempt_and_is_not_tried_earlier() {
        let delay = Duration::from_secs(7);
        for failures in [1, 100] {
            let decision = Retry::none().decide(Class::RetryAfter(delay), failures, 1);
            assert_eq!(decision, Decision::NotBefore(delay));
        }
    }

    #[test]
    fn what_costs_no_attempt_is_bounded_all_the_same() {
        let retry = Retry {
            excuses: 3,
            ..Retry::default()
        };
        let class = Class::RetryAfter(Duration::from_secs(7));
        let is_dead = |decision| decision == Decision::Dead(Reason::ExcusesExhausted);
        for excuses in 1..=3 {
            assert!(!is_dead(retry.decide(class, 100, excuses)));
            assert!(!is_dead(retry.excuse(excuses)));
        }
        assert!(is_dead(retry.decide(class, 0, 4)));
        assert!(is_dead(retry.excuse(4)));
        let pauses: Vec<_> = [1, 2, 3, 999].map(|n| Retry::none().excuse(n)).into();
        let millis = |n| Decision::Later(Duration::from_millis(n));
        assert_eq!(pauses, [100, 200, 400, 2000].map(millis));
    }

    #[test]
    fn what_is_for_another_process_is_left_to_it_for_a_while() {
        let class = Class::Elsewhere(Reason::NobodyAsked, Duration::from_secs(60));
        for (excuses, decision) in [
            (1, Decision::Later(HOP)),
            (2000, Decision::Later(HOP)),
            (2001, Decision::Dead(Reason::NobodyAsked)),
        ] {
            assert_eq!(Retry::default().decide(class, 0, excuses), decision);
        }
    }

    #[test]
    fn what_comes_too_early_is_tried_until_its_budget_is_used_up() {
        let millis = Duration::from_millis;
        let class = Class::Defer(Reason::NoInstance, millis(300));
        let decisions: Vec<_> = (1..=4).map(|n| Retry::none().decide(class, n, 0)).collect();
        assert_eq!(
            decisions,
            [
                Decision::Aside(millis(50)),
                Decision::Aside(millis(100)),
                Decision::Aside(millis(150)),
                Decision::Dead(Reason::NoInstance),
            ]
        );
        let day = Class::Defer(Reason::NoInstance, Duration::from_secs(24 * 3600));
        let is_waiting = |n: &u32| matches!(Retry::none().decide(day, *n, 0), Decision::Aside(_));
        assert!((1..1000).take_while(is_waiting).count() < 40);
        // A sixteenth of a long budget is the longest pause.
        let longest = Duration::from_secs(24 * 3600 / 16);
        let pauses = (1..40).map(|n| Retry::none().decide(day, n, 0));
        let pauses = pauses.filter_map(|one| match one {
            Decision::Aside(pause) => Some(pause),
            _ => None,
        });
        assert_eq!(pauses.max(), Some(longest));
        let nothing = Class::Defer(Reason::NoInstance, Duration::ZERO);
        let decision = Retry::default().decide(nothing, 1, 0);
        assert_eq!(decision, Decision::Dead(Reason::NoInstance));
    }

    #[test]
    fn an_error_that_says_so_is_never_tried_again() {
        let retry = Retry::default();
        assert_eq!(
            retry.decide(Class::Terminal, 1, 0),
            Decision::Dead(Reason::Terminal)
        );
        assert_eq!(
            Retry::none().decide(Class::Retry, 1, 0),
            Decision::Dead(Reason::AttemptsExhausted)
        );
    }
}
