//! Checks every model and every mutant, and prints what was found.

use std::process::ExitCode;

use sagabus_model::{Caught, Holds, all};

fn main() -> ExitCode {
    let (mut passed, mut failed) = (0, 0);
    let mut count = |is_good: bool| {
        passed += u32::from(is_good);
        failed += u32::from(!is_good);
    };
    let (mut states, mut mutants, mut uncaught) = (0, 0, 0);
    let (mut models, mut reached, mut unreached) = (0, 0, 0);
    for suite in all() {
        let holds = (suite.explore)();
        show(&holds);
        models += 1;
        states += holds.states;
        reached += holds.reached.len();
        unreached += holds.unreached.len();
        count(holds.violated.is_empty() && holds.unreached.is_empty());
        for caught in (suite.catch)() {
            show_mutant(&caught);
            mutants += 1;
            uncaught += u32::from(caught.steps.is_none());
            count(caught.steps.is_some());
        }
    }
    println!("figure: models: {models}");
    println!("figure: states: {states}");
    println!(
        "figure: interesting states that are reached: {reached} of {}",
        reached + unreached
    );
    println!("figure: mutants that are not caught: {uncaught} of {mutants}");
    println!("{passed} passed, {failed} failed, 0 skipped");
    if failed == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

fn show(holds: &Holds) {
    println!(
        "{}: {} states, depth {}, {} properties hold, {} interesting states reached",
        holds.model,
        holds.states,
        holds.depth,
        holds.properties.len(),
        holds.reached.len(),
    );
    for (property, steps) in &holds.violated {
        println!("  VIOLATED {property}");
        for step in steps {
            println!("    {step}");
        }
    }
    for name in &holds.unreached {
        println!("  NEVER REACHED {name}");
    }
}

fn show_mutant(caught: &Caught) {
    let Caught {
        mutant,
        property,
        states,
        ..
    } = caught;
    match caught.steps {
        Some(steps) => println!("  {mutant}: {property}, {steps} steps, {states} states"),
        None => println!("  NOT CAUGHT {mutant}: {property}, {states} states"),
    }
}
