//! The stages of `cargo xtask test`, in the order in which they run.
//!
//! **To add a stage**, add an entry to [`STAGES`]: the command must end with exit code 0 exactly
//! when it passed. It runs at the root of the work tree with `SAGABUS_POSTGRES_URL` set (unset
//! under `--no-postgres`), and what it leaves running in its process group is ended. Its tests
//! are counted from the `test result:` lines that it prints; a program that is no test harness
//! prints `N passed, N failed, N skipped` alone on a line instead.

/// One part of the test run.
#[derive(Debug)]
pub(crate) struct Stage {
    /// One word, for `--only` and the table at the end.
    pub(crate) name: &'static str,
    /// What runs.
    pub(crate) command: Call,
    /// What it shows, for `--list` and the heading.
    pub(crate) what: &'static str,
}

/// A call of cargo.
#[derive(Debug)]
pub(crate) enum Call {
    /// `cargo test --workspace --all-features --no-fail-fast <these>`; what a person gives after
    /// `--` is handed to the tests.
    Tests(&'static [&'static str]),
    /// `cargo <these>`, for programs that are not test harnesses: `&["run", "--example", ..]`.
    Program(&'static [&'static str]),
}

/// The core, built a second time for tests of its own: the first one's are not its.
const TWICE: &str = "sagabus-shuttle";

/// Fast ones first, so that a mistake shows early.
pub(crate) const STAGES: &[Stage] = &[
    Stage {
        name: "unit",
        command: Call::Tests(&["--lib", "--bins", "--exclude", TWICE]),
        what: "unit tests of every crate",
    },
    Stage {
        name: "model",
        command: Call::Program(&["run", "--quiet", "--package", "sagabus-model"]),
        what: "the design holds in every state of its models, and every mutant of it is caught",
    },
    Stage {
        name: "simulation",
        command: Call::Program(&[
            "run",
            "--quiet",
            "--release",
            "--package",
            "sagabus-sim",
            "--",
            "--seeds",
            "10000",
        ]),
        what: "the engine over a store and a broker that fail as 10,000 seeds say, and without its guards",
    },
    Stage {
        name: "programs",
        command: Call::Program(&[
            "build",
            "--package",
            "sagabus",
            "--all-features",
            "--examples",
        ]),
        what: "the examples are built: tests start them as processes",
    },
    Stage {
        name: "integration",
        command: Call::Tests(&["--test", "*"]),
        what: "conformance suites, crash and cross-crate tests on SQLite, PostgreSQL, RabbitMQ and Kafka",
    },
    Stage {
        name: "chaos",
        command: Call::Program(&[
            "run",
            "--quiet",
            "--package",
            "sagabus-chaos",
            "--",
            "run",
            "--minutes",
            "1.6",
        ]),
        what: "services killed, frozen and cut off for a short while lose, double and invent nothing",
    },
    Stage {
        name: "bench",
        command: Call::Program(&[
            "run",
            "--quiet",
            "--release",
            "--package",
            "sagabus-bench",
            "--no-default-features",
            "--",
            "quick",
        ]),
        what: "on a quiet machine nothing is far slower than it was, beside programs by hand",
    },
    Stage {
        name: "examples",
        command: Call::Tests(&["--examples"]),
        what: "examples compile and their tests pass",
    },
    Stage {
        name: "docs",
        command: Call::Tests(&["--doc", "--exclude", TWICE]),
        what: "examples in the documentation",
    },
];

impl Call {
    /// The arguments for cargo.
    pub(crate) fn arguments(&self, handed_on: &[String]) -> Vec<String> {
        let owned = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
        match self {
            Self::Tests(selection) => {
                let mut words: Vec<String> =
                    owned(&["test", "--workspace", "--all-features", "--no-fail-fast"]);
                words.extend(selection.iter().map(|word| (*word).to_owned()));
                if !handed_on.is_empty() {
                    words.push("--".to_owned());
                    words.extend(handed_on.iter().cloned());
                }
                words
            }
            Self::Program(words) => owned(words),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_different_single_words() {
        for (at, stage) in STAGES.iter().enumerate() {
            assert!(
                stage
                    .name
                    .chars()
                    .all(|c| c.is_ascii_lowercase() || c == '-')
            );
            assert!(
                STAGES[..at].iter().all(|other| other.name != stage.name),
                "{}",
                stage.name
            );
        }
    }

    #[test]
    fn arguments_are_handed_to_tests_only() {
        let handed_on = ["store".to_owned(), "--nocapture".to_owned()];
        let shown = Call::Tests(&["--doc"]).arguments(&handed_on).join(" ");
        let expected = "test --workspace --all-features --no-fail-fast --doc -- store --nocapture";
        assert_eq!(shown, expected);
        assert_eq!(Call::Program(&["run"]).arguments(&handed_on), ["run"]);
    }
}
