//! The table at the end of a set-up.

use std::collections::BTreeMap;

use crate::judge::Verdict;
use crate::run::Outcome;
use crate::site::SetUp;

/// Examples of one thing that is wrong.
const EXAMPLES_MAX: usize = 5;
/// What the hosts counted and is worth a line.
const COUNTED: [&str; 9] = [
    "committed",
    "duplicates",
    "conflicts",
    "resubmitted",
    "failed_attempts",
    "postponed",
    "handed_over",
    "claimed",
    "published",
];

/// Adds what one set-up showed to what all have shown.
pub(crate) fn add(in_all: &mut BTreeMap<&'static str, u64>, outcome: &Outcome) {
    for (what, value) in figures(&outcome.verdict) {
        *in_all.entry(what).or_default() += u64::try_from(value).unwrap_or_default();
    }
    for (what, times) in &outcome.faults {
        *in_all.entry(what).or_default() += times;
    }
}

/// Prints what all set-ups have shown.
pub(crate) fn show_all(in_all: &BTreeMap<&'static str, u64>) {
    println!();
    for (what, times) in in_all {
        println!("figure: in all, {what}: {times}");
    }
}

/// Prints what was attempted, what came of it, what was done and what was counted.
pub(crate) fn show(outcome: &Outcome) {
    let word = if outcome.is_good() { "ok" } else { "FAILED" };
    let set_up = outcome.set_up;
    println!("\n{set_up:?}: {word}");
    show_verdict(set_up, &outcome.verdict);
    match outcome.quiet_after {
        Some(time) => println!("  all done {:.1} s after the storm", time.as_secs_f64()),
        None => println!("  NEVER DONE after the storm"),
    }
    for (what, times) in &outcome.faults {
        println!("figure: {set_up:?}, {what}: {times}");
    }
    println!("  copies under a known identity: {}", outcome.copies);
    println!("  lives of hosts: {}", outcome.lives);
    let counted = COUNTED.iter().filter_map(|name| {
        let value = outcome.counted.get(*name)?;
        Some(format!("{name} {value}"))
    });
    let counted: Vec<_> = counted.collect();
    println!("  counted at least: {}", counted.join(", "));
    if let Some(stops) = &outcome.stops {
        let (in_hand, again) = (stops.in_hand, stops.again);
        println!("figure: {set_up:?}, in hand when told to go: {in_hand}");
        println!("figure: {set_up:?}, of these handled again: {again}");
    }
    for (fault, why) in &outcome.not_run {
        println!("  NOT RUN {fault:?}: {why}");
    }
    for what in &outcome.vacuous {
        println!("  NEVER HAPPENED {what}");
    }
}

/// Prints what was attempted, what came of it, and what is wrong.
pub(crate) fn show_verdict(set_up: SetUp, verdict: &Verdict) {
    println!(
        "  attempt {}, acknowledged {}, unknown {}, failed {}, recovered {}",
        verdict.attempts, verdict.acknowledged, verdict.unknown, verdict.failed, verdict.recovered
    );
    println!(
        "  effects {}, lost {}, duplicated {}, unexpected {}",
        verdict.effects, verdict.lost, verdict.duplicated, verdict.unexpected
    );
    for (what, value) in figures(verdict) {
        println!("figure: {set_up:?}, {what}: {value}");
    }
    for (what, examples) in &verdict.wrong {
        let shown = examples[..examples.len().min(EXAMPLES_MAX)].join("; ");
        println!("  WRONG {what}: {} ({shown})", examples.len());
    }
}

/// What is counted of effects.
fn figures(verdict: &Verdict) -> [(&'static str, usize); 4] {
    [
        ("effects", verdict.effects),
        ("lost", verdict.lost),
        ("duplicated", verdict.duplicated),
        ("unexpected", verdict.unexpected),
    ]
}
