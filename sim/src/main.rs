//! Runs seeds and prints what came of them; one seed again with `--seed N --trace`.

use std::process::ExitCode;

use clap::Parser;
use sagabus_sim::seeds::Totals;
use sagabus_sim::{Fault, Followed, Guard, How, run, seeds};

/// The engine, simulated.
#[derive(Debug, Parser)]
struct Arguments {
    /// How many seeds.
    #[arg(long, default_value_t = 1000)]
    seeds: u64,
    /// The first of them.
    #[arg(long, default_value_t = 0)]
    from: u64,
    /// This seed alone.
    #[arg(long)]
    seed: Option<u64>,
    /// Prints every event of that seed.
    #[arg(long, requires = "seed")]
    trace: bool,
    /// Switches a guard off, for that seed.
    #[arg(long, requires = "seed")]
    without: Option<String>,
    /// Threads.
    #[arg(long, default_value_t = 2)]
    threads: usize,
    /// Switches each guard off and counts the seeds until it shows; at most this many.
    #[arg(long, default_value_t = 1000)]
    guards: u64,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match arguments.seed {
        Some(seed) => run_one(seed, &arguments),
        None => run_all(&arguments),
    }
}

fn run_one(seed: u64, arguments: &Arguments) -> ExitCode {
    let without = match arguments.without.as_deref().map(Guard::named) {
        Some(None) => {
            let names: Vec<_> = Guard::ALL.iter().map(|guard| guard.as_str()).collect();
            eprintln!("no such guard; there are {}", names.join(", "));
            return ExitCode::FAILURE;
        }
        Some(guard) => guard,
        None => None,
    };
    let how = How {
        without,
        is_shown: arguments.trace,
    };
    let ran = run(seed, how);
    println!(
        "seed {seed}: {} events, trace {:016x}",
        ran.events, ran.trace
    );
    let Followed {
        followed,
        steps,
        stray,
        ..
    } = &ran.followed;
    println!("{steps} steps of {followed} messages and rows followed through the models");
    for wrong in &ran.wrongs {
        println!("  WRONG {wrong}");
    }
    if let Some(stray) = stray {
        println!("  STRAY {stray}");
    }
    exit(ran.is_good())
}

fn run_all(arguments: &Arguments) -> ExitCode {
    let (mut passed, mut failed) = (0, 0);
    let mut count = |is_good: bool| {
        passed += u32::from(is_good);
        failed += u32::from(!is_good);
    };
    let totals = seeds::run_many(arguments.from, arguments.seeds, arguments.threads);
    show(&totals, arguments.from);
    count(totals.failed.is_empty());
    count(totals.differing.is_empty());
    count(totals.tally.missing().is_empty());
    let (mut guards, mut shown) = (0, 0);
    for guard in Guard::ALL.into_iter().filter(|_| arguments.guards > 0) {
        let caught = seeds::catch(guard, arguments.from, arguments.guards);
        count(caught.is_some());
        guards += 1;
        shown += u32::from(caught.is_some());
        match caught {
            Some(ran) => {
                let tried = ran.seed - arguments.from + 1;
                let wrong = ran.wrongs.first().map_or("", String::as_str);
                println!(
                    "  without {}: caught by seed {tried}: {wrong}",
                    guard.as_str()
                );
            }
            None => println!("  NOT CAUGHT without {}", guard.as_str()),
        }
    }
    println!("figure: guards whose lack shows: {shown} of {guards}");
    println!("{passed} passed, {failed} failed, 0 skipped");
    exit(failed == 0)
}

/// Prints what came of the seeds.
fn show(totals: &Totals, from: u64) {
    println!(
        "simulation: {} seeds from {}, {} events, {} failed, {} not the same again",
        totals.seeds,
        from,
        totals.events,
        totals.failed.len(),
        totals.differing.len()
    );
    println!("figure: seeds: {}", totals.seeds);
    println!("figure: events: {}", totals.events);
    println!(
        "figure: seeds in which something is wrong: {}",
        totals.failed.len()
    );
    println!(
        "figure: seeds that were another run again: {}",
        totals.differing.len()
    );
    println!(
        "figure: messages and rows followed through the models: {} in {} steps, {} lost sight of",
        totals.followed, totals.steps, totals.lost
    );
    for fault in Fault::ALL {
        println!("figure: {}: {}", fault.as_str(), totals.tally.of(fault));
    }
    for ran in totals.failed.iter().take(10) {
        let seed = ran.seed;
        println!("  FAILED seed {seed}: cargo run --package sagabus-sim -- --seed {seed} --trace");
        let strays = ran.followed.stray.iter();
        for wrong in ran.wrongs.iter().chain(strays) {
            println!("    {wrong}");
        }
    }
    for seed in &totals.differing {
        println!("  NOT THE SAME seed {seed}");
    }
    for fault in totals.tally.missing() {
        println!("  NEVER HAPPENED {}", fault.as_str());
    }
}

fn exit(is_good: bool) -> ExitCode {
    if is_good {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
