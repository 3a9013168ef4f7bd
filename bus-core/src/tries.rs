//! The tries of one message so far, those of former hosts included.

use crate::attempt::{Attempt, excuse_count, failure_count};
use crate::clock;
use crate::unit_of_work::Start;

/// What is known of the tries of a message that is being handled.
pub(crate) struct Tries {
    attempts: Vec<Attempt>,
    /// Failures that were recorded before this host took the message.
    known_failures: usize,
    is_changed: bool,
}

impl Tries {
    /// Begins with what was recorded before.
    pub(crate) fn of(attempts: Vec<Attempt>) -> Self {
        Self {
            known_failures: failure_count(&attempts),
            attempts,
            is_changed: false,
        }
    }

    /// Records a failure.
    pub(crate) fn fail(&mut self, host: &str, error: String) {
        self.is_changed = true;
        self.attempts.push(attempt(host, error, 0));
    }

    /// Records a try that costs no attempt. All of them share one entry, the latest.
    pub(crate) fn excuse(&mut self, host: &str, error: String) {
        self.is_changed = true;
        let count = self.excuses().saturating_add(1);
        self.attempts.retain(|one| one.excused == 0);
        self.attempts.push(attempt(host, error, count));
    }

    /// Returns how many failures there are.
    pub(crate) fn failures(&self) -> u32 {
        u32::try_from(failure_count(&self.attempts)).unwrap_or(u32::MAX - 1)
    }

    /// Returns how many tries cost no attempt.
    pub(crate) fn excuses(&self) -> u32 {
        excuse_count(&self.attempts)
    }

    /// Says whether this start counts: one that left no failure is given back.
    pub(crate) fn start(&self) -> Start {
        match failure_count(&self.attempts) > self.known_failures {
            true => Start::Counted,
            false => Start::GivenBack,
        }
    }

    /// Returns all tries.
    pub(crate) fn all(&self) -> &[Attempt] {
        &self.attempts
    }

    /// Returns all tries, if one was recorded since the message came.
    pub(crate) fn changed(&self) -> Option<Vec<Attempt>> {
        self.is_changed.then(|| self.attempts.clone())
    }

    /// Returns the latest tries, as many as a dead letter keeps.
    pub(crate) fn latest(&self, most: usize) -> Vec<Attempt> {
        let excess = self.attempts.len().saturating_sub(most);
        self.attempts.iter().skip(excess).cloned().collect()
    }
}

fn attempt(host: &str, error: String, excused: u32) -> Attempt {
    Attempt {
        at: clock::now(),
        host: host.to_owned(),
        error,
        excused,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn excused_tries_take_the_room_of_one_and_give_their_start_back() {
        let mut tries = Tries::of(Vec::new());
        assert_eq!((tries.start(), tries.changed()), (Start::GivenBack, None));
        for n in 0..50 {
            tries.excuse("one", format!("busy {n}"));
        }
        assert_eq!((tries.failures(), tries.excuses()), (0, 50));
        assert_eq!((tries.all().len(), tries.start()), (1, Start::GivenBack));
        tries.fail("one", "broken".to_owned());
        assert_eq!((tries.failures(), tries.start()), (1, Start::Counted));

        let mut later = Tries::of(tries.changed().expect("tries were recorded"));
        assert_eq!((later.failures(), later.excuses()), (1, 50));
        assert_eq!((later.start(), later.changed()), (Start::GivenBack, None));
        later.excuse("two", "busy again".to_owned());
        let last = later.latest(1);
        assert_eq!((last[0].excused, &*last[0].host), (51, "two"));
        assert_eq!((later.all().len(), later.start()), (2, Start::GivenBack));
    }
}
