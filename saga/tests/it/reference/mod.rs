//! Random messages, copies, disorder, crashes and timers, against a reference that knows nothing of
//! ours. Memory is a subject like the databases.
//!
//! `SAGABUS_PROPERTY_CASES` makes more plans than a run of all tests has time for, and
//! `SAGABUS_PROPERTY_SEED` others.

mod drive;
mod judge;
mod model;
mod plan;
mod subject;

use std::cell::RefCell;
use std::future::Future;

use proptest::test_runner::{Config, RngAlgorithm, TestCaseError, TestError, TestRng, TestRunner};
use sagabus_testkit::store::StoreUnderTest;
use tokio::runtime::Builder;

use self::drive::World;
use self::judge::{Record, judge};
use self::model::Sums;
use self::plan::{Plan, plans};
use crate::stores::{self, say};

/// Plans in a run of all tests: about half a minute on a small machine.
const CASES: u32 = 24;
/// Fixed, so that a failure comes again.
const SEED: u8 = 21;

#[test]
fn random_plans_in_memory_end_as_the_reference_does() {
    random_plans("memory", stores::memory());
}

#[test]
fn random_plans_on_sqlite_end_as_the_reference_does() {
    random_plans("sqlite", stores::sqlite());
}

#[test]
fn random_plans_on_postgres_end_as_the_reference_does() {
    random_plans("postgres", stores::postgres());
}

/// A machine that forgets to cancel shows that the property can fail.
#[test]
fn a_machine_with_a_mistake_does_not_end_as_the_reference_does() {
    let found = explore(stores::memory(), false, CASES);
    let (_, result) = found.expect("memory is always there");
    let Err(TestError::Fail(reason, _)) = result else {
        panic!("the mistake was not found: {result:?}");
    };
    assert!(
        reason.message().contains("must not be given up"),
        "{reason}"
    );
}

/// Reads a number from the environment.
fn asked<T: std::str::FromStr>(name: &str, otherwise: T) -> T {
    let given = std::env::var(name).ok();
    given
        .and_then(|text| text.parse().ok())
        .unwrap_or(otherwise)
}

fn random_plans(name: &str, site: impl Future<Output = Option<StoreUnderTest>>) {
    let cases = asked("SAGABUS_PROPERTY_CASES", CASES);
    let Some((figures, result)) = explore(site, true, cases) else {
        return;
    };
    say(&format!(
        "sagas against the reference on {name}: {figures}\n"
    ));
    match result {
        Ok(()) => {}
        Err(TestError::Fail(reason, plan)) => panic!("{reason}\nof the plan {plan:?}"),
        Err(error) => panic!("{error}"),
    }
}

/// What the plans of one run came to.
#[derive(Default)]
struct Figures {
    plans: u32,
    sums: Sums,
}

/// Runs random plans on one database; `None` where there is none.
fn explore(
    site: impl Future<Output = Option<StoreUnderTest>>,
    cancels: bool,
    cases: u32,
) -> Option<(String, Result<(), TestError<Plan>>)> {
    // One thread: what is to crash there, crashes here.
    let runtime = Builder::new_current_thread().enable_all().build().unwrap();
    let site = runtime.block_on(site)?;
    let world = RefCell::new(World::new(site, cancels));
    let figures = RefCell::new(Figures::default());
    let config = Config {
        cases,
        failure_persistence: None,
        max_shrink_iters: 40,
        ..Config::default()
    };
    let seed = [asked("SAGABUS_PROPERTY_SEED", SEED); 32];
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &seed);
    let result = TestRunner::new_with_rng(config, rng).run(&plans(), |plan| {
        let mut world = world.borrow_mut();
        let records = runtime.block_on(world.run(&plan));
        figures.borrow_mut().plans += 1;
        for record in &records {
            let sums = judge(record).map_err(|error| failed(&error, record))?;
            figures.borrow_mut().add(sums);
        }
        Ok(())
    });
    let mut world = world.into_inner();
    runtime.block_on(world.stop());
    let Figures { plans, sums } = figures.into_inner();
    let World {
        messages,
        copies,
        crashes,
        ..
    } = world;
    let Sums {
        applied,
        kept,
        armed,
        fired,
        cancelled,
    } = sums;
    let figures = format!(
        "{plans} plans, {messages} messages, {copies} copies, {crashes} crashes of two hosts, \
         {applied} transitions, {kept} deferrals, {armed} timers armed, {fired} fired, \
         {cancelled} cancelled"
    );
    Some((figures, result))
}

fn failed(error: &str, record: &Record) -> TestCaseError {
    TestCaseError::fail(format!("{error}\n{record:?}"))
}

impl Figures {
    fn add(&mut self, more: Sums) {
        let sums = &mut self.sums;
        sums.applied += more.applied;
        sums.kept += more.kept;
        sums.armed += more.armed;
        sums.fired += more.fired;
        sums.cancelled += more.cancelled;
    }
}
