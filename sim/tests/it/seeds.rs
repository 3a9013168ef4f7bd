//! Seeds that are run again, and guards that are switched off.

use sagabus_sim::seeds::{catch, run_many, strays};
use sagabus_sim::{Fault, Guard, How, run};

/// Enough for every fault to happen; `cargo run --package sagabus-sim` runs many more.
const SEEDS: u64 = 150;

/// Within so many seeds the lack of a guard shows.
const CAUGHT_WITHIN: u64 = 1000;

#[test]
fn the_same_seed_is_the_same_run_event_by_event() {
    for seed in 0..20 {
        let first = run(seed, How::default());
        assert!(first.events > 100, "{} events", first.events);
        assert_eq!(first, run(seed, How::default()), "seed {seed}");
    }
    let (one, other) = (run(1, How::default()), run(2, How::default()));
    assert_ne!(one.trace, other.trace);
}

#[test]
fn whatever_goes_wrong_nothing_is_lost_doubled_or_invented() {
    let totals = run_many(0, SEEDS, 2);
    assert_eq!(totals.failed, [], "see `--seed N --trace`");
    assert_eq!(totals.differing, [0; 0]);
    assert_eq!(totals.seeds, SEEDS);
    assert_eq!(totals.tally.missing(), [], "every fault has happened");
    let (followed, steps) = (totals.followed, totals.steps);
    assert!(followed > SEEDS * 50, "{followed} messages and rows");
    assert!(steps > followed * 3, "{steps} steps");
    assert!(totals.lost * 1000 < followed, "{} lost", totals.lost);
    for both in [
        [Fault::DoubtMade, Fault::DoubtNotMade],
        [Fault::TxDoubtMade, Fault::TxDoubtNotMade],
    ] {
        for outcome in both {
            assert!(totals.tally.of(outcome) >= 10, "{}", outcome.as_str());
        }
    }
}

#[test]
fn without_any_of_its_guards_the_engine_is_caught() {
    let uncaught = Guard::ALL
        .into_iter()
        .filter(|guard| catch(*guard, 0, CAUGHT_WITHIN).is_none());
    assert_eq!(uncaught.collect::<Vec<_>>(), []);
}

/// Whose lack is soon a step that no model has. That of the others shows in what the models leave
/// out (a handler's own rows, bytes, time, order per key, what a dead letter says), or takes a conflict.
const FOLLOWED: [Guard; 6] = [
    Guard::AckLast,
    Guard::Inbox,
    Guard::OneTransaction,
    Guard::Version,
    Guard::Doubt,
    Guard::Confirm,
];

#[test]
fn without_a_guard_a_run_leaves_the_models() {
    let keeps = |guard: &Guard| strays(*guard, 0, 100).is_none();
    let kept: Vec<_> = FOLLOWED.into_iter().filter(keeps).collect();
    assert_eq!(kept, []);
}

#[test]
fn a_guard_is_found_by_its_name() {
    for guard in Guard::ALL {
        assert_eq!(Guard::named(guard.as_str()), Some(guard));
    }
    assert_eq!(Guard::named("no such guard"), None);
}
