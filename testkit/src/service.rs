//! What both suites need to run: a runtime, and a word for a service that is not there.

use std::future::Future;
use std::io::Write;

/// Names the environment variable that turns a missing service into a failure.
const SERVICES_REQUIRED: &str = "SAGABUS_SERVICES_REQUIRED";

/// Prints that a backend cannot be tested here.
///
/// # Panics
/// When `SAGABUS_SERVICES_REQUIRED` is set: where services are promised, a missing one is a failure.
pub fn skip(reason: &str) {
    let is_required = std::env::var_os(SERVICES_REQUIRED).is_some();
    assert!(
        !is_required,
        "{SERVICES_REQUIRED} is set, but the service is missing: {reason}"
    );
    println!("SKIPPED: {reason}");
}

/// Says a line also where the test harness keeps the output of passing tests to itself.
///
/// # Panics
/// When the standard output cannot be written.
pub fn say(line: &str) {
    let said = writeln!(std::io::stdout().lock(), "{line}");
    said.expect("the standard output can be written");
}

/// Runs a test on threads of its own, so that races are real.
pub fn block_on(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime needs threads and a timer");
    runtime.block_on(test);
}
