//! Cuts connections at publications, and holds some, as dice say.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use sagabus_testkit::mishap::{Mishap, Mishaps};
use tokio::time::Instant;

use crate::dice::Dice;
use crate::fault;

/// Between two connections that are cut at a publication, in milliseconds.
const PAUSE: (u64, u64) = (500, 2500);

/// How long others may take to come behind one that is held.
const PATIENCE: Duration = Duration::from_secs(4);

/// What is done to publications.
#[derive(Debug)]
pub(crate) struct Publications(Mutex<Inner>);

#[derive(Debug)]
struct Inner {
    dice: Dice,
    /// When the next connection is cut; never, where that is not wanted.
    cut_at: Option<Instant>,
    /// How many were.
    cuts: u64,
    hold: Hold,
    seen: BTreeMap<&'static str, u64>,
}

/// Whether a publication is to be held.
#[derive(Clone, Copy, Debug)]
enum Hold {
    None,
    /// The next one.
    Next(Duration),
    /// One was that stood alone, and others wait behind it: one of those, unless their host died.
    Within(Duration, Instant),
}

impl Publications {
    pub(crate) fn new(seed: u64, are_cut: bool) -> Self {
        Self(Mutex::new(Inner {
            dice: Dice::new(seed ^ 0x9ab1),
            cut_at: are_cut.then(Instant::now),
            cuts: 0,
            hold: Hold::None,
            seen: BTreeMap::new(),
        }))
    }

    /// Holds a publication for so long.
    pub(crate) fn hold(&self, time: Duration) {
        self.lock().hold = Hold::Next(time);
    }

    /// Says whether a publication is still to be held, or one of those behind it.
    pub(crate) fn is_to_hold(&self) -> bool {
        !matches!(self.lock().hold, Hold::None)
    }

    /// Says whether one was held with others behind it.
    pub(crate) fn was_held_within(&self) -> bool {
        self.lock().seen.contains_key(fault::STALLED)
    }

    /// What happened, and how often.
    pub(crate) fn seen(&self) -> BTreeMap<&'static str, u64> {
        self.lock().seen.clone()
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().expect("nobody panics with it")
    }
}

impl Inner {
    fn hold(&mut self, is_within: bool) -> Option<Mishap> {
        let now = Instant::now();
        let (time, has_waited) = match self.hold {
            Hold::None => return None,
            Hold::Next(time) => (time, true),
            Hold::Within(time, since) => (time, since + PATIENCE < now),
        };
        if is_within {
            self.hold = Hold::None;
        } else if has_waited {
            self.hold = Hold::Within(time, now);
        } else {
            return None;
        }
        Some(Mishap::Held(time))
    }

    /// Each way in turn, so that a short run has them all.
    fn cut(&mut self) -> Option<Mishap> {
        self.cut_at.filter(|at| *at <= Instant::now())?;
        let pause = self.dice.millis(PAUSE.0, PAUSE.1);
        self.cut_at = Some(Instant::now() + pause);
        self.cuts += 1;
        Some(match self.cuts % 3 {
            0 => Mishap::Lost,
            1 => Mishap::Unconfirmed,
            _ => Mishap::Confirmed,
        })
    }
}

impl Mishaps for Publications {
    fn decide(&self, is_within: bool) -> Option<Mishap> {
        let mut inner = self.lock();
        inner.hold(is_within).or_else(|| inner.cut())
    }

    fn happened(&self, mishap: Mishap, is_within: bool) {
        let what = match (mishap, is_within) {
            (Mishap::Lost, _) => fault::LOST,
            (Mishap::Unconfirmed, _) => fault::UNCONFIRMED,
            (Mishap::Confirmed, _) => fault::CONFIRMED,
            (Mishap::Held(_), true) => fault::STALLED,
            (Mishap::Held(_), false) => "publications held beyond a lease, alone",
        };
        *self.lock().seen.entry(what).or_default() += 1;
    }
}
