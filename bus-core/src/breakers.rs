//! Addresses that do not take what is sent to them: each is left alone for a while, then tried with
//! one row, and with eight times as many for as long as it takes them all.

use std::collections::HashMap;
use std::time::Duration;

use tokio::time::Instant;

use crate::backoff::jittered;

/// Failures in a row after which an address is left alone for a while.
const FAILURES: u32 = 3;
/// How long an address is left alone.
const PAUSE: Duration = Duration::from_secs(5);
/// What a row that was taken adds to the rows on trial: 1, 8, 64, then any number. Twice as many
/// each time would be ten turns until a window is full; a queue that takes no more refuses at most
/// eight times what it took before.
const GROWTH: usize = 7;
/// An address of which nothing was heard for so long has no breaker: longer than a row waits between
/// two tries.
const FORGOTTEN: Duration = Duration::from_secs(120);

/// The breakers of one relay, by the address as it is stored.
#[derive(Debug)]
pub(crate) struct Breakers {
    breakers: HashMap<String, Breaker>,
    /// So many rows on trial are a window: then the address is well.
    window: usize,
}

/// One address that did not take its last rows.
#[derive(Debug)]
struct Breaker {
    /// In a row.
    failures: u32,
    failed_at: Instant,
    /// There is one from the first pause on, until the address is well.
    trial: Option<Trial>,
}

/// What may be sent to an address that did not take what was sent.
#[derive(Debug)]
struct Trial {
    /// Nothing before.
    at: Instant,
    /// So many rows may be under way.
    rows_max: usize,
    under_way: usize,
}

/// How a row goes to its address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// Like any other.
    Free,
    /// One of a few: what becomes of it says whether more may follow.
    OnTrial,
    /// Not before so long.
    Shut(Duration),
}

impl Breakers {
    /// Makes one for a relay that sends so many rows together.
    pub(crate) fn new(window: usize) -> Self {
        Self {
            breakers: HashMap::new(),
            window,
        }
    }

    /// Lists the addresses that take fewer rows than others, and how many.
    pub(crate) fn bounds(&mut self) -> Vec<(String, u32)> {
        let now = Instant::now();
        self.breakers
            .retain(|_, breaker| now < breaker.failed_at + FORGOTTEN || breaker.is_waited_for());
        let trials = self.breakers.iter();
        let trials = trials.filter_map(|(address, one)| Some((address, one.trial.as_ref()?)));
        let bound = |trial: &Trial| u32::try_from(trial.room(now)).unwrap_or(u32::MAX);
        trials
            .map(|(address, trial)| (address.clone(), bound(trial)))
            .collect()
    }

    /// Decides on a row that is about to be sent.
    pub(crate) fn way(&mut self, address: &str) -> Way {
        let breaker = self.breakers.get_mut(address);
        let Some(trial) = breaker.and_then(|one| one.trial.as_mut()) else {
            return Way::Free;
        };
        let now = Instant::now();
        if trial.room(now) == 0 {
            return Way::Shut(trial.at.saturating_duration_since(now));
        }
        trial.under_way += 1;
        Way::OnTrial
    }

    /// Notes that a row was taken. Returns whether its address may take more than was asked for last.
    pub(crate) fn taken(&mut self, address: &str, way: Way) -> bool {
        let Some(breaker) = self.breakers.get_mut(address) else {
            return false;
        };
        let Some(trial) = &mut breaker.trial else {
            self.breakers.remove(address);
            return false;
        };
        if !trial.counts(way) {
            return false;
        }
        breaker.failures = 0;
        trial.rows_max += GROWTH;
        if trial.rows_max >= self.window {
            self.breakers.remove(address);
        }
        true
    }

    /// Notes that a row was not taken.
    pub(crate) fn refused(&mut self, address: &str, way: Way) {
        let now = Instant::now();
        let breaker = self.breakers.entry(address.to_owned());
        let breaker = breaker.or_insert(Breaker {
            failures: 0,
            failed_at: now,
            trial: None,
        });
        let mut under_way = 0;
        if let Some(trial) = &mut breaker.trial {
            if !trial.counts(way) {
                return;
            }
            under_way = trial.under_way;
        }
        breaker.failures += 1;
        breaker.failed_at = now;
        if breaker.failures >= FAILURES {
            breaker.trial = Some(Trial {
                at: now + jittered(PAUSE),
                rows_max: 1,
                under_way,
            });
        }
    }

    /// Notes that nobody knows what became of a row.
    pub(crate) fn unanswered(&mut self, address: &str, way: Way) {
        let breaker = self.breakers.get_mut(address);
        if let Some(trial) = breaker.and_then(|one| one.trial.as_mut()) {
            trial.counts(way);
        }
    }
}

impl Breaker {
    fn is_waited_for(&self) -> bool {
        self.trial.as_ref().is_some_and(|trial| trial.under_way > 0)
    }
}

impl Trial {
    /// How many rows may be sent now.
    fn room(&self, now: Instant) -> usize {
        match self.at > now {
            true => 0,
            false => self.rows_max.saturating_sub(self.under_way),
        }
    }

    /// Takes back a row that was under way. Returns whether its answer counts: that of a row that was
    /// sent before the pause began says nothing about now.
    fn counts(&mut self, way: Way) -> bool {
        let is_on_trial = way == Way::OnTrial;
        self.under_way -= self.under_way.min(usize::from(is_on_trial));
        is_on_trial && self.at <= Instant::now()
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::{sleep, sleep_until};

    use super::*;

    const WINDOW: usize = 500;

    /// Sends rows until no more may go, and returns how each went.
    fn send(breakers: &mut Breakers, address: &str) -> Vec<Way> {
        let ways = std::iter::repeat_with(|| breakers.way(address));
        ways.take(WINDOW)
            .take_while(|way| !matches!(way, Way::Shut(_)))
            .collect()
    }

    /// One whose address `a` is left alone.
    fn shut() -> Breakers {
        let mut breakers = Breakers::new(WINDOW);
        for _ in 0..FAILURES {
            assert_eq!(breakers.way("a"), Way::Free);
            breakers.refused("a", Way::Free);
        }
        breakers
    }

    /// Returns when the pause of the address `a` ends.
    fn end_of_pause(breakers: &Breakers) -> Instant {
        let trial = breakers.breakers["a"].trial.as_ref();
        trial.expect("it is left alone").at
    }

    #[tokio::test(start_paused = true)]
    async fn an_address_that_refuses_is_left_alone_and_others_are_not() {
        let mut breakers = shut();
        let Way::Shut(pause) = breakers.way("a") else {
            panic!("it is not left alone");
        };
        assert!(pause >= PAUSE / 2 && pause <= PAUSE, "{pause:?}");
        assert_eq!(breakers.bounds(), [("a".to_owned(), 0)]);
        assert_eq!(breakers.way("b"), Way::Free);
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_takes_a_row_now_and_then_is_not_left_alone() {
        let mut breakers = Breakers::new(WINDOW);
        for _ in 0..10 {
            breakers.refused("a", Way::Free);
            breakers.refused("a", Way::Free);
            assert!(!breakers.taken("a", Way::Free), "it was never bounded");
        }
        assert_eq!(breakers.way("a"), Way::Free);
        assert!(breakers.bounds().is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn a_probe_is_one_row_and_one_refusal_is_enough_for_another_pause() {
        let mut breakers = shut();
        for _ in 0..3 {
            sleep_until(end_of_pause(&breakers)).await;
            assert_eq!(breakers.bounds(), [("a".to_owned(), 1)]);
            assert_eq!(send(&mut breakers, "a"), [Way::OnTrial]);
            assert_eq!(breakers.bounds(), [("a".to_owned(), 0)]);
            breakers.refused("a", Way::OnTrial);
            assert!(matches!(breakers.way("a"), Way::Shut(pause) if pause >= PAUSE / 2));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_takes_its_probe_gets_eight_times_as_many_each_time() {
        let mut breakers = shut();
        sleep_until(end_of_pause(&breakers)).await;
        for rows in [1, 8, 64] {
            let ways = send(&mut breakers, "a");
            assert_eq!(ways, vec![Way::OnTrial; rows]);
            // The last of them find it well already.
            let more = ways.into_iter().filter(|way| breakers.taken("a", *way));
            assert!(more.count() > 0);
        }
        assert!(breakers.breakers.is_empty(), "it is well");
        assert_eq!(send(&mut breakers, "a"), [Way::Free; WINDOW]);
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_sent_before_the_pause_ends_and_prolongs_nothing() {
        let mut breakers = shut();
        assert!(!breakers.taken("a", Way::Free));
        sleep_until(end_of_pause(&breakers)).await;
        breakers.refused("a", Way::Free);
        assert!(!breakers.taken("a", Way::Free));
        assert_eq!(send(&mut breakers, "a"), [Way::OnTrial]);
        assert!(breakers.taken("a", Way::OnTrial));

        // Of eight the first three are refused; the others were on their way.
        let ways = send(&mut breakers, "a");
        assert_eq!(ways.len(), 8);
        for _ in 0..3 {
            breakers.refused("a", Way::OnTrial);
        }
        for _ in 0..5 {
            assert!(!breakers.taken("a", Way::OnTrial));
        }
        sleep_until(end_of_pause(&breakers)).await;
        assert_eq!(send(&mut breakers, "a"), [Way::OnTrial]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_probe_that_nobody_answered_is_made_again() {
        let mut breakers = shut();
        sleep_until(end_of_pause(&breakers)).await;
        assert_eq!(send(&mut breakers, "a"), [Way::OnTrial]);
        assert_eq!(breakers.way("a"), Way::Shut(Duration::ZERO));
        breakers.unanswered("a", Way::OnTrial);
        assert_eq!(send(&mut breakers, "a"), [Way::OnTrial]);
    }

    #[tokio::test(start_paused = true)]
    async fn an_address_of_which_nothing_is_heard_is_forgotten() {
        let mut breakers = shut();
        breakers.refused("once", Way::Free);
        sleep(FORGOTTEN / 2).await;
        assert_eq!(send(&mut breakers, "a"), [Way::OnTrial]);
        sleep(FORGOTTEN).await;
        assert_eq!(breakers.bounds(), [("a".to_owned(), 0)], "it is waited for");
        breakers.unanswered("a", Way::OnTrial);
        assert!(breakers.bounds().is_empty());
        assert!(breakers.breakers.is_empty());
    }
}
