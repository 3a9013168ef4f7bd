//! Many seeds, side by side.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::fault::Tally;
use crate::guard::Guard;
use crate::run::{How, Ran, run};

/// What came of many seeds.
#[derive(Clone, Debug, Default)]
pub struct Totals {
    /// How many were run.
    pub seeds: u64,
    /// Events of all of them.
    pub events: u64,
    /// Messages and rows that were followed through the models.
    pub followed: u64,
    /// Those of them that were lost sight of.
    pub lost: u64,
    /// Steps that they took there.
    pub steps: u64,
    /// How often each fault happened.
    pub tally: Tally,
    /// Those in which something is wrong, or no step of a model.
    pub failed: Vec<Ran>,
    /// Those that were another run the second time.
    pub differing: Vec<u64>,
}

/// Runs `count` seeds from `first` on, on `threads` threads; one in a hundred twice.
pub fn run_many(first: u64, count: u64, threads: usize) -> Totals {
    let next = AtomicU64::new(first);
    let totals = Mutex::new(Totals::default());
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= first + count {
                        return;
                    }
                    let ran = run(seed, How::default());
                    let differs = seed.is_multiple_of(100) && run(seed, How::default()) != ran;
                    add(&totals, ran, differs);
                }
            });
        }
    });
    let mut totals = totals.into_inner().unwrap_or_default();
    totals.failed.sort_by_key(|ran| ran.seed);
    totals
}

fn add(totals: &Mutex<Totals>, ran: Ran, differs: bool) {
    let Ok(mut totals) = totals.lock() else {
        return;
    };
    totals.seeds += 1;
    totals.events += ran.events;
    totals.tally.add(&ran.tally);
    if differs {
        totals.differing.push(ran.seed);
    }
    totals.followed += ran.followed.followed;
    totals.lost += ran.followed.lost;
    totals.steps += ran.followed.steps;
    if !ran.is_good() {
        totals.failed.push(ran);
    }
}

/// Looks for the first seed in which the lack of a guard shows in what came of it.
pub fn catch(without: Guard, first: u64, count: u64) -> Option<Ran> {
    find(without, first, count, |ran| !ran.wrongs.is_empty())
}

/// Looks for the first seed in which the lack of a guard is a step that no model has.
pub fn strays(without: Guard, first: u64, count: u64) -> Option<Ran> {
    find(without, first, count, |ran| ran.followed.stray.is_some())
}

fn find(without: Guard, first: u64, count: u64, shows: fn(&Ran) -> bool) -> Option<Ran> {
    let how = How {
        without: Some(without),
        ..How::default()
    };
    let mut seeds = first..first + count;
    seeds.find_map(|seed| Some(run(seed, how)).filter(shows))
}
