//! Tries a test in many orders of its tasks.

use std::future::Future;

use shuttle::scheduler::{PctScheduler, RandomScheduler, Scheduler};
use shuttle::{Config, MaxSteps, Runner};

/// Names the variable that says how many orders are tried; a multiple of what a run of all tests
/// takes.
const ORDERS: &str = "SAGABUS_SHUTTLE_ORDERS";
const ORDERS_IN_CI: usize = 150;
/// Names the variable that says where chance begins.
const SEED: &str = "SAGABUS_SHUTTLE_SEED";
/// Steps after which a run is taken for one without end.
const STEPS_MAX: usize = 2_000_000;
/// A task's futures are deep where nothing is optimised.
const STACK: usize = 1024 * 1024;
/// How often the second kind of chance lets a task go before others that it would have had wait.
const CHANGES: usize = 3;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// Runs a test in many orders: half of them wholly random, half with few changes of who goes first.
///
/// # Panics
/// When it panics, or all its tasks wait, or it does not end in one of them; that order is printed.
pub(crate) fn in_many_orders<F>(test: impl Fn() -> F + Clone + Send + Sync + 'static)
where
    F: Future<Output = ()> + 'static,
{
    let orders = number(ORDERS).and_then(|orders| usize::try_from(orders).ok());
    let orders = orders.unwrap_or(ORDERS_IN_CI);
    let seed = number(SEED).unwrap_or(20_261_122);
    run(RandomScheduler::new_from_seed(seed, orders), test.clone());
    run(PctScheduler::new_from_seed(seed, CHANGES, orders), test);
}

fn run<F>(scheduler: impl Scheduler + 'static, test: impl Fn() -> F + Send + Sync + 'static)
where
    F: Future<Output = ()> + 'static,
{
    let mut config = Config::new();
    config.stack_size = STACK;
    config.max_steps = MaxSteps::FailAfter(STEPS_MAX);
    config.silence_warnings = true;
    Runner::new(scheduler, config).run(move || shuttle::future::block_on(test()));
}
