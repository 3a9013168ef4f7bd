//! A child process: started, watched, and how it ended.

use std::io::{BufRead, BufReader};
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Stdio};
use std::time::Duration;

use tokio::time::Instant;

/// The variable that arms a crash point.
const FAULT: &str = "SAGABUS_FAULT";

/// This test binary, about to be started again to run one test that is no test.
pub(crate) struct Child {
    test: &'static str,
    variables: Vec<(&'static str, String)>,
}

impl Child {
    /// Names the test that the child runs.
    pub(crate) fn new(test: &'static str) -> Self {
        Self {
            test,
            variables: Vec::new(),
        }
    }

    /// Tells the child something.
    pub(crate) fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.variables.push((name, value.into()));
        self
    }

    /// Makes the child kill itself when it reaches a point for the `hit`-th time.
    pub(crate) fn killed_at(self, point: &str, hit: u64) -> Self {
        self.with(FAULT, format!("{point}:{hit}:kill"))
    }

    fn command(&self) -> Command {
        let this = std::env::current_exe().expect("a test binary knows its own path");
        let mut command = Command::new(this);
        command.args(["--exact", self.test, "--nocapture"]);
        command.env_remove(FAULT).env("RUST_BACKTRACE", "0");
        command.envs(self.variables.iter().map(|(name, value)| (name, value)));
        command
    }
}

/// How a child ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    /// It reported the point and was killed by SIGKILL.
    KilledAtPoint,
    /// It aborted by itself.
    Aborted,
    /// It finished its work.
    Done,
    /// It failed, and did not finish its work.
    Failed,
}

/// Runs a child to its end, on a thread of its own, so that a broker in this process goes on.
///
/// # Panics
/// When it fails or takes longer than `patience`.
pub(crate) async fn run_child(child: Child, patience: Duration) -> Ended {
    let (ended, lines) = run_child_that_may_fail(child, patience).await;
    assert_ne!(ended, Ended::Failed, "a child failed: {lines:#?}");
    ended
}

/// Runs a child that need not finish its work; returns also what it wrote on its standard error.
///
/// # Panics
/// When it takes longer than `patience`.
pub(crate) async fn run_child_that_may_fail(
    child: Child,
    patience: Duration,
) -> (Ended, Vec<String>) {
    let waiting = tokio::task::spawn_blocking(move || run(&child, patience));
    waiting.await.expect("the child ended as it may")
}

fn run(child: &Child, patience: Duration) -> (Ended, Vec<String>) {
    let mut command = child.command();
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    let mut process = command
        .spawn()
        .expect("the test binary can be started again");
    let errors = process.stderr.take().expect("it is piped");
    let reader = std::thread::spawn(move || {
        BufReader::new(errors)
            .lines()
            .map_while(Result::ok)
            .collect::<Vec<_>>()
    });
    let deadline = Instant::now() + patience;
    let status = loop {
        if let Some(status) = process.try_wait().expect("a child can be waited for") {
            break status;
        }
        if Instant::now() > deadline {
            process.kill().expect("our own child can be killed");
            let _ = process.wait(); // It was killed in the line above.
            let lines = reader.join().expect("the reader only reads");
            panic!("{} took longer than {patience:?}: {lines:#?}", child.test);
        }
        std::thread::sleep(Duration::from_millis(5));
    };
    let lines = reader.join().expect("the reader only reads");
    let ended = match status.signal() {
        Some(9) => {
            let is_report = |line: &String| line.starts_with("fault ") && line.ends_with("kill");
            assert!(
                lines.iter().any(is_report),
                "a killed child says where: {lines:#?}"
            );
            Ended::KilledAtPoint
        }
        Some(6) => Ended::Aborted,
        _ if status.success() => Ended::Done,
        _ => Ended::Failed,
    };
    (ended, lines)
}
