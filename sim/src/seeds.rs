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
    /// How often each fault happened.
    pub tally: Tally,
    /// Those in which something is wrong.
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
    if !ran.wrongs.is_empty() {
        totals.failed.push(ran);
    }
}

/// Looks for the first seed in which the lack of a guard shows.
pub fn catch(without: Guard, first: u64, count: u64) -> Option<Ran> {
    let how = How {
        without: Some(without),
        ..How::default()
    };
    let mut seeds = first..first + count;
    seeds.find_map(|seed| Some(run(seed, how)).filter(|ran| !ran.wrongs.is_empty()))
}
