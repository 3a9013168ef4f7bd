//! When something recurs: a cron expression in a time zone, and what becomes of times that were
//! missed or come too soon.

use std::fmt;
use std::time::Duration;

use croner::parser::{CronParser, Seconds, Year};
use jiff::tz::TimeZone;
use serde::{Deserialize, Serialize};

use crate::clock::Timestamp;

/// The longest cron expression: every minute of an hour listed, and then some.
const CRON_BYTES_MAX: usize = 256;
/// The longest name of a zone: `America/Argentina/ComodRivadavia` has 32.
const ZONE_BYTES_MAX: usize = 64;
/// Missed times that are made up for at most: one unit's messages, far below what one may have.
pub const MISSED_MAX: u32 = 1000;
/// How late a time may be before it counts as missed: far above a host's poll of one second, and
/// above a restart.
pub const LATE_MAX: Duration = Duration::from_secs(60);

/// Says when something recurs, by a cron expression: five fields (minute, hour, day of month,
/// month, day of week), or six with the second first. In UTC, unless [`in_zone`](Recurrence::in_zone)
/// says otherwise. What cannot be read is refused when the host is built.
///
/// # Examples
/// ```
/// use sagabus_core::recurrence::{Missed, Overlap, cron};
///
/// let daily = cron("0 6 * * *").in_zone("Europe/Berlin");
/// let careful = cron("*/5 * * * *").missed(Missed::Skip).overlap(Overlap::Skip);
/// # let _ = (daily, careful);
/// ```
pub fn cron(expression: &str) -> Recurrence {
    Recurrence {
        cron: expression.to_owned(),
        zone: "UTC".to_owned(),
        missed: Missed::default(),
        overlap: Overlap::default(),
        jitter: Duration::ZERO,
    }
}

/// When something recurs. Made by [`cron`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recurrence {
    pub(crate) cron: String,
    pub(crate) zone: String,
    pub(crate) missed: Missed,
    pub(crate) overlap: Overlap,
    pub(crate) jitter: Duration,
}

/// What becomes of times that passed while no host ran.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Missed {
    /// They are left out: what is more than a minute late is not fired.
    Skip,
    /// The latest of them is fired, once for all.
    #[default]
    One,
    /// Each is fired, the latest ones where there are more.
    All {
        /// How many at most, up to [`MISSED_MAX`].
        max: u32,
    },
}

/// What becomes of a time that comes while the message of the one before is still waiting or being
/// handled.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Overlap {
    /// It is fired all the same.
    #[default]
    Allow,
    /// It is left out.
    Skip,
    /// It is fired when the message before it has been handled or has become a dead letter.
    Wait,
}

impl Recurrence {
    /// Reads the expression by the clocks of a zone, for example `Europe/Berlin`. A time that a
    /// change of the clocks leaves out is fired right after it; one that comes twice is fired the
    /// first time. What recurs within the hour (`*/15 * * * *`) goes by the time that passes.
    #[must_use]
    pub fn in_zone(mut self, zone: &str) -> Self {
        zone.clone_into(&mut self.zone);
        self
    }

    /// Sets what becomes of times that passed while no host ran. Default: [`Missed::One`].
    #[must_use]
    pub fn missed(mut self, missed: Missed) -> Self {
        self.missed = missed;
        self
    }

    /// Sets what becomes of a time that comes too soon. Default: [`Overlap::Allow`].
    #[must_use]
    pub fn overlap(mut self, overlap: Overlap) -> Self {
        self.overlap = overlap;
        self
    }

    /// Lets it fire up to `jitter` after its time, so that not all that is due on the hour is sent
    /// at once. How long exactly depends on its name and is the same every time, on every host.
    #[must_use]
    pub fn jitter(mut self, jitter: Duration) -> Self {
        self.jitter = jitter;
        self
    }

    /// Returns the cron expression.
    pub fn expression(&self) -> &str {
        &self.cron
    }

    /// Returns the zone's name.
    pub fn zone(&self) -> &str {
        &self.zone
    }

    /// Returns how long after its time it may be fired.
    pub fn delay(&self) -> Duration {
        self.jitter
    }

    /// Reads expression and zone, or says what is wrong with them.
    pub(crate) fn calendar(&self) -> Result<Calendar, String> {
        let expression = &self.cron;
        if expression.len() > CRON_BYTES_MAX || !expression.is_ascii() {
            return Err(format!(
                "a cron expression has up to {CRON_BYTES_MAX} ASCII characters, this one {} bytes",
                expression.len()
            ));
        }
        // The parser takes them, and then no day of three thousand years has such an hour.
        let mut items = expression
            .split_whitespace()
            .flat_map(|field| field.split(','));
        if items.any(str::is_empty) {
            return Err(format!(
                "cron expression `{}` cannot be read: a list has an empty item",
                expression.escape_debug()
            ));
        }
        let parser = CronParser::builder()
            .seconds(Seconds::Optional)
            .year(Year::Disallowed)
            .build();
        let pattern = parser.parse(expression).map_err(|error| {
            format!(
                "cron expression `{}` cannot be read: {error}",
                expression.escape_debug()
            )
        })?;
        let calendar = Calendar {
            pattern,
            zone: self.time_zone()?,
        };
        // Any time will do: without a field for years, what comes once comes within a leap cycle.
        if calendar.after(Timestamp::from_micros(0)).is_none() {
            return Err(format!(
                "cron expression `{expression}` names a time that never comes"
            ));
        }
        match self.missed {
            Missed::All { max } if max == 0 || max > MISSED_MAX => Err(format!(
                "`Missed::All` takes 1 to {MISSED_MAX} missed times, not {max}"
            )),
            _ => Ok(calendar),
        }
    }

    fn time_zone(&self) -> Result<TimeZone, String> {
        let zone = &self.zone;
        let unknown = || {
            let shown: String = zone.chars().take(ZONE_BYTES_MAX).collect();
            format!(
                "no time zone is called `{}`; take a name such as `Europe/Berlin` or `UTC`",
                shown.escape_debug()
            )
        };
        if zone.len() > ZONE_BYTES_MAX {
            return Err(unknown());
        }
        TimeZone::get(zone).map_err(|_| unknown())
    }
}

/// 4999-12-31T00:00:00Z: nothing is looked for after it. From a time that is further away, which a
/// clock that is wrong may say, nothing is found backward, and everything would be gone through.
const LAST: Timestamp = Timestamp::from_micros(95_617_497_600_000_000);

/// A recurrence that has been read.
#[derive(Clone)]
pub(crate) struct Calendar {
    pattern: croner::Cron,
    zone: TimeZone,
}

impl Calendar {
    /// Returns the first time after this one; `None` where there is none before the year 5000.
    pub(crate) fn after(&self, at: Timestamp) -> Option<Timestamp> {
        let next = self
            .pattern
            .find_next_occurrence(&self.zoned(at)?, false)
            .ok()?;
        Some(Timestamp::from_micros(next.timestamp().as_microsecond()))
    }

    /// Returns the times from `next`, which is one of them, up to `until`: the latest `max`.
    pub(crate) fn passed(&self, next: Timestamp, until: Timestamp, max: usize) -> Vec<Timestamp> {
        const SECOND: i64 = 1_000_000;
        let until = until.min(LAST);
        let from = self.latest(next, until, max);
        // Looking forward decides: backward, a time that the clocks repeat may be met twice.
        let mut at = self.after(Timestamp::from_micros(from.as_micros() - SECOND));
        let mut passed = std::collections::VecDeque::new();
        while let Some(one) = at.filter(|one| *one <= until) {
            if passed.len() == max {
                passed.pop_front();
            }
            passed.push_back(one);
            at = self.after(one);
        }
        match passed.is_empty() {
            true => vec![next],
            false => passed.into(),
        }
    }

    /// Goes back from `until` by `max` times, but not beyond `next`.
    fn latest(&self, next: Timestamp, until: Timestamp, max: usize) -> Timestamp {
        let mut at = until;
        for step in 0..max {
            let is_first = step == 0;
            let found = self
                .zoned(at)
                .and_then(|at| self.pattern.find_previous_occurrence(&at, is_first).ok());
            match found {
                Some(found) => at = Timestamp::from_micros(found.timestamp().as_microsecond()),
                None => return next,
            }
            if at <= next {
                return next;
            }
        }
        at
    }

    fn zoned(&self, at: Timestamp) -> Option<jiff::Zoned> {
        let at = jiff::Timestamp::from_microsecond(at.as_micros()).ok()?;
        Some(at.to_zoned(self.zone.clone()))
    }
}

impl fmt::Debug for Calendar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Calendar").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(text: &str) -> Timestamp {
        let at: jiff::Timestamp = text.parse().expect("a test writes RFC 3339");
        Timestamp::from_micros(at.as_microsecond())
    }

    fn times(recurrence: &Recurrence, from: &str, n: usize) -> Vec<String> {
        let calendar = recurrence.calendar().expect("it can be read");
        let mut now = at(from);
        let next = |_| {
            now = calendar.after(now)?;
            Some(now.to_string()[..16].to_owned())
        };
        (0..n).map_while(next).collect()
    }

    #[test]
    fn a_zone_is_read_by_its_own_clocks() {
        let daily = cron("0 6 * * *").in_zone("Europe/Berlin");
        // The clocks go forward on 2026-03-29 and back on 2026-10-25.
        assert_eq!(
            times(&daily, "2026-03-27T12:00:00Z", 3),
            ["2026-03-28T05:00", "2026-03-29T04:00", "2026-03-30T04:00"]
        );
        assert_eq!(
            times(&daily, "2026-10-24T00:00:00Z", 3),
            ["2026-10-24T04:00", "2026-10-25T05:00", "2026-10-26T05:00"]
        );
        assert_eq!(
            times(&cron("0 6 * * *"), "2026-03-28T12:00:00Z", 1),
            ["2026-03-29T06:00"]
        );
    }

    #[test]
    fn a_time_that_the_clocks_leave_out_is_fired_right_after_it() {
        let nightly = cron("30 2 * * *").in_zone("Europe/Berlin");
        assert_eq!(
            times(&nightly, "2026-03-28T12:00:00Z", 2),
            ["2026-03-29T01:00", "2026-03-30T00:30"]
        );
    }

    #[test]
    fn a_time_that_the_clocks_repeat_is_fired_once() {
        let nightly = cron("30 2 * * *").in_zone("Europe/Berlin");
        assert_eq!(
            times(&nightly, "2026-10-24T12:00:00Z", 2),
            ["2026-10-25T00:30", "2026-10-26T01:30"]
        );
        let calendar = nightly.calendar().expect("it can be read");
        // Also where it is made up for later.
        let (first, later) = (at("2026-10-25T00:30:00Z"), at("2026-10-25T02:00:00Z"));
        assert_eq!(calendar.passed(first, later, 10), [first]);
    }

    #[test]
    fn what_recurs_within_the_hour_goes_by_the_time_that_passes() {
        let often = cron("*/30 * * * *").in_zone("Europe/Berlin");
        assert_eq!(
            times(&often, "2026-10-25T00:15:00Z", 4),
            [
                "2026-10-25T00:30",
                "2026-10-25T01:00",
                "2026-10-25T01:30",
                "2026-10-25T02:00"
            ]
        );
        assert_eq!(
            times(&often, "2026-03-29T00:15:00Z", 3),
            ["2026-03-29T00:30", "2026-03-29T01:00", "2026-03-29T01:30"]
        );
    }

    #[test]
    fn what_cannot_be_read_is_refused_with_the_reason() {
        let long = "0,".repeat(200) + "0 * * * *";
        let cases = [
            (cron(""), "cannot be an empty"),
            (cron("* * *"), "cannot be read"),
            (cron("61 * * * *"), "cannot be read"),
            (cron("0 , * * *"), "an empty item"),
            (cron("0 1,,2 * * *"), "an empty item"),
            (cron("0 0 30 2 *"), "never comes"),
            (cron("0 0 1 1 * 2020 7"), "cannot be read"),
            (cron("0 6 * * \u{202e}*"), "ASCII"),
            (cron(&long), "up to 256"),
            (
                cron("@daily").in_zone("Berlin"),
                "no time zone is called `Berlin`",
            ),
            (cron("@daily").in_zone(&"x".repeat(1000)), "no time zone"),
            (cron("@daily").in_zone("../../etc/passwd"), "no time zone"),
            (cron("@daily").missed(Missed::All { max: 0 }), "1 to 1000"),
            (
                cron("@daily").missed(Missed::All { max: 1001 }),
                "1 to 1000",
            ),
        ];
        for (recurrence, fact) in cases {
            let refused = recurrence.calendar().expect_err(fact);
            assert!(refused.contains(fact), "{fact}: {refused}");
        }
    }

    #[test]
    fn an_expression_may_be_as_long_as_it_says() {
        let minutes = ["10"; 82].join(",");
        let longest = format!("{minutes},15 * * * *");
        assert_eq!(longest.len(), CRON_BYTES_MAX, "{longest}");
        assert!(cron(&longest).calendar().is_ok());
        assert!(cron(&longest.replacen(' ', "  ", 1)).calendar().is_err());
    }

    #[test]
    fn what_was_declared_is_told() {
        let hour = Duration::from_secs(3600);
        let daily = cron("0 6 * * *").in_zone("Europe/Berlin").jitter(hour);
        let told = (daily.expression(), daily.zone(), daily.delay());
        assert_eq!(told, ("0 6 * * *", "Europe/Berlin", hour));
    }

    #[test]
    fn a_clock_that_is_ages_ahead_is_not_walked_up_to() {
        let daily = cron("0 6 * * *").calendar().expect("it can be read");
        let next = daily
            .after(at("2026-01-01T00:00:00Z"))
            .expect("there is one");
        let passed = daily.passed(next, Timestamp::from_micros(i64::MAX), 2);
        let last = [at("4999-12-29T06:00:00Z"), at("4999-12-30T06:00:00Z")];
        assert_eq!(passed, last);
    }

    proptest! {
        #[test]
        fn no_text_makes_reading_panic(text in "\\PC{0,300}", zone in "\\PC{0,80}") {
            let _ = cron(&text).in_zone(&zone).calendar(); // Refused or read, either is an answer.
        }

        #[test]
        fn no_expression_makes_reading_panic(
            fields in proptest::collection::vec("[0-9*,/#LW?+A-Za-z@-]{1,12}", 1..8),
            now in -4_000_000_000_000_000_i64..253_000_000_000_000_000,
        ) {
            if let Ok(calendar) = cron(&fields.join(" ")).in_zone("America/New_York").calendar() {
                let now = Timestamp::from_micros(now);
                let next = calendar.after(now);
                prop_assert!(next.is_none_or(|next| next > now), "{next:?} is not after {now:?}");
            }
        }

        #[test]
        fn what_passed_is_what_looking_forward_finds(
            minute in 0_u32..60,
            hour in prop_oneof![Just("*".to_owned()), (0_u32..24).prop_map(|one| one.to_string())],
            start in 1_774_000_000_i64..1_793_000_000,
            span in 0_i64..800_000,
            max in 1_usize..40,
        ) {
            let recurrence = cron(&format!("{minute} {hour} * * *")).in_zone("Europe/Berlin");
            let calendar = recurrence.calendar().expect("it can be read");
            let start = Timestamp::from_micros(start * 1_000_000);
            let next = calendar.after(start).expect("there is one");
            let until = next.plus(Duration::from_secs(span.unsigned_abs()));
            let mut all = vec![next];
            while let Some(one) = calendar.after(all[all.len() - 1]).filter(|one| *one <= until) {
                all.push(one);
            }
            let wanted = all.split_off(all.len().saturating_sub(max));
            prop_assert_eq!(calendar.passed(next, until, max), wanted);
        }
    }
}
